#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "shard/batch.hpp"
#include "shard/batcher.hpp"
#include "shard/detail/ready_queue.hpp"
#include "shard/detail/shard_core.hpp"
#include "shard/event_batch.hpp"
#include "shard/latency.hpp"

namespace shard::detail {

/// What a pipeline keeps with a shard: its batcher, and the batch under way. Owned by the shard.
///
/// Threads: whoever has claimed the node. `storage`, `first` and `size` are also read by flush() and close(), under the
///          shard's pop lock: while that is not held, `size` stays as it is, and `storage` where `size` is not 0.
///          Atomics: any may read.
template <class Platform>
struct Lane final : ReadyNode {
  Lane(ShardCore<Platform>& shard, const BatchOptions& options)
      : core(shard),
        batcher(options),
        // Half a shard is enough: the other half is for what comes in while this one is delivered.
        enough_events(std::max<std::size_t>(1, shard.usable_capacity() / 2)),
        enough_bytes(std::min(options.max_bytes, shard.bytes_capacity() / 2)) {}

  ShardCore<Platform>& core;
  AdaptiveBatcher batcher;
  const std::size_t enough_events;
  const std::size_t enough_bytes;

  std::unique_ptr<EventBatch> storage;  ///< of the batch under way; nullptr when there is none
  std::size_t first = 0;                ///< what is left of it: `size` events from here on
  std::size_t size = 0;
  std::size_t taken = 0;  ///< what `size` will be, until that is said

  std::uint32_t attempt = 0;  ///< how often that was tried
  Timestamp first_tried{};
  Timestamp retry_due{};
  bool failing = false;         ///< the last attempt failed
  bool hurried = false;         ///< its wait was cut short once, by close()
  std::uint64_t lost_told = 0;  ///< evictions and drops that the listener knows of

  std::atomic<std::uint64_t> held_since{
      0};  ///< timestamp of the first event of the batch + 1; 0: none
  AtomicLatencyHistogram latency;

  [[nodiscard]] Batch batch(Identity identity) const noexcept {
    return {*storage, first, size, identity};
  }
  [[nodiscard]] static Lane& of(ShardCore<Platform>& core) noexcept {
    return static_cast<Lane&>(*core.node());
  }
};

}  // namespace shard::detail
