#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "shard/detail/annotations.hpp"
#include "shard/detail/export.hpp"
#include "shard/detail/fork.hpp"
#include "shard/detail/mutex.hpp"
#include "shard/detail/platform.hpp"

namespace shard::detail {

/// What a thread remembers of a SnapshotCell that it has read. Trivial, so that reading it needs no
/// guard and it stays readable while the thread's other thread-locals are destroyed.
struct SnapshotSlot {
  std::uint64_t instance = 0;  ///< of the cell; 0 for none
  std::uint64_t version = 0;
  const void* value = nullptr;
};

/// A thread that alternates between up to this many cells keeps them all.
inline constexpr std::size_t kSnapshotSlots = 4;
[[nodiscard]] constexpr std::size_t snapshot_slot_of(std::uint64_t instance) noexcept {
  return instance % kSnapshotSlots;
}

SHARD_EXPORT extern constinit thread_local std::array<SnapshotSlot, kSnapshotSlots> t_snapshots;

/// Puts a snapshot into the calling thread's slot and shares its ownership until the slot is reused or
/// the thread ends. Does nothing when the thread's thread-locals have been destroyed already.
SHARD_EXPORT void remember_snapshot(const SnapshotSlot& slot,
                                    std::shared_ptr<const void> owner) noexcept;

/// Numbers cells from 1; never the same twice, so a slot of a destroyed cell is never mistaken for
/// that of a new one at the same address.
[[nodiscard]] SHARD_EXPORT std::uint64_t next_snapshot_instance() noexcept;

/// Holds the current one of a series of immutable values, as read-copy-update does: readers take no
/// lock and write no shared memory, writers publish a new value.
///
/// Threads:  any. publish() calls are serialised by the caller.
/// Ordering: a value is handed over under mutex_; version_ only says "look again", so relaxed is
///           enough. A reader may use an old value for a while: whatever must not be used any more has
///           to refuse by itself (see ShardCore: closed under the lock).
/// Memory:   cached() never allocates. Replaced values are kept until only the cell owns them, so that
///           they are destroyed by a publisher or with the cell, not on a reader's path; what an idle
///           thread still caches then is destroyed when the thread ends or reuses the slot.
/// fork():   in a child version() is 0 and no cache is valid; peek() and current() answer `in_child`, without a lock.
template <class Platform, class T>
class SnapshotCell {
 public:
  /// \param first     not null. T has a member `version`, not 0, which grows with each value.
  /// \param in_child  not null: what a forked child reads
  SnapshotCell(std::shared_ptr<const T> first, std::shared_ptr<const T> in_child)
      : version_(*new (page_.memory()) Version(first->version)),
        in_child_(std::move(in_child)),
        current_(std::move(first)) {}
  explicit SnapshotCell(const std::shared_ptr<const T>& first) : SnapshotCell(first, first) {}

  /// The current value if this thread has it cached, else nullptr: then call current() or read(). Valid until
  /// this thread calls one of the two, of any cell.
  [[nodiscard]] const T* cached() const noexcept {
    const auto& slot = t_snapshots[slot_];
    // Two tests, so that the compiler lays out what is likely without a jump.
    if (slot.instance != instance_) [[unlikely]] {
      return nullptr;
    }
    if (slot.version != version()) [[unlikely]] {
      return nullptr;
    }
    return static_cast<const T*>(slot.value);
  }

  /// The current value, for a scope: what cached() answers, or else what current() does.
  class Reading {
   public:
    explicit Reading(const SnapshotCell& cell) noexcept : value_(cell.cached()) {
      if (value_ == nullptr) [[unlikely]] {
        kept_ = cell.current();
        value_ = kept_.get();
      }
    }
    const T* operator->() const noexcept { return value_; }

   private:
    const T* value_;
    std::shared_ptr<const T> kept_;
  };
  [[nodiscard]] Reading read() const noexcept SHARD_EXCLUDES(mutex_) { return Reading(*this); }

  /// The current value, shared; it is cached for this thread from now on.
  [[nodiscard]] std::shared_ptr<const T> current() const noexcept SHARD_EXCLUDES(mutex_) {
    auto value = peek();
    remember_snapshot({instance_, value->version, value.get()}, value);
    return value;
  }

  /// The same without touching the thread's cache.
  [[nodiscard]] std::shared_ptr<const T> peek() const noexcept SHARD_EXCLUDES(mutex_) {
    if (forked()) [[unlikely]] {
      return in_child_;
    }
    const LockGuard lock(mutex_);
    return current_;
  }

  /// The version of the current value.
  [[nodiscard]] std::uint64_t version() const noexcept {
    return version_.load(std::memory_order_relaxed);  // a hint: the value itself comes under mutex_
  }

  /// Is this a child of the process that made it? Then no lock of it may be taken, since nobody may ever release it.
  [[nodiscard]] bool forked() const noexcept { return version() == 0; }

  /// In a forked child: nothing that was published here is ever destroyed, whoever lets go of it last.
  void keep_forever() noexcept SHARD_NO_THREAD_SAFETY_ANALYSIS {
    detail::keep_forever(std::move(current_));
    for (auto& value : retired_) {
      detail::keep_forever(std::move(value));
    }
  }

  /// Makes room for what publish() does, so that it cannot fail. Throws std::bad_alloc.
  void prepare_to_publish() SHARD_EXCLUDES(mutex_) {
    const LockGuard lock(mutex_);
    retired_.reserve(retired_.size() + 1);
    unused_.reserve(retired_.size() + 1);
  }

  /// Makes `next` the current value, after prepare_to_publish(). Destroys the replaced ones that nobody uses any more.
  void publish(std::shared_ptr<const T> next) noexcept SHARD_EXCLUDES(mutex_) {
    {
      const LockGuard lock(mutex_);
      version_.store(next->version, std::memory_order_relaxed);
      retired_.push_back(std::exchange(current_, std::move(next)));
      const auto unused = std::partition(retired_.begin(), retired_.end(),
                                         [](const auto& value) { return value.use_count() > 1; });
      std::move(unused, retired_.end(), std::back_inserter(unused_));
      retired_.erase(unused, retired_.end());
    }
    unused_.clear();  // outside of the lock: destroying a value may take long
  }

 private:
  using Version = typename Platform::template Atomic<std::uint64_t>;

  const std::uint64_t instance_ = next_snapshot_instance();
  const std::size_t slot_ = snapshot_slot_of(instance_);
  const WipedOnFork page_;
  Version& version_;  ///< in the page
  const std::shared_ptr<const T> in_child_;
  mutable BasicMutex<Platform> mutex_;
  std::shared_ptr<const T> current_ SHARD_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<const T>> retired_ SHARD_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<const T>> unused_;  ///< on their way out of retired_; the publisher's
};

}  // namespace shard::detail
