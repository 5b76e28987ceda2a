#pragma once

#include <cstdint>
#include <type_traits>

namespace shard::detail {

/// What the ring holds of an event. Its bytes are a block in the shard's arena:
///
///     [source identity: 16, if kHasSource] [Buffer node: 8, if kOwned] [key] [payload, unless kOwned]
///
/// Three words, copied word by word: a record that is put together in memory and then copied with wider
/// loads, as compilers do it for a trivial copy, makes those loads wait until the stores have left the core
/// (3 to 4 of the 14 ns of an ingest call).
class Record {
 public:
  static constexpr std::uint16_t kHasKey = 1;
  static constexpr std::uint16_t kHasSource = 2;
  static constexpr std::uint16_t kOwned = 4;

  /// Blocks start at multiples of this.
  static constexpr std::uint32_t kAlignment = 16;

  [[nodiscard]] static constexpr std::uint32_t rounded(std::uint32_t block) noexcept {
    return (block + (kAlignment - 1)) & ~(kAlignment - 1);
  }

  Record() = default;
  Record(const Record& other) noexcept  // NOLINT(modernize-use-equals-default): see above
      : timestamp_(other.timestamp_), place_(other.place_), shape_(other.shape_) {}
  Record& operator=(const Record& other) noexcept = default;
  ~Record() = default;

  /// \param timestamp  nanoseconds since the manager's epoch
  /// \param offset     of the block in the arena
  /// \param held       bytes of the arena: the block, rounded up, and what was skipped before it
  /// \param size       of the payload
  Record(std::uint64_t timestamp, std::uint32_t offset, std::uint32_t held, std::uint32_t size,
         std::uint16_t key_size, std::uint16_t flags) noexcept
      : timestamp_(timestamp),
        place_(offset | std::uint64_t{held} << 32U),
        shape_(size | std::uint64_t{key_size} << 32U | std::uint64_t{flags} << 48U) {}

  [[nodiscard]] std::uint64_t timestamp() const noexcept { return timestamp_; }
  [[nodiscard]] std::uint32_t offset() const noexcept { return static_cast<std::uint32_t>(place_); }
  [[nodiscard]] std::uint32_t held() const noexcept {
    return static_cast<std::uint32_t>(place_ >> 32U);
  }
  [[nodiscard]] std::uint32_t size() const noexcept { return static_cast<std::uint32_t>(shape_); }
  [[nodiscard]] std::uint16_t key_size() const noexcept {
    return static_cast<std::uint16_t>(shape_ >> 32U);
  }
  [[nodiscard]] std::uint16_t flags() const noexcept {
    return static_cast<std::uint16_t>(shape_ >> 48U);
  }
  [[nodiscard]] bool has(std::uint16_t flag) const noexcept { return (flags() & flag) != 0; }

  /// Bytes in front of key and payload.
  [[nodiscard]] std::uint32_t prefix() const noexcept {
    return (has(kHasSource) ? 16U : 0U) + (has(kOwned) ? 8U : 0U);
  }
  /// Bytes of the block, rounded up.
  [[nodiscard]] std::uint32_t block() const noexcept {
    return rounded(prefix() + key_size() + (has(kOwned) ? 0U : size()));
  }
  /// What it counts against the byte budget of its shard.
  [[nodiscard]] std::uint64_t cost() const noexcept {
    return std::uint64_t{held()} + (has(kOwned) ? size() : 0U);
  }

 private:
  std::uint64_t timestamp_;
  std::uint64_t place_;
  std::uint64_t shape_;
};

static_assert(sizeof(Record) == 24 && std::is_trivially_destructible_v<Record>);

}  // namespace shard::detail
