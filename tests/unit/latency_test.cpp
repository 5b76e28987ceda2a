#include "shard/latency.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace {

using shard::LatencyHistogram;
using shard::detail::AtomicLatencyHistogram;
using std::chrono::nanoseconds;

constexpr auto kLast = LatencyHistogram::kBuckets - 1;
constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();

std::uint64_t start_of(std::size_t bucket) {
  return bucket == 0 ? 0 : LatencyHistogram::end_of(bucket - 1);
}

LatencyHistogram of(const std::vector<std::uint64_t>& values) {
  LatencyHistogram histogram;
  for (const auto value : values) ++histogram.counts[LatencyHistogram::bucket_of(value)];
  return histogram;
}

std::uint64_t any_magnitude(std::mt19937_64& random) { return random() >> (random() % 64); }

}  // namespace

TEST_CASE("each duration has the bucket between whose ends it lies") {
  STATIC_REQUIRE(LatencyHistogram::bucket_of(0) == 0);
  STATIC_REQUIRE(LatencyHistogram::end_of(kLast) == std::uint64_t{1} << 42U);
  for (std::size_t bucket = 0; bucket <= kLast; ++bucket) {
    CAPTURE(bucket);
    const auto start = start_of(bucket);
    const auto end = LatencyHistogram::end_of(bucket);
    REQUIRE(start <= end);
    if (start == end) continue;  // of the shortest, where four do not fit
    REQUIRE(LatencyHistogram::bucket_of(start) == bucket);
    REQUIRE(LatencyHistogram::bucket_of(end - 1) == bucket);
    REQUIRE(LatencyHistogram::bucket_of(end) > (bucket == kLast ? bucket - 1 : bucket));
  }
  std::mt19937_64 random(7);
  for (int i = 0; i < 100'000; ++i) {
    const auto value = any_magnitude(random);
    const auto bucket = LatencyHistogram::bucket_of(value);
    REQUIRE(value >= start_of(bucket));
    REQUIRE((bucket == kLast || value < LatencyHistogram::end_of(bucket)));
  }
}

TEST_CASE("buckets are so narrow that their longest is at most 19 % above their shortest") {
  for (std::size_t bucket = 1; bucket <= kLast; ++bucket) {
    CAPTURE(bucket);
    const auto shortest = static_cast<double>(start_of(bucket));
    const auto longest = static_cast<double>(LatencyHistogram::end_of(bucket) - 1);
    REQUIRE(longest <= 1.1893 * shortest);
  }
  // Four to each power of two, in equal ratios.
  for (unsigned power = 20; power < 42; ++power) {
    for (unsigned quarter = 0; quarter < 4; ++quarter) {
      REQUIRE(static_cast<double>(LatencyHistogram::end_of(4 * power + quarter)) ==
              Approx(std::exp2(power + (quarter + 1) / 4.0)).epsilon(1e-6));
    }
  }
}

TEST_CASE("what is too long for any bucket counts in the last one") {
  CHECK(LatencyHistogram::bucket_of((std::uint64_t{1} << 42U) - 1) == kLast);
  CHECK(LatencyHistogram::bucket_of(std::uint64_t{1} << 42U) == kLast);
  CHECK(LatencyHistogram::bucket_of(kMost) == kLast);
  CHECK(of({1, kMost}).longest() == nanoseconds{(std::int64_t{1} << 42U) - 1});
}

TEST_CASE("a quantile is what that part does not exceed, and hardly more") {
  const auto seed = GENERATE(take(5, random(0U, 4'000'000'000U)));
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::uint64_t> values(1 + random() % 300);
    for (auto& value : values) value = random() >> (22 + random() % 42);  // below 2^42
    const auto histogram = of(values);
    std::sort(values.begin(), values.end());
    REQUIRE(histogram.count() == values.size());
    for (const double q : {0.0, 0.001, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0}) {
      const auto rank = std::max(1.0, std::ceil(q * static_cast<double>(values.size())));
      const auto exact = static_cast<double>(values[static_cast<std::size_t>(rank) - 1]);
      const auto told = static_cast<double>(histogram.quantile(q).count());
      CAPTURE(q, rank, exact, told);
      REQUIRE(told >= exact);
      REQUIRE(told <= std::max(1.0, 1.1893 * exact));
    }
    REQUIRE(histogram.longest() == histogram.quantile(1));
    REQUIRE(static_cast<std::uint64_t>(histogram.longest().count()) >= values.back());
  }
}

TEST_CASE("short durations have exact quantiles") {
  CHECK(of({1}).longest() == nanoseconds{1});
  CHECK(of({2}).longest() == nanoseconds{2});
  CHECK(of({3}).longest() == nanoseconds{3});
  CHECK(of({1, 2, 3}).quantile(0.5) == nanoseconds{2});
}

TEST_CASE("a histogram of nothing has quantiles of zero, and odd parts are taken as 0 or 1") {
  CHECK(LatencyHistogram{}.count() == 0);
  CHECK(LatencyHistogram{}.quantile(0.5) == nanoseconds{0});
  CHECK(LatencyHistogram{}.longest() == nanoseconds{0});
  const auto histogram = of({1, 1'000, 1'000'000});
  CHECK(histogram.quantile(-1) == nanoseconds{1});
  CHECK(histogram.quantile(std::numeric_limits<double>::quiet_NaN()) == nanoseconds{1});
  CHECK(histogram.quantile(2) == histogram.longest());
  CHECK(histogram.quantile(std::numeric_limits<double>::infinity()) == histogram.longest());
}

TEST_CASE("a count that no double holds has a highest quantile") {
  LatencyHistogram histogram;
  histogram.counts[0] = kMost - 1;
  histogram.counts[40] = 1;
  CHECK(histogram.count() == kMost);
  CHECK(histogram.quantile(1) ==
        nanoseconds{static_cast<std::int64_t>(LatencyHistogram::end_of(40) - 1)});
  CHECK(histogram.quantile(0.5) == nanoseconds{1});
}

TEST_CASE("histograms add up bucket by bucket") {
  auto sum = of({1, 5, 5});
  sum += of({5, 1'000});
  CHECK(sum == of({1, 5, 5, 5, 1'000}));
  CHECK_FALSE(sum == of({1, 5, 5, 5, 2'000}));
}

TEST_CASE("a batch counts the same as its events one by one") {
  const auto seed = GENERATE(take(5, random(0U, 4'000'000'000U)));
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 200; ++round) {
    const auto size = random() % 400;
    std::vector<std::uint64_t> stamps;
    std::uint64_t stamp = random() % 1'000;
    for (std::uint64_t i = 0; i < size; ++i) {
      stamps.push_back(stamp);
      stamp += 1 + (random() >> (24 + random() % 40));
    }
    // Mostly after the last, sometimes in the middle: those behind it have waited for nothing.
    const auto now = random() % 4 == 0 ? random() % (stamp + 1) : stamp + any_magnitude(random) / 2;
    std::vector<std::uint64_t> latencies;
    for (const auto one : stamps) latencies.push_back(now > one ? now - one : 0);
    AtomicLatencyHistogram histogram;
    histogram.add(3, 2);
    histogram.add_batch(now, stamps.size(), [&stamps](std::size_t i) { return stamps.at(i); });
    auto expected = of(latencies);
    expected.counts[3] += 2;
    REQUIRE(histogram.read() == expected);
  }
}

TEST_CASE("a batch is added without looking at every event") {
  std::size_t looks = 0;
  AtomicLatencyHistogram histogram;
  const auto stamp = [&looks](std::size_t i) {
    ++looks;
    return 1'000'000 + std::uint64_t{i};
  };
  // 100,000 events that came 1 ns apart, and have waited for 1 s: all in one bucket.
  histogram.add_batch(1'001'000'000, 100'000, stamp);
  CHECK(looks <= 3);
  CHECK(histogram.read().counts[LatencyHistogram::bucket_of(1'000'000'000)] == 100'000);
  // From 0 to 100 us: some 60 buckets.
  looks = 0;
  histogram.add_batch(1'100'000, 100'000, stamp);
  CHECK(looks <= 60 * 20);
  CHECK(histogram.read().count() == 200'000);
}
