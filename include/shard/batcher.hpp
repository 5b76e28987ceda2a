#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "shard/detail/export.hpp"
#include "shard/ids.hpp"

namespace shard {

/// When the events of a shard are handed over, and how many at a time. A batch is due when enough events have gathered
/// (between min_events and max_events, by how fast they come in), when they are max_bytes, when the shard is half full or
/// has refused or evicted an event, or when the oldest has waited for max_delay. It then takes all there is, up to
/// max_events and max_bytes: behind a slow sink batches grow by themselves.
struct BatchOptions {
  /// Enough to be worth a call of the adapter, at whatever rate. 1 .. max_events.
  std::size_t min_events = 1'000;

  /// A batch never has more. min_events .. 1'000'000. (Nor ever more than the ring of one shard holds.)
  std::size_t max_events = 10'000;

  /// A batch never has more payload bytes, unless its only event does. 1 .. 1 GiB.
  std::size_t max_bytes = std::size_t{1} << 20U;

  /// How long an event may wait for company while a worker is free. 0 .. 1 min. Zero: it does not wait.
  std::chrono::nanoseconds max_delay = std::chrono::milliseconds{10};

  /// Over how long the rate of events is averaged. 1 ms .. 1 min.
  std::chrono::nanoseconds velocity_window = std::chrono::milliseconds{100};

  /// Fewer and larger calls: 5,000 .. 50,000 events, 8 MiB, 50 ms. Half a shard is always enough for a batch, so this wants
  /// larger shards than the default: ManagerOptions::ring_capacity 2^17, ring_bytes 2^24.
  [[nodiscard]] SHARD_EXPORT static BatchOptions high_throughput();
  /// Events are handed over at once: 1 .. 1,000 events, no delay.
  [[nodiscard]] SHARD_EXPORT static BatchOptions low_latency();

  /// Throws ConfigError, with field() like "batch.max_delay", for the first field out of bounds.
  SHARD_EXPORT void validate() const;

  bool operator==(const BatchOptions&) const = default;
};

/// Says how many events make a batch of one shard: as many as come in within max_delay, between min_events and
/// max_events. The rate is averaged over the velocity window: it follows the load within a window (and a step of it, an
/// eighth), exactly, and the target is back at the minimum one window after the last event.
///
/// It reads no clock, so that a simulation and a pipeline see the same. It may be told as rarely as one likes: what came in
/// between two calls is taken to have come in evenly. So a steady rate is measured right by a worker that looks once a
/// second, and idleness before a burst does not thin the burst out, as the first event of it makes a worker look.
///
/// Threads: one at a time. Memory: fixed. Complexity: constant.
class SHARD_EXPORT AdaptiveBatcher {
 public:
  /// Throws ConfigError.
  explicit AdaptiveBatcher(const BatchOptions& options = {});

  [[nodiscard]] const BatchOptions& options() const noexcept { return options_; }

  /// Tells how many events the shard has accepted so far, and when. What goes back, of the two, is taken to stand still.
  void observe(std::uint64_t accepted, Timestamp now) noexcept;

  /// Events per second over the last window, or since the first call of observe() if that is less. What came in within
  /// less than kShortestSpan is taken to have come in that long, so that two events a microsecond apart are no burst.
  [[nodiscard]] double events_per_second(Timestamp now) const noexcept;

  /// How many events are enough now: min_events .. max_events.
  [[nodiscard]] std::size_t target(Timestamp now) const noexcept;

  static constexpr std::chrono::nanoseconds kShortestSpan = std::chrono::milliseconds{1};

 private:
  struct Sample {
    std::uint64_t time = 0;
    std::uint64_t accepted = 0;
    bool operator==(const Sample&) const = default;
  };

  static constexpr std::size_t kSteps = 8;  ///< samples are about an eighth of the window apart
  /// At most two of them fall into a step, so that they always reach back for a window.
  static constexpr std::size_t kSamples = 2 * kSteps + 2;

  [[nodiscard]] std::uint64_t window() const noexcept {
    return static_cast<std::uint64_t>(options_.velocity_window.count());
  }
  /// \param age  0 .. kept_ - 1; 0 is the newest
  [[nodiscard]] const Sample& sample(std::size_t age) const noexcept {
    return samples_[(next_ + kSamples - 1 - age) % kSamples];
  }
  void keep(const Sample& sample) noexcept;

  BatchOptions options_;
  std::array<Sample, kSamples> samples_{};  ///< a ring
  std::size_t next_ = 0;
  std::size_t kept_ = 0;
  Sample latest_{};          ///< what observe() was told last
  std::uint64_t grown_ = 0;  ///< when it was first told of the last event
};

}  // namespace shard
