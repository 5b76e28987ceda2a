#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "shard/bytes.hpp"
#include "shard/detail/export.hpp"

namespace shard::detail {

/// XXH3_64bits_withSeed() of any bytes, fast for long ones too: the secret that XXH3 derives from
/// the seed is made once, here, and not for each payload.
/// Lives out of line so that xxhash.h, with its macros, stays out of the hosts' translation units.
/// Source: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
/// Threads: any, at once. Never allocates.
class SHARD_EXPORT Hasher {
 public:
  explicit Hasher(std::uint64_t seed) noexcept;

  [[nodiscard]] std::uint64_t operator()(Bytes bytes) const noexcept;
  [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }

 private:
  std::uint64_t seed_;
  alignas(64) std::array<std::byte, 192> secret_;  // XXH3_SECRET_DEFAULT_SIZE
};

/// A number that an outsider cannot guess, for the seed of a manager that was given none.
[[nodiscard]] SHARD_EXPORT std::uint64_t random_seed();

}  // namespace shard::detail
