#include "shard/detail/hash.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <vector>

// Warnings of this header are not ours; CMake finds it as a system header.
#define XXH_INLINE_ALL
#include <xxhash.h>

TEST_CASE(
    "the hash is XXH3 with the secret of the seed, for every length around its internal borders",
    "[R-D10]") {
  std::vector<unsigned char> bytes(1000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(i * 131 + 7);
  for (const std::uint64_t seed :
       {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}, std::uint64_t{0x9E3779B97F4A7C15}}) {
    const shard::detail::Hasher hasher(seed);
    CHECK(hasher.seed() == seed);
    std::vector<std::byte> secret(XXH3_SECRET_DEFAULT_SIZE);
    XXH3_generateSecret_fromSeed(secret.data(), seed);
    std::size_t different = 0;
    for (std::size_t size = 0; size <= bytes.size(); ++size) {
      const shard::Bytes view(reinterpret_cast<const std::byte*>(bytes.data()), size);
      different +=
          hasher(view) == XXH3_64bits_withSecret(bytes.data(), size, secret.data(), secret.size())
              ? 0U
              : 1U;
    }
    INFO("seed " << seed);
    CHECK(different == 0);
  }
}

TEST_CASE("the hash of no bytes does not depend on where they are not", "[R-D10]") {
  const shard::detail::Hasher hasher(3);
  CHECK(hasher(shard::Bytes{}) == hasher(shard::Bytes{""}));
}

TEST_CASE("random seeds differ", "[R-D10]") {
  CHECK(shard::detail::random_seed() != shard::detail::random_seed());
}
