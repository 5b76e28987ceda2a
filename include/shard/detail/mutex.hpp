#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "shard/detail/annotations.hpp"
#include "shard/detail/platform.hpp"

namespace shard::detail {

/// A mutex that spins briefly, yields a few times and then parks, and whose unlock() is a plain store while nobody is
/// parked.
///
/// Threads:  any. Not recursive, not fair. It must live until every unlock() has returned.
/// Ordering: unlock() [mutex.word] -> lock(): what one holder wrote is visible to the next.
/// Cost:     one locked instruction when nobody competes; no system call unless a thread parked.
///
/// No lost wake-up: unlock() stores the word and then reads waiters_, a thread that is about to park writes
/// waiters_ and then reads the word. At least one of them must see what the other wrote, for which each
/// needs a full barrier in between. [mutex.waiters] A barrier in unlock() costs more than the rest of a push (it
/// waits until the copied payload has left the core), so where the system can, the rare side pays for both:
/// Platform::process_barrier() has every running thread of the process execute a barrier. Elsewhere
/// each unlock() has one of its own.
template <class Platform>
class SHARD_CAPABILITY("mutex") BasicMutex {
 public:
  BasicMutex() = default;
  BasicMutex(const BasicMutex&) = delete;
  BasicMutex& operator=(const BasicMutex&) = delete;

  /// True if it had to wait.
  SHARD_ALWAYS_INLINE bool lock() noexcept SHARD_ACQUIRE() SHARD_NO_THREAD_SAFETY_ANALYSIS {
    if (try_lock()) [[likely]] {
      return false;
    }
    lock_contended();
    return true;
  }

  [[nodiscard]] SHARD_ALWAYS_INLINE bool try_lock() noexcept SHARD_TRY_ACQUIRE(true) {
    return word_.exchange(kHeld, std::memory_order_acquire) == kFree;  // [mutex.word] <- unlock()
  }

  SHARD_ALWAYS_INLINE void unlock() noexcept SHARD_RELEASE() {
    word_.store(kFree, std::memory_order_release);        // [mutex.word] -> lock()
    std::atomic_signal_fence(std::memory_order_seq_cst);  // the compiler keeps the order too
    if (waiters_.load(std::memory_order_relaxed) != 0) [[unlikely]] {  // [mutex.waiters]
      unlock_slowly();
    }
  }

 private:
  static constexpr std::uint32_t kFree = 0;
  static constexpr std::uint32_t kHeld = 1;
  static constexpr int kLongestPause = 64;  ///< between two looks at a lock that is held

  /// Added to waiters_ for good where there is no process barrier, so that one look at it is enough for the common case.
  static constexpr std::uint32_t kNoBarrier = std::uint32_t{1} << 31U;

  /// Wakes one of those that are parked, after the word was stored.
  SHARD_NOINLINE void unlock_slowly() noexcept {
    // Without the process barrier what was read is too old. This read-modify-write comes before a waiter's own, which then
    // sees the free word, or after it.
    if (waiters_.load(std::memory_order_relaxed) < kNoBarrier ||
        waiters_.fetch_add(0, std::memory_order_acq_rel) != kNoBarrier) {  // [mutex.waiters]
      Platform::unpark_one(word_);
    }
  }

  SHARD_NOINLINE void lock_contended() noexcept {
    // A look takes the line, with what the holder writes beside the lock, from its core: the longer this takes, the more
    // rarely. It only reads, so that it leaves the holder a copy; the exchange behind it decides.
    const auto take_if_free = [this]() SHARD_NO_THREAD_SAFETY_ANALYSIS {
      return word_.load(std::memory_order_relaxed) == kFree && try_lock();
    };
    for (int spent = 0, pause = 1; spent < Platform::kSpins;
         spent += pause, pause = std::min(2 * pause, kLongestPause)) {
      for (int i = 0; i < pause; ++i) {
        Platform::relax();
      }
      if (take_if_free()) {
        return;
      }
    }
    // Where there are more threads than cores the holder may wait for this one.
    for (int turn = 0; turn < Platform::kYields; ++turn) {
      Platform::yield();
      if (take_if_free()) {
        return;
      }
    }
    const auto others = waiters_.fetch_add(1, std::memory_order_seq_cst);  // [mutex.waiters]
    // If the barrier fails it is not safe to park; then this thread spins on.
    const bool may_park = others >= kNoBarrier || Platform::process_barrier();
    while (word_.exchange(kHeld, std::memory_order_seq_cst) !=
           kFree) {  // [mutex.word] [mutex.waiters]
      if (may_park) {
        Platform::park(word_, kHeld);
      } else {
        Platform::relax();
      }
    }
    waiters_.fetch_sub(1, std::memory_order_relaxed);  // a wake-up in vain until this is seen
  }

  typename Platform::template Atomic<std::uint32_t> word_{kFree};
  typename Platform::template Atomic<std::uint32_t> waiters_{
      Platform::enable_process_barrier()
          ? 0
          : kNoBarrier};  ///< and, for its life, whether there is one
};

/// Holds a mutex for a scope.
template <class Mutex>
class SHARD_SCOPED_CAPABILITY LockGuard {
 public:
  explicit LockGuard(Mutex& mutex) noexcept SHARD_ACQUIRE(mutex)
      : mutex_(mutex), contended_(mutex_.lock()) {}
  LockGuard(const LockGuard&) = delete;
  LockGuard& operator=(const LockGuard&) = delete;
  ~LockGuard() SHARD_RELEASE() { mutex_.unlock(); }

  /// Did taking it have to wait?
  [[nodiscard]] bool contended() const noexcept { return contended_; }

 private:
  Mutex& mutex_;
  const bool contended_;
};

}  // namespace shard::detail
