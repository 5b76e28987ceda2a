#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "shard/clock.hpp"

namespace shard_test {

/// A time that passes by a step at each reading, so that who waits for a deadline reaches it by looking.
/// What `on_reading` does happens in the middle of the library's work, at a known place and with no lock
/// held, which schedules a second "thread" without one.
/// Threads: one.
class ScriptedClock : public shard::TimeSource {
 public:
  explicit ScriptedClock(std::uint64_t step = 1) : step_(step) {}

  void on_reading(std::function<void()> action) { action_ = std::move(action); }
  [[nodiscard]] std::uint64_t readings() const noexcept { return readings_; }
  [[nodiscard]] std::uint64_t elapsed() const noexcept { return readings_ * step_; }

  [[nodiscard]] std::uint64_t nanoseconds() const noexcept override {
    ++readings_;
    if (action_ && !acting_) {  // what the action itself reads is no occasion for another
      acting_ = true;
      action_();
      acting_ = false;
    }
    return elapsed();
  }

 private:
  std::uint64_t step_;
  std::function<void()> action_;
  mutable std::uint64_t readings_ = 0;
  mutable bool acting_ = false;
};

}  // namespace shard_test
