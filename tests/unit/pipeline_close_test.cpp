// The ends of a pipeline that its host drives: flush and close.

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/pipeline.hpp"

namespace {

using shard::Backpressure;
using shard::Batch;
using shard::CloseReport;
using shard::Delivery;
using shard::DeliveryContext;
using shard::FlushStatus;
using shard::HealthState;
using shard::Outcome;
using shard::ShardId;
using shard::Timestamp;
using shard::Undelivered;
using shard::UndeliveredRange;
using shard_test::Hosted;
using shard_test::hosted_options;
using shard_test::numbered;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using Ranges = std::vector<UndeliveredRange>;

constexpr ShardId kFirst{0};

UndeliveredRange range(std::uint64_t first, std::uint64_t last, Undelivered why) {
  return {kFirst, {first}, {last}, why};
}

}  // namespace

// ---------------------------------------------------------------------------------- flush

TEST_CASE("flush forces partial batches out and tells the adapter", "[R-H1]") {
  Hosted test(hosted_options(4));
  test.push(11);
  const auto result = test.pipeline->flush(hours{1});
  CHECK(result.status == FlushStatus::flushed);
  CHECK(result);
  CHECK(test.ledger().delivered == 11);
  CHECK(test.sink.flushes == 1);
  CHECK(test.sink.closes == 0);
}

TEST_CASE("a flush of nothing reaches the adapter, too") {
  Hosted test(hosted_options());
  CHECK(test.pipeline->flush(hours{1}));
  CHECK(test.pipeline->flush(hours{1}));
  CHECK(test.sink.flushes == 2);
}

TEST_CASE("what comes after a flush waits for company again") {
  Hosted test(hosted_options());
  test.push(1);
  REQUIRE(test.pipeline->flush(hours{1}));
  test.advance(milliseconds{1});
  test.push(1);
  CHECK(test.run() == 0);
  CHECK(test.pipeline->next_due() == test.now().after(milliseconds{10}));
}

TEST_CASE("flush says how many are outstanding when it comes too late", "[R-H1][R-H3]") {
  Hosted test(hosted_options());
  test.sink.answer(Delivery::delivered(3, "busy"));
  test.push(8);
  test.run();
  test.push(2);
  SECTION("of a batch that waits to be retried, and what is queued behind it") {
    const auto result = test.pipeline->flush(hours{1});
    CHECK(result.status == FlushStatus::timed_out);
    CHECK_FALSE(result);
    CHECK(result.outstanding == 7);
    CHECK(test.sink.batches.size() == 1);  // it is not hurried
    CHECK(test.sink.flushes == 0);
  }
  SECTION("without any time") {
    const auto result = test.pipeline->flush(nanoseconds{0});
    CHECK(result.status == FlushStatus::timed_out);
    CHECK(result.outstanding == 7);
  }
  SECTION("and succeeds when they are terminal") {
    test.advance(milliseconds{100});
    CHECK(test.pipeline->flush(hours{1}));
    CHECK(test.ledger().delivered == 10);
  }
}

TEST_CASE("what comes in during a flush is not waited for and not counted", "[R-H2][R-H3]") {
  Hosted test(hosted_options());
  test.push(3);
  SECTION("when it succeeds") {
    test.sink.otherwise = [&](const Batch& batch, const DeliveryContext&) {
      if (batch[0].text() == "e0") test.push(5);
      return Delivery::delivered();
    };
    CHECK(test.pipeline->flush(hours{1}));
    CHECK(test.ledger().delivered >= 3);
    CHECK(test.ledger().balanced());
  }
  SECTION("when it fails") {
    test.sink.otherwise = [&](const Batch&, const DeliveryContext&) {
      test.push(5);
      return Delivery::retry("busy");
    };
    const auto result = test.pipeline->flush(hours{1});
    CHECK(result.status == FlushStatus::timed_out);
    CHECK(result.outstanding == 3);
  }
  test.sink.always(Delivery::delivered());
}

TEST_CASE("evictions satisfy a flush and rejections do not disturb it", "[R-H2]") {
  Hosted test(hosted_options(1, 8, Backpressure::drop_oldest()));
  test.push(4);
  test.sink.answer(Delivery::retry("busy"));
  test.run();  // 4 are in a batch now
  for (int i = 0; i < 20; ++i) test.push(1);
  CHECK(test.ledger().evicted == 13);
  CHECK(test.pipeline->ingest(std::string(3000, 'x')) == Outcome::payload_too_large);
  const auto result = test.pipeline->flush(hours{1});
  CHECK(result.status == FlushStatus::timed_out);
  CHECK(result.outstanding == 11);
  test.advance(milliseconds{100});
  CHECK(test.pipeline->flush(hours{1}));
  CHECK(test.ledger().delivered == 11);
  CHECK(test.ledger().balanced());
}

TEST_CASE("a fast shard ahead of a slow one does not satisfy a flush", "[R-H2]") {
  Hosted test(hosted_options(2));
  auto& manager = test.pipeline->manager();
  test.sink.otherwise = [](const Batch& batch, const DeliveryContext&) {
    return batch.shard() == kFirst ? Delivery::retry("slow") : Delivery::delivered();
  };
  for (const auto& text : shard_test::payloads_for(manager, kFirst, 1)) {
    REQUIRE(test.pipeline->ingest(text) == Outcome::accepted);
  }
  for (const auto& text : shard_test::payloads_for(manager, ShardId{1}, 30)) {
    REQUIRE(test.pipeline->ingest(text) == Outcome::accepted);
  }
  const auto result = test.pipeline->flush(hours{1});
  CHECK(result.status == FlushStatus::timed_out);
  CHECK(result.outstanding == 1);
  CHECK(test.ledger().delivered == 30);
}

TEST_CASE("dead letters and events of an unknown fate are terminal for a flush", "[R-H1]") {
  Hosted test(hosted_options());
  test.sink.answer(Delivery::refuse({0}, "bad"));
  test.sink.answer(Delivery::unknown("lost"));
  test.push(3);
  CHECK(test.pipeline->flush(hours{1}));
  CHECK(test.ledger().dead_lettered == 1);
  CHECK(test.ledger().possibly_delivered == 2);
}

TEST_CASE("a flush that the adapter cannot do is no success") {
  Hosted test(hosted_options());
  test.push(1);
  SECTION("it says so") {
    test.sink.on_flush = [] { return false; };
  }
  SECTION("it throws") {
    test.sink.on_flush = []() -> bool { throw std::runtime_error("disk full"); };
  }
  const auto result = test.pipeline->flush(hours{1});
  CHECK(result.status == FlushStatus::adapter_failed);
  CHECK_FALSE(result);
  CHECK(test.ledger().delivered == 1);
  test.sink.on_flush = nullptr;
  CHECK(test.pipeline->flush(hours{1}));
}

TEST_CASE("flush and close called from within the pipeline would wait for themselves", "[R-H4]") {
  Hosted test(hosted_options());
  int calls = 0;
  const auto call = [&] {
    ++calls;
    CHECK(test.pipeline->flush(hours{1}).status == FlushStatus::would_deadlock);
    const auto report = test.pipeline->close(hours{1});
    CHECK(report.would_deadlock);
    CHECK_FALSE(report.complete);
    CHECK(test.pipeline->run_once() == 0);
    CHECK_FALSE(test.pipeline->is_closed());
  };
  test.push(8);
  SECTION("from the adapter") {
    test.sink.otherwise = [&](const Batch&, const DeliveryContext&) {
      call();
      return Delivery::delivered();
    };
    test.run();
  }
  SECTION("from the dead-letter handler") {
    test.sink.answer(Delivery::refuse("bad"));
    test.sink.on_letter = [&](const auto&) { call(); };
    test.run();
  }
  SECTION("from the listener") {
    test.sink.answer(Delivery::retry("busy"));
    test.sink.on_notice = [&](const auto&) { call(); };
    test.run();
  }
  SECTION("from the adapter's flush") {
    test.sink.on_flush = [&] {
      call();
      return true;
    };
    CHECK(test.pipeline->flush(hours{1}));
  }
  CHECK(calls == 1);
  test.sink.on_notice = nullptr;
  test.sink.on_flush = nullptr;
  CHECK_FALSE(test.pipeline->close(hours{1}).would_deadlock);
}

TEST_CASE("the adapter's own close is called within the pipeline, too", "[R-H4]") {
  Hosted test(hosted_options());
  test.sink.on_close = [&] {
    CHECK(test.pipeline->flush(hours{1}).status == FlushStatus::would_deadlock);
    CHECK(test.pipeline->close(hours{1}).would_deadlock);
  };
  CHECK(test.pipeline->close(hours{1}).complete);
  CHECK(test.sink.closes == 1);
}

TEST_CASE("an adapter that ingests into a full shard does not wait for itself") {
  Hosted test(hosted_options(1, 4, Backpressure::block(nanoseconds::max())));
  auto last = Outcome::accepted;
  test.sink.otherwise = [&](const Batch&, const DeliveryContext&) {
    for (int i = 0; i < 5 && last == Outcome::accepted; ++i) last = test.pipeline->ingest("more");
    return Delivery::delivered();
  };
  test.push(1);
  test.pipeline->flush(milliseconds{1});
  CHECK(last == Outcome::rejected_full);
  CHECK(test.ledger().rejected_full == 1);
}

// ---------------------------------------------------------------------------------- close

TEST_CASE("close delivers what was accepted and says so", "[R-I1][R-I2]") {
  Hosted test(hosted_options(3));
  test.push(50);
  const auto report = test.pipeline->close(hours{1});
  CHECK(report.complete);
  CHECK_FALSE(report.would_deadlock);
  CHECK(report.undelivered.empty());
  CHECK(report.abandoned_threads == 0);
  CHECK(report.took == nanoseconds{0});
  CHECK(report.ledger.delivered == 50);
  CHECK(report.ledger == test.ledger());
  CHECK(report.ledger.balanced());
  REQUIRE(report.shards.size() == 3);
  shard::Ledger sum;
  for (const auto& shard : report.shards) {
    CHECK(shard.ledger.balanced());
    sum += shard.ledger;
  }
  CHECK(sum == report.ledger);
  CHECK(test.sink.closes == 1);
  CHECK(test.pipeline->is_closed());
}

TEST_CASE("close with an adapter that always fails names every event", "[R-I1][R-I2]") {
  Hosted test(hosted_options());
  test.sink.always(Delivery::retry("down"));
  test.push(13);
  const auto report = test.pipeline->close(hours{1});
  CHECK_FALSE(report.complete);
  CHECK(report.undelivered == Ranges{range(0, 7, Undelivered::abandoned_batched),
                                     range(8, 12, Undelivered::abandoned_queued)});
  CHECK(report.ledger.abandoned_batched == 8);
  CHECK(report.ledger.abandoned_queued == 5);
  CHECK(report.ledger.queued == 0);
  CHECK(report.ledger.batched == 0);
  CHECK(report.ledger.balanced());
  CHECK(test.sink.closes == 1);
}

TEST_CASE("close tries a batch that waits to be retried at once, and once only", "[R-I1]") {
  Hosted test(hosted_options());
  test.sink.answer(Delivery::retry("busy"));
  test.push(8);
  test.run();
  SECTION("and delivers it so") {
    CHECK(test.pipeline->close(hours{1}).complete);
    CHECK(test.ledger().delivered == 8);
  }
  SECTION("then as usual") {
    test.sink.always(Delivery::retry("busy"));
    const auto report = test.pipeline->close(hours{1});
    CHECK(report.undelivered == Ranges{range(0, 7, Undelivered::abandoned_batched)});
  }
  CHECK(test.sink.batches.size() == 2);
}

TEST_CASE("close without any time delivers nothing and reports everything", "[R-I1][R-I2]") {
  Hosted test(hosted_options());
  test.sink.answer(Delivery::refuse({1, 4}, "bad"));
  test.sink.answer(Delivery::delivered(1, "busy"));
  test.push(8);
  test.run();  // e0 is delivered, e1 and e4 are dead letters
  test.push(4);
  const auto report = test.pipeline->close(nanoseconds{0});
  CHECK(test.sink.batches.size() == 2);
  CHECK(report.undelivered == Ranges{range(2, 3, Undelivered::abandoned_batched),
                                     range(5, 7, Undelivered::abandoned_batched),
                                     range(8, 11, Undelivered::abandoned_queued)});
  CHECK(report.ledger.delivered == 1);
  CHECK(report.ledger.dead_lettered == 2);
  CHECK(report.ledger.balanced());
  CHECK(test.sink.closes == 1);
}

TEST_CASE(
    "a clock that steps back holds up neither flush nor close, and none takes less than no time",
    "[R-B1][R-H1][R-I1]") {
  Hosted test(hosted_options());
  test.advance(hours{2});
  test.push(3);
  test.clock.set(0);
  CHECK(test.pipeline->lag() == nanoseconds{0});
  CHECK(test.pipeline->run_once() == 0);  // they wait for company, by the time at which they came
  CHECK(test.pipeline->flush(milliseconds{1}).status == FlushStatus::flushed);
  test.push(8);
  CHECK(test.pipeline->run_once() == 8);  // a full batch waits for nothing
  test.advance(hours{1});
  test.push(5);
  test.sink.on_close = [&] { test.clock.set(0); };
  const auto report = test.pipeline->close(milliseconds{1});
  CHECK(report.complete);
  CHECK(report.took == nanoseconds{0});
  CHECK(test.sink.texts() == numbered(0, 16));
}

TEST_CASE("a negative time is none") {
  Hosted test(hosted_options());
  test.push(1);
  const auto report = test.pipeline->close(nanoseconds{-5});
  CHECK(report.undelivered == Ranges{range(0, 0, Undelivered::abandoned_queued)});
}

TEST_CASE("no attempt begins when nine tenths of the time are gone, and stop is requested then",
          "[R-I1]") {
  Hosted test(hosted_options());
  std::optional<std::stop_token> stop;
  bool requested = false;
  test.sink.otherwise = [&](const Batch&, const DeliveryContext& context) {
    stop = context.stop;
    requested |= context.stop.stop_requested();
    test.advance(milliseconds{40});
    return Delivery::delivered();
  };
  test.push(40);
  const auto report = test.pipeline->close(milliseconds{100});  // attempts at 0, 40 and 80 ms
  CHECK(test.sink.batches.size() == 3);
  CHECK(report.took == milliseconds{120});
  CHECK(report.undelivered == Ranges{range(24, 39, Undelivered::abandoned_queued)});
  CHECK_FALSE(report.complete);
  CHECK_FALSE(requested);
  REQUIRE(stop);
  CHECK(stop->stop_requested());
}

TEST_CASE("evicted events are not reported as undelivered", "[R-I1]") {
  Hosted test(hosted_options(1, 8, Backpressure::drop_oldest()));
  test.push(20);
  const auto report = test.pipeline->close(nanoseconds{0});
  CHECK(report.undelivered == Ranges{range(13, 19, Undelivered::abandoned_queued)});
  CHECK(report.ledger.evicted == 13);
}

TEST_CASE("close is idempotent and every call gets the same report", "[R-I4]") {
  Hosted test(hosted_options());
  test.sink.always(Delivery::retry("down"));
  test.push(5);
  const auto first = test.pipeline->close(hours{1});
  test.sink.always(Delivery::delivered());
  test.advance(hours{1});
  const auto second = test.pipeline->close(nanoseconds{0});
  CHECK(second.ledger == first.ledger);
  CHECK(second.undelivered == first.undelivered);
  CHECK(second.took == first.took);
  CHECK(second.complete == first.complete);
  CHECK(test.sink.closes == 1);
  CHECK(test.sink.batches.size() == 1);
}

TEST_CASE("a closed pipeline refuses events, runs nothing and says that it is closed", "[R-I1]") {
  Hosted test(hosted_options());
  auto producer = test.pipeline->producer();
  const auto handle = test.pipeline->manager().shard(kFirst);
  test.pipeline->close(hours{1});
  CHECK(test.pipeline->ingest("x") == Outcome::rejected_closed);
  CHECK(producer.ingest("x") == Outcome::rejected_closed);
  CHECK(handle->try_push("x") == Outcome::rejected_closed);
  CHECK(test.ledger().rejected_closed == 3);
  CHECK(test.pipeline->run_once() == 0);
  CHECK(test.pipeline->next_due() == Timestamp::max());
  CHECK(test.pipeline->flush(hours{1}).status == FlushStatus::closed);
  CHECK(test.pipeline->health().state == HealthState::closed);
  CHECK(test.pipeline->lag() == nanoseconds{0});
  CHECK(test.pipeline->stats().ledger == test.ledger());
}

TEST_CASE("scaling is refused after close", "[R-I4]") {
  Hosted test(shard_test::hosted_elastic_options(shard::Routing::keyed, 2, 1, 4));
  test.pipeline->close(hours{1});
  CHECK(test.pipeline->scale_up(1).error == shard::ScalingError::closed);
  CHECK(test.pipeline->scale_down(1).error == shard::ScalingError::closed);
  CHECK(test.pipeline->manager().add_shard().error() == shard::ScalingError::closed);
  CHECK(test.pipeline->stats().shards == 2);
}

TEST_CASE("the destructor closes, once, and destroys the adapter", "[R-I5]") {
  auto options = hosted_options();
  options.close_timeout = milliseconds{1};
  Hosted test(options);
  test.push(3);
  SECTION("a pipeline that nobody closed") {}
  SECTION("a closed one") { test.pipeline->close(hours{1}); }
  test.pipeline.reset();
  CHECK(test.sink.texts() == numbered(0, 3));
  CHECK(test.sink.closes == 1);
  CHECK(test.sink.destroyed == 1);
}

TEST_CASE("the destructor lets nothing through that the adapter throws", "[R-I5]") {
  Hosted test(hosted_options());
  test.push(3);
  test.sink.fail_with(7);
  test.sink.on_close = [] { throw std::runtime_error("close"); };
  test.pipeline.reset();
  CHECK(test.sink.closes == 1);
  CHECK(test.sink.destroyed == 1);
}

TEST_CASE("a pipeline whose adapter cannot be closed was not closed completely") {
  Hosted test(hosted_options());
  test.push(1);
  test.sink.on_close = [] { throw std::runtime_error("close"); };
  const auto report = test.pipeline->close(hours{1});
  CHECK(report.undelivered.empty());
  CHECK_FALSE(report.complete);
}

TEST_CASE("close has the adapter make everything durable before it closes it", "[R-I1]") {
  Hosted test(hosted_options());
  test.push(1);
  std::size_t delivered = 0;
  test.sink.on_flush = [&] {
    CHECK(test.sink.closes == 0);
    delivered = test.sink.batches.size();
    return true;
  };
  SECTION("when it can, all is complete") { CHECK(test.pipeline->close(hours{1}).complete); }
  SECTION("when it cannot, the report says so, and it is closed all the same") {
    test.sink.on_flush = [&] {
      delivered = test.sink.batches.size();
      return false;
    };
    const auto report = test.pipeline->close(hours{1});
    CHECK_FALSE(report.complete);
    CHECK(report.ledger.delivered == 1);
  }
  SECTION("neither when it throws") {
    test.sink.on_flush = [&]() -> bool {
      delivered = test.sink.batches.size();
      throw std::runtime_error("disk full");
    };
    CHECK_FALSE(test.pipeline->close(hours{1}).complete);
  }
  CHECK(delivered == 1);
  CHECK(test.sink.flushes == 1);
  CHECK(test.sink.closes == 1);
}

TEST_CASE("the report can be shown as text") {
  Hosted test(hosted_options());
  test.push(1);
  const auto text = to_string(test.pipeline->close(nanoseconds{0}));
  CHECK(text.find("abandoned_queued") != std::string::npos);
}
