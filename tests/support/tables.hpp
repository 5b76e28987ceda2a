#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "shard/detail/routing_table.hpp"

namespace shard_test {

/// A table as a change would publish it: these shards, all active, with even shares of the slots.
template <class Platform>
shard::detail::RoutingTable<Platform> table_of(
    std::uint64_t version,
    const std::vector<std::shared_ptr<shard::detail::ShardCore<Platform>>>& cores,
    std::size_t slots) {
  shard::detail::RoutingTable<Platform> table;
  table.version = version;
  for (const auto& core : cores) {
    table.members.push_back({core, shard::ShardState::active});
  }
  table.slots = shard::detail::slot_plan::even(slots, table.active());
  return table;
}

}  // namespace shard_test
