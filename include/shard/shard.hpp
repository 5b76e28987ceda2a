#pragma once

#include <chrono>
#include <cstddef>
#include <limits>
#include <memory>
#include <utility>

#include "shard/detail/check.hpp"
#include "shard/detail/manager_core.hpp"
#include "shard/event_batch.hpp"

namespace shard {

template <class Platform>
class BasicManager;

/// A handle to one shard of a manager: push to it by name, pop from it, look at it.
///
/// Threads:  any, at once, also on copies. Whoever pops one shard from several threads gets each event once,
///           but must keep their order himself.
/// Lifetime: stays valid after the manager, and after its shard, is gone; pushes are then answered with
///           rejected_closed, pops find nothing, counts stay readable.
template <class Platform>
class BasicShard {
 public:
  /// No limit, for the bounds of pop_batch().
  static constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

  [[nodiscard]] ShardId id() const noexcept { return core_->id(); }

  /// Pushes to this shard whatever the routing says, and never waits: in block mode a full shard answers
  /// rejected_full. Events of a key must not also come in by Manager::ingest() if their order matters.
  [[nodiscard]] Outcome try_push(Bytes payload) const noexcept {
    detail::check_not_in_with_shard();
    return manager_->admit_to(*core_, detail::Item{payload, {}, {}});
  }
  [[nodiscard]] Outcome try_push(Bytes payload, Key key) const noexcept {
    return try_push_raw(RawEvent::of(payload).with(key));
  }
  /// The same for a payload that owns its bytes; if it is not accepted `payload` still has it.
  [[nodiscard]] Outcome try_push(Buffer&& payload) const noexcept {
    detail::check_not_in_with_shard();
    return manager_->admit_owned(payload, RawEvent::of(payload.bytes()),
                                 [this](const detail::Item& item, const RawEvent&) {
                                   return manager_->admit_to(*core_, item);
                                 });
  }
  /// The same for an event with everything that it may carry; its hash does not matter.
  [[nodiscard]] Outcome try_push_raw(const RawEvent& event) const noexcept {
    detail::check_not_in_with_shard();
    return manager_->admit_to(*core_, detail::item_of(event));
  }

  /// Appends the oldest event to `out`, if there is one. Throws std::bad_alloc, and then took nothing.
  bool try_pop(EventBatch& out) const { return pop_batch_into(out, 1) == 1; }

  /// Appends up to `max_events` of the oldest events, of no more than `max_payload_bytes` in all (the first
  /// excepted), to `out`; returns how many. They count as returned. The lock is held for 256 events or
  /// 64 KiB at a time, so while others pop too, what one call gets need not be consecutive. Without limits it
  /// takes all that was queued when it began, and never more than usable_capacity() events.
  /// Throws std::bad_alloc; what was appended before stays appended.
  std::size_t pop_batch_into(EventBatch& out, std::size_t max_events = kUnlimited,
                             std::size_t max_payload_bytes = kUnlimited) const {
    detail::check_not_in_with_shard();
    return manager_->is_forked() ? 0 : core_->pop(out, max_events, max_payload_bytes);
  }
  /// The same into a new batch.
  [[nodiscard]] EventBatch pop_batch(std::size_t max_events = kUnlimited) const {
    EventBatch batch;
    pop_batch_into(batch, max_events);
    return batch;
  }

  // What follows takes no lock and disturbs nothing.

  /// Events queued now, 0 .. usable_capacity().
  [[nodiscard]] std::size_t len() const noexcept { return core_->length(); }
  [[nodiscard]] bool is_empty() const noexcept { return len() == 0; }
  /// Is every record or every byte in use? An event may find no room for its bytes before that.
  [[nodiscard]] bool is_full() const noexcept { return fill_ratio() >= 1.0; }
  /// The larger of events and bytes in use, as a part of what fits: 0 .. 1.
  [[nodiscard]] double fill_ratio() const noexcept { return core_->fill_ratio(); }
  /// ManagerOptions::ring_capacity.
  [[nodiscard]] std::size_t capacity() const noexcept { return core_->capacity(); }
  /// Events that fit: capacity() - 1.
  [[nodiscard]] std::size_t usable_capacity() const noexcept { return core_->usable_capacity(); }

  [[nodiscard]] Ledger ledger() const noexcept { return core_->ledger(); }
  [[nodiscard]] Stats stats() const noexcept { return core_->stats(); }

  /// For a consumer without a pipeline: notes that a batch of `events` took `latency` to hand on.
  void record_batch_dispatch(std::size_t events, std::chrono::nanoseconds latency) const noexcept {
    detail::check_not_in_with_shard();
    if (!manager_->is_forked()) {
      core_->record_dispatch(events, latency);
    }
  }
  /// The sums of those.
  [[nodiscard]] DispatchStats dispatch_stats() const noexcept {
    return manager_->is_forked() ? DispatchStats{} : core_->dispatch_stats();
  }

 private:
  friend class BasicManager<Platform>;
  using ManagerCore = detail::ManagerCore<Platform>;
  using Core = detail::ShardCore<Platform>;

  BasicShard(std::shared_ptr<ManagerCore> manager, std::shared_ptr<Core> core) noexcept
      : manager_(std::move(manager)), core_(std::move(core)) {}

  std::shared_ptr<ManagerCore> manager_;
  std::shared_ptr<Core> core_;
};

/// What the closure of Manager::with_shard() works on: the shard with both its locks held.
///
/// Threads: the one that runs the closure, inside it.
template <class Platform>
class BasicLockedShard {
 public:
  BasicLockedShard(const BasicLockedShard&) = delete;
  BasicLockedShard& operator=(const BasicLockedShard&) = delete;

  [[nodiscard]] ShardId id() const noexcept { return core_.id(); }
  [[nodiscard]] std::size_t len() const noexcept { return core_.length(); }
  [[nodiscard]] std::size_t usable_capacity() const noexcept { return core_.usable_capacity(); }
  [[nodiscard]] double fill_ratio() const noexcept { return core_.fill_ratio(); }

  /// As Shard::try_push_raw(), stamped with the time at which the locks were taken, or later; for payloads up to ManagerOptions::inline_max (longer ones are
  /// payload_too_large here: they would be copied under the lock).
  [[nodiscard]] Outcome try_push_raw(const RawEvent& event) noexcept
      SHARD_NO_THREAD_SAFETY_ANALYSIS {
    return manager_.admit_locked(core_, detail::item_of(event), now_, afterwards_.evicted,
                                 afterwards_.news);
  }
  [[nodiscard]] Outcome try_push(Bytes payload) noexcept {
    return try_push_raw(RawEvent::of(payload));
  }

  /// As Shard::pop_batch_into(); here all comes out under the one lock.
  std::size_t pop_batch_into(EventBatch& out, std::size_t max_events,
                             std::size_t max_payload_bytes = BasicShard<Platform>::kUnlimited)
      SHARD_NO_THREAD_SAFETY_ANALYSIS {
    afterwards_.news.moved = true;  // or not; also when `out` cannot grow for all of it
    return core_.pop_locked(out, max_events, max_payload_bytes);
  }

 private:
  friend class BasicManager<Platform>;

  /// What is left to do when the locks are released.
  struct Afterwards {
    detail::ShardCore<Platform>& core;
    BufferAccess::Chain evicted = {};
    detail::News news = {};
    ~Afterwards() { core.pass_on(news); }
  };
  BasicLockedShard(detail::ManagerCore<Platform>& manager, Afterwards& afterwards,
                   Timestamp now) noexcept
      : manager_(manager), core_(afterwards.core), now_(now), afterwards_(afterwards) {}

  detail::ManagerCore<Platform>& manager_;
  detail::ShardCore<Platform>& core_;
  Timestamp now_;
  Afterwards& afterwards_;
};

extern template class SHARD_EXPORT detail::ShardCore<detail::SystemPlatform>;
extern template class SHARD_EXPORT detail::Topology<detail::SystemPlatform>;
extern template class SHARD_EXPORT detail::ManagerCore<detail::SystemPlatform>;

using Shard = BasicShard<detail::SystemPlatform>;
using LockedShard = BasicLockedShard<detail::SystemPlatform>;

}  // namespace shard
