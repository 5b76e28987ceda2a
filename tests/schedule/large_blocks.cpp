#include "schedule/large_blocks.hpp"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

constinit thread_local bool t_no_large_blocks = false;

}  // namespace

void shard::test::no_large_blocks(bool on) noexcept { t_no_large_blocks = on; }

// A translation unit of their own: where they are inlined, GCC takes them for mismatched. All forms: the array
// forms of a sanitizer do not end up in the others.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return t_no_large_blocks && size >= (std::size_t{64} << 10U) ? nullptr
                                                               : std::malloc(size == 0 ? 1 : size);
}
void* operator new(std::size_t size) {
  if (void* block = operator new(size, std::nothrow)) {
    return block;
  }
  throw std::bad_alloc();
}
void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }
void operator delete(void* block, const std::nothrow_t&) noexcept { std::free(block); }

void* operator new[](std::size_t size, const std::nothrow_t& nothrow) noexcept {
  return operator new(size, nothrow);
}
void* operator new[](std::size_t size) { return operator new(size); }
void operator delete[](void* block) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t) noexcept { std::free(block); }
void operator delete[](void* block, const std::nothrow_t&) noexcept { std::free(block); }
