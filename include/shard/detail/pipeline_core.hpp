#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "shard/adapter.hpp"
#include "shard/detail/agent.hpp"
#include "shard/detail/annotations.hpp"
#include "shard/detail/courier.hpp"
#include "shard/detail/event_count.hpp"
#include "shard/manager.hpp"
#include "shard/pipeline_options.hpp"
#include "shard/pipeline_report.hpp"

namespace shard {

namespace detail {

struct PipelineTestAccess;  // tests look inside

/// The threads of a pipeline, and what flush() and close() wait for. Shared by the pipeline and its threads, so that one
/// that hangs in the adapter finds everything alive when it comes back.
///
/// A worker claims a shard from the ready queue, lets the courier make one pass, and releases the shard: for good, until a
/// due time, or to the end of the queue. With a scaling policy a thread more measures and scales; it is apart from the
/// workers so that it works when all of them are stuck.
///
/// Threads: any, but for what says otherwise.
template <class Platform>
class PipelineCore : public std::enable_shared_from_this<PipelineCore<Platform>> {
 public:
  using Manager = BasicManager<Platform>;

  /// Throws ConfigError, std::bad_alloc, what the factory throws.
  PipelineCore(const PipelineOptions& given, std::unique_ptr<Adapter> adapter,
               const AdapterFactory& factory);
  PipelineCore(const PipelineCore&) = delete;
  PipelineCore& operator=(const PipelineCore&) = delete;
  ~PipelineCore() = default;

  /// Starts the threads, once. Throws std::system_error, and then none runs.
  void start();

  /// See Pipeline.
  std::size_t run_once() { return drive().value_or(0); }
  [[nodiscard]] Timestamp next_due() const noexcept;
  FlushResult flush(std::chrono::nanoseconds within);
  CloseReport close(std::chrono::nanoseconds within);
  /// The same without a copy of the report; not in a child, not on a worker.
  const CloseReport& finish(std::chrono::nanoseconds within) noexcept;
  [[nodiscard]] bool is_closed() const noexcept {
    return closing_.load(std::memory_order_acquire) ||
           is_forked();  // [pipeline.closing] <- close()
  }
  [[nodiscard]] bool is_forked() const noexcept { return core_->is_forked(); }

  ScalingReport scale(ScalingKind kind, std::size_t shards);
  void set_scaling_mode(ScalingMode mode) noexcept;
  [[nodiscard]] ScalingDecision last_decision() const;

  [[nodiscard]] PipelineStats stats() const;
  [[nodiscard]] std::optional<LatencyHistogram> latency(ShardId shard) const;
  [[nodiscard]] Health health() const;
  [[nodiscard]] std::chrono::nanoseconds lag() const noexcept;

  const PipelineOptions options;
  const Identity identity;

 private:
  friend struct PipelineTestAccess;
  using Core = ShardCore<Platform>;
  using AnyLane = Lane<Platform>;
  using AnyAgent = Agent<Platform>;
  using State = typename AnyAgent::State;

  /// An adapter and what has been asked of it.
  struct Slot {
    std::unique_ptr<Adapter> adapter;
    std::size_t users = 0;                 ///< agents that have not left yet; guarded by control_
    std::atomic<std::uint64_t> served{0};  ///< the last flush_wanted_ that it served
    std::atomic<bool> failed{false};       ///< that flush failed
    bool busy = false;                     ///< an agent is in Adapter::flush(); guarded by control_
    std::atomic<bool> closed{false};
  };
  /// A shard and how far it has to get.
  struct Goal {
    std::shared_ptr<Core> core;
    typename Core::Mark mark;
  };

  [[nodiscard]] static std::shared_ptr<ManagerCore<Platform>> make_manager(
      const PipelineOptions& options);
  [[nodiscard]] static PipelineOptions checked(const PipelineOptions& given);

  [[nodiscard]] ReadyQueue<Platform>& queue() const noexcept { return *core_->ready; }
  [[nodiscard]] const Clock& clock() const noexcept { return core_->clock; }
  [[nodiscard]] bool is_host_driven() const noexcept { return options.workers == 0; }
  [[nodiscard]] Slot& slot_of(const AnyAgent& agent) noexcept {
    return *slots_[slots_.size() == 1 ? 0 : agent.index];
  }

  // Workers.
  void run_worker(AnyAgent& agent) noexcept;
  /// Waits for something to do, as the wait strategy says.
  /// \param flushes  how many were wanted when it last looked: also for one more
  void wait_for_work(std::uint32_t ticket, std::uint64_t flushes) noexcept;
  [[nodiscard]] std::uint64_t flushes_wanted() const noexcept {
    return flush_wanted_.load(std::memory_order_acquire);  // [pipeline.flush]
  }
  /// A shard that nobody announces and that has something queued; nullptr: none.
  [[nodiscard]] Core* find_unwatched() const noexcept;
  /// Before it parks: from here on every shard is announced.
  void watch_all() noexcept;
  /// Claims a shard and makes a pass. Nothing: none was ready, or time is over.
  [[nodiscard]] std::optional<std::size_t> work(AnyAgent& agent, std::uint32_t& ticket) noexcept;
  /// A pass of a node that has been claimed; nothing: time is over.
  [[nodiscard]] std::optional<std::size_t> pass(ReadyNode& node, AnyAgent& agent) noexcept;
  /// Calls Adapter::flush() if that is asked of this agent's adapter; whether it did.
  bool serve_flush(AnyAgent& agent) noexcept;
  [[nodiscard]] bool flush_is_due(const Slot& slot) const noexcept {
    return slot.served.load(std::memory_order_acquire) != flushes_wanted();  // [pipeline.flush]
  }
  /// The last thing that an agent does; who is the last at an adapter closes it.
  void leave(AnyAgent& agent) noexcept;

  // Where the host drives, one thread at a time has the agent. Who is turned away says so and tries once more; who leaves
  // looks whether anybody said so. One of the two sees the other: both are sequentially consistent. [pipeline.turned_away]
  [[nodiscard]] bool get_in(AnyAgent& agent) noexcept;
  void get_out(AnyAgent& agent) noexcept;
  /// run_once(); nothing: another thread is in it, which will notify `progress`.
  std::optional<std::size_t> drive();

  // Scaling.
  void run_controller(AnyAgent& agent) noexcept;
  /// What is due at the end of a metrics window; true when there is nothing to do until events come.
  bool tick(AnyAgent& agent) noexcept;
  [[nodiscard]] bool is_settled(const ScalingReport& report) noexcept;
  [[nodiscard]] std::size_t busy_workers() const noexcept;

  // Flush and close.
  /// Waits until `done()`, or the deadline, or the end of close(); what `done()` says then.
  template <class Done>
  [[nodiscard]] bool wait_until(Timestamp deadline, const Done& done);
  [[nodiscard]] std::vector<Goal> request_flush() const;
  [[nodiscard]] static bool reached(const std::vector<Goal>& goals) noexcept;
  [[nodiscard]] static std::uint64_t outstanding(const std::vector<Goal>& goals) noexcept;
  void close_now(std::chrono::nanoseconds within, CloseReport& report) noexcept;
  [[nodiscard]] CloseReport closed_in_child() const;
  [[nodiscard]] bool all_agents(bool (*is)(const AnyAgent&) noexcept) const noexcept;
  /// Ends what is under way in a shard, and appends what it was and what is queued. Throws std::bad_alloc; it has ended then.
  void add_undelivered(Core& core, std::vector<UndeliveredRange>& undelivered) const;
  [[nodiscard]] bool is_reported() const noexcept;

  const std::shared_ptr<ManagerCore<Platform>> core_;

 public:
  Manager manager;

 private:
  std::vector<std::unique_ptr<Slot>> slots_;  ///< one, or one for each worker
  std::stop_source stop_;
  Gate<Platform> gate_;
  Courier<Platform> courier_;
  std::vector<std::unique_ptr<AnyAgent>> workers_;  ///< one without a thread if the host drives
  std::unique_ptr<AnyAgent> controller_;  ///< if there is a policy; without a thread likewise

  EventCount<Platform> controller_bell_;

  typename Platform::template Atomic<bool> closing_{false};
  std::atomic<std::uint64_t> flush_wanted_{0};
  typename Platform::template Atomic<bool> turned_away_{false};
  std::atomic<ScalingMode> scaling_mode_{ScalingMode::automatic};
  std::atomic<std::uint64_t> next_tick_{0};  ///< of a host-driven pipeline; ns

  mutable BasicMutex<Platform> control_;
  bool close_begun_ SHARD_GUARDED_BY(control_) = false;
  bool reported_ SHARD_GUARDED_BY(control_) = false;
  CloseReport report_;  ///< written by the first who closes, read by all once reported_
  ScalingDecision last_decision_ SHARD_GUARDED_BY(control_);
  // The controller's own: what it saw at its last tick.
  std::uint64_t accepted_seen_ = 0;
};

}  // namespace detail
}  // namespace shard
