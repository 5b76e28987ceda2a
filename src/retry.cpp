#include "shard/retry.hpp"

#include <algorithm>
#include <cmath>

#include "bounds.hpp"

namespace shard {

namespace {

using detail::require_between;
using std::chrono::nanoseconds;

}  // namespace

void RetryOptions::validate() const {
  require_between("retry.initial_backoff", initial_backoff, nanoseconds{0}, std::chrono::hours{1});
  require_between("retry.max_backoff", max_backoff, initial_backoff, std::chrono::hours{24});
  require_between("retry.multiplier", multiplier, 1, 10);
  require_between("retry.jitter", jitter, 0, 1);
  if (max_elapsed <= nanoseconds{0}) {
    throw ConfigError("retry.max_elapsed", detail::text_of(max_elapsed), "above 0 ns");
  }
}

nanoseconds backoff_before(std::uint32_t attempt, const RetryOptions& options,
                           std::uint64_t random) noexcept {
  if (attempt < 2 || options.initial_backoff <= nanoseconds{0}) {
    return nanoseconds{0};
  }
  // The power may be infinite, which the bound takes care of.
  const auto grown = static_cast<double>(options.initial_backoff.count()) *
                     std::pow(options.multiplier, static_cast<double>(attempt - 2));
  const auto base = std::min(grown, static_cast<double>(options.max_backoff.count()));
  const auto part = static_cast<double>(random >> 11U) * 0x1p-53;  // 0 .. less than 1
  const auto wait = std::round(base * (1 - options.jitter + 2 * options.jitter * part));
  // No valid options get there; but a cast out of range would be undefined.
  if (!(wait > 0)) return nanoseconds{0};
  if (wait >= 0x1p63) return nanoseconds::max();
  return nanoseconds{static_cast<std::int64_t>(wait)};
}

}  // namespace shard
