#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "shard/detail/export.hpp"
#include "shard/ids.hpp"

namespace shard {

/// The life of a shard, in this order; a provisioning that is rolled back leaves nothing behind.
enum class ShardState : std::uint8_t {
  provisioning,  ///< exists, but no event is routed to it yet
  active,        ///< takes events
  draining,      ///< takes no more events; what it holds is still being delivered
  stopped,       ///< empty, and nothing can reach it
};

/// Why a request to change the number of shards was refused, or granted only in part.
enum class ScalingError : std::uint8_t {
  scaling_disabled,  ///< the manager has a fixed number of shards, or scales by hand only
  unknown_shard,     ///< no shard has this id (any more)
  wrong_state,       ///< not possible from the state that the shard is in
  at_max,            ///< active and provisioning shards would be more than max_shards
  at_min,            ///< active shards would be fewer than min_shards
  cooldown,          ///< too soon after the last change
  fenced,            ///< it still waits for events of another shard, to keep the order of keys
  closed,            ///< the manager is closed
  ids_exhausted,     ///< 2^32 shards have been made
};

/// How events find their shard while shards come and go.
enum class Routing : std::uint8_t {
  balanced,  ///< ranges of the hash move gradually to less loaded shards; no order between shards
  keyed,     ///< a range moves only when shards come, go or are rebalanced; keys keep their order
};

[[nodiscard]] SHARD_EXPORT std::string_view to_string(ShardState state) noexcept;
[[nodiscard]] SHARD_EXPORT std::string_view to_string(ScalingError error) noexcept;
[[nodiscard]] SHARD_EXPORT std::string_view to_string(Routing routing) noexcept;

/// When shards are added and removed, and how many. Times are 0 .. 24 h unless said otherwise.
struct ScalingPolicy {
  /// Active shards are never fewer. 1 .. max_shards.
  std::size_t min_shards = 1;

  /// Active and provisioning shards together are never more. min_shards .. 1024.
  std::size_t max_shards = 16;

  /// Does the manager decide by itself? Without it shards change by explicit calls only.
  bool auto_scale = true;

  /// A shard this full (in events or in bytes) is overloaded. Above 0, at most 1.
  double fill_threshold = 0.7;

  /// A shard whose lock takes this long to get is overloaded: too many producers meet there. An idle
  /// push takes some 20 ns. Zero: this signal is off.
  std::chrono::nanoseconds push_latency_threshold = std::chrono::microseconds{5};

  /// A shard whose deliveries take this long is overloaded if events also pile up in it, to above
  /// underutilised_threshold. (A slow sink that keeps up needs no more shards.) Zero: this signal
  /// is off.
  std::chrono::nanoseconds flush_latency_threshold = std::chrono::milliseconds{1};

  /// A shard less full than this may be removed. 0 .. less than fill_threshold. Zero: never removes.
  double underutilised_threshold = 0.1;

  /// Automatic changes, in both directions, keep this distance from any change. Zero: none.
  std::chrono::nanoseconds cooldown = std::chrono::seconds{1};

  /// Shards are added after most of them have been overloaded for as long without a break.
  /// Zero: at the first sight.
  std::chrono::nanoseconds scale_up_delay = std::chrono::milliseconds{300};

  /// Shards are removed after they have been more than needed for as long without a break.
  /// Zero: at the first sight.
  std::chrono::nanoseconds scale_down_delay = std::chrono::seconds{10};

  /// How long the signals of a shard are not looked at after it became active. Zero: not at all.
  std::chrono::nanoseconds warm_up = std::chrono::seconds{1};

  /// How often metrics are taken and decisions made. 1 ms .. 1 min.
  std::chrono::nanoseconds metrics_window = std::chrono::milliseconds{100};

  /// The most shards that one decision adds or removes. 1 .. 1024.
  std::size_t max_step = 4;

  /// Grows early, in large steps, and shrinks late: spends memory to keep producers undisturbed.
  [[nodiscard]] SHARD_EXPORT static ScalingPolicy high_throughput();

  /// Grows late, one shard at a time, up to 8: for small machines, or where changes are expensive.
  [[nodiscard]] SHARD_EXPORT static ScalingPolicy conservative();

  /// Throws ConfigError, with field() like "scaling.cooldown", for the first field out of bounds.
  SHARD_EXPORT void validate() const;

  bool operator==(const ScalingPolicy&) const = default;
};

/// What is known about one shard, at the end of a metrics window. Rates and latencies are averages
/// over the window, or over the last delivery where that took longer than the window.
struct ShardMetrics {
  ShardId id{};
  ShardState state = ShardState::active;
  double fill_events = 0;                     ///< queued / usable ring capacity, 0 .. 1
  double fill_bytes = 0;                      ///< bytes held / ring_bytes, 0 .. 1
  std::uint64_t queued = 0;                   ///< events in the ring
  double events_per_second = 0;               ///< accepted
  double drained_per_second = 0;              ///< taken out by consumers; evictions are not
  std::chrono::nanoseconds push_latency{0};   ///< waiting for the producers' lock
  std::chrono::nanoseconds flush_latency{0};  ///< one call of the adapter
  std::chrono::nanoseconds queue_age{0};      ///< how long the oldest queued event has waited
  std::chrono::nanoseconds in_state_for{0};   ///< since it entered its state
  bool delivering = false;                    ///< a worker delivers it, or it waits to be retried
  double slot_share = 0;  ///< part of the routing table that leads to it, 0 .. 1

  /// How full it is: by events or by bytes, whichever is more.
  [[nodiscard]] constexpr double fill() const noexcept { return std::max(fill_events, fill_bytes); }

  bool operator==(const ShardMetrics&) const = default;
};

enum class ScalingKind : std::uint8_t { none, scale_up, scale_down };

/// What a decision is based on.
enum class ScalingReason : std::uint8_t {
  settled,         ///< nothing to do
  overloaded,      ///< most shards are too full, contended or slow to flush
  underutilised,   ///< fewer shards can do the same work
  sink_saturated,  ///< overloaded, but more shards would not be drained any faster
  skewed,          ///< some shards are overloaded, but fewer than half: rebalancing is the remedy
  recovering,      ///< overloaded, but draining faster than filling, or help is on its way
  waiting,         ///< overloaded or underutilised, but not for long enough yet
};

[[nodiscard]] SHARD_EXPORT std::string_view to_string(ScalingKind kind) noexcept;
[[nodiscard]] SHARD_EXPORT std::string_view to_string(ScalingReason reason) noexcept;

/// What to do now. `kind` is none exactly if `count` is 0; `count` is what the policy permits of
/// what is `wanted`, and `limit` says why it is less.
struct ScalingDecision {
  ScalingKind kind = ScalingKind::none;
  ScalingReason reason = ScalingReason::settled;
  std::size_t wanted = 0;
  std::size_t count = 0;
  std::optional<ScalingError> limit = std::nullopt;
  std::vector<ShardId> shards = {};  ///< scale_down: the `count` shards to drain

  bool operator==(const ScalingDecision&) const = default;
};

}  // namespace shard
