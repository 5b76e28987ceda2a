#pragma once

// The template's definitions; see shard_core_impl.hpp.

#include <algorithm>
#include <new>
#include <string>
#include <thread>
#include <utility>

#include "shard/detail/check.hpp"
#include "shard/detail/courier_impl.hpp"
#include "shard/detail/hash.hpp"
#include "shard/detail/manager_impl.hpp"
#include "shard/detail/pipeline_core.hpp"
#include "shard/detail/thread.hpp"

namespace shard::detail {

// ---------------------------------------------------------------------------------- made and started

template <class Platform>
PipelineOptions PipelineCore<Platform>::checked(const PipelineOptions& given) {
  given.validate();
  if (const auto* const forbidden = find_forbidden(given.processors)) {
    throw ConfigError("processors", std::to_string(*forbidden),
                      "processors that the system lets this process use");
  }
  return given;
}

template <class Platform>
std::shared_ptr<ManagerCore<Platform>> PipelineCore<Platform>::make_manager(
    const PipelineOptions& options) {
  using Made = ManagerCore<Platform>;
  const typename Made::Consumption consumption{
      .attach = [batching = options.batch](Core& core) -> std::unique_ptr<ReadyNode> {
        return std::make_unique<AnyLane>(core, batching);
      },
      .max_claims = options.serialise_adapter ? 1 : ReadyQueue<Platform>::kNoLimit};
  return std::make_shared<Made>(options.manager, &consumption);
}

template <class Platform>
PipelineCore<Platform>::PipelineCore(const PipelineOptions& given, std::unique_ptr<Adapter> adapter,
                                     const AdapterFactory& factory)
    : options(checked(given)),
      identity{options.producer_id ? *options.producer_id : random_seed(), random_seed()},
      core_(make_manager(options)),
      manager(core_),
      courier_(options, identity, core_->clock, *core_->ready, gate_) {
  const auto agents = std::max<std::size_t>(1, options.workers);
  const auto make_agent = [this](std::size_t index) {
    auto agent = std::make_unique<AnyAgent>();
    agent->index = index;
    agent->random = random_seed();
    agent->context.stop = stop_.get_token();
    agent->context.epoch = clock().epoch();
    return agent;
  };
  for (std::size_t i = 0; i < agents; ++i) {
    workers_.push_back(make_agent(i));
  }
  if (options.manager.scaling && !is_host_driven()) {
    controller_ = make_agent(agents);
  }
  const auto add_slot = [this](std::unique_ptr<Adapter> made, std::size_t users) {
    if (made == nullptr) {
      throw ConfigError("adapter", "nullptr", "an adapter");
    }
    slots_.push_back(std::make_unique<Slot>());
    slots_.back()->adapter = std::move(made);
    slots_.back()->users = users;
  };
  if (factory) {
    if (options.serialise_adapter) {
      throw ConfigError("serialise_adapter", "true",
                        "false where each worker has an adapter of its own");
    }
    for (std::size_t i = 0; i < agents; ++i) {
      add_slot(factory(i), 1);
    }
  } else {
    add_slot(std::move(adapter), agents);
  }
}

template <class Platform>
void PipelineCore<Platform>::start() {
  if (is_host_driven()) {
    return;
  }
  const SignalsBlocked blocked;  // the threads inherit it: signals are the host's
  const auto run = [this](AnyAgent& agent, void (PipelineCore::*loop)(AnyAgent&) noexcept) {
    agent.state.store(State::inside, std::memory_order_seq_cst);
    try {
      agent.thread =
          std::thread([self = this->shared_from_this(), &agent, loop] { ((*self).*loop)(agent); });
    } catch (...) {
      agent.state.store(State::outside, std::memory_order_seq_cst);
      throw;
    }
  };
  try {
    for (const auto& worker : workers_) {
      run(*worker, &PipelineCore::run_worker);
    }
    if (controller_ != nullptr) {
      run(*controller_, &PipelineCore::run_controller);
    }
  } catch (...) {
    closing_.store(true, std::memory_order_release);
    gate_.stop();
    gate_.expire();  // the adapter was never used, so it need not be closed
    queue().interrupt();
    for (const auto& worker : workers_) {
      if (worker->thread.joinable()) {
        worker->thread.join();
      }
    }
    throw;
  }
}

// ---------------------------------------------------------------------------------- workers

template <class Platform>
void PipelineCore<Platform>::wait_for_work(std::uint32_t ticket, std::uint64_t flushes) noexcept {
  if (options.wait != WaitStrategy::park) {
    const auto until = options.wait == WaitStrategy::spin ? Timestamp::max()
                                                          : clock().now().after(options.spin_for);
    const bool found = queue().spin(ticket, until, [this, flushes] {
      return (polls(options) && find_unwatched() != nullptr) || gate_.is_stopped() ||
             flushes_wanted() != flushes;
    });
    if (found || options.wait == WaitStrategy::spin) {
      return;
    }
    watch_all();
  }
  queue().sleep(ticket);
}

template <class Platform>
ShardCore<Platform>* PipelineCore<Platform>::find_unwatched() const noexcept {
  const auto table = core_->topology.tables.read();
  for (const auto& member : table->members) {
    if (member.core->has_queued() && ReadyQueue<Platform>::is_idle(*member.core->node())) {
      return member.core.get();
    }
  }
  return nullptr;
}

template <class Platform>
void PipelineCore<Platform>::watch_all() noexcept {
  const auto table = core_->topology.tables.peek();
  for (const auto& member : table->members) {
    auto& core = *member.core;
    if (const auto number = queue().unwatched(*core.node())) {
      const auto rest = core.watch_for(1, core.bytes_capacity());
      queue().note_watched(*core.node(), *number);
      if (rest == Rest::again) {
        core.announce();
      }
    }
  }
}

template <class Platform>
void PipelineCore<Platform>::run_worker(AnyAgent& agent) noexcept {
  const WorkerScope scope(core_.get());
  if (!options.thread_name.empty()) {
    name_this_thread(options.thread_name, agent.index);
  }
  if (!options.processors.empty()) {
    bind_this_thread(options.processors[agent.index % options.processors.size()]);
  }
  const auto& slot = slot_of(agent);
  while (!gate_.is_stopped()) {
    const auto flushes = flushes_wanted();
    if (flush_is_due(slot) && serve_flush(agent)) {
      continue;
    }
    std::uint32_t ticket = 0;
    if (work(agent, ticket)) {
      continue;
    }
    // Whoever wants something else of a worker says so first and then interrupts the queue: either we see it here, or
    // the ticket is old by then. A flush that was due and not served is in the hands of another worker.
    if (!gate_.is_stopped() && flushes_wanted() == flushes) {
      wait_for_work(ticket, flushes);
    }
  }
  leave(agent);
}

template <class Platform>
std::optional<std::size_t> PipelineCore<Platform>::work(AnyAgent& agent,
                                                        std::uint32_t& ticket) noexcept {
  if (polls(options)) {
    if (auto* const core = find_unwatched(); core != nullptr && queue().try_claim(*core->node())) {
      core->prefetch_oldest();
      return pass(*core->node(), agent);
    }
  }
  const auto claim = queue().claim(clock().now());
  if (claim.node == nullptr) {
    ticket = claim.ticket;
    return std::nullopt;
  }
  return pass(*claim.node, agent);
}

template <class Platform>
std::optional<std::size_t> PipelineCore<Platform>::pass(ReadyNode& node, AnyAgent& agent) noexcept {
  const auto done = courier_.run(static_cast<AnyLane&>(node), agent, *slot_of(agent).adapter);
  if (done.over) {
    return std::nullopt;  // the claim is kept, so that nobody else takes the shard up
  }
  queue().release(node, done.rest, done.moved, done.due);
  queue().progress.notify_all();
  return done.settled;
}

template <class Platform>
bool PipelineCore<Platform>::serve_flush(AnyAgent& agent) noexcept {
  auto& slot = slot_of(agent);
  if (!queue().enter()) {
    return false;  // one call at a time, and another worker is in it; it comes by here next
  }
  std::uint64_t wanted = 0;
  bool served = false;
  {
    const LockGuard lock(control_);
    served = !slot.busy && flush_is_due(slot);
    slot.busy = slot.busy || served;
    wanted = flush_wanted_.load(std::memory_order_relaxed);  // written under control_
  }
  if (served) {
    bool flushed = false;
    const bool ran = gate_.run(agent, [&] {
      try {
        flushed = slot.adapter->flush(courier_.context(agent, 0, clock().now()));
      } catch (...) {
        flushed = false;  // FlushStatus::adapter_failed
      }
    });
    const LockGuard lock(control_);
    slot.busy = false;
    slot.failed.store(!ran || !flushed, std::memory_order_relaxed);
    slot.served.store(wanted, std::memory_order_release);  // [pipeline.flush] -> flush()
  }
  queue().leave();
  if (served) {
    queue().progress.notify_all();
  }
  return served;
}

template <class Platform>
void PipelineCore<Platform>::leave(AnyAgent& agent) noexcept {
  auto& slot = slot_of(agent);
  bool last = false;
  {
    const LockGuard lock(control_);
    last = --slot.users == 0;
  }
  if (last) {
    static_cast<void>(gate_.run(agent, [&] {
      const auto good = [&](const auto& call) {
        try {
          return call(courier_.context(agent, 0, clock().now()));
        } catch (...) {
          return false;
        }
      };
      const bool flushed = good([&](const auto& context) { return slot.adapter->flush(context); });
      const bool closed = good([&](const auto& context) {
        slot.adapter->close(context);
        return true;
      });
      slot.closed.store(flushed && closed, std::memory_order_release);  // else not complete
    }));
  }
  agent.state.store(State::outside, std::memory_order_seq_cst);
  queue().progress.notify_all();
}

template <class Platform>
bool PipelineCore<Platform>::get_in(AnyAgent& agent) noexcept {
  const auto try_it = [&agent] {
    auto expected = State::outside;
    return agent.state.compare_exchange_strong(
        expected, State::inside, std::memory_order_seq_cst,
        std::memory_order_relaxed);  // [pipeline.turned_away]
  };
  if (try_it()) {
    return true;
  }
  turned_away_.store(true, std::memory_order_seq_cst);  // [pipeline.turned_away]
  return try_it();
}

template <class Platform>
void PipelineCore<Platform>::get_out(AnyAgent& agent) noexcept {
  agent.state.store(State::outside, std::memory_order_seq_cst);  // [pipeline.turned_away]
  if (turned_away_.exchange(false, std::memory_order_seq_cst) || is_closed()) {
    queue().progress.notify_all();
  }
}

template <class Platform>
std::optional<std::size_t> PipelineCore<Platform>::drive() {
  auto& agent = *workers_.front();
  if (!is_host_driven() || is_forked() || !get_in(agent)) {
    return std::nullopt;
  }
  std::size_t settled = 0;
  {
    const WorkerScope scope(core_.get());
    if (!gate_.is_stopped()) {
      serve_flush(agent);
      const auto now = clock().now();
      if (const auto policy = manager.scaling_policy();
          policy && now.nanoseconds >= next_tick_.load(std::memory_order_relaxed)) {
        next_tick_.store(now.after(policy->metrics_window).nanoseconds, std::memory_order_relaxed);
        tick(agent);
      }
      // Each shard at most once or twice, so that the call ends whatever comes in.
      for (auto passes = manager.num_shards(); passes != 0 && !gate_.is_stopped(); --passes) {
        std::uint32_t ticket = 0;
        const auto done = work(agent, ticket);
        if (!done) {
          break;
        }
        settled += *done;
      }
    }
  }
  get_out(agent);
  return settled;
}

template <class Platform>
Timestamp PipelineCore<Platform>::next_due() const noexcept {
  if (is_closed()) {
    return Timestamp::max();
  }
  const auto due = queue().next_due();
  return options.manager.scaling
             ? std::min(due, Timestamp{next_tick_.load(std::memory_order_relaxed)})
             : due;
}

// ---------------------------------------------------------------------------------- scaling

template <class Platform>
void PipelineCore<Platform>::run_controller(AnyAgent& agent) noexcept {
  const WorkerScope scope(core_.get());
  if (!options.thread_name.empty()) {
    name_this_thread(options.thread_name, agent.index);
  }
  while (!is_closed()) {
    // Before it looks: passes, changes of shards, of the policy and of the mode notify after what they did, so either it is
    // seen here, or it wakes us. [event_count.word]
    const auto ticket = queue().progress.prepare();
    if (tick(agent)) {
      if (!is_closed()) {
        static_cast<void>(queue().progress.wait_until(ticket, clock(), Timestamp::max()));
      }
    } else {
      const auto window = manager.scaling_policy()->metrics_window;
      const auto closing = controller_bell_.prepare();
      if (!is_closed()) {
        static_cast<void>(
            controller_bell_.wait_until(closing, clock(), clock().now().after(window)));
      }
    }
  }
  agent.state.store(State::outside, std::memory_order_seq_cst);
  queue().progress.notify_all();
}

template <class Platform>
bool PipelineCore<Platform>::tick(AnyAgent& agent) noexcept {
  const SinkState sink{options.workers, busy_workers(), courier_.monitor.consecutive_failures()};
  const auto mode = scaling_mode_.load(std::memory_order_relaxed);
  ScalingReport report;
  // Callbacks of the host run in between, so the agent counts as away. What it does to the shards is refused once the
  // pipeline closes.
  static_cast<void>(gate_.run(agent, [&] {
    try {
      if (mode == ScalingMode::automatic) {
        report = manager.run_scaling(sink);
      } else {
        auto decision = manager.evaluate_scaling(sink);  // measures, too
        if (mode == ScalingMode::dry_run) {
          report.decision = std::move(decision);
        }
        report.measured = true;
        manager.finalize_draining();
        report.removed = manager.remove_stopped_shards();
      }
      if (report.measured) {
        const LockGuard lock(control_);
        last_decision_ = report.decision;
      }
    } catch (...) {
      report.measured = false;  // no memory, or a callback threw: at the next window
    }
  }));
  const auto because = Reason(to_string(report.decision.reason));
  if (!report.added.empty()) {
    courier_.notify(agent, NoticeKind::scaled_up, std::nullopt, report.added.size(), because);
  }
  if (!report.draining.empty()) {
    courier_.notify(agent, NoticeKind::scaled_down, std::nullopt, report.draining.size(), because);
  }
  return is_settled(report);
}

template <class Platform>
bool PipelineCore<Platform>::is_settled(const ScalingReport& report) noexcept {
  const auto accepted = std::exchange(accepted_seen_, manager.stats().events_ingested);
  if (!report.measured || accepted != accepted_seen_ || report.decision.kind != ScalingKind::none ||
      report.removed != 0 || report.slots_moved != 0 || report.rebalanced) {
    return false;
  }
  const auto policy = manager.scaling_policy();
  const auto table = core_->topology.tables.peek();
  const bool idle =
      std::all_of(table->members.begin(), table->members.end(), [](const auto& member) {
        return member.state == ShardState::active && member.core->length() == 0 &&
               member.core->in_batch() == 0;
      });
  return idle && (table->members.size() == policy->min_shards || !policy->auto_scale ||
                  policy->underutilised_threshold == 0 ||
                  scaling_mode_.load(std::memory_order_relaxed) == ScalingMode::paused);
}

template <class Platform>
std::size_t PipelineCore<Platform>::busy_workers() const noexcept {
  return static_cast<std::size_t>(
      std::count_if(workers_.begin(), workers_.end(), [](const auto& worker) {
        return worker->attempt_since.load(std::memory_order_relaxed) != 0;
      }));
}

template <class Platform>
ScalingReport PipelineCore<Platform>::scale(ScalingKind kind, std::size_t shards) {
  ScalingReport report;
  if (shards == 0 || kind == ScalingKind::none) {
    return report;
  }
  if (is_forked()) {
    report.error = ScalingError::closed;
    return report;
  }
  if (!manager.scaling_policy()) {
    report.error = ScalingError::scaling_disabled;
    return report;
  }
  ScalingDecision decision{.kind = kind, .wanted = shards, .count = shards};
  if (kind == ScalingKind::scale_down) {
    // Those with the least to do.
    const auto table = core_->topology.tables.peek();
    std::vector<std::pair<double, ShardId>> active;
    for (const auto index : table->active()) {
      const auto& core = *table->members[index].core;
      active.emplace_back(core.fill_ratio(), core.id());
    }
    std::sort(active.begin(), active.end());
    decision.count = std::min(shards, active.size());
    for (std::size_t i = 0; i < decision.count; ++i) {
      decision.shards.push_back(active[i].second);
    }
  }
  return manager.execute(decision);
}

template <class Platform>
void PipelineCore<Platform>::set_scaling_mode(ScalingMode mode) noexcept {
  scaling_mode_.store(mode, std::memory_order_relaxed);
  queue().progress.notify_all();  // a controller that had nothing to do looks again
}

template <class Platform>
ScalingDecision PipelineCore<Platform>::last_decision() const {
  if (is_forked()) {
    return {};
  }
  const LockGuard lock(control_);
  return last_decision_;
}

// ---------------------------------------------------------------------------------- flush

template <class Platform>
template <class Done>
bool PipelineCore<Platform>::wait_until(Timestamp deadline, const Done& done) {
  // Where time is the host's it may stand still, and then a batch that is retried at once is retried for ever. Passes that
  // settle nothing can be of use (a fence is passed), but not more often than there are shards.
  const auto patience = manager.num_shards() + 2;
  auto in_vain = patience;
  for (;;) {
    auto ticket = queue().progress.prepare();
    if (done()) {
      return true;
    }
    const auto now = clock().now();
    if (now >= deadline || is_reported()) {
      return done();
    }
    auto wake = deadline;
    if (is_host_driven() && !gate_.is_stopped()) {
      const auto driven = drive();
      const bool settled = driven.value_or(0) != 0;
      in_vain = settled ? patience : in_vain;
      if (driven) {
        ticket = queue()
                     .progress
                     .prepare();  // its passes have notified; who drives instead of us still will
      }
      if (done()) {
        return true;
      }
      wake = std::min(deadline, queue().next_due());
      const bool idle = wake > clock().now();
      if (!clock().is_real() && !settled && (idle || --in_vain == 0)) {
        return done();  // nothing more happens until the host lets time pass
      }
      if (!idle || settled) {
        std::this_thread::yield();  // another thread may be the one that drives
        continue;
      }
    }
    static_cast<void>(queue().progress.wait_until(ticket, clock(), wake));
  }
}

template <class Platform>
std::vector<typename PipelineCore<Platform>::Goal> PipelineCore<Platform>::request_flush() const {
  const auto table = core_->topology.tables.peek();
  std::vector<Goal> goals;
  goals.reserve(table->members.size());
  for (const auto& member : table->members) {
    goals.push_back({member.core, {}});
  }
  for (auto& goal : goals) {
    goal.mark = goal.core->request_flush();
  }
  return goals;
}

template <class Platform>
bool PipelineCore<Platform>::reached(const std::vector<Goal>& goals) noexcept {
  return std::all_of(goals.begin(), goals.end(),
                     [](const Goal& goal) { return goal.core->watermark() >= goal.mark.position; });
}

template <class Platform>
std::uint64_t PipelineCore<Platform>::outstanding(const std::vector<Goal>& goals) noexcept {
  std::uint64_t events = 0;
  for (const auto& goal : goals) {
    auto& core = *goal.core;
    core.with_pop_lock([&] {
      const auto head = core.positions().head;
      events += goal.mark.events > head ? goal.mark.events - head : 0;
      const auto& lane = AnyLane::of(core);
      for (std::size_t i = 0; i < lane.size; ++i) {
        events += EventBatchAccess::sequence(*lane.storage, lane.first + i) < goal.mark.events;
      }
      if (const auto taken = core.in_batch(); lane.size == 0 && taken != 0) {
        // Being taken just now: the last that left the ring.
        const auto from = head - taken;
        events += goal.mark.events > from ? std::min(taken, goal.mark.events - from) : 0;
      }
    });
  }
  return events;
}

template <class Platform>
FlushResult PipelineCore<Platform>::flush(std::chrono::nanoseconds within) {
  if (is_worker_of(core_.get())) {
    return {FlushStatus::would_deadlock, 0};
  }
  if (is_closed()) {
    return {FlushStatus::closed, 0};
  }
  const auto deadline = clock().now().after(within);
  const auto goals = request_flush();
  const auto failed = [this](std::uint64_t events) {
    return FlushResult{is_reported() ? FlushStatus::closed : FlushStatus::timed_out, events};
  };
  if (!wait_until(deadline, [&] { return reached(goals); })) {
    return failed(is_reported() ? 0 : outstanding(goals));
  }
  // Everything is terminal; now the adapters may have to make it durable.
  std::uint64_t wanted = 0;
  {
    const LockGuard lock(control_);
    wanted = flush_wanted_.load(std::memory_order_relaxed) + 1;
    flush_wanted_.store(wanted, std::memory_order_release);  // [pipeline.flush] -> flush_is_due()
  }
  queue().interrupt();
  run_once();  // if the host drives, also when no time is left
  const auto served = [&] {
    return std::all_of(slots_.begin(), slots_.end(), [wanted](const auto& slot) {
      return slot->served.load(std::memory_order_acquire) >= wanted;  // [pipeline.flush]
    });
  };
  if (!wait_until(deadline, served)) {
    return failed(0);
  }
  const bool good = std::none_of(slots_.begin(), slots_.end(), [](const auto& slot) {
    return slot->failed.load(std::memory_order_relaxed);
  });
  return {good ? FlushStatus::flushed : FlushStatus::adapter_failed, 0};
}

// ---------------------------------------------------------------------------------- close

template <class Platform>
bool PipelineCore<Platform>::is_reported() const noexcept {
  const LockGuard lock(control_);
  return reported_;
}

template <class Platform>
CloseReport PipelineCore<Platform>::closed_in_child() const {
  CloseReport report;
  report.ledger = manager.ledger();
  return report;
}

template <class Platform>
CloseReport PipelineCore<Platform>::close(std::chrono::nanoseconds within) {
  if (is_worker_of(core_.get())) {
    CloseReport report;
    report.would_deadlock = true;
    return report;
  }
  if (is_forked()) {
    return closed_in_child();
  }
  return finish(within);
}

template <class Platform>
const CloseReport& PipelineCore<Platform>::finish(std::chrono::nanoseconds within) noexcept {
  bool first = false;
  {
    const LockGuard lock(control_);
    first = !std::exchange(close_begun_, true);
  }
  if (first) {
    close_now(within, report_);
    {
      const LockGuard lock(control_);
      reported_ = true;
    }
    queue().progress.notify_all();
  }
  for (;;) {
    const auto ticket = queue().progress.prepare();
    if (is_reported()) {
      return report_;
    }
    static_cast<void>(queue().progress.wait_until(ticket, clock(), Timestamp::max()));
  }
}

template <class Platform>
bool PipelineCore<Platform>::all_agents(bool (*is)(const AnyAgent&) noexcept) const noexcept {
  return std::all_of(workers_.begin(), workers_.end(), [is](const auto& a) { return is(*a); }) &&
         (controller_ == nullptr || is(*controller_));
}

template <class Platform>
void PipelineCore<Platform>::add_undelivered(Core& core,
                                             std::vector<UndeliveredRange>& undelivered) const {
  std::optional<Undelivered> batched;
  core.expire([&](bool attempting) {
    batched = attempting ? Undelivered::possibly_delivered : Undelivered::abandoned_batched;
  });
  const auto add = [&](std::uint64_t first, std::uint64_t last, Undelivered why) {
    undelivered.push_back({core.id(), {first}, {last}, why});
  };
  if (batched) {
    // Nobody changes it any more, now that it has expired.
    const auto& lane = AnyLane::of(core);
    const auto sequence = [&](std::size_t i) {
      return EventBatchAccess::sequence(*lane.storage, lane.first + i);
    };
    for (std::size_t i = 0; i < lane.size;) {
      const auto first = i++;
      while (i < lane.size && sequence(i) == sequence(i - 1) + 1) {
        ++i;
      }
      add(sequence(first), sequence(i - 1), *batched);
    }
  }
  if (const auto at = core.positions(); at.pushed != at.head) {
    add(at.head, at.pushed - 1, Undelivered::abandoned_queued);
  }
}

template <class Platform>
void PipelineCore<Platform>::close_now(std::chrono::nanoseconds within,
                                       CloseReport& report) noexcept {
  within = std::max(within, std::chrono::nanoseconds{0});
  const auto began = clock().now();
  const auto deadline = began.after(within);
  const auto steady = std::chrono::steady_clock::now();
  courier_.set_close_deadline(within < std::chrono::steady_clock::time_point::max() - steady
                                  ? steady + within
                                  : std::chrono::steady_clock::time_point::max());

  // 1. Nothing comes in any more; what is there is delivered. The last tenth of the time is for those who come back
  //    from the adapter, and for closing it.
  closing_.store(true, std::memory_order_release);  // [pipeline.closing] -> is_closed()
  core_->close();
  controller_bell_.notify_all();
  queue().progress.notify_all();
  const auto table = core_->topology.tables.peek();  // the last: changes are refused now
  for (const auto& member : table->members) {
    static_cast<void>(member.core->request_flush());
  }
  const auto nine_tenths = began.after(within - within / 10);
  const bool drained = wait_until(nine_tenths, [&table] {
    return std::all_of(table->members.begin(), table->members.end(), [](const auto& member) {
      return member.state == ShardState::stopped || member.core->is_drained();
    });
  });

  // 2. No attempt begins from here on; everybody leaves, the last one closes the adapter.
  gate_.stop();
  queue().interrupt();
  const auto all_outside = [this] { return all_agents(&Gate<Platform>::is_outside); };
  if (!drained || !wait_until(nine_tenths, all_outside)) {
    const WorkerScope scope(
        core_.get());  // callbacks of the token that call flush() or close() would wait for us
    stop_.request_stop();
  }
  if (!is_host_driven()) {
    static_cast<void>(wait_until(deadline, all_outside));
  } else if (auto& agent = *workers_.front(); wait_until(deadline, [&] { return get_in(agent); })) {
    const WorkerScope scope(core_.get());
    leave(agent);
  }

  // 3. Time is over. Who is in the library's code comes to an end now; who is in the host's may never.
  gate_.expire();
  for (;;) {
    const auto ticket = queue().progress.prepare();
    if (all_agents(
            [](const AnyAgent& agent) noexcept { return !Gate<Platform>::is_inside(agent); })) {
      break;
    }
    static_cast<void>(queue().progress.wait_until(ticket, clock(), Timestamp::max()));
  }
  const auto let_go = [&report](AnyAgent& agent) {
    if (!agent.thread.joinable()) {
      return;
    }
    if (Gate<Platform>::is_outside(agent)) {
      agent.thread.join();
    } else {
      agent.thread.detach();
      ++report.abandoned_threads;
    }
  };
  for (const auto& worker : workers_) {
    let_go(*worker);
  }
  if (controller_ != nullptr) {
    let_go(*controller_);
  }

  // 4. What is left is told, and counted as abandoned.
  bool told = true;
  const auto tell = [&told](const auto& what) noexcept {
    try {
      what();
    } catch (const std::bad_alloc&) {
      told = false;  // the counts are right all the same
    }
  };
  for (const auto& member : table->members) {
    tell([&] { add_undelivered(*member.core, report.undelivered); });
  }
  core_->retire();
  for (const auto& member : table->members) {
    tell([&] { report.shards.push_back({member.core->id(), member.core->ledger()}); });
  }
  report.ledger = manager.ledger();
  report.complete = told && report.undelivered.empty() && report.abandoned_threads == 0 &&
                    std::all_of(slots_.begin(), slots_.end(), [](const auto& slot) {
                      return slot->closed.load(std::memory_order_acquire);
                    });
  const auto ended = std::max(clock().now(), began);  // a host's clock may have stepped back
  report.took = ended.since_epoch() - began.since_epoch();
}

// ---------------------------------------------------------------------------------- what is known

template <class Platform>
PipelineStats PipelineCore<Platform>::stats() const {
  PipelineStats stats;
  const auto table = core_->topology.tables.peek();
  stats.ledger = manager.ledger();
  stats.shards = table->members.size();
  stats.active_shards = table->count(ShardState::active);
  courier_.monitor.read(stats);
  stats.oldest = lag();
  return stats;
}

template <class Platform>
std::optional<LatencyHistogram> PipelineCore<Platform>::latency(ShardId shard) const {
  const auto core = core_->find(shard);
  return core == nullptr ? std::nullopt : std::optional(AnyLane::of(*core).latency.read());
}

template <class Platform>
std::chrono::nanoseconds PipelineCore<Platform>::lag() const noexcept {
  const auto now = clock().now();
  auto oldest = now;
  const auto table = core_->topology.tables.peek();
  for (const auto& member : table->members) {
    const auto held = AnyLane::of(*member.core).held_since.load(std::memory_order_relaxed);
    if (held != 0) {
      oldest = std::min(oldest, Timestamp{held - 1});
    }
    if (const auto queued = member.core->oldest()) {
      oldest = std::min(oldest, *queued);
    }
  }
  return now.since_epoch() - oldest.since_epoch();
}

template <class Platform>
Health PipelineCore<Platform>::health() const {
  Health health;
  if (!is_forked()) {  // whose thread may have held the lock
    courier_.monitor.read(health);
  }
  health.adapter = slots_.front()->adapter->name();
  health.busy_workers = busy_workers();
  if (is_closed()) {
    health.state = HealthState::closed;
    return health;
  }
  const auto now = clock().now();
  const bool stuck = std::any_of(workers_.begin(), workers_.end(), [&](const auto& worker) {
    const auto since = worker->attempt_since.load(std::memory_order_relaxed);
    return since != 0 && now > Timestamp{since - 1}.after(options.attempt_timeout);
  });
  health.state = stuck                              ? HealthState::stuck
                 : health.consecutive_failures != 0 ? HealthState::retrying
                                                    : HealthState::healthy;
  return health;
}

}  // namespace shard::detail
