#include "shard/config_json.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "object_reader.hpp"

#include "shard/json.hpp"

namespace shard {

namespace {

using detail::ObjectReader;
using nlohmann::json;

constexpr std::array kModes{BackpressureMode::drop_newest, BackpressureMode::drop_oldest,
                            BackpressureMode::fail_producer, BackpressureMode::sample,
                            BackpressureMode::block};

constexpr std::array kRoutings{Routing::balanced, Routing::keyed};

Backpressure read_backpressure(const json& value, std::string pointer) {
  ObjectReader reader(value, std::move(pointer));
  Backpressure backpressure;
  reader.read("mode", backpressure.mode, kModes);
  reader.read("rate", backpressure.rate);
  auto timeout = backpressure.timeout.count();
  reader.read("timeout_ns", timeout);
  backpressure.timeout = std::chrono::nanoseconds{timeout};
  reader.finish();
  return backpressure;
}

/// "backpressure.timeout", as the struct spells it, is .../backpressure/timeout_ns in JSON.
std::string pointer_of(const std::string& field, std::string_view pointer) {
  std::string place = "/" + field;
  std::replace(place.begin(), place.end(), '.', '/');
  const auto suffix = place == "/backpressure/timeout" ? "_ns" : "";
  return std::string(pointer).append(place).append(suffix);
}

}  // namespace

ManagerOptions manager_options_from_json(const json& json, std::string_view pointer) {
  ManagerOptions options;
  ObjectReader reader(json, std::string(pointer));
  reader.read("shards", options.shards);
  reader.read("ring_capacity", options.ring_capacity);
  reader.read("ring_bytes", options.ring_bytes);
  reader.read("max_payload", options.max_payload);
  reader.read("inline_max", options.inline_max);
  reader.read("max_key", options.max_key);
  if (const auto* seed = reader.find("seed"); seed != nullptr && !seed->is_null()) {
    options.seed = reader.integer<std::uint64_t>("seed", *seed);
  }
  if (const auto* backpressure = reader.find("backpressure")) {
    options.backpressure = read_backpressure(*backpressure, reader.place("backpressure"));
  }
  if (const auto* scaling = reader.find("scaling"); scaling != nullptr && !scaling->is_null()) {
    options.scaling = scaling_policy_from_json(*scaling, reader.place("scaling"));
  }
  reader.read("routing", options.routing, kRoutings);
  reader.finish();
  try {
    options.validate();
  } catch (const ConfigError& error) {
    throw ConfigError(pointer_of(error.field(), pointer), error.value(), error.bound());
  }
  return options;
}

ManagerOptions parse_manager_options(std::string_view text) {
  const auto parsed = parse_json(text);
  if (!parsed) {
    throw ConfigError("", parsed.error().message, "valid JSON");
  }
  return manager_options_from_json(*parsed);
}

void to_json(json& json, const ManagerOptions& options) {
  json = nlohmann::json{
      {"shards", options.shards},
      {"ring_capacity", options.ring_capacity},
      {"ring_bytes", options.ring_bytes},
      {"max_payload", options.max_payload},
      {"inline_max", options.inline_max},
      {"max_key", options.max_key},
      {"seed", options.seed ? nlohmann::json(*options.seed) : nlohmann::json()},
      {"backpressure",
       {{"mode", to_string(options.backpressure.mode)},
        {"rate", options.backpressure.rate},
        {"timeout_ns", options.backpressure.timeout.count()}}},
      {"scaling", options.scaling ? nlohmann::json(*options.scaling) : nlohmann::json()},
      {"routing", to_string(options.routing)},
  };
}

}  // namespace shard
