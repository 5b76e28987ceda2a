#pragma once

#include <cstdint>

#include "shard/detail/platform.hpp"

namespace shard::detail {

/// Lets threads wait for a condition that other threads make true, without a lock around it.
///
///     waiter:   ticket = prepare(); if (condition) go on, else wait_until(ticket, ...)
///     notifier: make the condition true; notify_all()
///
/// Both sides do a read-modify-write on one word, and those have one order. If prepare() comes first,
/// notify_all() sees the waiter's bit and wakes; if it comes second, it reads what notify_all()
/// wrote, so the condition is visible to the check after it, and no wake-up is lost. [event_count.word]
/// The test "a producer that blocks is always woken" explores the interleavings.
///
/// Threads: any number on both sides. Cost of notify_all() without a waiter: one locked instruction.
template <class Platform>
class EventCount {
 public:
  using Ticket = std::uint32_t;

  /// Announces a waiter. The caller must look at the condition again before it waits.
  [[nodiscard]] Ticket prepare() noexcept {
    return word_.fetch_or(kWaiting, std::memory_order_acq_rel) | kWaiting;  // [event_count.word]
  }

  /// Sleeps until notified after prepare(), or until the deadline; false when that has passed.
  bool wait_until(Ticket ticket, const Clock& clock, Timestamp deadline) noexcept {
    return Platform::park_until(word_, ticket, clock, deadline);
  }

  void notify_all() noexcept {
    // The epoch above the bit changes on each call, so a ticket from before it never sleeps.
    const auto before = word_.fetch_add(kEpoch, std::memory_order_acq_rel);  // [event_count.word]
    if ((before & kWaiting) != 0) {
      word_.fetch_and(~kWaiting, std::memory_order_relaxed);  // a waiter since then wakes in vain
      Platform::unpark_all(word_);
    }
  }

 private:
  static constexpr std::uint32_t kWaiting = 1;
  static constexpr std::uint32_t kEpoch = 2;

  typename Platform::template Atomic<std::uint32_t> word_{0};
};

}  // namespace shard::detail
