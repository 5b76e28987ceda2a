#include "shard/manager.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "shard/detail/check.hpp"
#include "shard/json.hpp"
#include "support/books.hpp"
#include "support/misuse_recorder.hpp"

namespace {

using shard::Backpressure;
using shard::Bytes;
using shard::Ledger;
using shard::Manager;
using shard::ManagerOptions;
using shard::Outcome;
using shard::ShardId;
using shard_test::drain;
using shard_test::MisuseRecorder;
using shard_test::payloads_for;

constexpr ShardId kFirst{0};
constexpr ShardId kSecond{1};

std::set<std::uint32_t> shards_in_use(const Manager& manager) {
  std::set<std::uint32_t> used;
  for (const auto id : manager.shard_ids()) {
    if (!manager.shard(id)->is_empty()) used.insert(id.value);
  }
  return used;
}

}  // namespace

// ---------------------------------------------------------------------------------- what there is

TEST_CASE("ids, count and handles of the shards come from one place and agree",
          "[R-D11][R-D4][R-D5]") {
  for (const std::size_t shards : {1U, 2U, 3U, 17U, 1024U}) {
    CAPTURE(shards);
    const Manager manager({.shards = shards,
                           .ring_capacity = 2,
                           .ring_bytes = 4096,
                           .max_payload = 1,
                           .inline_max = 1,
                           .max_key = 1});
    const auto ids = manager.shard_ids();
    REQUIRE(ids.size() == shards);
    CHECK(manager.num_shards() == shards);
    CHECK(std::is_sorted(ids.begin(), ids.end()));
    CHECK(std::adjacent_find(ids.begin(), ids.end()) == ids.end());
    for (const auto id : ids) {
      const auto shard = manager.shard(id);
      REQUIRE(shard);
      REQUIRE(shard->id() == id);
      REQUIRE(shard->capacity() == 2);
      REQUIRE(shard->usable_capacity() == 1);
    }
    // Whatever the hash, there is a shard, and it is one of these.
    for (std::uint64_t i = 0; i < 4096; ++i) {
      const auto selected =
          manager.select_shard_by_hash(i << 52U | (i * 0x9E3779B97F4A7C15U) >> 12U);
      REQUIRE(selected);
      REQUIRE(std::binary_search(ids.begin(), ids.end(), *selected));
    }
    CHECK(manager.select_shard_by_hash(0) == ids.front());
    CHECK(manager.select_shard_by_hash(~std::uint64_t{0}) == ids.back());
  }
}

TEST_CASE("there is no handle and no closure for a shard that does not exist", "[R-D4]") {
  Manager manager({.shards = 2});
  CHECK(!manager.shard(ShardId{2}));
  CHECK(!manager.shard(ShardId{0xFFFF'FFFF}));
  bool called = false;
  CHECK_FALSE(manager.with_shard(ShardId{2}, [&](auto&) { called = true; }));
  CHECK_FALSE(called);
}

TEST_CASE("what is pending can be seen without disturbing it", "[R-C8][R-D11]") {
  Manager manager({.shards = 2, .ring_capacity = 4});
  CHECK(manager.all_shards_empty());
  CHECK(manager.total_pending_in_rings() == 0);
  CHECK(manager.try_total_pending_in_rings() == 0U);
  const auto first = *manager.shard(kFirst);
  const auto second = *manager.shard(kSecond);
  CHECK(first.try_push("a") == Outcome::accepted);
  CHECK(second.try_push("b") == Outcome::accepted);
  CHECK(second.try_push("c") == Outcome::accepted);
  CHECK_FALSE(manager.all_shards_empty());
  CHECK(manager.total_pending_in_rings() == 3);
  CHECK(manager.try_total_pending_in_rings() == 3U);
  CHECK(first.len() == 1);
  CHECK_FALSE(first.is_empty());
  CHECK(second.fill_ratio() == Approx(2.0 / 3.0));
  CHECK_FALSE(second.is_full());
  CHECK(second.try_push("d") == Outcome::accepted);
  CHECK(second.is_full());
  CHECK(drain(second) == std::vector<std::string>{"b", "c", "d"});
  CHECK(manager.total_pending_in_rings() == 1);
}

TEST_CASE("counts can be read while both locks of a shard are held", "[R-C8]") {
  Manager manager({.shards = 1});
  REQUIRE(manager.ingest("x") == Outcome::accepted);
  const auto handle = *manager.shard(kFirst);
  // Each of these would wait for itself if it took a lock of the shard.
  manager.with_shard(kFirst, [&](auto& locked) {
    CHECK(locked.len() == 1);
    CHECK(handle.len() == 1);
    CHECK(handle.ledger() == Ledger{.accepted = 1, .queued = 1});
    CHECK(handle.stats().events_ingested == 1);
    CHECK(handle.dispatch_stats().batches == 0);
    CHECK(manager.ledger() == Ledger{.accepted = 1, .queued = 1});
    CHECK(manager.stats().events_ingested == 1);
    CHECK(manager.total_pending_in_rings() == 1);
    CHECK(manager.try_total_pending_in_rings() == 1U);
    CHECK(manager.shard_ids().size() == 1);
    CHECK(manager.select_shard_by_hash(0) == kFirst);
    CHECK(handle.fill_ratio() > 0);
  });
}

TEST_CASE("an event carries what it was ingested with", "[R-D8]") {
  Manager manager({.shards = 1});
  const shard::Key key{"k"};
  const shard::SourceIdentity source{1, 2};
  CHECK(manager.ingest("a") == Outcome::accepted);
  CHECK(manager.ingest("b", key) == Outcome::accepted);
  CHECK(manager.ingest("c", source) == Outcome::accepted);
  CHECK(manager.ingest("d", key, source) == Outcome::accepted);
  CHECK(manager.ingest("e", shard::Key{""}) == Outcome::accepted);  // an empty key is a key
  const auto batch = manager.shard(kFirst)->pop_batch();
  REQUIRE(batch.size() == 5);
  CHECK((!batch[0].key && !batch[0].source));
  CHECK((batch[1].key && batch[1].key->bytes == key.bytes && !batch[1].source));
  CHECK((!batch[2].key && batch[2].source == source));
  CHECK((batch[3].key && batch[3].key->bytes == key.bytes && batch[3].source == source));
  CHECK((batch[4].key && batch[4].key->bytes.empty()));
  for (std::size_t i = 0; i < batch.size(); ++i) {
    CHECK(batch[i].shard == kFirst);
    CHECK(batch[i].sequence.value == i);
  }
}

TEST_CASE("an event that could not be made is counted with its reason", "[R-C5]") {
  Manager manager({.shards = 1});
  auto producer = manager.producer();
  CHECK(manager.reject(Outcome::invalid_json) == Outcome::invalid_json);
  CHECK(producer.reject(Outcome::out_of_memory) == Outcome::out_of_memory);
  CHECK(manager.own_ledger() == Ledger{.rejected_invalid = 2});
}

// ---------------------------------------------------------------------------------- closing

TEST_CASE("a closed manager refuses by every way in, counts that itself, and can be emptied",
          "[R-D12][R-C5][R-C7]") {
  Manager manager({.shards = 2});
  auto producer = manager.producer();
  const auto handle = *manager.shard(kFirst);
  REQUIRE(handle.try_push("queued") == Outcome::accepted);
  CHECK_FALSE(manager.is_closed());
  manager.close();
  manager.close();
  CHECK(manager.is_closed());

  std::uint64_t offered = 0;
  const auto refused = [&](Outcome outcome) {
    ++offered;
    CHECK(outcome == Outcome::rejected_closed);
  };
  const shard::Key key{"k"};
  refused(manager.ingest("x"));
  refused(manager.ingest("x", key));
  refused(manager.ingest_raw(manager.raw_event("x")));
  refused(shard::ingest_json(manager, 1));
  refused(producer.ingest("x"));
  refused(producer.ingest("x", key));
  refused(shard::ingest_json(producer, 1));
  refused(handle.try_push("x"));
  refused(handle.try_push_raw(manager.raw_event("x", key)));
  auto buffer = shard::Buffer::adopt(std::string("mine"));
  refused(manager.ingest(std::move(buffer)));
  CHECK(buffer.bytes() == Bytes{"mine"});
  manager.with_shard(kFirst, [&](auto& locked) { refused(locked.try_push("x")); });
  const std::vector<Bytes> payloads(300, Bytes{"x"});
  std::vector<Outcome> outcomes(300);
  CHECK(manager.ingest_batch(payloads, outcomes) == 0);
  for (const auto outcome : outcomes) refused(outcome);
  CHECK(producer.ingest_batch(payloads, outcomes) == 0);
  for (const auto outcome : outcomes) refused(outcome);

  CHECK(manager.own_ledger() == Ledger{.rejected_closed = offered});
  CHECK(manager.ledger() == Ledger{.accepted = 1, .rejected_closed = offered, .queued = 1});
  CHECK(drain(handle) == std::vector<std::string>{"queued"});
  CHECK(manager.all_shards_empty());
}

TEST_CASE("handles outlive the manager, refuse, and keep its counts", "[R-D12][R-C1]") {
  std::optional<Manager> manager(std::in_place, ManagerOptions{.shards = 2});
  auto producer = manager->producer();
  auto second_producer = manager->producer();
  const auto handle = *manager->shard(kFirst);
  const auto other = *manager->shard(kSecond);
  const auto raw = manager->raw_event("x", shard::Key{"k"});
  for (int i = 0; i < 5; ++i) REQUIRE(handle.try_push("x") == Outcome::accepted);
  REQUIRE(handle.pop_batch(2).size() == 2);
  REQUIRE(producer.ingest("x") ==
          Outcome::accepted);  // the other one has no table of its own use yet
  const auto before = handle.ledger().accepted + other.ledger().accepted;
  REQUIRE(before == 6);
  manager.reset();

  CHECK(producer.ingest("x") == Outcome::rejected_closed);
  CHECK(second_producer.ingest_raw(raw) == Outcome::rejected_closed);
  CHECK(handle.try_push("x") == Outcome::rejected_closed);
  CHECK(handle.try_push(std::string(60'000, 'x')) == Outcome::rejected_closed);
  CHECK(handle.try_push(std::string(70'000, 'x')) == Outcome::payload_too_large);
  CHECK(handle.pop_batch().empty());
  shard::EventBatch batch;
  CHECK_FALSE(handle.try_pop(batch));
  CHECK(handle.len() == 0);
  CHECK(handle.is_empty());
  CHECK(handle.fill_ratio() == 0.0);
  handle.record_batch_dispatch(1, std::chrono::nanoseconds{1});
  CHECK(handle.dispatch_stats().batches == 1);
  auto total = handle.ledger();
  total += other.ledger();
  CHECK(total == Ledger{.accepted = 6, .returned = 2, .abandoned_queued = 4});
}

TEST_CASE("a popped batch outlives its manager", "[R-D12]") {
  shard::EventBatch batch;
  {
    Manager manager({.shards = 1});
    REQUIRE(manager.ingest("copied") == Outcome::accepted);
    REQUIRE(manager.ingest(shard::Buffer::adopt(std::string("moved"))) == Outcome::accepted);
    manager.shard(kFirst)->pop_batch_into(batch);
  }
  REQUIRE(batch.size() == 2);
  CHECK(batch[0].text() == "copied");
  CHECK(batch[1].text() == "moved");
}

// ---------------------------------------------------------------------------------- popping

TEST_CASE("one pop takes everything, however earlier pops have left the shard", "[R-C1]") {
  Manager manager(
      {.shards = 1, .ring_capacity = 4096, .backpressure = Backpressure::drop_oldest()});
  const auto shard = *manager.shard(kFirst);
  std::uint64_t next = 0;
  for (const std::size_t before : {0U, 1U, 100U, 255U, 256U, 257U, 300U}) {
    for (const std::size_t queued : {1000U, 301U, 512U}) {
      CAPTURE(before, queued);
      for (std::size_t i = 0; i < queued; ++i) REQUIRE(manager.ingest("x") == Outcome::accepted);
      REQUIRE(shard.pop_batch(before).size() == before);
      const auto rest = shard.pop_batch();
      REQUIRE(rest.size() == queued - before);
      REQUIRE(rest[0].sequence.value == next + before);
      REQUIRE(shard.is_empty());
      next += queued;
    }
  }
}

TEST_CASE("a pop gives as many events as asked for while there are any", "[R-C1]") {
  Manager manager({.shards = 1, .ring_capacity = 4096});
  const auto shard = *manager.shard(kFirst);
  for (int i = 0; i < 1000; ++i) REQUIRE(manager.ingest("x") == Outcome::accepted);
  for (int i = 0; i < 10; ++i) CHECK(shard.pop_batch(100).size() == 100);
  CHECK(shard.pop_batch(100).empty());
}

// ---------------------------------------------------------------------------------- with_shard

TEST_CASE("with_shard pushes and pops under the locks", "[R-D13]") {
  Manager manager({.shards = 1,
                   .ring_capacity = 4,
                   .inline_max = 100,
                   .backpressure = Backpressure::drop_oldest()});
  std::vector<std::string> seen;
  CHECK(manager.with_shard(kFirst, [&](auto& locked) {
    CHECK(locked.id() == kFirst);
    CHECK(locked.usable_capacity() == 3);
    for (const auto* text : {"a", "b", "c", "d"}) CHECK(locked.try_push(text) == Outcome::accepted);
    CHECK(locked.try_push(std::string(101, 'x')) == Outcome::payload_too_large);
    CHECK(locked.len() == 3);
    CHECK(locked.fill_ratio() == 1.0);
    shard::EventBatch batch;
    CHECK(locked.pop_batch_into(batch, 2) == 2);
    for (const auto event : batch) seen.emplace_back(event.text());
  }));
  CHECK(seen == std::vector<std::string>{"b", "c"});
  CHECK(manager.ledger() ==
        Ledger{.accepted = 4, .rejected_invalid = 1, .evicted = 1, .returned = 2, .queued = 1});
}

TEST_CASE("an exception out of with_shard releases the locks", "[R-D13]") {
  Manager manager({.shards = 1});
  CHECK_THROWS_AS(
      manager.with_shard(kFirst, [](auto&) { throw std::runtime_error("the closure's own"); }),
      std::runtime_error);
  CHECK(manager.ingest("x") == Outcome::accepted);
  CHECK(drain(*manager.shard(kFirst)).size() == 1);
  CHECK(manager.with_shard(kFirst, [](auto& locked) { CHECK(locked.len() == 0); }));
}

TEST_CASE("an event that a manager makes has the hash of its key or payload by that manager's seed",
          "[R-D10]") {
  const Manager manager({.shards = 2, .seed = 7});
  for (const auto& event :
       {manager.raw_event("payload"), manager.raw_event("payload", shard::Key("key"))}) {
    CHECK(event.has_hash);
    CHECK(event.seed == 7);
    CHECK(event.hash == manager.hash(event.has_key ? "key" : "payload"));
  }
}

TEST_CASE("a call into a manager from within with_shard is found by debug builds", "[R-D13]") {
  // All calls go to another shard than the closure's, so they do not wait for its locks.
  Manager manager({.shards = 2, .seed = 1});
  Manager unrelated({.shards = 1});
  static_cast<void>(manager.producer());  // takes a slot of the closure's shard
  const auto other = *manager.shard(kSecond);
  const auto to_other = payloads_for(manager, kSecond, 1)[0];
  const auto raw = manager.raw_event(to_other);
  const std::array<Bytes, 1> payloads{to_other};
  auto producer_of_other = manager.producer();

  struct Call {
    const char* name;
    std::function<void()> make;
  };
  const std::array calls{
      Call{"ingest", [&] { static_cast<void>(manager.ingest(to_other)); }},
      Call{"ingest_raw", [&] { static_cast<void>(manager.ingest_raw(raw)); }},
      Call{"ingest a buffer",
           [&] { static_cast<void>(manager.ingest(shard::Buffer::copy_of(Bytes{to_other}))); }},
      Call{"ingest_batch", [&] { manager.ingest_batch(payloads); }},
      Call{"ingest_raw_batch",
           [&] {
             manager.ingest_raw_batch({&raw, 1});
           }},
      Call{"a producer's ingest", [&] { static_cast<void>(producer_of_other.ingest("x")); }},
      Call{"a producer's ingest_batch", [&] { producer_of_other.ingest_batch(payloads); }},
      Call{"try_push", [&] { static_cast<void>(other.try_push("x")); }},
      Call{"try_push_raw", [&] { static_cast<void>(other.try_push_raw(raw)); }},
      Call{"pop_batch", [&] { static_cast<void>(other.pop_batch()); }},
      Call{"record_batch_dispatch",
           [&] { other.record_batch_dispatch(1, std::chrono::nanoseconds{1}); }},
      Call{"with_shard", [&] { manager.with_shard(kSecond, [](auto&) {}); }},
      Call{"ingest into another manager", [&] { static_cast<void>(unrelated.ingest("x")); }},
      Call{"close of another manager", [&] { unrelated.close(); }},
  };
  for (const auto& call : calls) {
    CAPTURE(call.name);
    const MisuseRecorder misuse;
    manager.with_shard(kFirst, [&](auto&) { call.make(); });
    CHECK((misuse.count() != 0) == shard::detail::kDebugChecks);
    // And outside of the closure it is none.
    const auto found = misuse.count();
    call.make();
    CHECK(misuse.count() == found);
  }
}

TEST_CASE("a misuse handler may throw where the call may", "[R-D13]") {
  if constexpr (shard::detail::kDebugChecks) {
    Manager manager({.shards = 2});
    const auto before =
        shard::set_misuse_handler([](const char* what) { throw std::logic_error(what); });
    manager.with_shard(kFirst, [&](auto&) {
      CHECK_THROWS_AS(manager.with_shard(kFirst, [](auto&) {}), std::logic_error);
      CHECK_THROWS_AS(manager.shard(kFirst)->pop_batch(), std::logic_error);
    });
    shard::set_misuse_handler(before);
    CHECK(manager.with_shard(kFirst, [](auto&) {}));
  }
}

TEST_CASE("too few places for a batch's outcomes are misuse, and none is written", "[R-D13]") {
  Manager manager({.shards = 1});
  const std::array<Bytes, 3> payloads{"a", "b", "c"};
  std::array<Outcome, 2> outcomes{Outcome::unrouted, Outcome::unrouted};
  const MisuseRecorder misuse;
  CHECK(manager.ingest_batch(payloads, outcomes) == 3);
  CHECK((misuse.count() == 1) == shard::detail::kDebugChecks);
  CHECK(outcomes == std::array{Outcome::unrouted, Outcome::unrouted});
}

TEST_CASE("releasing an evicted buffer may call back into the manager", "[R-D13]") {
  struct Host {
    explicit Host()
        : manager({.shards = 1, .ring_capacity = 4, .backpressure = Backpressure::drop_oldest()}) {}
    shard::Buffer buffer() {
      return shard::Buffer::adopt(
          Bytes{"old"},
          [](void* self) noexcept {
            auto& host = *static_cast<Host*>(self);
            ++host.released;
            // Would wait for itself if a lock of the shard were held here.
            static_cast<void>(host.manager.ingest("from release"));
            host.popped += host.manager.shard(kFirst)->pop_batch(1).size();
          },
          this);
    }
    void fill() {
      while (manager.shard(kFirst)->len() < 3) {
        REQUIRE(manager.ingest(buffer()) == Outcome::accepted);
      }
    }
    int released = 0;
    std::size_t popped = 0;
    Manager manager;
  };

  const int way = GENERATE(0, 1, 2, 3);
  CAPTURE(way);
  Host host;
  host.fill();
  const std::array<Bytes, 2> payloads{"new", "newer"};
  switch (way) {
    case 0:
      CHECK(host.manager.ingest("new") == Outcome::accepted);
      break;
    case 1:
      CHECK(host.manager.ingest_batch(payloads) == 2);
      break;
    case 2:
      CHECK(host.manager.shard(kFirst)->try_push("new") == Outcome::accepted);
      break;
    case 3:
      host.manager.with_shard(
          kFirst, [](auto& locked) { CHECK(locked.try_push("new") == Outcome::accepted); });
      break;
  }
  CHECK(host.released >= 1);
  const auto ledger = host.manager.ledger();
  CHECK(ledger.balanced());
  CHECK(ledger.evicted >= 1);
}

// ---------------------------------------------------------------------------------- threads' caches

TEST_CASE("a thread may use more managers in turn than it has slots to cache their tables",
          "[R-D2]") {
  constexpr std::size_t kManagers = 9;
  std::vector<std::unique_ptr<Manager>> managers;
  for (std::size_t i = 0; i < kManagers; ++i) {
    managers.push_back(std::make_unique<Manager>(ManagerOptions{.shards = i + 1}));
  }
  for (int round = 0; round < 50; ++round) {
    for (std::size_t i = 0; i < kManagers; ++i) {
      REQUIRE(managers[i]->ingest(std::to_string(round)) == Outcome::accepted);
    }
  }
  for (const auto& manager : managers) {
    CHECK(manager->ledger() == Ledger{.accepted = 50, .queued = 50});
  }
}

TEST_CASE("a manager at the address of a destroyed one gets its own events", "[R-D2][R-D12]") {
  std::optional<Manager> manager;
  std::optional<shard::Shard> before;
  for (std::uint64_t i = 0; i < 20; ++i) {
    manager.emplace(ManagerOptions{.shards = 1});
    REQUIRE(manager->ingest("x") == Outcome::accepted);
    REQUIRE(manager->ledger() == Ledger{.accepted = 1, .queued = 1});
    if (before) {
      REQUIRE(before->ledger() == Ledger{.accepted = 1, .abandoned_queued = 1});
      REQUIRE(before->try_push("x") == Outcome::rejected_closed);
    }
    before = manager->shard(kFirst);
    if (i % 4 == 3) manager.reset();  // and sometimes with nothing alive in between
  }
}

TEST_CASE("destructors of thread-locals may ingest while their thread ends", "[R-D2]") {
  struct Late {
    Manager* manager = nullptr;
    ~Late() {
      if (manager != nullptr) {
        for (int i = 0; i < 3; ++i) static_cast<void>(manager->ingest("late"));
      }
    }
  };
  const bool ingested_before = GENERATE(false, true);
  CAPTURE(ingested_before);
  Manager manager({.shards = 4});
  std::thread([&] {
    // Thread-locals are destroyed in the reverse order: with an ingest first, this one goes before
    // the library's, without one behind them.
    if (ingested_before) static_cast<void>(manager.ingest("early"));
    thread_local Late late;
    late.manager = &manager;
    static_cast<void>(manager.ingest("usual"));
  }).join();
  CHECK(manager.ledger().accepted == (ingested_before ? 5U : 4U));
}

// ---------------------------------------------------------------------------------- producers

TEST_CASE("the first n producers of n shards use different shards", "[R-D1]") {
  for (const std::size_t shards : {1U, 2U, 4U, 16U, 64U}) {
    CAPTURE(shards);
    Manager manager({.shards = shards, .ring_capacity = 1024});
    for (std::size_t round = 0; round < 2; ++round) {
      for (std::size_t i = 0; i < shards; ++i) {
        REQUIRE(manager.producer().ingest("x") == Outcome::accepted);
      }
      CHECK(shards_in_use(manager).size() == shards);
      for (const auto id : manager.shard_ids()) CHECK(drain(*manager.shard(id)).size() == 1);
    }
  }
}

TEST_CASE("many producers spread over any number of shards", "[R-D1]") {
  for (const std::size_t shards : {3U, 5U, 7U, 12U, 100U}) {
    CAPTURE(shards);
    Manager manager({.shards = shards, .ring_capacity = 1024});
    for (std::size_t i = 0; i < 10 * shards; ++i) {
      REQUIRE(manager.producer().ingest("x") == Outcome::accepted);
    }
    for (const auto id : manager.shard_ids()) {
      const auto producers = manager.shard(id)->len();
      CHECK(producers >= 7);
      CHECK(producers <= 13);
    }
  }
}

TEST_CASE("a producer keeps its shard and its order", "[R-D8]") {
  Manager manager({.shards = 8});
  auto producer = manager.producer();
  std::vector<std::string> texts;
  for (int i = 0; i < 500; ++i) texts.push_back(std::to_string(i));
  for (int i = 0; i < 100; ++i) {
    REQUIRE(producer.ingest(texts[static_cast<std::size_t>(i)]) == Outcome::accepted);
  }
  const auto views = shard_test::views_of(texts);
  CHECK(producer.ingest_batch(std::span(views).subspan(100)) == 400);
  const auto used = shards_in_use(manager);
  REQUIRE(used.size() == 1);
  CHECK(drain(*manager.shard(ShardId{*used.begin()})) == texts);
}

TEST_CASE("a producer that changes its slot every n events keeps it for n", "[R-D8]") {
  Manager manager({.shards = 4});
  auto producer = manager.producer({.change_slot_every = 3});
  std::vector<std::uint32_t> shard_of_event;
  for (int i = 0; i < 12; ++i) {
    REQUIRE(producer.ingest("x") == Outcome::accepted);
    const auto used = shards_in_use(manager);
    REQUIRE(used.size() == 1);
    shard_of_event.push_back(*used.begin());
    REQUIRE(drain(*manager.shard(ShardId{*used.begin()})).size() == 1);
  }
  std::set<std::uint32_t> all;
  for (std::size_t i = 0; i < 12; i += 3) {
    CHECK(shard_of_event[i] == shard_of_event[i + 1]);
    CHECK(shard_of_event[i] == shard_of_event[i + 2]);
    all.insert(shard_of_event[i]);
  }
  CHECK(all.size() == 4);
}

TEST_CASE("a batch of a producer that changes its slot stays together", "[R-D8]") {
  Manager manager({.shards = 4});
  auto producer = manager.producer({.change_slot_every = 10});
  const std::vector<Bytes> payloads(25, Bytes{"x"});
  for (int i = 0; i < 4; ++i) CHECK(producer.ingest_batch(payloads) == 25);
  for (const auto id : manager.shard_ids()) CHECK(manager.shard(id)->len() == 25);
}

TEST_CASE("an event with a key goes where the key says, through a producer too", "[R-D8]") {
  Manager manager({.shards = 8, .seed = 5});
  auto producer = manager.producer();
  for (int i = 0; i < 50; ++i) {
    const auto text = "key" + std::to_string(i);
    const shard::Key key{text};
    const auto id = *manager.select_shard_by_hash(manager.hash(text));
    REQUIRE(producer.ingest(std::to_string(i), key) == Outcome::accepted);
    REQUIRE(producer.ingest_raw(manager.raw_event("raw", key)) == Outcome::accepted);
    REQUIRE(manager.ingest("by the manager", key) == Outcome::accepted);
    REQUIRE(manager.shard(id)->pop_batch().size() == 3);
  }
}
