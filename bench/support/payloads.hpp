#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "shard/bytes.hpp"

namespace bench {

/// Payloads of one size, all different, so that their hashes spread.
struct Payloads {
  Payloads(std::size_t size, std::size_t count) : text(count * size, ' '), views(count) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t mixed = (i + 1) * 0x9E3779B97F4A7C15U;
      std::memcpy(text.data() + i * size, &mixed, sizeof mixed);
      views[i] = shard::Bytes(std::string_view(text).substr(i * size, size));
    }
  }
  std::string text;
  std::vector<shard::Bytes> views;
};

}  // namespace bench
