#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <mutex>
#include <thread>

#include "shard/detail/platform.hpp"

#if defined(__linux__)
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif

namespace shard::detail {

void SystemPlatform::yield() noexcept { std::this_thread::yield(); }

namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

/// When to wake so that `clock` has reached `deadline`. A clock that is not real tells nothing about how
/// long that takes, so then the sleep is short and the caller looks again.
SteadyTime wake_time(const Clock& clock, Timestamp deadline, Timestamp now) {
  constexpr std::chrono::nanoseconds kLook = std::chrono::milliseconds{1};
  constexpr std::chrono::nanoseconds kLongest = std::chrono::hours{24 * 365};  // no overflow below
  const auto left = std::min(
      std::chrono::nanoseconds{static_cast<std::int64_t>(deadline.nanoseconds - now.nanoseconds)},
      clock.is_real() ? kLongest : kLook);
  return std::chrono::steady_clock::now() + left;
}

}  // namespace

// ---------------------------------------------------------------------------------- portable

namespace {

/// Threads that park on a word sleep in the bucket of its address. A wake-up wakes the whole bucket;
/// who is not meant looks and parks again.
struct Bucket {
  std::mutex mutex;
  std::condition_variable changed;
};

Bucket& bucket_of(const void* word) {
  static std::array<Bucket, 64> buckets;
  return buckets[(reinterpret_cast<std::uintptr_t>(word) >> 4U) % buckets.size()];
}

}  // namespace

void PortableParker::park(const Word& word, std::uint32_t expected) noexcept {
  auto& bucket = bucket_of(&word);
  std::unique_lock lock(bucket.mutex);
  // Who changes the word unparks afterwards, which takes this mutex: either we see the change here,
  // or we are in wait() when the notification comes.
  if (word.load(std::memory_order_relaxed) == expected) {
    bucket.changed.wait(lock);
  }
}

bool PortableParker::park_until(const Word& word, std::uint32_t expected, const Clock& clock,
                                Timestamp deadline) noexcept {
  const auto now = clock.now();
  if (now >= deadline) {
    return false;
  }
  auto& bucket = bucket_of(&word);
  std::unique_lock lock(bucket.mutex);
  if (word.load(std::memory_order_relaxed) == expected) {  // as above
    bucket.changed.wait_until(lock, wake_time(clock, deadline, now));
  }
  return clock.now() < deadline;
}

void PortableParker::unpark_all(const Word& word) noexcept {
  auto& bucket = bucket_of(&word);
  const std::lock_guard lock(bucket.mutex);
  bucket.changed.notify_all();
}

// ---------------------------------------------------------------------------------- futex

#if defined(__linux__)

namespace {

static_assert(sizeof(SystemPlatform::Word) == sizeof(std::uint32_t));

// See futex(2). The kernel compares the word itself; it may return early for many reasons, all fine.
void futex_wait(const SystemPlatform::Word& word, std::uint32_t expected,
                const timespec* until) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, expected, until, nullptr,
          FUTEX_BITSET_MATCH_ANY);  // with this operation the time is absolute, on CLOCK_MONOTONIC
}

void futex_wake(const SystemPlatform::Word& word, int threads) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, threads);
}

}  // namespace

void SystemPlatform::park(const Word& word, std::uint32_t expected) noexcept {
  futex_wait(word, expected, nullptr);
}

bool SystemPlatform::park_until(const Word& word, std::uint32_t expected, const Clock& clock,
                                Timestamp deadline) noexcept {
  const auto now = clock.now();
  if (now >= deadline) {
    return false;
  }
  // libstdc++ and libc++ read CLOCK_MONOTONIC for steady_clock.
  const auto until = wake_time(clock, deadline, now).time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(until);
  const timespec time{static_cast<time_t>(seconds.count()),
                      static_cast<long>(std::chrono::nanoseconds(until - seconds).count())};
  futex_wait(word, expected, &time);
  return clock.now() < deadline;
}

void SystemPlatform::unpark_one(const Word& word) noexcept { futex_wake(word, 1); }

void SystemPlatform::unpark_all(const Word& word) noexcept {
  futex_wake(word, std::numeric_limits<int>::max());
}

bool SystemPlatform::enable_process_barrier() noexcept {
  static const bool enabled =
      syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
  return enabled;
}

bool SystemPlatform::process_barrier() noexcept {
  return syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

#else

void SystemPlatform::park(const Word& word, std::uint32_t expected) noexcept {
  PortableParker::park(word, expected);
}
bool SystemPlatform::park_until(const Word& word, std::uint32_t expected, const Clock& clock,
                                Timestamp deadline) noexcept {
  return PortableParker::park_until(word, expected, clock, deadline);
}
void SystemPlatform::unpark_one(const Word& word) noexcept { PortableParker::unpark_all(word); }
void SystemPlatform::unpark_all(const Word& word) noexcept { PortableParker::unpark_all(word); }
bool SystemPlatform::enable_process_barrier() noexcept { return false; }
bool SystemPlatform::process_barrier() noexcept { return false; }

#endif

}  // namespace shard::detail
