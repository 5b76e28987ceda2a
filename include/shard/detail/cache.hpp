#pragma once

#include <cstddef>
#include <cstdint>

#include "shard/detail/annotations.hpp"

namespace shard::detail {

/// Cache lines as x86-64 and most arm64 have them. std::hardware_destructive_interference_size would
/// let a compiler flag change the layout of a type.
inline constexpr std::size_t kCacheLine = 64;

/// Hints, for any address: the line is on its way when it is needed, and several can be at a time. They change nothing
/// that can be observed, so they need no order and make no race.
SHARD_ALWAYS_INLINE void prefetch(const void* line) noexcept {
#if defined(__GNUC__)
  __builtin_prefetch(line);
#else
  static_cast<void>(line);
#endif
}

/// The same for a line that will be written: other cores give up their copies of it. An address, since it may lie behind the
/// end of an array.
SHARD_ALWAYS_INLINE void prefetch_for_writing(std::uintptr_t line) noexcept {
#if defined(__GNUC__) && defined(__x86_64__)
  // __builtin_prefetch() takes this instruction only for processors from 2014 on; earlier ones do nothing with it.
  asm volatile("prefetchw (%0)" : : "r"(line));
#elif defined(__GNUC__)
  __builtin_prefetch(reinterpret_cast<const void*>(line), 1);
#else
  static_cast<void>(line);
#endif
}

}  // namespace shard::detail
