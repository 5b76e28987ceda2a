#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "shard/manager.hpp"
#include "support/books.hpp"
#include "support/manual_clock.hpp"
#include "support/options.hpp"

using shard::Bytes;
using shard::Manager;
using shard::Outcome;
using shard::ShardId;
using shard::Timestamp;
using shard_test::ManualClock;
using shard_test::small_options;

namespace {

shard::ManagerOptions timed(const ManualClock& clock, std::size_t shards, std::size_t ring_capacity,
                            shard::Backpressure mode = {}) {
  auto options = small_options(shards, ring_capacity, mode);
  options.time_source = &clock;
  return options;
}

std::vector<std::uint64_t> timestamps(const shard::Shard& shard) {
  std::vector<std::uint64_t> result;
  for (const auto event : shard.pop_batch()) result.push_back(event.timestamp.nanoseconds);
  return result;
}

/// Ways to offer one event to the only shard.
struct Way {
  const char* name;
  std::function<Outcome(Manager&)> offer;
};

std::vector<Way> ways() {
  return {
      {"ingest", [](Manager& m) { return m.ingest("p"); }},
      {"ingest with a key", [](Manager& m) { return m.ingest("p", shard::Key{"k"}); }},
      {"ingest of a buffer", [](Manager& m) { return m.ingest(shard::Buffer::copy_of("p")); }},
      {"a long payload", [](Manager& m) { return m.ingest(std::string(1500, 'l')); }},
      {"ingest_batch",
       [](Manager& m) {
         const std::array<Bytes, 1> payloads{Bytes("p")};
         std::array<Outcome, 1> outcomes{};
         m.ingest_batch(payloads, outcomes);
         return outcomes[0];
       }},
      {"Producer::ingest", [](Manager& m) { return m.producer().ingest("p"); }},
      {"Shard::try_push", [](Manager& m) { return m.shard(ShardId{0})->try_push("p"); }},
      {"LockedShard::try_push",
       [](Manager& m) {
         auto outcome = Outcome::unrouted;
         m.with_shard(ShardId{0},
                      [&](shard::LockedShard& locked) { outcome = locked.try_push("p"); });
         return outcome;
       }},
  };
}

}  // namespace

TEST_CASE("the first timestamp is zero when the clock has not moved, whatever the uptime",
          "[R-B3]") {
  const auto uptime = GENERATE(std::uint64_t{0}, std::uint64_t{1} << 62U,
                               std::numeric_limits<std::uint64_t>::max());
  const ManualClock clock(uptime);
  Manager manager(timed(clock, 1, 4));
  manager.ingest("first");
  CHECK(manager.now().nanoseconds == 0);
  CHECK(timestamps(*manager.shard(ShardId{0})) == std::vector<std::uint64_t>{0});
}

TEST_CASE(
    "timestamps increase when the clock stands still, and go on from where they are when it "
    "steps back",
    "[R-B1]") {
  ManualClock clock(1000);
  Manager manager(timed(clock, 1, 64));
  const auto shard = *manager.shard(ShardId{0});
  for (int i = 0; i < 3; ++i) manager.ingest("standing still");
  clock.set(1050);
  manager.ingest("moved on");
  clock.set(1020);
  for (int i = 0; i < 2; ++i) manager.ingest("stepped back");
  clock.set(10);
  manager.ingest("stepped back behind the epoch");
  clock.set(1053);
  manager.ingest("caught up, just not");
  clock.set(2000);
  manager.ingest("overtaken");
  CHECK(timestamps(shard) == std::vector<std::uint64_t>{0, 1, 2, 50, 51, 52, 53, 54, 1000});
}

TEST_CASE("every way in stamps by the same clock", "[R-B1]") {
  ManualClock clock(0);
  Manager manager(timed(clock, 1, 64));
  std::vector<std::uint64_t> expected;
  for (const auto& way : ways()) {
    clock.advance(100);
    CHECK(way.offer(manager) == Outcome::accepted);
    CHECK(way.offer(manager) == Outcome::accepted);
    expected.push_back(clock.nanoseconds());
    expected.push_back(clock.nanoseconds() + 1);
    const auto popped = timestamps(*manager.shard(ShardId{0}));
    INFO(way.name);
    CHECK(popped == expected);
    expected.clear();
  }
}

TEST_CASE("a refused event uses up no timestamp", "[R-B1]") {
  const ManualClock clock(0);
  Manager manager(timed(clock, 1, 2));
  const auto shard = *manager.shard(ShardId{0});
  CHECK(manager.ingest("accepted") == Outcome::accepted);
  CHECK(manager.ingest("dropped") == Outcome::dropped_newest);
  CHECK(timestamps(shard) == std::vector<std::uint64_t>{0});
  CHECK(manager.ingest("accepted") == Outcome::accepted);
  CHECK(timestamps(shard) == std::vector<std::uint64_t>{1});
}

TEST_CASE("the shards of a manager share one epoch", "[R-B2]") {
  ManualClock clock(500);
  const auto before = std::chrono::system_clock::now();
  Manager manager(timed(clock, 3, 4));
  const auto after = std::chrono::system_clock::now();
  CHECK(manager.epoch() >= before);
  CHECK(manager.epoch() <= after);
  clock.set(742);
  for (const auto id : manager.shard_ids()) {
    const auto shard = *manager.shard(id);
    CHECK(shard.try_push("p") == Outcome::accepted);
    CHECK(timestamps(shard) == std::vector<std::uint64_t>{242});
  }
  CHECK(manager.now() == Timestamp{242});
}

TEST_CASE("the timestamps of the machine's clock compare between shards", "[R-B2]") {
  Manager manager(small_options(3, 64));
  std::uint64_t last = 0;
  std::size_t back = 0;
  for (int round = 0; round < 20; ++round) {
    for (const auto id : manager.shard_ids()) {
      const auto shard = *manager.shard(id);
      REQUIRE(shard.try_push("p") == Outcome::accepted);
      const auto now = timestamps(shard).at(0);
      back += now < last ? 1U : 0U;
      last = now;
    }
  }
  CHECK(back == 0);
}

TEST_CASE("the last timestamp is used once, then every way answers timestamps_exhausted",
          "[R-B4]") {
  for (const auto& way : ways()) {
    INFO(way.name);
    ManualClock clock(0);
    Manager manager(timed(clock, 1, 8));
    const auto shard = *manager.shard(ShardId{0});
    clock.set(std::numeric_limits<std::uint64_t>::max());
    CHECK(way.offer(manager) == Outcome::accepted);
    CHECK(way.offer(manager) == Outcome::timestamps_exhausted);
    clock.set(0);  // there is no way back
    CHECK(way.offer(manager) == Outcome::timestamps_exhausted);
    CHECK(manager.ledger() == shard::Ledger{.accepted = 1, .rejected_invalid = 2, .queued = 1});
    CHECK(timestamps(shard) == std::vector<std::uint64_t>{Timestamp::max().nanoseconds});
  }
}

TEST_CASE("nothing is evicted for an event that gets no timestamp", "[R-B4]") {
  for (const auto& way : ways()) {
    INFO(way.name);
    ManualClock clock(0);
    Manager manager(timed(clock, 1, 2, shard::Backpressure::drop_oldest()));
    const auto shard = *manager.shard(ShardId{0});
    clock.set(Timestamp::max().nanoseconds);
    REQUIRE(manager.ingest("last") == Outcome::accepted);
    CHECK(way.offer(manager) == Outcome::timestamps_exhausted);
    CHECK(manager.ledger() == shard::Ledger{.accepted = 1, .rejected_invalid = 1, .queued = 1});
    CHECK(shard_test::drain(shard) == std::vector<std::string>{"last"});
  }
}

TEST_CASE("a batch takes the timestamps that are left and no more", "[R-B4]") {
  ManualClock clock(0);
  Manager manager(timed(clock, 1, 64, shard::Backpressure::drop_oldest()));
  clock.set(Timestamp::max().nanoseconds - 2);
  const std::vector<Bytes> payloads(5, Bytes("p"));
  std::vector<Outcome> outcomes(5);
  CHECK(manager.ingest_batch(payloads, outcomes) == 3);
  constexpr auto kYes = Outcome::accepted;
  constexpr auto kNo = Outcome::timestamps_exhausted;
  CHECK(outcomes == std::vector{kYes, kYes, kYes, kNo, kNo});
  CHECK(manager.ledger() == shard::Ledger{.accepted = 3, .rejected_invalid = 2, .queued = 3});
}

TEST_CASE("exhaustion of one shard does not touch the others", "[R-B4]") {
  ManualClock clock(0);
  Manager manager(timed(clock, 2, 8));
  clock.set(Timestamp::max().nanoseconds);
  CHECK(manager.shard(ShardId{0})->try_push("last") == Outcome::accepted);
  CHECK(manager.shard(ShardId{0})->try_push("more") == Outcome::timestamps_exhausted);
  clock.set(0);
  CHECK(manager.shard(ShardId{1})->try_push("fine") == Outcome::accepted);
}

TEST_CASE("a batch reads the clock once per 256 events, over all its shards", "[R-B6]") {
  ManualClock clock(0);
  Manager manager(timed(clock, 3, 2048));
  std::vector<std::string> texts;
  for (int i = 0; i < 1000; ++i) texts.push_back(std::to_string(i));
  const auto payloads = shard_test::views_of(texts);
  const auto readings = [&](std::size_t events) {
    const auto before = clock.readings();
    manager.ingest_batch(std::span(payloads).first(events));
    const auto after = clock.readings();
    shard::EventBatch batch;
    std::size_t unordered = 0;
    for (const auto id : manager.shard_ids()) {
      batch.clear();
      manager.shard(id)->pop_batch_into(batch);
      for (std::size_t i = 1; i < batch.size(); ++i) {
        unordered += batch[i - 1].timestamp < batch[i].timestamp ? 0U : 1U;
      }
    }
    CHECK(unordered == 0);
    return after - before;
  };
  CHECK(readings(256) == 1);
  CHECK(readings(2) == 1);
  CHECK(readings(257) == 2);
  CHECK(readings(1000) == 4);
  CHECK(manager.ledger().rejected_invalid == 0);
}

TEST_CASE("the events of a batch get consecutive timestamps within each shard", "[R-B6][R-B1]") {
  ManualClock clock(0);
  Manager manager(timed(clock, 1, 64));
  clock.set(100);
  const std::vector<Bytes> payloads(4, Bytes("p"));
  CHECK(manager.ingest_batch(payloads) == 4);
  CHECK(manager.producer().ingest_batch(payloads) == 4);
  CHECK(timestamps(*manager.shard(ShardId{0})) ==
        std::vector<std::uint64_t>{100, 101, 102, 103, 104, 105, 106, 107});
}
