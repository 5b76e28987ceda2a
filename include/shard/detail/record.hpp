#pragma once

#include <cstdint>
#include <type_traits>

namespace shard::detail {

/// What the ring holds of an event. Its bytes are a block in the shard's arena:
///
///     [source identity: 16, if kHasSource] [Buffer node: 8, if kOwned] [key] [payload, unless kOwned]
struct Record {
  /// Blocks start at multiples of this.
  static constexpr std::uint32_t kAlignment = 16;

  [[nodiscard]] static constexpr std::uint32_t rounded(std::uint32_t block) noexcept {
    return (block + (kAlignment - 1)) & ~(kAlignment - 1);
  }

  static constexpr std::uint16_t kHasKey = 1;
  static constexpr std::uint16_t kHasSource = 2;
  static constexpr std::uint16_t kOwned = 4;

  std::uint64_t timestamp;  ///< nanoseconds since the manager's epoch
  std::uint32_t offset;     ///< of the block
  std::uint32_t
      held;  ///< bytes of the arena: the block, rounded up, and what was skipped before it
  std::uint32_t size;  ///< of the payload
  std::uint16_t key_size;
  std::uint16_t flags;

  /// Bytes in front of key and payload.
  [[nodiscard]] std::uint32_t prefix() const noexcept {
    return ((flags & kHasSource) != 0 ? 16U : 0U) + ((flags & kOwned) != 0 ? 8U : 0U);
  }
  /// Bytes of the block, rounded up.
  [[nodiscard]] std::uint32_t block() const noexcept {
    return rounded(prefix() + key_size + ((flags & kOwned) != 0 ? 0U : size));
  }
  /// What it counts against the byte budget of its shard.
  [[nodiscard]] std::uint64_t cost() const noexcept {
    return std::uint64_t{held} + ((flags & kOwned) != 0 ? size : 0U);
  }
};

static_assert(sizeof(Record) == 24 && std::is_trivially_copyable_v<Record>);

}  // namespace shard::detail
