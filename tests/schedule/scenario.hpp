#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "shard/detail/manager_impl.hpp"
#include "support/schedule.hpp"

/// What the scenarios of shards and managers share.
namespace shard::test {

using Core = shard::detail::ShardCore<ScheduledPlatform>;
using ManagerCore = shard::detail::ManagerCore<ScheduledPlatform>;
using Table = shard::detail::RoutingTable<ScheduledPlatform>;
using ScheduledManager = BasicManager<ScheduledPlatform>;

inline ManagerOptions small(Backpressure backpressure, std::size_t ring_capacity = 2,
                            std::size_t shards = 1) {
  ManagerOptions options;
  options.shards = shards;
  options.ring_capacity = ring_capacity;
  options.ring_bytes = 4096;
  options.max_payload = 64;
  options.inline_max = 64;
  options.max_key = 16;
  options.backpressure = backpressure;
  options.seed = 1;
  options.time_source = &scheduled_time();
  return options;
}

inline Backpressure block_for_ever() {
  return Backpressure::block(std::chrono::nanoseconds::max());
}

/// The payload of one event: who made it and its number, twice, so that a torn one shows.
inline std::string event_of(int producer, int number) {
  const std::string one{static_cast<char>('A' + static_cast<char>(producer)),
                        static_cast<char>('0' + static_cast<char>(number))};
  return one + one;
}

/// Pops, and fails the scenario when an event is corrupt, comes twice or in the wrong order.
class Consumer {
 public:
  std::size_t pop(Core& core, std::size_t max_events = 100) {
    EventBatch batch;
    core.pop(batch, max_events, 1'000'000);
    for (const auto& event : batch) {
      take(event);
    }
    return batch.size();
  }

  void take(const Event& event) {
    const auto text = event.text();
    require(text.size() == 4 && text.substr(0, 2) == text.substr(2), "an event is corrupt");
    const int producer = text[0] - 'A';
    const int number = text[1] - '0';
    auto [last, first_of_producer] =
        last_number_.try_emplace({event.shard.value, producer}, number);
    require(first_of_producer || number > last->second, "a producer's events are out of order");
    last->second = number;
    auto& shard = shards_[event.shard.value];
    require(event.sequence.value >= shard.next_sequence, "the sequence does not increase");
    require(shard.events == 0 || event.timestamp > shard.timestamp, "the time does not increase");
    shard.skipped += event.sequence.value - shard.next_sequence;
    shard.next_sequence = event.sequence.value + 1;
    shard.timestamp = event.timestamp;
    ++shard.events;
    ++events_;
  }

  [[nodiscard]] std::uint64_t events() const { return events_; }

  /// When all is quiet: pops the rest, and then the laws must hold for this shard, whose only consumer this is.
  void settle(Core& core, std::uint64_t offered) {
    while (pop(core) != 0) {
    }
    const auto ledger = core.ledger();
    auto& shard = shards_[core.id().value];
    require(ledger.offered() == offered, "the offered events do not add up");
    require(ledger.balanced() && ledger.queued == 0, "the accepted events do not add up");
    require(ledger.returned == shard.events, "what was returned is not what was popped");
    // Evictions at the end leave no gap: the newest event is never evicted.
    require(ledger.evicted == shard.skipped, "a gap in the sequence is not a counted eviction");
  }

 private:
  struct PerShard {
    std::uint64_t next_sequence = 0;
    std::uint64_t skipped = 0;
    std::uint64_t events = 0;
    Timestamp timestamp{};
  };
  std::map<std::pair<std::uint32_t, int>, int> last_number_;
  std::map<std::uint32_t, PerShard> shards_;
  std::uint64_t events_ = 0;
};

}  // namespace shard::test
