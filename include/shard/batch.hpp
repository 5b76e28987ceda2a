#pragma once

#include <cstddef>
#include <cstdint>

#include "shard/event.hpp"
#include "shard/event_batch.hpp"
#include "shard/ids.hpp"

namespace shard {

/// Names the life of one pipeline. (producer id, epoch, shard, sequence) never names two different events, so that a
/// sink can leave out what it has already got when a batch is delivered again.
struct Identity {
  std::uint64_t producer = 0;  ///< PipelineOptions::producer_id, or random
  std::uint64_t epoch = 0;  ///< another one for each pipeline, in this process and after a restart

  auto operator<=>(const Identity&) const = default;
};

/// What an adapter is to deliver: events of one shard, in order, in storage that is theirs until the call returns.
/// Never empty. A batch that is retried is the same storage with the same events, less those that are settled.
///
/// Threads: any number may read it at once.
class Batch {
 public:
  /// The events `[first, first + size)` of `events`, which are of one shard. For the library, and for tests of
  /// adapters.
  Batch(const EventBatch& events, std::size_t first, std::size_t size, Identity identity) noexcept
      : events_(&events), first_(first), size_(size), identity_(identity) {}
  Batch(const EventBatch& events, Identity identity) noexcept
      : Batch(events, 0, events.size(), identity) {}

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }

  /// The event at `index` < size(). Constant time.
  [[nodiscard]] Event operator[](std::size_t index) const noexcept {
    return (*events_)[first_ + index];
  }
  [[nodiscard]] EventBatch::Iterator begin() const noexcept { return {events_, first_}; }
  [[nodiscard]] EventBatch::Iterator end() const noexcept { return {events_, first_ + size_}; }

  [[nodiscard]] ShardId shard() const noexcept { return (*this)[0].shard; }
  [[nodiscard]] Identity identity() const noexcept { return identity_; }

  /// The sequence numbers of the first and of the last event. Those between them grow strictly; gaps are events that
  /// were evicted, or settled in an earlier attempt.
  [[nodiscard]] Sequence first_sequence() const noexcept { return (*this)[0].sequence; }
  [[nodiscard]] Sequence last_sequence() const noexcept { return (*this)[size_ - 1].sequence; }

  /// The sum of the payload sizes. Linear.
  [[nodiscard]] std::size_t payload_bytes() const noexcept {
    std::size_t bytes = 0;
    for (const auto event : *this) {
      bytes += event.payload.size();
    }
    return bytes;
  }

  /// Some of it: `count` events from `first` on.
  [[nodiscard]] Batch part(std::size_t first, std::size_t count) const noexcept {
    return {*events_, first_ + first, count, identity_};
  }

 private:
  const EventBatch* events_;
  std::size_t first_;
  std::size_t size_;
  Identity identity_;
};

}  // namespace shard
