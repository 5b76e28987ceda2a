#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "shard/bytes.hpp"
#include "shard/detail/export.hpp"

namespace shard::detail {

/// The hash that routes: XXH3_64bits_withSecret() with the secret of XXH3_generateSecret_fromSeed(seed),
/// made once. Cheaper than XXH3_64bits_withSeed(), which works the seed in for each payload.
/// Lives out of line so that xxhash.h, with its macros, stays out of the hosts' translation units.
/// Source: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
/// Threads: any, at once. Never allocates.
class SHARD_EXPORT Hasher {
 public:
  explicit Hasher(std::uint64_t seed) noexcept;

  [[nodiscard]] std::uint64_t operator()(Bytes bytes) const noexcept;
  /// The same for each of `payloads`, into `hashes`: one call, so that the hashes overlap.
  void many(std::span<const Bytes> payloads, std::uint64_t* hashes) const noexcept;
  [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }

 private:
  std::uint64_t seed_;
  alignas(64) std::array<std::byte, 192> secret_{};  // XXH3_SECRET_DEFAULT_SIZE
};

/// A number that an outsider cannot guess, for the seed of a manager that was given none.
[[nodiscard]] SHARD_EXPORT std::uint64_t random_seed();

}  // namespace shard::detail
