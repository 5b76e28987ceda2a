#include "shard/clock.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <limits>

#include "support/manual_clock.hpp"

#if defined(SHARD_HAS_TSC)
#include <cpuid.h>
#endif

namespace shard {

/// Makes clocks in states that this machine may not have.
struct ClockTestAccess {
  /// One that has found its counter unfit.
  static Clock without_counter() {
    Clock clock;
    clock.multiplier_ = 0;
    clock.base_ = static_cast<std::uint64_t>(
        std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
    return clock;
  }
#if defined(SHARD_HAS_TSC)
  static Clock with_counter(std::uint64_t base, std::uint64_t multiplier) {
    Clock clock;
    clock.base_ = base;
    clock.multiplier_ = multiplier;
    return clock;
  }
  static Timestamp at(const Clock& clock, std::uint64_t ticks) { return clock.from_ticks(ticks); }
#endif
};

}  // namespace shard

using shard::Clock;
using shard::ClockTestAccess;
using shard::Timestamp;
using shard_test::ManualClock;

namespace {

std::int64_t steady() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::int64_t elapsed(const Clock& clock) {
  return static_cast<std::int64_t>(clock.now().nanoseconds);
}

/// Does `clock` advance by what the monotonic clock does while that advances by 20 ms, within `part` of it and
/// half a microsecond? Readings of one lie between readings of the other, so being interrupted widens
/// the bracket and fails nothing.
bool agrees(const Clock& clock, double part) {
  const auto before_first = steady();
  const auto first = elapsed(clock);
  const auto after_first = steady();
  std::int64_t before_last = 0;
  do {
    before_last = steady();
  } while (before_last < after_first + 20'000'000);
  const auto last = elapsed(clock);
  const auto after_last = steady();
  const auto advanced = static_cast<double>(last - first);
  return advanced >= static_cast<double>(before_last - after_first) * (1 - part) - 500 &&
         advanced <= static_cast<double>(after_last - before_first) * (1 + part) + 500;
}

}  // namespace

TEST_CASE("a clock tells the nanoseconds since it was made, wherever its source began",
          "[R-B1][R-B3]") {
  const auto start = GENERATE(std::uint64_t{0}, std::uint64_t{1'000'000'007},
                              std::numeric_limits<std::uint64_t>::max() - 5);
  ManualClock source(start);
  const Clock clock(&source);
  CHECK(clock.now().nanoseconds == 0);
  source.advance(5);
  CHECK(clock.now() == Timestamp{5});
  CHECK(clock.now().since_epoch() == std::chrono::nanoseconds{5});
}

TEST_CASE("a clock whose source steps back behind the epoch stays at it", "[R-B1]") {
  ManualClock source(1000);
  const Clock clock(&source);
  source.set(999);
  CHECK(clock.now().nanoseconds == 0);
  source.set(0);
  CHECK(clock.now().nanoseconds == 0);
}

TEST_CASE("a clock stops at the last timestamp there is", "[R-B4]") {
  ManualClock source(0);
  const Clock clock(&source);
  source.set(Timestamp::max().nanoseconds);
  CHECK(clock.now() == Timestamp::max());
  source.set(std::numeric_limits<std::uint64_t>::max());
  CHECK(clock.now() == Timestamp::max());
}

TEST_CASE("a time after a timestamp ends at the last one there is", "[R-B4]") {
  CHECK(Timestamp{5}.after(std::chrono::nanoseconds{7}) == Timestamp{12});
  CHECK(Timestamp{5}.after(std::chrono::nanoseconds{-7}) == Timestamp{5});
  CHECK(Timestamp{5}.after(std::chrono::nanoseconds::max()) == Timestamp::max());
  CHECK(Timestamp::max().after(std::chrono::nanoseconds{1}) == Timestamp::max());
  CHECK(Timestamp::max().since_epoch() == std::chrono::nanoseconds::max());
}

TEST_CASE("each reading of a clock reads its source once", "[R-B6]") {
  const ManualClock source(3);
  const Clock clock(&source);
  const auto before = source.readings();
  for (int i = 0; i < 3; ++i) CHECK(clock.now().nanoseconds == 0);
  CHECK(source.readings() == before + 3);
}

TEST_CASE("a clock with a source of its own is not real and reads no counter", "[R-B5]") {
  const ManualClock source;
  const Clock clock(&source);
  CHECK_FALSE(clock.is_real());
  CHECK_FALSE(clock.uses_counter());
  CHECK(Clock{}.is_real());
}

TEST_CASE("the epoch is the wall-clock time at construction", "[R-B2]") {
  const auto before = std::chrono::system_clock::now();
  const Clock clock;
  const auto after = std::chrono::system_clock::now();
  CHECK(clock.epoch() >= before);
  CHECK(clock.epoch() <= after);
}

TEST_CASE("the machine's clock starts at its epoch and never steps back on one thread",
          "[R-B1][R-B3]") {
  const auto before = steady();
  const Clock clock;
  const auto first = elapsed(clock);
  const auto after = steady();
  CHECK(first >= 0);
  CHECK(static_cast<double>(first) <=
        static_cast<double>(after - before) * (1 + Clock::kAgreement));
  auto last = clock.now();
  std::size_t back = 0;
  for (int i = 0; i < 10'000; ++i) {
    const auto now = clock.now();
    back += now < last ? 1U : 0U;
    last = now;
  }
  CHECK(back == 0);
}

TEST_CASE("the machine's clock agrees with the monotonic clock within the stated bound", "[R-B5]") {
  CHECK(agrees(Clock{}, Clock::kAgreement));
}

TEST_CASE("a clock without a fit counter falls back to the monotonic clock", "[R-B5]") {
  const auto clock = ClockTestAccess::without_counter();
  CHECK_FALSE(clock.uses_counter());
  CHECK(clock.is_real());
  CHECK(agrees(clock, 0));
}

#if defined(SHARD_HAS_TSC)
TEST_CASE("the counter is used only where the processor says that it is invariant", "[R-B5]") {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  const bool invariant = __get_cpuid(0x80000007U, &a, &b, &c, &d) != 0 && (d & (1U << 8U)) != 0;
  CHECK((invariant || !Clock{}.uses_counter()));
}

TEST_CASE("ticks become nanoseconds without overflow, and none are negative", "[R-B5][R-B4]") {
  constexpr auto kOnePerTick = std::uint64_t{1} << 32U;
  const auto whole = ClockTestAccess::with_counter(1000, kOnePerTick);
  CHECK(whole.uses_counter());
  CHECK(ClockTestAccess::at(whole, 1000).nanoseconds == 0);
  CHECK(ClockTestAccess::at(whole, 999).nanoseconds == 0);  // another core's counter, a bit behind
  CHECK(ClockTestAccess::at(whole, 1001).nanoseconds == 1);
  // A hundred years at 4 GHz: the product has more than 64 bits.
  constexpr std::uint64_t kCentury = 100ULL * 365 * 24 * 3600 * 1'000'000'000;
  const auto quarter = ClockTestAccess::with_counter(0, kOnePerTick / 4);
  CHECK(ClockTestAccess::at(quarter, 2 * kCentury).nanoseconds == kCentury / 2);
}
#endif
