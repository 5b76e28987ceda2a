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

namespace detail {
template <class Platform>
class PipelineCore;
}

/// Takes events from many threads into shards, from which they are popped in batches.
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
  ~BasicManager() { core_->retire(); }  // does nothing in a forked child

  /// Takes an event in. Its shard is chosen by the hash of its key or, without one, of its payload.
  /// Waits only if the mode is block and the shard is full. The bytes may be reused on return.
  Outcome ingest(Bytes payload) noexcept {
    detail::check_not_in_with_shard();
    return core_->admit_by_hash(detail::Item{payload, {}, {}}, core_->hasher(payload));
  }
  Outcome ingest(Bytes payload, Key key) noexcept {
    return ingest_raw(raw_event(RawEvent::of(payload).with(key)));
  }
  Outcome ingest(Bytes payload, SourceIdentity source) noexcept {
    return ingest_raw(raw_event(RawEvent::of(payload).with(source)));
  }
  Outcome ingest(Bytes payload, Key key, SourceIdentity source) noexcept {
    return ingest_raw(raw_event(RawEvent::of(payload).with(key).with(source)));
  }

  /// The same for a payload that owns its bytes: it is moved through, not copied. If the event is not
  /// accepted `payload` still has it, else it is empty.
  Outcome ingest(Buffer&& payload) noexcept { return ingest_owned(payload, {}); }
  Outcome ingest(Buffer&& payload, Key key) noexcept {
    return ingest_owned(payload, RawEvent::of({}).with(key));
  }
  Outcome ingest(Buffer&& payload, SourceIdentity source) noexcept {
    return ingest_owned(payload, RawEvent::of({}).with(source));
  }
  Outcome ingest(Buffer&& payload, Key key, SourceIdentity source) noexcept {
    return ingest_owned(payload, RawEvent::of({}).with(key).with(source));
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
    return raw_event(RawEvent::of(payload));
  }
  [[nodiscard]] RawEvent raw_event(Bytes payload, Key key) const noexcept {
    return raw_event(RawEvent::of(payload).with(key));
  }
  /// The given event with its hash set right.
  [[nodiscard]] RawEvent raw_event(const RawEvent& event) const noexcept {
    return core_->raw_event(event);
  }

  /// A handle for one thread that ingests a lot. Throws nothing; takes a lock once.
  [[nodiscard]] Producer producer(ProducerOptions options = {}) { return Producer(core_, options); }

  /// Counts an event that could not even be made, with its reason (see is_invalid()); for ingest_json().
  Outcome reject(Outcome reason) noexcept { return core_->reject(reason); }

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
    if (core == nullptr) {  // nor is there any in a forked child
      return false;
    }
    typename LockedShard::Afterwards afterwards{*core};  // outlives the locks
    const auto now = core_->clock.now();  // it may be the host's, so not under the locks
    core->with_locks([&] {
      const detail::InWithShard inside;
      LockedShard locked(*core_, afterwards, now);
      std::forward<Use>(use)(locked);
    });
    return true;
  }

  /// The shard that an event of this hash goes to now; nothing when no shard is active.
  [[nodiscard]] std::optional<ShardId> select_shard_by_hash(std::uint64_t hash) const noexcept {
    const auto table = core_->topology.tables.peek();
    const auto* member = table->member_of(core_->slot_of(hash));
    return member == nullptr ? std::nullopt : std::optional(member->id());
  }
  /// The hash that routes these bytes: XXH3_64bits_withSecret(), with the 192-byte secret of
  /// XXH3_generateSecret_fromSeed(seed()), so that a host can make it ahead of time, elsewhere.
  [[nodiscard]] std::uint64_t hash(Bytes bytes) const noexcept { return core_->hasher(bytes); }
  [[nodiscard]] std::uint64_t seed() const noexcept { return core_->hasher.seed(); }

  [[nodiscard]] std::size_t num_shards() const noexcept {
    return core_->topology.tables.peek()->members.size();
  }
  /// Ids of all shards, ascending. Allocates.
  [[nodiscard]] std::vector<ShardId> shard_ids() const;

  // Which shards there are. All of these may be called by any thread at any time, while others ingest and pop; they
  // are serialised. Errors are values (ScalingError); bad_alloc passes and then nothing has changed (remove_shard may
  // have come half-way and can be repeated). Callbacks run on the calling thread when the change is done, with no lock
  // held, and may call back into the manager.

  /// Makes a shard that takes nothing yet (provisioning), so that its consumer can be set up first: cooldown within
  /// ScalingPolicy::cooldown of the last change, at_max when active and provisioning shards reach max_shards.
  [[nodiscard]] Result<ShardId, ScalingError> add_shard() {
    detail::check_not_in_with_shard();
    return added(core_->topology.add(false));
  }
  /// The same whatever the cooldown; for an operator.
  [[nodiscard]] Result<ShardId, ScalingError> add_shard_force() {
    detail::check_not_in_with_shard();
    return added(core_->topology.add(true));
  }
  /// From provisioning to active: events are routed to it from now on; with balanced routing its share
  /// grows from nothing as run_scaling() moves slots. An active one stays as it is.
  [[nodiscard]] Result<ShardId, ScalingError> activate_shard(ShardId id) {
    detail::check_not_in_with_shard();
    return core_->topology.activate(id);
  }
  /// From active to draining: nothing is accepted by it any more; what is queued can be popped. at_min when
  /// min_shards would be left.
  [[nodiscard]] Result<ShardId, ScalingError> drain_shard(ShardId id) {
    detail::check_not_in_with_shard();
    return core_->topology.drain(id);
  }
  /// Draining shards that are empty become stopped and free their memory; how many did.
  std::size_t finalize_draining() {
    detail::check_not_in_with_shard();
    return core_->topology.finalize_draining();
  }
  /// Takes a shard out and appends what was queued in it to `queued`: a provisioning one (rollback), a draining or
  /// stopped one (finish), or an active one (drain and remove in one call). Its counts stay in the totals.
  /// fenced: with keyed routing, events of other shards have to be popped first; it is draining and what could be
  /// popped is in `queued`; call again.
  [[nodiscard]] Result<ShardId, ScalingError> remove_shard(ShardId id, EventBatch& queued) {
    detail::check_not_in_with_shard();
    return removed(core_->topology.remove(id, queued));
  }
  /// Removes all stopped shards; how many.
  std::size_t remove_stopped_shards();

  /// What to call when a shard was added or removed from now on. Set before the first change, or expect a change that
  /// is under way to call the former ones.
  void set_shard_callbacks(ShardCallbacks callbacks) {
    if (!core_->is_forked()) {
      core_->shard_callbacks.set(std::move(callbacks));
    }
  }

  /// The state of a shard; nothing if there is no such shard (any more).
  [[nodiscard]] std::optional<ShardState> shard_state(ShardId id) const noexcept {
    const auto table = core_->topology.tables.peek();
    const auto index = table->index_of(id);
    return index == Table::kNoMember ? std::nullopt : std::optional(table->members[index].state);
  }
  /// Ids of the active shards, ascending. Allocates.
  [[nodiscard]] std::vector<ShardId> active_shard_ids() const;

  // Whether there should be more or fewer. A host without a pipeline calls run_scaling() now and then; it returns at
  // once while the metrics window lasts.

  /// The shards as they were at the end of the last metrics window. Measures nothing, so it disturbs nothing. Allocates.
  [[nodiscard]] std::vector<ShardMetrics> collect_metrics() const {
    return core_->scaler.metrics();
  }
  /// What should be done now, at the end of a metrics window; does nothing. For hosts that execute() by themselves;
  /// run_scaling() is not kept from its work by it.
  [[nodiscard]] ScalingDecision evaluate_scaling(const SinkState& sink = {}) {
    detail::check_not_in_with_shard();
    return core_->scaler.evaluate(sink, false).decision;
  }
  /// Does what a decision says, as far as budget and states allow, and says what it did. A shard that is added is made,
  /// announced (see set_shard_callbacks) and then activated.
  ScalingReport execute(const ScalingDecision& decision);
  /// Measures, decides, executes (if the policy scales by itself), moves slots, and takes drained shards out: all that is
  /// due at the end of a metrics window, and nothing before.
  ScalingReport run_scaling(const SinkState& sink = {});

  /// The policy in force; nothing for a static manager.
  [[nodiscard]] std::optional<ScalingPolicy> scaling_policy() const {
    return core_->topology.policy();
  }
  /// Replaces it; nothing when that is done. at_max or at_min when there are more or fewer shards than it permits: get
  /// within its bounds first. Throws ConfigError.
  [[nodiscard]] std::optional<ScalingError> set_scaling_policy(const ScalingPolicy& policy) {
    return core_->topology.set_policy(policy);
  }

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
  using Table = detail::RoutingTable<Platform>;
  friend class detail::PipelineCore<Platform>;

  /// The part of a pipeline that takes the events in.
  explicit BasicManager(std::shared_ptr<Core> core) noexcept : core_(std::move(core)) {}

  [[nodiscard]] Result<ShardId, ScalingError> added(Result<ShardId, ScalingError> result) {
    if (result) {
      core_->shard_callbacks.call(&ShardCallbacks::added, *result);
    }
    return result;
  }
  [[nodiscard]] Result<ShardId, ScalingError> removed(Result<ShardId, ScalingError> result) {
    if (result) {
      core_->shard_callbacks.call(&ShardCallbacks::removed, *result);
    }
    return result;
  }

  Outcome ingest_owned(Buffer& payload, RawEvent event) noexcept {
    detail::check_not_in_with_shard();
    event.payload = payload.bytes();
    return core_->admit_owned(
        payload, event, [this](const detail::Item& item, const RawEvent& routed) {
          return core_->admit_by_hash(item, core_->hasher(routed.routing_bytes()));
        });
  }

  std::shared_ptr<Core> core_;
};

extern template class SHARD_EXPORT BasicManager<detail::SystemPlatform>;

using Manager = BasicManager<detail::SystemPlatform>;

}  // namespace shard
