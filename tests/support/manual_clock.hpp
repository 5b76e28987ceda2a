#pragma once

#include <atomic>
#include <cstdint>

#include "shard/clock.hpp"

namespace shard_test {

/// A clock that stands still until it is set, and counts how often it was read.
/// Threads: any, at once.
class ManualClock : public shard::TimeSource {
 public:
  explicit ManualClock(std::uint64_t nanoseconds = 0) noexcept : now_(nanoseconds) {}

  [[nodiscard]] std::uint64_t nanoseconds() const noexcept override {
    readings_.fetch_add(1, std::memory_order_relaxed);
    return now_.load(std::memory_order_relaxed);
  }

  void set(std::uint64_t nanoseconds) noexcept {
    now_.store(nanoseconds, std::memory_order_relaxed);
  }
  void advance(std::uint64_t nanoseconds) noexcept {
    now_.fetch_add(nanoseconds, std::memory_order_relaxed);
  }

  [[nodiscard]] std::uint64_t readings() const noexcept {
    return readings_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> now_;
  mutable std::atomic<std::uint64_t> readings_{0};
};

}  // namespace shard_test
