// What a pass tells, counts and leaves behind, where no answer of an adapter shows it: see pipeline_delivery_test.cpp for
// those.

#include "shard/detail/courier.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "shard/detail/courier_impl.hpp"
#include "shard/detail/shard_core_impl.hpp"
#include "support/counted_buffer.hpp"
#include "support/misuse_recorder.hpp"
#include "support/pipeline.hpp"

namespace {

using shard::Backpressure;
using shard::Batch;
using shard::Delivery;
using shard::DeliveryContext;
using shard::FlushStatus;
using shard::NoticeKind;
using shard::Outcome;
using shard::ShardId;
using shard::Timestamp;
using shard::WaitStrategy;
using shard_test::Hosted;
using shard_test::hosted_options;
using shard_test::numbered;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using Kinds = std::vector<NoticeKind>;

constexpr ShardId kFirst{0};

Kinds kinds_of(const shard_test::Sink& sink) {
  Kinds kinds;
  for (const auto& notice : sink.notices) kinds.push_back(notice.kind);
  return kinds;
}

}  // namespace

// ---------------------------------------------------------------------------------- its parts

TEST_CASE("attempts are counted up to the last number there is, and no further", "[R-G2]") {
  constexpr auto kLast = std::numeric_limits<std::uint32_t>::max();
  CHECK(shard::detail::next_attempt(0) == 1);
  CHECK(shard::detail::next_attempt(kLast - 1) == kLast);
  CHECK(shard::detail::next_attempt(kLast) == kLast);
}

TEST_CASE("workers look at idle shards by themselves where they spin and each may deliver",
          "[R-G7]") {
  const auto polls = [](WaitStrategy wait, std::size_t workers, bool serialise) {
    shard::PipelineOptions options;
    options.wait = wait;
    options.workers = workers;
    options.serialise_adapter = serialise;
    return shard::detail::polls(options);
  };
  for (const auto wait : {WaitStrategy::spin, WaitStrategy::spin_then_park}) {
    CHECK_FALSE(polls(wait, 0, false));
    CHECK_FALSE(polls(wait, 0, true));
    CHECK(polls(wait, 1, false));
    CHECK(polls(wait, 1, true));
    CHECK(polls(wait, 2, false));
    CHECK_FALSE(polls(wait, 2, true));
  }
  CHECK_FALSE(polls(WaitStrategy::park, 1, false));
  CHECK_FALSE(polls(WaitStrategy::park, 2, false));
}

TEST_CASE("storage for batches comes back empty and is handed out again", "[R-F6]") {
  shard_test::CountedBuffers buffers;
  shard::Manager manager(shard_test::small_options(1, 16));
  REQUIRE(manager.ingest(buffers.make("payload")) == Outcome::accepted);
  shard::detail::StoragePool<shard::detail::SystemPlatform> pool;
  auto first = pool.take();
  auto second = pool.take();
  const auto* const first_at = first.get();
  const auto* const second_at = second.get();
  REQUIRE(manager.shard(kFirst)->pop_batch_into(*first) == 1);
  pool.give_back(std::move(first));
  CHECK(buffers.released() == 1);
  pool.give_back(std::move(second));
  // If they were gone, others would be likely to be made in their places.
  const std::array<std::unique_ptr<shard::EventBatch>, 2> others{
      std::make_unique<shard::EventBatch>(), std::make_unique<shard::EventBatch>()};
  first = pool.take();
  second = pool.take();
  CHECK(first.get() == second_at);
  CHECK(second.get() == first_at);
  CHECK(second->empty());
  CHECK(pool.take() != nullptr);  // a new one
}

// ---------------------------------------------------------------------------------- when

TEST_CASE("a pass that leaves nothing behind is the last", "[R-G7]") {
  Hosted test(hosted_options());
  test.push(8);
  CHECK(test.pipeline->run_once() == 8);
  CHECK(test.pipeline->next_due() == Timestamp::max());
  test.push(8 + 3);
  CHECK(test.pipeline->run_once() == 8);
  CHECK(test.pipeline->next_due() > test.now());  // three of them wait for company
}

TEST_CASE("with a max_delay of zero an event waits for nothing, not even for its own time",
          "[R-F2][R-B1]") {
  auto options = hosted_options();
  options.batch.max_delay = nanoseconds{0};
  Hosted test(options);
  test.advance(milliseconds{5});
  test.push(1);
  test.clock.set(0);
  CHECK(test.pipeline->run_once() == 1);
}

TEST_CASE("max_elapsed counts from when a batch was first tried", "[R-G2]") {
  auto options = hosted_options();
  options.retry.max_elapsed = milliseconds{300};  // attempts at 0, 100 and 300 ms
  Hosted test(options);
  test.sink.always(Delivery::retry("down"));
  for (int round = 0; round < 2; ++round) {
    CAPTURE(round);
    test.advance(hours{1});  // since it was made, and since the batch before
    test.push(8);
    for (const auto wait : {100, 200}) {
      CHECK(test.run() == 0);
      test.advance(milliseconds{wait});
    }
    CHECK(test.run() == 8);
  }
  CHECK(test.sink.batches.size() == 6);
  CHECK(test.ledger().dead_lettered == 16);
}

TEST_CASE("a shard's dispatches are the calls of the adapter, with what they had and took",
          "[R-E14]") {
  Hosted test(hosted_options());
  test.advance(hours{1});
  test.sink.script.emplace_back([&](const Batch&, const DeliveryContext&) {
    test.advance(milliseconds{3});
    return Delivery::delivered(5);
  });
  test.push(8);
  CHECK(test.run() == 8);
  const auto stats = test.pipeline->manager().shard(kFirst)->dispatch_stats();
  CHECK(stats.batches == 2);
  CHECK(stats.events == 8 + 3);
  CHECK(stats.total_latency == milliseconds{3});
}

TEST_CASE("lag counts a batch from its first event, also while all of it waits") {
  Hosted test(hosted_options());
  test.push(8);
  test.advance(milliseconds{4});
  nanoseconds during{0};
  test.sink.script.emplace_back([&](const Batch&, const DeliveryContext&) {
    during = test.pipeline->lag();
    return Delivery::retry("busy");
  });
  test.run();
  CHECK(during == milliseconds{4});
  test.advance(milliseconds{3});
  CHECK(test.pipeline->lag() == milliseconds{7});
}

TEST_CASE("the latency of what a prefix left is its own") {
  Hosted test(hosted_options());
  test.push(4);
  test.advance(std::chrono::seconds{1});
  test.push(4);
  test.sink.answer(Delivery::delivered(4));
  CHECK(test.run() == 8);
  const auto latency = test.pipeline->stats().latency;
  CHECK(latency.count() == 8);
  CHECK(latency.counts[shard::LatencyHistogram::bucket_of(999'999'999)] == 4);
  CHECK(test.pipeline->latency(kFirst) == latency);
}

TEST_CASE("what nobody knows the fate of is let go", "[R-C1]") {
  shard_test::CountedBuffers buffers;
  Hosted test(hosted_options());
  for (int i = 0; i < 8; ++i) {
    REQUIRE(test.pipeline->ingest(buffers.make("payload")) == Outcome::accepted);
  }
  test.sink.answer(Delivery::unknown("lost"));
  CHECK(test.run() == 8);
  CHECK(buffers.released() == 8);
  test.advance(milliseconds{1});
  CHECK(test.pipeline->lag() == nanoseconds{0});
}

TEST_CASE("a flush waits for a fence behind which there is nothing, and who looks rests meanwhile",
          "[R-D15][R-H1]") {
  auto options = shard_test::hosted_elastic_options(shard::Routing::keyed, 1, 1, 2);
  options.batch.max_delay = nanoseconds{0};
  Hosted test(options);
  const auto keys = shard_test::payloads_for(test.pipeline->manager(), kFirst, 8, "k");
  for (std::size_t i = 0; i < keys.size(); ++i) {
    REQUIRE(test.pipeline->ingest("x", shard::Key{keys.at(i)}) == Outcome::accepted);
  }
  test.sink.answer(Delivery::retry("busy"));
  test.run();
  REQUIRE(test.pipeline->scale_up(1).added.size() ==
          1);  // its keys' older events wait in the other
  CHECK(test.pipeline->flush(nanoseconds{0}).status == FlushStatus::timed_out);
  test.run();
  CHECK(test.pipeline->next_due() == test.now().after(milliseconds{100}));
  test.advance(milliseconds{100});
  CHECK(test.pipeline->flush(hours{1}).status == FlushStatus::flushed);
  CHECK(test.ledger().delivered == 8);
}

TEST_CASE("shards that take turns have their batches in the same storage", "[R-F6]") {
  Hosted test(hosted_options(2));
  for (const auto id : {kFirst, ShardId{1}}) {
    for (const auto& text : shard_test::payloads_for(test.pipeline->manager(), id, 8)) {
      REQUIRE(test.pipeline->ingest(text) == Outcome::accepted);
    }
  }
  REQUIRE(test.run() == 16);
  REQUIRE(test.sink.batches.size() == 2);
  CHECK(test.sink.batches[0].shard != test.sink.batches[1].shard);
  CHECK(test.sink.batches[0].storage.front() == test.sink.batches[1].storage.front());
}

// ---------------------------------------------------------------------------------- answers

TEST_CASE("a prefix of nothing is a failure and nothing else, however often it comes", "[R-G2]") {
  Hosted test(hosted_options());
  test.push(8);
  for (int i = 0; i < 2; ++i) test.sink.answer(Delivery::delivered(std::size_t{0}, "not yet"));
  test.run();
  CHECK(test.pipeline->next_due() == test.now().after(milliseconds{100}));
  test.advance(milliseconds{100});
  test.run();
  CHECK(test.pipeline->next_due() == test.now().after(milliseconds{200}));
  CHECK(test.pipeline->stats().batches == 0);
  CHECK(kinds_of(test.sink) == Kinds{NoticeKind::retrying, NoticeKind::retrying});
  test.advance(milliseconds{200});
  CHECK(test.run() == 8);
  CHECK(test.sink.batches.back().attempt == 3);
}

TEST_CASE("what is delivered but for no event is not offered again", "[R-G9]") {
  Hosted test(hosted_options());
  test.push(8);
  test.sink.answer(Delivery::delivered_except({}, "nothing wrong"));
  CHECK(test.run() == 8);
  CHECK(test.sink.batches.size() == 1);
}

TEST_CASE("an answer for more than there is counts for what there is, and is misuse") {
  const shard_test::MisuseRecorder misuse;
  Hosted test(hosted_options());
  test.push(8);
  SECTION("more delivered") {
    test.sink.answer(Delivery::delivered(9));
    CHECK(test.run() == 8);
    CHECK(test.sink.letters.empty());
    CHECK(test.ledger().delivered == 8);
  }
  SECTION("others refused") {
    test.sink.answer(Delivery::refuse({2, 8, 100}, "bad"));
    CHECK(test.run() == 8);
    REQUIRE(test.sink.letters.size() == 1);
    CHECK(test.sink.letters[0].batch.texts == numbered(2, 1));
    CHECK(test.ledger().delivered == 7);
  }
  SECTION("only others refused") {
    test.sink.answer(Delivery::delivered_except({8}, "bad"));
    CHECK(test.run() == 8);
    CHECK(test.sink.letters.empty());
    CHECK(test.ledger().delivered == 8);
  }
  CHECK(misuse.count() == (shard::detail::kDebugChecks ? 1 : 0));
}

TEST_CASE("a batch of which nothing was delivered is no success", "[R-C3]") {
  Hosted test(hosted_options());
  test.push(8);
  SECTION("all refused") {
    test.sink.answer(Delivery::delivered_except({0, 1, 2, 3, 4, 5, 6, 7}, "all bad"));
    CHECK(test.run() == 8);
    CHECK_FALSE(test.pipeline->health().last_success);
    CHECK(test.pipeline->stats().batches == 0);
    CHECK(test.pipeline->health().consecutive_failures == 1);
  }
  SECTION("all but one refused") {
    test.sink.answer(Delivery::delivered_except({0, 1, 2, 3, 4, 5, 6}, "nearly all bad"));
    CHECK(test.run() == 8);
    CHECK(test.pipeline->health().last_success == test.now());
    CHECK(test.pipeline->stats().batches == 1);
    CHECK(test.pipeline->stats().latency.count() == 1);
  }
}

TEST_CASE("while the handler has dead letters no flush gets past them", "[R-H1][R-G4]") {
  Hosted test(hosted_options());
  test.push(8);
  std::optional<shard::FlushResult> flushed;
  test.sink.on_letter = [&](const auto&) {
    // Another thread, since this one would wait for itself; without any time, so it does not wait either.
    std::thread([&] { flushed = test.pipeline->flush(nanoseconds{0}); }).join();
  };
  SECTION("nor past what was not answered yet") {
    test.sink.answer(Delivery::refuse({2, 5}, "bad"));
    test.run();
    REQUIRE(flushed);
    CHECK(flushed->status == FlushStatus::timed_out);
    CHECK(flushed->outstanding == 6);
  }
  SECTION("when they are all that is left") {
    test.sink.answer(Delivery::refuse("bad"));
    test.run();
    REQUIRE(flushed);
    CHECK(flushed->status == FlushStatus::timed_out);
  }
  CHECK(test.pipeline->flush(hours{1}));
}

// ---------------------------------------------------------------------------------- who is told

TEST_CASE("the first success after any failure is a recovery, and no other", "[R-C4]") {
  Hosted test(hosted_options());
  Kinds expected;
  SECTION("after nothing") { expected = {}; }
  SECTION("after a retry") {
    test.sink.answer(Delivery::retry("busy"));
    expected = {NoticeKind::retrying, NoticeKind::recovered};
  }
  SECTION("after an unknown fate") {
    test.sink.answer(Delivery::unknown("lost"));
    expected = {NoticeKind::recovered};
  }
  SECTION("after a refusal") {
    test.sink.answer(Delivery::refuse("bad"));
    expected = {NoticeKind::dead_lettered, NoticeKind::recovered};
  }
  SECTION("after a refusal of some, of the rest") {
    test.sink.answer(Delivery::refuse({3}, "bad"));
    expected = {NoticeKind::dead_lettered, NoticeKind::recovered};
  }
  SECTION("after a refusal among deliveries, of the next batch") {
    test.sink.answer(Delivery::delivered_except({3}, "bad"));
    expected = {NoticeKind::dead_lettered, NoticeKind::recovered};
  }
  for (int i = 0; i < 3; ++i) {
    test.push(8);
    test.run();
    test.advance(milliseconds{100});
    test.run();
  }
  CHECK(kinds_of(test.sink) == expected);
  CHECK(test.sink.batches.back().texts == numbered(16, 8));  // nothing of the batch before it
  for (const auto& notice : test.sink.notices) CHECK(notice.shard == kFirst);
}

TEST_CASE("the listener hears of each loss once", "[R-C2]") {
  Hosted test(hosted_options(1, 16, Backpressure::drop_oldest()));
  std::vector<std::uint64_t> lost;
  test.sink.on_notice = [&](const shard::Notice& notice) {
    CHECK(notice.kind == NoticeKind::evicting);
    lost.push_back(notice.events);
  };
  for (const std::size_t events : {20U, 8U, 18U}) {
    test.push(events);
    test.run();
    CHECK(test.pipeline->flush(hours{1}));
  }
  CHECK(lost == std::vector<std::uint64_t>{5, 3});
}

// ---------------------------------------------------------------------------------- what adapters are told

namespace {

/// Remembers by when each call should have ended.
struct Deadlines final : shard::Adapter {
  struct Call {
    std::uint32_t attempt = 99;
    std::chrono::steady_clock::time_point deadline;
  };
  struct Calls {
    Call deliver;
    Call flush;
    Call close;
  };
  explicit Deadlines(Calls& calls) : calls_(calls) {}

  Delivery deliver(const Batch& /*batch*/, const DeliveryContext& context) override {
    calls_.deliver = {context.attempt, context.deadline};
    return Delivery::delivered();
  }
  bool flush(const DeliveryContext& context) override {
    calls_.flush = {context.attempt, context.deadline};
    return true;
  }
  void close(const DeliveryContext& context) override {
    calls_.close = {context.attempt, context.deadline};
  }

 private:
  Calls& calls_;
};

}  // namespace

TEST_CASE("attempt_timeout is for deliveries only, and all calls end with close()", "[R-I3]") {
  constexpr auto kNever = std::chrono::steady_clock::time_point::max();
  shard_test::ManualClock clock;
  auto options = hosted_options();
  options.manager.time_source = &clock;
  options.attempt_timeout = GENERATE(minutes{1}, minutes{180});
  Deadlines::Calls calls;
  shard::Pipeline pipeline(options, std::make_unique<Deadlines>(calls));

  REQUIRE(pipeline.ingest("x") == Outcome::accepted);
  REQUIRE(pipeline.flush(hours{1}));
  CHECK(calls.deliver.attempt == 1);
  CHECK(calls.deliver.deadline <= std::chrono::steady_clock::now() + options.attempt_timeout);
  CHECK(calls.flush.attempt == 0);
  CHECK(calls.flush.deadline == kNever);

  REQUIRE(pipeline.ingest("y") == Outcome::accepted);
  const auto before = std::chrono::steady_clock::now();
  REQUIRE(pipeline.close(hours{1}).complete);
  const auto after = std::chrono::steady_clock::now();
  for (const auto& call : {calls.flush, calls.close}) {
    CHECK(call.attempt == 0);
    CHECK(call.deadline >= before + hours{1});
    CHECK(call.deadline <= after + hours{1});
  }
  const auto expected = std::min<nanoseconds>(options.attempt_timeout, hours{1});
  CHECK(calls.deliver.deadline >= before + expected);
  CHECK(calls.deliver.deadline <= after + expected);
}

// ---------------------------------------------------------------------------------- when time is over

namespace {

using Platform = shard::detail::SystemPlatform;
using Core = shard::detail::ShardCore<Platform>;
using Lane = shard::detail::Lane<Platform>;
using shard::detail::Rest;

/// One shard with a courier, as a pipeline has them, so that the test decides when time is over.
struct Alone {
  explicit Alone(const std::function<void(shard::PipelineOptions&)>& change = {}) : sink(time) {
    sink.connect(options);
    if (change) change(options);
    core = std::make_shared<Core>(kFirst, options.manager, clock, &consumer);
    adapter = sink.adapter();
  }
  Alone(const Alone&) = delete;
  Alone& operator=(const Alone&) = delete;
  ~Alone() { core->retire(); }

  shard_test::ManualClock time;
  shard::Clock clock{&time};
  shard::PipelineOptions options = hosted_options();
  shard_test::Sink sink;
  shard::detail::ReadyQueue<Platform> queue{clock};
  shard::detail::Consumer<Platform> consumer{
      &queue, [this](Core& of) { return std::make_unique<Lane>(of, options.batch); }};
  std::shared_ptr<Core> core;
  std::unique_ptr<shard::Adapter> adapter;
  shard::detail::Gate<Platform> gate;
  shard::detail::Agent<Platform> agent;
  shard::detail::Courier<Platform> courier{options, {}, clock, queue, gate};

  void push(std::size_t events) const {
    for (std::size_t i = 0; i < events; ++i) {
      shard::detail::Waiting none{.allowed = false};
      REQUIRE(core->push(Core::kAnyVersion, {"x", {}, {}}, Core::kNoSlot, clock.now(), none) ==
              shard::detail::Verdict::accepted);
    }
  }
  auto run() { return courier.run(lane(), agent, *adapter); }
  [[nodiscard]] Lane& lane() const { return Lane::of(*core); }
  [[nodiscard]] std::uint64_t attempts() const {
    shard::PipelineStats stats;
    courier.monitor.read(stats);
    return stats.attempts;
  }
};

}  // namespace

TEST_CASE("after stop() no attempt begins, and what was taken is the batch that is reported",
          "[R-I1]") {
  Alone test;
  test.push(8);
  test.gate.stop();
  CHECK(test.run().over);
  CHECK(test.lane().size == 8);
  CHECK(test.run().over);
  CHECK(test.lane().size == 8);
  CHECK(test.attempts() == 0);
  CHECK(test.sink.batches.empty());
}

TEST_CASE("an attempt that may not run any more has not begun", "[R-I1]") {
  Alone test;
  test.push(8);
  test.gate.expire();
  CHECK(test.run().over);
  CHECK(test.sink.batches.empty());
  CHECK(test.lane().size == 8);
  CHECK(test.core->dispatch_stats().batches == 0);
  CHECK(test.core->watermark() == 0);
  bool attempting = true;
  test.core->expire([&](bool is) { attempting = is; });
  CHECK_FALSE(attempting);
  CHECK(test.core->ledger().abandoned_batched == 8);
}

TEST_CASE("a batch that was reported while the adapter had it is not settled by its answer",
          "[R-I3]") {
  Alone test;
  const auto answer =
      GENERATE(Delivery::delivered(), Delivery::delivered(3), Delivery::delivered(3, "disk full"),
               Delivery::delivered_except({1}, "bad"), Delivery::refuse("bad"),
               Delivery::refuse({1}, "bad"), Delivery::retry("busy"), Delivery::unknown("lost"));
  test.sink.otherwise = [&](const Batch&, const DeliveryContext&) {
    test.core->expire([](bool) {});
    return answer;
  };
  test.push(8);
  const auto pass = test.run();
  CHECK(pass.over);
  CHECK(pass.settled == 0);
  CHECK(test.sink.batches.size() == 1);
  CHECK(test.lane().first == 0);
  CHECK(test.lane().size == 8);
  CHECK(test.sink.letters.empty());
  CHECK(test.sink.notices.empty());
  shard::Ledger expected;
  expected.accepted = expected.taken = expected.possibly_delivered = 8;
  CHECK(test.core->ledger() == expected);
}

TEST_CASE("dead letters that no handler may see any more are left in the batch", "[R-I3][R-G4]") {
  const bool handler = GENERATE(true, false);
  Alone test([=](auto& options) {
    if (!handler) options.dead_letters = nullptr;
  });
  test.sink.otherwise = [&](const Batch&, const DeliveryContext&) {
    test.gate.expire();
    return Delivery::delivered_except({6, 1}, "bad");
  };
  test.push(8);
  const auto pass = test.run();
  CHECK(test.sink.letters.empty());
  CHECK(test.core->ledger().delivered == 6);
  if (handler) {
    CHECK(pass.over);
    CHECK(pass.settled == 6);
    CHECK(test.lane().first == 6);
    CHECK(test.lane().size == 2);
    CHECK(test.core->ledger().dead_lettered == 0);
  } else {  // then they need none
    CHECK_FALSE(pass.over);
    CHECK(pass.settled == 8);
    CHECK(test.core->ledger().dead_lettered == 2);
  }
}

TEST_CASE("close() cuts the wait of each batch short once", "[R-I1]") {
  Alone test;
  test.sink.always(Delivery::retry("busy"));
  test.push(8);
  CHECK(test.run().rest == Rest::later);
  CHECK(test.run().rest == Rest::later);
  CHECK(test.sink.batches.size() == 1);
  test.courier.set_close_deadline(std::chrono::steady_clock::time_point::max());
  for (std::size_t batch = 0; batch < 2; ++batch) {
    CAPTURE(batch);
    for (int i = 0; i < 3; ++i) {  // whoever announces the shard
      const auto pass = test.run();
      CHECK(pass.rest == Rest::later);
      CHECK(pass.due == test.lane().retry_due);
    }
    CHECK(test.sink.batches.size() == (batch == 0 ? 2 : 5));
    test.sink.answer(Delivery::delivered());
    test.time.set(test.lane().retry_due.nanoseconds);
    CHECK(test.run().settled == 8);
    test.push(8);
  }
}

TEST_CASE("a shard that workers look at by themselves is watched while one of them is parked",
          "[R-G7]") {
  Alone test([](auto& options) {
    options.workers = 1;
    options.wait = WaitStrategy::spin_then_park;
  });
  CHECK(test.run().rest == Rest::unwatched);
  std::thread sleeper([&] { test.queue.sleep(0); });
  while (!test.queue.has_sleepers()) std::this_thread::yield();
  CHECK(test.run().rest == Rest::idle);
  test.queue.interrupt();
  sleeper.join();
  CHECK(test.run().rest == Rest::unwatched);
}
