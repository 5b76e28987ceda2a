#include <cmath>
#include <string>
#include <string_view>

#include "object_reader.hpp"
#include "shard/config_json.hpp"

namespace shard {

namespace {

/// "scaling.cooldown", as validate() names it, is .../cooldown_ns in JSON.
std::string pointer_of(const std::string& field, std::string_view pointer,
                       const nlohmann::json& written) {
  const auto name = field.substr(field.find('.') + 1);
  const auto suffix = written.contains(name) ? "" : "_ns";
  return std::string(pointer).append("/").append(name).append(suffix);
}

nlohmann::json finite_or_null(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

}  // namespace

ScalingPolicy scaling_policy_from_json(const nlohmann::json& json, std::string_view pointer) {
  ScalingPolicy policy;
  detail::ObjectReader reader(json, std::string(pointer));
  reader.read("min_shards", policy.min_shards);
  reader.read("max_shards", policy.max_shards);
  reader.read("auto_scale", policy.auto_scale);
  reader.read("fill_threshold", policy.fill_threshold);
  reader.read("push_latency_threshold_ns", policy.push_latency_threshold);
  reader.read("flush_latency_threshold_ns", policy.flush_latency_threshold);
  reader.read("underutilised_threshold", policy.underutilised_threshold);
  reader.read("cooldown_ns", policy.cooldown);
  reader.read("scale_up_delay_ns", policy.scale_up_delay);
  reader.read("scale_down_delay_ns", policy.scale_down_delay);
  reader.read("warm_up_ns", policy.warm_up);
  reader.read("metrics_window_ns", policy.metrics_window);
  reader.read("max_step", policy.max_step);
  reader.finish();
  try {
    policy.validate();
  } catch (const ConfigError& error) {
    throw ConfigError(pointer_of(error.field(), pointer, policy), error.value(), error.bound());
  }
  return policy;
}

void to_json(nlohmann::json& json, const ScalingPolicy& policy) {
  json = nlohmann::json{
      {"min_shards", policy.min_shards},
      {"max_shards", policy.max_shards},
      {"auto_scale", policy.auto_scale},
      {"fill_threshold", policy.fill_threshold},
      {"push_latency_threshold_ns", policy.push_latency_threshold.count()},
      {"flush_latency_threshold_ns", policy.flush_latency_threshold.count()},
      {"underutilised_threshold", policy.underutilised_threshold},
      {"cooldown_ns", policy.cooldown.count()},
      {"scale_up_delay_ns", policy.scale_up_delay.count()},
      {"scale_down_delay_ns", policy.scale_down_delay.count()},
      {"warm_up_ns", policy.warm_up.count()},
      {"metrics_window_ns", policy.metrics_window.count()},
      {"max_step", policy.max_step},
  };
}

void to_json(nlohmann::json& json, ShardState state) { json = to_string(state); }

void to_json(nlohmann::json& json, const ShardMetrics& metrics) {
  json = nlohmann::json{
      {"id", metrics.id.value},
      {"state", metrics.state},
      {"fill_events", finite_or_null(metrics.fill_events)},
      {"fill_bytes", finite_or_null(metrics.fill_bytes)},
      {"queued", metrics.queued},
      {"events_per_second", finite_or_null(metrics.events_per_second)},
      {"drained_per_second", finite_or_null(metrics.drained_per_second)},
      {"push_latency_ns", metrics.push_latency.count()},
      {"flush_latency_ns", metrics.flush_latency.count()},
      {"queue_age_ns", metrics.queue_age.count()},
      {"in_state_for_ns", metrics.in_state_for.count()},
      {"delivering", metrics.delivering},
      {"slot_share", finite_or_null(metrics.slot_share)},
  };
}

}  // namespace shard
