#include "shard/shard.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "shard/detail/manager_impl.hpp"
#include "shard/manager.hpp"
#include "support/books.hpp"
#include "support/counted_buffer.hpp"
#include "support/misuse_recorder.hpp"
#include "support/options.hpp"

using shard::Bytes;
using shard::Key;
using shard::Manager;
using shard::Outcome;
using shard::ShardId;
using shard::SourceIdentity;
using shard_test::CountedBuffers;
using shard_test::drain;
using shard_test::small_options;

namespace {

/// A manager of one shard, and that.
struct One {
  explicit One(std::size_t ring_capacity, shard::Backpressure mode = {})
      : manager(small_options(1, ring_capacity, mode)) {}
  Manager manager;
  shard::Shard shard = *manager.shard(ShardId{0});
};

/// What one event can be offered by; each gives its outcome.
struct Way {
  const char* name;
  std::function<Outcome(Manager&, Bytes, Key)> offer;
};

const std::vector<Way>& ways() {
  using Raw = shard::RawEvent;
  static const std::vector<Way> all{
      {"ingest",
       [](Manager& m, Bytes p, Key k) {
         return m.ingest(p, k, SourceIdentity{7, 8});
       }},
      {"ingest of a buffer",
       [](Manager& m, Bytes p, Key k) {
         return m.ingest(shard::Buffer::copy_of(p), k, SourceIdentity{7, 8});
       }},
      {"ingest_raw",
       [](Manager& m, Bytes p, Key k) {
         return m.ingest_raw(m.raw_event(p, k).with(SourceIdentity{7, 8}));
       }},
      {"ingest_raw_batch",
       [](Manager& m, Bytes p, Key k) {
         const std::array<Raw, 1> events{m.raw_event(p, k).with(SourceIdentity{7, 8})};
         std::array<Outcome, 1> outcomes{};
         m.ingest_raw_batch(events, outcomes);
         return outcomes[0];
       }},
      {"Producer::ingest",
       [](Manager& m, Bytes p, Key k) {
         return m.producer().ingest(p, k, SourceIdentity{7, 8});
       }},
      {"Shard::try_push_raw",
       [](Manager& m, Bytes p, Key k) {
         return m.shard(ShardId{0})->try_push_raw(Raw::of(p).with(k).with(SourceIdentity{7, 8}));
       }},
      {"LockedShard::try_push_raw",
       [](Manager& m, Bytes p, Key k) {
         auto outcome = Outcome::unrouted;
         m.with_shard(ShardId{0}, [&](shard::LockedShard& locked) {
           outcome = locked.try_push_raw(Raw::of(p).with(k).with(SourceIdentity{7, 8}));
         });
         return outcome;
       }},
  };
  return all;
}

}  // namespace

// ---------------------------------------------------------------------------------- capacity

TEST_CASE("a shard of capacity n holds n - 1 events and returns them in order", "[R-A5][R-A11]") {
  const auto capacity = GENERATE(std::size_t{2}, std::size_t{4}, std::size_t{64});
  One one(capacity);
  CHECK(one.shard.capacity() == capacity);
  CHECK(one.shard.usable_capacity() == capacity - 1);
  for (int round = 0; round < 3; ++round) {
    std::vector<std::string> accepted;
    for (std::size_t i = 0; i < capacity - 1; ++i) {
      CHECK_FALSE(one.shard.is_full());
      accepted.push_back(std::to_string(round) + "." + std::to_string(i));
      CHECK(one.manager.ingest(accepted.back()) == Outcome::accepted);
    }
    CHECK(one.shard.fill_ratio() == 1.0);
    CHECK(one.shard.is_full());
    CHECK(one.manager.ingest("too many") == Outcome::dropped_newest);
    CHECK(one.shard.len() == capacity - 1);
    CHECK(drain(one.shard) == accepted);
    CHECK(one.shard.fill_ratio() == 0.0);
    CHECK(one.shard.is_empty());
  }
}

TEST_CASE("the fill ratio is events in use by events that fit", "[R-A11]") {
  One one(4);
  one.manager.ingest("1");
  CHECK(one.shard.fill_ratio() == Approx(1.0 / 3));
  one.manager.ingest("2");
  CHECK(one.shard.fill_ratio() == Approx(2.0 / 3));
}

TEST_CASE("the fill ratio is of bytes where they are the scarcer", "[R-A11][R-A10]") {
  One one(64);
  const std::string quarter(1024, 'q');
  for (int i = 1; i <= 4; ++i) {
    CHECK(one.manager.ingest(quarter) == Outcome::accepted);
    CHECK(one.shard.fill_ratio() == i / 4.0);
  }
  CHECK(one.shard.is_full());
  CHECK(one.shard.len() == 4);
}

TEST_CASE("a shard whose bytes are used up is full, and takes events again when some are free",
          "[R-A10]") {
  One one(64);
  const std::string quarter(1024, 'q');
  for (int i = 0; i < 4; ++i) REQUIRE(one.manager.ingest(quarter) == Outcome::accepted);
  CHECK(one.manager.ingest("x") == Outcome::dropped_newest);
  CHECK(one.manager.ingest("") == Outcome::accepted);  // takes no byte
  CHECK(one.shard.pop_batch(1).size() == 1);
  CHECK(one.manager.ingest("x") == Outcome::accepted);
}

TEST_CASE("keys and source identities count against the byte budget too", "[R-A10]") {
  One one(64);
  const std::string key(496, 'k');
  for (int i = 0; i < 8; ++i) {
    REQUIRE(one.manager.ingest("", Key{key}, SourceIdentity{1, 2}) == Outcome::accepted);
  }
  CHECK(one.shard.is_full());
  CHECK(one.manager.ingest("x") == Outcome::dropped_newest);
}

TEST_CASE("a buffer that is moved in counts against the byte budget", "[R-A10]") {
  CountedBuffers counted;
  const std::string bytes(1360, 'b');
  One one(64);
  for (int i = 0; i < 2; ++i) REQUIRE(one.manager.ingest(counted.make(bytes)) == Outcome::accepted);
  CHECK(one.shard.fill_ratio() == Approx(2 * 1376 / 4096.0));
  auto refused = counted.make(bytes);
  CHECK(one.manager.ingest(std::move(refused)) == Outcome::dropped_newest);
  CHECK(refused.bytes().size() == 1360);  // the caller still has it
  CHECK(one.manager.ingest(std::string(1024, 'x')) == Outcome::accepted);
}

TEST_CASE("drop_oldest evicts as many as the bytes of the new event need", "[R-A10]") {
  One one(64, shard::Backpressure::drop_oldest());
  for (int i = 0; i < 4; ++i) {
    REQUIRE(one.manager.ingest(std::string(1024, static_cast<char>('0' + i))) == Outcome::accepted);
  }
  CHECK(one.manager.ingest(shard::Buffer::copy_of(std::string(2000, 'b'))) == Outcome::accepted);
  CHECK(one.shard.ledger().evicted == 2);
  const auto left = drain(one.shard);
  REQUIRE(left.size() == 3);
  CHECK(left[0] == std::string(1024, '2'));
  CHECK(left[2] == std::string(2000, 'b'));
}

TEST_CASE("the largest event fits into an empty shard wherever its arena stands", "[R-A10]") {
  One one(4);
  const std::string longest(2048, 'l');
  const std::string inline_longest(1024, 'i');
  const std::string key(512, 'k');
  std::size_t refused = 0;
  for (std::size_t step = 0; step < 600; ++step) {
    // Of 16 bytes, so that the arena's position meets every multiple of its alignment.
    refused += one.manager.ingest("0123456789abcdef") == Outcome::accepted ? 0U : 1U;
    static_cast<void>(one.shard.pop_batch());
    const auto& payload = step % 2 == 0 ? longest : inline_longest;
    refused +=
        one.manager.ingest(payload, Key{key}, SourceIdentity{1, 2}) == Outcome::accepted ? 0U : 1U;
    static_cast<void>(one.shard.pop_batch());
  }
  CHECK(refused == 0);
}

// ---------------------------------------------------------------------------------- payloads

TEST_CASE("payload, key and source come out as they went in, by every way", "[R-A12]") {
  std::string all_values;
  for (int value = 0; value < 256; ++value) all_values.push_back(static_cast<char>(value));
  const std::vector<std::string> payloads{
      "",
      std::string(1, '\0'),
      "\xFF\xFE not UTF-8 \xC0",
      all_values,
      "0123456789abcdef",
      std::string(1023, '\0'),
      std::string(1024, 'i'),
  };
  const std::vector<std::string> keys{"", std::string("\0k\0", 3), std::string(512, '\xFF')};
  One one(4);
  for (const auto& way : ways()) {
    for (const auto& payload : payloads) {
      for (const auto& key : keys) {
        INFO(way.name << ", payload of " << payload.size() << ", key of " << key.size());
        REQUIRE(way.offer(one.manager, payload, Key{key}) == Outcome::accepted);
        const auto batch = one.shard.pop_batch();
        REQUIRE(batch.size() == 1);
        const auto event = batch[0];
        CHECK(event.payload == Bytes(payload));
        REQUIRE(event.key.has_value());
        CHECK(event.key->bytes == Bytes(key));
        CHECK(event.source == SourceIdentity{7, 8});
        CHECK(event.shard == ShardId{0});
        CHECK(batch.payload_bytes() == payload.size());
      }
    }
  }
}

TEST_CASE("an empty key is a key, and none is none", "[R-A12]") {
  One one(8);
  one.manager.ingest("none");
  one.manager.ingest("empty", Key{""});
  one.manager.ingest("source", SourceIdentity{0, 0});
  const auto batch = one.shard.pop_batch();
  REQUIRE(batch.size() == 3);
  CHECK_FALSE(batch[0].key.has_value());
  CHECK_FALSE(batch[0].source.has_value());
  CHECK(batch[1].key.has_value());
  CHECK_FALSE(batch[2].key.has_value());
  CHECK(batch[2].source == SourceIdentity{0, 0});
}

TEST_CASE("payloads above inline_max come out as they went in", "[R-A12]") {
  One one(8);
  std::string longer(2048, 'l');
  longer[1000] = '\0';
  auto producer = one.manager.producer();
  CHECK(one.manager.ingest(longer) == Outcome::accepted);
  CHECK(producer.ingest(longer.substr(1000), Key{"k"}, SourceIdentity{1, 2}) == Outcome::accepted);
  const auto first = one.shard.pop_batch();
  REQUIRE(first.size() == 2);
  CHECK(first[0].payload == Bytes(longer));
  CHECK(first[1].payload == Bytes(longer.substr(1000)));
  CHECK(first[1].key->bytes == Bytes("k"));
  CHECK(first[1].source == SourceIdentity{1, 2});
  const std::array<Bytes, 3> batch{Bytes("a"), Bytes(longer), Bytes("b")};
  CHECK(one.manager.ingest_batch(batch) == 3);
  CHECK(drain(one.shard) == std::vector<std::string>{"a", longer, "b"});
}

TEST_CASE("the caller may reuse the bytes as soon as ingest returns", "[R-A12]") {
  One one(8);
  std::string payload = "first";
  std::string key = "key-1";
  one.manager.ingest(payload, Key{key});
  payload.assign(5, '?');
  key.assign(5, '?');
  const auto batch = one.shard.pop_batch();
  CHECK(batch[0].text() == "first");
  CHECK(batch[0].key->bytes.text() == "key-1");
}

TEST_CASE("a payload or key above its limit is refused by every way and disturbs nothing",
          "[R-A13]") {
  const std::string too_long(2049, 'x');
  const std::string long_key(513, 'k');
  for (const auto& way : ways()) {
    INFO(way.name);
    One one(4, shard::Backpressure::drop_oldest());
    for (const auto* text : {"1", "2", "3"}) one.manager.ingest(text);
    REQUIRE(one.shard.is_full());
    CHECK(way.offer(one.manager, too_long, Key{"k"}) == Outcome::payload_too_large);
    CHECK(way.offer(one.manager, "short", Key{long_key}) == Outcome::key_too_large);
    CHECK(one.manager.ledger() == shard::Ledger{.accepted = 3, .rejected_invalid = 2, .queued = 3});
    CHECK(drain(one.shard) == std::vector<std::string>{"1", "2", "3"});
  }
}

TEST_CASE("a payload that is too long is refused alone out of a batch", "[R-A13]") {
  One one(8);
  const std::string too_long(2049, 'x');
  const std::array<Bytes, 3> batch{Bytes("a"), Bytes(too_long), Bytes("b")};
  std::array<Outcome, 3> outcomes{};
  const auto check = [&](std::size_t accepted) {
    CHECK(accepted == 2);
    CHECK(outcomes == std::array{Outcome::accepted, Outcome::payload_too_large, Outcome::accepted});
    CHECK(drain(one.shard) == std::vector<std::string>{"a", "b"});
  };
  check(one.manager.ingest_batch(batch, outcomes));
  outcomes = {};
  check(one.manager.producer().ingest_batch(batch, outcomes));
  CHECK(one.manager.ledger().rejected_invalid == 2);
}

TEST_CASE("a buffer that is too long stays the caller's", "[R-A13][R-A7]") {
  One one(4);
  CountedBuffers counted;
  const std::string bytes(2049, 'x');
  auto buffer = counted.make(bytes);
  CHECK(one.manager.ingest(std::move(buffer)) == Outcome::payload_too_large);
  CHECK(buffer.bytes().size() == 2049);
  CHECK(counted.released() == 0);
}

TEST_CASE("what would be copied under the lock is refused inside with_shard", "[R-A13]") {
  One one(4);
  one.manager.with_shard(ShardId{0}, [](shard::LockedShard& locked) {
    CHECK(locked.try_push(std::string(1025, 'x')) == Outcome::payload_too_large);
    CHECK(locked.try_push(std::string(1024, 'x')) == Outcome::accepted);
  });
  CHECK(one.manager.ledger() == shard::Ledger{.accepted = 1, .rejected_invalid = 1, .queued = 1});
}

// ---------------------------------------------------------------------------------- popping

TEST_CASE("a pop without bounds takes all that is queued, also behind what a smaller one looked at",
          "[R-A5]") {
  auto options = small_options(1, 1024);
  options.ring_bytes = std::size_t{64} << 10U;
  Manager manager(options);
  const auto shard = *manager.shard(ShardId{0});
  shard::EventBatch batch;
  for (int i = 0; i < 10; ++i) manager.ingest("first");
  CHECK(shard.pop_batch_into(batch, 1) == 1);
  for (int i = 0; i < 5; ++i) manager.ingest("second");
  CHECK(shard.pop_batch_into(batch) == 14);

  for (int i = 0; i < 1000; ++i) manager.ingest("third");
  CHECK(shard.pop_batch_into(batch, 1) == 1);
  CHECK(shard.pop_batch_into(batch) == 999);
  CHECK(batch.size() == 1015);
}

TEST_CASE("a pop is bounded by events and by payload bytes, the first event excepted", "[R-A8]") {
  One one(64);
  for (const auto size : {10, 10, 100, 10}) one.manager.ingest(std::string(std::size_t(size), 'p'));
  shard::EventBatch batch;
  CHECK(one.shard.pop_batch_into(batch, 0) == 0);
  CHECK(one.shard.pop_batch_into(batch, 10, 109) == 2);
  CHECK(one.shard.pop_batch_into(batch, 10, 99) == 1);
  CHECK(one.shard.pop_batch_into(batch, 10, 0) == 1);
  CHECK(one.shard.pop_batch_into(batch, 10, 0) == 0);
  CHECK(batch.payload_bytes() == 130);
}

TEST_CASE("events without payload are popped to the last, whatever the bound of bytes", "[R-A8]") {
  One one(64);
  const auto ingest = [&](std::initializer_list<const char*> payloads) {
    for (const auto* payload : payloads) one.manager.ingest(payload);
  };
  shard::EventBatch batch;
  ingest({"1234", "1234", ""});
  one.shard.pop_batch_into(batch, 1);
  ingest({"", "1", ""});  // in the ring, while two are staged
  CHECK(one.shard.pop_batch_into(batch, 10, 4) == 3);
  CHECK(one.shard.pop_batch_into(batch, 10, 4) == 2);
}

TEST_CASE("long events come out although each pop holds the lock for 64 KiB only", "[R-A8]") {
  auto options = small_options(1, 64);
  options.ring_bytes = std::size_t{1} << 20U;
  options.max_payload = std::size_t{512} << 10U;
  options.inline_max = std::size_t{256} << 10U;
  Manager manager(options);
  std::vector<std::string> sent;
  for (const std::size_t size : {200'000U, 100'000U, 10U, 250'000U, 70'000U}) {
    sent.emplace_back(size, static_cast<char>('a' + sent.size()));
    REQUIRE(manager.ingest(sent.back()) == Outcome::accepted);
  }
  const auto batch = manager.shard(ShardId{0})->pop_batch();
  REQUIRE(batch.size() == sent.size());
  for (std::size_t i = 0; i < sent.size(); ++i) CHECK(batch[i].payload == Bytes(sent[i]));
}

TEST_CASE("an exception from the closure passes, and gives both locks and the turn back",
          "[R-A3]") {
  const shard_test::MisuseRecorder misuse;
  One one(4, shard::Backpressure::drop_oldest());
  CHECK_THROWS_AS(one.manager.with_shard(ShardId{0},
                                         [](shard::LockedShard& locked) {
                                           CHECK(locked.try_push("kept") == Outcome::accepted);
                                           throw std::runtime_error("from the closure");
                                         }),
                  std::runtime_error);
  for (int i = 0; i < 5; ++i) CHECK(one.manager.ingest("later") == Outcome::accepted);
  CHECK(drain(one.shard).size() == 3);
  CHECK(one.manager.with_shard(ShardId{0}, [](shard::LockedShard&) {}));
  CHECK(misuse.count() == 0);
}

TEST_CASE("evicting, popping, popping under the locks and closing take turns at the read index",
          "[R-A2]") {
  const shard_test::MisuseRecorder misuse;
  {
    One one(4, shard::Backpressure::drop_oldest());
    const std::array<Bytes, 5> batch{Bytes("1"), Bytes("2"), Bytes("3"), Bytes("4"), Bytes("5")};
    CHECK(one.manager.ingest_batch(batch) == 5);
    CHECK(one.manager.ingest("6") == Outcome::accepted);
    shard::EventBatch popped;
    CHECK(one.shard.try_pop(popped));
    one.manager.with_shard(ShardId{0}, [&](shard::LockedShard& locked) {
      for (int i = 0; i < 4; ++i) CHECK(locked.try_push("7") == Outcome::accepted);
      CHECK(locked.pop_batch_into(popped, 2) == 2);
      CHECK(locked.len() == 1);
    });
  }
  CHECK(misuse.count() == 0);
}

// ---------------------------------------------------------------------------------- the end

TEST_CASE("each buffer is released exactly once: popped, evicted, refused or abandoned", "[R-A7]") {
  CountedBuffers counted;
  {
    One one(4, shard::Backpressure::drop_oldest());
    for (int i = 0; i < 5; ++i) {
      auto buffer = counted.make("owned");
      CHECK(one.manager.ingest(std::move(buffer)) == Outcome::accepted);
      CHECK(buffer.empty());
    }
    CHECK(counted.released() == 2);  // evicted
    {
      const auto batch = one.shard.pop_batch(1);
      CHECK(counted.released() == 2);
    }
    CHECK(counted.released() == 3);  // popped, and the batch is gone
    one.manager.close();
    {
      auto refused = counted.make("owned");
      CHECK(one.manager.ingest(std::move(refused)) == Outcome::rejected_closed);
      CHECK(refused.bytes().text() == "owned");
    }
    CHECK(counted.released() == 4);
  }
  CHECK(counted.released() == 6);  // two were abandoned
  CHECK(counted.made() == 6);
}

TEST_CASE("handles outlive their manager, count what was abandoned and answer closed",
          "[R-A7][R-D12]") {
  CountedBuffers counted;
  std::optional<Manager> manager(small_options(1, 8));
  const auto shard = *manager->shard(ShardId{0});
  auto producer = manager->producer();
  manager->ingest("returned");
  shard::EventBatch batch;
  CHECK(shard.try_pop(batch));
  for (int i = 0; i < 3; ++i) CHECK(manager->ingest(counted.make("left")) == Outcome::accepted);
  manager.reset();

  CHECK(counted.released() == 3);
  CHECK(shard.ledger() == shard::Ledger{.accepted = 4, .returned = 1, .abandoned_queued = 3});
  CHECK(shard.len() == 0);
  CHECK(shard.fill_ratio() == 0.0);
  CHECK(shard.usable_capacity() == 7);
  CHECK(shard.try_push("late") == Outcome::rejected_closed);
  CHECK(shard.try_push(std::string(1500, 'l')) == Outcome::rejected_closed);
  CHECK(producer.ingest("late") == Outcome::rejected_closed);
  const std::array<Bytes, 2> late{Bytes("late"), Bytes("later")};
  CHECK(producer.ingest_batch(late) == 0);
  CHECK_FALSE(shard.try_pop(batch));
  CHECK(batch.size() == 1);
  CHECK(batch[0].text() == "returned");
}

// ---------------------------------------------------------------------------------- positions

namespace {

/// Counters that are made with a literal 0 (a shard's positions) start just below the end of 64 bits.
template <class T>
struct LateAtomic : std::atomic<T> {
  using std::atomic<T>::atomic;
};
template <>
struct LateAtomic<std::uint64_t> : std::atomic<std::uint64_t> {
  static constexpr std::uint64_t kFirst = std::uint64_t{0} - 20;
  using std::atomic<std::uint64_t>::atomic;
  LateAtomic(int zero) : std::atomic<std::uint64_t>(kFirst + static_cast<unsigned>(zero)) {}
};

struct LatePlatform : shard::detail::SystemPlatform {
  template <class T>
  using Atomic = LateAtomic<T>;
  using Word = Atomic<std::uint32_t>;
};

}  // namespace

TEST_CASE("a shard's positions pass the end of 64 bits without losing or reordering an event",
          "[R-A4]") {
  shard::BasicManager<LatePlatform> manager(
      small_options(1, 8, shard::Backpressure::fail_producer()));
  const auto shard = *manager.shard(ShardId{0});
  shard::EventBatch batch;
  std::size_t pushed = 0;
  std::size_t popped = 0;
  for (int round = 0; round < 10; ++round) {
    for (std::size_t fits = 0; fits < 7; ++fits) {
      REQUIRE(shard.len() == fits);
      REQUIRE(manager.ingest(std::to_string(pushed)) == Outcome::accepted);
      ++pushed;
    }
    REQUIRE(shard.fill_ratio() == 1.0);
    REQUIRE(manager.ingest("full") == Outcome::rejected_full);
    batch.clear();
    shard.pop_batch_into(batch);
    REQUIRE(batch.size() == 7);
    for (const auto event : batch) {
      REQUIRE(event.text() == std::to_string(popped));
      REQUIRE(event.sequence.value == LateAtomic<std::uint64_t>::kFirst + popped);
      ++popped;
    }
  }
  CHECK(popped == 70);  // of which the last 50 have sequences from 0 on
  CHECK(batch[6].sequence.value == 49);
}
