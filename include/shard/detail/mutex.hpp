#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "shard/detail/annotations.hpp"
#include "shard/detail/platform.hpp"

namespace shard::detail {

/// A mutex that spins briefly and then parks, and whose unlock() is a plain store while nobody is parked.
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
/// both sides use sequentially consistent accesses.
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
    if (process_barriers_) [[likely]] {
      word_.store(kFree, std::memory_order_release);        // [mutex.word] -> lock()
      std::atomic_signal_fence(std::memory_order_seq_cst);  // the compiler keeps the order too
      if (waiters_.load(std::memory_order_relaxed) != 0) [[unlikely]] {  // [mutex.waiters]
        Platform::unpark_one(word_);
      }
    } else {
      word_.store(kFree, std::memory_order_seq_cst);        // [mutex.word] -> lock()
      if (waiters_.load(std::memory_order_seq_cst) != 0) {  // [mutex.waiters]
        Platform::unpark_one(word_);
      }
    }
  }

 private:
  static constexpr std::uint32_t kFree = 0;
  static constexpr std::uint32_t kHeld = 1;
  static constexpr int kLongestPause = 64;  ///< between two looks at a lock that is held

  SHARD_NOINLINE void lock_contended() noexcept {
    // A look takes the line, with what the holder writes beside the lock, from its core: the longer this takes, the more
    // rarely. It only reads, so that it leaves the holder a copy; the exchange behind it decides.
    for (int spent = 0, pause = 1; spent < Platform::kSpins;
         spent += pause, pause = std::min(2 * pause, kLongestPause)) {
      for (int i = 0; i < pause; ++i) {
        Platform::relax();
      }
      if (word_.load(std::memory_order_relaxed) == kFree &&
          word_.exchange(kHeld, std::memory_order_acquire) == kFree) {  // [mutex.word]
        return;
      }
    }
    waiters_.fetch_add(1, std::memory_order_seq_cst);  // [mutex.waiters]
    // Without the barrier it would not be safe to park; then this thread spins on.
    const bool may_park = !process_barriers_ || Platform::process_barrier();
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
  typename Platform::template Atomic<std::uint32_t> waiters_{0};
  /// Each mutex keeps to one of the two ways for its life, whatever happens elsewhere in the process.
  const bool process_barriers_ = Platform::enable_process_barrier();
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
