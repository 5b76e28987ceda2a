#pragma once

#include <memory>

#include "shard/detail/export.hpp"

namespace shard::detail {

/// A page of memory that a child process finds filled with zeros after fork(), while the parent keeps it: how the library
/// notices that its threads are gone and that its locks may be held by nobody. See madvise(2), MADV_WIPEONFORK. Where the
/// system has no such thing it is ordinary memory.
class SHARD_EXPORT WipedOnFork {
 public:
  /// Throws std::bad_alloc.
  WipedOnFork();
  WipedOnFork(const WipedOnFork&) = delete;
  WipedOnFork& operator=(const WipedOnFork&) = delete;
  ~WipedOnFork();

  /// Zeros at first, aligned to a page.
  [[nodiscard]] void* memory() const noexcept { return memory_; }

 private:
  void* memory_;
  bool mapped_;
};

/// Keeps an object until the process ends, still reachable, for a child process in which it cannot be destroyed.
SHARD_EXPORT void keep_forever(std::shared_ptr<const void> object) noexcept;

}  // namespace shard::detail
