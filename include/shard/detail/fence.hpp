#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include "shard/detail/platform.hpp"

namespace shard::detail {

template <class Platform>
class ShardCore;

/// A place in the order of a shard that nothing passes until another shard, the source, has got past a place in its
/// own order. It keeps the order of keys whose slots move from the source to this shard: what came in before the move
/// leaves the source before anything that came in after it leaves here.
///
/// Positions number the pushed events and the fences of a shard alike, so that a fence counts as something that has not
/// left yet: an event that moves twice waits for the first fence too.
template <class Platform>
struct Fence {
  static constexpr std::uint64_t kUnresolved = std::numeric_limits<std::uint64_t>::max();

  explicit Fence(std::shared_ptr<ShardCore<Platform>> waits_for) : source(std::move(waits_for)) {}

  const std::shared_ptr<ShardCore<Platform>> source;  ///< kept alive until the fence is passed
  std::uint64_t event = 0;     ///< push number of the first event behind it; set when it is placed
  std::uint64_t position = 0;  ///< its own; set when it is placed
  std::unique_ptr<Fence> next;

  /// The position that the source's watermark has to reach, once that is known.
  typename Platform::template Atomic<std::uint64_t> until{kUnresolved};
};

}  // namespace shard::detail
