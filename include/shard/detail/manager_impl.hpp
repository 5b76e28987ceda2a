#pragma once

// The parts of BasicManager that are not on a hot path; see shard_core_impl.hpp.

#include "shard/detail/manager_core_impl.hpp"
#include "shard/manager.hpp"

namespace shard {

template <class Platform>
std::vector<ShardId> BasicManager<Platform>::shard_ids() const {
  const auto table = core_->topology.tables.peek();
  std::vector<ShardId> ids;
  ids.reserve(table->members.size());
  for (const auto& member : table->members) {
    ids.push_back(member.core->id());
  }
  return ids;
}

template <class Platform>
std::vector<ShardId> BasicManager<Platform>::active_shard_ids() const {
  const auto table = core_->topology.tables.peek();
  std::vector<ShardId> ids;
  for (const auto index : table->active()) {
    ids.push_back(table->members[index].core->id());
  }
  return ids;
}

template <class Platform>
std::size_t BasicManager<Platform>::remove_stopped_shards() {
  std::size_t gone = 0;
  const auto table = core_->topology.tables.peek();
  for (const auto& member : table->members) {
    EventBatch none;
    if (member.state == ShardState::stopped && remove_shard(member.core->id(), none)) {
      ++gone;
    }
  }
  return gone;
}

template <class Platform>
ScalingReport BasicManager<Platform>::execute(const ScalingDecision& decision) {
  detail::check_not_in_with_shard();
  ScalingReport report{.decision = decision};
  if (decision.kind == ScalingKind::scale_up) {
    while (report.added.size() < decision.count) {
      report.added.reserve(report.added.size() + 1);
      const auto made = core_->topology.add(true);  // whoever decided has kept the cooldown
      auto active = made;
      if (made) {
        try {
          core_->shard_callbacks.call(&ShardCallbacks::added, *made);
          active = core_->topology.activate(*made);
        } catch (...) {
          // Nobody else knows of it, and it would hold its place for ever.
          EventBatch none;
          static_cast<void>(core_->topology.remove(*made, none, true));
          throw;
        }
      }
      if (!active) {
        report.error = active.error();
        break;
      }
      report.added.push_back(*made);
    }
  } else if (decision.kind == ScalingKind::scale_down) {
    for (const auto id : decision.shards) {
      if (const auto drained = drain_shard(id); drained) {
        report.draining.push_back(id);
      } else {
        report.error = drained.error();
      }
    }
  }
  return report;
}

template <class Platform>
ScalingReport BasicManager<Platform>::run_scaling(const SinkState& sink) {
  detail::check_not_in_with_shard();
  const auto advice = core_->scaler.evaluate(sink, true);
  if (!advice.fresh) {
    return {.decision = advice.decision};
  }
  ScalingReport report{.decision = advice.decision};
  if (const auto policy = scaling_policy(); policy && policy->auto_scale) {
    report = execute(advice.decision);
  }
  report.measured = true;
  finalize_draining();
  report.removed = remove_stopped_shards();
  const auto moved = core_->scaler.move_slots(sink);
  report.slots_moved = moved.slots;
  report.rebalanced = moved.hot;
  return report;
}

template <class Platform>
std::size_t BasicManager<Platform>::total_pending_in_rings() const noexcept {
  std::size_t total = 0;
  const auto table = core_->topology.tables.peek();
  for (const auto& member : table->members) {
    total += member.core->length();
  }
  return total;
}

template <class Platform>
std::optional<std::size_t> BasicManager<Platform>::try_total_pending_in_rings() const noexcept {
  // Counters only grow. If each has the same value in a second pass as in the first, each had it for
  // the whole time in between, so the sum was true at the moment where the passes met.
  const auto table = core_->topology.tables.peek();
  const auto pass = [&table] {
    std::uint64_t moves = 0;
    std::uint64_t pending = 0;
    for (const auto& member : table->members) {
      const auto at = member.core->positions();
      moves += at.pushed + at.head;
      pending += at.pushed - at.head;
    }
    return std::pair(moves, pending);
  };
  const auto first = pass();
  return first == pass() ? std::optional<std::size_t>(first.second) : std::nullopt;
}

template <class Platform>
Stats BasicManager<Platform>::stats() const noexcept {
  const auto table = core_->topology.tables.read();
  // Sums in registers: in the result, where the compiler would keep them, each addition waits for the last one's store.
  const auto& base = table->base;
  auto ingested = base.accepted;
  auto dropped = base.dropped_newest + base.sampled_out + base.evicted;
  auto dispatched = base.returned + base.delivered;
  for (const auto& member : table->members) {
    const auto stats = member.core->stats();
    ingested += stats.events_ingested;
    dropped += stats.events_dropped;
    dispatched += stats.events_dispatched;
  }
  return {ingested, dropped, dispatched};
}

template <class Platform>
Ledger BasicManager<Platform>::ledger() const noexcept {
  auto total = core_->own_counts();
  const auto table = core_->topology.tables.read();
  total += table->base;
  for (const auto& member : table->members) {
    member.core->add_to(total);
  }
  return total;
}

}  // namespace shard
