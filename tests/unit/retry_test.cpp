#include "shard/retry.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "shard/options.hpp"

namespace {

using shard::backoff_before;
using shard::ConfigError;
using shard::RetryOptions;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr auto kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr auto kInfinity = std::numeric_limits<double>::infinity();
constexpr auto kMost = std::numeric_limits<std::uint64_t>::max();

using Change = std::function<void(RetryOptions&)>;

/// The place of what is wrong after the change; "-" when nothing is.
std::string refused(const Change& change) {
  RetryOptions options;
  change(options);
  try {
    options.validate();
  } catch (const ConfigError& error) {
    CHECK_FALSE(error.value().empty());
    CHECK_FALSE(error.bound().empty());
    return error.field();
  }
  return "-";
}

/// Any valid options, often at a bound.
RetryOptions any_options(std::mt19937_64& random) {
  const auto between = [&random](std::int64_t low, std::int64_t high) {
    return random() % 8 == 0 ? high
                             : std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  RetryOptions options;
  options.initial_backoff =
      nanoseconds{between(1, std::int64_t{1} << std::uniform_int_distribution<int>(0, 41)(random))};
  options.max_backoff =
      nanoseconds{between(options.initial_backoff.count(), nanoseconds{hours{24}}.count())};
  options.multiplier = static_cast<double>(between(1'000, 10'000)) / 1'000;
  options.jitter = static_cast<double>(between(0, 1'000)) / 1'000;
  options.validate();
  return options;
}

}  // namespace

TEST_CASE("a retry option is taken up to its bounds and refused beyond them, by name", "[R-J1]") {
  struct Case {
    std::string field;
    Change good;
    Change bad;
  };
  const std::vector<Case> cases{
      {"initial_backoff", [](auto& o) { o.initial_backoff = nanoseconds{0}; },
       [](auto& o) { o.initial_backoff = nanoseconds{-1}; }},
      {"initial_backoff", [](auto& o) { o.initial_backoff = o.max_backoff = hours{1}; },
       [](auto& o) {
         o.initial_backoff = hours{1} + nanoseconds{1};
         o.max_backoff = hours{2};
       }},
      {"max_backoff", [](auto& o) { o.max_backoff = hours{24}; },
       [](auto& o) { o.max_backoff = hours{24} + nanoseconds{1}; }},
      {"multiplier", [](auto& o) { o.multiplier = 1; }, [](auto& o) { o.multiplier = 0.999; }},
      {"multiplier", [](auto& o) { o.multiplier = 10; }, [](auto& o) { o.multiplier = 10.001; }},
      {"jitter", [](auto& o) { o.jitter = 0; }, [](auto& o) { o.jitter = -0.001; }},
      {"jitter", [](auto& o) { o.jitter = 1; }, [](auto& o) { o.jitter = 1.001; }},
      {"max_elapsed", [](auto& o) { o.max_elapsed = nanoseconds{1}; },
       [](auto& o) { o.max_elapsed = nanoseconds{0}; }},
      {"max_elapsed", [](auto& o) { o.max_elapsed = nanoseconds::max(); },
       [](auto& o) { o.max_elapsed = nanoseconds{-1}; }},
  };
  for (const auto& one : cases) {
    INFO(one.field);
    CHECK(refused(one.good) == "-");
    CHECK(refused(one.bad) == "retry." + one.field);
  }
  CHECK(refused([](auto& o) { o.max_attempts = 0; }) == "-");
  CHECK(refused([](auto& o) { o.max_attempts = 4'294'967'295; }) == "-");
}

TEST_CASE("a multiplier or a jitter that is no number is refused", "[R-J1]") {
  for (const double value : {kNaN, kInfinity, -kInfinity}) {
    CHECK(refused([value](auto& o) { o.multiplier = value; }) == "retry.multiplier");
    CHECK(refused([value](auto& o) { o.jitter = value; }) == "retry.jitter");
  }
}

TEST_CASE("the first wait is not longer than the longest", "[R-J2]") {
  CHECK(refused([](auto& o) { o.max_backoff = o.initial_backoff; }) == "-");
  CHECK(refused([](auto& o) { o.max_backoff = o.initial_backoff - nanoseconds{1}; }) ==
        "retry.max_backoff");
}

TEST_CASE("the default waits double from 100 ms to 3.2 s, and are changed by up to a quarter") {
  RetryOptions options;
  const auto middle = std::uint64_t{1} << 63U;
  CHECK(backoff_before(2, options, 0) == milliseconds{75});
  CHECK(backoff_before(2, options, middle) == milliseconds{100});
  CHECK(backoff_before(2, options, kMost) <= milliseconds{125});
  CHECK(backoff_before(2, options, kMost) > nanoseconds{124'999'000});
  options.jitter = 0;
  for (const auto& [attempt, wait] : std::vector<std::pair<std::uint32_t, int>>{{2, 100},
                                                                                {3, 200},
                                                                                {4, 400},
                                                                                {5, 800},
                                                                                {6, 1'600},
                                                                                {7, 3'200},
                                                                                {8, 3'200},
                                                                                {9, 3'200}}) {
    CAPTURE(attempt);
    CHECK(backoff_before(attempt, options, kMost) == milliseconds{wait});
  }
}

TEST_CASE("the first attempt does not wait, and no attempt where the first wait is zero") {
  CHECK(backoff_before(0, {}, kMost) == nanoseconds{0});
  CHECK(backoff_before(1, {}, kMost) == nanoseconds{0});
  const RetryOptions at_once{.initial_backoff = nanoseconds{0}, .multiplier = 10, .jitter = 1};
  for (const std::uint32_t attempt : {2U, 3U, 1'000U, 4'294'967'295U}) {
    CHECK(backoff_before(attempt, at_once, kMost) == nanoseconds{0});
  }
}

TEST_CASE("the shortest wait there is, is waited") {
  const RetryOptions shortest{.initial_backoff = nanoseconds{1}, .multiplier = 1, .jitter = 0};
  CHECK(shard::backoff_before(2, shortest, 0) == nanoseconds{1});
}

TEST_CASE("a wait stays within the jitter around its base and never shrinks with the attempt") {
  const auto seed = GENERATE(take(5, random(0U, 4'000'000'000U)));
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 300; ++round) {
    const auto options = any_options(random);
    const auto bits = random() % 8 == 0 ? (random() % 2) * kMost : random();
    auto base = static_cast<long double>(options.initial_backoff.count());
    auto last = nanoseconds{0};
    CAPTURE(options.initial_backoff.count(), options.max_backoff.count(), options.multiplier,
            options.jitter, bits);
    for (std::uint32_t attempt = 2; attempt < 60; ++attempt) {
      CAPTURE(attempt);
      const auto wait = backoff_before(attempt, options, bits);
      const auto most = static_cast<long double>(options.max_backoff.count());
      const auto bounded = std::min(base, most);
      const auto slack = 1 + bounded * 1e-12L;
      REQUIRE(static_cast<long double>(wait.count()) >= bounded * (1 - options.jitter) - slack);
      REQUIRE(static_cast<long double>(wait.count()) <= bounded * (1 + options.jitter) + slack);
      REQUIRE(wait >= last);
      last = wait;
      base *= options.multiplier;
    }
    for (const std::uint32_t attempt : {100U, 1'100U, 1'000'000U, 4'294'967'295U}) {
      const auto wait = backoff_before(attempt, options, bits);
      REQUIRE(wait >= last);
      REQUIRE(wait <= 2 * options.max_backoff);
      last = wait;
    }
  }
}

TEST_CASE("random bits spread the waits over the whole jitter, evenly") {
  std::mt19937_64 random(3);
  const RetryOptions options{.jitter = 1};
  std::vector<int> tenths(10);
  for (int i = 0; i < 10'000; ++i) {
    const auto wait = backoff_before(2, options, random()).count();
    REQUIRE(wait >= 0);
    ++tenths.at(std::min<std::size_t>(9, static_cast<std::size_t>(wait / 20'000'000)));
  }
  for (const auto count : tenths) {
    CHECK(count > 850);
    CHECK(count < 1'150);
  }
}

TEST_CASE("options that nobody has validated give a wait all the same") {
  const std::vector<RetryOptions> odd{
      {.multiplier = kNaN},
      {.multiplier = -3},
      {.jitter = kNaN},
      {.jitter = 1e300},
      {.jitter = -1e300},
      {.initial_backoff = nanoseconds::max(), .max_backoff = nanoseconds::max()},
      {.max_backoff = nanoseconds::min()}};
  for (const auto& options : odd) {
    for (const std::uint64_t bits : {std::uint64_t{0}, kMost}) {
      CHECK(backoff_before(3, options, bits) >= nanoseconds{0});
    }
  }
}
