#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "shard/detail/export.hpp"
#include "shard/options.hpp"

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

}  // namespace shard
