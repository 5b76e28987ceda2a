#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>

#if defined(__linux__)
#include <sched.h>
#endif

#include "shard/detail/thread.hpp"

/// On which core one thread measures. Two cores of a virtual machine can differ by half: one may share its execution
/// units with a neighbour. Who is moved from one to the other between two subjects compares cores, not subjects.
namespace bench {

#if defined(__linux__)

/// Lets the calling thread run on any core again: what it inherited from who started it may be one.
inline void run_anywhere() {
  cpu_set_t all;
  CPU_ZERO(&all);
  for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
    CPU_SET(core, &all);  // the system takes away what there is not
  }
  sched_setaffinity(0, sizeof all, &all);
}

/// Keeps the calling thread on the core that is fastest now, for a scope. Threads that it starts inherit that.
class OnFastestCore {
 public:
  OnFastestCore() {
    sched_getaffinity(0, sizeof before_, &before_);
    std::size_t fastest = CPU_SETSIZE;
    double best = std::numeric_limits<double>::infinity();
    std::printf("cores, by the time of one loop:");
    for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &before_)) {
        shard::detail::bind_this_thread(static_cast<unsigned>(core));
        const auto took = time_of_a_loop();
        std::printf(" %.2f ms", took);
        if (took < best) {
          best = took;
          fastest = core;
        }
      }
    }
    if (fastest != CPU_SETSIZE) {
      shard::detail::bind_this_thread(static_cast<unsigned>(fastest));
    }
    std::printf("; measured on the one of %.2f\n", best);
  }
  OnFastestCore(const OnFastestCore&) = delete;
  OnFastestCore& operator=(const OnFastestCore&) = delete;
  ~OnFastestCore() { sched_setaffinity(0, sizeof before_, &before_); }

 private:
  /// Of eight chains of additions and multiplications, which keep the execution units busy; the least of some.
  static double time_of_a_loop() {
    double least = std::numeric_limits<double>::infinity();
    for (int turn = 0; turn < 5; ++turn) {
      std::uint64_t chains[8] = {1, 2, 3, 4, 5, 6, 7, 8};
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < 500'000; ++i) {
        for (auto& chain : chains) {
          chain = chain * 0x9E3779B97F4A7C15U + 1;
          asm volatile("" : "+r"(chain));
        }
      }
      const std::chrono::duration<double, std::milli> took =
          std::chrono::steady_clock::now() - start;
      least = std::min(least, took.count());
    }
    return least;
  }

  cpu_set_t before_{};
};

#else

inline void run_anywhere() {}
class OnFastestCore {
 public:
  OnFastestCore() {}  // NOLINT(modernize-use-equals-default): then who has one would not use it
};

#endif

}  // namespace bench
