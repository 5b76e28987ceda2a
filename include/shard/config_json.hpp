#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "shard/batcher.hpp"
#include "shard/detail/export.hpp"
#include "shard/options.hpp"
#include "shard/pipeline_options.hpp"
#include "shard/retry.hpp"
#include "shard/scaling.hpp"

namespace shard {

/// Reads options from JSON; what is not named keeps its default. Sizes are integers, times integers of
/// nanoseconds in fields that end in _ns; std::chrono::nanoseconds::max(), where it means "no limit", is
/// 9223372036854775807:
///
///     {"shards": 8, "ring_capacity": 16384, "ring_bytes": 1048576, "max_payload": 65536,
///      "inline_max": 16384, "max_key": 256, "seed": null,
///      "backpressure": {"mode": "block", "rate": 10, "timeout_ns": 1000000000},
///      "scaling": {"min_shards": 1, "max_shards": 16}, "routing": "keyed"}
///
/// "scaling" is as scaling_policy_from_json() reads it; null, as without it: the number of shards is fixed.
///
/// Throws ConfigError for an unknown key, a wrong type or a value out of bounds; its field() is the JSON
/// pointer of the place. ManagerOptions::time_source has no JSON form.
/// Threads: any.
/// \param pointer  where the object stands in its document, for field()
[[nodiscard]] SHARD_EXPORT ManagerOptions manager_options_from_json(const nlohmann::json& json,
                                                                    std::string_view pointer = "");

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

/// Reads when batches are due; what is not named keeps its default:
///
///     {"min_events": 1000, "max_events": 10000, "max_bytes": 1048576, "max_delay_ns": 10000000,
///      "velocity_window_ns": 100000000}
///
/// Throws ConfigError as above. Threads: any.
/// \param pointer  where the object stands in its document, for field()
[[nodiscard]] SHARD_EXPORT BatchOptions
batch_options_from_json(const nlohmann::json& json, std::string_view pointer = "/batch");

/// Writes every field, so that reading it gives the same options.
SHARD_EXPORT void to_json(nlohmann::json& json, const BatchOptions& options);

/// Reads how batches are retried; what is not named keeps its default:
///
///     {"initial_backoff_ns": 100000000, "max_backoff_ns": 3200000000, "multiplier": 2,
///      "jitter": 0.25, "max_attempts": 10, "max_elapsed_ns": 60000000000}
///
/// Throws ConfigError as above. Threads: any.
/// \param pointer  where the object stands in its document, for field()
[[nodiscard]] SHARD_EXPORT RetryOptions
retry_options_from_json(const nlohmann::json& json, std::string_view pointer = "/retry");

/// Writes every field, so that reading it gives the same options.
SHARD_EXPORT void to_json(nlohmann::json& json, const RetryOptions& options);

/// Reads the options of a pipeline; what is not named keeps its default:
///
///     {"manager": {"shards": 8}, "batch": {"max_events": 5000}, "retry": {"max_attempts": 3},
///      "workers": 2, "wait": "spin_then_park", "spin_for_ns": 20000, "processors": [0, 1],
///      "thread_name": "shard", "serialise_adapter": false, "attempt_timeout_ns": 30000000000,
///      "close_timeout_ns": 5000000000, "producer_id": null, "notice_interval_ns": 1000000000}
///
/// Throws ConfigError as above, with field() like "/manager/scaling/cooldown_ns" or "/processors/1".
/// PipelineOptions::dead_letters and listener, and the manager's time_source, have no JSON form.
/// Threads: any.
/// \param pointer  where the object stands in its document, for field()
[[nodiscard]] SHARD_EXPORT PipelineOptions
pipeline_options_from_json(const nlohmann::json& json, std::string_view pointer = "");

/// The same from text; text that is not JSON is a ConfigError too, with field() "".
[[nodiscard]] SHARD_EXPORT PipelineOptions parse_pipeline_options(std::string_view text);

/// Writes every field that has a JSON form, so that reading it gives the same options. Whoever turns it into text needs
/// a thread_name in UTF-8.
SHARD_EXPORT void to_json(nlohmann::json& json, const PipelineOptions& options);

/// States as their names.
SHARD_EXPORT void to_json(nlohmann::json& json, ShardState state);

/// For dashboards: times in fields that end in _ns, what is no finite number as null.
SHARD_EXPORT void to_json(nlohmann::json& json, const ShardMetrics& metrics);

}  // namespace shard
