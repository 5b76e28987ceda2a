#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>

#include "shard/buffer.hpp"
#include "shard/detail/annotations.hpp"
#include "shard/detail/arena.hpp"
#include "shard/detail/event_count.hpp"
#include "shard/detail/fence.hpp"
#include "shard/detail/mutex.hpp"
#include "shard/detail/platform.hpp"
#include "shard/detail/ready_queue.hpp"
#include "shard/detail/ring.hpp"
#include "shard/event.hpp"
#include "shard/event_batch.hpp"
#include "shard/ids.hpp"
#include "shard/ledger.hpp"
#include "shard/options.hpp"
#include "shard/outcome.hpp"

namespace shard::detail {

/// An event on its way into a ring.
struct Item {
  Bytes payload;
  Bytes key;
  SourceIdentity source;
  BufferAccess::Node* owned = nullptr;  ///< then the payload stays there
  std::uint16_t flags = 0;              ///< of Record
};

/// What a push came to: an Outcome, or one of those that end nothing.
enum class Verdict : std::uint8_t {
  accepted = static_cast<std::uint8_t>(Outcome::accepted),
  stale = 0x80,      ///< the shard takes no event by this table: there is a newer one
  must_wait = 0x81,  ///< full, mode block: wait with the ticket, then route again
  again = 0x82,      ///< of a group: the lock was held long enough, go on with the rest
  full = 0x83,       ///< of push_if_room(): no room, as far as it knows
};

[[nodiscard]] constexpr Verdict verdict(Outcome outcome) noexcept {
  return static_cast<Verdict>(outcome);
}
[[nodiscard]] constexpr bool is_final(Verdict verdict) noexcept { return verdict < Verdict::stale; }
[[nodiscard]] constexpr Outcome outcome(Verdict verdict) noexcept {
  return static_cast<Outcome>(verdict);
}

/// The events of one shard in a batch: a list of indices, so that it is made in one pass.
using GroupIndex = std::uint16_t;
inline constexpr GroupIndex kGroupEnd = 0xFFFF;
struct Group {
  GroupIndex first;
  const GroupIndex* next;  ///< next[i] follows i; kGroupEnd ends the list
};

/// How far one ingest call may wait, and has.
struct Waiting {
  bool allowed = true;   ///< false: a full shard answers rejected_full at once
  bool expired = false;  ///< the deadline has passed: a full shard answers rejected_timeout
  bool started = false;  ///< deadline is set
  Timestamp deadline{};  ///< one for the whole call
  std::uint32_t ticket = 0;
};

template <class Platform>
class ShardCore;

/// Who takes the events out of the shards of a manager, if a pipeline does.
template <class Platform>
struct Consumer {
  ReadyQueue<Platform>* queue;
  /// Makes what the consumer keeps with a shard; the shard owns it.
  std::function<std::unique_ptr<ReadyNode>(ShardCore<Platform>&)> attach;
};

/// What a push or a pop has to tell the consumer when its locks are released.
struct News {
  bool room_used = false;  ///< a watch was there, and has been taken away
  bool moved = false;      ///< the watermark went on, and another shard may wait for that
};

/// What becomes of events that were taken, in numbers.
struct Settlement {
  std::uint64_t delivered = 0;
  std::uint64_t dead_lettered = 0;
  std::uint64_t possibly_delivered = 0;
};

/// One shard: a ring of records, the arena with their bytes, its timestamp generator and its counts.
///
/// Threads:  any. Two locks, taken in this order: producer_ (whoever pushes) before pop_ (whoever pops
///           or evicts). Neither is held while user code runs, for more than 256 events, or for more
///           than 64 KiB of copying (one longer event excepted).
/// Ordering: an event is visible to the consumer through the ring; room is visible to the producer
///           through [shard.head] and [arena.freed].
/// Announced: a consumer that has nothing to do here, or waits for more to gather, sets a watch, which makes the room
///           look smaller to producers. Who finds it used up takes the slow way, where the watch is taken away and the
///           consumer told, once.
/// Closed under the lock: min_version_ is the oldest routing table that may still push. It is raised
///           under producer_, so after that no push by an older table can land, however late.
/// Memory:   allocates at construction only. retire() gives ring and arena back; what is left is a
///           small control block that handles and cached tables may keep.
template <class Platform>
class ShardCore {
 public:
  static constexpr std::size_t kEventsPerHold = 256;
  static constexpr std::size_t kBytesPerHold = std::size_t{64} << 10U;

  /// A version that no table has: pushes by it never land.
  static constexpr std::uint64_t kClosed = std::numeric_limits<std::uint64_t>::max();
  /// One of so many pushes is measured, and every one that had to wait for the lock.
  static constexpr std::uint64_t kSampleEvery = 256;
  static constexpr std::uint32_t kNoSlot = 0xFFFF;

  /// The version that handles push by: any shard that is not closed takes it.
  static constexpr std::uint64_t kAnyVersion = kClosed - 1;

  /// \param consumer  nullptr: whoever pops
  /// \param closed    made without taking events, until open()
  ShardCore(ShardId id, const ManagerOptions& options, const Clock& clock,
            const Consumer<Platform>* consumer = nullptr, bool closed = false);
  ShardCore(const ShardCore&) = delete;
  ShardCore& operator=(const ShardCore&) = delete;
  ~ShardCore() { retire(); }

  /// Pushes one event that is within the limits, if there seems to be room: accepted, or else full, stale or
  /// timestamps_exhausted, and then nothing has happened and push() decides.
  /// \param slot  by which it is routed, or kNoSlot
  [[nodiscard]] SHARD_ALWAYS_INLINE Verdict push_if_room(std::uint64_t version, const Item& item,
                                                         std::uint32_t slot, Timestamp now) noexcept
      SHARD_EXCLUDES(producer_, pop_) {
    auto verdict = Verdict::stale;
    auto measured = Measured::no;
    {
      const LockGuard lock(producer_);
      if (version >= min_version_) [[likely]] {  // one way out: one unlock() to be inlined
        verdict = Verdict::full;
        const auto position = pushed();
        if (const auto room = measure(item); seems_to_have_room(room.cost, position)) [[likely]] {
          verdict = push_fitting(item, room, now, position);
          measured = to_measure(lock.contended(), position + 1, 1);
        }
      }
    }
    if (measured != Measured::no) [[unlikely]] {
      sample(now, measured, slot);
    }
    return verdict;
  }

  /// Pushes one event that is within the limits; when it does not fit, the mode decides. On anything but
  /// accepted the item's buffer, if it has one, is still the caller's.
  [[nodiscard]] Verdict push(std::uint64_t version, const Item& item, std::uint32_t slot,
                             Timestamp now, Waiting& waiting) noexcept
      SHARD_EXCLUDES(producer_, pop_);

  /// Which pushes sample() looks at: all that waited for the lock, and one in kSampleEvery of the others.
  enum class Measured : std::uint8_t { no, waited, sampled };
  /// Notes what a push has cost and where it was routed. Called without a lock, since it reads the clock, which may be
  /// the host's.
  SHARD_NOINLINE void sample(Timestamp before, Measured measured, std::uint32_t slot) noexcept
      SHARD_EXCLUDES(producer_, pop_);

  struct GroupResult {
    Verdict verdict = Verdict::accepted;
    GroupIndex rest = kGroupEnd;  ///< the first event that has no outcome yet
    std::uint16_t accepted = 0;
    std::uint16_t invalid = 0;         ///< the caller counts them
    Measured measured = Measured::no;  ///< for sample()
    bool refused = false;  ///< the rest of the call's events for this shard must be refused too
    News news = {};        ///< for pass_on()
  };

  /// Pushes `items[i]` for each i of `group`, in order, under one lock, and publishes them at once. Writes
  /// `outcomes[i]` for each up to `rest`; says in `verdict` why it stopped there. After the first refusal all
  /// that follow are refused likewise, so that a caller who retries keeps their order; with `refuse` that
  /// holds from the start. Buffers that it evicts go to `evicted`.
  template <class Items>
  [[nodiscard]] GroupResult push_group(std::uint64_t version, const Items& items, Group group,
                                       Timestamp now, Waiting& waiting, bool refuse,
                                       Outcome* outcomes, BufferAccess::Chain& evicted) noexcept
      SHARD_EXCLUDES(producer_, pop_) {
    const auto result =
        push_group_unannounced(version, items, group, now, waiting, refuse, outcomes, evicted);
    pass_on(result.news);
    return result;
  }

  /// After must_wait: sleeps until there may be room; false when the deadline has passed.
  bool wait_for_room(const Waiting& waiting) noexcept SHARD_EXCLUDES(producer_, pop_) {
    return space_.wait_until(waiting.ticket, clock_, waiting.deadline);
  }

  /// Appends up to `max_events` events to `out`, of no more than `max_bytes` payload bytes in all
  /// (the first event excepted), and counts them as returned. Throws std::bad_alloc when `out` cannot
  /// grow; what was appended before stays appended.
  std::size_t pop(EventBatch& out, std::size_t max_events, std::size_t max_bytes)
      SHARD_EXCLUDES(pop_);

  // What follows is for the consumer of a pipeline. All but request_flush() by whoever has claimed the node.

  /// As pop(), but what it appends is under way from now on: the watermark stays at its first event until it is settled.
  /// Call it only when all that was taken before is settled.
  struct Taken {
    std::size_t events = 0;
    bool fenced = false;  ///< nothing, since it waits for another shard
    bool unclear =
        false;  ///< whether it waits could not be seen now, another thread was in the way: look again soon
  };
  [[nodiscard]] Taken take(EventBatch& out, std::size_t max_events, std::size_t max_bytes)
      SHARD_EXCLUDES(pop_);

  /// An attempt to deliver begins. False: expire() has been called, and what was taken is no longer the caller's.
  /// \param change  as for settle()
  template <class Change>
  [[nodiscard]] bool begin_attempt(const Change& change) noexcept SHARD_EXCLUDES(pop_) {
    const LockGuard lock(pop_);
    if (expired_) {
      return false;
    }
    change();
    attempting_ = true;
    return true;
  }

  /// Counts what became of events that were taken. `change()`, which must be short, makes the same change to the caller's
  /// own books under the same lock. False, and nothing is done: as above.
  /// \param all  nothing of what was taken is left
  template <class Change>
  [[nodiscard]] bool settle(const Settlement& settled, bool all, Change&& change) noexcept
      SHARD_EXCLUDES(pop_) {
    const LockGuard lock(pop_);
    if (expired_) {
      return false;
    }
    change();
    attempting_ = false;
    add(delivered_, settled.delivered);
    add(dead_lettered_, settled.dead_lettered);
    add(possibly_delivered_, settled.possibly_delivered);
    if (all) {
      held_from_ = kNothingHeld;
      publish_watermark();
    }
    return true;
  }

  /// Is anything in the ring? For whoever polls: takes no lock and disturbs nothing else.
  [[nodiscard]] bool has_queued() const noexcept {
    return pushed_.load(std::memory_order_relaxed) != head_.load(std::memory_order_relaxed);
  }

  /// Asks for the oldest record and its bytes, which are on the producer's core: they come at the same time, while the
  /// pass begins. By whoever has claimed the node, so that the ring is there.
  void prefetch_oldest() const noexcept {
    ring_->prefetch_at(head_.load(std::memory_order_relaxed));
    prefetch(arena_.at(next_block_.load(std::memory_order_relaxed)));
  }

  /// Ends a pass that found too little to deliver: sets a watch, so that the node is announced when `events` are queued
  /// (1: when any is) or `bytes` used. Rest::again if so much is there already.
  [[nodiscard]] Rest watch_for(std::size_t events, std::size_t bytes) noexcept
      SHARD_EXCLUDES(producer_, pop_);

  /// What has been accepted up to some moment.
  struct Mark {
    std::uint64_t position = 0;  ///< the watermark is there when all of it is terminal
    std::uint64_t events = 0;    ///< how many: their sequence numbers are below
  };
  /// All that has been accepted by now is to be delivered without waiting for more. Tells the consumer. Any thread.
  Mark request_flush() noexcept SHARD_EXCLUDES(producer_, pop_);
  [[nodiscard]] bool wants_flush() const noexcept {
    return watermark() < flush_to_.load(std::memory_order_relaxed);  // the queue's mutex orders it
  }

  /// Tells the consumer that there is something to do. No lock is held.
  void announce() noexcept SHARD_EXCLUDES(producer_, pop_) {
    if (node_ != nullptr) {
      consumer_->queue->announce(*node_);
    }
  }

  /// The end of close(): what was taken and is not settled is counted as possibly delivered if an attempt is under way, else
  /// as abandoned. Later calls of take(), begin_attempt() and settle() do nothing. Calls `look(attempting)` under the lock if there
  /// is any. Any thread, once, after the shard was closed.
  template <class Look>
  void expire(const Look& look) noexcept SHARD_EXCLUDES(pop_) {
    const LockGuard lock(pop_);
    expired_ = true;
    if (const auto left = in_batch(); left != 0) {
      look(attempting_);
      add(attempting_ ? possibly_delivered_ : abandoned_batched_, left);
    }
  }

  /// Runs `look()`, which must be short, while nothing that was taken is settled and nothing is taken or popped. False,
  /// and nothing is done: expire() has been called.
  template <class Look>
  bool with_pop_lock(const Look& look) noexcept SHARD_EXCLUDES(pop_) {
    const LockGuard lock(pop_);
    if (expired_) {
      return false;
    }
    look();
    return true;
  }

  /// Events taken and not settled yet; exact for whoever has claimed the node.
  [[nodiscard]] std::uint64_t in_batch() const noexcept {
    const auto settled = delivered_.load(std::memory_order_acquire) +
                         dead_lettered_.load(std::memory_order_acquire) +
                         abandoned_batched_.load(std::memory_order_acquire) +
                         possibly_delivered_.load(std::memory_order_acquire);  // [shard.out]
    return taken_.load(std::memory_order_acquire) - settled;
  }

  /// No lock is held.
  SHARD_ALWAYS_INLINE void pass_on(News news) noexcept SHARD_EXCLUDES(producer_, pop_) {
    if (news.room_used) [[unlikely]] {
      announce();
    }
    if (news.moved) [[unlikely]] {
      announce_move();
    }
  }
  void announce_move() noexcept SHARD_EXCLUDES(producer_, pop_) {
    if (consumer_ != nullptr) {
      consumer_->queue->moved();
    }
  }

  [[nodiscard]] ReadyNode* node() const noexcept { return node_.get(); }

  /// Takes the node of a drained shard out of the queue; false while it is claimed.
  [[nodiscard]] bool leave_queue() noexcept {
    return node_ == nullptr || consumer_->queue->retire(*node_);
  }

  /// From here on nothing by a table older than `version` can land. Wakes who waits for room. Returns the
  /// position that the next event or fence would take: all that has been accepted lies before it.
  std::uint64_t raise_min_version(std::uint64_t version) noexcept SHARD_EXCLUDES(producer_);

  /// Undoes the closing of a shard that was made closed and was in no table yet.
  void open() noexcept SHARD_EXCLUDES(producer_);

  /// Puts a fence behind everything accepted so far. Cannot fail, also when the ring is full. The fence belongs
  /// to the shard from now on; it is not passed before its `until` is set.
  void place_fence(std::unique_ptr<Fence<Platform>> fence) noexcept SHARD_EXCLUDES(producer_, pop_);

  /// Has all before this position left, and no fence before it remains?
  [[nodiscard]] std::uint64_t watermark() const noexcept {
    return watermark_.load(std::memory_order_acquire);  // [shard.watermark] <- publish_watermark()
  }

  /// Has the shard got past everything before `position`? A fence that nobody has passed yet, because nobody pops
  /// here now, is passed if it can be. `unclear` is set if that could not be tried, since another thread pops.
  [[nodiscard]] bool is_past(std::uint64_t position, bool& unclear) noexcept {
    if (watermark() < position) {
      unclear = !try_pass_fences() || unclear;
    }
    return watermark() >= position;
  }

  /// Is nothing left in a closed shard, neither event nor fence?
  [[nodiscard]] bool is_drained() noexcept SHARD_EXCLUDES(producer_, pop_);

  /// Does a fence hold back what is queued? `unclear` is set if that could not be seen now; see Taken.
  [[nodiscard]] bool is_fenced(bool& unclear) noexcept SHARD_EXCLUDES(pop_);

  /// Closes, counts what is left as abandoned, and frees ring and arena.
  void retire() noexcept SHARD_EXCLUDES(producer_, pop_);

  /// Runs `use(*this)` with both locks held.
  template <class Use>
  decltype(auto) with_locks(Use&& use) SHARD_EXCLUDES(producer_, pop_) {
    const LockGuard producer(producer_);
    const LockGuard consumer(pop_);
    return std::forward<Use>(use)();
  }
  /// \param news  for pass_on(), when the locks are released
  [[nodiscard]] Verdict push_locked(const Item& item, Timestamp now, BufferAccess::Chain& evicted,
                                    News& news) noexcept SHARD_REQUIRES(producer_, pop_);
  std::size_t pop_locked(EventBatch& out, std::size_t max_events, std::size_t max_bytes)
      SHARD_REQUIRES(pop_);

  // What follows reads counters only: no lock, nothing is disturbed.

  [[nodiscard]] ShardId id() const noexcept { return id_; }
  [[nodiscard]] std::size_t capacity() const noexcept { return usable_ + 1; }
  [[nodiscard]] std::size_t usable_capacity() const noexcept { return usable_; }

  /// Events in the ring: between 0 and usable_capacity(), exact when nothing moves.
  [[nodiscard]] std::size_t length() const noexcept {
    const auto head = head_.load(std::memory_order_acquire);  // [shard.head], first: never ahead
    const auto length = pushed_.load(std::memory_order_relaxed) - head;
    return static_cast<std::size_t>(std::min<std::uint64_t>(length, usable_));
  }

  /// Bytes in use, as a part of what fits; 0 .. 1.
  [[nodiscard]] double fill_of_bytes() const noexcept {
    return static_cast<double>(arena_used()) / static_cast<double>(arena_.size());
  }
  /// The larger of events and bytes in use, as a part of what fits; 0 .. 1.
  [[nodiscard]] double fill_ratio() const noexcept {
    return std::max(static_cast<double>(length()) / static_cast<double>(usable_), fill_of_bytes());
  }

  /// Bytes that the events in the ring hold.
  [[nodiscard]] std::size_t bytes_used() const noexcept { return arena_used(); }
  [[nodiscard]] std::size_t bytes_capacity() const noexcept { return arena_.size(); }

  /// Events pushed and events gone, for whoever wants to see that nothing moved in between.
  struct Positions {
    std::uint64_t pushed;
    std::uint64_t head;
    bool operator==(const Positions&) const = default;
  };
  [[nodiscard]] Positions positions() const noexcept {
    // Acquire for both: whoever reads positions twice reads them in that order.
    const auto head = head_.load(std::memory_order_acquire);  // [shard.head]
    return {pushed_.load(std::memory_order_acquire), head};
  }

  [[nodiscard]] Ledger ledger() const noexcept {
    Ledger ledger;
    add_to(ledger);
    return ledger;
  }
  /// Adds the counts of this shard, one by one: a ledger that is put together and then added as a whole is read with wider
  /// loads than it was written, and they wait until the stores have left the core.
  void add_to(Ledger& total) const noexcept;

  /// Adds one batch of `events` that took `latency` to hand on.
  void record_dispatch(std::size_t events, std::chrono::nanoseconds latency) noexcept
      SHARD_EXCLUDES(pop_);
  /// The sums of those, all of the same moment.
  [[nodiscard]] DispatchStats dispatch_stats() const noexcept;

  /// What producers' pushes cost, since the shard was made: sums that only grow, for rates over a window.
  struct PushCosts {
    std::uint64_t pushed = 0;
    std::uint64_t waited_ns =
        0;  ///< by pushes that waited for the lock, from before it to after the push
    std::uint64_t sampled = 0;     ///< pushes measured that did not wait
    std::uint64_t sampled_ns = 0;  ///< by those
  };
  [[nodiscard]] PushCosts push_costs() const noexcept {
    return {pushed_.load(std::memory_order_relaxed), waited_ns_.load(std::memory_order_relaxed),
            sampled_.load(std::memory_order_relaxed), sampled_ns_.load(std::memory_order_relaxed)};
  }

  /// The slots of the last sampled pushes; kNoSlot where there is none. Each stands for kSampleEvery events.
  static constexpr std::size_t kSlotSamples = 64;
  [[nodiscard]] std::array<std::uint16_t, kSlotSamples> sampled_slots() const noexcept {
    std::array<std::uint16_t, kSlotSamples> slots{};
    for (std::size_t i = 0; i < slots.size(); ++i) {
      slots[i] =
          sampled_slots_[i].load(std::memory_order_relaxed);  // a statistic: any mixture will do
    }
    return slots;
  }

  /// When the oldest event in the ring was accepted; nothing if there is none. Takes the pop lock for a moment.
  [[nodiscard]] std::optional<Timestamp> oldest() noexcept SHARD_EXCLUDES(pop_);

  /// Events that were popped or taken: what left the ring by its front door.
  [[nodiscard]] std::uint64_t drained() const noexcept {
    return returned_.load(std::memory_order_relaxed) + taken_.load(std::memory_order_relaxed);
  }

  [[nodiscard]] Stats stats() const noexcept {
    // What left is read before what came: a consumer counts after it has seen the push. [shard.out]
    Stats stats;
    stats.events_dispatched =
        returned_.load(std::memory_order_acquire) + delivered_.load(std::memory_order_acquire);
    stats.events_dropped =
        evicted_.load(std::memory_order_acquire) + lost_at_door_.load(std::memory_order_relaxed);
    stats.events_ingested = pushed_.load(std::memory_order_relaxed);
    return stats;
  }

 private:
  template <class T>
  using Atomic = typename Platform::template Atomic<T>;
  // Accounting is no protocol: plain atomics, whose accesses a schedule explorer need not see.
  using Count = std::atomic<std::uint64_t>;

  /// Adds to a counter that only the holder of one lock writes.
  static void add(Count& count, std::uint64_t n) noexcept {
    count.store(count.load(std::memory_order_relaxed) + n,
                std::memory_order_release);  // [shard.out] -> stats(), ledger()
  }

  using Stage = std::array<Record, kEventsPerHold>;

  struct Room {
    typename Arena<Platform>::Place place;
    std::uint64_t cost;
  };

  /// Without the lock: it reads what is atomic of the tail.
  [[nodiscard]] std::size_t arena_used() const noexcept SHARD_NO_THREAD_SAFETY_ANALYSIS {
    return arena_.used(arena_tail_);
  }

  [[nodiscard]] std::uint64_t pushed() const noexcept {
    return pushed_.load(
        std::memory_order_relaxed);  // written under producer_, which the caller holds
  }

  [[nodiscard]] SHARD_ALWAYS_INLINE Room measure(const Item& item) const noexcept
      SHARD_REQUIRES(producer_) {
    const bool owned = (item.flags & Record::kOwned) != 0;
    const auto size = static_cast<std::uint32_t>(item.payload.size());
    const auto place = arena_.place(
        arena_tail_, static_cast<std::uint32_t>(item.key.size()) +
                         ((item.flags & Record::kHasSource) != 0 ? 16U : 0U) + (owned ? 8U : size));
    return {place, std::uint64_t{place.held} + (owned ? size : 0U)};
  }

  /// Positions are only ever subtracted, so their wrap is harmless.
  [[nodiscard]] SHARD_ALWAYS_INLINE bool seems_to_have_room_behind(
      std::uint64_t pushed) const noexcept SHARD_REQUIRES(producer_) {
    return static_cast<std::int64_t>(room_until_ - pushed) > 0;
  }

  /// As far as its copies of the consumer's counters tell: what push_if_room() makes do with. push() looks again.
  /// \param pushed  events so far, here and below
  [[nodiscard]] SHARD_ALWAYS_INLINE bool seems_to_have_room(std::uint64_t cost,
                                                            std::uint64_t pushed) const noexcept
      SHARD_REQUIRES(producer_) {
    return seems_to_have_room_behind(pushed) && arena_.seems_to_fit(arena_tail_, cost);
  }

  /// Is there room for one more event of `cost` bytes behind `pushed` events? Not if that would touch a watch.
  [[nodiscard]] SHARD_ALWAYS_INLINE bool has_room(std::uint64_t cost, std::uint64_t pushed) noexcept
      SHARD_REQUIRES(producer_) {
    if (!seems_to_have_room_behind(pushed)) [[unlikely]] {
      look_for_room();
      if (!seems_to_have_room_behind(pushed)) {
        return false;
      }
    }
    return arena_.fits(arena_tail_, cost);
  }

  /// The same when there is none, or seems to be: takes a watch away first, and tells if there was one.
  [[nodiscard]] bool has_room_after_all(std::uint64_t cost, std::uint64_t pushed,
                                        News& news) noexcept SHARD_REQUIRES(producer_) {
    if (!watched_) {
      return false;
    }
    news.room_used = true;
    unwatch();
    return has_room(cost, pushed);
  }
  void unwatch() noexcept SHARD_REQUIRES(producer_) {
    watched_ = false;
    limit_room(usable_);
    arena_.limit(arena_.size());
  }
  /// Makes the ring look smaller, up to usable_.
  void limit_room(std::size_t events) noexcept SHARD_REQUIRES(producer_) {
    room_until_ = room_until_ - room_ + events;
    room_ = static_cast<std::uint32_t>(events);
  }
  /// Returns the head.
  std::uint64_t look_for_room() noexcept SHARD_REQUIRES(producer_) {
    const auto head = head_.load(std::memory_order_acquire);  // [shard.head] <- release_records()
    room_until_ = head + room_;
    return head;
  }

  template <class Items>
  [[nodiscard]] GroupResult push_group_unannounced(std::uint64_t version, const Items& items,
                                                   Group group, Timestamp now, Waiting& waiting,
                                                   bool refuse, Outcome* outcomes,
                                                   BufferAccess::Chain& evicted) noexcept
      SHARD_EXCLUDES(producer_, pop_);

  /// Stamps the event and copies its bytes; the caller puts the record into the ring.
  [[nodiscard]] SHARD_ALWAYS_INLINE Record store(const Item& item, const Room& room,
                                                 Timestamp now) noexcept SHARD_REQUIRES(producer_) {
    const auto timestamp = std::max(now.nanoseconds, next_timestamp_);
    next_timestamp_ = timestamp + 1;
    arena_.allocate(arena_tail_, room.place, room.cost);
    std::byte* at = arena_.at(room.place.offset);
    if ((item.flags & Record::kHasSource) != 0) {
      std::memcpy(at, &item.source, sizeof item.source);
      at += sizeof item.source;
    }
    if ((item.flags & Record::kOwned) != 0) {
      std::memcpy(at, &item.owned, sizeof item.owned);
      at += sizeof item.owned;
    }
    if (item.key.size() != 0) {
      copy_bytes(at, item.key.data(), item.key.size());
      at += item.key.size();
    }
    if ((item.flags & Record::kOwned) == 0) {
      copy_bytes(at, item.payload.data(), item.payload.size());
    }
    return {timestamp,
            room.place.offset,
            room.place.held,
            static_cast<std::uint32_t>(item.payload.size()),
            static_cast<std::uint16_t>(item.key.size()),
            item.flags};
  }

  [[nodiscard]] SHARD_ALWAYS_INLINE Verdict push_fitting(const Item& item, const Room& room,
                                                         Timestamp now,
                                                         std::uint64_t pushed) noexcept
      SHARD_REQUIRES(producer_) {
    if (next_timestamp_ > Timestamp::max().nanoseconds) [[unlikely]] {
      return verdict(Outcome::timestamps_exhausted);
    }
    arena_.prefetch_after(room.place);
    ring_->prefetch_after(pushed);
    const auto record = store(item, room, now);
    const auto turn = ring_->write_turn();
    // Before the push: whoever sees the record must also see that it was counted. The ring's own
    // release and acquire carry it.
    pushed_.store(pushed + 1, std::memory_order_relaxed);
    ring_->push(turn, record);
    return Verdict::accepted;
  }

  /// \param just  how many of the `pushed` events were pushed now
  [[nodiscard]] static Measured to_measure(bool contended, std::uint64_t pushed,
                                           std::uint64_t just) noexcept {
    if (contended) [[unlikely]] {
      return Measured::waited;
    }
    return pushed % kSampleEvery < just ? Measured::sampled : Measured::no;
  }

  /// What the mode says of an event that does not fit: accepted if it may be pushed after
  /// evict_for(), else why not, counted.
  [[nodiscard]] Verdict decide_overflow(std::uint64_t cost, Waiting& waiting) noexcept
      SHARD_REQUIRES(producer_);
  void count_refusal(Outcome refusal, std::uint64_t events) noexcept SHARD_REQUIRES(producer_);

  /// Evicts the oldest events until one of `cost` bytes fits. Their buffers go to `evicted`.
  void evict_for(std::uint64_t cost, BufferAccess::Chain& evicted, News& news) noexcept
      SHARD_REQUIRES(producer_, pop_);

  /// The position that the next event or fence would take.
  [[nodiscard]] std::uint64_t tail() const noexcept SHARD_REQUIRES(producer_) {
    return pushed() + fences_placed_;
  }
  /// Is nothing left, neither event nor fence nor batch?
  [[nodiscard]] bool is_empty() noexcept SHARD_REQUIRES(producer_, pop_);

  /// Fills the stage from the ring if it is empty; what is staged then, oldest first.
  [[nodiscard]] std::span<const Record> staged(const Ring::Turn& turn) noexcept
      SHARD_REQUIRES(pop_);
  /// Gives room back after `events` records that cost `cost` bytes have been copied or dropped.
  void release_records(std::size_t events, std::uint64_t cost) noexcept SHARD_REQUIRES(pop_);
  /// Takes away the fences that the head has reached and whose source has got past their position; how many
  /// events may be popped before the first that remains. Sets fence_unclear_ if it could not see a source's fences.
  [[nodiscard]] std::uint64_t pass_fences() noexcept SHARD_REQUIRES(pop_);
  /// The same unless another thread holds the pop lock: then false. Called with the pop locks of shards held
  /// that wait for this one, so it must not wait for the lock: two shards can wait for each other's older events.
  ///
  /// Fences can lead back to a shard that this same call asks already. Its watermark is as it is: whether its first fence
  /// can be passed is what is being found out, and it is decided when the call returns there. So that is no obstacle.
  bool try_pass_fences() noexcept SHARD_NO_THREAD_SAFETY_ANALYSIS {
    if (!pop_.try_lock()) {
      return asked_by_.load(std::memory_order_relaxed) == this_thread();
    }
    static_cast<void>(pass_fences());
    const bool clear = !fence_unclear_;
    pop_.unlock();
    return clear;
  }
  /// Something that only this thread has the address of.
  [[nodiscard]] static const void* this_thread() noexcept { return &t_worker_of; }
  void publish_watermark() noexcept SHARD_REQUIRES(pop_);
  void chain_if_owned(const Record& record, BufferAccess::Chain& chain) const noexcept;
  struct Hold {
    std::size_t events = 0;
    std::uint64_t payload_bytes = 0;
    std::size_t room_needed = 0;  ///< the next event needs so many bytes in `out`
    bool more = false;            ///< there may be more to pop
  };
  /// \param before_fence  how many pass_fences() lets out
  /// \param count         where they count: returned_ or taken_
  [[nodiscard]] Hold pop_hold(EventBatch& out, std::size_t max_events, std::uint64_t max_bytes,
                              std::uint64_t before_fence, bool first, Count& count) noexcept
      SHARD_REQUIRES(pop_);
  /// Calls `hold(batch, events, bytes, first)`, which is pop_hold() under the lock, until enough is popped.
  /// \param popped  how many were, also when it throws
  template <class PopHold>
  void pop_in_holds(EventBatch& out, std::size_t max_events, std::size_t max_bytes,
                    std::size_t& popped, const PopHold& hold);

  // Constant.
  const ShardId id_;
  const std::uint32_t usable_;
  const Backpressure backpressure_;
  const Clock& clock_;                        ///< the manager's; whoever calls keeps that alive
  const Consumer<Platform>* const consumer_;  ///< likewise

  // The producers' side. All that a push into a shard with room changes is in one line with the lock: where producers
  // meet, each line more is one that has to come from another core.
  alignas(kCacheLine) BasicMutex<Platform> producer_ SHARD_ACQUIRED_BEFORE(pop_);
  std::uint64_t room_until_ SHARD_GUARDED_BY(producer_) = 0;  ///< head_ as last seen, and room_
  std::uint64_t next_timestamp_ SHARD_GUARDED_BY(producer_) = 0;
  Atomic<std::uint64_t> pushed_{0};  ///< written under producer_
  typename Arena<Platform>::Tail arena_tail_ SHARD_GUARDED_BY(producer_);
  /// Its ends by producer_ and pop_; replaced under both. Begins with Boost's write index, the last word of this line.
  std::optional<Ring> ring_;

  // What a push reads and seldom changes.
  std::uint64_t min_version_ SHARD_GUARDED_BY(producer_) = 0;
  bool watched_ SHARD_GUARDED_BY(producer_) = false;
  std::uint32_t room_ SHARD_GUARDED_BY(producer_);  ///< usable_, or less while watched_
  Arena<Platform> arena_;

  Count lost_at_door_{0};  ///< dropped_newest or, where the mode is that, sampled_out
  Count rejected_full_{0};
  Count rejected_timeout_{0};
  std::atomic<std::uint64_t> flush_to_{0};  ///< see request_flush(); written under producer_
  std::uint64_t overflows_ SHARD_GUARDED_BY(producer_) = 0;
  std::uint64_t fences_placed_ SHARD_GUARDED_BY(producer_) = 0;
  /// The highest position that fences in other shards wait for. Set before they know of it.
  std::uint64_t waited_for_ SHARD_GUARDED_BY(producer_) = 0;
  EventCount<Platform> space_;
  Count waited_ns_{0};
  Count sampled_{0};
  Count sampled_ns_{0};
  std::atomic<std::uint32_t> slots_sampled_{0};
  std::array<std::atomic<std::uint16_t>, kSlotSamples> sampled_slots_;

  // The consumer's side.
  alignas(kCacheLine) BasicMutex<Platform> pop_;
  std::uint32_t stage_begin_ SHARD_GUARDED_BY(pop_) = 0;
  std::uint32_t stage_end_ SHARD_GUARDED_BY(pop_) = 0;
  Atomic<std::uint64_t> head_{0};  ///< events that have left; written under pop_
  std::uint64_t fences_passed_ SHARD_GUARDED_BY(pop_) = 0;
  std::unique_ptr<Fence<Platform>> first_fence_ SHARD_GUARDED_BY(pop_);
  Fence<Platform>* last_fence_ SHARD_GUARDED_BY(pop_) = nullptr;
  Atomic<std::uint64_t> watermark_{0};  ///< lowest position that has not left; written under pop_
  static constexpr std::uint64_t kNothingHeld = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t held_from_ SHARD_GUARDED_BY(pop_) =
      kNothingHeld;  ///< position of what is in a batch
  bool fence_unclear_ SHARD_GUARDED_BY(pop_) = false;
  /// The thread that asks the source of the first fence now; written under pop_. A thread that finds itself here has
  /// written that itself, so relaxed is enough.
  std::atomic<const void*> asked_by_{nullptr};
  std::atomic<std::uint32_t> next_block_{0};  ///< where the next pop reads; a hint, so relaxed
  bool attempting_ SHARD_GUARDED_BY(pop_) = false;
  bool expired_ SHARD_GUARDED_BY(pop_) = false;
  Count returned_{0};
  Count evicted_{0};
  Count abandoned_{0};
  Count taken_{0};
  Count delivered_{0};
  Count dead_lettered_{0};
  Count abandoned_batched_{0};
  Count possibly_delivered_{0};
  /// Odd while dispatch_ is written: readers who see it odd or changed read again. [shard.dispatch]
  std::atomic<std::uint32_t> dispatch_version_{0};
  std::array<Count, 3> dispatch_{};  ///< batches, events, nanoseconds
  /// Records taken out of the ring and not consumed yet, so that their bytes can be weighed before
  /// they are. They still count as queued.
  std::unique_ptr<Stage> stage_ SHARD_GUARDED_BY(pop_);

  std::unique_ptr<ReadyNode> node_;  ///< what the consumer keeps here; constant
};

}  // namespace shard::detail
