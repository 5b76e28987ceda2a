#pragma once

#include "shard/options.hpp"

namespace shard_test {

/// The smallest shards that there can be in bytes, so that tests reach both bounds soon.
[[nodiscard]] inline shard::ManagerOptions small_options(std::size_t shards,
                                                         std::size_t ring_capacity,
                                                         shard::Backpressure backpressure = {}) {
  shard::ManagerOptions options;
  options.shards = shards;
  options.ring_capacity = ring_capacity;
  options.ring_bytes = 4096;
  options.max_payload = 2048;
  options.inline_max = 1024;
  options.max_key = 512;
  options.backpressure = backpressure;
  options.seed = 7;
  return options;
}

}  // namespace shard_test
