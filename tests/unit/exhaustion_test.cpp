// What the numbers of a pipeline do at their end: none of them begins again.

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "support/pipeline.hpp"
#include "support/pipeline_access.hpp"

namespace {

using shard::Batch;
using shard::Delivery;
using shard::DeliveryContext;
using shard::HealthState;
using shard::ShardId;
using shard::detail::PipelineTestAccess;
using shard_test::Hosted;
using shard_test::hosted_options;
using std::chrono::milliseconds;

constexpr auto kLast = std::numeric_limits<std::uint32_t>::max();

}  // namespace

TEST_CASE("a batch that was tried 2^32 times is neither new nor without a wait", "[R-G2][R-G3]") {
  auto options = hosted_options();
  options.retry.max_backoff = milliseconds{400};
  Hosted test(options);
  test.sink.always(Delivery::retry("down"));
  test.push(8);
  test.run();
  PipelineTestAccess::set_attempt(*test.pipeline, ShardId{0}, kLast - 1);
  for (int i = 0; i < 4; ++i) {
    test.advance(milliseconds{400});
    test.run();
    CHECK(test.sink.batches.back().attempt == kLast);
    CHECK(test.pipeline->next_due() == test.now().after(milliseconds{400}));
  }
  CHECK(test.sink.batches.size() == 5);
  CHECK(test.pipeline->stats().retries == 4);
  CHECK(test.ledger().batched == 8);
}

TEST_CASE("a batch that was tried 2^32 times still ends after max_elapsed", "[R-G2][R-G4]") {
  auto options = hosted_options();
  options.retry.initial_backoff = options.retry.max_backoff = milliseconds{1};
  options.retry.max_elapsed = milliseconds{3};
  Hosted test(options);
  test.sink.always(Delivery::retry("down"));
  test.push(8);
  test.run();
  PipelineTestAccess::set_attempt(*test.pipeline, ShardId{0}, kLast);
  for (int i = 0; i < 4; ++i) {
    test.advance(milliseconds{1});
    test.run();
  }
  REQUIRE(test.sink.letters.size() == 1);
  CHECK(test.sink.letters[0].why.cause == shard::DeadLetterCause::time_exhausted);
  CHECK(test.sink.letters[0].why.attempts == kLast);
  CHECK(test.ledger().dead_lettered == 8);
}

TEST_CASE("2^32 failures in a row are no health", "[R-C4]") {
  Hosted test(hosted_options());
  test.sink.always(Delivery::retry("down"));
  PipelineTestAccess::set_consecutive_failures(*test.pipeline, kLast);
  test.push(8);
  test.run();
  CHECK(test.pipeline->health().state == HealthState::retrying);
  CHECK(test.pipeline->health().consecutive_failures == kLast);
}

TEST_CASE("who drives the pipeline in a flush sleeps while a batch waits to be retried",
          "[R-G10][R-H1]") {
  const std::size_t flushers = GENERATE(1U, 2U);
  auto options = hosted_options();  // in real time
  options.retry.initial_backoff = options.retry.max_backoff = milliseconds{20};
  int calls = 0;
  shard::Pipeline pipeline(options, [&calls](const shard::Batch& /*batch*/) {
    return ++calls < 3 ? Delivery::retry("busy") : Delivery::delivered();
  });
  REQUIRE(pipeline.ingest("x") == shard::Outcome::accepted);
  const auto before = PipelineTestAccess::notified(pipeline);
  std::atomic<std::size_t> flushed{0};
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < flushers; ++i) {
    threads.emplace_back(
        [&] { flushed += pipeline.flush(std::chrono::minutes{3}) ? std::size_t{1} : 0; });
  }
  for (auto& thread : threads) thread.join();
  CHECK(flushed == flushers);
  CHECK(calls == 3);
  CHECK(PipelineTestAccess::notified(pipeline) - before < 200);  // a few for each call
}

TEST_CASE("whoever waits for progress is told of each change of shards, policy and mode",
          "[R-E16]") {
  // A controller that has nothing to do waits so.
  Hosted test(shard_test::hosted_elastic_options(shard::Routing::balanced, 1, 1, 4));
  auto& pipeline = *test.pipeline;
  auto& manager = pipeline.manager();
  auto before = PipelineTestAccess::notified(pipeline);
  const auto told = [&] {
    const auto now = PipelineTestAccess::notified(pipeline);
    return std::exchange(before, now) != now;
  };
  CHECK_FALSE(told());
  const auto added = manager.add_shard();
  REQUIRE(added);
  CHECK(told());
  CHECK(manager.activate_shard(*added));
  CHECK(told());
  CHECK(manager.drain_shard(*added));
  CHECK(told());
  CHECK(manager.finalize_draining() == 1);
  CHECK(told());
  CHECK(manager.remove_stopped_shards() == 1);
  CHECK(told());
  CHECK_FALSE(manager.set_scaling_policy(*manager.scaling_policy()));
  CHECK(told());
  pipeline.set_scaling_mode(shard::ScalingMode::paused);
  CHECK(told());
  CHECK_FALSE(told());
}

TEST_CASE("whoever waits for progress is told of each pass, and of a driver who has turned it away",
          "[R-G10]") {
  Hosted test(hosted_options());
  auto& pipeline = *test.pipeline;
  const auto told_by_run_once = [&] {
    const auto before = PipelineTestAccess::notified(pipeline);
    pipeline.run_once();
    return PipelineTestAccess::notified(pipeline) - before;
  };
  CHECK(told_by_run_once() == 0);
  test.push(8);
  CHECK(told_by_run_once() == 1);
  test.sink.script.emplace_back([&](const Batch&, const DeliveryContext&) {
    CHECK(pipeline.run_once() == 0);  // as another thread would find it
    return Delivery::delivered();
  });
  test.push(8);
  CHECK(told_by_run_once() == 2);
  test.push(8);
  CHECK(told_by_run_once() == 1);  // nobody was turned away this time
  pipeline.close(std::chrono::hours{1});
  CHECK(told_by_run_once() == 1);  // close() may wait for who drives
}

TEST_CASE("whoever waits for progress is told when the adapter has flushed", "[R-H1]") {
  std::uint32_t before = 0;
  Hosted test(hosted_options());
  test.sink.on_flush = [&] {
    before = PipelineTestAccess::notified(*test.pipeline);
    return true;
  };
  test.push(3);
  CHECK(test.pipeline->flush(std::chrono::hours{1}));
  CHECK(PipelineTestAccess::notified(*test.pipeline) > before);
}
