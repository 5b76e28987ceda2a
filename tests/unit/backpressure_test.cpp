#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "shard/json.hpp"
#include "shard/manager.hpp"
#include "support/books.hpp"
#include "support/manual_clock.hpp"
#include "support/scripted_clock.hpp"

namespace {

using shard::Backpressure;
using shard::Bytes;
using shard::Manager;
using shard::ManagerOptions;
using shard::Outcome;
using shard::ShardId;
using shard_test::drain;
using shard_test::ManualClock;
using shard_test::payloads_for;
using shard_test::ScriptedClock;
using shard_test::Tally;
using shard_test::views_of;
using namespace std::chrono_literals;

constexpr ShardId kFirst{0};
constexpr std::size_t kFits = 3;  // into a ring of 4

ManagerOptions small_shards(Backpressure backpressure, std::size_t shards = 1) {
  return {.shards = shards,
          .ring_capacity = kFits + 1,
          .ring_bytes = 4096,
          .max_payload = 2048,
          .inline_max = 1024,
          .backpressure = backpressure,
          .seed = 42};
}

/// A manager of one shard and every way to offer an event to it.
struct Door {
  explicit Door(const ManagerOptions& options)
      : manager(options), producer(manager.producer()), handle(*manager.shard(kFirst)) {}
  Manager manager;
  shard::Producer producer;
  shard::Shard handle;
};

struct Way {
  const char* name;
  bool waits;  ///< in block mode
  Outcome (*offer)(Door&, const std::string&);
};

template <class Ingest>
Outcome only_one(const Ingest& ingest) {
  std::array<Outcome, 1> outcomes{Outcome::unrouted};
  const std::size_t accepted = ingest(std::span<Outcome>(outcomes));
  // The two answers of a batch call must agree; unrouted is what no call here can say.
  return accepted == (outcomes[0] == Outcome::accepted ? 1U : 0U) ? outcomes[0] : Outcome::unrouted;
}

constexpr std::array kWays{
    Way{"ingest", true,
        [](Door& door, const std::string& text) { return door.manager.ingest(text); }},
    Way{"ingest with a key and a source", true,
        [](Door& door, const std::string& text) {
          return door.manager.ingest(text, shard::Key{"key"}, shard::SourceIdentity{1, 2});
        }},
    Way{"ingest_raw", true,
        [](Door& door, const std::string& text) {
          return door.manager.ingest_raw(door.manager.raw_event(text));
        }},
    Way{"ingest a buffer", true,
        [](Door& door, const std::string& text) {
          auto buffer = shard::Buffer::adopt(text);
          const auto outcome = door.manager.ingest(std::move(buffer));
          // Who is refused still has the bytes.
          const Bytes left = outcome == Outcome::accepted ? Bytes{} : Bytes{text};
          return buffer.bytes() == left ? outcome : Outcome::unrouted;
        }},
    Way{"ingest_batch", true,
        [](Door& door, const std::string& text) {
          const std::array<Bytes, 1> payloads{text};
          return only_one([&](auto out) { return door.manager.ingest_batch(payloads, out); });
        }},
    Way{"ingest_raw_batch", true,
        [](Door& door, const std::string& text) {
          const std::array events{door.manager.raw_event(text)};
          return only_one([&](auto out) { return door.manager.ingest_raw_batch(events, out); });
        }},
    Way{"ingest_json", true,
        [](Door& door, const std::string& text) { return shard::ingest_json(door.manager, text); }},
    Way{"a producer's ingest", true,
        [](Door& door, const std::string& text) { return door.producer.ingest(text); }},
    Way{"a producer's ingest_raw", true,
        [](Door& door, const std::string& text) {
          return door.producer.ingest_raw(door.manager.raw_event(text, shard::Key{"key"}));
        }},
    Way{"a producer's ingest_batch", true,
        [](Door& door, const std::string& text) {
          const std::array<Bytes, 1> payloads{text};
          return only_one([&](auto out) { return door.producer.ingest_batch(payloads, out); });
        }},
    Way{"a producer's ingest_json", true,
        [](Door& door, const std::string& text) {
          return shard::ingest_json(door.producer, text);
        }},
    Way{"a handle's try_push", false,
        [](Door& door, const std::string& text) { return door.handle.try_push(text); }},
    Way{"a handle's try_push with a key", false,
        [](Door& door, const std::string& text) {
          return door.handle.try_push(text, shard::Key{"key"});
        }},
    Way{"a handle's try_push_raw", false,
        [](Door& door, const std::string& text) {
          return door.handle.try_push_raw(shard::RawEvent::of(text));
        }},
    Way{"a locked shard's try_push", false,
        [](Door& door, const std::string& text) {
          auto outcome = Outcome::unrouted;
          door.manager.with_shard(kFirst, [&](auto& shard) { outcome = shard.try_push(text); });
          return outcome;
        }},
};

/// Fills the one shard.
void fill(Door& door, Tally& tally) {
  for (std::size_t i = 0; i < kFits; ++i) {
    REQUIRE(tally.saw(door.manager.ingest("old" + std::to_string(i))) == Outcome::accepted);
  }
}

}  // namespace

// ---------------------------------------------------------------------------------- the modes

TEST_CASE("drop_newest loses the new event of a full shard, by every way in", "[R-J4][R-C5]") {
  for (const auto& way : kWays) {
    CAPTURE(way.name);
    Door door(small_shards(Backpressure::drop_newest()));
    Tally tally;
    fill(door, tally);
    const auto outcome = tally.saw(way.offer(door, "new"));
    CHECK(outcome == Outcome::dropped_newest);
    CHECK(shard::is_backpressure(outcome));
    CHECK(door.manager.ledger() == tally.ledger());
    CHECK(door.manager.ledger().lost() == 1);
    CHECK(drain(door.handle) == std::vector<std::string>{"old0", "old1", "old2"});
  }
}

TEST_CASE("fail_producer refuses and loses nothing, and a retry may succeed, by every way in",
          "[R-J4][R-C5]") {
  for (const auto& way : kWays) {
    CAPTURE(way.name);
    Door door(small_shards(Backpressure::fail_producer()));
    Tally tally;
    fill(door, tally);
    const auto outcome = tally.saw(way.offer(door, "new"));
    CHECK(outcome == Outcome::rejected_full);
    CHECK(shard::is_backpressure(outcome));
    CHECK(door.manager.ledger() == tally.ledger());
    CHECK(door.manager.ledger().lost() == 0);
    CHECK(door.handle.pop_batch(1).size() == 1);
    CHECK(tally.saw(way.offer(door, "new")) == Outcome::accepted);
    CHECK(door.manager.ledger() == tally.ledger({.returned = 1}));
  }
}

TEST_CASE("drop_oldest counts one acceptance and one eviction per overflow, by every way in",
          "[R-C2][R-J4][R-C5]") {
  for (const auto& way : kWays) {
    CAPTURE(way.name);
    Door door(small_shards(Backpressure::drop_oldest()));
    Tally tally;
    fill(door, tally);
    CHECK(tally.saw(way.offer(door, "new")) == Outcome::accepted);
    CHECK(door.manager.ledger() == tally.ledger({.evicted = 1}));
    CHECK(door.manager.stats().events_dropped == 1);
    const auto left = drain(door.handle);
    REQUIRE(left.size() == kFits);
    CHECK(left[0] == "old1");
    CHECK(left[1] == "old2");
    CHECK(left[2].find("new") != std::string::npos);  // JSON puts it into quotes
  }
}

TEST_CASE("block with no time to wait refuses as timed out, by every way in that may wait",
          "[R-J4][R-C5]") {
  for (const auto& way : kWays) {
    CAPTURE(way.name);
    Door door(small_shards(Backpressure::block(0ns)));
    Tally tally;
    fill(door, tally);
    const auto outcome = tally.saw(way.offer(door, "new"));
    CHECK(outcome == (way.waits ? Outcome::rejected_timeout : Outcome::rejected_full));
    CHECK(shard::is_backpressure(outcome));
    CHECK(door.manager.ledger() == tally.ledger());
    CHECK(door.manager.ledger().lost() == 0);
  }
}

TEST_CASE("sample admits the k-th overflow iff the rate divides k, counted over every way in",
          "[R-J4][R-C5]") {
  const std::uint32_t rate = GENERATE(1U, 2U, 3U, 7U);
  CAPTURE(rate);
  Door door(small_shards(Backpressure::sample(rate)));
  Tally tally;
  fill(door, tally);
  std::uint64_t overflows = 0;
  std::uint64_t evicted = 0;
  for (int round = 0; round < 5; ++round) {
    for (const auto& way : kWays) {
      CAPTURE(way.name, overflows);
      const bool admitted = ++overflows % rate == 0;
      CHECK(tally.saw(way.offer(door, "new")) ==
            (admitted ? Outcome::accepted : Outcome::sampled_out));
      evicted += admitted ? 1U : 0U;
    }
  }
  CHECK(door.manager.ledger() == tally.ledger({.evicted = evicted}));
}

TEST_CASE("sample admits everything while there is room", "[R-J4]") {
  Door door(small_shards(Backpressure::sample(1000)));
  Tally tally;
  for (int round = 0; round < 100; ++round) {
    fill(door, tally);
    CHECK(drain(door.handle).size() == kFits);
  }
  CHECK(door.manager.ledger() == tally.ledger({.returned = 100 * kFits}));
}

TEST_CASE("sample goes on counting overflows through a batch call", "[R-J4][R-C5]") {
  Door door(small_shards(Backpressure::sample(3)));
  Tally tally;
  fill(door, tally);
  CHECK(tally.saw(door.manager.ingest("first")) == Outcome::sampled_out);
  const std::vector<Bytes> payloads(600, Bytes{"x"});  // three chunks of a call
  std::vector<Outcome> outcomes(payloads.size());
  const auto accepted = door.manager.ingest_batch(payloads, outcomes);
  tally.saw(outcomes);
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    CAPTURE(i);
    REQUIRE(outcomes[i] == ((i + 2) % 3 == 0 ? Outcome::accepted : Outcome::sampled_out));
  }
  CHECK(accepted == 200);
  CHECK(door.manager.ledger() == tally.ledger({.evicted = 200}));
  CHECK(tally.saw(door.manager.ingest("602nd")) == Outcome::sampled_out);
  CHECK(tally.saw(door.manager.ingest("603rd")) == Outcome::accepted);
}

TEST_CASE("each shard counts its own overflows for sample", "[R-J4]") {
  Manager manager(small_shards(Backpressure::sample(2), 2));
  const auto first = payloads_for(manager, ShardId{0}, kFits + 3);
  const auto second = payloads_for(manager, ShardId{1}, kFits + 3);
  for (std::size_t i = 0; i < kFits; ++i) {
    REQUIRE(manager.ingest(first[i]) == Outcome::accepted);
    REQUIRE(manager.ingest(second[i]) == Outcome::accepted);
  }
  CHECK(manager.ingest(first[kFits]) == Outcome::sampled_out);
  CHECK(manager.ingest(second[kFits]) == Outcome::sampled_out);
  CHECK(manager.ingest(second[kFits + 1]) == Outcome::accepted);
  CHECK(manager.ingest(second[kFits + 2]) == Outcome::sampled_out);
  CHECK(manager.ingest(first[kFits + 1]) == Outcome::accepted);
}

TEST_CASE("a shard whose bytes are used up is full in every mode", "[R-J4][R-C2]") {
  const std::string large(1000, 'x');  // four of these fill 4096 bytes
  const auto mode =
      GENERATE(Backpressure::drop_newest(), Backpressure::drop_oldest(),
               Backpressure::fail_producer(), Backpressure::sample(2), Backpressure::block(0ns));
  auto options = small_shards(mode);
  options.ring_capacity = 64;
  CAPTURE(to_string(mode.mode));
  Door door(options);
  Tally tally;
  for (int i = 0; i < 4; ++i) {
    REQUIRE(tally.saw(door.manager.ingest(large)) == Outcome::accepted);
  }
  const auto outcome = tally.saw(door.manager.ingest(large));
  switch (mode.mode) {
    case shard::BackpressureMode::drop_newest:
      CHECK(outcome == Outcome::dropped_newest);
      break;
    case shard::BackpressureMode::drop_oldest:
      CHECK(outcome == Outcome::accepted);
      break;
    case shard::BackpressureMode::fail_producer:
      CHECK(outcome == Outcome::rejected_full);
      break;
    case shard::BackpressureMode::sample:
      CHECK(outcome == Outcome::sampled_out);
      break;
    case shard::BackpressureMode::block:
      CHECK(outcome == Outcome::rejected_timeout);
      break;
  }
  const std::uint64_t evicted = outcome == Outcome::accepted ? 1 : 0;
  CHECK(door.manager.ledger() == tally.ledger({.evicted = evicted}));
}

TEST_CASE("drop_oldest evicts as many events as a large one needs, and the sequence shows them",
          "[R-C2]") {
  auto options = small_shards(Backpressure::drop_oldest());
  options.ring_capacity = 512;
  Door door(options);
  Tally tally;
  for (int i = 0; i < 256; ++i) {  // 16 bytes each: all 4096
    REQUIRE(tally.saw(door.manager.ingest("0123456789abcdef")) == Outcome::accepted);
  }
  CHECK(tally.saw(door.manager.ingest(std::string(160, 'L'))) == Outcome::accepted);
  CHECK(door.manager.ledger() == tally.ledger({.evicted = 10}));
  const auto left = door.handle.pop_batch();
  REQUIRE(left.size() == 247);
  CHECK(left[0].sequence.value == 10);
  CHECK(left[246].sequence.value == 256);
  CHECK(left[246].payload.size() == 160);
}

TEST_CASE("drop_oldest counts exactly when a batch is larger than the ring", "[R-C2][R-C5]") {
  Door door(small_shards(Backpressure::drop_oldest()));
  std::vector<std::string> texts;
  for (int i = 0; i < 1000; ++i) texts.push_back(std::to_string(i));
  const auto payloads = views_of(texts);
  CHECK(door.manager.ingest_batch(payloads) == 1000);
  CHECK(door.manager.ledger() ==
        shard::Ledger{.accepted = 1000, .evicted = 1000 - kFits, .queued = kFits});
  CHECK(drain(door.handle) == std::vector<std::string>{"997", "998", "999"});
}

// ---------------------------------------------------------------------------------- groups of a batch

TEST_CASE("after a shard's first refusal a batch call refuses the rest of its group only",
          "[R-C5][R-J4]") {
  struct Case {
    Backpressure mode;
    Outcome refusal;
  };
  const auto tried = GENERATE(Case{Backpressure::drop_newest(), Outcome::dropped_newest},
                              Case{Backpressure::fail_producer(), Outcome::rejected_full},
                              Case{Backpressure::block(0ns), Outcome::rejected_timeout});
  const bool raw = GENERATE(false, true);
  CAPTURE(to_string(tried.mode.mode), raw);
  auto options = small_shards(tried.mode, 2);
  options.ring_capacity = 4096;
  options.ring_bytes = 65536;
  options.max_payload = 32768;
  options.inline_max = 16384;
  Manager manager(options);

  // The first shard has room for small events, but not for the large one at the head of its group.
  const auto fillers = payloads_for(manager, ShardId{0}, 4, std::string(16'000, 'f'));
  Tally tally;
  for (const auto& filler : fillers) {
    REQUIRE(tally.saw(manager.ingest(filler)) == Outcome::accepted);
  }
  const auto large = payloads_for(manager, ShardId{0}, 1, std::string(8'000, 'L'));
  // Long enough for several chunks of the call.
  const auto refused = payloads_for(manager, ShardId{0}, 400);
  const auto welcome = payloads_for(manager, ShardId{1}, 400);
  std::vector<Bytes> payloads{large[0]};
  for (std::size_t i = 0; i < refused.size(); ++i) {
    payloads.emplace_back(refused[i]);
    payloads.emplace_back(welcome[i]);
  }

  std::vector<Outcome> outcomes(payloads.size());
  std::size_t accepted = 0;
  if (raw) {
    std::vector<shard::RawEvent> events;
    for (const auto payload : payloads) events.push_back(manager.raw_event(payload));
    accepted = manager.ingest_raw_batch(events, outcomes);
  } else {
    accepted = manager.ingest_batch(payloads, outcomes);
  }
  tally.saw(outcomes);
  CHECK(outcomes[0] == tried.refusal);
  for (std::size_t i = 1; i < outcomes.size(); ++i) {
    CAPTURE(i);
    REQUIRE(outcomes[i] == (i % 2 == 1 ? tried.refusal : Outcome::accepted));
  }
  CHECK(accepted == welcome.size());
  CHECK(manager.ledger() == tally.ledger());
  CHECK(manager.shard(ShardId{0})->ledger().accepted == fillers.size());
  CHECK(drain(*manager.shard(ShardId{1})) == welcome);

  // The rule ends with the call.
  CHECK(tally.saw(manager.ingest(refused[0])) == Outcome::accepted);
}

TEST_CASE("an invalid event in a batch is no refusal of its shard's group", "[R-C5]") {
  Door door(small_shards(Backpressure::fail_producer()));
  const std::string too_large(2049, 'x');
  const std::array<Bytes, 3> payloads{"one", too_large, "two"};
  std::array<Outcome, 3> outcomes{};
  CHECK(door.manager.ingest_batch(payloads, outcomes) == 2);
  CHECK(outcomes == std::array{Outcome::accepted, Outcome::payload_too_large, Outcome::accepted});
  CHECK(door.manager.ledger() == shard::Ledger{.accepted = 2, .rejected_invalid = 1, .queued = 2});
  CHECK(drain(door.handle) == std::vector<std::string>{"one", "two"});
}

TEST_CASE("a shard whose timestamps are used up answers so through the whole of a long batch",
          "[R-C5]") {
  const auto mode =
      GENERATE(Backpressure::drop_newest(), Backpressure::drop_oldest(),
               Backpressure::fail_producer(), Backpressure::sample(2), Backpressure::block(0ns));
  CAPTURE(to_string(mode.mode));
  ManualClock clock;
  auto options = small_shards(mode);
  options.time_source = &clock;
  Door door(options);
  clock.set(shard::Timestamp::max().nanoseconds);
  REQUIRE(door.manager.ingest("last") == Outcome::accepted);
  const std::vector<Bytes> payloads(600, Bytes{"x"});
  std::vector<Outcome> outcomes(payloads.size());
  CHECK(door.manager.ingest_batch(payloads, outcomes) == 0);
  CHECK(std::count(outcomes.begin(), outcomes.end(), Outcome::timestamps_exhausted) == 600);
  CHECK(door.manager.ledger() ==
        shard::Ledger{.accepted = 1, .rejected_invalid = 600, .queued = 1});
}

TEST_CASE("a batch call writes an outcome for each event and nothing behind them", "[R-C5]") {
  Door door(small_shards(Backpressure::drop_newest()));
  const std::vector<Bytes> payloads(5, Bytes{"x"});
  std::array<Outcome, 8> outcomes;
  outcomes.fill(Outcome::unrouted);
  CHECK(door.manager.ingest_batch(payloads, outcomes) == 3);
  CHECK(outcomes == std::array{Outcome::accepted, Outcome::accepted, Outcome::accepted,
                               Outcome::dropped_newest, Outcome::dropped_newest, Outcome::unrouted,
                               Outcome::unrouted, Outcome::unrouted});
}

TEST_CASE("a batch call without a place for outcomes counts the same", "[R-C5]") {
  Door door(small_shards(Backpressure::drop_newest()));
  const std::vector<Bytes> payloads(5, Bytes{"x"});
  CHECK(door.manager.ingest_batch(payloads) == 3);
  CHECK(door.producer.ingest_batch(payloads) == 0);
  CHECK(door.manager.ledger() == shard::Ledger{.accepted = 3, .dropped_newest = 7, .queued = 3});
}

TEST_CASE("an empty batch call does nothing", "[R-C5]") {
  Door door(small_shards(Backpressure::drop_newest()));
  CHECK(door.manager.ingest_batch({}) == 0);
  CHECK(door.manager.ingest_raw_batch({}) == 0);
  CHECK(door.producer.ingest_batch({}) == 0);
  CHECK(door.manager.ledger() == shard::Ledger{});
}

// ---------------------------------------------------------------------------------- waiting

TEST_CASE("block waits until its deadline and not beyond", "[R-J4]") {
  ScriptedClock clock(1'000'000);
  auto options = small_shards(Backpressure::block(8ms));
  options.time_source = &clock;
  Door door(options);
  Tally tally;
  fill(door, tally);
  const auto start = clock.elapsed();
  CHECK(tally.saw(door.manager.ingest("new")) == Outcome::rejected_timeout);
  const auto waited = clock.elapsed() - start;
  CHECK(waited >= 8'000'000);
  CHECK(waited < 16'000'000);  // a few readings more than those of the wait itself
  CHECK(door.manager.ledger() == tally.ledger());
}

TEST_CASE("a batch call that blocks has one deadline for all its shards and chunks", "[R-J4]") {
  ScriptedClock clock(1'000'000);
  auto options = small_shards(Backpressure::block(20ms), 3);
  options.time_source = &clock;
  Manager manager(options);
  std::vector<std::string> texts;
  for (std::uint32_t id = 0; id < 3; ++id) {
    const auto some = payloads_for(manager, ShardId{id}, 300);
    texts.insert(texts.end(), some.begin(), some.end());
  }
  const auto start = clock.elapsed();
  CHECK(manager.ingest_batch(views_of(texts)) == 3 * kFits);
  const auto waited = clock.elapsed() - start;
  CHECK(waited >= 20'000'000);
  CHECK(waited < 40'000'000);
  CHECK(manager.ledger() == shard::Ledger{.accepted = 3 * kFits,
                                          .rejected_timeout = 900 - 3 * kFits,
                                          .queued = 3 * kFits});
}

TEST_CASE("a producer that blocks goes on when a consumer makes room", "[R-J4]") {
  ScriptedClock clock;
  auto options = small_shards(Backpressure::block(1h));
  options.time_source = &clock;
  for (const auto& way : kWays) {
    if (!way.waits) continue;
    CAPTURE(way.name);
    clock.on_reading({});
    Door door(options);
    Tally tally;
    fill(door, tally);
    const auto before = clock.readings();
    clock.on_reading([&] {
      // The first reading stamps the event; at the later ones it waits.
      if (clock.readings() == before + 3) static_cast<void>(door.handle.pop_batch(1));
    });
    CHECK(tally.saw(way.offer(door, "new")) == Outcome::accepted);
    CHECK(door.manager.ledger() == tally.ledger({.returned = 1}));
    clock.on_reading({});
    const auto batch = door.handle.pop_batch();
    // It has the time at which it got in: the third reading was over, and those before were one for each event.
    const auto& last = batch[batch.size() - 1];
    CHECK(last.timestamp.nanoseconds > batch[batch.size() - 2].timestamp.nanoseconds + 3);
  }
}

TEST_CASE("a batch that blocks gets in whole and in order behind a slow consumer", "[R-J4][R-C5]") {
  ScriptedClock clock;
  auto options = small_shards(Backpressure::block(1h));
  options.time_source = &clock;
  Door door(options);
  std::vector<std::string> expected;
  for (int i = 0; i < 500; ++i) expected.push_back(std::to_string(i));
  std::vector<std::string> popped;
  clock.on_reading([&] {
    const auto batch = door.handle.pop_batch(2);
    for (const auto event : batch) popped.emplace_back(event.text());
  });
  CHECK(door.manager.ingest_batch(views_of(expected)) == expected.size());
  for (const auto& rest : drain(door.handle)) popped.push_back(rest);
  CHECK(popped == expected);
  CHECK(door.manager.ledger() == shard::Ledger{.accepted = 500, .returned = 500});
}

TEST_CASE("a producer that blocks is refused as closed when the manager closes", "[R-J4][R-D12]") {
  ScriptedClock clock;
  auto options = small_shards(Backpressure::block(std::chrono::nanoseconds::max()));
  options.time_source = &clock;
  for (const auto& way : kWays) {
    if (!way.waits) continue;
    CAPTURE(way.name);
    clock.on_reading({});
    Door door(options);
    Tally tally;
    fill(door, tally);
    const auto before = clock.readings();
    clock.on_reading([&] {
      if (clock.readings() == before + 3) door.manager.close();
    });
    CHECK(tally.saw(way.offer(door, "new")) == Outcome::rejected_closed);
    CHECK(door.manager.ledger() == tally.ledger());
  }
}

TEST_CASE("a push through a handle never waits", "[R-J4]") {
  Door door(small_shards(Backpressure::block(std::chrono::nanoseconds::max())));
  Tally tally;
  fill(door, tally);
  for (const auto& way : kWays) {
    if (way.waits) continue;
    CAPTURE(way.name);
    CHECK(tally.saw(way.offer(door, "new")) == Outcome::rejected_full);
  }
  CHECK(door.manager.ledger() == tally.ledger());
}
