#include "shard/options.hpp"

#include <algorithm>
#include <bit>

#include "bounds.hpp"

namespace shard {

namespace {

using detail::require_between;

std::string message(std::string_view field, std::string_view value, std::string_view bound) {
  std::string text;
  text.append(field).append(" = ").append(value).append(": must be ").append(bound);
  return text;
}

void require_power_of_two(std::string_view field, std::uint64_t value, std::uint64_t low,
                          std::uint64_t high) {
  if (value < low || value > high || !std::has_single_bit(value)) {
    throw ConfigError(field, std::to_string(value),
                      "a power of two, " + std::to_string(low) + " .. " + std::to_string(high));
  }
}

}  // namespace

ConfigError::ConfigError(std::string_view field, std::string_view value, std::string_view bound)
    : std::invalid_argument(message(field, value, bound)),
      field_(field),
      value_(value),
      bound_(bound) {}

ConfigError::~ConfigError() = default;

std::string_view to_string(BackpressureMode mode) noexcept {
  switch (mode) {
    case BackpressureMode::drop_newest:
      return "drop_newest";
    case BackpressureMode::drop_oldest:
      return "drop_oldest";
    case BackpressureMode::fail_producer:
      return "fail_producer";
    case BackpressureMode::sample:
      return "sample";
    case BackpressureMode::block:
      return "block";
  }
  return "unknown";
}

void ManagerOptions::validate() const {
  require_between("shards", shards, 1, kMaxShards);
  require_power_of_two("ring_capacity", ring_capacity, 2, std::uint64_t{1} << 24U);
  require_power_of_two("ring_bytes", ring_bytes, std::uint64_t{4} << 10U, std::uint64_t{1} << 30U);
  // Half: then any event fits into an empty shard, whatever is skipped at the end of its arena.
  require_between("max_payload", max_payload, 1, ring_bytes / 2);
  require_between("inline_max", inline_max, 0, ring_bytes / 4);
  require_between("max_key", max_key, 0, std::min<std::uint64_t>(65'535, ring_bytes / 8));
  // Also where the mode has no use for them: what is written out must be readable again.
  if (backpressure.rate == 0) {
    throw ConfigError("backpressure.rate", "0", "1 .. 4294967295");
  }
  if (backpressure.timeout.count() < 0) {
    throw ConfigError("backpressure.timeout", detail::text_of(backpressure.timeout), ">= 0 ns");
  }
  if (backpressure.mode > BackpressureMode::block) {
    throw ConfigError("backpressure.mode", std::to_string(static_cast<unsigned>(backpressure.mode)),
                      "one of the modes");
  }
  if (routing > Routing::keyed) {
    throw ConfigError("routing", std::to_string(static_cast<unsigned>(routing)),
                      "one of the routings");
  }
  if (scaling) {
    scaling->validate();
    require_between("shards", shards, scaling->min_shards, scaling->max_shards);
  }
}

}  // namespace shard
