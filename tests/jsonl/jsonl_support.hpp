#pragma once

#include <stdlib.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "shard/jsonl.hpp"
#include "shard/manager.hpp"
#include "support/temporary_folder.hpp"

namespace shard_test {

using Strings = std::vector<std::string>;

[[nodiscard]] inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file.is_open());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(file.flush().good());
}

/// The frames of a compressed file, decompressed, each checked against its checksum. It has nothing but frames.
[[nodiscard]] inline Strings frames_of(std::string_view bytes) {
  Strings frames;
  while (!bytes.empty()) {
    const auto size = ZSTD_findFrameCompressedSize(bytes.data(), bytes.size());
    REQUIRE(ZSTD_isError(size) == 0);
    const auto content = ZSTD_getFrameContentSize(bytes.data(), size);
    REQUIRE(content < ZSTD_CONTENTSIZE_ERROR);
    std::string text(static_cast<std::size_t>(content), '\0');
    REQUIRE(ZSTD_decompress(text.data(), text.size(), bytes.data(), size) == text.size());
    frames.push_back(std::move(text));
    bytes.remove_prefix(size);
  }
  return frames;
}

[[nodiscard]] inline std::string compressed(std::string_view text) {
  std::string frame(ZSTD_compressBound(text.size()), '\0');
  frame.resize(ZSTD_compress(frame.data(), frame.size(), text.data(), text.size(), 3));
  return frame;
}

/// What is in a file, decompressed if it is compressed.
[[nodiscard]] inline std::string text_of(const std::string& path) {
  auto bytes = read_file(path);
  if (path.find(".zst") == std::string::npos) return bytes;
  std::string text;
  for (const auto& frame : frames_of(bytes)) text += frame;
  return text;
}

/// The lines of a file. The last one has an end, too.
[[nodiscard]] inline Strings lines_of(const std::string& path) {
  const auto text = text_of(path);
  Strings lines;
  REQUIRE((text.empty() || text.back() == '\n'));
  for (std::size_t at = 0; at != text.size();) {
    const auto end = text.find('\n', at);
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

/// Text that compresses badly.
[[nodiscard]] inline std::string noise(std::size_t size, std::uint64_t seed) {
  std::string text(size, '\0');
  for (auto& c : text) {
    seed = seed * 6'364'136'223'846'793'005U + 1'442'695'040'888'963'407U;
    c = static_cast<char>('0' + (seed >> 58U));
  }
  return text;
}

/// A batch with these payloads.
class Events {
 public:
  explicit Events(const Strings& payloads) {
    shard::ManagerOptions options;
    options.shards = 1;
    std::size_t bytes = 4'096;
    for (const auto& payload : payloads) bytes += payload.size() + 32;
    options.ring_capacity = std::bit_ceil(payloads.size() + 2);
    options.ring_bytes = std::bit_ceil(4 * bytes);
    options.max_payload = options.ring_bytes / 4;
    options.inline_max = options.ring_bytes / 4;
    shard::Manager manager(options);
    for (const auto& payload : payloads) {
      static_cast<void>(manager.ingest(payload));
    }
    for (const auto id : manager.shard_ids()) {
      manager.shard(id)->pop_batch_into(events_, payloads.size());
    }
    REQUIRE(events_.size() == payloads.size());
  }

  [[nodiscard]] shard::Batch batch() const { return {events_, {.producer = 1, .epoch = 2}}; }

 private:
  shard::EventBatch events_;
};

inline shard::Delivery deliver(shard::Adapter& adapter, const Strings& payloads) {
  const Events events(payloads);
  return adapter.deliver(events.batch(), {});
}

/// "<what> 0", "<what> 1", ...
[[nodiscard]] inline Strings numbered_lines(const std::string& what, std::size_t count) {
  Strings lines;
  for (std::size_t i = 0; i < count; ++i) lines.push_back(what + " " + std::to_string(i));
  return lines;
}

[[nodiscard]] inline Strings operator+(Strings one, const Strings& other) {
  one.insert(one.end(), other.begin(), other.end());
  return one;
}

/// What the constructor throws for these options, or "".
[[nodiscard]] inline std::string refusal(const shard::JsonlOptions& options) {
  try {
    shard::JsonlAdapter adapter(options);
    return "";
  } catch (const std::system_error& error) {
    return error.what();
  }
}

}  // namespace shard_test

template <>
struct Catch::StringMaker<shard::Delivery::Kind> {
  static std::string convert(shard::Delivery::Kind kind) {
    constexpr const char* kNames[] = {"delivered", "delivered_prefix", "delivered_except", "retry",
                                      "refuse",    "refuse_some",      "unknown"};
    return kNames[static_cast<std::size_t>(kind)];
  }
};
