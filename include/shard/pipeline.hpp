#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "shard/adapter.hpp"
#include "shard/batch.hpp"
#include "shard/delivery.hpp"
#include "shard/detail/pipeline_core.hpp"
#include "shard/manager.hpp"
#include "shard/pipeline_options.hpp"
#include "shard/pipeline_report.hpp"

namespace shard {

/// Takes events from many threads and brings them to an adapter, in batches, in order per shard.
///
///     shard::Pipeline pipeline{{.manager = {.shards = 4}}, [](const shard::Batch& batch) {
///       return database.insert(batch) ? shard::Delivery::delivered() : shard::Delivery::retry("busy");
///     }};
///     pipeline.ingest(R"({"temperature": 21.5})", shard::Key{"sensor-7"});
///     pipeline.flush(std::chrono::seconds{5});
///     shard::CloseReport report = pipeline.close(std::chrono::seconds{5});
///
/// Threads:  all operations from any thread, at once, but for run_once(); construction and destruction by one alone. It
///           starts PipelineOptions::workers threads, and one more if the number of shards may change
///           (ManagerOptions::scaling) and workers is not 0; they block all signals. With workers = 0 it starts none and
///           the host calls run_once().
/// Latency:  by default a lone event waits for company, up to BatchOptions::max_delay (10 ms). BatchOptions::low_latency()
///           hands everything over at once.
/// Order:    the events of one shard are delivered one batch at a time, in the order in which they were accepted; with
///           Routing::keyed the events of one key are, whatever happens to the shards.
/// Failure:  the constructor throws ConfigError for options out of bounds, std::system_error when a thread cannot be
///           started; ingest never throws. What the adapter throws is an answer, see Adapter.
/// Memory:   allocated at construction and while batches grow to their working size; after that nothing per event and
///           nothing per batch.
/// fork():   in the child every call answers as if it were closed, and the destructor does nothing; no event is delivered
///           twice by it.
template <class Platform>
class BasicPipeline {
 public:
  using Manager = BasicManager<Platform>;
  using Producer = BasicProducer<Platform>;

  /// With an adapter of the host's own class, owned by the pipeline from now on.
  BasicPipeline(const PipelineOptions& options, std::unique_ptr<Adapter> adapter)
      : BasicPipeline(options, std::move(adapter), nullptr) {}
  /// With a callable: Delivery(const Batch&) or Delivery(const Batch&, const DeliveryContext&); see DeliverCallable.
  template <DeliverCallable Deliver>
  BasicPipeline(const PipelineOptions& options, Deliver&& deliver)
      : BasicPipeline(options, make_adapter(std::forward<Deliver>(deliver)), nullptr) {}
  /// With an adapter for each worker.
  template <class Factory>
  requires(!DeliverCallable<Factory> && std::constructible_from<AdapterFactory, Factory>)
      BasicPipeline(const PipelineOptions& options, Factory&& factory)
      : BasicPipeline(options, nullptr, AdapterFactory(std::forward<Factory>(factory))) {}

  BasicPipeline(const BasicPipeline&) = delete;
  BasicPipeline& operator=(const BasicPipeline&) = delete;
  /// close(PipelineOptions::close_timeout), if nobody has closed it. Never throws.
  ~BasicPipeline() {
    if (core_->is_forked()) {
      detail::keep_forever(std::move(core_));  // its threads are not here to be joined
    } else {
      core_->finish(core_->options.close_timeout);
    }
  }

  // Taking events in.

  /// As Manager::ingest(): a payload (Bytes or Buffer&&), perhaps a Key, perhaps a SourceIdentity. On a worker thread block
  /// mode does not wait: a full shard answers rejected_full.
  template <class... Event>
  Outcome ingest(Event&&... event) noexcept {
    return core_->manager.ingest(std::forward<Event>(event)...);
  }
  /// As the manager's.
  Outcome ingest_raw(const RawEvent& event) noexcept { return core_->manager.ingest_raw(event); }
  std::size_t ingest_batch(std::span<const Bytes> payloads,
                           std::span<Outcome> outcomes = {}) noexcept {
    return core_->manager.ingest_batch(payloads, outcomes);
  }
  std::size_t ingest_raw_batch(std::span<const RawEvent> events,
                               std::span<Outcome> outcomes = {}) noexcept {
    return core_->manager.ingest_raw_batch(events, outcomes);
  }
  Outcome reject(Outcome reason) noexcept { return core_->manager.reject(reason); }
  [[nodiscard]] Producer producer(ProducerOptions options = {}) {
    return core_->manager.producer(options);
  }

  /// Everything else that concerns shards, counts and scaling. What is popped or removed by hand there is not delivered
  /// and counts as returned.
  [[nodiscard]] Manager& manager() noexcept { return core_->manager; }
  [[nodiscard]] const Manager& manager() const noexcept { return core_->manager; }

  // Getting events out.

  /// Waits until every event that was accepted before the call is in a terminal category (delivered, dead letter, evicted,
  /// returned, ...), then calls Adapter::flush(). What comes in during the call neither satisfies nor delays it, but by
  /// the work that it makes. Batches that wait for company go out at once; those that wait to be retried do not.
  FlushResult flush(std::chrono::nanoseconds within) { return core_->flush(within); }

  /// Refuses what comes in from now on, delivers what was accepted, closes the adapter and ends the threads, all within the
  /// given time; what was not delivered by then is in the report, with its sequence numbers. When nine tenths of the time
  /// are gone no attempt is begun any more, and DeliveryContext::stop is requested. A batch that waits to be retried is
  /// tried at once, and then as usual. A thread that does not come back from the adapter in time is left alone; see
  /// Adapter for what must outlive it. (With workers = 0 the adapter runs on this thread, so it has to come back.) Idempotent: every caller gets the report of the first.
  /// Throws std::bad_alloc when the report cannot be copied; it is closed then, and can be asked again.
  CloseReport close(std::chrono::nanoseconds within) { return core_->close(within); }
  [[nodiscard]] bool is_closed() const noexcept { return core_->is_closed(); }

  /// For workers = 0: delivers what is due now, at most as many batches as there are shards, and scales if that is due; how
  /// many events became terminal. Always 0 with workers. One thread at a time: a call while another one runs does nothing.
  std::size_t run_once() { return core_->run_once(); }
  /// When run_once() has something to do at the latest: in the past if it has now, max() if it has not until events come.
  [[nodiscard]] Timestamp next_due() const noexcept { return core_->next_due(); }

  // Scaling by an operator. See ScalingPolicy for how a pipeline scales by itself.

  /// Adds shards, whatever the cooldown, within max_shards; removes those with the least to do, within min_shards. The
  /// report says how many and why not more. Throws std::bad_alloc, and what ShardCallbacks throw.
  ScalingReport scale_up(std::size_t shards) { return core_->scale(ScalingKind::scale_up, shards); }
  ScalingReport scale_down(std::size_t shards) {
    return core_->scale(ScalingKind::scale_down, shards);
  }
  void set_scaling_mode(ScalingMode mode) noexcept { core_->set_scaling_mode(mode); }
  /// What was decided at the end of the last metrics window, whether it was done or not.
  [[nodiscard]] ScalingDecision last_decision() const { return core_->last_decision(); }

  // Looking at it. Only stats() and lag() take a lock of a shard, the consumers', for a moment.

  [[nodiscard]] Ledger ledger() const noexcept { return core_->manager.ledger(); }
  /// Linear in the number of shards; looks at the oldest event of each, for which it takes the consumers' lock for a moment.
  [[nodiscard]] PipelineStats stats() const { return core_->stats(); }
  /// From acceptance to the adapter's answer, of the delivered events of a shard; nothing if there is no such shard.
  [[nodiscard]] std::optional<LatencyHistogram> latency(ShardId shard) const {
    return core_->latency(shard);
  }
  [[nodiscard]] Health health() const { return core_->health(); }
  /// How long the oldest event that is not terminal has waited; zero if there is none.
  [[nodiscard]] std::chrono::nanoseconds lag() const noexcept { return core_->lag(); }
  /// As the manager's: the wall-clock time of timestamp 0, and the time since then.
  [[nodiscard]] std::chrono::system_clock::time_point epoch() const noexcept {
    return core_->manager.epoch();
  }
  [[nodiscard]] Timestamp now() const noexcept { return core_->manager.now(); }
  [[nodiscard]] const PipelineOptions& options() const noexcept { return core_->options; }
  [[nodiscard]] Identity identity() const noexcept { return core_->identity; }

 private:
  friend struct detail::PipelineTestAccess;
  using Core = detail::PipelineCore<Platform>;

  BasicPipeline(const PipelineOptions& options, std::unique_ptr<Adapter> adapter,
                const AdapterFactory& factory)
      : core_(std::make_shared<Core>(options, std::move(adapter), factory)) {
    core_->start();
  }

  std::shared_ptr<Core> core_;
};

extern template class SHARD_EXPORT detail::PipelineCore<detail::SystemPlatform>;
extern template class SHARD_EXPORT BasicPipeline<detail::SystemPlatform>;

using Pipeline = BasicPipeline<detail::SystemPlatform>;

}  // namespace shard
