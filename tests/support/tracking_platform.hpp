#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "shard/detail/platform.hpp"

namespace shard_test {

/// How many of the library's locks this thread holds.
inline constinit thread_local int t_locks_held = 0;

/// Called when this thread has given back the last of them; so a test acts between two holds of a lock.
using Hook = void (*)();
inline constinit thread_local Hook t_on_unlock = nullptr;

inline void unlocked() {
  if (--t_locks_held == 0 && t_on_unlock != nullptr) t_on_unlock();
}

/// Knows a mutex by how it uses its word: 0 is free, whoever turns it from 0 takes the lock, whoever writes 0
/// gives it back. Event counts use none of these operations.
template <class T>
struct TrackedAtomic : std::atomic<T> {
  using std::atomic<T>::atomic;
};
template <>
struct TrackedAtomic<std::uint32_t> : std::atomic<std::uint32_t> {
  using Base = std::atomic<std::uint32_t>;
  using Base::Base;

  void store(std::uint32_t value, std::memory_order order = std::memory_order_seq_cst) noexcept {
    Base::store(value, order);
    if (value == 0) unlocked();
  }
  std::uint32_t exchange(std::uint32_t value,
                         std::memory_order order = std::memory_order_seq_cst) noexcept {
    const auto before = Base::exchange(value, order);
    t_locks_held += value != 0 && before == 0 ? 1 : 0;
    if (value == 0) unlocked();
    return before;
  }
  template <class... Orders>
  bool compare_exchange_strong(std::uint32_t& expected, std::uint32_t value,
                               Orders... orders) noexcept {
    const bool free = expected == 0;
    const bool done = Base::compare_exchange_strong(expected, value, orders...);
    t_locks_held += free && done && value != 0 ? 1 : 0;
    return done;
  }
};

/// The machine, watched: which locks are held when something happens that must not happen then.
struct TrackingPlatform : shard::detail::SystemPlatform {
  template <class T>
  using Atomic = TrackedAtomic<T>;
  using Word = Atomic<std::uint32_t>;

  static inline std::atomic<std::size_t> wakes{0};
  static inline std::atomic<std::size_t> system_calls_under_lock{0};

  static void unpark_one(const Word& word) noexcept {
    saw_wake();
    SystemPlatform::unpark_one(word);
  }
  static void unpark_all(const Word& word) noexcept {
    saw_wake();
    SystemPlatform::unpark_all(word);
  }

 private:
  static void saw_wake() noexcept {
    ++wakes;
    system_calls_under_lock += t_locks_held > 0 ? 1U : 0U;
  }
};

}  // namespace shard_test
