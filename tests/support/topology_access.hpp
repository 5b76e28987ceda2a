#pragma once

#include <cstdint>
#include <utility>

#include "shard/detail/topology.hpp"

namespace shard::detail {

struct TopologyTestAccess {
  template <class Platform>
  static void set_next_id(Topology<Platform>& topology, std::uint64_t id) {
    const LockGuard lock(topology.mutex_);
    topology.next_id_ = id;
  }

  /// Moves slots as no change that the library offers does.
  template <class Platform, class Change>
  static void move(Topology<Platform>& topology, const Change& change) {
    const LockGuard lock(topology.mutex_);
    const auto table = topology.tables.peek();
    auto next = topology.next_of(*table);
    change(next->slots);
    topology.publish_moved(*table, std::move(next));
  }
};

}  // namespace shard::detail
