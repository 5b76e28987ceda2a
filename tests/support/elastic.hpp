#pragma once

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shard/manager.hpp"
#include "shard/options.hpp"
#include "shard/scaling.hpp"
#include "support/options.hpp"

namespace shard_test {

/// Those in which the number of shards may change.
inline constexpr std::array kRoutings{shard::Routing::balanced, shard::Routing::keyed};

/// The error of a call that must fail.
[[nodiscard]] inline std::optional<shard::ScalingError> error_of(
    const shard::Result<shard::ShardId, shard::ScalingError>& done) {
  return done ? std::nullopt : std::optional(done.error());
}

/// Small shards whose number may change, by explicit calls only; no cooldown.
[[nodiscard]] inline shard::ManagerOptions elastic_options(
    shard::Routing routing, std::size_t shards, std::size_t min_shards, std::size_t max_shards,
    const shard::TimeSource* time = nullptr, std::size_t ring_capacity = 256) {
  auto options = small_options(shards, ring_capacity);
  options.ring_bytes = std::max<std::size_t>(4096, 32 * ring_capacity);
  options.routing = routing;
  options.time_source = time;
  options.scaling.emplace();
  options.scaling->min_shards = min_shards;
  options.scaling->max_shards = max_shards;
  options.scaling->auto_scale = false;
  options.scaling->cooldown = std::chrono::nanoseconds{0};
  return options;
}

/// What all the ways to ask for shards, states and counts say, compared with each other. With this nothing else is
/// known: any two that disagree are a failure.
template <class Manager>
void check_agreement(const Manager& manager) {
  const auto ids = manager.shard_ids();
  CHECK(std::is_sorted(ids.begin(), ids.end()));
  CHECK(std::adjacent_find(ids.begin(), ids.end()) == ids.end());
  CHECK(manager.num_shards() == ids.size());
  std::vector<shard::ShardId> active;
  std::size_t pending = 0;
  auto sum = manager.own_ledger();
  for (const auto id : ids) {
    const auto state = manager.shard_state(id);
    const auto handle = manager.shard(id);
    REQUIRE((state && handle));
    CHECK(handle->id() == id);
    if (*state == shard::ShardState::active) active.push_back(id);
    if (*state == shard::ShardState::stopped) CHECK(handle->is_empty());
    CHECK(handle->ledger().balanced());
    sum += handle->ledger();
    pending += handle->len();
  }
  CHECK(manager.active_shard_ids() == active);
  CHECK(manager.total_pending_in_rings() == pending);
  CHECK(manager.try_total_pending_in_rings() == pending);

  const auto total = manager.ledger();
  CHECK(total.balanced());
  CHECK(total.queued == pending);
  // What is in the total beyond the shards that there are is the base of the removed ones, where nothing is queued.
  CHECK(total.accepted - sum.accepted == (total.evicted - sum.evicted) +
                                             (total.returned - sum.returned) +
                                             (total.abandoned_queued - sum.abandoned_queued));
  CHECK(manager.stats().events_ingested == total.accepted);
  CHECK(manager.stats().events_dispatched == total.returned);
  CHECK(manager.stats().events_dropped == total.evicted + total.dropped_newest + total.sampled_out);

  if (const auto policy = manager.scaling_policy()) {
    CHECK(active.size() >= policy->min_shards);
    const auto provisioning = std::count_if(ids.begin(), ids.end(), [&](shard::ShardId id) {
      return manager.shard_state(id) == shard::ShardState::provisioning;
    });
    CHECK(active.size() + static_cast<std::size_t>(provisioning) <= policy->max_shards);
  }
  // Wherever a hash leads, it is to an active shard.
  for (std::uint64_t i = 0; i < 1024; ++i) {
    const auto selected = manager.select_shard_by_hash(i << 54U);
    REQUIRE(selected);
    REQUIRE(std::binary_search(active.begin(), active.end(), *selected));
  }
}

}  // namespace shard_test

template <>
struct Catch::StringMaker<shard::ShardState> {
  static std::string convert(shard::ShardState state) { return std::string(to_string(state)); }
};

template <>
struct Catch::StringMaker<shard::ScalingError> {
  static std::string convert(shard::ScalingError error) { return std::string(to_string(error)); }
};

template <>
struct Catch::StringMaker<shard::ShardId> {
  static std::string convert(shard::ShardId id) { return "shard " + std::to_string(id.value); }
};
