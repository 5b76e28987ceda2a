#include "shard/config_json.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "shard/json.hpp"

namespace shard {

namespace {

using nlohmann::json;

constexpr std::array kModes{BackpressureMode::drop_newest, BackpressureMode::drop_oldest,
                            BackpressureMode::fail_producer, BackpressureMode::sample,
                            BackpressureMode::block};

/// The value as it would be written, cut to a length for a message. Never throws for bad UTF-8.
std::string shown(const json& value) {
  if (value.is_structured()) {  // it may be nested deeper than dump(), which recurses, has stack
    return value.is_array() ? "an array" : "an object";
  }
  auto text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 80) {
    text.resize(77);
    text += "...";
  }
  return text;
}

/// Reads the members of one object. Every key that is asked for is known; finish() refuses the others.
class ObjectReader {
 public:
  ObjectReader(const json& object, std::string pointer)
      : object_(object), pointer_(std::move(pointer)) {
    if (!object.is_object()) {
      throw ConfigError(pointer_, shown(object), "an object");
    }
  }

  /// The member of that name, or nullptr.
  const json* find(const std::string& name) {
    known_.push_back(name);
    const auto found = object_.find(name);
    return found == object_.end() ? nullptr : &*found;
  }

  [[nodiscard]] std::string place(const std::string& name) const {
    return pointer_ + "/" + json::json_pointer{}.operator/=(name).to_string().substr(1);
  }

  template <class Integer>
  void read(const std::string& name, Integer& into) {
    if (const json* value = find(name)) {
      into = integer<Integer>(name, *value);
    }
  }

  template <class Integer>
  [[nodiscard]] Integer integer(const std::string& name, const json& value) const {
    constexpr auto kHighest = static_cast<std::uint64_t>(std::numeric_limits<Integer>::max());
    // A number that was parsed and is not negative is unsigned; one that was made in C++ may be signed.
    const bool unfit = !value.is_number_unsigned() &&
                          (!value.is_number_integer() || value.get<std::int64_t>() < 0);
    if (unfit || value.get<std::uint64_t>() > kHighest) {
      throw ConfigError(place(name), shown(value), "an integer, 0 .. " + std::to_string(kHighest));
    }
    return static_cast<Integer>(value.get<std::uint64_t>());
  }

  void finish() const {
    for (const auto& [name, value] : object_.items()) {
      if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
        std::string names;
        for (const auto& known : known_) {
          names.append(names.empty() ? "" : ", ").append(known);
        }
        throw ConfigError(place(name), shown(value), "absent: the keys here are " + names);
      }
    }
  }

 private:
  const json& object_;
  std::string pointer_;
  std::vector<std::string> known_;
};

Backpressure read_backpressure(const json& value) {
  ObjectReader reader(value, "/backpressure");
  Backpressure backpressure;
  if (const json* mode = reader.find("mode")) {
    const auto found =
        std::find_if(kModes.begin(), kModes.end(), [mode](BackpressureMode candidate) {
          return mode->is_string() && mode->get_ref<const std::string&>() == to_string(candidate);
        });
    if (found == kModes.end()) {
      throw ConfigError(reader.place("mode"), shown(*mode),
                        R"("drop_newest", "drop_oldest", "fail_producer", "sample" or "block")");
    }
    backpressure.mode = *found;
  }
  reader.read("rate", backpressure.rate);
  auto timeout = backpressure.timeout.count();
  reader.read("timeout_ns", timeout);
  backpressure.timeout = std::chrono::nanoseconds{timeout};
  reader.finish();
  return backpressure;
}

/// "backpressure.timeout", as the struct spells it, is /backpressure/timeout_ns in JSON.
std::string pointer_of(const std::string& field) {
  std::string pointer = "/" + field;
  std::replace(pointer.begin(), pointer.end(), '.', '/');
  return pointer == "/backpressure/timeout" ? pointer + "_ns" : pointer;
}

}  // namespace

ManagerOptions manager_options_from_json(const json& json) {
  ManagerOptions options;
  ObjectReader reader(json, "");
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
    options.backpressure = read_backpressure(*backpressure);
  }
  reader.finish();
  try {
    options.validate();
  } catch (const ConfigError& error) {
    throw ConfigError(pointer_of(error.field()), error.value(), error.bound());
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
  };
}

}  // namespace shard
