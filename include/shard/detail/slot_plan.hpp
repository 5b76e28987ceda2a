#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "shard/detail/export.hpp"

/// Which slots of a routing table go where when shards come, go or are loaded unevenly.
///
/// Slots hold the index of a member, or kNowhere. Every function is pure and deterministic, changes no
/// more slots than it says, and returns the new slots; their number is a power of two, at least 4096
/// and 16 times the members, which bounds the rounding below.
///
/// Threads: any, at once. O(slots + members log members) unless said otherwise.
namespace shard::detail::slot_plan {

using Member = std::uint16_t;
using Slots = std::vector<Member>;

inline constexpr Member kNowhere = 0xFFFF;

/// balance() plans no member more than this multiple of its fair share of the slots.
inline constexpr double kMostSlots = 2;

/// balance() takes slots from a member with more than this multiple of its fair share of the load. Less
/// than two, so that a share which fluctuates stays below two.
inline constexpr double kMostLoad = 1.75;

/// balance() gives no more slots to a member with this multiple of its fair share of the load. Less than
/// kMostLoad, so that what was taken for too much load is not given back.
inline constexpr double kEnoughLoad = 1.5;

/// All slots in equal, contiguous ranges; slot s goes to members[floor(s * n / slots)], which is the
/// multiply-shift reduction of the hash. Without members every slot leads nowhere.
[[nodiscard]] SHARD_EXPORT Slots even(std::size_t slot_count, std::span<const Member> members);

/// The newcomer gets floor(slots / n), n counting it too, from each donor in proportion to what it
/// has; even shares stay even (they differ by one at most). No slot moves between the others. Slots
/// that lead nowhere go to the newcomer as well.
/// \param donors  the other active members
[[nodiscard]] SHARD_EXPORT Slots join(Slots slots, std::span<const Member> donors, Member newcomer);

/// The leaver's slots, each to the member that then has the fewest: even shares stay even. No slot
/// moves between the others. Without others they lead nowhere.
/// \param others  the members that stay active
[[nodiscard]] SHARD_EXPORT Slots leave(Slots slots, Member leaver, std::span<const Member> others);

/// Moves at most max_moves slots from members above their target to members below it, where a target is
/// one slot plus a share of the rest in proportion to the weight, at most kMostSlots fair shares; so a
/// share is a continuous and bounded function of the weights, and every member gets some traffic.
/// Each move brings the shares closer to the targets (by the sum of squares), so repeating it
/// converges without overshooting, to within rounding, where nothing moves.
///
/// With `slot_load` a member with more than kMostLoad times the mean load gets a lower target, in
/// proportion, and keeps its hottest slot: it ends with at most that share, or with that slot alone.
/// One with kEnoughLoad times the mean gets no more.
///
/// Slots that lead nowhere, or to a member that is not in the list, are given away first, all of them.
/// \param members    the active members
/// \param weights    one for each of them, 0 .. 1; what is outside counts as the nearest, NaN as 0
/// \param slot_load  one for each slot: events per second, or any other measure; empty if unknown
[[nodiscard]] SHARD_EXPORT Slots balance(Slots slots, std::span<const Member> members,
                                         std::span<const double> weights, std::size_t max_moves,
                                         std::span<const double> slot_load = {});

/// The slots of `from` that should go to `to`, at most max_moves, so that their loads come closer: the
/// hottest that fit first. `from` stays the more loaded one, so nothing is moved back, and a single
/// slot hotter than all else stays where it is (and what else is there leaves). Where both
/// drain equally fast it is the expected wait that evens out.
/// \param slot_load  as for balance(), one for each slot
[[nodiscard]] SHARD_EXPORT std::vector<std::uint16_t> hot_moves(std::span<const Member> slots,
                                                                std::span<const double> slot_load,
                                                                Member from, Member to,
                                                                std::size_t max_moves);

}  // namespace shard::detail::slot_plan
