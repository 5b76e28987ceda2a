// A whole life of a shard: add, activate, drain, remove, with rings of 1,024 events and 64 KiB, beside the time that
// one table takes to copy and to build anew. The memory of a shard is allocated and freed each time, as in real life.
#include <benchmark/benchmark.h>

#include "shard/manager.hpp"
#include "support/google_benchmark.hpp"

namespace {

shard::ManagerOptions options_for(std::size_t shards, shard::Routing routing) {
  shard::ScalingPolicy policy;
  policy.max_shards = shards + 1;
  return {.shards = shards,
          .ring_capacity = 1'024,
          .ring_bytes = std::size_t{64} << 10U,
          .max_payload = std::size_t{16} << 10U,
          .inline_max = std::size_t{16} << 10U,
          .scaling = policy,
          .routing = routing};
}

void life(benchmark::State& state, shard::Routing routing) {
  shard::Manager manager{options_for(static_cast<std::size_t>(state.range(0)), routing)};
  shard::EventBatch none;
  for (auto _ : state) {
    const auto id = manager.add_shard_force();
    if (!id || !manager.activate_shard(*id) || !manager.drain_shard(*id) ||
        !manager.remove_shard(*id, none)) {
      state.SkipWithError("a change was refused");
      break;
    }
  }
}
BENCHMARK_CAPTURE(life, balanced, shard::Routing::balanced)
    ->Name("Manager/add_activate_drain_remove/balanced/shards")
    ->Arg(16)
    ->Arg(512);
BENCHMARK_CAPTURE(life, keyed, shard::Routing::keyed)
    ->Name("Manager/add_activate_drain_remove/keyed/shards")
    ->Arg(16)
    ->Arg(512);

using Table = shard::detail::RoutingTable<shard::detail::SystemPlatform>;

/// What the table of so many members is made of, without their rings.
Table table_of(std::size_t members) {
  Table table;
  std::vector<std::uint16_t> active;
  for (std::size_t i = 0; i < members; ++i) {
    table.members.push_back({nullptr, shard::ShardState::active});
    active.push_back(static_cast<std::uint16_t>(i));
  }
  table.slots =
      shard::detail::slot_plan::even(Table::slots_for(shard::ManagerOptions::kMaxShards), active);
  return table;
}

void copy_table(benchmark::State& state) {
  const auto table = table_of(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    benchmark::DoNotOptimize(std::make_shared<const Table>(table));
  }
}
BENCHMARK(copy_table)->Name("RoutingTable/copy/shards")->Arg(16)->Arg(512);

void rebuild_table(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(table_of(static_cast<std::size_t>(state.range(0))));
  }
}
BENCHMARK(rebuild_table)->Name("RoutingTable/rebuild/shards")->Arg(16)->Arg(512);

}  // namespace

int main(int argc, char** argv) { return bench::run_google_benchmark(argc, argv); }
