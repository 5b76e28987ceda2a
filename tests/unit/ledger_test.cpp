#include "shard/ledger.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "shard/manager.hpp"
#include "support/books.hpp"

namespace {

using shard::Backpressure;
using shard::Ledger;
using shard::Manager;
using shard::Outcome;
using shard::ShardId;
using shard_test::Tally;
using namespace std::chrono_literals;

/// A ledger whose counts are 1, 2, 4, ..., so that a sum says which of them are in it.
Ledger distinct() {
  return {.accepted = 1,
          .dropped_newest = 2,
          .rejected_full = 4,
          .rejected_timeout = 8,
          .sampled_out = 16,
          .rejected_closed = 32,
          .rejected_invalid = 64,
          .unrouted = 128,
          .evicted = 256,
          .returned = 512,
          .abandoned_queued = 1024,
          .queued = 2048,
          .taken = 4096,
          .delivered = 8192,
          .dead_lettered = 16384,
          .abandoned_batched = 32768,
          .possibly_delivered = 65536,
          .batched = 131072};
}

Ledger sum_over_shards(const Manager& manager) {
  auto sum = manager.own_ledger();
  for (const auto id : manager.shard_ids()) sum += manager.shard(id)->ledger();
  return sum;
}

}  // namespace

TEST_CASE("offered is the sum of the answers, lost of what no consumer will see", "[R-C1]") {
  CHECK(distinct().offered() == 255);
  CHECK(distinct().lost() == 2 + 16 + 256 + 1024 + 32768);
}

TEST_CASE("a ledger is balanced when what came in has gone or is queued", "[R-C1]") {
  CHECK(Ledger{}.balanced());
  CHECK(Ledger{.accepted = 10, .evicted = 1, .returned = 2, .abandoned_queued = 3, .queued = 4}
            .balanced());
  CHECK(Ledger{.accepted = 15,
               .taken = 15,
               .delivered = 5,
               .dead_lettered = 4,
               .abandoned_batched = 3,
               .possibly_delivered = 2,
               .batched = 1}
            .balanced());
  CHECK_FALSE(Ledger{.accepted = 1}.balanced());
  CHECK_FALSE(Ledger{.accepted = 1, .taken = 1}.balanced());
  CHECK_FALSE(Ledger{.delivered = 1}.balanced());
  CHECK_FALSE(Ledger{.returned = 1}.balanced());
}

TEST_CASE("ledgers add up field by field", "[R-C7]") {
  auto sum = distinct();
  sum += distinct();
  CHECK(sum == Ledger{.accepted = 2,
                      .dropped_newest = 4,
                      .rejected_full = 8,
                      .rejected_timeout = 16,
                      .sampled_out = 32,
                      .rejected_closed = 64,
                      .rejected_invalid = 128,
                      .unrouted = 256,
                      .evicted = 512,
                      .returned = 1024,
                      .abandoned_queued = 2048,
                      .queued = 4096,
                      .taken = 8192,
                      .delivered = 16384,
                      .dead_lettered = 32768,
                      .abandoned_batched = 65536,
                      .possibly_delivered = 131072,
                      .batched = 262144});
}

TEST_CASE("a ledger as text names every count that is not zero", "[R-C5]") {
  CHECK(to_string(Ledger{}).empty());
  CHECK(to_string(Ledger{.accepted = 5, .unrouted = 1, .queued = 5}) ==
        "accepted 5\nunrouted 1\nqueued 5\n");
  CHECK(to_string(distinct()) ==
        "accepted 1\ndropped_newest 2\nrejected_full 4\nrejected_timeout 8\nsampled_out 16\n"
        "rejected_closed 32\nrejected_invalid 64\nunrouted 128\nevicted 256\nreturned 512\n"
        "abandoned_queued 1024\nqueued 2048\ntaken 4096\ndelivered 8192\ndead_lettered 16384\n"
        "abandoned_batched 32768\npossibly_delivered 65536\nbatched 131072\n");
}

TEST_CASE("a dispatch mean of no batches is zero", "[R-C10]") {
  CHECK(shard::DispatchStats{}.mean_latency() == 0ns);
  CHECK(shard::DispatchStats{.batches = 4, .events = 9, .total_latency = 10us}.mean_latency() ==
        2500ns);
}

TEST_CASE("dispatch sums are kept per shard, exactly, up to the longest duration there is",
          "[R-C10]") {
  const Manager manager({.shards = 2});
  const auto first = *manager.shard(ShardId{0});
  first.record_batch_dispatch(10, 3s);
  first.record_batch_dispatch(0, 0ns);
  first.record_batch_dispatch(5, 100h);
  first.record_batch_dispatch(1, -1ns);  // a clock that stepped back adds nothing
  const auto stats = first.dispatch_stats();
  CHECK(stats.batches == 4);
  CHECK(stats.events == 16);
  CHECK(stats.total_latency == 100h + 3s);
  CHECK(stats.mean_latency() == std::chrono::nanoseconds{100h + 3s} / 4);
  CHECK(manager.shard(ShardId{1})->dispatch_stats().batches == 0);
  // Copies of a handle look at the same shard.
  CHECK(manager.shard(ShardId{0})->dispatch_stats().batches == 4);
  first.record_batch_dispatch(1, std::chrono::nanoseconds::max());
  first.record_batch_dispatch(1, std::chrono::nanoseconds::max());
  CHECK(first.dispatch_stats().total_latency == std::chrono::nanoseconds::max());
  CHECK(first.dispatch_stats().batches == 6);
}

TEST_CASE("the three totals agree with the ledger", "[R-C7]") {
  const auto mode = GENERATE(Backpressure::drop_newest(), Backpressure::drop_oldest(),
                             Backpressure::fail_producer(), Backpressure::sample(3));
  CAPTURE(to_string(mode.mode));
  Manager manager({.shards = 3, .ring_capacity = 16, .backpressure = mode, .seed = 1});
  for (int i = 0; i < 200; ++i) {
    static_cast<void>(manager.ingest(std::to_string(i)));
    if (i % 50 == 0) static_cast<void>(manager.shard(ShardId{1})->pop_batch(3));
  }
  const auto agrees = [](const shard::Stats& stats, const Ledger& ledger) {
    CHECK(stats.events_ingested == ledger.accepted);
    CHECK(stats.events_dropped == ledger.dropped_newest + ledger.sampled_out + ledger.evicted);
    CHECK(stats.events_dispatched == ledger.returned);
  };
  agrees(manager.stats(), manager.ledger());
  CHECK(manager.stats().events_ingested > 40);
  for (const auto id : manager.shard_ids()) {
    agrees(manager.shard(id)->stats(), manager.shard(id)->ledger());
  }
}

TEST_CASE("the laws hold per shard and in total after any history, in every mode",
          "[R-C1][R-C7][R-C5][R-C2]") {
  const auto mode =
      GENERATE(Backpressure::drop_newest(), Backpressure::drop_oldest(),
               Backpressure::fail_producer(), Backpressure::sample(3), Backpressure::block(0ns));
  const auto seed = GENERATE(1U, 2U, 3U);
  CAPTURE(to_string(mode.mode), seed);
  std::mt19937 random(seed);
  const auto below = [&random](unsigned n) { return static_cast<unsigned>(random() % n); };

  Tally tally;
  std::uint64_t popped = 0;
  std::uint64_t evicted = 0;  // as gaps in the sequences show
  std::array<std::uint64_t, 3> next_sequence{};
  std::uint64_t left_behind = 0;
  std::vector<shard::Shard> handles;
  {
    Manager manager({.shards = 3,
                     .ring_capacity = 32,
                     .ring_bytes = 4096,
                     .max_payload = 2048,
                     .inline_max = 256,
                     .max_key = 64,
                     .backpressure = mode,
                     .seed = seed});
    auto producer = manager.producer({.change_slot_every = 5});
    for (const auto id : manager.shard_ids()) handles.push_back(*manager.shard(id));
    const auto payload = [&] {
      return std::string(below(20) == 0 ? below(3000) : below(100), 'x');
    };
    for (int step = 0; step < 3000; ++step) {
      const auto text = payload();
      switch (below(7)) {
        case 0:
          tally.saw(manager.ingest(text, shard::Key{std::to_string(step)}));
          break;
        case 1:
          tally.saw(manager.ingest(text + std::to_string(step)));
          break;
        case 2:
          tally.saw(producer.ingest(text));
          break;
        case 3:
          tally.saw(handles[below(3)].try_push(text));
          break;
        case 4: {
          std::vector<std::string> texts(below(40));
          for (auto& each : texts) each = payload() + std::to_string(below(1000));
          std::vector<Outcome> outcomes(texts.size());
          const auto views = shard_test::views_of(texts);
          if (below(2) == 0) {
            manager.ingest_batch(views, outcomes);
          } else {
            producer.ingest_batch(views, outcomes);
          }
          tally.saw(outcomes);
          break;
        }
        case 5:
          tally.saw(manager.reject(Outcome::invalid_json));
          break;
        case 6: {
          const auto which = below(3);
          const auto batch = handles[which].pop_batch(below(20));
          popped += batch.size();
          for (const auto event : batch) {
            evicted += event.sequence.value - next_sequence[which];
            next_sequence[which] = event.sequence.value + 1;
          }
          break;
        }
      }
      REQUIRE(manager.ledger().balanced());
      REQUIRE(manager.ledger() == sum_over_shards(manager));
    }
    const auto seen = manager.ledger();
    CHECK(seen == tally.ledger({.evicted = seen.evicted, .returned = popped}));
    for (const auto& handle : handles) {
      CHECK(handle.ledger().balanced());
      CHECK(handle.ledger().queued == handle.len());
    }
    // An eviction at the head shows as a gap once something behind it is popped.
    for (std::size_t which = 0; which < handles.size(); ++which) {
      const auto batch = handles[which].pop_batch(1);
      popped += batch.size();
      for (const auto event : batch) {
        evicted += event.sequence.value - next_sequence[which];
      }
    }
    CHECK(manager.ledger() == tally.ledger({.evicted = evicted, .returned = popped}));
    left_behind = manager.total_pending_in_rings();
  }
  Ledger total;
  for (const auto& handle : handles) {
    CHECK(handle.ledger().balanced());
    total += handle.ledger();
  }
  CHECK(total.abandoned_queued == left_behind);
  CHECK(total.queued == 0);
  CHECK(total.returned == popped);
}
