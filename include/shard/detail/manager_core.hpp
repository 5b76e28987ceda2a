#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "shard/detail/annotations.hpp"
#include "shard/detail/hash.hpp"
#include "shard/detail/routing_table.hpp"
#include "shard/detail/scaler.hpp"
#include "shard/detail/shard_core.hpp"
#include "shard/detail/topology.hpp"
#include "shard/ledger.hpp"
#include "shard/options.hpp"

namespace shard {

/// Called after a shard was added or removed, by the thread that did it, with no lock held; they may call back into the
/// manager. What they throw passes to the caller of the change, which has been made.
struct ShardCallbacks {
  std::function<void(ShardId)> added = {};
  std::function<void(ShardId)> removed = {};
};

}  // namespace shard

namespace shard::detail {

/// Holds callbacks that can be replaced while they are called.
template <class Platform>
class CallbackCell {
 public:
  void set(ShardCallbacks callbacks) {
    auto next = std::make_shared<const ShardCallbacks>(std::move(callbacks));
    const LockGuard lock(mutex_);
    current_.swap(next);
  }
  void call(std::function<void(ShardId)> ShardCallbacks::*which, ShardId id) const {
    std::shared_ptr<const ShardCallbacks> callbacks;
    {
      const LockGuard lock(mutex_);
      callbacks = current_;
    }
    if (callbacks != nullptr && (*callbacks).*which) {
      ((*callbacks).*which)(id);
    }
  }

 private:
  mutable BasicMutex<Platform> mutex_;
  std::shared_ptr<const ShardCallbacks> current_ SHARD_GUARDED_BY(mutex_);
};

/// The item that an event makes.
[[nodiscard]] inline Item item_of(const RawEvent& event) noexcept {
  Item item{event.payload, event.key, event.source};
  item.flags = static_cast<std::uint16_t>((event.has_key ? Record::kHasKey : 0U) |
                                          (event.has_source ? Record::kHasSource : 0U));
  return item;
}

/// Copies a payload that is too long for the arena into a buffer of its own, for the time of a call.
/// The ring takes it over if the event is accepted.
class LongPayload {
 public:
  /// False when there is no memory.
  [[nodiscard]] bool move_out(Item& item) noexcept {
    try {
      auto buffer = Buffer::copy_of(item.payload);
      node_ = BufferAccess::release(buffer);
    } catch (const std::bad_alloc&) {
      return false;
    }
    attach_to(item);
    return true;
  }
  [[nodiscard]] BufferAccess::Node* node() const noexcept { return node_; }
  void attach_to(Item& item) const noexcept {
    item.owned = node_;
    item.flags |= Record::kOwned;
  }
  void taken() noexcept { node_ = nullptr; }
  LongPayload() = default;
  LongPayload(const LongPayload&) = delete;
  LongPayload& operator=(const LongPayload&) = delete;
  ~LongPayload() { const Buffer released = BufferAccess::adopt(node_); }

 private:
  BufferAccess::Node* node_ = nullptr;
};

/// What a manager and its handles share: options, clock, hash, the current routing table, and the counts
/// that belong to no shard. Lives until the last of them is gone; close() makes it refuse all events.
///
/// Threads: any.
template <class Platform>
class ManagerCore {
 public:
  using Core = ShardCore<Platform>;
  using Table = RoutingTable<Platform>;

  /// How the shards are consumed, if by a pipeline.
  struct Consumption {
    std::function<std::unique_ptr<ReadyNode>(Core&)> attach;
    std::size_t max_claims = ReadyQueue<Platform>::kNoLimit;
  };

  /// Throws ConfigError, std::bad_alloc, and what attach() throws.
  explicit ManagerCore(const ManagerOptions& given, const Consumption* consumption = nullptr);
  ManagerCore(const ManagerCore&) = delete;
  ManagerCore& operator=(const ManagerCore&) = delete;
  /// Shards can keep each other alive by fences; retiring them takes those away. In a forked child nothing can be
  /// released, since that takes locks which nobody may ever give back: the memory stays.
  ~ManagerCore() {
    if (is_forked()) {
      topology.tables.keep_forever();
    } else {
      retire();
    }
  }

  /// Routes and pushes one event. On anything but accepted its buffer is still the caller's.
  [[nodiscard]] SHARD_ALWAYS_INLINE Outcome admit(const Item& item, std::uint32_t slot,
                                                  const Table* table) noexcept {
    Timestamp now{};
    if (fits_limits(item)) [[likely]] {
      now = clock.now();  // before the lock, so that it is held for less
      if (table != nullptr) [[likely]] {
        if (Core* core = table->member_of(slot)) [[likely]] {
          if (core->push_if_room(table->version, item, slot, now) == Verdict::accepted) [[likely]] {
            return Outcome::accepted;
          }
        }
      }
    }
    return admit_slowly(Item(item), slot, now);  // a copy: this one stays in registers
  }

  [[nodiscard]] SHARD_ALWAYS_INLINE Outcome admit_by_hash(const Item& item,
                                                          std::uint64_t hash) noexcept {
    return admit(item, slot_of(hash), topology.tables.cached());
  }

  /// The whole of admit() for every case that is not the common one: no cached table, a stale one, a
  /// full shard, a long payload, an invalid or unroutable event. `now` may be some time ago.
  [[nodiscard]] SHARD_NOINLINE Outcome admit_slowly(const Item& item, std::uint32_t slot,
                                                    Timestamp now) noexcept;

  /// Pushes one event to a shard that the caller names.
  [[nodiscard]] Outcome admit_to(Core& core, const Item& item) noexcept;

  /// The same with both locks of the shard held; a payload above inline_max is too large there.
  [[nodiscard]] Outcome admit_locked(Core& core, const Item& item, Timestamp now,
                                     BufferAccess::Chain& evicted,
                                     News& news) noexcept SHARD_NO_THREAD_SAFETY_ANALYSIS {
    if (!fits_limits(item)) {
      const auto checked = check_limits(item);
      return count(checked == Outcome::accepted ? Outcome::payload_too_large : checked);
    }
    const auto verdict = core.push_locked(item, now, evicted, news);
    return count(is_final(verdict) ? outcome(verdict) : Outcome::rejected_closed);
  }

  std::size_t ingest_batch(std::span<const Bytes> payloads, std::span<Outcome> outcomes) noexcept;
  std::size_t ingest_raw_batch(std::span<const RawEvent> events,
                               std::span<Outcome> outcomes) noexcept;
  std::size_t ingest_to_slot(std::span<const Bytes> payloads, std::uint32_t slot,
                             std::span<Outcome> outcomes) noexcept;

  /// The event with its hash by this manager's seed.
  [[nodiscard]] RawEvent raw_event(const RawEvent& event) const noexcept {
    auto hashed = event;
    hashed.hash = hasher(event.routing_bytes());
    hashed.seed = hasher.seed();
    hashed.has_hash = true;
    return hashed;
  }
  /// Its hash, made here if it has none, or one by another seed.
  [[nodiscard]] std::uint64_t hash_of(const RawEvent& event) const noexcept {
    return event.has_hash && event.seed == hasher.seed() ? event.hash
                                                         : hasher(event.routing_bytes());
  }

  /// The shard of that id, or nullptr.
  [[nodiscard]] std::shared_ptr<Core> find(ShardId id) const noexcept {
    const auto table = topology.tables.peek();
    const auto index = table->index_of(id);
    return index == Table::kNoMember ? nullptr : table->members[index].core;
  }

  /// Routes and pushes `items[0 .. count)`, in chunks of 256, each by one table and one reading of
  /// the clock per attempt; `items.find_slots()` says where each goes. Writes an outcome each to `outcomes`,
  /// or none if it is null. Returns how many were accepted.
  template <class Items>
  std::size_t admit_batch(const Items& items, std::size_t count, Outcome* outcomes) noexcept;

  /// Moves a buffer in by way of `admit(item, event)`; on anything but accepted it is given back.
  template <class Admit>
  Outcome admit_owned(Buffer& payload, const RawEvent& event, const Admit& admit) noexcept {
    auto item = item_of(event);
    item.owned = BufferAccess::release(payload);
    item.flags |= item.owned != nullptr ? Record::kOwned : std::uint16_t{0};
    const auto outcome = admit(item, event);
    if (outcome != Outcome::accepted) {
      payload = BufferAccess::adopt(item.owned);
    }
    return outcome;
  }

  /// Counts an event that could not even be made. A reason that is none counts as invalid_json.
  Outcome reject(Outcome reason) noexcept {
    expects(is_invalid(reason), "reject() was called with a reason that is not invalid");
    return count(is_invalid(reason) ? reason : Outcome::invalid_json);
  }

  /// Counts an outcome that belongs to no shard; returns it.
  Outcome count(Outcome outcome) noexcept {
    if (outcome == Outcome::rejected_closed) {
      rejected_closed.fetch_add(1, std::memory_order_relaxed);  // counts order nothing
    } else if (outcome == Outcome::unrouted) {
      unrouted.fetch_add(1, std::memory_order_relaxed);
    } else if (is_invalid(outcome)) {
      rejected_invalid.fetch_add(1, std::memory_order_relaxed);
    }
    return outcome;
  }

  /// Refuses all events from here on; what is queued can still be popped. Idempotent.
  void close() noexcept;
  [[nodiscard]] bool is_closed() const noexcept {
    return closed_.load(std::memory_order_acquire) || is_forked();  // [manager.closed] <- close()
  }
  /// Is this a child of the process that made it? Then it is closed, and no lock of it may be taken.
  [[nodiscard]] bool is_forked() const noexcept { return topology.tables.forked(); }
  /// Closes and frees every ring; what is left in them counts as abandoned. Never throws.
  void retire() noexcept;

  [[nodiscard]] std::uint32_t slot_of(std::uint64_t hash) const noexcept {
    return static_cast<std::uint32_t>(hash >> slot_shift);
  }

  /// Slots that spread the first n handles over n shards: the reversed bits of 0, 1, 2, ... (van der Corput).
  [[nodiscard]] std::uint32_t next_producer_slot() noexcept {
    auto bits = producers.fetch_add(1, std::memory_order_relaxed);
    std::uint32_t reversed = 0;
    for (unsigned bit = 0; bit < 32; ++bit, bits >>= 1U) {
      reversed = reversed << 1U | (bits & 1U);
    }
    return static_cast<std::uint32_t>(std::uint64_t{reversed} << 32U >> slot_shift);
  }

  [[nodiscard]] Ledger own_counts() const noexcept {
    Ledger ledger;
    ledger.rejected_closed = rejected_closed.load(std::memory_order_relaxed);
    ledger.rejected_invalid = rejected_invalid.load(std::memory_order_relaxed);
    ledger.unrouted = unrouted.load(std::memory_order_relaxed);
    return ledger;
  }

  const ManagerOptions options;
  const Clock clock;
  const Hasher hasher;
  const unsigned slot_shift;
  const std::size_t inline_limit;  ///< the longest payload that is copied under a lock

  std::optional<ReadyQueue<Platform>> ready;  ///< if a pipeline consumes
  const Consumer<Platform> consumer;

  CallbackCell<Platform> shard_callbacks;
  Topology<Platform> topology;  ///< which shards there are, and where events go
  Scaler<Platform> scaler;      ///< whether there should be others

 private:
  /// Where the outcomes of a batch go. Too few places for them is misuse; then none is written.
  [[nodiscard]] static Outcome* checked(std::span<Outcome> outcomes, std::size_t events) noexcept {
    check_not_in_with_shard();
    expects(outcomes.empty() || outcomes.size() >= events, "a batch has more events than outcomes");
    return outcomes.size() >= events ? outcomes.data() : nullptr;
  }

  /// Within the limits, and short enough to be copied under the lock?
  [[nodiscard]] SHARD_ALWAYS_INLINE bool fits_limits(const Item& item) const noexcept {
    return item.payload.size() <=
               ((item.flags & Record::kOwned) != 0 ? options.max_payload : inline_limit) &&
           item.key.size() <= options.max_key;
  }
  struct BatchCall {
    /// Released at the very end: that runs the host's code, which may ingest, and then the cached table can
    /// be gone.
    BufferAccess::Chain evicted;
    Waiting waiting;  ///< one deadline for the whole call
    std::bitset<Table::kMaxMembers>
        refused;  ///< members of `table` that have refused an event of it

    /// When the table changes in the middle of a call, what was refused is remembered by slot: events of a
    /// slot that has moved must not overtake those that the caller will retry. Made only then.
    std::unique_ptr<std::vector<bool>> refused_slots;
    bool refuse_all = false;  ///< there was no memory for that

    [[nodiscard]] bool has_refused_slots() const noexcept {
      return refuse_all || refused_slots != nullptr;
    }
    [[nodiscard]] bool refuses(std::uint16_t slot) const noexcept {
      return refuse_all || (*refused_slots)[slot];
    }

    const Table* table = nullptr;
    std::shared_ptr<const Table>
        kept;  ///< keeps it, unless it is the one that this thread has cached
  };
  void route_by_newest(BatchCall& call) const noexcept;
  template <class Items>
  std::size_t admit_chunk(const Items& items, std::size_t base, std::size_t size, BatchCall& call,
                          Outcome* outcomes) noexcept;

  [[nodiscard]] Outcome check_limits(const Item& item) const noexcept {
    return item.payload.size() > options.max_payload ? Outcome::payload_too_large
           : item.key.size() > options.max_key       ? Outcome::key_too_large
                                                     : Outcome::accepted;
  }
  void start_waiting(Waiting& waiting) const noexcept {
    if (!waiting.started) {
      waiting.started = true;
      waiting.deadline = clock.now().after(options.backpressure.timeout);
    }
  }

  /// Set before the shards are closed under their locks, so whoever is refused there sees it.
  typename Platform::template Atomic<bool> closed_{false};
  std::atomic<std::uint32_t> producers{0};
  alignas(kCacheLine) std::atomic<std::uint64_t> rejected_closed{0};
  std::atomic<std::uint64_t> rejected_invalid{0};
  std::atomic<std::uint64_t> unrouted{0};
};

}  // namespace shard::detail
