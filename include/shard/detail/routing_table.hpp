#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "shard/detail/shard_core.hpp"
#include "shard/ids.hpp"

namespace shard::detail {

/// Which shard an event goes to: slots of equal ranges of the hash, each with the index of a member.
/// Immutable once published.
///
/// Threads: any may read, at once.
template <class Platform>
struct RoutingTable {
  using Core = ShardCore<Platform>;

  static constexpr std::uint16_t kNoMember = 0xFFFF;

  /// As many slots for `shards` members: a power of two, at least 16 for each, at least 4096, so that
  /// the shares of members differ by at most a sixteenth.
  [[nodiscard]] static constexpr std::size_t slots_for(std::size_t shards) noexcept {
    return std::bit_ceil(std::max<std::size_t>(4096, 16 * shards));
  }

  /// A table that spreads its slots evenly over `members`: slot s goes to floor(s * n / slots), which is
  /// the multiply-shift reduction and has no modulo bias. Without members every slot leads nowhere.
  RoutingTable(std::uint64_t table_version, std::vector<std::shared_ptr<Core>> table_members,
               std::size_t slot_count)
      : version(table_version), slots(slot_count, kNoMember), members(std::move(table_members)) {
    if (!members.empty()) {
      for (std::size_t slot = 0; slot < slot_count; ++slot) {
        slots[slot] = static_cast<std::uint16_t>(slot * members.size() / slot_count);
      }
    }
  }

  /// The member of a slot, or nullptr when no shard is active.
  [[nodiscard]] Core* member_of(std::uint32_t slot) const noexcept {
    const auto index = slots[slot];
    return index == kNoMember ? nullptr : members[index].get();
  }

  const std::uint64_t version;
  std::vector<std::uint16_t> slots;
  std::vector<std::shared_ptr<Core>> members;
};

}  // namespace shard::detail
