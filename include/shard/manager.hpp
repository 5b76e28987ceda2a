#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "shard/buffer.hpp"
#include "shard/detail/manager_core.hpp"
#include "shard/event.hpp"
#include "shard/event_batch.hpp"
#include "shard/ledger.hpp"
#include "shard/options.hpp"
#include "shard/outcome.hpp"
#include "shard/producer.hpp"
#include "shard/shard.hpp"

namespace shard {

/// Takes events from many threads into a fixed number of shards, from which they are popped in batches.
///
///     shard::Manager manager{{.shards = 4, .backpressure = shard::Backpressure::drop_oldest()}};
///     manager.ingest(R"({"temperature": 21.5})", shard::Key{"sensor-7"});
///     shard::EventBatch batch;
///     for (auto id : manager.shard_ids()) manager.shard(id)->pop_batch_into(batch);
///
/// Threads:  all operations from any thread, at once; construction and destruction by one alone.
/// Failure:  the constructor throws ConfigError for options out of bounds; ingest never throws and answers
///           each event with one Outcome, which is counted in one category of the Ledger.
/// Memory:   allocated at construction. Ingest allocates nothing per event up to inline_max.
/// No thread is started, no signal handled, nothing written anywhere.
template <class Platform>
class BasicManager {
 public:
  using Shard = BasicShard<Platform>;
  using LockedShard = BasicLockedShard<Platform>;
  using Producer = BasicProducer<Platform>;

  /// Throws ConfigError, std::bad_alloc. The first manager of a process takes two milliseconds more, to
  /// calibrate the clock.
  explicit BasicManager(const ManagerOptions& options = {})
      : core_(std::make_shared<Core>(options)) {}
  BasicManager(const BasicManager&) = delete;
  BasicManager& operator=(const BasicManager&) = delete;
  /// Closes; what nobody popped counts as abandoned_queued. Handles stay valid.
  ~BasicManager() { core_->retire(); }

  /// Takes an event in. Its shard is chosen by the hash of its key or, without one, of its payload.
  /// Waits only if the mode is block and the shard is full. The bytes may be reused on return.
  Outcome ingest(Bytes payload) noexcept {
    detail::check_not_in_with_shard();
    return core_->admit_by_hash(detail::Item{payload, {}, {}}, core_->hasher(payload));
  }
  Outcome ingest(Bytes payload, Key key) noexcept {
    return ingest_raw(raw_event(RawEvent::with_hash(payload, 0, 0).with(key)));
  }
  Outcome ingest(Bytes payload, SourceIdentity source) noexcept {
    return ingest_raw(raw_event(RawEvent::with_hash(payload, 0, 0).with(source)));
  }
  Outcome ingest(Bytes payload, Key key, SourceIdentity source) noexcept {
    return ingest_raw(raw_event(RawEvent::with_hash(payload, 0, 0).with(key).with(source)));
  }

  /// The same for a payload that owns its bytes: it is moved through, not copied. If the event is not
  /// accepted `payload` still has it, else it is empty.
  Outcome ingest(Buffer&& payload) noexcept { return ingest_owned(payload, {}); }
  Outcome ingest(Buffer&& payload, Key key) noexcept {
    return ingest_owned(payload, RawEvent{}.with(key));
  }
  Outcome ingest(Buffer&& payload, Key key, SourceIdentity source) noexcept {
    return ingest_owned(payload, RawEvent{}.with(key).with(source));
  }

  /// Takes an event in whose hash is known; one that was hashed with another seed is hashed again.
  Outcome ingest_raw(const RawEvent& event) noexcept {
    detail::check_not_in_with_shard();
    return core_->admit_by_hash(detail::item_of(event), core_->hash_of(event));
  }

  /// Takes many events in, a lock per shard and at most 256 events. Order is kept per shard; after the
  /// first refusal in a shard the call's other events for it are refused too (except by sample), so that
  /// whoever retries the refused ones keeps their order. One deadline for the whole call.
  /// \param outcomes  empty, or at least as many as events: what became of each
  /// \return how many were accepted
  std::size_t ingest_raw_batch(std::span<const RawEvent> events,
                               std::span<Outcome> outcomes = {}) noexcept {
    return core_->ingest_raw_batch(events, outcomes);
  }
  /// The same for payloads without a key.
  std::size_t ingest_batch(std::span<const Bytes> payloads,
                           std::span<Outcome> outcomes = {}) noexcept {
    return core_->ingest_batch(payloads, outcomes);
  }

  /// An event hashed with this manager's seed, for ingest_raw() and ingest_raw_batch().
  [[nodiscard]] RawEvent raw_event(Bytes payload) const noexcept {
    return raw_event(RawEvent::with_hash(payload, 0, 0));
  }
  [[nodiscard]] RawEvent raw_event(Bytes payload, Key key) const noexcept {
    return raw_event(RawEvent::with_hash(payload, 0, 0).with(key));
  }
  /// The given event with its hash set right.
  [[nodiscard]] RawEvent raw_event(const RawEvent& event) const noexcept {
    return core_->raw_event(event);
  }

  /// A handle for one thread that ingests a lot. Throws nothing; takes a lock once.
  [[nodiscard]] Producer producer(ProducerOptions options = {}) { return Producer(core_, options); }

  /// Counts an event that could not even be made, with its reason (see is_invalid()); for ingest_json().
  Outcome reject(Outcome reason) noexcept { return core_->count(reason); }

  /// A handle to a shard, or nothing if there is no such shard.
  [[nodiscard]] std::optional<Shard> shard(ShardId id) const {
    auto core = core_->find(id);
    return core == nullptr ? std::nullopt : std::optional<Shard>(Shard(core_, std::move(core)));
  }

  /// Runs `use(LockedShard&)` with both locks of a shard held; false if there is no such shard. The closure
  /// must be short and must not call into any manager (in debug builds that is caught); exceptions pass.
  template <class Use>
  bool with_shard(ShardId id, Use&& use) {
    detail::check_not_in_with_shard();
    const auto core = core_->find(id);
    if (core == nullptr) {
      return false;
    }
    BufferAccess::Chain evicted;  // outlives the locks
    core->with_locks([&] {
      const detail::InWithShard inside;
      LockedShard locked(*core_, *core, evicted);
      std::forward<Use>(use)(locked);
    });
    return true;
  }

  /// The shard that an event of this hash goes to now; nothing when no shard is active.
  [[nodiscard]] std::optional<ShardId> select_shard_by_hash(std::uint64_t hash) const noexcept {
    const auto table = core_->tables.peek();
    const auto* member = table->member_of(core_->slot_of(hash));
    return member == nullptr ? std::nullopt : std::optional(member->id());
  }
  /// The hash that routes these bytes: XXH3_64bits_withSecret(), with the 192-byte secret of
  /// XXH3_generateSecret_fromSeed(seed()), so that a host can make it ahead of time, elsewhere.
  [[nodiscard]] std::uint64_t hash(Bytes bytes) const noexcept { return core_->hasher(bytes); }
  [[nodiscard]] std::uint64_t seed() const noexcept { return core_->hasher.seed(); }

  [[nodiscard]] std::size_t num_shards() const noexcept {
    return core_->tables.peek()->members.size();
  }
  /// Ids of all shards, ascending. Allocates.
  [[nodiscard]] std::vector<ShardId> shard_ids() const;

  [[nodiscard]] const ManagerOptions& options() const noexcept { return core_->options; }
  [[nodiscard]] BackpressureMode backpressure_mode() const noexcept {
    return core_->options.backpressure.mode;
  }
  /// The wall-clock time of timestamp 0, as read at construction.
  [[nodiscard]] std::chrono::system_clock::time_point epoch() const noexcept {
    return core_->clock.epoch();
  }
  /// The time since then, on the clock that stamps the events.
  [[nodiscard]] Timestamp now() const noexcept { return core_->clock.now(); }

  // Counts. No shard's lock is taken and nothing is disturbed; linear in the number of shards.

  /// Are all rings empty? Exact when nothing moves.
  [[nodiscard]] bool all_shards_empty() const noexcept { return total_pending_in_rings() == 0; }
  /// Events in all rings; while they move, a sum of lengths at slightly different times.
  [[nodiscard]] std::size_t total_pending_in_rings() const noexcept;
  /// The same if no event moved while it was counted, so that it was true at one moment; else nothing.
  [[nodiscard]] std::optional<std::size_t> try_total_pending_in_rings() const noexcept;
  /// The three totals of all shards.
  [[nodiscard]] Stats stats() const noexcept;
  /// All counts: the sum over the shards and the manager's own.
  [[nodiscard]] Ledger ledger() const noexcept;
  /// The counts that belong to no shard: rejected_closed, rejected_invalid, unrouted.
  [[nodiscard]] Ledger own_ledger() const noexcept { return core_->own_counts(); }

  /// Refuses every event from here on (rejected_closed) and wakes who waits; what is queued can still be
  /// popped. When it returns, no ingest that was under way can still be accepted. Idempotent.
  void close() noexcept {
    detail::check_not_in_with_shard();
    core_->close();
  }
  [[nodiscard]] bool is_closed() const noexcept { return core_->is_closed(); }

 private:
  using Core = detail::ManagerCore<Platform>;

  Outcome ingest_owned(Buffer& payload, const RawEvent& metadata) noexcept {
    detail::check_not_in_with_shard();
    auto event = metadata;
    event.payload = payload.bytes();
    auto item = detail::item_of(event);
    item.owned = BufferAccess::release(payload);
    item.flags |= item.owned != nullptr ? detail::Record::kOwned : std::uint16_t{0};
    const auto outcome = core_->admit_by_hash(item, core_->hasher(event.routing_bytes()));
    if (outcome != Outcome::accepted) {
      payload = BufferAccess::adopt(item.owned);
    }
    return outcome;
  }

  std::shared_ptr<Core> core_;
};

extern template class SHARD_EXPORT BasicManager<detail::SystemPlatform>;

using Manager = BasicManager<detail::SystemPlatform>;

}  // namespace shard
