#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "shard/detail/export.hpp"
#include "shard/ids.hpp"
#include "shard/scaling.hpp"

namespace shard {

/// What delivers the events, as far as it matters for scaling. The default: nothing is known, as with a
/// manager whose host pops events itself.
struct SinkState {
  std::size_t workers = 0;                 ///< 0: unknown, or the host drives the deliveries
  std::size_t busy_workers = 0;            ///< in the adapter now
  std::uint32_t consecutive_failures = 0;  ///< since the last delivery that succeeded
};

/// How many shards there are, for budgets.
struct ShardCount {
  std::size_t active = 0;
  std::size_t provisioning = 0;
};

/// How much of a request is permitted; `limit` says why it is less than asked for.
struct Grant {
  std::size_t count = 0;
  std::optional<ScalingError> limit = std::nullopt;

  bool operator==(const Grant&) const = default;
};

/// Advice for keyed routing: slots of `from` should go to `to`.
struct Rebalance {
  ShardId from{};
  ShardId to{};

  bool operator==(const Rebalance&) const = default;
};

/// What came of a decision, or of a tick of Manager::run_scaling().
struct ScalingReport {
  ScalingDecision decision = {};
  bool measured = false;  ///< a metrics window had ended; run_scaling() does nothing otherwise
  std::vector<ShardId> added = {};                     ///< made and activated
  std::vector<ShardId> draining = {};                  ///< take no more events from now on
  std::optional<ScalingError> error = std::nullopt;    ///< why less was done than decided
  std::size_t removed = 0;                             ///< drained shards that were taken out
  std::size_t slots_moved = 0;                         ///< towards even load, balanced routing
  std::optional<Rebalance> rebalanced = std::nullopt;  ///< hot slots moved, keyed routing
};

/// Decides how many shards there should be. It reads no clock, takes no lock and changes no shard: what
/// it answers depends on the metrics, the policy, the time and a few values that it remembers from
/// earlier calls, so that a simulation and a manager get the same decisions.
///
/// Shards are added after most of them have been overloaded for a while, unless the backlog already
/// shrinks, or more shards would not be drained any faster. While they are overloaded their throughput
/// shows what a shard can do (its capacity). That is remembered, and shards are removed only if the
/// others stay below kUtilisation of it: what was needed once at this load is not taken away
/// again, so a steady load settles.
///
/// Threads: one at a time; its owner locks.
/// Memory:  allocates only the list of shards in a scale_down decision.
class SHARD_EXPORT Mapper {
 public:
  /// How much of the capacity of its shards a change plans to use.
  static constexpr double kUtilisation = 0.7;

  /// The weight of a shard that could not be worse off.
  static constexpr double kLeastWeight = 1.0 / 16;

  /// Throws ConfigError if the policy is not valid.
  explicit Mapper(const ScalingPolicy& policy);

  [[nodiscard]] const ScalingPolicy& policy() const noexcept { return policy_; }

  /// Delays begin anew; the cooldown goes on. Throws ConfigError, and changes nothing, if the policy is
  /// not valid.
  void set_policy(const ScalingPolicy& policy);

  /// What to do now; to be called once per metrics_window with the metrics of every shard, in whatever
  /// state. O(shards). A decision is repeated until note_change() tells that it was executed.
  [[nodiscard]] ScalingDecision evaluate(std::span<const ShardMetrics> shards,
                                         const SinkState& sink, Timestamp now);

  /// The pair of shards between which slots should move (see detail::slot_plan::hot_moves), when one
  /// stays overloaded while another has little to do. By expected wait: events queued / drained per
  /// second. To be called once per metrics_window, after evaluate(), with keyed routing. O(shards).
  [[nodiscard]] std::optional<Rebalance> rebalance(std::span<const ShardMetrics> shards,
                                                   const SinkState& sink, Timestamp now);

  /// A shard was added or removed at that time, by whomever: the cooldown and all delays begin anew. Telling
  /// it twice is telling it once.
  void note_change(Timestamp now) noexcept;

  /// Slots were moved as advised, or there was none to move: the next advice keeps a cooldown's distance.
  /// Scaling does not wait for it.
  void note_rebalance(Timestamp now) noexcept;

  /// How many of `wanted` shards may be added or removed now. A request for none is granted and has no
  /// effect. `force` skips the cooldown, never the budget.
  [[nodiscard]] Grant grant_add(std::size_t wanted, ShardCount count, Timestamp now,
                                bool force) const noexcept;
  [[nodiscard]] Grant grant_remove(std::size_t wanted, ShardCount count, Timestamp now,
                                   bool force) const noexcept;

  /// How much of the traffic a shard should get, relative to others: 1 when idle, falling with
  /// the larger of fill and contention to kLeastWeight. Continuous; what is no number counts as the worst.
  [[nodiscard]] double weight_of(const ShardMetrics& shard) const noexcept;

  /// Events per second that one shard was seen to manage when most were overloaded; 0 before that.
  [[nodiscard]] double capacity() const noexcept { return capacity_; }

 private:
  /// All that evaluate() needs to know about the shards.
  struct Survey {
    ShardCount count;
    std::size_t warm = 0;        ///< active, and for longer than warm_up
    std::size_t overloaded = 0;  ///< of the warm ones
    std::size_t idle = 0;        ///< of the warm ones
    std::size_t delivering = 0;
    double fill = 0;     ///< sum over the active ones
    double offered = 0;  ///< events per second accepted, likewise
    double drained = 0;  ///< events per second, likewise
    double shown = 0;    ///< events per second drained, sum over the overloaded ones
  };

  [[nodiscard]] Survey survey(std::span<const ShardMetrics> shards) const noexcept;
  [[nodiscard]] bool is_warm(const ShardMetrics& shard) const noexcept;
  [[nodiscard]] bool is_overloaded(const ShardMetrics& shard) const noexcept;
  [[nodiscard]] bool is_idle(const ShardMetrics& shard) const noexcept;
  [[nodiscard]] bool cools_down(Timestamp now) const noexcept;

  /// Are most of the shards overloaded?
  [[nodiscard]] static bool is_overloaded(const Survey& seen) noexcept;

  void observe(const Survey& seen, bool saturated, Timestamp now) noexcept;
  [[nodiscard]] ScalingDecision grow(const Survey& seen, Timestamp now);
  [[nodiscard]] ScalingDecision shrink(const Survey& seen, std::span<const ShardMetrics> shards,
                                       Timestamp now);
  [[nodiscard]] std::size_t shards_to_spare(const Survey& seen) const noexcept;
  void forget_delays() noexcept;

  ScalingPolicy policy_;
  std::optional<Timestamp> changed_;     ///< the last change
  std::optional<Timestamp> rebalanced_;  ///< the last move of hot slots

  std::optional<Timestamp> observed_;  ///< the last evaluate()
  double offered_ = 0;                 ///< events per second accepted, smoothed over ten windows
  double drained_ = 0;                 ///< likewise
  double capacity_ = 0;                ///< see capacity()

  std::optional<Timestamp> overloaded_since_;
  std::optional<Timestamp> spare_since_;
  std::size_t spare_ = 0;  ///< the fewest shards to spare at any time since then
  std::optional<Timestamp> hot_since_;
  ShardId hot_{};
};

}  // namespace shard
