// Real threads: producers in every way of ingesting, an operator who changes the shards all the time, and a consumer.
// Short, for ThreadSanitizer; tests/torture.cpp is the long run.

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <latch>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "shard/manager.hpp"
#include "support/books.hpp"
#include "support/failures.hpp"

namespace {

using shard::Backpressure;
using shard::BackpressureMode;
using shard::Bytes;
using shard::Manager;
using shard::Outcome;
using shard::ScalingError;
using shard::ShardState;
using shard_test::Failures;
using shard_test::Tally;

// ThreadSanitizer slows all this down by a factor of ten or more.
#if defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kScale = 1;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr std::uint64_t kScale = 1;
#else
constexpr std::uint64_t kScale = 2;
#endif
#else
constexpr std::uint64_t kScale = 2;
#endif

constexpr std::size_t kProducers = 4;
constexpr std::size_t kKeys = 16;  // of each producer
constexpr std::size_t kBatch = 24;
constexpr std::uint64_t kEventsEach = 6'000 * kScale;
constexpr std::uint64_t kChanges = 100 * kScale;

/// What every event says of itself; the number counts what this producer has got in with this key.
struct Stamp {
  std::uint64_t producer;
  std::uint64_t key;
  std::uint64_t number;

  [[nodiscard]] Bytes bytes() const {
    return {reinterpret_cast<const std::byte*>(this), sizeof *this};
  }
};

/// What one producer does, and what it was told.
class Producing {
 public:
  Producing(Manager& manager, std::uint64_t producer) : manager_(manager), producer_(producer) {
    for (std::size_t key = 0; key < kKeys; ++key) {
      keys_[key] = std::to_string(producer) + "/" + std::to_string(key);
    }
  }

  void single_events() {
    for (std::uint64_t i = 0; i < kEventsEach; ++i) {
      const auto key = next_key();
      told(key, manager_.ingest(stamp(key).bytes(), shard::Key{keys_[key]}));
    }
  }

  void by_handle() {
    auto handle = manager_.producer();
    for (std::uint64_t i = 0; i < kEventsEach; ++i) {
      const auto key = next_key();
      told(key, handle.ingest(stamp(key).bytes(), shard::Key{keys_[key]}));
    }
  }

  /// Without a key it is the order of the producer that holds: that of one key here.
  void by_handle_without_key() {
    auto handle = manager_.producer();
    std::array<Stamp, kBatch> stamps{};
    std::array<Bytes, kBatch> payloads;
    std::array<Outcome, kBatch> outcomes{};
    for (std::uint64_t i = 0; i < kEventsEach; i += kBatch) {
      for (std::size_t e = 0; e < kBatch; ++e) {
        stamps[e] = {producer_, 0, numbers_[0] + e};
        payloads[e] = stamps[e].bytes();
      }
      static_cast<void>(handle.ingest_batch(payloads, outcomes));
      for (const auto outcome : outcomes) {
        told(0, outcome);
      }
      told(0, handle.ingest(stamp(0).bytes()));
    }
  }

  void batches() {
    std::array<Stamp, kBatch> stamps{};
    std::array<shard::RawEvent, kBatch> events;
    std::array<Outcome, kBatch> outcomes{};
    for (std::uint64_t i = 0; i < kEventsEach; i += kBatch) {
      auto numbers = numbers_;
      for (std::size_t e = 0; e < kBatch; ++e) {
        const auto key = next_key();
        stamps[e] = {producer_, key, numbers[key]++};
        events[e] = manager_.raw_event(stamps[e].bytes(), shard::Key{keys_[key]});
      }
      static_cast<void>(manager_.ingest_raw_batch(events, outcomes));
      for (std::size_t e = 0; e < kBatch; ++e) {
        told(stamps[e].key, outcomes[e]);
      }
    }
  }

  [[nodiscard]] const Tally& tally() const { return tally_; }
  [[nodiscard]] std::uint64_t offered() const { return offered_; }

 private:
  [[nodiscard]] std::size_t next_key() noexcept { return turn_++ * 7 % kKeys; }
  [[nodiscard]] Stamp stamp(std::size_t key) const { return {producer_, key, numbers_[key]}; }
  void told(std::size_t key, Outcome outcome) {
    ++offered_;
    numbers_[key] += tally_.saw(outcome) == Outcome::accepted ? 1U : 0U;
  }

  Manager& manager_;
  const std::uint64_t producer_;
  std::array<std::string, kKeys> keys_;
  std::array<std::uint64_t, kKeys> numbers_{};
  std::size_t turn_ = 0;
  std::uint64_t offered_ = 0;
  Tally tally_;
};

/// What has come out. One thread at a time.
class Seen {
 public:
  Seen(bool may_skip, Failures& failures) : may_skip_(may_skip), failures_(failures) {}

  void look_at(shard::EventBatch& batch) {
    for (const auto event : batch) {
      Stamp stamp{};
      if (!failures_.check(event.payload.size() == sizeof stamp, "an event has another size")) {
        continue;
      }
      std::memcpy(&stamp, event.payload.data(), sizeof stamp);
      if (!failures_.check(stamp.producer < kProducers && stamp.key < kKeys,
                           "an event is corrupt")) {
        continue;
      }
      auto& next = next_[stamp.producer][stamp.key];
      failures_.check(stamp.number >= next, "a key's event came behind a younger one, or twice");
      failures_.check(may_skip_ || stamp.number <= next,
                      "a key's event came before an older one, or that was lost");
      next = stamp.number + 1;
      ++events_;
    }
    batch.clear();
  }
  [[nodiscard]] std::uint64_t events() const { return events_; }

 private:
  const bool may_skip_;
  Failures& failures_;
  std::array<std::array<std::uint64_t, kKeys>, kProducers> next_{};
  std::uint64_t events_ = 0;
};

enum class Leaving { drained, removed };

/// Changes the shards until the producers are done and it has made enough changes; how many it made.
std::uint64_t operate(Manager& manager, Leaving leaving, std::uint64_t seed,
                      const std::atomic<std::size_t>& producing, std::mutex& popping, Seen& seen,
                      Failures& failures) {
  std::mt19937_64 random(seed);
  shard::EventBatch queued;
  std::uint64_t changes = 0;
  while (producing.load() != 0 || changes < kChanges) {
    const auto ids = manager.shard_ids();
    const auto id = ids[random() % ids.size()];
    switch (random() % 5) {
      case 0:
        changes += manager.add_shard_force() ? 1U : 0U;
        break;
      case 1:
      case 2:
        for (const auto each : ids) {
          changes +=
              manager.shard_state(each) == ShardState::provisioning && manager.activate_shard(each)
                  ? 1U
                  : 0U;
        }
        break;
      case 3:
        if (leaving == Leaving::drained) {
          changes += manager.drain_shard(id) ? 1U : 0U;
        } else {
          // What is handed out here and what the consumer pops has one order only if one of them waits.
          const std::lock_guard lock(popping);
          const auto removed = manager.remove_shard(id, queued);
          seen.look_at(queued);
          changes += removed ? 1U : 0U;
          failures.check(removed || removed.error() == ScalingError::at_min ||
                             removed.error() == ScalingError::fenced,
                         "a shard was not removed");
        }
        break;
      default:
        manager.finalize_draining();
        manager.remove_stopped_shards();
        break;
    }
    std::this_thread::yield();
  }
  return changes;
}

TEST_CASE("every key keeps its order and every event is accounted for while shards come and go",
          "[R-D9][R-D12][R-D15][R-E4][R-E5]") {
  const auto mode = GENERATE(BackpressureMode::block, BackpressureMode::drop_oldest);
  const auto leaving = GENERATE(Leaving::drained, Leaving::removed);
  CAPTURE(to_string(mode), leaving == Leaving::removed);
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);

  auto backpressure = Backpressure::block(std::chrono::nanoseconds::max());
  backpressure.mode = mode;
  shard::ScalingPolicy policy;
  policy.min_shards = 2;
  policy.max_shards = 6;
  Manager manager{{.shards = 3,
                   .ring_capacity = 64,
                   .ring_bytes = 4096,
                   .max_payload = 512,
                   .inline_max = 512,
                   .max_key = 64,
                   .backpressure = backpressure,
                   .scaling = policy,
                   .routing = shard::Routing::keyed}};
  Failures failures;
  Seen seen(mode == BackpressureMode::drop_oldest, failures);
  std::mutex popping;
  std::vector<Producing> producings;
  for (std::uint64_t producer = 0; producer < kProducers; ++producer) {
    producings.emplace_back(manager, producer);
  }
  constexpr std::array kWays{&Producing::single_events, &Producing::batches, &Producing::by_handle,
                             &Producing::by_handle_without_key};
  std::atomic<std::size_t> producing{kProducers};
  std::atomic<bool> operating{true};
  std::uint64_t changes = 0;
  std::latch start(kProducers + 2);
  std::vector<std::thread> threads;
  for (std::size_t producer = 0; producer < kProducers; ++producer) {
    threads.emplace_back([&, producer] {
      start.arrive_and_wait();
      (producings[producer].*kWays[producer])();
      --producing;
    });
  }
  threads.emplace_back([&] {
    start.arrive_and_wait();
    changes = operate(manager, leaving, seed, producing, popping, seen, failures);
    operating = false;
  });
  threads.emplace_back([&] {
    start.arrive_and_wait();
    shard::EventBatch batch;
    for (bool last = false; !last;) {
      last =
          !operating.load();  // looked at first: then a pass that finds nothing has missed nothing
      for (const auto id : manager.shard_ids()) {
        const auto shard = manager.shard(id);
        if (!shard) {
          continue;
        }
        const auto lock = leaving == Leaving::removed ? std::unique_lock(popping)
                                                      : std::unique_lock<std::mutex>();
        last = shard->pop_batch_into(batch, 50) == 0 && last;
        seen.look_at(batch);
      }
    }
  });
  for (auto& thread : threads) {
    thread.join();
  }

  CHECK(failures.text() == "");
  CHECK(changes >= kChanges);
  Tally tally;
  std::uint64_t offered = 0;
  for (const auto& each : producings) {
    tally += each.tally();
    offered += each.offered();
  }
  const auto ledger = manager.ledger();
  shard::Ledger expected;
  expected.accepted = offered;  // neither mode refuses
  expected.returned = seen.events();
  expected.evicted = mode == BackpressureMode::drop_oldest ? offered - seen.events() : 0;
  CHECK(ledger == expected);
  CHECK(tally.ledger().accepted == offered);
  if (mode == BackpressureMode::block) {
    CHECK(seen.events() == offered);
  }

  // With everything popped every drain ends, at once.
  manager.finalize_draining();
  manager.remove_stopped_shards();
  for (const auto id : manager.shard_ids()) {
    CHECK(manager.shard_state(id) != ShardState::draining);
  }
  CHECK(manager.ledger() == ledger);
}

}  // namespace
