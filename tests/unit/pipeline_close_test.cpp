// The ends of a pipeline that its host drives: flush and close.

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/pipeline.hpp"
#include "support/pipeline_access.hpp"

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
using shard::detail::PipelineTestAccess;
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

/// Holds the thread that is in an adapter's call until the test lets it go.
class Held {
 public:
  void hold(const DeliveryContext& context) {
    inside_ = true;
    inside_.notify_one();
    open_.wait(false);
    told_to_stop_ = context.stop.stop_requested();
  }
  void wait_for_it() const { inside_.wait(false); }
  void let_go() {
    open_ = true;
    open_.notify_one();
  }
  [[nodiscard]] bool told_to_stop() const { return told_to_stop_; }

 private:
  std::atomic<bool> inside_{false};
  std::atomic<bool> open_{false};
  std::atomic<bool> told_to_stop_{false};
};

/// An adapter whose every call is the test's.
struct Calls {
  std::function<Delivery(const DeliveryContext&)> deliver = [](const DeliveryContext&) {
    return Delivery::delivered();
  };
  std::function<void(const DeliveryContext&)> flush = [](const DeliveryContext&) {};
  std::function<void(const DeliveryContext&)> close = [](const DeliveryContext&) {};

  [[nodiscard]] std::unique_ptr<shard::Adapter> adapter() const {
    struct Made final : shard::Adapter {
      explicit Made(Calls of) : calls(std::move(of)) {}
      Delivery deliver(const Batch& /*batch*/, const DeliveryContext& context) override {
        return calls.deliver(context);
      }
      bool flush(const DeliveryContext& context) override {
        calls.flush(context);
        return true;
      }
      void close(const DeliveryContext& context) override { calls.close(context); }
      const Calls calls;
    };
    return std::make_unique<Made>(*this);
  }
};

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

TEST_CASE("a flush of nothing reaches the adapter, too, also without any time") {
  Hosted test(hosted_options());
  CHECK(test.pipeline->flush(hours{1}));
  CHECK(test.pipeline->flush(hours{1}));
  CHECK(test.sink.flushes == 2);
  const auto result = test.pipeline->flush(nanoseconds{0});
  CHECK(result.status == FlushStatus::flushed);
  CHECK(result.outstanding == 0);
  CHECK(test.sink.flushes == 3);
}

TEST_CASE("a flush goes on while batches succeed, however small they are", "[R-H1][R-G10]") {
  auto options = hosted_options();
  options.batch.min_events = options.batch.max_events = 1;
  Hosted test(options);
  test.push(8);
  CHECK(test.pipeline->flush(hours{1}));
  CHECK(test.sink.batches.size() == 8);
}

TEST_CASE("where time stands still a flush gives up on what fails at once again and again",
          "[R-H1][R-G10]") {
  auto options = hosted_options();
  options.retry.initial_backoff = options.retry.max_backoff = nanoseconds{0};
  Hosted test(options);
  test.push(8);
  SECTION("after as many passes as there are shards, and two") {
    test.sink.always(Delivery::retry("down"));
    const auto result = test.pipeline->flush(hours{1});
    CHECK(result.status == FlushStatus::timed_out);
    CHECK(result.outstanding == 8);
    CHECK(test.sink.batches.size() == 3);
  }
  SECTION("counted anew when some of it succeeds") {
    test.sink.answer(Delivery::retry("down"));
    test.sink.answer(Delivery::retry("down"));
    test.sink.answer(Delivery::delivered(1));
    for (int i = 0; i < 3; ++i) test.sink.answer(Delivery::retry("down"));
    CHECK(test.pipeline->flush(hours{1}));
    CHECK(test.sink.batches.size() == 7);
  }
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

TEST_CASE("of a batch that has events from before and after a flush only those are outstanding",
          "[R-H2][R-H3]") {
  Hosted test(hosted_options(2));
  const auto first = shard_test::payloads_for(test.pipeline->manager(), kFirst, 1);
  const auto second = shard_test::payloads_for(test.pipeline->manager(), ShardId{1}, 8);
  const auto push = [&](const std::string& text) {
    REQUIRE(test.pipeline->ingest(text) == Outcome::accepted);
  };
  test.sink.script.emplace_back([&](const Batch& batch, const DeliveryContext&) {
    CHECK(batch.shard() == kFirst);
    for (std::size_t i = 2; i < 8; ++i) push(second[i]);
    return Delivery::delivered();
  });
  test.sink.answer(Delivery::delivered(1, "busy"));
  push(first[0]);
  push(second[0]);
  push(second[1]);
  const auto result = test.pipeline->flush(hours{1});
  CHECK(result.status == FlushStatus::timed_out);
  CHECK(test.sink.batches.at(1).size() == 8);
  CHECK(result.outstanding == 1);  // the second of that batch
}

TEST_CASE("what is being taken out of a shard while a flush counts is outstanding", "[R-H3]") {
  Hosted test(hosted_options());
  auto& core = PipelineTestAccess::shard(*test.pipeline, kFirst);
  shard::EventBatch taken;
  const auto take = [&](std::size_t events) {
    REQUIRE(core.take(taken, events, 1'000).events == events);
  };
  struct Case {
    std::size_t before;  ///< events when the flush begins, of which `popped` are gone by then
    std::size_t popped;
    std::size_t after;  ///< and that come later
    std::size_t taken;  ///< by another thread, which has not said so yet
    std::uint64_t outstanding;
  };
  const auto tried = GENERATE(Case{5, 0, 0, 3, 5}, Case{5, 0, 0, 1, 5}, Case{2, 0, 4, 5, 2},
                              Case{3, 1, 3, 4, 2}, Case{1, 1, 3, 3, 0}, Case{4, 0, 1, 0, 4});
  CAPTURE(tried.before, tried.popped, tried.after, tried.taken);
  test.push(tried.before);
  if (tried.popped != 0) {
    shard::EventBatch popped;
    REQUIRE(test.pipeline->manager().shard(kFirst)->pop_batch_into(popped, tried.popped) ==
            tried.popped);
  }
  const auto goals = PipelineTestAccess::request_flush(*test.pipeline);
  test.push(tried.after);
  if (tried.taken != 0) take(tried.taken);
  CHECK(PipelineTestAccess::outstanding(goals) == tried.outstanding);
  CHECK(core.settle({.delivered = tried.taken}, true, [] {}));
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
  CHECK(result.outstanding == 0);
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
    const auto result = test.pipeline->flush(hours{1});
    CHECK(result.status == FlushStatus::would_deadlock);
    CHECK(result.outstanding == 0);
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

TEST_CASE("a flush that a close comes in between says so, whatever became of the events",
          "[R-H1][R-I4]") {
  /// Acts at one of its readings, when no lock is held, as another thread would.
  struct EventfulClock : shard_test::ManualClock {
    mutable int left = 0;
    std::function<void()> act = {};
    [[nodiscard]] std::uint64_t nanoseconds() const noexcept override {
      if (left != 0 && --left == 0) act();
      return ManualClock::nanoseconds();
    }
  };
  EventfulClock clock;
  shard_test::Sink sink(clock);
  auto options = hosted_options();
  options.manager.time_source = &clock;
  shard::Pipeline pipeline(options, sink.adapter());
  for (int i = 0; i < 3; ++i) REQUIRE(pipeline.ingest("x") == Outcome::accepted);
  auto within = nanoseconds{0};
  SECTION("which are not delivered") {}
  SECTION("which are delivered") { within = hours{1}; }
  clock.act = [&] { pipeline.close(within); };
  clock.left = 2;  // the first is for its deadline
  const auto result = pipeline.flush(hours{1});
  CHECK(result.status == FlushStatus::closed);
  CHECK(result.outstanding == 0);
  CHECK(sink.texts().size() == (within == nanoseconds{0} ? 0U : 3U));
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

TEST_CASE("an attempt begins before nine tenths of the time are gone, and not when they are",
          "[R-I1]") {
  struct Case {
    milliseconds each;
    std::size_t attempts;
  };
  const auto tried = GENERATE(Case{milliseconds{44}, 3}, Case{milliseconds{45}, 2});
  Hosted test(hosted_options());
  test.sink.otherwise = [&](const Batch&, const DeliveryContext&) {
    test.advance(tried.each);
    return Delivery::delivered();
  };
  test.push(40);
  const auto report = test.pipeline->close(milliseconds{100});
  CHECK(test.sink.batches.size() == tried.attempts);
  CHECK(report.ledger.delivered == 8 * tried.attempts);
}

TEST_CASE("what the adapter ingests while the pipeline closes is refused", "[R-I1][R-D12]") {
  Hosted test(hosted_options());
  auto outcome = Outcome::accepted;
  test.sink.otherwise = [&](const Batch&, const DeliveryContext&) {
    outcome = test.pipeline->ingest("more");
    return Delivery::delivered();
  };
  test.push(1);
  CHECK(test.pipeline->close(hours{1}).complete);
  CHECK(outcome == Outcome::rejected_closed);
}

TEST_CASE("the adapter is told when close() ends, and not to stop if there is time left",
          "[R-I3]") {
  using Time = std::chrono::steady_clock::time_point;
  const auto within =
      GENERATE(nanoseconds{hours{1}}, nanoseconds{hours{-1}}, nanoseconds{0}, nanoseconds::max());
  shard_test::ManualClock clock;
  auto options = hosted_options();
  options.manager.time_source = &clock;
  std::vector<DeliveryContext> contexts;
  std::vector<bool> stopped;
  Calls calls;
  calls.flush = calls.close = [&](const DeliveryContext& context) {
    contexts.push_back(context);
    stopped.push_back(context.stop.stop_requested());
  };
  shard::Pipeline pipeline(options, calls.adapter());
  CHECK(pipeline.flush(hours{1}));
  const auto before = std::chrono::steady_clock::now();
  CHECK(pipeline.close(within).complete);
  const auto after = std::chrono::steady_clock::now();
  REQUIRE(contexts.size() == 3);
  CHECK(contexts[0].deadline == Time::max());  // a flush has none
  CHECK(stopped == std::vector<bool>{false, false, false});
  for (std::size_t i = 1; i < 3; ++i) {
    CHECK(contexts[i].attempt == 0);
    if (within == nanoseconds::max()) {
      CHECK(contexts[i].deadline == Time::max());
    } else {
      CHECK(contexts[i].deadline >= before + std::max(nanoseconds{0}, within));
      CHECK(contexts[i].deadline <= after + std::max(nanoseconds{0}, within));
    }
  }
}

TEST_CASE("who comes back from the adapter when all is over finds its batch possibly delivered",
          "[R-I1][R-I2][R-I3]") {
  shard_test::ManualClock clock;
  auto options = hosted_options();
  options.manager.time_source = &clock;
  std::vector<shard::NoticeKind> noticed;
  options.listener = [&](const shard::Notice& notice) { noticed.push_back(notice.kind); };
  Held held;
  int attempts = 0;
  Calls calls;
  calls.deliver = [&](const DeliveryContext& context) {
    if (++attempts == 1) return Delivery::retry("busy");
    held.hold(context);
    return Delivery::delivered();
  };
  shard::Pipeline pipeline(options, calls.adapter());
  for (int i = 0; i < 10; ++i) REQUIRE(pipeline.ingest("x") == Outcome::accepted);
  CHECK(pipeline.run_once() == 0);
  clock.advance(100'000'000);
  std::size_t settled = 7;
  std::thread host([&] { settled = pipeline.run_once(); });
  held.wait_for_it();
  CHECK(pipeline.run_once() == 0);
  CHECK(pipeline.health().busy_workers == 1);
  const auto late = pipeline.flush(nanoseconds{0});
  CHECK(late.status == FlushStatus::timed_out);
  CHECK(late.outstanding == 10);

  const auto report = pipeline.close(nanoseconds{0});
  CHECK_FALSE(report.complete);
  CHECK(report.undelivered == Ranges{range(0, 7, Undelivered::possibly_delivered),
                                     range(8, 9, Undelivered::abandoned_queued)});
  CHECK(report.ledger.possibly_delivered == 8);
  CHECK(report.ledger.balanced());
  CHECK(report.abandoned_threads == 0);

  held.let_go();
  host.join();
  CHECK(settled == 0);
  CHECK(held.told_to_stop());
  CHECK(pipeline.ledger() == report.ledger);
  CHECK(noticed == std::vector{shard::NoticeKind::retrying});  // and not that it has recovered
}

TEST_CASE("an adapter that does not come back from its flush is not closed", "[R-H3][R-I3]") {
  shard_test::ManualClock clock;
  auto options = hosted_options();
  options.manager.time_source = &clock;
  Held held;
  bool closed = false;
  Calls calls;
  calls.flush = [&](const DeliveryContext& context) { held.hold(context); };
  calls.close = [&](const DeliveryContext&) { closed = true; };
  shard::Pipeline pipeline(options, calls.adapter());
  REQUIRE(pipeline.ingest("x") == Outcome::accepted);
  shard::FlushResult flushed;
  std::thread host([&] { flushed = pipeline.flush(hours{1}); });
  held.wait_for_it();
  const auto late = pipeline.flush(nanoseconds{0});
  CHECK(late.status == FlushStatus::timed_out);
  CHECK(late.outstanding == 0);  // it is the adapter that has not answered

  const auto report = pipeline.close(nanoseconds{0});
  CHECK(report.undelivered.empty());
  CHECK(report.ledger.delivered == 1);
  CHECK_FALSE(report.complete);
  held.let_go();
  host.join();
  CHECK(flushed);  // it has done what was asked of it
  CHECK(held.told_to_stop());
  CHECK_FALSE(closed);
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
  const auto result = test.pipeline->flush(hours{1});
  CHECK(result.status == FlushStatus::closed);
  CHECK(result.outstanding == 0);
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
