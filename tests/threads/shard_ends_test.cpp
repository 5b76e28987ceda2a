// Both ends of one shard at once, by every public way to reach them.

#include <array>
#include <atomic>
#include <barrier>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "shard/manager.hpp"
#include "support/misuse_recorder.hpp"
#include "support/options.hpp"

using shard::Bytes;
using shard::Outcome;
using shard::ShardId;

namespace {

/// Who sent it and as its which; the check tells corruption from all else.
struct Payload {
  std::uint32_t producer;
  std::uint32_t number;
  std::uint64_t check;

  static Payload make(std::size_t producer, std::size_t number) {
    Payload payload{static_cast<std::uint32_t>(producer), static_cast<std::uint32_t>(number), 0};
    payload.check = payload.expected_check();
    return payload;
  }
  [[nodiscard]] std::uint64_t expected_check() const {
    return (std::uint64_t{producer} << 32U | number) * 0x9E3779B97F4A7C15U;
  }
  [[nodiscard]] Bytes bytes() const {
    return {reinterpret_cast<const std::byte*>(this), sizeof *this};
  }
};

constexpr std::size_t kProducers = 3;
constexpr std::size_t kEvents = 6'000;  // of each producer; a multiple of what one round offers
constexpr std::size_t kPerRound = 6;

/// What consumers have found wrong, in atomics, because Catch's checks are for one thread.
struct Faults {
  std::atomic<std::size_t> corrupted{0};
  std::atomic<std::size_t> reordered{0};
  std::atomic<std::size_t> duplicated{0};
};

/// Which events have come out. Shared by all consumers.
class Seen {
 public:
  bool first_time(const Payload& payload) {
    return events_[payload.producer * kEvents + payload.number].fetch_add(
               1, std::memory_order_relaxed) == 0;
  }
  [[nodiscard]] std::size_t count() const {
    std::size_t count = 0;
    for (const auto& event : events_) count += event.load(std::memory_order_relaxed) != 0 ? 1U : 0U;
    return count;
  }

 private:
  std::vector<std::atomic<std::uint8_t>> events_ =
      std::vector<std::atomic<std::uint8_t>>(kProducers * kEvents);
};

/// Looks at what one consumer pops: its events of each producer are in order, though not all of them.
class Inspector {
 public:
  Inspector(Faults& faults, Seen& seen) : faults_(faults), seen_(seen) {}

  void look_at(const shard::EventBatch& batch) {
    for (const auto event : batch) {
      Payload payload{};
      if (event.payload.size() != sizeof payload) {
        ++faults_.corrupted;
        continue;
      }
      std::memcpy(&payload, event.payload.data(), sizeof payload);
      if (payload.check != payload.expected_check() || payload.producer >= kProducers ||
          payload.number >= kEvents) {
        ++faults_.corrupted;
        continue;
      }
      auto& next = next_[payload.producer];
      if (payload.number < next || event.sequence.value < next_sequence_ ||
          event.timestamp.nanoseconds < next_timestamp_) {
        ++faults_.reordered;
      }
      next = payload.number + 1;
      next_sequence_ = event.sequence.value + 1;
      next_timestamp_ = event.timestamp.nanoseconds + 1;
      if (!seen_.first_time(payload)) ++faults_.duplicated;
    }
  }

 private:
  Faults& faults_;
  Seen& seen_;
  std::array<std::uint32_t, kProducers> next_{};
  std::uint64_t next_sequence_ = 0;
  std::uint64_t next_timestamp_ = 0;
};

/// Offers kPerRound events, one after the other, each by another way; how many were accepted.
std::size_t offer_round(shard::Manager& manager, shard::Producer& handle, const shard::Shard& shard,
                        std::size_t producer, std::size_t number) {
  std::array<Payload, kPerRound> payloads{};
  for (std::size_t i = 0; i < kPerRound; ++i) payloads[i] = Payload::make(producer, number + i);
  std::array<Outcome, kPerRound> outcomes{};
  outcomes[0] = manager.ingest(payloads[0].bytes());
  outcomes[1] = handle.ingest(payloads[1].bytes());
  outcomes[2] = shard.try_push(payloads[2].bytes());
  const std::array<Bytes, 2> batch{payloads[3].bytes(), payloads[4].bytes()};
  manager.ingest_batch(batch, std::span(outcomes).subspan(3, 2));
  manager.with_shard(ShardId{0}, [&](shard::LockedShard& locked) {
    outcomes[5] = locked.try_push(payloads[5].bytes());
  });
  std::size_t accepted = 0;
  for (const auto outcome : outcomes) accepted += outcome == Outcome::accepted ? 1U : 0U;
  return accepted;
}

}  // namespace

TEST_CASE("no public way lets threads corrupt a ring, whichever of them meet at its ends",
          "[R-A1][R-A2][R-A6][R-A12]") {
  const auto mode = GENERATE(values<shard::Backpressure>({shard::Backpressure::drop_oldest(),
                                                          shard::Backpressure::drop_newest(),
                                                          shard::Backpressure::sample(2)}));
  INFO(to_string(mode.mode));
  const shard_test::MisuseRecorder misuse;
  auto options = shard_test::small_options(1, 16, mode);
  shard::Manager manager(options);
  const auto shard = *manager.shard(ShardId{0});
  Faults faults;
  Seen seen;
  std::atomic<std::size_t> accepted{0};
  std::atomic<std::size_t> popped{0};
  std::atomic<std::size_t> out_of_range{0};
  std::atomic<std::size_t> producing{kProducers};
  std::barrier start(kProducers + 3);

  std::vector<std::thread> threads;
  for (std::size_t p = 0; p < kProducers; ++p) {
    threads.emplace_back([&, p] {
      auto handle = manager.producer();
      std::size_t mine = 0;
      start.arrive_and_wait();
      for (std::size_t n = 0; n < kEvents; n += kPerRound) {
        mine += offer_round(manager, handle, shard, p, n);
      }
      accepted += mine;
      --producing;
    });
  }
  const auto consume = [&](const auto& pop) {
    Inspector inspector(faults, seen);
    shard::EventBatch batch;
    start.arrive_and_wait();
    for (bool last = false; !last;) {
      last = producing == 0;  // looked at first: then a pass that finds nothing has missed nothing
      do {
        batch.clear();
        pop(batch);
        inspector.look_at(batch);
        popped += batch.size();
      } while (!batch.empty());
    }
  };
  threads.emplace_back(
      [&] { consume([&](shard::EventBatch& batch) { shard.pop_batch_into(batch, 5); }); });
  threads.emplace_back([&] {
    consume([&](shard::EventBatch& batch) {
      manager.with_shard(ShardId{0}, [&](shard::LockedShard& locked) {
        locked.pop_batch_into(batch, 3);
        out_of_range += locked.len() > locked.usable_capacity() ? 1U : 0U;
      });
    });
  });
  threads.emplace_back([&] {  // looks on
    start.arrive_and_wait();
    while (producing != 0) {
      const auto fill = shard.fill_ratio();
      const auto ledger = shard.ledger();
      const bool fine = shard.len() <= shard.usable_capacity() && fill >= 0 && fill <= 1 &&
                        ledger.queued <= shard.usable_capacity() &&
                        ledger.returned + ledger.evicted <= ledger.accepted;
      out_of_range += fine ? 0U : 1U;
    }
  });
  for (auto& thread : threads) thread.join();

  CHECK(misuse.count() == 0);
  CHECK(faults.corrupted == 0);
  CHECK(faults.reordered == 0);
  CHECK(faults.duplicated == 0);
  CHECK(out_of_range == 0);
  CHECK(shard.is_empty());
  const auto ledger = shard.ledger();
  CHECK(ledger.offered() == kProducers * kEvents);
  CHECK(ledger.accepted == accepted);
  CHECK(ledger.returned == popped);
  CHECK(ledger.evicted == accepted - popped);
  CHECK(seen.count() == popped);
}
