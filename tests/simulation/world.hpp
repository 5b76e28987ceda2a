#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace shard_test {

/// How much shards come and go in a simulated world.
enum class ShardLife {
  by_seed,  ///< as one of the others; the seed says which
  any,      ///< perhaps not at all
  churn,    ///< all the time, with keyed routing
};

/// What happened in simulated worlds, summed over them, so that one sees that they are not idle.
struct SimulationTotals {
  std::uint64_t steps = 0;
  std::uint64_t offered = 0;    ///< events
  std::uint64_t accepted = 0;   ///< of those
  std::uint64_t delivered = 0;  ///< of those
  std::uint64_t attempts = 0;   ///< calls of the adapter
  std::uint64_t refusals = 0;   ///< attempts that were answered with anything but delivered()
  std::uint64_t throws = 0;     ///< of those, by an exception
  std::uint64_t hangs = 0;  ///< attempts that took longer than they may, and were seen to be stuck
  std::uint64_t reentries = 0;  ///< calls of the pipeline from within the adapter or a handler
  std::uint64_t waits = 0;      ///< of producers for room, in which others went on
  std::uint64_t jumps = 0;      ///< of the clock, forwards by an hour or more, or backwards
  std::uint64_t changes = 0;    ///< of shards that an operator asked for
  std::uint64_t flushes = 0;
  std::uint64_t closes = 0;  ///< before the end

  SimulationTotals& operator+=(const SimulationTotals& other) noexcept;
};

/// The totals as text, one line.
[[nodiscard]] std::string to_string(const SimulationTotals& totals);

struct SimulationFailure {
  std::string what;      ///< the invariant that does not hold
  std::size_t step = 0;  ///< after how many steps
  std::vector<std::string>
      trace;  ///< a line for each of the last steps, and for what happened in it
};

struct Simulation {
  static constexpr std::size_t kTraced = 30;  ///< steps

  std::uint64_t seed = 0;
  std::size_t steps = 100;
  ShardLife shards = ShardLife::by_seed;
  bool traced = false;  ///< slower; what happens is the same
};

/// A pipeline that its host drives, in a world made of a seed: producers, an adapter with every kind of fault, time that
/// passes in steps and jumps, shards that come and go, flushes, and a close at a random moment or at the end. It keeps its
/// own books of each event and compares them with everything that the pipeline says, after each step.
///
/// Everything happens on one thread, and what happens depends on `simulation` only. Where a thread of the library would
/// sleep, which here only a producer does that waits for room, others go on in its place.
///
/// \return  what went wrong, if anything did
/// Threads: any number of worlds at once.
[[nodiscard]] std::optional<SimulationFailure> simulate(const Simulation& simulation,
                                                        SimulationTotals& totals);

}  // namespace shard_test
