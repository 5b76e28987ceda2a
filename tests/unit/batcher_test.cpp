#include "shard/batcher.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "shard/options.hpp"

namespace {

using shard::AdaptiveBatcher;
using shard::BatchOptions;
using shard::ConfigError;
using shard::Timestamp;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr std::uint64_t kMicrosecond = 1'000;
constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kWindow = 100 * kMillisecond;
constexpr std::uint64_t kStep = kWindow / 8;

using Change = std::function<void(BatchOptions&)>;

/// The place of what is wrong after the change; "-" when nothing is.
std::string refused(const Change& change) {
  BatchOptions options;
  change(options);
  try {
    options.validate();
  } catch (const ConfigError& error) {
    CHECK_FALSE(error.value().empty());
    CHECK_FALSE(error.bound().empty());
    CHECK_THROWS_AS(AdaptiveBatcher(options), ConfigError);
    return error.field();
  }
  return "-";
}

/// Wide bounds, so that a target shows the rate.
BatchOptions wide() {
  return {.min_events = 1,
          .max_events = 1'000'000,
          .max_delay = milliseconds{10},
          .velocity_window = milliseconds{100}};
}

/// A load with a piecewise constant rate, and a batcher that is told of it now and then.
struct Load {
  explicit Load(const BatchOptions& options = wide()) : batcher(options) {}

  /// Goes on for `span`, at `rate` events per millisecond, and tells the batcher every `gap` (and at the end).
  void run(std::uint64_t span, std::uint64_t rate, std::uint64_t gap) {
    const auto begin = now;
    const auto before = accepted;
    while (now != begin + span) {
      now = std::min(now + gap, begin + span);
      accepted = before + (now - begin) * rate / kMillisecond;
      batcher.observe(accepted, Timestamp{now});
    }
  }

  [[nodiscard]] double rate() const { return batcher.events_per_second(Timestamp{now}); }
  [[nodiscard]] std::size_t target() const { return batcher.target(Timestamp{now}); }

  AdaptiveBatcher batcher;
  std::uint64_t now = 0;
  std::uint64_t accepted = 0;
};

}  // namespace

TEST_CASE("batch options and their presets are valid and as documented", "[R-J1]") {
  BatchOptions{}.validate();
  BatchOptions::high_throughput().validate();
  BatchOptions::low_latency().validate();
  CHECK(BatchOptions::high_throughput() == BatchOptions{.min_events = 5'000,
                                                        .max_events = 50'000,
                                                        .max_bytes = 8'388'608,
                                                        .max_delay = milliseconds{50}});
  CHECK(BatchOptions::low_latency() ==
        BatchOptions{.min_events = 1, .max_events = 1'000, .max_delay = nanoseconds{0}});
}

TEST_CASE("a batch option is taken up to its bounds and refused beyond them, by name", "[R-J1]") {
  struct Case {
    std::string field;
    Change good;
    Change bad;
  };
  const std::vector<Case> cases{
      {"max_events", [](auto& o) { o.max_events = 1'000'000; },
       [](auto& o) { o.max_events = 1'000'001; }},
      {"max_events", [](auto& o) { o.min_events = o.max_events = 1; },
       [](auto& o) { o.min_events = o.max_events = 0; }},
      {"min_events", [](auto& o) { o.min_events = 1; }, [](auto& o) { o.min_events = 0; }},
      {"max_bytes", [](auto& o) { o.max_bytes = 1; }, [](auto& o) { o.max_bytes = 0; }},
      {"max_bytes", [](auto& o) { o.max_bytes = std::size_t{1} << 30U; },
       [](auto& o) { o.max_bytes = (std::size_t{1} << 30U) + 1; }},
      {"max_delay", [](auto& o) { o.max_delay = nanoseconds{0}; },
       [](auto& o) { o.max_delay = nanoseconds{-1}; }},
      {"max_delay", [](auto& o) { o.max_delay = std::chrono::minutes{1}; },
       [](auto& o) { o.max_delay = std::chrono::minutes{1} + nanoseconds{1}; }},
      {"velocity_window", [](auto& o) { o.velocity_window = milliseconds{1}; },
       [](auto& o) { o.velocity_window = nanoseconds{999'999}; }},
      {"velocity_window", [](auto& o) { o.velocity_window = std::chrono::minutes{1}; },
       [](auto& o) { o.velocity_window = std::chrono::minutes{1} + nanoseconds{1}; }},
      {"velocity_window", [](auto&) {}, [](auto& o) { o.velocity_window = nanoseconds::min(); }},
  };
  for (const auto& one : cases) {
    INFO(one.field);
    CHECK(refused(one.good) == "-");
    CHECK(refused(one.bad) == "batch." + one.field);
  }
}

TEST_CASE("the fewest events of a batch are no more than the most", "[R-J2]") {
  CHECK(refused([](auto& o) { o.min_events = o.max_events; }) == "-");
  CHECK(refused([](auto& o) { o.min_events = o.max_events + 1; }) == "batch.min_events");
}

TEST_CASE("a batcher that knows nothing wants the fewest events", "[R-F3]") {
  const AdaptiveBatcher batcher(BatchOptions{.min_events = 7});
  CHECK(batcher.events_per_second(Timestamp{0}) == 0);
  CHECK(batcher.target(Timestamp{kSecond}) == 7);
  CHECK(batcher.options().min_events == 7);
}

TEST_CASE("the target is as many events as come in within max_delay, between its bounds",
          "[R-F3]") {
  auto options = wide();
  options.min_events = 50;
  options.max_events = 500;
  for (const auto& [rate, expected] : std::vector<std::pair<std::uint64_t, std::size_t>>{
           {1, 50}, {4, 50}, {5, 50}, {6, 60}, {49, 490}, {50, 500}, {51, 500}, {100'000, 500}}) {
    CAPTURE(rate);
    Load load(options);
    load.run(kSecond, rate, kMillisecond);
    CHECK(load.rate() == Approx(1'000.0 * static_cast<double>(rate)));
    CHECK(load.target() == expected);
  }
}

TEST_CASE("the target is rounded to the nearest number of events", "[R-F3]") {
  for (const auto& [events, expected] :
       std::vector<std::pair<std::uint64_t, std::size_t>>{{24, 2}, {26, 3}, {30, 3}}) {
    AdaptiveBatcher batcher(wide());
    batcher.observe(0, Timestamp{0});
    batcher.observe(events, Timestamp{kWindow});
    CHECK(batcher.target(Timestamp{kWindow}) == expected);
  }
}

TEST_CASE("without a delay the fewest events are enough, whatever the rate") {
  auto options = wide();
  options.max_delay = nanoseconds{0};
  Load load(options);
  load.run(kSecond, 100'000, kMillisecond);
  CHECK(load.rate() == Approx(1e8));
  CHECK(load.target() == 1);
}

TEST_CASE("a new steady rate is the target one window and a step later, exactly", "[R-F3]") {
  const auto seed = GENERATE(take(5, random(0U, 4'000'000'000U)));
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  Load load;
  for (int change = 0; change < 200; ++change) {
    // Up and down by orders of magnitude, and by as little as one event in a batch.
    const auto rate = random() % 3 == 0 ? 1 + random() % 10 : 1 + random() % 50'000;
    const auto gap = kMillisecond * (1 + random() % 12);
    CAPTURE(change, rate, gap);
    load.run(kWindow + 2 * kStep, rate, gap);
    REQUIRE(load.target() == 10 * rate);
    REQUIRE(load.rate() == Approx(1'000.0 * static_cast<double>(rate)).epsilon(1e-9));
  }
}

TEST_CASE("the target grows within a burst and falls within a window after it, without a step back",
          "[R-F3]") {
  Load load;
  load.run(kSecond, 1, kMillisecond);
  auto last = load.target();
  for (std::uint64_t t = 0; t < kWindow + kStep; t += kMillisecond) {
    load.run(kMillisecond, 1'000, kMillisecond);
    REQUIRE(load.target() >= last);
    last = load.target();
  }
  CHECK(last == 10'000);
  for (std::uint64_t t = 0; t < kWindow + kStep; t += kMillisecond) {
    load.run(kMillisecond, 1, kMillisecond);
    REQUIRE(load.target() <= last);
    last = load.target();
  }
  CHECK(last == 10);
}

TEST_CASE("the target is back at the minimum one window after the last event", "[R-F3]") {
  // Whether it is told that nothing came, how often, and wherever in a step the last event came.
  for (const std::uint64_t gap : {kMillisecond, 7 * kMillisecond, 30 * kMillisecond}) {
    for (std::uint64_t extra = 0; extra < 2 * kStep; extra += kMillisecond / 2) {
      CAPTURE(gap, extra);
      Load load;
      load.run(kSecond + extra, 1'000, kMillisecond);
      const auto end = load.now;
      CHECK(load.batcher.events_per_second(Timestamp{end + kWindow - 1}) > 0);
      CHECK(load.batcher.events_per_second(Timestamp{end + kWindow}) == 0);
      CHECK(load.batcher.target(Timestamp{end + kWindow}) == 1);
      CHECK(load.batcher.target(Timestamp{end + kSecond}) == 1);
      load.run(kWindow, 0, gap);
      CHECK(load.rate() == 0);
      CHECK(load.target() == 1);
    }
  }
}

TEST_CASE("two events a microsecond apart are no burst, after idleness and at the start",
          "[R-F4]") {
  auto options = wide();
  AdaptiveBatcher batcher(options);
  batcher.observe(1, Timestamp{kSecond});
  batcher.observe(2, Timestamp{kSecond + kMicrosecond});
  CHECK(batcher.events_per_second(Timestamp{kSecond + kMicrosecond}) == Approx(1'000));
  CHECK(batcher.target(Timestamp{kSecond + kMicrosecond}) == 10);

  for (const std::uint64_t idle : {2 * kWindow, 10 * kSecond, 3'600 * kSecond}) {
    CAPTURE(idle);
    Load load;
    load.run(kSecond, 5, kMillisecond);
    load.now += idle;
    load.batcher.observe(load.accepted + 1, Timestamp{load.now});
    load.batcher.observe(load.accepted + 2, Timestamp{load.now + kMicrosecond});
    CHECK(load.batcher.events_per_second(Timestamp{load.now + kMicrosecond}) <= 20.001);
    CHECK(load.batcher.target(Timestamp{load.now + kMicrosecond}) == 1);
  }
}

TEST_CASE("no rate is more than what came in, within the shortest span", "[R-F4]") {
  const auto seed = GENERATE(take(5, random(0U, 4'000'000'000U)));
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 100; ++round) {
    AdaptiveBatcher batcher(wide());
    std::uint64_t now = random() % kSecond;
    std::uint64_t accepted = random() % 1'000;
    const auto before = accepted;
    batcher.observe(accepted, Timestamp{now});
    for (int i = 0; i < 50; ++i) {
      now += random() % 1'000;  // at most 50 us in all
      accepted += random() % 3;
      batcher.observe(accepted, Timestamp{now});
      REQUIRE(batcher.events_per_second(Timestamp{now}) ==
              Approx(static_cast<double>(accepted - before) * 1'000));
    }
  }
}

TEST_CASE("idleness before a burst does not thin it out", "[R-F3]") {
  for (const std::uint64_t idle : {kStep, 2 * kWindow, 10 * kSecond, 3'600 * kSecond}) {
    CAPTURE(idle);
    Load load;
    load.run(kSecond, 3, kMillisecond);
    load.now += idle;
    load.batcher.observe(++load.accepted, Timestamp{load.now});  // its first event
    load.run(kWindow / 2, 1'000, kMillisecond);
    CHECK(load.rate() >= 0.49e6);
    load.run(kWindow / 2, 1'000, kMillisecond);
    CHECK(load.rate() >= 0.99e6);
    CHECK(load.rate() <= 1.01e6);
  }
}

TEST_CASE("events before idleness that nobody told of are not taken for newer ones", "[R-F3]") {
  Load load;
  load.run(kSecond, 1, kMillisecond);
  load.run(kStep / 2, 1'000, kStep / 2);  // within a step, so there is no sample for it alone
  load.now += 3 * kWindow;
  load.batcher.observe(++load.accepted, Timestamp{load.now});
  CHECK(load.rate() <= 10.001);
}

TEST_CASE("a steady rate is measured right, however rarely it is told", "[R-F3]") {
  for (const std::uint64_t gap : {kStep / 3, kStep, kStep + 1, kWindow - 1, kWindow, kWindow + 1,
                                  3 * kWindow, 10 * kSecond}) {
    CAPTURE(gap);
    Load load;
    load.run(5 * gap + 5 * kWindow, 800, gap);
    CHECK(load.rate() == Approx(800'000).epsilon(1e-4));
  }
}

TEST_CASE("the rate is that of the events in the window, but for a step and a look at its old end",
          "[R-F3]") {
  const auto seed = GENERATE(take(5, random(0U, 4'000'000'000U)));
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  AdaptiveBatcher batcher(wide());
  std::vector<std::uint64_t> stamps;
  std::uint64_t now = 0;
  std::uint64_t looked = 0;
  std::uint64_t blind = 0;  // the longest time between two looks
  const auto look = [&] {
    blind = std::max(blind, now - looked);
    looked = now;
    batcher.observe(stamps.size(), Timestamp{now});
  };
  look();
  for (int phase = 0; phase < 60; ++phase) {
    const auto mean = std::exp2(10 + static_cast<double>(random() % 10));  // 1 us .. 0.5 ms
    std::exponential_distribution<double> until_next(1 / mean);
    const auto end = now + random() % kWindow;
    while (now < end && stamps.size() < 400'000) {
      now += 1 + static_cast<std::uint64_t>(until_next(random));
      stamps.push_back(now);
      if (random() % 2 == 0) look();
    }
    look();
    if (now < 2 * kWindow) continue;
    const auto since = [&stamps](std::uint64_t time) {
      return static_cast<double>(stamps.end() -
                                 std::upper_bound(stamps.begin(), stamps.end(), time));
    };
    const auto measured = batcher.events_per_second(Timestamp{now}) * 0.1;
    CAPTURE(phase, now, mean, blind);
    REQUIRE(blind < kWindow / 2);
    REQUIRE(measured >= since(now - kWindow + kStep + blind) - 1e-6);
    REQUIRE(measured <= since(now - kWindow - kStep - blind) + 1e-6);
  }
}

TEST_CASE("a batcher has no memory but its own, whatever it is told", "[R-F5]") {
  // What is trivially copyable owns nothing.
  STATIC_REQUIRE(std::is_trivially_copyable_v<AdaptiveBatcher>);
  STATIC_REQUIRE(sizeof(AdaptiveBatcher) <= 384);
}

TEST_CASE("times and counts that stand still, go back or are huge are survived", "[R-F4]") {
  const auto seed = GENERATE(take(5, random(0U, 4'000'000'000U)));
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto anything = [&random]() -> std::uint64_t {
    constexpr auto kMost = std::numeric_limits<std::uint64_t>::max();
    switch (random() % 6) {
      case 0:
        return 0;
      case 1:
        return kMost - random() % 3;
      case 2:
        return kMost / 2 + random() % 3;
      default:
        return random() >> (random() % 64);
    }
  };
  for (int round = 0; round < 300; ++round) {
    AdaptiveBatcher batcher(BatchOptions{.min_events = 3, .max_events = 1'000});
    for (int i = 0; i < 40; ++i) {
      batcher.observe(anything(), Timestamp{anything()});
      const Timestamp now{anything()};
      const auto rate = batcher.events_per_second(now);
      REQUIRE(rate >= 0);
      REQUIRE(std::isfinite(rate));
      const auto target = batcher.target(now);
      REQUIRE(target >= 3);
      REQUIRE(target <= 1'000);
    }
  }
  // What goes back is taken to stand still.
  Load load;
  load.run(kSecond, 100, kMillisecond);
  const auto rate = load.rate();
  load.batcher.observe(5, Timestamp{6});
  CHECK(load.rate() == rate);
  CHECK(load.batcher.events_per_second(Timestamp{0}) == rate);
  load.batcher.observe(load.accepted + 100, Timestamp{load.now});
  CHECK(load.rate() == Approx(rate + 1'000));
}
