#pragma once

// The parts of BasicManager that are not on a hot path; see shard_core_impl.hpp.

#include "shard/detail/manager_core_impl.hpp"
#include "shard/manager.hpp"

namespace shard {

template <class Platform>
std::vector<ShardId> BasicManager<Platform>::shard_ids() const {
  const auto table = core_->tables.peek();
  std::vector<ShardId> ids;
  ids.reserve(table->members.size());
  for (const auto& member : table->members) {
    ids.push_back(member->id());
  }
  return ids;
}

template <class Platform>
std::size_t BasicManager<Platform>::total_pending_in_rings() const noexcept {
  std::size_t total = 0;
  for (const auto& member : core_->tables.peek()->members) {
    total += member->length();
  }
  return total;
}

template <class Platform>
std::optional<std::size_t> BasicManager<Platform>::try_total_pending_in_rings() const noexcept {
  // Counters only grow. If each has the same value in a second pass as in the first, each had it for
  // the whole time in between, so the sum was true at the moment where the passes met.
  const auto table = core_->tables.peek();
  const auto pass = [&table] {
    std::uint64_t moves = 0;
    std::uint64_t pending = 0;
    for (const auto& member : table->members) {
      const auto at = member->positions();
      moves += at.pushed + at.head;
      pending += at.pushed - at.head;
    }
    return std::pair(moves, pending);
  };
  const auto first = pass();
  std::atomic_thread_fence(std::memory_order_acquire);  // the second pass reads after the first
  return first == pass() ? std::optional<std::size_t>(first.second) : std::nullopt;
}

template <class Platform>
Stats BasicManager<Platform>::stats() const noexcept {
  Stats total;
  for (const auto& member : core_->tables.peek()->members) {
    const auto stats = member->stats();
    total.events_ingested += stats.events_ingested;
    total.events_dropped += stats.events_dropped;
    total.events_dispatched += stats.events_dispatched;
  }
  return total;
}

template <class Platform>
Ledger BasicManager<Platform>::ledger() const noexcept {
  auto total = core_->own_counts();
  for (const auto& member : core_->tables.peek()->members) {
    total += member->ledger();
  }
  return total;
}

}  // namespace shard
