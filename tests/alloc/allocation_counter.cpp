#include "alloc/allocation_counter.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <new>

#include "support/tracking_platform.hpp"

namespace shard_test {

namespace {

constinit thread_local std::uint64_t t_allocations = 0;
constinit thread_local std::uint64_t t_under_lock = 0;
constinit thread_local std::uint64_t t_until_failure = 0;  // 0: none fails

void* allocate(std::size_t size, std::size_t alignment) noexcept {
  ++t_allocations;
  t_under_lock += t_locks_held > 0 ? 1U : 0U;
  if (t_until_failure != 0 && --t_until_failure == 0) return nullptr;
  // aligned_alloc() wants a size that is a multiple of the alignment.
  const auto rounded = (std::max<std::size_t>(size, 1) + alignment - 1) / alignment * alignment;
  return rounded < size ? nullptr : std::aligned_alloc(alignment, rounded);
}

void* allocate_or_throw(std::size_t size, std::size_t alignment) {
  if (void* const block = allocate(size, alignment)) return block;
  throw std::bad_alloc();
}

constexpr std::size_t kDefault = __STDCPP_DEFAULT_NEW_ALIGNMENT__;

std::size_t value(std::align_val_t alignment) noexcept {
  return static_cast<std::size_t>(alignment);
}

}  // namespace

AllocationScope::AllocationScope() noexcept : count_(t_allocations), under_lock_(t_under_lock) {}
std::uint64_t AllocationScope::count() const noexcept { return t_allocations - count_; }
std::uint64_t AllocationScope::under_lock() const noexcept { return t_under_lock - under_lock_; }

AllocationFailure::AllocationFailure(std::uint64_t n) noexcept { t_until_failure = n; }
AllocationFailure::~AllocationFailure() { t_until_failure = 0; }
bool AllocationFailure::happened() const noexcept { return t_until_failure == 0; }

}  // namespace shard_test

// All of them: a sanitizer replaces each by itself, so that one form does not lead to another.
using shard_test::allocate;
using shard_test::allocate_or_throw;
using shard_test::kDefault;
using shard_test::value;

void* operator new(std::size_t size) { return allocate_or_throw(size, kDefault); }
void* operator new[](std::size_t size) { return allocate_or_throw(size, kDefault); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size, kDefault);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size, kDefault);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, value(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, value(alignment));
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(size, value(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(size, value(alignment));
}
void operator delete(void* block) noexcept { std::free(block); }
void operator delete[](void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t) noexcept { std::free(block); }
void operator delete(void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete[](void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }
void operator delete(void* block, const std::nothrow_t&) noexcept { std::free(block); }
void operator delete[](void* block, const std::nothrow_t&) noexcept { std::free(block); }
void operator delete(void* block, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(block);
}
void operator delete[](void* block, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(block);
}
