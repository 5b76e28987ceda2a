// A pipeline that its host drives, in a world made of a seed; see simulation/world.hpp. tests/simulate runs more of them.

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <string>

#include "simulation/world.hpp"

namespace {

using shard_test::ShardLife;
using shard_test::Simulation;
using shard_test::SimulationTotals;

void run(std::uint64_t seed, std::size_t steps, ShardLife shards, SimulationTotals& totals) {
  Simulation simulation{.seed = seed, .steps = steps, .shards = shards};
  if (!shard_test::simulate(simulation, totals)) return;
  simulation.traced = true;
  const auto again = shard_test::simulate(simulation, totals);
  REQUIRE(again);  // a seed says everything
  std::string text =
      "seed " + std::to_string(seed) + ", step " + std::to_string(again->step) + ": " + again->what;
  for (const auto& line : again->trace) text += "\n" + line;
  FAIL(text);
}

}  // namespace

TEST_CASE("whatever the adapter answers and whenever, each event ends once, in order and counted",
          "[R-C1][R-F1][R-F7][R-G1][R-G3][R-G10][R-H2][R-I1][R-I2]") {
  SimulationTotals totals;
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    run(seed, 20 + seed % 100, ShardLife::any, totals);
  }
  // They are not idle.
  CHECK(totals.delivered > 10'000);
  CHECK(totals.throws > 1'000);
  CHECK(totals.waits > 500);
  CHECK(totals.jumps > 100);
  CHECK(totals.closes > 0);
}

TEST_CASE("keys keep their order and nothing stays behind while shards come and go all the time",
          "[R-D9][R-D15][R-E4][R-E5]") {
  SimulationTotals totals;
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    run(seed, 120, ShardLife::churn, totals);
  }
  CHECK(totals.changes > 10'000);
  CHECK(totals.delivered > 10'000);
}

TEST_CASE("the same seed makes the same world", "[R-G10]") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SimulationTotals first;
    SimulationTotals second;
    CHECK_FALSE(shard_test::simulate({.seed = seed}, first));
    CHECK_FALSE(shard_test::simulate({.seed = seed, .traced = true}, second));
    CHECK(to_string(first) == to_string(second));
  }
}
