#pragma once

#include <atomic>
#include <cstdint>

#include "shard/clock.hpp"
#include "shard/detail/cache.hpp"
#include "shard/detail/export.hpp"
#include "shard/ids.hpp"

namespace shard::detail {

/// What the concurrent classes need of the machine, so that tests can put another in its place:
/// atomics (whose accesses a schedule explorer can interleave), pauses, and a place to park.
/// The classes take it as a template parameter; the library is instantiated for this one.
///
/// A parker puts a thread to sleep while a word holds a value, as a futex does. It may return early;
/// callers look again.
struct SHARD_EXPORT SystemPlatform {
  template <class T>
  using Atomic = std::atomic<T>;
  using Word = Atomic<std::uint32_t>;

  /// A hint that this thread spins.
  static void relax() noexcept {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    __builtin_ia32_pause();
#elif defined(__GNUC__) && defined(__aarch64__)
    asm volatile("isb" ::: "memory");  // `yield` does nothing on most of them
#endif
  }

  /// How many times a thread that waits for a mutex relaxes before it parks: about as long as parking takes with its barrier and
  /// two system calls, 5 to 20 us. So who waits for a whole batch's push seldom parks, and nobody spends more than twice
  /// what the better of the two would have cost.
  static constexpr int kSpins = 512;

  /// Lets another thread have this core, if one waits for it.
  static void yield() noexcept;

  /// And how many times it yields then. With as many threads as cores each is about a microsecond; with more, the holder
  /// of the mutex may be one that lost its core, and gets it back at once.
  static constexpr int kYields = 16;

  /// Sleeps while `word` is `expected`, until unparked.
  static void park(const Word& word, std::uint32_t expected) noexcept;

  /// The same, until `deadline` at the latest. False when that has passed.
  static bool park_until(const Word& word, std::uint32_t expected, const Clock& clock,
                         Timestamp deadline) noexcept;

  static void unpark_one(const Word& word) noexcept;
  static void unpark_all(const Word& word) noexcept;

  /// Prepares process_barrier(), once per process; false where there is none.
  static bool enable_process_barrier() noexcept;

  /// Returns after every running thread of the process has executed a full memory barrier: membarrier(2),
  /// private expedited. A few microseconds; an interrupt to the cores that run threads of this process. False if the
  /// system refuses it all of a sudden (a seccomp filter that was installed after it had been enabled).
  static bool process_barrier() noexcept;
};

/// Parking over a mutex and condition variables, for systems without a futex; it is compiled and
/// tested everywhere.
struct SHARD_EXPORT PortableParker {
  using Word = std::atomic<std::uint32_t>;
  static void park(const Word& word, std::uint32_t expected) noexcept;
  static bool park_until(const Word& word, std::uint32_t expected, const Clock& clock,
                         Timestamp deadline) noexcept;
  static void unpark_all(const Word& word) noexcept;
};

}  // namespace shard::detail
