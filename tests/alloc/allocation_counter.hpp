#pragma once

#include <cstdint>

namespace shard_test {

/// What this thread has allocated since the scope began, by the operator new of this program.
/// Read it before the next CHECK, which allocates too.
class AllocationScope {
 public:
  AllocationScope() noexcept;

  [[nodiscard]] std::uint64_t count() const noexcept;
  /// Of those, the ones made while this thread held a lock of a TrackingPlatform.
  [[nodiscard]] std::uint64_t under_lock() const noexcept;

 private:
  std::uint64_t count_;
  std::uint64_t under_lock_;
};

}  // namespace shard_test
