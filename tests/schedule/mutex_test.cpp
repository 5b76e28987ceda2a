#include <catch2/catch.hpp>

#include "shard/detail/mutex.hpp"
#include "support/schedule.hpp"

namespace shard::test {
namespace {

using shard::detail::LockGuard;
using Mutex = shard::detail::BasicMutex<ScheduledPlatform>;

/// `threads` threads that hold the lock `rounds` times each, and must be alone while they do.
template <class TheMutex>
auto contend(int threads, int rounds) {
  return [=](Execution& run) {
    struct State {
      TheMutex mutex;
      ScheduledAtomic<int> inside{0};  // an access is a step, so others get their chance in there
      int held = 0;
    };
    auto& state = run.make<State>();
    for (int t = 0; t < threads; ++t) {
      run.thread([&state, rounds] {
        for (int round = 0; round < rounds; ++round) {
          const LockGuard lock(state.mutex);
          state.inside.store(state.inside.peek() + 1);
          require(state.inside.load() == 1, "two threads hold the mutex");
          state.inside.store(0);
          ++state.held;
        }
      });
    }
    run.afterwards([&state, threads, rounds] {
      require(state.held == threads * rounds, "each thread has held the mutex");
      const bool free = state.mutex.try_lock();
      require(free, "the mutex is free in the end");
      if (free) {
        state.mutex.unlock();
      }
    });
  };
}

TEST_CASE("one thread at a time holds the mutex, and who waits for it gets it", "[R-A2]") {
  const bool barriers = GENERATE(true, false);
  const unsigned delayed = GENERATE(0U, 1U);
  CAPTURE(barriers, delayed);
  SECTION("two threads") {
    const auto found = explore({.preemptions = 3 - delayed - kFewer,
                                .delayed_stores = delayed,
                                .process_barriers = barriers},
                               contend<Mutex>(2, 2));
    INFO(found);
    CHECK(found.passed());
  }
  SECTION("three threads") {
    const auto found = explore(
        {.preemptions = 2 - delayed, .delayed_stores = delayed, .process_barriers = barriers},
        contend<Mutex>(3, 1));
    INFO(found);
    CHECK(found.passed());
  }
}

// ---------------------------------------------------------------------------------- broken on purpose

/// Looks and takes in two steps.
class SHARD_CAPABILITY("mutex") LoadStoreMutex {
 public:
  bool lock() noexcept SHARD_ACQUIRE() SHARD_NO_THREAD_SAFETY_ANALYSIS {
    while (word_.load() != 0) {
      ScheduledPlatform::relax();
    }
    word_.store(1);
    return false;
  }
  [[nodiscard]] bool try_lock() noexcept SHARD_TRY_ACQUIRE(true) { return word_.exchange(1) == 0; }
  void unlock() noexcept SHARD_RELEASE() SHARD_NO_THREAD_SAFETY_ANALYSIS { word_.store(0); }

 private:
  ScheduledPlatform::Word word_{0};
};

struct DeafPlatform : ScheduledPlatform {
  static void unpark_one(const Word&) noexcept {}
};

struct NoBarrierPlatform : ScheduledPlatform {
  static bool process_barrier() noexcept { return true; }
};

TEST_CASE("the explorer finds a mutex that looks and takes in two steps") {
  const auto found = explore({.preemptions = 2}, contend<LoadStoreMutex>(2, 1));
  INFO(found);
  CHECK(found.failure == "two threads hold the mutex");
}

TEST_CASE("the explorer finds a mutex that does not wake on unlock") {
  const auto found =
      explore({.preemptions = 1}, contend<shard::detail::BasicMutex<DeafPlatform>>(2, 1));
  INFO(found);
  CHECK(found.failure.find("deadlock") != std::string::npos);
}

TEST_CASE("the explorer finds a mutex whose waiters leave the barrier out") {
  const auto scenario = contend<shard::detail::BasicMutex<NoBarrierPlatform>>(2, 1);
  const auto in_order = explore({.preemptions = 3 - kFewer}, scenario);
  INFO(in_order);
  CHECK(in_order.passed());  // it is only wrong where a load overtakes a store

  const auto delayed = explore({.preemptions = 2, .delayed_stores = 1}, scenario);
  INFO(delayed);
  CHECK(delayed.failure.find("deadlock") != std::string::npos);
}

}  // namespace
}  // namespace shard::test
