#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "shard/detail/export.hpp"
#include "shard/options.hpp"
#include "shard/scaling.hpp"

namespace shard {

/// Reads options from JSON; what is not named keeps its default. Sizes are integers, times integers of
/// nanoseconds in fields that end in _ns:
///
///     {"shards": 8, "ring_capacity": 16384, "ring_bytes": 1048576, "max_payload": 65536,
///      "inline_max": 16384, "max_key": 256, "seed": null,
///      "backpressure": {"mode": "block", "rate": 10, "timeout_ns": 1000000000}}
///
/// Throws ConfigError for an unknown key, a wrong type or a value out of bounds; its field() is the JSON
/// pointer of the place. ManagerOptions::time_source has no JSON form.
/// Threads: any.
[[nodiscard]] SHARD_EXPORT ManagerOptions manager_options_from_json(const nlohmann::json& json);

/// The same from text; text that is not JSON is a ConfigError too, with field() "".
[[nodiscard]] SHARD_EXPORT ManagerOptions parse_manager_options(std::string_view text);

/// Writes every field, so that reading it gives the same options. For nlohmann::json's conversions.
SHARD_EXPORT void to_json(nlohmann::json& json, const ManagerOptions& options);

/// Reads a policy; what is not named keeps its default:
///
///     {"min_shards": 1, "max_shards": 16, "auto_scale": true, "fill_threshold": 0.7,
///      "push_latency_threshold_ns": 5000, "flush_latency_threshold_ns": 1000000,
///      "underutilised_threshold": 0.1, "cooldown_ns": 1000000000, "scale_up_delay_ns": 300000000,
///      "scale_down_delay_ns": 10000000000, "warm_up_ns": 1000000000,
///      "metrics_window_ns": 100000000, "max_step": 4}
///
/// Throws ConfigError as above. Threads: any.
/// \param pointer  where the object stands in its document, for field()
[[nodiscard]] SHARD_EXPORT ScalingPolicy
scaling_policy_from_json(const nlohmann::json& json, std::string_view pointer = "/scaling");

/// Writes every field, so that reading it gives the same policy.
SHARD_EXPORT void to_json(nlohmann::json& json, const ScalingPolicy& policy);

/// States as their names.
SHARD_EXPORT void to_json(nlohmann::json& json, ShardState state);

/// For dashboards: times in fields that end in _ns, what is no finite number as null.
SHARD_EXPORT void to_json(nlohmann::json& json, const ShardMetrics& metrics);

}  // namespace shard
