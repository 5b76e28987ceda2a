#pragma once

#include <atomic>
#include <cstddef>

#include "shard/buffer.hpp"

namespace shard_test {

/// Makes Buffers over static bytes and counts how many of them have been released.
/// Threads: any.
class CountedBuffers {
 public:
  [[nodiscard]] shard::Buffer make(shard::Bytes bytes) {
    auto buffer = shard::Buffer::adopt(bytes, &CountedBuffers::release, this);
    ++made_;
    return buffer;
  }
  [[nodiscard]] std::size_t made() const noexcept { return made_; }
  [[nodiscard]] std::size_t released() const noexcept { return released_; }

 private:
  static void release(void* self) noexcept { ++static_cast<CountedBuffers*>(self)->released_; }

  std::atomic<std::size_t> made_{0};
  std::atomic<std::size_t> released_{0};
};

}  // namespace shard_test
