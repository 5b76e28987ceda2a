#pragma once

#include <cstdint>

#include "shard/detail/annotations.hpp"
#include "shard/detail/platform.hpp"

namespace shard::detail {

/// A mutex of four bytes that spins briefly and then parks.
///
/// Threads:  any. Not recursive, not fair.
/// Ordering: unlock() [mutex.word] -> lock(): what one holder wrote is visible to the next.
/// Cost:     two locked instructions when nobody competes; no system call unless a thread parked.
template <class Platform>
class SHARD_CAPABILITY("mutex") BasicMutex {
 public:
  BasicMutex() = default;
  BasicMutex(const BasicMutex&) = delete;
  BasicMutex& operator=(const BasicMutex&) = delete;

  void lock() noexcept SHARD_ACQUIRE() SHARD_NO_THREAD_SAFETY_ANALYSIS {
    if (!try_lock()) [[unlikely]] {
      lock_contended();
    }
  }

  [[nodiscard]] bool try_lock() noexcept SHARD_TRY_ACQUIRE(true) {
    auto expected = kFree;
    return word_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire,
                                         std::memory_order_relaxed);  // [mutex.word] <- unlock()
  }

  void unlock() noexcept SHARD_RELEASE() {
    if (word_.exchange(kFree, std::memory_order_release) == kParked) [[unlikely]] {  // [mutex.word]
      Platform::unpark_one(word_);
    }
  }

 private:
  // The third state is Drepper's ("Futexes Are Tricky", mutex 2): whoever may have to be woken marks
  // the word, and a thread that has parked once takes the lock in that state, since it cannot know
  // whether others are still parked. A wake-up too many is the price, never one too few.
  static constexpr std::uint32_t kFree = 0;
  static constexpr std::uint32_t kHeld = 1;
  static constexpr std::uint32_t kParked = 2;
  static constexpr int kSpins = 64;  // about the length of a push, so that most waits end here

  SHARD_NOINLINE void lock_contended() noexcept {
    for (int spin = 0; spin < kSpins; ++spin) {
      if (word_.load(std::memory_order_relaxed) == kFree) {  // only a hint: try_lock() decides
        auto expected = kFree;
        if (word_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire,
                                          std::memory_order_relaxed)) {  // [mutex.word]
          return;
        }
      }
      Platform::relax();
    }
    while (word_.exchange(kParked, std::memory_order_acquire) != kFree) {  // [mutex.word]
      Platform::park(word_, kParked);
    }
  }

  typename Platform::template Atomic<std::uint32_t> word_{kFree};
};

/// Holds a mutex for a scope.
template <class Mutex>
class SHARD_SCOPED_CAPABILITY LockGuard {
 public:
  explicit LockGuard(Mutex& mutex) noexcept SHARD_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  LockGuard(const LockGuard&) = delete;
  LockGuard& operator=(const LockGuard&) = delete;
  ~LockGuard() SHARD_RELEASE() { mutex_.unlock(); }

 private:
  Mutex& mutex_;
};

}  // namespace shard::detail
