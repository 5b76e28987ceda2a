#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "shard/detail/annotations.hpp"
#include "shard/detail/cache.hpp"
#include "shard/detail/platform.hpp"
#include "shard/detail/record.hpp"

namespace shard::detail {

/// Where the bytes of a shard's events live: a circle of bytes, allocated at one end and freed at the
/// other, in the order of the ring. Beside it the byte budget, which also counts the buffers that
/// hosts moved in. Where the next block goes is kept outside, in a Tail.
///
/// Threads:  one at a time allocates and one at a time frees (the shard's locks see to it); any reads used().
/// Ordering: free() [arena.freed] -> fits(): whoever reuses bytes sees that the copy out of them is done.
/// Memory:   never allocates after construction. Positions are 64-bit and only ever subtracted, so
///           their wrap is harmless; a test starts them just below it.
template <class Platform>
class Arena {
 public:
  /// What changes with each block: the shard keeps it in the cache line of the lock that guards it. Producer writes.
  struct Tail {
    explicit Tail(std::uint64_t first = 0) : position(first), allocated(first) {}
    std::uint64_t position;  ///< where the next block goes; only its value modulo size() matters
    typename Platform::template Atomic<std::uint64_t> allocated;  ///< bytes of all blocks so far
  };
  struct Place {
    std::uint32_t offset;
    std::uint32_t held;  ///< with what was skipped at the end of the circle
  };

  /// \param size  the budget in bytes, a power of two.
  explicit Arena(std::size_t size, std::uint64_t first_position = 0)
      : lines_(std::make_unique_for_overwrite<Line[]>((size + kAhead) / kCacheLine + 1)),
        size_(size),
        limit_(size),
        fits_until_(first_position + size),
        freed_(first_position) {}

  /// Where a block of `block` bytes would go. Any block of up to size / 2 fits when all else is freed,
  /// whatever is skipped. Producer.
  [[nodiscard]] SHARD_ALWAYS_INLINE Place place(const Tail& tail,
                                                std::uint32_t block) const noexcept {
    const auto rounded = Record::rounded(block);
    const auto offset = static_cast<std::uint32_t>(tail.position & (size_ - 1));
    const auto contiguous = static_cast<std::uint32_t>(size_) - offset;
    return rounded <= contiguous ? Place{offset, rounded} : Place{0, contiguous + rounded};
  }

  /// Was there budget for `cost` more bytes when fits() last looked? Producer.
  [[nodiscard]] SHARD_ALWAYS_INLINE bool seems_to_fit(const Tail& tail,
                                                      std::uint64_t cost) const noexcept {
    const auto budget = fits_until_ - tail.allocated.load(std::memory_order_relaxed);
    return static_cast<std::int64_t>(budget) >= static_cast<std::int64_t>(cost);
  }

  /// Is there budget for `cost` more bytes? Producer.
  [[nodiscard]] SHARD_ALWAYS_INLINE bool fits(const Tail& tail, std::uint64_t cost) noexcept {
    if (seems_to_fit(tail, cost)) [[likely]] {
      return true;
    }
    fits_until_ = freed_.load(std::memory_order_acquire) + limit_;  // [arena.freed] <- free()
    return seems_to_fit(tail, cost);
  }

  /// Makes the budget look smaller, up to size(). Producer.
  void limit(std::size_t bytes) noexcept {
    fits_until_ += bytes - limit_;
    limit_ = bytes;
  }

  /// Takes a place that fits. Producer.
  static void allocate(Tail& tail, Place place, std::uint64_t cost) noexcept {
    tail.position += place.held;
    tail.allocated.store(tail.allocated.load(std::memory_order_relaxed) + cost,
                         std::memory_order_relaxed);
  }

  /// Asks for what will be written after the block at `place`, since the consumer's core has it: the line a few short events
  /// on, or all of the next block if that is as long as this one. Producer.
  SHARD_ALWAYS_INLINE void prefetch_after(Place place) const noexcept {
    if (place.held <= kCacheLine) [[likely]] {
      prefetch_for_writing(reinterpret_cast<std::uintptr_t>(at(place.offset)) + kAhead);
    } else {
      prefetch_next_block(place.offset, place.held);
    }
  }

  /// Gives back what the oldest records cost. Consumer, after it has copied them.
  void free(std::uint64_t cost) noexcept {
    freed_.store(freed_.load(std::memory_order_relaxed) + cost,
                 std::memory_order_release);  // [arena.freed] -> fits()
  }

  [[nodiscard]] std::byte* at(std::uint32_t offset) const noexcept {
    return reinterpret_cast<std::byte*>(lines_.get()) + offset;
  }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /// Bytes in use, as any thread sees it; between 0 and size().
  [[nodiscard]] std::size_t used(const Tail& tail) const noexcept {
    const auto freed = freed_.load(std::memory_order_acquire);  // first, so that it is not ahead
    const auto used = tail.allocated.load(std::memory_order_relaxed) - freed;
    return used < size_ ? static_cast<std::size_t>(used) : size_;
  }

  /// Gives the memory back; nothing may be allocated or copied afterwards. Both sides.
  void release() noexcept { lines_.reset(); }

 private:
  SHARD_NOINLINE void prefetch_next_block(std::size_t offset, std::size_t held) const noexcept {
    const std::size_t end = std::min(offset + 2 * held, size_);
    for (std::size_t line = offset + held; line < end; line += kCacheLine) {
      prefetch_for_writing(reinterpret_cast<std::uintptr_t>(lines_.get()) + line);
    }
  }

  /// Aligned: blocks of a line, or of a power of two of them, then touch no more lines than they need.
  struct alignas(kCacheLine) Line {
    std::byte bytes[kCacheLine];
  };
  /// How far prefetch_after() looks. At the end of the circle it asks for lines behind it, which are there for that: to begin
  /// anew would cost each push more than a few lines that nobody asked for.
  static constexpr std::size_t kAhead = 512;
  std::unique_ptr<Line[]> lines_;
  std::size_t size_;
  std::size_t limit_;         ///< producer; size_ or less
  std::uint64_t fits_until_;  ///< producer's: freed_ as last seen, and limit_
  alignas(kCacheLine)
      typename Platform::template Atomic<std::uint64_t> freed_;  ///< consumer writes
};

/// memcpy for the sizes that events have: short ones without a call. Sizes of 16 and more are copied
/// in blocks of 16 with the last one overlapping, so no byte outside of either range is touched.
SHARD_ALWAYS_INLINE void copy_bytes(std::byte* to, const std::byte* from,
                                    std::size_t size) noexcept {
  if (size >= 16 && size <= 128) [[likely]] {
    for (std::size_t done = 0; done + 16 <= size; done += 16) {
      std::memcpy(to + done, from + done, 16);
    }
    std::memcpy(to + size - 16, from + size - 16, 16);
  } else if (size != 0) {
    std::memcpy(to, from, size);
  }
}

}  // namespace shard::detail
