#include "shard/scaling.hpp"

#include "bounds.hpp"

namespace shard {

namespace {

using detail::require_between;
using detail::text_of;
using std::chrono::nanoseconds;

constexpr nanoseconds kLongest = std::chrono::hours{24};

}  // namespace

std::string_view to_string(ShardState state) noexcept {
  switch (state) {
    case ShardState::provisioning:
      return "provisioning";
    case ShardState::active:
      return "active";
    case ShardState::draining:
      return "draining";
    case ShardState::stopped:
      return "stopped";
  }
  return "unknown";
}

std::string_view to_string(ScalingError error) noexcept {
  switch (error) {
    case ScalingError::scaling_disabled:
      return "scaling_disabled";
    case ScalingError::unknown_shard:
      return "unknown_shard";
    case ScalingError::wrong_state:
      return "wrong_state";
    case ScalingError::at_max:
      return "at_max";
    case ScalingError::at_min:
      return "at_min";
    case ScalingError::cooldown:
      return "cooldown";
    case ScalingError::fenced:
      return "fenced";
    case ScalingError::closed:
      return "closed";
    case ScalingError::ids_exhausted:
      return "ids_exhausted";
  }
  return "unknown";
}

std::string_view to_string(Routing routing) noexcept {
  switch (routing) {
    case Routing::balanced:
      return "balanced";
    case Routing::keyed:
      return "keyed";
  }
  return "unknown";
}

std::string_view to_string(ScalingKind kind) noexcept {
  switch (kind) {
    case ScalingKind::none:
      return "none";
    case ScalingKind::scale_up:
      return "scale_up";
    case ScalingKind::scale_down:
      return "scale_down";
  }
  return "unknown";
}

std::string_view to_string(ScalingReason reason) noexcept {
  switch (reason) {
    case ScalingReason::settled:
      return "settled";
    case ScalingReason::overloaded:
      return "overloaded";
    case ScalingReason::underutilised:
      return "underutilised";
    case ScalingReason::sink_saturated:
      return "sink_saturated";
    case ScalingReason::skewed:
      return "skewed";
    case ScalingReason::recovering:
      return "recovering";
    case ScalingReason::waiting:
      return "waiting";
  }
  return "unknown";
}

ScalingPolicy ScalingPolicy::high_throughput() {
  ScalingPolicy policy;
  policy.max_shards = 64;
  policy.fill_threshold = 0.5;
  policy.push_latency_threshold = std::chrono::microseconds{2};
  policy.underutilised_threshold = 0.05;
  policy.cooldown = std::chrono::milliseconds{500};
  policy.scale_up_delay = std::chrono::milliseconds{100};
  policy.scale_down_delay = std::chrono::seconds{30};
  policy.warm_up = std::chrono::milliseconds{500};
  policy.max_step = 8;
  return policy;
}

ScalingPolicy ScalingPolicy::conservative() {
  ScalingPolicy policy;
  policy.max_shards = 8;
  policy.fill_threshold = 0.85;
  policy.push_latency_threshold = std::chrono::microseconds{20};
  policy.flush_latency_threshold = std::chrono::milliseconds{10};
  policy.cooldown = std::chrono::seconds{5};
  policy.scale_up_delay = std::chrono::seconds{2};
  policy.scale_down_delay = std::chrono::seconds{60};
  policy.warm_up = std::chrono::seconds{5};
  policy.max_step = 1;
  return policy;
}

void ScalingPolicy::validate() const {
  require_between("scaling.max_shards", max_shards, 1, ManagerOptions::kMaxShards);
  require_between("scaling.min_shards", min_shards, 1, max_shards);
  // Written such that NaN, which compares with nothing, is refused.
  if (!(fill_threshold > 0 && fill_threshold <= 1)) {
    throw ConfigError("scaling.fill_threshold", text_of(fill_threshold), "above 0, at most 1");
  }
  if (!(underutilised_threshold >= 0 && underutilised_threshold < fill_threshold)) {
    throw ConfigError("scaling.underutilised_threshold", text_of(underutilised_threshold),
                      "at least 0, less than fill_threshold = " + text_of(fill_threshold));
  }
  require_between("scaling.push_latency_threshold", push_latency_threshold, nanoseconds{0},
                  kLongest);
  require_between("scaling.flush_latency_threshold", flush_latency_threshold, nanoseconds{0},
                  kLongest);
  require_between("scaling.cooldown", cooldown, nanoseconds{0}, kLongest);
  require_between("scaling.scale_up_delay", scale_up_delay, nanoseconds{0}, kLongest);
  require_between("scaling.scale_down_delay", scale_down_delay, nanoseconds{0}, kLongest);
  require_between("scaling.warm_up", warm_up, nanoseconds{0}, kLongest);
  require_between("scaling.metrics_window", metrics_window, std::chrono::milliseconds{1},
                  std::chrono::minutes{1});
  require_between("scaling.max_step", max_step, 1, ManagerOptions::kMaxShards);
}

}  // namespace shard
