#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "shard/detail/annotations.hpp"
#include "shard/detail/hash.hpp"
#include "shard/detail/routing_table.hpp"
#include "shard/detail/shard_core.hpp"
#include "shard/detail/snapshot.hpp"
#include "shard/ledger.hpp"
#include "shard/options.hpp"

namespace shard::detail {

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

  /// Throws ConfigError, std::bad_alloc.
  explicit ManagerCore(const ManagerOptions& given);

  /// Routes and pushes one event. On anything but accepted its buffer is still the caller's.
  [[nodiscard]] SHARD_ALWAYS_INLINE Outcome admit(const Item& item, std::uint32_t slot,
                                                  const Table* table) noexcept {
    Timestamp now{};
    if (fits_limits(item)) [[likely]] {
      now = clock.now();  // before the lock, so that it is held for less
      if (table != nullptr) [[likely]] {
        if (Core* core = table->member_of(slot)) [[likely]] {
          if (core->push_if_room(table->version, item, now) == Verdict::accepted) [[likely]] {
            return Outcome::accepted;
          }
        }
      }
    }
    return admit_slowly(Item(item), slot, now);  // a copy: this one stays in registers
  }

  [[nodiscard]] SHARD_ALWAYS_INLINE Outcome admit_by_hash(const Item& item,
                                                          std::uint64_t hash) noexcept {
    return admit(item, slot_of(hash), tables.cached());
  }

  /// The whole of admit() for every case that is not the common one: no cached table, a stale one, a
  /// full shard, a long payload, an invalid or unroutable event. `now` may be some time ago.
  [[nodiscard]] SHARD_NOINLINE Outcome admit_slowly(const Item& item, std::uint32_t slot,
                                                    Timestamp now) noexcept;

  /// Pushes one event to a shard that the caller names.
  [[nodiscard]] Outcome admit_to(Core& core, const Item& item) noexcept;

  /// The same with both locks of the shard held; a payload above inline_max is too large there.
  [[nodiscard]] Outcome admit_locked(Core& core, const Item& item,
                                     BufferAccess::Chain& evicted) noexcept
      SHARD_NO_THREAD_SAFETY_ANALYSIS {
    if (!fits_limits(item)) {
      const auto checked = check_limits(item);
      return count(checked == Outcome::accepted ? Outcome::payload_too_large : checked);
    }
    const auto verdict = core.push_locked(item, clock.now(), evicted);
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
    return hashed;
  }
  /// Its hash, made again if it is by another seed.
  [[nodiscard]] std::uint64_t hash_of(const RawEvent& event) const noexcept {
    return event.seed == hasher.seed() ? event.hash : hasher(event.routing_bytes());
  }

  /// The shard of that id, or nullptr.
  [[nodiscard]] std::shared_ptr<Core> find(ShardId id) const noexcept {
    for (const auto& member : tables.peek()->members) {
      if (member->id() == id) {
        return member;
      }
    }
    return nullptr;
  }

  /// Routes and pushes `items[0 .. count)`, in chunks of 256, each by one table and one reading of
  /// the clock per attempt; `items.find_slots()` says where each goes. Writes an outcome each to `outcomes`,
  /// or none if it is null. Returns how many were accepted.
  template <class Items>
  std::size_t admit_batch(const Items& items, std::size_t count, Outcome* outcomes) noexcept;

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
  void close() noexcept SHARD_EXCLUDES(topology);
  [[nodiscard]] bool is_closed() const noexcept {
    return closed_.load(std::memory_order_acquire);  // [manager.closed] <- close()
  }
  /// Closes and frees every ring; what is left in them counts as abandoned. Never throws.
  void retire() noexcept SHARD_EXCLUDES(topology);

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

  BasicMutex<Platform>
      topology;  ///< serialises whoever changes the table; before any producer lock
  SnapshotCell<Platform, Table> tables;

 private:
  [[nodiscard]] static std::shared_ptr<const Table> first_table(const ManagerOptions& options,
                                                                const Clock& clock);

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
    Waiting waiting;                                  ///< one deadline for the whole call
    std::bitset<ManagerOptions::kMaxShards> refused;  ///< members that have refused an event of it
  };
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
