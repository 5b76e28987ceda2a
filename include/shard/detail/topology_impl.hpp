#pragma once

// The template's definitions; see shard_core_impl.hpp.

#include <cstring>
#include <limits>
#include <string>

#include "shard/detail/shard_core_impl.hpp"
#include "shard/detail/topology.hpp"

namespace shard::detail {

template <class Platform>
Topology<Platform>::Topology(const ManagerOptions& options, const Clock& clock,
                             const Consumer<Platform>* consumer)
    : tables(first_table(options, clock, consumer), Table::without_members(options)),
      options_(options),
      clock_(clock),
      consumer_(consumer),
      policy_(options.scaling),
      next_id_(options.shards) {}

template <class Platform>
std::shared_ptr<const RoutingTable<Platform>> Topology<Platform>::first_table(
    const ManagerOptions& options, const Clock& clock, const Consumer<Platform>* consumer) {
  auto table = std::make_shared<Table>();
  table->members.reserve(options.shards);
  for (std::uint32_t id = 0; id < options.shards; ++id) {
    table->members.push_back(
        {std::make_shared<Core>(ShardId{id}, options, clock, consumer), ShardState::active});
  }
  table->slots = slot_plan::even(Table::slots_for(options), table->active());
  return table;
}

template <class Platform>
std::optional<ScalingError> Topology<Platform>::refusal() const noexcept {
  if (!policy_) {
    return ScalingError::scaling_disabled;
  }
  return closed_ ? std::optional(ScalingError::closed) : std::nullopt;
}

template <class Platform>
Result<std::uint16_t, ScalingError> Topology<Platform>::changeable(const Table& table,
                                                                   ShardId id) const noexcept {
  if (const auto refused = refusal()) {
    return Unexpected{*refused};
  }
  const auto index = table.index_of(id);
  if (index == Table::kNoMember) {
    return Unexpected{ScalingError::unknown_shard};
  }
  return index;
}

template <class Platform>
std::shared_ptr<RoutingTable<Platform>> Topology<Platform>::next_of(const Table& table) const {
  auto next = std::make_shared<Table>(table);
  ++next->version;
  return next;
}

template <class Platform>
void Topology<Platform>::publish(std::shared_ptr<Table> next) {
  tables.prepare_to_publish();
  tables.publish(std::move(next));
  tell();
}

template <class Platform>
void Topology<Platform>::tell() const noexcept {
  if (consumer_ != nullptr) {
    consumer_->queue->progress.notify_all();
  }
}

template <class Platform>
typename Topology<Platform>::Done Topology<Platform>::add(bool force) {
  if (tables.forked()) {
    return Unexpected{ScalingError::closed};
  }
  const LockGuard lock(mutex_);
  if (const auto refused = refusal()) {
    return Unexpected{*refused};
  }
  const auto table = tables.peek();
  const auto taken = table->count(ShardState::active) + table->count(ShardState::provisioning);
  if (taken >= policy_->max_shards || table->members.size() >= Table::kMaxMembers) {
    return Unexpected{ScalingError::at_max};
  }
  const auto now = clock_.now();
  if (!force && last_change_ && now < last_change_->after(policy_->cooldown)) {
    return Unexpected{ScalingError::cooldown};
  }
  if (next_id_ > std::numeric_limits<decltype(ShardId::value)>::max()) {
    return Unexpected{ScalingError::ids_exhausted};
  }
  const ShardId id{static_cast<decltype(ShardId::value)>(next_id_)};
  auto next = next_of(*table);
  next->members.push_back(
      {std::make_shared<Core>(id, options_, clock_, consumer_, true), ShardState::provisioning});
  publish(std::move(next));
  ++next_id_;
  last_change_ = now;
  return id;
}

template <class Platform>
typename Topology<Platform>::Done Topology<Platform>::activate(ShardId id) {
  if (tables.forked()) {
    return Unexpected{ScalingError::closed};
  }
  const LockGuard lock(mutex_);
  const auto table = tables.peek();
  const auto found = changeable(*table, id);
  if (!found) {
    return Unexpected{found.error()};
  }
  const auto index = *found;
  auto& member = table->members[index];
  if (member.state == ShardState::active) {
    return id;
  }
  if (member.state != ShardState::provisioning) {
    return Unexpected{ScalingError::wrong_state};
  }
  auto next = next_of(*table);
  next->members[index].state = ShardState::active;
  // Balanced routing only opens the door: balance() ramps the newcomer up. Someone has to have the slots, though.
  const auto active = table->active();
  if (active.empty() || routing() == Routing::keyed) {
    next->slots = slot_plan::join(table->slots, active, index);
  }
  publish_moved(*table, std::move(next));
  last_change_ = clock_.now();
  return id;
}

template <class Platform>
typename Topology<Platform>::Done Topology<Platform>::drain(ShardId id) {
  if (tables.forked()) {
    return Unexpected{ScalingError::closed};
  }
  const LockGuard lock(mutex_);
  const auto table = tables.peek();
  const auto found = changeable(*table, id);
  if (!found) {
    return Unexpected{found.error()};
  }
  const auto index = *found;
  return drain_locked(*table, index);
}

template <class Platform>
typename Topology<Platform>::Done Topology<Platform>::drain_locked(const Table& table,
                                                                   std::uint16_t index) {
  const auto& member = table.members[index];
  if (member.state != ShardState::active) {
    return Unexpected{ScalingError::wrong_state};
  }
  if (table.count(ShardState::active) <= policy_->min_shards) {
    return Unexpected{ScalingError::at_min};
  }
  auto next = next_of(table);
  next->members[index].state = ShardState::draining;
  next->slots = slot_plan::leave(table.slots, index, next->active());
  publish_moved(table, std::move(next));
  last_change_ = clock_.now();
  return member.core->id();
}

template <class Platform>
void Topology<Platform>::publish_moved(const Table& table, std::shared_ptr<Table> next) {
  // Which shards lose slots to which: one fence for each such pair.
  struct Pair {
    std::uint16_t from;
    std::uint16_t to;
    std::unique_ptr<Fence<Platform>> fence;
    Fence<Platform>* placed;
  };
  std::vector<Pair> pairs;
  std::vector<std::uint16_t> sources;
  if (routing() == Routing::keyed) {
    std::vector<std::uint32_t> moves;  // from in the upper half, to in the lower
    std::vector<std::uint16_t> last_to(next->members.size(), Table::kNoMember);
    std::vector<std::uint16_t> last_from(next->members.size(), Table::kNoMember);
    constexpr std::size_t kStride = 4;  // most slots stay: four at a time are compared as one word
    for (std::size_t first = 0; first < table.slots.size(); first += kStride) {
      if (std::memcmp(&table.slots[first], &next->slots[first], kStride * sizeof(std::uint16_t)) ==
          0) {
        continue;
      }
      for (std::size_t slot = first; slot < first + kStride; ++slot) {
        const auto from = table.slots[slot];
        const auto to = next->slots[slot];
        if (from == to || from == Table::kNoMember || to == Table::kNoMember) {
          continue;
        }
        // A change has one newcomer or one leaver, so one of these finds nearly every pair that is known.
        if (last_to[from] != to && last_from[to] != from) {
          moves.push_back(std::uint32_t{from} << 16U | to);
        }
        last_to[from] = to;
        last_from[to] = from;
      }
    }
    std::sort(moves.begin(), moves.end());
    moves.erase(std::unique(moves.begin(), moves.end()), moves.end());
    pairs.reserve(moves.size());
    for (const auto move : moves) {
      const auto from = static_cast<std::uint16_t>(move >> 16U);
      auto fence = std::make_unique<Fence<Platform>>(table.members[from].core);
      auto* const placed = fence.get();
      pairs.push_back({from, static_cast<std::uint16_t>(move), std::move(fence), placed});
      if (sources.empty() || sources.back() != from) {
        sources.push_back(from);
      }
    }
  }
  for (std::size_t i = 0; i < next->members.size(); ++i) {
    const auto index = static_cast<std::uint16_t>(i);
    const bool leaves = next->members[i].state == ShardState::draining &&
                        table.members[i].state == ShardState::active;
    if (leaves && std::find(sources.begin(), sources.end(), index) == sources.end()) {
      sources.push_back(index);
    }
  }
  tables.prepare_to_publish();

  // From here on nothing fails.
  for (std::size_t i = 0; i < next->members.size(); ++i) {
    if (next->members[i].state == ShardState::active &&
        table.members[i].state == ShardState::provisioning) {
      next->members[i].core->open();  // before anybody can find it
    }
  }
  for (auto& pair : pairs) {  // 1
    next->members[pair.to].core->place_fence(std::move(pair.fence));
  }
  const auto& published = *next;
  const auto version = published.version;
  const auto kept = std::shared_ptr<const Table>(std::move(next));
  tables.publish(kept);                // 2
  for (const auto source : sources) {  // 3
    const bool closes = published.members[source].state != ShardState::active;
    const auto tail =
        published.members[source].core->raise_min_version(closes ? Core::kClosed : version);
    for (auto& pair : pairs) {
      if (pair.from == source) {
        pair.placed->until.store(tail,
                                 std::memory_order_release);  // [fence.until] -> pass_fences()
      }
    }
  }
  if (consumer_ != nullptr) {
    // What a source still holds is waited for: by whoever drains it, and by the destinations of its slots.
    for (const auto source : sources) {
      static_cast<void>(published.members[source].core->request_flush());
    }
    if (!pairs.empty()) {
      consumer_->queue->moved();  // a destination may have been looked at between 1 and 3
    }
  }
  tell();
}

template <class Platform>
std::size_t Topology<Platform>::finalize_draining() {
  if (tables.forked()) {
    return 0;
  }
  const LockGuard lock(mutex_);
  const auto table = tables.peek();
  std::vector<std::size_t> drained;
  for (std::size_t i = 0; i < table->members.size(); ++i) {
    auto& core = *table->members[i].core;
    if (table->members[i].state == ShardState::draining && core.is_drained() &&
        core.leave_queue()) {
      drained.push_back(i);
    }
  }
  if (!drained.empty()) {
    auto next = next_of(*table);
    for (const auto i : drained) {
      next->members[i].state = ShardState::stopped;
    }
    publish(std::move(next));
    for (const auto i : drained) {
      table->members[i].core->retire();
    }
  }
  return drained.size();
}

template <class Platform>
typename Topology<Platform>::Done Topology<Platform>::remove(ShardId id, EventBatch& queued,
                                                             bool rollback) {
  if (tables.forked()) {
    return Unexpected{ScalingError::closed};
  }
  const LockGuard lock(mutex_);
  auto table = tables.peek();
  const auto found = changeable(*table, id);
  if (!found) {
    return Unexpected{found.error()};
  }
  const auto index = *found;
  auto& core = *table->members[index].core;
  if (rollback && table->members[index].state != ShardState::provisioning) {
    return Unexpected{ScalingError::wrong_state};
  }
  if (table->members[index].state == ShardState::active) {
    if (const auto drained = drain_locked(*table, index); !drained) {
      return drained;
    }
    table = tables.peek();
  }
  if (table->members[index].state == ShardState::draining) {
    core.pop(queued, std::numeric_limits<std::size_t>::max(),
             std::numeric_limits<std::size_t>::max());
    if (!core.is_drained()) {
      return Unexpected{ScalingError::fenced};
    }
  }
  if (!core.leave_queue()) {
    return Unexpected{ScalingError::fenced};
  }
  drop_member(*table, index);
  last_change_ = clock_.now();
  return id;
}

template <class Platform>
void Topology<Platform>::drop_member(const Table& table, std::uint16_t index) {
  auto next = next_of(table);
  next->members.erase(next->members.begin() + index);
  for (auto& slot : next->slots) {
    if (slot != Table::kNoMember && slot > index) {
      --slot;
    }
  }
  tables.prepare_to_publish();
  const auto& core = table.members[index].core;
  core->retire();
  next->base += core->ledger();  // final: nothing can be pushed, popped or waited for here any more
  tables.publish(std::move(next));
  tell();
}

template <class Platform>
std::size_t Topology<Platform>::balance(std::uint64_t version,
                                        std::span<const std::uint16_t> members,
                                        std::span<const double> weights, std::size_t max_moves,
                                        std::span<const double> slot_load) {
  if (tables.forked()) {
    return 0;
  }
  const LockGuard lock(mutex_);
  const auto table = tables.peek();
  if (refusal() || table->version != version || routing() != Routing::balanced) {
    return 0;
  }
  auto next = next_of(*table);
  next->slots = slot_plan::balance(table->slots, members, weights, max_moves, slot_load);
  std::size_t moved = 0;
  for (std::size_t slot = 0; slot < next->slots.size(); ++slot) {
    moved += next->slots[slot] != table->slots[slot] ? 1U : 0U;
  }
  if (moved != 0) {
    publish(std::move(next));  // a late producer still finds the shard that lost the slot active
  }
  return moved;
}

template <class Platform>
typename Topology<Platform>::Done Topology<Platform>::move_hot(ShardId from, ShardId to,
                                                               std::span<const double> slot_load,
                                                               std::size_t max_moves) {
  if (tables.forked()) {
    return Unexpected{ScalingError::closed};
  }
  const LockGuard lock(mutex_);
  if (const auto refused = refusal()) {
    return Unexpected{*refused};
  }
  const auto table = tables.peek();
  const auto source = table->index_of(from);
  const auto destination = table->index_of(to);
  if (source == Table::kNoMember || destination == Table::kNoMember) {
    return Unexpected{ScalingError::unknown_shard};
  }
  if (source == destination || table->members[source].state != ShardState::active ||
      table->members[destination].state != ShardState::active) {
    return Unexpected{ScalingError::wrong_state};
  }
  const auto moves = slot_plan::hot_moves(table->slots, slot_load, source, destination, max_moves);
  if (!moves.empty()) {
    auto next = next_of(*table);
    for (const auto slot : moves) {
      next->slots[slot] = destination;
    }
    publish_moved(*table, std::move(next));
  }
  return to;
}

template <class Platform>
std::optional<ScalingPolicy> Topology<Platform>::policy() const {
  if (tables.forked()) {
    return std::nullopt;
  }
  const LockGuard lock(mutex_);
  return policy_;
}

template <class Platform>
std::optional<ScalingError> Topology<Platform>::set_policy(const ScalingPolicy& policy) {
  policy.validate();
  if (tables.forked()) {
    return ScalingError::closed;
  }
  const LockGuard lock(mutex_);
  if (const auto refused = refusal()) {
    return refused;
  }
  // The number of slots is fixed, and each shard is to have sixteen of them.
  if (const auto most = tables.peek()->slots.size() / 16; policy.max_shards > most) {
    throw ConfigError(
        "scaling.max_shards", std::to_string(policy.max_shards),
        "at most " + std::to_string(most) + " in a manager that was made with so many slots");
  }
  // The bounds hold at any time, so whoever wants others has to get within them first.
  const auto active = tables.peek()->count(ShardState::active);
  if (active + tables.peek()->count(ShardState::provisioning) > policy.max_shards) {
    return ScalingError::at_max;
  }
  if (active < policy.min_shards) {
    return ScalingError::at_min;
  }
  policy_ = policy;
  tell();
  return std::nullopt;
}

template <class Platform>
std::optional<Timestamp> Topology<Platform>::last_change() const {
  if (tables.forked()) {
    return std::nullopt;
  }
  const LockGuard lock(mutex_);
  return last_change_;
}

template <class Platform>
void Topology<Platform>::close() noexcept {
  const LockGuard lock(mutex_);
  closed_ = true;
  const auto table = tables.peek();
  for (const auto& member : table->members) {
    member.core->raise_min_version(Core::kClosed);
  }
}

template <class Platform>
void Topology<Platform>::retire() noexcept {
  close();
  const auto table = tables.peek();
  for (const auto& member : table->members) {
    member.core->retire();
  }
}

}  // namespace shard::detail
