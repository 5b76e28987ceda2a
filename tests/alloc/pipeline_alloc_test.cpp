// What a pipeline allocates in steady state: nothing, neither per event nor per batch, on whichever thread.

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "alloc/allocation_counter.hpp"
#include "shard/pipeline.hpp"

namespace {

using shard::Batch;
using shard::Delivery;
using shard::FlushStatus;
using shard::Outcome;
using shard::Pipeline;
using shard::PipelineOptions;
using shard_test::AllocationScope;

constexpr std::chrono::minutes kLong{2};
constexpr std::size_t kShards = 3;
constexpr std::uint64_t kWarmUp = 200;  // rounds
constexpr std::uint64_t kRounds = 400;
constexpr std::size_t kEvents = 60;  // in a round

PipelineOptions options_with(std::size_t workers) {
  PipelineOptions options;
  options.manager.shards = kShards;
  options.manager.ring_capacity = 256;
  options.workers = workers;
  options.batch.min_events = 1;
  options.batch.max_events = 32;
  options.batch.max_delay = std::chrono::nanoseconds{0};
  options.retry.initial_backoff = std::chrono::nanoseconds{0};
  options.retry.max_backoff = std::chrono::nanoseconds{0};
  options.retry.max_attempts = 0;
  return options;
}

/// Payloads of many sizes, made before anything is counted.
struct Events {
  std::vector<std::string> payloads;
  std::vector<std::string> keys;

  Events() {
    for (std::size_t i = 0; i < kEvents; ++i) {
      payloads.emplace_back(i * 16, 'x');
      keys.push_back("key " + std::to_string(i % 7));
    }
  }
  /// How many were accepted.
  std::uint64_t ingest(Pipeline& pipeline) const {
    std::uint64_t accepted = 0;
    for (std::size_t i = 0; i < kEvents; ++i) {
      const auto outcome = i % 2 == 0 ? pipeline.ingest(payloads[i])
                                      : pipeline.ingest(payloads[i], shard::Key{keys[i]});
      accepted += outcome == Outcome::accepted ? 1U : 0U;
    }
    return accepted;
  }
};

/// How an adapter answers its calls; 0: always delivers.
Delivery answer(std::uint64_t call, const Batch& batch, bool fails) {
  if (!fails) return Delivery::delivered();
  switch (call % 4) {
    case 0:
      return Delivery::retry("the sink is busy, and says so with more words than a short string");
    case 1:
      return Delivery::delivered(batch.size() / 2);
    case 2:
      return Delivery::refuse("no such column");  // the handler is called
    default:
      return Delivery::delivered();
  }
}

}  // namespace

TEST_CASE("a pipeline that its host drives allocates nothing per event or batch", "[R-A9][R-F6]") {
  const bool fails = GENERATE(false, true);
  CAPTURE(fails);
  auto options = options_with(0);
  std::uint64_t dead = 0;
  options.dead_letters = [&](const Batch& batch, const shard::DeadLetter& /*why*/) {
    dead += batch.size();
  };
  std::uint64_t calls = 0;
  Pipeline pipeline(options, [&](const Batch& batch) { return answer(calls++, batch, fails); });
  const Events events;
  std::uint64_t accepted = 0;
  std::uint64_t settled = 0;
  const auto round = [&] {
    accepted += events.ingest(pipeline);
    for (std::size_t idle = 0; idle < 3;) {
      const auto done = pipeline.run_once();
      settled += done;
      idle = done == 0 && settled == accepted ? idle + 1 : 0;
    }
  };
  for (std::uint64_t i = 0; i < kWarmUp; ++i) round();
  const auto batches = calls;
  const AllocationScope scope;
  for (std::uint64_t i = 0; i < kRounds; ++i) round();
  const auto allocated = scope.count();
  CHECK(allocated == 0);
  CHECK(calls - batches >= kRounds);
  CHECK(accepted == (kWarmUp + kRounds) * kEvents);
  CHECK(settled == accepted);
  CHECK((dead != 0) == fails);
  CHECK(pipeline.close(kLong).complete);
}

TEST_CASE("neither workers nor producers allocate per event or batch", "[R-A9][R-F6]") {
  const bool fails = GENERATE(false, true);
  const auto wait = GENERATE(shard::WaitStrategy::park, shard::WaitStrategy::spin_then_park);
  CAPTURE(fails, to_string(wait));
  auto options = options_with(1);
  options.wait = wait;
  options.dead_letters = [](const Batch& /*batch*/, const shard::DeadLetter& /*why*/) {};
  options.listener = [](const shard::Notice& /*notice*/) {};
  // The worker's own count: begun in the first call of the adapter, read in a later one. When its storage has grown to
  // its working size depends on how it meets the producer, so the growth is counted too, and bounded: at most three
  // storages, each with two blocks that double a few times. One allocation for each batch would be many times that.
  constexpr std::uint64_t kGrowth = 3 * 2 * 16;
  std::atomic<bool> read{false};
  std::atomic<std::uint64_t> allocated{~std::uint64_t{0}};
  std::atomic<std::uint64_t> calls{0};
  std::optional<AllocationScope> of_worker;
  Pipeline pipeline(options, [&](const Batch& batch) {
    if (!of_worker) of_worker.emplace();
    if (read && of_worker) allocated = of_worker->count();
    return answer(calls.fetch_add(1), batch, fails);
  });
  const Events events;
  std::uint64_t accepted = 0;
  const auto round = [&] {
    accepted += events.ingest(pipeline);
    // A full ring would turn events away; a flush would allocate here, on the caller's side.
    while (pipeline.ledger().delivered + pipeline.ledger().dead_lettered != accepted) {
      std::this_thread::yield();
    }
  };
  for (std::uint64_t i = 0; i < kWarmUp; ++i) round();
  const auto batches = calls.load();
  const AllocationScope scope;
  for (std::uint64_t i = 0; i < kRounds; ++i) round();
  const auto by_producer = scope.count();
  read = true;
  round();
  CHECK(by_producer == 0);
  CHECK(calls.load() - batches >= kRounds);
  REQUIRE(kRounds >= 4 * kGrowth);
  CHECK(allocated.load() <= kGrowth);
  CHECK(accepted == (kWarmUp + kRounds + 1) * kEvents);
  CHECK(pipeline.flush(kLong).status == FlushStatus::flushed);
  CHECK(pipeline.close(kLong).complete);
}
