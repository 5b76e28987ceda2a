#pragma once

#include <atomic>
#include <barrier>
#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

namespace bench {

/// What a thread does that finds nothing to do, or no room: it pauses for a while and then lets
/// others have the core.
class Backoff {
 public:
  void wait() {
    if (pauses_ < kPauses) {
      ++pauses_;
      __builtin_ia32_pause();
    } else {
      std::this_thread::yield();
    }
  }
  void reset() { pauses_ = 0; }

 private:
  static constexpr int kPauses = 100;
  int pauses_ = 0;
};

/// Threads that do the same thing at the same time, over and over; the one that calls run() is the
/// first of them. The others sleep in between, so that what is measured then has the cores to
/// itself.
class Team {
 public:
  explicit Team(std::size_t size) : barrier_(static_cast<std::ptrdiff_t>(size)), size_(size) {
    for (std::size_t i = 1; i < size; ++i) {
      helpers_.emplace_back([this, i] {
        for (;;) {
          barrier_.arrive_and_wait();
          if (!task_) {
            return;
          }
          begin_together();
          task_(i);
          barrier_.arrive_and_wait();
        }
      });
    }
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() {
    task_ = {};
    barrier_.arrive_and_wait();
  }

  [[nodiscard]] std::size_t size() const { return size_; }

  /// Runs `task(i)` on thread i of 0 .. size() - 1 and returns when all have ended.
  void run(std::function<void(std::size_t)> task) {
    task_ = std::move(task);
    awake_.store(0);
    barrier_.arrive_and_wait();
    begin_together();
    task_(0);
    barrier_.arrive_and_wait();
  }

 private:
  /// A thread comes back from the barrier some ten microseconds after the last one that went there.
  void begin_together() {
    awake_.fetch_add(1);
    for (Backoff backoff; awake_.load() != size_;) {
      backoff.wait();
    }
  }

  std::barrier<> barrier_;
  std::size_t size_;
  std::atomic<std::size_t> awake_{0};
  std::function<void(std::size_t)> task_;
  std::vector<std::jthread> helpers_;
};

}  // namespace bench
