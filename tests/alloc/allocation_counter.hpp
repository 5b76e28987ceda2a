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

/// While it lives, this thread's n-th allocation (from 1) finds no memory, once. One at a time.
class AllocationFailure {
 public:
  explicit AllocationFailure(std::uint64_t n) noexcept;
  AllocationFailure(const AllocationFailure&) = delete;
  AllocationFailure& operator=(const AllocationFailure&) = delete;
  ~AllocationFailure();

  /// Has it come to that allocation?
  [[nodiscard]] bool happened() const noexcept;
};

}  // namespace shard_test
