#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "shard/detail/export.hpp"

namespace shard {

/// Counts of durations in fixed buckets: four to each power of two, in equal ratios, so that a quantile is at most 19 % too
/// large. A value: what was read at one moment, each bucket by itself.
class SHARD_EXPORT LatencyHistogram {
 public:
  /// From 0 to 2^42 ns (73 minutes); what is longer counts in the last one. Of those below 4 ns some stay empty.
  static constexpr std::size_t kBuckets = std::size_t{4} * 42;

  [[nodiscard]] static constexpr std::size_t bucket_of(std::uint64_t nanoseconds) noexcept {
    if (nanoseconds == 0) return 0;
    const auto power = static_cast<unsigned>(std::bit_width(nanoseconds)) - 1;
    if (power >= kBuckets / 4) return kBuckets - 1;
    const auto scaled = nanoseconds << (63U - power);
    std::size_t quarter = 0;
    for (const auto bound : kQuarters) {
      quarter += scaled >= bound ? 1U : 0U;
    }
    return std::size_t{4} * power + quarter;
  }

  /// The first duration that is too long for the bucket. (Not for the last one: that has no end.)
  [[nodiscard]] static constexpr std::uint64_t end_of(std::size_t bucket) noexcept {
    const auto power = static_cast<unsigned>(bucket / 4);
    const auto quarter = bucket % 4;
    if (quarter == kQuarters.size()) return std::uint64_t{2} << power;
    return ((kQuarters[quarter] - 1) >> (63U - power)) + 1;  // rounded up
  }

  [[nodiscard]] std::uint64_t count() const noexcept;

  /// The duration that a part `q` (0 .. 1) of all do not exceed: the longest of the bucket that it lies in. 0 if there are
  /// none. 2^42 - 1 ns means: that or longer.
  [[nodiscard]] std::chrono::nanoseconds quantile(double q) const noexcept;

  /// The duration that none exceeds; the same as quantile(1).
  [[nodiscard]] std::chrono::nanoseconds longest() const noexcept;

  LatencyHistogram& operator+=(const LatencyHistogram& other) noexcept;

  bool operator==(const LatencyHistogram&) const = default;

  std::array<std::uint64_t, kBuckets> counts{};

 private:
  /// 2^(63 + 1/4), 2^(63 + 2/4), 2^(63 + 3/4): where the buckets of a power of two meet, scaled to 64 bits.
  static constexpr std::array<std::uint64_t, 3> kQuarters{
      0x9837'f051'8db8'a96fU, 0xb504'f333'f9de'6484U, 0xd744'fcca'd69d'6af4U};
};

namespace detail {

/// A histogram that grows.
///
/// Threads: any number may add and read at once. A reader may see a part of a batch, never more than was added.
/// Memory:  fixed.
class SHARD_EXPORT AtomicLatencyHistogram {
 public:
  void add(std::size_t bucket, std::uint64_t n) noexcept {
    // Relaxed: nothing is published by a count, and each is exact by itself.
    counts_[bucket].fetch_add(n, std::memory_order_relaxed);
  }

  /// Adds `size` events that were all delivered at `now`, the i-th of which was accepted at `timestamp_of(i)`; these grow
  /// strictly. An event that was stamped after `now` has waited for 0 ns.
  /// Complexity: a binary search for each bucket that gets some, not a step for each event.
  template <class TimestampOf>
  void add_batch(std::uint64_t now, std::size_t size, const TimestampOf& timestamp_of) {
    std::size_t first = 0;
    while (first < size) {
      const std::uint64_t stamp = timestamp_of(first);
      const auto bucket = LatencyHistogram::bucket_of(now > stamp ? now - stamp : 0);
      const auto end = bucket == 0 ? size : end_of_bucket(now, bucket, first, size, timestamp_of);
      add(bucket, end - first);
      first = end;
    }
  }

  [[nodiscard]] LatencyHistogram read() const noexcept;

 private:
  /// The first event behind `first`, which is in `bucket`, that is not: it has waited for less. `size` if there is none.
  template <class TimestampOf>
  static std::size_t end_of_bucket(std::uint64_t now, std::size_t bucket, std::size_t first,
                                   std::size_t size, const TimestampOf& timestamp_of) {
    const auto latest = now - LatencyHistogram::end_of(bucket - 1);  // no younger one is in it
    if (timestamp_of(size - 1) <= latest)
      return size;  // most batches end in the bucket they begin in
    auto inside = first;
    auto outside = size - 1;
    while (outside - inside > 1) {
      const auto middle = inside + (outside - inside) / 2;
      (timestamp_of(middle) <= latest ? inside : outside) = middle;
    }
    return outside;
  }

  std::array<std::atomic<std::uint64_t>, LatencyHistogram::kBuckets> counts_{};
};

}  // namespace detail

}  // namespace shard
