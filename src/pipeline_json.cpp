#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <string_view>

#include "object_reader.hpp"
#include "shard/config_json.hpp"
#include "shard/json.hpp"

namespace shard {

namespace {

using detail::ObjectReader;
using detail::shown;
using nlohmann::json;

/// "batch.max_delay", as validate() names it, is .../max_delay_ns in JSON, "processors[2]" is .../processors/2.
/// \param written  the object as it is written: it has every name
std::string pointer_of(const std::string& field, std::string_view pointer, const json& written) {
  auto name = field.substr(field.find('.') + 1);  // of the whole where there is none
  std::string index;
  if (const auto bracket = name.find('['); bracket != std::string::npos) {
    index = "/" + name.substr(bracket + 1, name.size() - bracket - 2);
    name.resize(bracket);
  }
  const auto suffix = written.contains(name) ? "" : "_ns";
  return std::string(pointer).append("/").append(name).append(suffix).append(index);
}

/// The options, if they are valid; else the error at its place.
template <class Options>
Options validated(Options options, std::string_view pointer) {
  try {
    options.validate();
  } catch (const ConfigError& error) {
    throw ConfigError(pointer_of(error.field(), pointer, options), error.value(), error.bound());
  }
  return options;
}

constexpr std::array kWaits{WaitStrategy::park, WaitStrategy::spin_then_park, WaitStrategy::spin};

std::vector<unsigned> read_processors(const json& value, const std::string& place) {
  if (!value.is_array()) {
    throw ConfigError(place, shown(value), "an array of integers");
  }
  std::vector<unsigned> processors;
  processors.reserve(value.size());
  for (const auto& element : value) {
    // Signed where it was made in C++; a negative one is beyond the bound when read as unsigned.
    const auto number = element.is_number_integer() ? element.get<std::uint64_t>()
                                                    : std::numeric_limits<std::uint64_t>::max();
    if (number >= PipelineOptions::kMaxProcessors) {
      throw ConfigError(place + "/" + std::to_string(processors.size()), shown(element),
                        "an integer, 0 .. " + std::to_string(PipelineOptions::kMaxProcessors - 1));
    }
    processors.push_back(static_cast<unsigned>(number));
  }
  return processors;
}

}  // namespace

BatchOptions batch_options_from_json(const json& json, std::string_view pointer) {
  BatchOptions options;
  ObjectReader reader(json, std::string(pointer));
  reader.read("min_events", options.min_events);
  reader.read("max_events", options.max_events);
  reader.read("max_bytes", options.max_bytes);
  reader.read("max_delay_ns", options.max_delay);
  reader.read("velocity_window_ns", options.velocity_window);
  reader.finish();
  return validated(options, pointer);
}

void to_json(json& json, const BatchOptions& options) {
  json = nlohmann::json{
      {"min_events", options.min_events},
      {"max_events", options.max_events},
      {"max_bytes", options.max_bytes},
      {"max_delay_ns", options.max_delay.count()},
      {"velocity_window_ns", options.velocity_window.count()},
  };
}

RetryOptions retry_options_from_json(const json& json, std::string_view pointer) {
  RetryOptions options;
  ObjectReader reader(json, std::string(pointer));
  reader.read("initial_backoff_ns", options.initial_backoff);
  reader.read("max_backoff_ns", options.max_backoff);
  reader.read("multiplier", options.multiplier);
  reader.read("jitter", options.jitter);
  reader.read("max_attempts", options.max_attempts);
  reader.read("max_elapsed_ns", options.max_elapsed);
  reader.finish();
  return validated(options, pointer);
}

void to_json(json& json, const RetryOptions& options) {
  json = nlohmann::json{
      {"initial_backoff_ns", options.initial_backoff.count()},
      {"max_backoff_ns", options.max_backoff.count()},
      {"multiplier", options.multiplier},
      {"jitter", options.jitter},
      {"max_attempts", options.max_attempts},
      {"max_elapsed_ns", options.max_elapsed.count()},
  };
}

PipelineOptions pipeline_options_from_json(const json& json, std::string_view pointer) {
  PipelineOptions options;
  ObjectReader reader(json, std::string(pointer));
  if (const auto* manager = reader.find("manager")) {
    options.manager = manager_options_from_json(*manager, reader.place("manager"));
  }
  if (const auto* batch = reader.find("batch")) {
    options.batch = batch_options_from_json(*batch, reader.place("batch"));
  }
  if (const auto* retry = reader.find("retry")) {
    options.retry = retry_options_from_json(*retry, reader.place("retry"));
  }
  reader.read("workers", options.workers);
  reader.read("wait", options.wait, kWaits);
  reader.read("spin_for_ns", options.spin_for);
  if (const auto* processors = reader.find("processors")) {
    options.processors = read_processors(*processors, reader.place("processors"));
  }
  reader.read("thread_name", options.thread_name);
  reader.read("serialise_adapter", options.serialise_adapter);
  reader.read("attempt_timeout_ns", options.attempt_timeout);
  reader.read("close_timeout_ns", options.close_timeout);
  if (const auto* id = reader.find("producer_id"); id != nullptr && !id->is_null()) {
    options.producer_id = reader.integer<std::uint64_t>("producer_id", *id);
  }
  reader.read("notice_interval_ns", options.notice_interval);
  reader.finish();
  return validated(std::move(options), pointer);
}

PipelineOptions parse_pipeline_options(std::string_view text) {
  const auto parsed = parse_json(text);
  if (!parsed) {
    throw ConfigError("", parsed.error().message, "valid JSON");
  }
  return pipeline_options_from_json(*parsed);
}

void to_json(json& json, const PipelineOptions& options) {
  json = nlohmann::json{
      {"manager", options.manager},
      {"batch", options.batch},
      {"retry", options.retry},
      {"workers", options.workers},
      {"wait", to_string(options.wait)},
      {"spin_for_ns", options.spin_for.count()},
      {"processors", options.processors},
      {"thread_name", options.thread_name},
      {"serialise_adapter", options.serialise_adapter},
      {"attempt_timeout_ns", options.attempt_timeout.count()},
      {"close_timeout_ns", options.close_timeout.count()},
      {"producer_id",
       options.producer_id ? nlohmann::json(*options.producer_id) : nlohmann::json()},
      {"notice_interval_ns", options.notice_interval.count()},
  };
}

}  // namespace shard
