#pragma once

#include <chrono>
#include <compare>
#include <concepts>
#include <cstdint>
#include <limits>

namespace shard {

/// A number that names one kind of thing and does not convert to another kind.
template <class Tag, std::unsigned_integral Rep>
struct StrongId {
  Rep value{};
  auto operator<=>(const StrongId&) const = default;
};

/// Names one shard of one manager. Never reused within the life of that manager.
using ShardId = StrongId<struct ShardIdTag, std::uint32_t>;

/// The push number of an event in its shard: 0, 1, 2, ... in the order in which they were accepted.
/// A gap in what a consumer pops is exactly a counted eviction.
using Sequence = StrongId<struct SequenceTag, std::uint64_t>;

/// When an event was accepted: nanoseconds since the epoch of its manager (see Manager::epoch()).
/// Strictly increasing within a shard; comparable between the shards of a manager.
struct Timestamp {
  std::uint64_t nanoseconds{};

  auto operator<=>(const Timestamp&) const = default;

  [[nodiscard]] constexpr std::chrono::nanoseconds since_epoch() const noexcept {
    return std::chrono::nanoseconds{static_cast<std::int64_t>(nanoseconds)};
  }

  /// The last one there is, 292 years after the epoch; a shard that has reached it accepts no more
  /// (Outcome::timestamps_exhausted). Half of the range, so that it converts to std::chrono.
  [[nodiscard]] static constexpr Timestamp max() noexcept {
    return {static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())};
  }

  /// The time `span` after this one, at most max().
  [[nodiscard]] constexpr Timestamp after(std::chrono::nanoseconds span) const noexcept {
    const auto add = span.count() < 0 ? 0U : static_cast<std::uint64_t>(span.count());
    return add > max().nanoseconds - nanoseconds ? max() : Timestamp{nanoseconds + add};
  }
};

}  // namespace shard
