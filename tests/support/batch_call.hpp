#pragma once

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "shard/detail/manager_core_impl.hpp"
#include "shard/event.hpp"
#include "support/elastic.hpp"
#include "support/scripted_clock.hpp"
#include "support/topology_access.hpp"

namespace shard_test {

/// A batch call of three chunks for two shards, of which the first has room for two events only.
struct BatchCall {
  using Core = shard::detail::ManagerCore<shard::detail::SystemPlatform>;
  using Outcome = shard::Outcome;

  static constexpr std::size_t kChunk = Core::Core::kEventsPerHold;
  static constexpr std::size_t kEvents = 3 * kChunk;

  /// Slots of the first and of the second shard.
  static constexpr std::uint16_t kMoved = 0;
  static constexpr std::uint16_t kStays = 1;
  static constexpr std::uint16_t kOther = 4095;

  static shard::ManagerOptions options(const ScriptedClock& clock) {
    auto options = elastic_options(shard::Routing::keyed, 2, 1, 2, &clock, 2048);
    options.backpressure = shard::Backpressure::fail_producer();
    return options;
  }

  BatchCall() : core(options(clock)) {
    const auto& shard = *core.find(shard::ShardId{0});
    while (shard.length() + 2 < shard.usable_capacity()) {
      REQUIRE(core.admit({"x", {}, {}}, kMoved, core.topology.tables.cached()) ==
              Outcome::accepted);
    }
  }

  void set(std::size_t event, std::uint16_t slot) { slots[event] = slot; }

  /// Makes the call. `between` comes when the first chunk is done and the second one is about to be pushed.
  void run(const std::function<void()>& between) {
    std::vector<shard::RawEvent> events;
    for (const std::uint64_t slot : slots) {
      events.push_back(
          shard::RawEvent::with_hash("x", slot << core.slot_shift, core.hasher.seed()));
    }
    std::size_t readings = 0;
    clock.on_reading([&] {
      if (++readings == 2) between();
    });
    accepted = core.ingest_raw_batch(events, outcomes);
    clock.on_reading({});
  }

  /// One slot goes to the other shard.
  void move(std::uint16_t slot) {
    shard::detail::TopologyTestAccess::move(core.topology, [slot](auto& all) { all[slot] = 1; });
  }

  [[nodiscard]] Outcome of(std::size_t event) const { return outcomes[event]; }
  [[nodiscard]] shard::Ledger ledger(std::uint32_t shard) const {
    return core.find(shard::ShardId{shard})->ledger();
  }

  ScriptedClock clock;
  Core core;
  std::vector<std::uint16_t> slots = std::vector(kEvents, kOther);
  std::vector<Outcome> outcomes = std::vector(kEvents, Outcome::unrouted);
  std::size_t accepted = 0;
};

}  // namespace shard_test
