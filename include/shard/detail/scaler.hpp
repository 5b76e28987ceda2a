#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "shard/detail/annotations.hpp"
#include "shard/detail/topology.hpp"
#include "shard/mapper.hpp"
#include "shard/scaling.hpp"

namespace shard::detail {

/// Measures the shards once per metrics window, asks the Mapper what to do, and moves slots as routing wants it. It
/// changes no shard: the manager executes decisions, since callbacks of the host run in between.
///
/// Threads: any; serialised by mutex_, which comes before the topology's.
template <class Platform>
class Scaler {
 public:
  using Core = ShardCore<Platform>;
  using Table = RoutingTable<Platform>;

  Scaler(Topology<Platform>& topology, const ManagerOptions& options, const Clock& clock);

  /// The shards as they were at the end of the last window. Measures nothing anew.
  [[nodiscard]] std::vector<ShardMetrics> metrics() const SHARD_EXCLUDES(mutex_);

  struct Advice {
    ScalingDecision decision;
    bool fresh = false;  ///< there is a window that nobody asked about before
  };
  /// What to do now. Throws std::bad_alloc.
  /// \param act  the caller will do it. Who only asks takes nothing away: the window that he has closed is new to who
  ///             acts.
  [[nodiscard]] Advice evaluate(const SinkState& sink, bool act) SHARD_EXCLUDES(mutex_);

  struct Moved {
    std::size_t slots = 0;
    std::optional<Rebalance> hot = std::nullopt;
  };
  /// Balanced routing: a step towards even load. Keyed: hot slots of a shard that stays overloaded go to a cold one.
  /// To be called once after each fresh evaluate(). Throws std::bad_alloc.
  Moved move_slots(const SinkState& sink) SHARD_EXCLUDES(mutex_);

  /// One tick of balanced routing moves no more than this part of all slots.
  static constexpr std::size_t kSlotsPerTick = 32;

 private:
  friend struct ScalerTestAccess;

  /// A shard at the end of a window: what the next one is compared with.
  struct Sample {
    ShardId id;
    ShardState state{};
    Timestamp since;  ///< in that state
    typename Core::PushCosts costs;
    std::uint64_t drained = 0;
    DispatchStats dispatched;
    std::chrono::nanoseconds flush_latency{0};
  };

  void measure(const Table& table, Timestamp now) SHARD_REQUIRES(mutex_);
  /// Events per second of each slot, from the sampled pushes.
  [[nodiscard]] std::vector<double> slot_load(const Table& table) const SHARD_REQUIRES(mutex_);

  Topology<Platform>& topology_;
  const Clock& clock_;
  mutable BasicMutex<Platform> mutex_;
  std::optional<Mapper> mapper_ SHARD_GUARDED_BY(mutex_);  ///< none in a static manager
  std::optional<Timestamp> measured_ SHARD_GUARDED_BY(mutex_);
  bool acted_ SHARD_GUARDED_BY(mutex_) = false;  ///< on what was measured then
  std::vector<Sample> samples_ SHARD_GUARDED_BY(mutex_);
  std::vector<ShardMetrics> metrics_ SHARD_GUARDED_BY(mutex_);
};

}  // namespace shard::detail
