#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "shard/detail/shard_core.hpp"
#include "shard/detail/slot_plan.hpp"
#include "shard/ids.hpp"
#include "shard/ledger.hpp"
#include "shard/scaling.hpp"

namespace shard::detail {

/// The one source of truth of a manager's shards: which there are, in which state, which slots (equal ranges of the
/// hash) lead to which, and the counts of those that are gone. Immutable once published.
///
/// Threads: any may read, at once.
template <class Platform>
struct RoutingTable {
  using Core = ShardCore<Platform>;

  struct Member {
    std::shared_ptr<Core> core;
    ShardState state;
  };

  static constexpr std::uint16_t kNoMember = 0xFFFF;

  /// Active, provisioning and draining together; a bound for what a batch sorts by.
  static constexpr std::size_t kMaxMembers = 2 * ManagerOptions::kMaxShards;

  /// As many slots for `shards` members: a power of two, at least 16 for each, at least 4096, so that
  /// the shares of members differ by at most a sixteenth.
  [[nodiscard]] static constexpr std::size_t slots_for(std::size_t shards) noexcept {
    return std::bit_ceil(std::max<std::size_t>(4096, 16 * shards));
  }

  /// The same for a manager with these options: for as many as there can ever be.
  [[nodiscard]] static constexpr std::size_t slots_for(const ManagerOptions& options) noexcept {
    return slots_for(options.scaling ? options.scaling->max_shards : options.shards);
  }

  /// A table that leads nowhere.
  [[nodiscard]] static std::shared_ptr<const RoutingTable> without_members(
      const ManagerOptions& options) {
    auto table = std::make_shared<RoutingTable>();
    table->slots.assign(slots_for(options), kNoMember);
    return table;
  }

  /// The shard of a slot, or nullptr when none is active.
  [[nodiscard]] Core* member_of(std::uint32_t slot) const noexcept {
    const auto index = slots[slot];
    return index == kNoMember ? nullptr : members[index].core.get();
  }

  /// The index of the member of that id, or kNoMember.
  [[nodiscard]] std::uint16_t index_of(ShardId id) const noexcept {
    const auto found = std::find_if(members.begin(), members.end(),
                                    [id](const Member& member) { return member.core->id() == id; });
    return found == members.end() ? kNoMember : static_cast<std::uint16_t>(found - members.begin());
  }

  [[nodiscard]] std::size_t count(ShardState state) const noexcept {
    return static_cast<std::size_t>(
        std::count_if(members.begin(), members.end(),
                      [state](const Member& member) { return member.state == state; }));
  }

  /// Indices of the active members, ascending. Allocates.
  [[nodiscard]] std::vector<std::uint16_t> active() const {
    std::vector<std::uint16_t> indices;
    for (std::size_t i = 0; i < members.size(); ++i) {
      if (members[i].state == ShardState::active) {
        indices.push_back(static_cast<std::uint16_t>(i));
      }
    }
    return indices;
  }

  std::uint64_t version = 1;
  std::vector<std::uint16_t> slots;  ///< index of a member, or kNoMember
  std::vector<Member> members;       ///< in ascending order of ids
  Ledger base;                       ///< the sum of the ledgers of removed shards
};

}  // namespace shard::detail
