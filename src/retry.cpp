#include "shard/retry.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string>

#include "shard/options.hpp"

namespace shard {

namespace {

using std::chrono::nanoseconds;

std::string text_of(nanoseconds value) { return std::to_string(value.count()) + " ns"; }

void require_time(std::string_view field, nanoseconds value, nanoseconds low, nanoseconds high) {
  if (value < low || value > high) {
    throw ConfigError(field, text_of(value), std::to_string(low.count()) + " .. " + text_of(high));
  }
}

void require_number(std::string_view field, double value, double low, double high) {
  // Written such that NaN, which compares with nothing, is refused.
  if (!(value >= low && value <= high)) {
    const auto text = [](double number) {
      std::array<char, 32> digits{};  // the shortest form that reads back the same has at most 24
      const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
      return std::string(digits.data(), end);
    };
    throw ConfigError(field, text(value), text(low) + " .. " + text(high));
  }
}

}  // namespace

void RetryOptions::validate() const {
  require_time("retry.initial_backoff", initial_backoff, nanoseconds{0}, std::chrono::hours{1});
  require_time("retry.max_backoff", max_backoff, initial_backoff, std::chrono::hours{24});
  require_number("retry.multiplier", multiplier, 1, 10);
  require_number("retry.jitter", jitter, 0, 1);
  if (max_elapsed <= nanoseconds{0}) {
    throw ConfigError("retry.max_elapsed", text_of(max_elapsed), "above 0 ns");
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
