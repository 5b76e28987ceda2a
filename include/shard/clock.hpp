#pragma once

#include <chrono>
#include <cstdint>

#include "shard/detail/export.hpp"
#include "shard/ids.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#define SHARD_HAS_TSC 1
#endif

namespace shard {

/// Where a host or a test supplies its own time instead of the machine's.
/// Threads: nanoseconds() is called by every thread that ingests, at once.
class SHARD_EXPORT TimeSource {
 public:
  TimeSource() = default;
  TimeSource(const TimeSource&) = delete;
  TimeSource& operator=(const TimeSource&) = delete;
  virtual ~TimeSource();

  /// Nanoseconds from any fixed origin. May stand still or step back; timestamps do not. What is due at a time (a batch
  /// after its max_delay, a retry, a decision to scale) is due when it is that time again, so it waits for as long as the
  /// source has stepped back; flush(), close() and a full batch do not.
  [[nodiscard]] virtual std::uint64_t nanoseconds() const noexcept = 0;
};

/// Tells the nanoseconds since it was made (the epoch).
///
/// On x86-64 it reads the time stamp counter, where that is invariant and the two halves of a calibration
/// against the monotonic clock, of a millisecond each, agree within kAgreement plus the 200 ns that
/// reading both takes (once per process, when the first clock is made); otherwise it reads
/// std::chrono::steady_clock. The rate is not adjusted later: it is as good as the calibration, some tens of
/// parts in a million, and does not follow the slewing of the system's clock.
///
/// Threads:  any, at once. Never allocates, no system call with the counter.
/// Cost:     about 10 ns with the counter, 25 ns without.
class SHARD_EXPORT Clock {
 public:
  /// How far the counter may differ from the monotonic clock, as a part of the time measured.
  static constexpr double kAgreement = 100e-6;

  /// \param source  the time to use; nullptr for the machine's. It must outlive the clock.
  explicit Clock(const TimeSource* source = nullptr) noexcept;

  /// Nanoseconds since the epoch; 0 if the source went back behind it, at most Timestamp::max().
  [[nodiscard]] Timestamp now() const noexcept {
#if defined(SHARD_HAS_TSC)
    if (multiplier_ != 0) [[likely]] {
      return from_ticks(__builtin_ia32_rdtsc());
    }
#endif
    return slow_now();
  }

  /// The wall-clock time of timestamp 0, as read when the clock was made.
  [[nodiscard]] std::chrono::system_clock::time_point epoch() const noexcept { return epoch_; }

  /// Does it read the time stamp counter?
  [[nodiscard]] bool uses_counter() const noexcept { return multiplier_ != 0; }

  /// Does time pass by itself, so that a thread may sleep until a timestamp?
  [[nodiscard]] bool is_real() const noexcept { return source_ == nullptr; }

 private:
  friend struct ClockTestAccess;

#if defined(SHARD_HAS_TSC)
  __extension__ using Wide = unsigned __int128;

  [[nodiscard]] Timestamp from_ticks(std::uint64_t ticks) const noexcept {
    // Another core's counter may be a few ticks behind the one that made the epoch.
    const auto elapsed = ticks > base_ ? ticks - base_ : 0;
    return {static_cast<std::uint64_t>(static_cast<Wide>(elapsed) * multiplier_ >> 32U)};
  }
#endif
  [[nodiscard]] Timestamp slow_now() const noexcept;

  std::uint64_t base_ = 0;        ///< ticks, or nanoseconds of the source, at the epoch
  std::uint64_t multiplier_ = 0;  ///< nanoseconds per tick * 2^32; 0 when the counter is not used
  const TimeSource* source_ = nullptr;
  std::chrono::system_clock::time_point epoch_;
};

}  // namespace shard
