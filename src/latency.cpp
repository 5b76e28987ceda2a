#include "shard/latency.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace shard {

namespace {

std::chrono::nanoseconds longest_in(std::size_t bucket) {
  return std::chrono::nanoseconds{static_cast<std::int64_t>(LatencyHistogram::end_of(bucket) - 1)};
}

}  // namespace

std::uint64_t LatencyHistogram::count() const noexcept {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

std::chrono::nanoseconds LatencyHistogram::quantile(double q) const noexcept {
  const auto total = count();
  const auto most = static_cast<double>(total);
  const auto wanted = std::ceil(most * std::clamp(std::isnan(q) ? 0.0 : q, 0.0, 1.0));
  // As doubles: a large total may have been rounded up to what no integer holds.
  auto rank =
      wanted >= most ? total : std::max<std::uint64_t>(1, static_cast<std::uint64_t>(wanted));
  for (std::size_t bucket = 0; bucket < kBuckets && rank != 0; ++bucket) {
    if (counts[bucket] >= rank) {
      return longest_in(bucket);
    }
    rank -= counts[bucket];
  }
  return std::chrono::nanoseconds{0};
}

std::chrono::nanoseconds LatencyHistogram::longest() const noexcept { return quantile(1); }

LatencyHistogram& LatencyHistogram::operator+=(const LatencyHistogram& other) noexcept {
  std::transform(counts.begin(), counts.end(), other.counts.begin(), counts.begin(), std::plus<>{});
  return *this;
}

namespace detail {

LatencyHistogram AtomicLatencyHistogram::read() const noexcept {
  LatencyHistogram histogram;
  for (std::size_t bucket = 0; bucket < LatencyHistogram::kBuckets; ++bucket) {
    histogram.counts[bucket] = counts_[bucket].load(std::memory_order_relaxed);  // as in add()
  }
  return histogram;
}

}  // namespace detail

}  // namespace shard
