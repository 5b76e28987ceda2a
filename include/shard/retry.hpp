#pragma once

#include <chrono>
#include <cstdint>

#include "shard/detail/export.hpp"

namespace shard {

/// How often and how long a batch is tried. Waits are initial * multiplier^n, at most max_backoff, each changed by a
/// random part of up to +-jitter, so that programs that failed together do not come back together.
struct RetryOptions {
  /// 0 .. 1 h. Zero: at once.
  std::chrono::nanoseconds initial_backoff = std::chrono::milliseconds{100};
  /// initial_backoff .. 24 h.
  std::chrono::nanoseconds max_backoff = std::chrono::milliseconds{3'200};
  /// 1 .. 10.
  double multiplier = 2.0;
  /// 0 .. 1.
  double jitter = 0.25;

  /// Then it is a dead letter. 1: is never retried. 0: no limit.
  std::uint32_t max_attempts = 10;
  /// A batch that was first tried longer ago is not retried. Above 0; max(): no limit.
  std::chrono::nanoseconds max_elapsed = std::chrono::minutes{1};

  /// Throws ConfigError, with field() like "retry.jitter", for the first field out of bounds.
  SHARD_EXPORT void validate() const;

  bool operator==(const RetryOptions&) const = default;
};

/// The wait before attempt number `attempt` (2 is the first retry).
/// \param random  any 64 bits: the jitter is made from them
/// Threads: any.
[[nodiscard]] SHARD_EXPORT std::chrono::nanoseconds backoff_before(std::uint32_t attempt,
                                                                   const RetryOptions& options,
                                                                   std::uint64_t random) noexcept;

}  // namespace shard
