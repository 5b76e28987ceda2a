#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>

#include "shard/bytes.hpp"
#include "shard/clock.hpp"

/// Latency without coordinated omission: events have times at which they are meant to be sent, set
/// in advance, and wait from then on, whether the producer could send them or was held up itself.
namespace bench {

/// Counts of durations, 32 buckets to each power of two, so that a quantile is at most 3 % too
/// large: finer than shard::LatencyHistogram, so that the differences of two systems show.
class Histogram {
 public:
  void add(std::uint64_t nanoseconds) noexcept {
    ++counts_[bucket_of(nanoseconds)];
    ++count_;
    longest_ = std::max(longest_, nanoseconds);
  }

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t longest() const noexcept { return longest_; }

  /// The duration that a part `q` of all do not exceed; 0 if there are none.
  [[nodiscard]] std::uint64_t quantile(double q) const noexcept {
    const auto rank = static_cast<std::uint64_t>(q * static_cast<double>(count_));
    std::uint64_t below = 0;
    for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
      below += counts_[bucket];
      if (below > rank) {
        return std::min(last_of(bucket), longest_);
      }
    }
    return longest_;
  }

  /// How many lasted as long, or longer; rounded to whole buckets.
  [[nodiscard]] std::uint64_t at_least(std::uint64_t nanoseconds) const noexcept {
    std::uint64_t sum = 0;
    for (auto bucket = bucket_of(nanoseconds); bucket < kBuckets; ++bucket) {
      sum += counts_[bucket];
    }
    return sum;
  }

 private:
  static constexpr unsigned kBits = 5;     ///< of a duration that are kept below the leading one
  static constexpr unsigned kPowers = 40;  ///< the last bucket begins at some 2^39 ns, 9 minutes
  static constexpr std::size_t kBuckets = std::size_t{kPowers - kBits + 1} << kBits;

  static constexpr std::size_t bucket_of(std::uint64_t value) noexcept {
    const auto width = static_cast<unsigned>(std::bit_width(value | 1U));
    const auto shift = width > kBits + 1 ? width - kBits - 1 : 0U;
    return std::min<std::size_t>((std::size_t{shift} << kBits) + (value >> shift), kBuckets - 1);
  }
  static constexpr std::uint64_t last_of(std::size_t bucket) noexcept {
    if (bucket < std::size_t{2} << kBits) {
      return bucket;
    }
    const auto shift = (bucket >> kBits) - 1;
    return ((bucket - (shift << kBits) + 1) << shift) - 1;
  }

  std::array<std::uint64_t, kBuckets> counts_{};
  std::uint64_t count_ = 0;
  std::uint64_t longest_ = 0;
};

/// Events of one producer, evenly spaced.
struct Schedule {
  explicit Schedule(const shard::Clock& time) : clock(&time) {}

  const shard::Clock* clock;
  std::uint64_t start = 0;  ///< of the first event, by the clock
  double interval = 0;      ///< nanoseconds; 0: all are due at the start, so it is no open loop
  std::uint64_t events = 0;

  /// When event `i` is meant to be sent.
  [[nodiscard]] std::uint64_t time_of(std::uint64_t i) const noexcept {
    return start + static_cast<std::uint64_t>(static_cast<double>(i) * interval);
  }
};

/// A load, as QueueFlow and PipelineFlow want one, that follows a schedule: one producer, single
/// events, each with its number in the schedule as the first word of its payload.
struct OpenLoop {
  static constexpr std::size_t kPayload = 64;
  static constexpr std::size_t producers = 1;
  static constexpr bool own_place = false;

  std::size_t shards = 4;
  const Schedule* schedule = nullptr;  ///< may be changed between two rounds

  [[nodiscard]] std::uint64_t events() const { return schedule->events; }
  /// Of the first words of all payloads.
  [[nodiscard]] std::uint64_t sum() const { return events() * (events() - 1) / 2; }

  template <class Single, class Many>
  void hand_in(Single single, Many /*many*/) const {
    std::array<char, kPayload> text{};
    std::uint64_t now = 0;
    for (std::uint64_t i = 0; i < schedule->events; ++i) {
      // An old reading of the clock will do as long as it says that the event is due: who is late
      // catches up without looking at the clock for each event.
      const auto due = schedule->time_of(i);
      if (now < due) {
        now = wait_until(due);
      }
      std::memcpy(text.data(), &i, sizeof i);
      single(shard::Bytes(text));
    }
  }

 private:
  /// A sleeper may come back late by the 50 us of timer slack that Linux gives a thread, and some, so
  /// the last part of the wait is awake.
  static constexpr std::uint64_t kAwake = 100'000;

  /// Returns the time, which is not before `due`.
  [[nodiscard]] std::uint64_t wait_until(std::uint64_t due) const {
    auto now = schedule->clock->now().nanoseconds;
    if (now + 2 * kAwake < due) {
      std::this_thread::sleep_for(std::chrono::nanoseconds(due - now - kAwake));
      now = schedule->clock->now().nanoseconds;
    }
    while (now < due) {
      __builtin_ia32_pause();
      now = schedule->clock->now().nanoseconds;
    }
    return now;
  }
};

/// Told of the batches as they reach the callback; keeps how long their events took since they
/// were meant to be sent.
///
/// Threads: take() by one at a time; begin() and histogram() when nothing is under way.
class Arrivals {
 public:
  explicit Arrivals(const Schedule& schedule) : schedule_(&schedule) {}

  /// \param warm_up  so many of the first events of the schedule do not count
  void begin(std::uint64_t warm_up) {
    warm_up_ = warm_up;
    histogram_ = {};
  }

  /// Once, in the batch with event `at`, the callback takes this much longer: to see whether all
  /// events show it that should have been sent meanwhile.
  void stall(std::uint64_t at, std::chrono::nanoseconds duration) {
    stall_at_ = at;
    stall_ = duration;
  }

  /// Not inlined, so that it changes nothing for callbacks that report to nobody.
  template <class Batch, class PayloadOf>
  [[gnu::noinline]] void take(const Batch& batch, PayloadOf payload_of) {
    const auto now = schedule_->clock->now().nanoseconds;
    bool stalls = false;
    for (auto&& event : batch) {
      std::uint64_t i = 0;
      std::memcpy(&i, payload_of(event).data(), sizeof i);
      if (i >= warm_up_) {
        const auto due = schedule_->time_of(i);
        histogram_.add(now > due ? now - due : 0);
      }
      stalls = stalls || i == stall_at_;
    }
    if (stalls) {
      std::this_thread::sleep_for(stall_);
    }
  }

  [[nodiscard]] const Histogram& histogram() const { return histogram_; }

 private:
  const Schedule* schedule_;
  std::uint64_t warm_up_ = 0;
  std::uint64_t stall_at_ = ~std::uint64_t{0};
  std::chrono::nanoseconds stall_{0};
  Histogram histogram_;
};

}  // namespace bench
