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
      require(state.mutex.try_lock(), "the mutex is free in the end");
      state.mutex.unlock();
    });
  };
}

TEST_CASE("one thread at a time holds the mutex, and who waits for it gets it", "[R-A2]") {
  for (const bool barriers : {true, false}) {
    for (const unsigned delayed : {0U, 1U}) {
      SECTION(std::string("two threads, ") + (barriers ? "process barriers" : "ordered accesses") +
              (delayed != 0 ? ", a delayed store" : "")) {
        const auto found =
            explore({.preemptions = 3, .delayed_stores = delayed, .process_barriers = barriers},
                    contend<Mutex>(2, 2));
        INFO(found);
        CHECK(found.passed());
        WARN(found);
      }
      SECTION(std::string("three threads, ") + (barriers ? "process barriers" : "ordered accesses") +
              (delayed != 0 ? ", a delayed store" : "")) {
        const auto found =
            explore({.preemptions = 2, .delayed_stores = delayed, .process_barriers = barriers},
                    contend<Mutex>(3, 1));
        INFO(found);
        CHECK(found.passed());
        WARN(found);
      }
    }
  }
}

// ---------------------------------------------------------------------------------- broken on purpose

/// Looks and takes in two steps.
class SHARD_CAPABILITY("mutex") LoadStoreMutex {
 public:
  void lock() noexcept SHARD_ACQUIRE() SHARD_NO_THREAD_SAFETY_ANALYSIS {
    while (word_.load() != 0) {
      ScheduledPlatform::relax();
    }
    word_.store(1);
  }
  [[nodiscard]] bool try_lock() noexcept SHARD_TRY_ACQUIRE(true) { return word_.exchange(1) == 0; }
  void unlock() noexcept SHARD_RELEASE() SHARD_NO_THREAD_SAFETY_ANALYSIS { word_.store(0); }

 private:
  ScheduledPlatform::Word word_{0};
};

/// Drepper's mutex with one of its two rules broken.
enum class Flaw { unlock_wakes_nobody, who_parked_forgets_the_others };
template <Flaw kFlaw>
class SHARD_CAPABILITY("mutex") FlawedMutex {
 public:
  void lock() noexcept SHARD_ACQUIRE() SHARD_NO_THREAD_SAFETY_ANALYSIS {
    if (try_lock()) {
      return;
    }
    while (word_.exchange(2) != 0) {
      ScheduledPlatform::park(word_, 2);
      if (kFlaw == Flaw::who_parked_forgets_the_others && try_lock()) {
        return;
      }
    }
  }
  [[nodiscard]] bool try_lock() noexcept SHARD_TRY_ACQUIRE(true) {
    std::uint32_t expected = 0;
    return word_.compare_exchange_strong(expected, 1, std::memory_order_acquire,
                                         std::memory_order_relaxed);
  }
  void unlock() noexcept SHARD_RELEASE() SHARD_NO_THREAD_SAFETY_ANALYSIS {
    if (word_.exchange(0) == 2 && kFlaw != Flaw::unlock_wakes_nobody) {
      ScheduledPlatform::unpark_one(word_);
    }
  }

 private:
  ScheduledPlatform::Word word_{0};
};

TEST_CASE("the explorer finds a mutex that looks and takes in two steps") {
  const auto found = explore({.preemptions = 2}, contend<LoadStoreMutex>(2, 1));
  INFO(found);
  CHECK(found.failure == "two threads hold the mutex");
}

TEST_CASE("the explorer finds a mutex that does not wake on unlock") {
  const auto found =
      explore({.preemptions = 1}, contend<FlawedMutex<Flaw::unlock_wakes_nobody>>(2, 1));
  INFO(found);
  CHECK(found.failure.find("deadlock") != std::string::npos);
}

TEST_CASE("the explorer finds a mutex whose waiter forgets the other waiters") {
  const auto found =
      explore({.preemptions = 2}, contend<FlawedMutex<Flaw::who_parked_forgets_the_others>>(3, 1));
  INFO(found);
  CHECK(found.failure.find("deadlock") != std::string::npos);
}

}  // namespace
}  // namespace shard::test
