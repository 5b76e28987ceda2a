#include "shard/clock.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#if defined(SHARD_HAS_TSC)
#include <cpuid.h>
#endif

namespace shard {

TimeSource::~TimeSource() = default;

namespace {

std::uint64_t steady_nanoseconds() noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

#if defined(SHARD_HAS_TSC)

/// CPUID 0x8000'0007, EDX bit 8: the counter runs at one rate in all power states.
/// Source: Intel SDM volume 3, "Invariant TSC"; AMD APM volume 3, "Advanced Power Management".
bool counter_is_invariant() noexcept {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid(0x8000'0007U, &a, &b, &c, &d) != 0 && (d & (1U << 8U)) != 0;
}

struct Reading {
  std::uint64_t ticks;
  std::uint64_t nanoseconds;
};

/// Both clocks at one moment: of several readings the one that took the fewest ticks, so that an
/// interrupt in between does not count.
Reading read_both() noexcept {
  Reading best{};
  auto best_width = std::numeric_limits<std::uint64_t>::max();
  for (int i = 0; i < 8; ++i) {
    const std::uint64_t before = __builtin_ia32_rdtsc();
    const auto nanoseconds = steady_nanoseconds();
    const std::uint64_t after = __builtin_ia32_rdtsc();
    if (after - before < best_width) {
      best_width = after - before;
      best = {before + best_width / 2, nanoseconds};
    }
  }
  return best;
}

Reading read_after(std::uint64_t nanoseconds) noexcept {
  while (steady_nanoseconds() < nanoseconds) {
  }
  return read_both();
}

/// Nanoseconds per tick * 2^32, or 0 when the counter cannot be trusted. The rate of the first half of
/// the calibration must predict the second.
std::uint64_t calibrate() noexcept {
  constexpr std::uint64_t kHalf = 1'000'000;
  if (!counter_is_invariant()) {
    return 0;
  }
  const auto start = read_both();
  const auto middle = read_after(start.nanoseconds + kHalf);
  const auto end = read_after(middle.nanoseconds + kHalf);
  if (middle.ticks <= start.ticks || end.ticks <= middle.ticks) {
    return 0;
  }
  const auto rate = [](const Reading& from, const Reading& to) {
    return static_cast<double>(to.nanoseconds - from.nanoseconds) /
           static_cast<double>(to.ticks - from.ticks);
  };
  // Each reading is good to some tens of nanoseconds, which over a millisecond is the slack added here.
  const auto tolerance = Clock::kAgreement + 200.0 / static_cast<double>(kHalf);
  const auto overall = rate(start, end);
  if (std::abs(rate(start, middle) - rate(middle, end)) > tolerance * overall) {
    return 0;
  }
  return static_cast<std::uint64_t>(std::llround(overall * 4294967296.0));
}

std::uint64_t multiplier() noexcept {
  static const std::uint64_t once = calibrate();
  return once;
}

#endif

}  // namespace

Clock::Clock(const TimeSource* source) noexcept
    : source_(source), epoch_(std::chrono::system_clock::now()) {
  if (source_ != nullptr) {
    base_ = source_->nanoseconds();
    return;
  }
#if defined(SHARD_HAS_TSC)
  multiplier_ = multiplier();
  if (multiplier_ != 0) {
    base_ = __builtin_ia32_rdtsc();
    return;
  }
#endif
  base_ = steady_nanoseconds();
}

Timestamp Clock::slow_now() const noexcept {
  const auto now = source_ != nullptr ? source_->nanoseconds() : steady_nanoseconds();
  return {std::min(now > base_ ? now - base_ : 0, Timestamp::max().nanoseconds)};
}

}  // namespace shard
