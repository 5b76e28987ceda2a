#pragma once

// The template's definitions; see shard_core_impl.hpp.

#include "shard/detail/scaler.hpp"
#include "shard/detail/topology_impl.hpp"

namespace shard::detail {

template <class Platform>
Scaler<Platform>::Scaler(Topology<Platform>& topology, const ManagerOptions& options,
                         const Clock& clock)
    : topology_(topology), clock_(clock) {
  if (options.scaling) {
    mapper_.emplace(*options.scaling);
  }
}

template <class Platform>
std::vector<ShardMetrics> Scaler<Platform>::metrics() const {
  if (topology_.tables.forked()) {
    return {};
  }
  const LockGuard lock(mutex_);
  return metrics_;
}

template <class Platform>
typename Scaler<Platform>::Advice Scaler<Platform>::evaluate(const SinkState& sink, bool act) {
  if (topology_.tables.forked()) {
    return {};
  }
  const LockGuard lock(mutex_);
  if (!mapper_) {
    return {{.limit = ScalingError::scaling_disabled}, false};
  }
  if (const auto policy = topology_.policy(); *policy != mapper_->policy()) {
    mapper_->set_policy(*policy);  // validated when it was set
  }
  const auto now = clock_.now();
  const bool ended = !measured_ || now >= measured_->after(mapper_->policy().metrics_window);
  if (ended) {
    measure(*topology_.tables.peek(), now);
  } else if (!act || acted_) {
    return {};
  }
  acted_ = act;
  // Whoever changed a shard since then, the cooldown counts from there.
  if (const auto change = topology_.last_change()) {
    mapper_->note_change(*change);
  }
  return {mapper_->evaluate(metrics_, sink, now), true};
}

template <class Platform>
void Scaler<Platform>::measure(const Table& table, Timestamp now) {
  const auto window =
      measured_ ? static_cast<double>(now.nanoseconds - measured_->nanoseconds) / 1e9 : 0.0;
  const auto per_second = [window](std::uint64_t events) {
    return window > 0 ? static_cast<double>(events) / window : 0.0;
  };
  const auto mean = [](std::uint64_t sum, std::uint64_t count) {
    return std::chrono::nanoseconds{static_cast<std::int64_t>(count == 0 ? 0 : sum / count)};
  };
  std::vector<std::size_t> slots(table.members.size(), 0);
  for (const auto member : table.slots) {
    if (member != Table::kNoMember) {
      ++slots[member];
    }
  }

  std::vector<Sample> samples;
  std::vector<ShardMetrics> metrics;
  samples.reserve(table.members.size());
  metrics.reserve(table.members.size());
  for (std::size_t i = 0; i < table.members.size(); ++i) {
    Core& core = *table.members[i].core;
    const auto state = table.members[i].state;
    const auto found =
        std::find_if(samples_.begin(), samples_.end(),
                     [&core](const Sample& sample) { return sample.id == core.id(); });
    const bool known = found != samples_.end();
    const Sample before = known ? *found : Sample{core.id(), state, now, {}, 0, {}, {}};
    Sample sample{core.id(),           state,          state == before.state ? before.since : now,
                  core.push_costs(),   core.drained(), core.dispatch_stats(),
                  before.flush_latency};
    const auto pushed = sample.costs.pushed - before.costs.pushed;
    if (const auto batches = sample.dispatched.batches - before.dispatched.batches; batches != 0) {
      sample.flush_latency = (sample.dispatched.total_latency - before.dispatched.total_latency) /
                             static_cast<std::int64_t>(batches);
    }

    ShardMetrics shard;
    shard.id = core.id();
    shard.state = state;
    shard.queued = core.length();
    shard.fill_events =
        static_cast<double>(shard.queued) / static_cast<double>(core.usable_capacity());
    shard.fill_bytes = core.fill_of_bytes();
    shard.events_per_second = known ? per_second(pushed) : 0;
    shard.drained_per_second = known ? per_second(sample.drained - before.drained) : 0;
    // Every wait is known, and what a push costs without one from the sampled few.
    shard.push_latency = mean(sample.costs.waited_ns - before.costs.waited_ns, pushed) +
                         mean(sample.costs.sampled_ns - before.costs.sampled_ns,
                              sample.costs.sampled - before.costs.sampled);
    shard.flush_latency = sample.flush_latency;
    if (const auto oldest = core.oldest(); oldest && *oldest < now) {
      shard.queue_age = now.since_epoch() - oldest->since_epoch();
    }
    shard.in_state_for = now.since_epoch() - sample.since.since_epoch();
    shard.delivering = core.in_batch() != 0;
    shard.slot_share = static_cast<double>(slots[i]) / static_cast<double>(table.slots.size());
    samples.push_back(sample);
    metrics.push_back(shard);
  }
  samples_.swap(samples);
  metrics_.swap(metrics);
  measured_ = now;
}

template <class Platform>
std::vector<double> Scaler<Platform>::slot_load(const Table& table) const {
  std::vector<double> load(table.slots.size(), 0.0);
  for (const auto& member : table.members) {
    const auto found = std::find_if(
        metrics_.begin(), metrics_.end(),
        [&member](const ShardMetrics& shard) { return shard.id == member.core->id(); });
    if (found == metrics_.end() || member.state != ShardState::active) {
      continue;
    }
    // A sampled slot may have moved to another shard since; then the sample says nothing any more. What the shard was
    // measured to take belongs to the slots that it has: a load that vanished with old samples would draw slots here.
    const auto sampled = member.core->sampled_slots();
    const auto is_here = [&](std::uint16_t slot) {
      return slot < load.size() && table.slots[slot] != Table::kNoMember &&
             table.members[table.slots[slot]].core == member.core;
    };
    if (const auto here = std::count_if(sampled.begin(), sampled.end(), is_here); here != 0) {
      for (const auto slot : sampled) {
        if (is_here(slot)) {
          load[slot] += found->events_per_second / static_cast<double>(here);
        }
      }
    } else if (found->slot_share > 0) {
      const auto slots = found->slot_share * static_cast<double>(load.size());
      for (std::size_t slot = 0; slot < load.size(); ++slot) {
        if (is_here(static_cast<std::uint16_t>(slot))) {
          load[slot] = found->events_per_second / slots;
        }
      }
    }
  }
  return load;
}

template <class Platform>
typename Scaler<Platform>::Moved Scaler<Platform>::move_slots(const SinkState& sink) {
  if (topology_.tables.forked()) {
    return {};
  }
  const LockGuard lock(mutex_);
  Moved moved;
  if (!mapper_) {
    return moved;
  }
  const auto table = topology_.tables.peek();
  const auto max_moves = table->slots.size() / kSlotsPerTick;
  if (topology_.routing() == Routing::balanced) {
    std::vector<std::uint16_t> members;
    std::vector<double> weights;
    for (std::size_t i = 0; i < table->members.size(); ++i) {
      const auto& member = table->members[i];
      if (member.state == ShardState::active) {
        const auto found = std::find_if(
            metrics_.begin(), metrics_.end(),
            [&member](const ShardMetrics& shard) { return shard.id == member.core->id(); });
        members.push_back(static_cast<std::uint16_t>(i));
        weights.push_back(found == metrics_.end() ? 1.0 : mapper_->weight_of(*found));
      }
    }
    moved.slots = topology_.balance(table->version, members, weights, max_moves, slot_load(*table));
    return moved;
  }
  const auto now = clock_.now();
  if (const auto advice = mapper_->rebalance(metrics_, sink, now)) {
    const auto before = table->version;
    if (topology_.move_hot(advice->from, advice->to, slot_load(*table), max_moves) &&
        topology_.tables.version() != before) {
      mapper_->note_rebalance(now);
      moved.hot = advice;
    }
  }
  return moved;
}

}  // namespace shard::detail
