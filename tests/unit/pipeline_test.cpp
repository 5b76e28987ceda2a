// A pipeline that its host drives by run_once() and a clock of the test: when batches are made, in which order events come
// out, and what is known of it. See pipeline_delivery_test.cpp for the adapter's answers, pipeline_close_test.cpp for flush
// and close, pipeline_scaling_test.cpp for shards that come and go.

#include "shard/pipeline.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/pipeline.hpp"

namespace {

using shard::Backpressure;
using shard::Batch;
using shard::Delivery;
using shard::DeliveryContext;
using shard::HealthState;
using shard::Key;
using shard::NoticeKind;
using shard::Outcome;
using shard::PipelineOptions;
using shard::ShardId;
using shard::Timestamp;
using shard_test::Hosted;
using shard_test::hosted_options;
using shard_test::numbered;
using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr ShardId kFirst{0};

/// Fills batches only, so that nothing but the bound under test makes one due.
PipelineOptions patient_options(std::size_t max_events = 1'000) {
  auto options = hosted_options(1, 256);
  options.batch.min_events = options.batch.max_events = max_events;
  options.batch.max_delay = seconds{1};
  return options;
}

std::vector<std::size_t> sizes_of(const shard_test::Sink& sink) {
  std::vector<std::size_t> sizes;
  for (const auto& batch : sink.batches) sizes.push_back(batch.size());
  return sizes;
}

}  // namespace

// ---------------------------------------------------------------------------------- batching

TEST_CASE("an idle pipeline has nothing to do until events come", "[R-G10]") {
  Hosted test(hosted_options(3));
  CHECK(test.run() == 0);
  CHECK(test.pipeline->next_due() == Timestamp::max());
  CHECK(test.sink.batches.empty());
  test.push(1);
  CHECK(test.pipeline->next_due() == Timestamp{});
}

TEST_CASE("a partial batch is handed over when its first event is max_delay old, and not before",
          "[R-F2]") {
  Hosted test(hosted_options());
  test.advance(milliseconds{3});
  test.push(2);
  test.advance(milliseconds{4});
  test.push(1);
  CHECK(test.run() == 0);
  CHECK(test.pipeline->next_due() == Timestamp{13'000'000});
  test.advance(milliseconds{6} - nanoseconds{1});
  CHECK(test.run() == 0);
  test.advance(nanoseconds{1});
  CHECK(test.run() == 3);
  CHECK(test.sink.texts() == numbered(0, 3));
  CHECK(test.sink.batches.size() == 1);
  CHECK(test.pipeline->next_due() == Timestamp::max());
}

TEST_CASE("the delay counts from the event, however late the host looks", "[R-F2]") {
  Hosted test(hosted_options());
  test.push(1);
  test.advance(milliseconds{10});
  CHECK(test.pipeline->run_once() == 1);
}

TEST_CASE("with a max_delay of zero events are handed over at once", "[R-F2]") {
  auto options = hosted_options();
  options.batch.max_delay = nanoseconds{0};
  Hosted test(options);
  test.push(1);
  CHECK(test.pipeline->run_once() == 1);
  test.push(3);
  CHECK(test.pipeline->run_once() == 3);
  CHECK(sizes_of(test.sink) == std::vector<std::size_t>{1, 3});
}

TEST_CASE("a batch is due when enough events have gathered", "[R-F2]") {
  Hosted test(hosted_options());
  test.push(7);
  CHECK(test.run() == 0);
  test.push(1);
  CHECK(test.pipeline->next_due() <= test.now());
  CHECK(test.run() == 8);
}

TEST_CASE("a batch never has more than max_events", "[R-F1]") {
  Hosted test(hosted_options());
  test.push(30);
  CHECK(test.run() == 24);
  CHECK(sizes_of(test.sink) == std::vector<std::size_t>{8, 8, 8});
  test.advance(milliseconds{11});  // they were stamped one after the other
  CHECK(test.run() == 6);
  CHECK(test.sink.texts() == numbered(0, 30));
}

TEST_CASE("a batch never has more than max_bytes, unless it has one event", "[R-F1]") {
  auto options = hosted_options(1, 64);
  options.batch.max_bytes = 100;
  options.batch.max_delay = nanoseconds{0};
  Hosted test(options);
  for (const std::size_t size : {40U, 60U, 1U, 150U, 99U, 2U, 0U, 100U, 0U, 50U, 50U}) {
    REQUIRE(test.pipeline->ingest(std::string(size, 'x')) == Outcome::accepted);
  }
  CHECK(test.run() == 11);
  std::vector<std::size_t> bytes;
  for (const auto& batch : test.sink.batches) bytes.push_back(batch.bytes);
  CHECK(bytes == std::vector<std::size_t>{100, 1, 150, 99, 2, 100, 100});
}

TEST_CASE("a batch is due when its bytes are enough") {
  auto options = patient_options();
  options.batch.max_bytes = 1000;
  Hosted test(options);
  for (int i = 0; i < 2; ++i) {
    REQUIRE(test.pipeline->ingest(std::string(300, 'x')) == Outcome::accepted);
    CHECK(test.run() == 0);
  }
  for (int i = 0; i < 2; ++i) {
    REQUIRE(test.pipeline->ingest(std::string(300, 'x')) == Outcome::accepted);
  }
  CHECK(test.run() != 0);
  CHECK(test.sink.batches.at(0).bytes <= 1000);
}

TEST_CASE("a batch is due when its bytes are exactly enough", "[R-F2]") {
  auto options = patient_options();
  options.batch.max_bytes = 1024;
  Hosted test(options);
  for (int i = 0; i < 4; ++i) {
    CHECK(test.run() == 0);
    REQUIRE(test.pipeline->ingest(std::string(256, 'x')) == Outcome::accepted);
  }
  CHECK(test.run() == 4);
}

TEST_CASE("a batch is due when its shard is half full") {
  SECTION("of events") {
    Hosted test(patient_options());
    test.push(126);
    CHECK(test.run() == 0);
    test.push(1);  // of 255
    CHECK(test.run() == 127);
  }
  SECTION("of bytes") {
    Hosted test(patient_options());  // 4096 bytes
    for (int i = 0; i < 3; ++i) {
      REQUIRE(test.pipeline->ingest(std::string(640, 'x')) == Outcome::accepted);
    }
    CHECK(test.run() == 0);
    REQUIRE(test.pipeline->ingest(std::string(640, 'x')) == Outcome::accepted);
    CHECK(test.run() == 4);
  }
}

TEST_CASE("a shard that has refused an event does not wait for more of them", "[R-F2][R-J4]") {
  // By bytes it can be full before it is half full: 2,033 are used, and the longest payload needs 2,064 of 4,096.
  auto options = patient_options();
  options.manager.backpressure = shard::Backpressure::fail_producer();
  Hosted test(options);
  for (const auto size : {1'025U, 992U}) {
    REQUIRE(test.pipeline->ingest(std::string(size, 'x')) == Outcome::accepted);
  }
  CHECK(test.run() == 0);
  REQUIRE(test.pipeline->ingest(std::string(2'048, 'x')) == Outcome::rejected_full);
  CHECK(test.pipeline->next_due() <= test.now());
  CHECK(test.run() == 2);
  test.push(1);
  CHECK(test.run() == 0);  // this one waits again
}

TEST_CASE("what is enough grows with the rate of events, and is little again after a burst") {
  auto options = hosted_options(1, 1024);
  options.manager.ring_bytes = 1U << 16U;
  options.batch.min_events = 2;
  options.batch.max_events = 100;
  Hosted test(options);
  const auto push_each = [&](nanoseconds apart, std::size_t events) {
    test.sink.batches.clear();
    for (std::size_t i = 0; i < events; ++i) {
      test.push(1);
      test.run();
      test.advance(apart);
    }
  };
  push_each(microseconds{500}, 1000);  // 20 in max_delay
  CHECK(test.sink.batches.back().size() >= 19);
  CHECK(test.sink.batches.back().size() <= 21);
  test.advance(seconds{10});
  test.run();
  push_each(milliseconds{5}, 100);
  CHECK(test.sink.batches.back().size() == 2);
}

TEST_CASE("behind a slow adapter batches grow by themselves") {
  auto options = hosted_options(1, 256);
  options.batch.min_events = 1;
  options.batch.max_events = 100;
  options.batch.max_delay = nanoseconds{0};
  Hosted test(options);
  test.push(1);
  test.sink.script.emplace_back([&](const Batch&, const DeliveryContext&) {
    test.push(60);
    return Delivery::delivered();
  });
  test.run();
  CHECK(sizes_of(test.sink) == std::vector<std::size_t>{1, 60});
}

TEST_CASE("one call delivers a batch of each shard at most", "[R-G10]") {
  Hosted test(hosted_options());
  test.push(40);
  CHECK(test.pipeline->run_once() == 8);
  CHECK(test.pipeline->run_once() == 8);
  CHECK(test.sink.batches.size() == 2);
}

TEST_CASE("shards with a lot to do take turns", "[R-G1][R-G10]") {
  Hosted test(hosted_options(2));
  auto& manager = test.pipeline->manager();
  for (const auto id : {ShardId{0}, ShardId{1}}) {
    for (const auto& text : shard_test::payloads_for(manager, id, 24)) {
      REQUIRE(test.pipeline->ingest(text) == Outcome::accepted);
    }
  }
  test.run();
  REQUIRE(test.sink.batches.size() == 6);
  for (std::size_t i = 2; i < 6; ++i) {
    CHECK(test.sink.batches[i].shard == test.sink.batches[i - 2].shard);
    CHECK(test.sink.batches[i].shard != test.sink.batches[i - 1].shard);
  }
}

TEST_CASE("run_once from within itself does nothing", "[R-G10]") {
  Hosted test(hosted_options(2));
  test.sink.otherwise = [&](const Batch&, const DeliveryContext&) {
    CHECK(test.pipeline->run_once() == 0);
    return Delivery::delivered();
  };
  test.push(30);
  test.advance(milliseconds{11});
  CHECK(test.run() == 30);
}

TEST_CASE("an elastic pipeline is due at the end of each metrics window, or sooner for a batch",
          "[R-G10]") {
  Hosted test(shard_test::hosted_elastic_options(shard::Routing::balanced, 1, 1, 4));
  CHECK(test.pipeline->next_due() == Timestamp{});
  test.pipeline->run_once();
  CHECK(test.pipeline->next_due() == Timestamp{100'000'000});
  test.advance(milliseconds{100} - nanoseconds{1});
  test.pipeline->run_once();
  CHECK(test.pipeline->next_due() == Timestamp{100'000'000});
  test.advance(nanoseconds{1});
  test.pipeline->run_once();
  CHECK(test.pipeline->next_due() == Timestamp{200'000'000});
  test.push(1);
  CHECK(test.pipeline->next_due() == Timestamp{});
  CHECK(test.run() == 0);
  CHECK(test.pipeline->next_due() == Timestamp{110'000'000});
}

TEST_CASE("a serialised adapter is free again after each batch and each flush", "[R-G10]") {
  auto options = hosted_options(2);
  options.serialise_adapter = true;
  Hosted test(options);
  for (std::size_t round = 1; round <= 3; ++round) {
    test.push(20);
    CHECK(test.pipeline->flush(hours{1}));
    CHECK(test.sink.flushes == round);
    CHECK(test.ledger().delivered == 20 * round);
  }
}

// ---------------------------------------------------------------------------------- order

TEST_CASE("sequence numbers grow without gaps over batches and retries", "[R-F7][R-G3]") {
  Hosted test(hosted_options());
  std::uint64_t next = 0;
  for (int round = 0; round < 20; ++round) {
    if (round % 3 == 0) test.sink.answer(Delivery::retry("busy"));
    test.push(static_cast<std::size_t>(3 + round % 7));
    test.run();
    test.advance(milliseconds{200});
    test.run();
  }
  for (const auto& batch : test.sink.batches) {
    if (batch.attempt > 1) {
      CHECK(batch.sequences.front() == next - batch.size());
      continue;
    }
    for (const auto sequence : batch.sequences) CHECK(sequence == next++);
  }
  CHECK(next == test.pushed);
  CHECK(test.ledger().delivered == test.pushed);
}

TEST_CASE("a gap in the sequence is exactly what was evicted", "[R-F7][R-C2]") {
  Hosted test(hosted_options(1, 16, Backpressure::drop_oldest()));
  std::uint64_t gaps = 0;
  for (int round = 0; round < 10; ++round) {
    test.push(static_cast<std::size_t>(5 + 4 * round));
    test.run();
  }
  test.advance(milliseconds{10});
  test.run();
  std::uint64_t expected = 0;
  for (const auto& batch : test.sink.batches) {
    for (std::size_t i = 0; i < batch.size(); ++i) {
      REQUIRE(batch.sequences[i] >= expected);
      CHECK(batch.texts[i] == "e" + std::to_string(batch.sequences[i]));
      gaps += batch.sequences[i] - expected;
      expected = batch.sequences[i] + 1;
    }
  }
  CHECK(gaps > 0);
  CHECK(test.ledger().evicted == gaps);
  CHECK(test.ledger().accepted == test.pushed);
  CHECK(test.ledger().balanced());
}

TEST_CASE("what a host pops by hand is returned, and the rest is delivered") {
  Hosted test(hosted_options());
  test.push(6);
  shard::EventBatch popped;
  REQUIRE(test.pipeline->manager().shard(kFirst)->pop_batch_into(popped, 4) == 4);
  CHECK(test.pipeline->flush(hours{1}));
  CHECK(test.sink.texts() == numbered(4, 2));
  CHECK(test.ledger().returned == 4);
  CHECK(test.ledger().delivered == 2);
  CHECK(test.ledger().balanced());
  test.push(8);
  REQUIRE(test.pipeline->manager().shard(kFirst)->pop_batch_into(popped) == 8);
  CHECK(test.run() == 0);
  CHECK(test.pipeline->next_due() == Timestamp::max());
}

TEST_CASE("events that are pushed to a shard by name are delivered") {
  auto options = hosted_options(2);
  options.batch.max_delay = nanoseconds{0};
  Hosted test(options);
  auto& manager = test.pipeline->manager();
  SECTION("through a handle") {
    CHECK(manager.shard(kFirst)->try_push("named") == Outcome::accepted);
  }
  SECTION("through a handle, as a buffer") {
    CHECK(manager.shard(kFirst)->try_push(shard::Buffer::adopt(std::string("named"))) ==
          Outcome::accepted);
  }
  SECTION("under the locks") {
    REQUIRE(manager.with_shard(kFirst, [](shard::LockedShard& locked) {
      CHECK(locked.try_push("named") == Outcome::accepted);
    }));
  }
  SECTION("under the locks, behind others") {
    REQUIRE(manager.with_shard(kFirst, [](shard::LockedShard& locked) {
      CHECK(locked.try_push("first") == Outcome::accepted);
      CHECK(locked.try_push("named") == Outcome::accepted);
    }));
  }
  CHECK(test.pipeline->next_due() <= test.now());
  CHECK(test.run() != 0);
  CHECK(test.sink.texts().back() == "named");
  CHECK(test.ledger().queued == 0);
}

TEST_CASE("every way to ingest ends in the adapter, with keys and sources") {
  auto options = hosted_options();
  options.batch.max_delay = nanoseconds{0};
  Hosted test(options);
  auto producer = test.pipeline->producer();
  const std::vector<shard::Bytes> two{"b0", "b1"};
  CHECK(test.pipeline->ingest("a", Key{"k"}, shard::SourceIdentity{1, 2}) == Outcome::accepted);
  CHECK(test.pipeline->ingest_batch(two) == 2);
  CHECK(test.pipeline->ingest_raw(test.pipeline->manager().raw_event("c")) == Outcome::accepted);
  CHECK(producer.ingest("d") == Outcome::accepted);
  CHECK(test.pipeline->reject(Outcome::invalid_json) == Outcome::invalid_json);
  std::optional<shard::SourceIdentity> source;
  test.sink.otherwise = [&](const Batch& batch, const DeliveryContext&) {
    if (!source) source = batch[0].source;
    return Delivery::delivered();
  };
  test.run();
  CHECK(test.sink.texts() == std::vector<std::string>{"a", "b0", "b1", "c", "d"});
  CHECK(test.sink.batches.at(0).keys.at(0) == "k");
  CHECK(source == shard::SourceIdentity{1, 2});
  CHECK(test.ledger().rejected_invalid == 1);
}

// ---------------------------------------------------------------------------------- looking at it

TEST_CASE("a batch names its pipeline, and no two pipelines have the same name", "[R-G6]") {
  std::set<shard::Identity> names;
  for (int i = 0; i < 50; ++i) {
    Hosted test(hosted_options());
    CHECK(test.pipeline->identity().producer == 7);
    test.push(8);
    test.run();
    CHECK(test.sink.batches.at(0).identity == test.pipeline->identity());
    names.insert(test.pipeline->identity());
  }
  CHECK(names.size() == 50);
  auto options = hosted_options();
  options.producer_id = std::nullopt;
  std::set<std::uint64_t> producers;
  for (int i = 0; i < 50; ++i) producers.insert(Hosted(options).pipeline->identity().producer);
  CHECK(producers.size() == 50);
}

TEST_CASE("lag is the age of the oldest event that is not terminal") {
  Hosted test(hosted_options());
  CHECK(test.pipeline->lag() == nanoseconds{0});
  test.push(1);
  test.advance(milliseconds{5});
  test.push(7);
  CHECK(test.pipeline->lag() == milliseconds{5});  // queued
  test.sink.answer(Delivery::delivered(1, "busy"));
  test.run();
  test.push(1);
  test.advance(milliseconds{2});
  CHECK(test.pipeline->lag() == milliseconds{2});  // in a batch, the first of which is gone
  CHECK(test.pipeline->stats().oldest == milliseconds{2});
  test.advance(milliseconds{98});
  test.run();
  CHECK(test.pipeline->lag() == nanoseconds{0});
}

TEST_CASE("the latency histograms have every delivered event, from acceptance to the answer") {
  Hosted test(hosted_options(2));
  auto& manager = test.pipeline->manager();
  for (const auto& text : shard_test::payloads_for(manager, kFirst, 8)) {
    REQUIRE(test.pipeline->ingest(text) == Outcome::accepted);
  }
  test.advance(milliseconds{1});
  test.sink.script.emplace_back([&](const Batch&, const DeliveryContext&) {
    test.advance(milliseconds{3});
    return Delivery::delivered_except({0}, "bad");
  });
  test.run();
  const auto latency = test.pipeline->latency(kFirst);
  REQUIRE(latency);
  CHECK(latency->count() == 7);
  CHECK(latency->counts[shard::LatencyHistogram::bucket_of(3'999'999)] == 7);
  CHECK(test.pipeline->latency(ShardId{1})->count() == 0);
  CHECK(test.pipeline->stats().latency == *latency);
  CHECK_FALSE(test.pipeline->latency(ShardId{9}));
}

TEST_CASE("stats count batches, attempts and retries") {
  Hosted test(hosted_options(2));
  test.sink.answer(Delivery::retry("busy"));
  test.sink.answer(Delivery::delivered(1));
  test.sink.answer(Delivery::refuse("never"));
  for (const auto& text : shard_test::payloads_for(test.pipeline->manager(), kFirst, 8)) {
    REQUIRE(test.pipeline->ingest(text) == Outcome::accepted);
  }
  test.run();
  test.advance(milliseconds{100});
  test.run();
  const auto stats = test.pipeline->stats();
  CHECK(stats.attempts == 3);
  CHECK(stats.retries == 1);
  CHECK(stats.batches == 1);
  CHECK(stats.shards == 2);
  CHECK(stats.active_shards == 2);
  CHECK(stats.ledger == test.ledger());
}

TEST_CASE("health follows the deliveries", "[R-C4]") {
  Hosted test(hosted_options());
  auto health = test.pipeline->health();
  CHECK(health.state == HealthState::healthy);
  CHECK_FALSE(health.last_success);
  test.sink.answer(Delivery::retry("one"));
  test.sink.answer(Delivery::retry("two"));
  test.push(8);
  test.run();
  test.advance(milliseconds{100});
  test.run();
  health = test.pipeline->health();
  CHECK(health.state == HealthState::retrying);
  CHECK(health.consecutive_failures == 2);
  CHECK(health.failures == 2);
  CHECK(health.last_error.text() == "two");
  CHECK(health.busy_workers == 0);
  test.advance(milliseconds{200});
  test.run();
  health = test.pipeline->health();
  CHECK(health.state == HealthState::healthy);
  CHECK(health.consecutive_failures == 0);
  CHECK(health.failures == 2);
  CHECK(health.last_success == Timestamp{300'000'000});
}

TEST_CASE("an attempt that takes longer than it may is seen from outside") {
  auto options = hosted_options();
  options.attempt_timeout = seconds{1};
  Hosted test(options);
  bool called = false;
  test.sink.otherwise = [&](const Batch&, const DeliveryContext&) {
    called = true;
    CHECK(test.pipeline->health().busy_workers == 1);
    test.advance(seconds{1});
    CHECK(test.pipeline->health().state == HealthState::healthy);
    test.advance(nanoseconds{1});
    CHECK(test.pipeline->health().state == HealthState::stuck);
    return Delivery::delivered();
  };
  test.push(8);
  test.run();
  CHECK(called);
  CHECK(test.pipeline->health().state == HealthState::healthy);
}

TEST_CASE("the listener hears of failures, dead letters, recovery and evictions") {
  Hosted test(hosted_options(1, 16, Backpressure::drop_oldest()));
  test.sink.answer(Delivery::retry("busy"));
  test.sink.answer(Delivery::refuse({0}, "bad"));
  test.push(8);
  test.run();
  test.push(20);
  test.advance(milliseconds{100});
  test.pipeline->run_once();
  const auto& notices = test.sink.notices;
  REQUIRE(notices.size() == 4);
  CHECK(notices[0].kind == NoticeKind::retrying);
  CHECK(notices[0].shard == kFirst);
  CHECK(notices[0].events == 8);
  CHECK(notices[0].reason.text() == "busy");
  CHECK(notices[1].kind == NoticeKind::dead_lettered);
  CHECK(notices[1].events == 1);
  CHECK(notices[1].reason.text() == "bad");
  CHECK(notices[2].kind == NoticeKind::recovered);
  CHECK(notices[3].kind == NoticeKind::evicting);
  CHECK(notices[3].events == 5);
  test.run();
  CHECK(test.sink.notices.size() == 4);  // nothing new
}

TEST_CASE("notices of a kind come at most once per interval, and say how many were left out") {
  auto options = hosted_options();
  options.notice_interval = seconds{1};
  options.retry.multiplier = 1;
  Hosted test(options);
  test.sink.always(Delivery::retry("busy"));
  test.push(8);
  test.run();
  for (int i = 0; i < 25; ++i) {
    test.advance(milliseconds{100});
    test.run();
  }
  REQUIRE(test.sink.notices.size() == 3);  // at 0, 1 and 2 s
  CHECK(test.sink.notices[0].suppressed == 0);
  CHECK(test.sink.notices[1].suppressed == 9);
  CHECK(test.sink.notices[2].suppressed == 9);
  test.sink.always(Delivery::delivered());
  test.advance(milliseconds{100});
  test.run();
  CHECK(test.sink.notices.back().kind == NoticeKind::recovered);  // another kind
}

// ---------------------------------------------------------------------------------- made

TEST_CASE("a pipeline without an adapter is refused", "[R-J1]") {
  CHECK_THROWS_AS(shard::Pipeline(hosted_options(), std::unique_ptr<shard::Adapter>()),
                  shard::ConfigError);
  CHECK_THROWS_AS(shard::Pipeline(hosted_options(), shard::AdapterFactory([](std::size_t) {
                                    return std::unique_ptr<shard::Adapter>();
                                  })),
                  shard::ConfigError);
}

TEST_CASE("a pipeline with an option out of bounds is refused by its name", "[R-J1]") {
  const auto make = [](const PipelineOptions& options) {
    shard::Pipeline(options, [](const Batch&) { return Delivery::delivered(); });
  };
  auto options = hosted_options();
  options.attempt_timeout = nanoseconds{0};
  CHECK_THROWS_WITH(make(options), Catch::StartsWith("attempt_timeout = "));
  options = hosted_options();
  options.manager.shards = 0;
  CHECK_THROWS_WITH(make(options), Catch::StartsWith("manager.shards = "));
}

TEST_CASE("health names the adapter") {
  struct Named final : shard::Adapter {
    Delivery deliver(const Batch& /*batch*/, const DeliveryContext& /*context*/) override {
      return Delivery::delivered();
    }
    [[nodiscard]] std::string_view name() const noexcept override { return "named"; }
  };
  shard::Pipeline pipeline(hosted_options(), std::make_unique<Named>());
  CHECK(pipeline.health().adapter == "named");
  pipeline.close(hours{1});
  CHECK(pipeline.health().adapter == "named");
}

TEST_CASE("adapters of their own are not serialised", "[R-J1]") {
  // One worker after the other would have to come by for a flush, and none wakes the next.
  shard_test::ManualClock clock;
  shard_test::Sink sink(clock);
  auto options = hosted_options();
  options.serialise_adapter = true;
  const shard::AdapterFactory factory = [&](std::size_t) { return sink.adapter(); };
  CHECK_THROWS_WITH(shard::Pipeline(options, factory),
                    Catch::Contains("serialise_adapter") && Catch::Contains("false"));
  options.serialise_adapter = false;
  CHECK_NOTHROW(shard::Pipeline(options, factory));
}

TEST_CASE("a factory makes one adapter for whoever drives") {
  shard_test::ManualClock clock;
  shard_test::Sink sink(clock);
  auto options = hosted_options();
  options.manager.time_source = &clock;
  std::vector<std::size_t> made;
  shard::Pipeline pipeline(options, shard::AdapterFactory([&](std::size_t worker) {
                             made.push_back(worker);
                             return sink.adapter();
                           }));
  CHECK(made == std::vector<std::size_t>{0});
  REQUIRE(pipeline.ingest("x") == Outcome::accepted);
  CHECK(pipeline.close(hours{1}).complete);
  CHECK(sink.texts() == std::vector<std::string>{"x"});
}
