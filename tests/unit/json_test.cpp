#include "shard/json.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "shard/manager.hpp"
#include "support/books.hpp"

namespace {

using nlohmann::json;
using shard::Manager;
using shard::ManagerOptions;
using shard::Outcome;
using shard::ShardId;

ManagerOptions one_shard() { return {.shards = 1, .ring_capacity = 1024}; }

const json kBadUtf8 = {{"text", "\xff"}};

/// The payload of the only event in the only shard.
std::string popped_text(const Manager& manager) {
  const auto batch = manager.shard(ShardId{0})->pop_batch();
  return batch.size() == 1 ? std::string(batch[0].text()) : "no single event";
}

}  // namespace

TEST_CASE("ingest_json ingests the compact text of a value", "[R-C5]") {
  Manager manager(one_shard());
  auto producer = manager.producer();
  const json value{{"temperature", 21.5}, {"tags", {"a", "b"}}, {"none", nullptr}};
  CHECK(ingest_json(manager, value) == Outcome::accepted);
  CHECK(popped_text(manager) == R"({"none":null,"tags":["a","b"],"temperature":21.5})");
  CHECK(ingest_json(producer, value) == Outcome::accepted);
  CHECK(popped_text(manager) == value.dump());
  CHECK(manager.ledger() == shard::Ledger{.accepted = 2, .returned = 2});
}

TEST_CASE("ingest_json goes where ingest of the same text goes", "[R-D8]") {
  Manager manager({.shards = 16, .seed = 3});
  for (int i = 0; i < 200; ++i) {
    const json value{{"n", i}};
    const auto text = value.dump();
    REQUIRE(ingest_json(manager, value) == Outcome::accepted);
    const auto id = manager.select_shard_by_hash(manager.hash(text));
    REQUIRE(id);
    const auto batch = manager.shard(*id)->pop_batch();
    REQUIRE(batch.size() == 1);
    REQUIRE(batch[0].text() == text);
  }
}

TEST_CASE("ingest_json takes a key and a source", "[R-C5][R-D8]") {
  Manager manager({.shards = 8, .seed = 3});
  auto producer = manager.producer();
  const shard::Key key{"sensor-7"};
  const shard::SourceIdentity source{4, 1'000};
  CHECK(ingest_json(manager, json(1), key) == Outcome::accepted);
  CHECK(ingest_json(manager, json(2), key, source) == Outcome::accepted);
  CHECK(ingest_json(producer, json(3), key, source) == Outcome::accepted);
  const auto id = manager.select_shard_by_hash(manager.hash(key.bytes));
  REQUIRE(id);
  const auto batch = manager.shard(*id)->pop_batch();
  REQUIRE(batch.size() == 3);
  for (const auto event : batch) {
    REQUIRE(event.key);
    CHECK(event.key->bytes == key.bytes);
    CHECK(event.source.has_value() == (event.text() != "1"));
  }
  CHECK(*batch[1].source == source);
  // A source alone does not route: the text does, or the producer.
  CHECK(ingest_json(manager, json(4), source) == Outcome::accepted);
  CHECK(manager.shard(*manager.select_shard_by_hash(manager.hash("4")))->len() == 1);
}

TEST_CASE("a value that has no JSON text is invalid_json and disturbs nothing else", "[R-C5]") {
  Manager manager(one_shard());
  auto producer = manager.producer();
  CHECK(ingest_json(manager, json("before")) == Outcome::accepted);
  CHECK(ingest_json(manager, kBadUtf8) == Outcome::invalid_json);
  CHECK(ingest_json(producer, kBadUtf8) == Outcome::invalid_json);
  CHECK(ingest_json(manager, kBadUtf8, shard::Key{"k"}) == Outcome::invalid_json);
  CHECK(ingest_json(manager, json("after")) == Outcome::accepted);
  const shard::Ledger expected{.accepted = 2, .rejected_invalid = 3, .queued = 2};
  CHECK(manager.ledger() == expected);
  CHECK(manager.own_ledger() == shard::Ledger{.rejected_invalid = 3});
  CHECK(shard_test::drain(*manager.shard(ShardId{0})) ==
        std::vector<std::string>{R"("before")", R"("after")"});
}

TEST_CASE("bad UTF-8 deep in a value leaves nothing of it in the next text", "[R-C5]") {
  Manager manager(one_shard());
  json long_value = json::array();
  for (int i = 0; i < 1000; ++i) long_value.push_back("a good string");
  long_value.push_back("\xc3");
  CHECK(ingest_json(manager, long_value) == Outcome::invalid_json);
  CHECK(ingest_json(manager, json(7)) == Outcome::accepted);
  CHECK(popped_text(manager) == "7");
}

TEST_CASE("a text over the limit is payload_too_large", "[R-C5]") {
  auto options = one_shard();
  options.max_payload = 100;
  options.inline_max = 50;
  Manager manager(options);
  CHECK(ingest_json(manager, json(std::string(98, 'x'))) == Outcome::accepted);  // and two quotes
  CHECK(popped_text(manager) == '"' + std::string(98, 'x') + '"');
  CHECK(ingest_json(manager, json(std::string(99, 'x'))) == Outcome::payload_too_large);
  CHECK(manager.ledger() == shard::Ledger{.accepted = 1, .rejected_invalid = 1, .returned = 1});
}

TEST_CASE("large and small values alternate through the same storage", "[R-C5]") {
  auto options = one_shard();
  options.ring_bytes = 1U << 22U;
  options.max_payload = 1U << 20U;
  Manager manager(options);
  json large;
  for (int i = 0; i < 20'000; ++i) large["key" + std::to_string(i)] = {i, "value", {{"deep", i}}};
  for (int i = 0; i < 3; ++i) {
    CHECK(ingest_json(manager, large) == Outcome::accepted);
    CHECK(popped_text(manager) == large.dump());
    CHECK(ingest_json(manager, json(i)) == Outcome::accepted);
    CHECK(popped_text(manager) == std::to_string(i));
  }
}

TEST_CASE("Event::parse gives back the value that was ingested", "[R-A12]") {
  Manager manager(one_shard());
  const json value{{"text", "\u00e9\n\t\"\\"},
                   {"list", {1, -2, 3.25, true, nullptr}},
                   {"large", 18446744073709551615U}};
  CHECK(ingest_json(manager, value) == Outcome::accepted);
  const auto batch = manager.shard(ShardId{0})->pop_batch();
  REQUIRE(batch.size() == 1);
  const auto parsed = batch[0].parse();
  REQUIRE(parsed.has_value());
  CHECK(*parsed == value);
}

TEST_CASE("Event::parse says where a payload stops being JSON", "[R-A12]") {
  Manager manager(one_shard());
  struct Bad {
    std::string text;
    std::size_t byte;
  };
  for (const auto& bad : {Bad{"", 1}, Bad{"{\"a\": 1,}", 9}, Bad{"{\"a\": \"\xff\"}", 8},
                          Bad{std::string("1\0", 2), 2}, Bad{"[1, 2", 6}}) {
    CAPTURE(bad.text);
    REQUIRE(manager.ingest(bad.text) == Outcome::accepted);
    const auto batch = manager.shard(ShardId{0})->pop_batch();
    REQUIRE(batch.size() == 1);
    const auto parsed = batch[0].parse();
    REQUIRE(!parsed.has_value());
    CHECK(parsed.error().byte == bad.byte);
    CHECK(!parsed.error().message.empty());
    CHECK(batch[0].text() == bad.text);
  }
}

TEST_CASE("parse_json answers a number out of range and deep nesting without throwing", "[R-A12]") {
  const auto out_of_range = shard::parse_json("1e999999");
  REQUIRE(!out_of_range.has_value());
  CHECK(!out_of_range.error().message.empty());
  CHECK(shard::parse_json(std::string(100'000, '[') + std::string(100'000, ']')).has_value());
  CHECK(!shard::parse_json(std::string(100'000, '[')).has_value());
}

TEST_CASE("a destructor of a thread-local may still ingest JSON", "[thread-exit]") {
  Manager manager(one_shard());
  struct Late {
    Manager* manager = nullptr;
    ~Late() {
      if (manager != nullptr) static_cast<void>(shard::ingest_json(*manager, json("late")));
    }
  };
  // Made before the library's own thread-locals, so destroyed after them.
  std::thread([&manager] {
    thread_local Late late;
    late.manager = &manager;
    static_cast<void>(shard::ingest_json(manager, json("early")));
  }).join();
  CHECK(shard_test::drain(*manager.shard(ShardId{0})) ==
        std::vector<std::string>{R"("early")", R"("late")"});
}

TEST_CASE("a ledger as JSON has every count by name, and what was offered", "[R-C5]") {
  const shard::Ledger ledger{.accepted = 1,
                             .dropped_newest = 2,
                             .rejected_full = 3,
                             .rejected_timeout = 4,
                             .sampled_out = 5,
                             .rejected_closed = 6,
                             .rejected_invalid = 7,
                             .unrouted = 8,
                             .evicted = 9,
                             .returned = 10,
                             .abandoned_queued = 11,
                             .queued = 12,
                             .taken = 13,
                             .delivered = 14,
                             .dead_lettered = 15,
                             .abandoned_batched = 16,
                             .possibly_delivered = 17,
                             .batched = 18};
  const json expected{{"offered", 36},
                      {"accepted", 1},
                      {"dropped_newest", 2},
                      {"rejected_full", 3},
                      {"rejected_timeout", 4},
                      {"sampled_out", 5},
                      {"rejected_closed", 6},
                      {"rejected_invalid", 7},
                      {"unrouted", 8},
                      {"evicted", 9},
                      {"returned", 10},
                      {"abandoned_queued", 11},
                      {"queued", 12},
                      {"taken", 13},
                      {"delivered", 14},
                      {"dead_lettered", 15},
                      {"abandoned_batched", 16},
                      {"possibly_delivered", 17},
                      {"batched", 18}};
  CHECK(json(ledger) == expected);
}
