// What an ingest call costs its caller: hash, route, stamp and copy of 64-byte payloads on shards with room.
// One thread fills, untimed drains in between; subjects and peers in turn.
#include <cstdlib>
#include <memory>

#include "shard/manager.hpp"
#include "support/core.hpp"
#include "support/payloads.hpp"
#include "support/peers.hpp"
#include "support/results.hpp"

namespace {

constexpr std::size_t kPayload = 64;
constexpr std::size_t kBatch = 256;
constexpr std::size_t kFill = 8'192;  // events between two drains; half of what the rings hold
constexpr std::size_t kShards = 4;
constexpr std::size_t kCapacity = 16'384;

/// Nanoseconds per event of `ingest_all(views)`, with `drain()` untimed after each fill.
template <class IngestAll, class Drain>
bench::Nanoseconds timed_fills(const bench::Payloads& payloads, int fills, IngestAll ingest_all,
                               Drain drain) {
  std::chrono::duration<double, std::nano> total{0};
  for (int fill = 0; fill < fills; ++fill) {
    const auto start = std::chrono::steady_clock::now();
    const std::size_t accepted = ingest_all(std::span<const shard::Bytes>(payloads.views));
    total += std::chrono::steady_clock::now() - start;
    if (accepted != kFill) {
      std::fprintf(stderr, "a subject lost events: %zu of %zu\n", kFill - accepted, kFill);
      std::exit(EXIT_FAILURE);
    }
    drain();
  }
  return total.count() / static_cast<double>(kFill) / fills;
}

template <class Ingest>
auto each(Ingest ingest) {
  return [ingest](std::span<const shard::Bytes> views) {
    std::size_t accepted = 0;
    for (const auto view : views) {
      accepted += ingest(view) ? 1U : 0U;
    }
    return accepted;
  };
}

template <class Ingest>
auto in_batches(Ingest ingest) {
  return [ingest](std::span<const shard::Bytes> views) {
    std::size_t accepted = 0;
    for (std::size_t i = 0; i < views.size(); i += kBatch) {
      accepted += ingest(views.subspan(i, kBatch));
    }
    return accepted;
  };
}

}  // namespace

int main(int argc, char** argv) {
  auto results = bench::Results::from_arguments(argc, argv);
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 11;
  const int fills = argc > 2 ? std::atoi(argv[2]) : 100;
  const bench::Payloads payloads(kPayload, kFill);

  const shard::ManagerOptions options{.shards = kShards, .ring_capacity = kCapacity};
  shard::Manager manager{options};
  auto producer = manager.producer();
  shard::EventBatch popped;
  const auto drain = [&] {
    for (const auto id : manager.shard_ids()) {
      popped.clear();
      manager.shard(id)->pop_batch_into(popped);
    }
  };
  const auto accepted = [](shard::Outcome outcome) { return outcome == shard::Outcome::accepted; };

  // The same manager with every ring full, so that each event evicts one.
  auto full_options = options;
  full_options.backpressure = shard::Backpressure::drop_oldest();
  full_options.ring_capacity = 1'024;
  shard::Manager full{full_options};
  for (const auto view : payloads.views) {
    full.ingest(view);
  }

  using HandMadeSpin = bench::HandMade<bench::SpinLock, kPayload>;
  using HandMadeMutex = bench::HandMade<std::mutex, kPayload>;
  HandMadeSpin spin(kShards, kCapacity);
  HandMadeMutex mutex(kShards, kCapacity);
  bench::MutexDeque deque(kShards, kCapacity);
  const auto peer = [&](auto& subject, auto ingest_all) {
    return [&payloads, fills, &subject, ingest_all] {
      return timed_fills(payloads, fills, ingest_all, [&subject] { subject.drain(); });
    };
  };

  std::vector<bench::Subject> single{
      {"shard/single",
       [&] {
         return timed_fills(payloads, fills,
                            each([&](shard::Bytes view) { return accepted(manager.ingest(view)); }),
                            drain);
       }},
      {"shard/single/producer_handle",
       [&] {
         return timed_fills(
             payloads, fills,
             each([&](shard::Bytes view) { return accepted(producer.ingest(view)); }), drain);
       }},
      {"boost_ring+spin_lock+xxh3+rdtsc/single",
       peer(spin, each([&](shard::Bytes view) { return spin.ingest(view); }))},
      {"boost_ring+std_mutex+xxh3+rdtsc/single",
       peer(mutex, each([&](shard::Bytes view) { return mutex.ingest(view); }))},
      {"std_mutex+std_deque/single",
       peer(deque, each([&](shard::Bytes view) { return deque.ingest(view); }))},
      {"shard/single/drop_oldest_full",
       [&] {
         return timed_fills(payloads, fills,
                            each([&](shard::Bytes view) { return accepted(full.ingest(view)); }),
                            [] {});
       }},
  };
  const bench::OnFastestCore core;
  bench::run_rounds(results, "single events", single, rounds,
                    "boost_ring+spin_lock+xxh3+rdtsc/single",
                    {{"producers", 1}, {"shards", kShards}, {"payload", kPayload}, {"batch", 1}});
  std::printf("\n");

  std::vector<bench::Subject> batch{
      {"shard/batch_256",
       [&] {
         return timed_fills(payloads, fills,
                            in_batches([&](auto views) { return manager.ingest_batch(views); }),
                            drain);
       }},
      {"shard/batch_256/producer_handle",
       [&] {
         return timed_fills(payloads, fills,
                            in_batches([&](auto views) { return producer.ingest_batch(views); }),
                            drain);
       }},
      {"boost_ring+spin_lock+xxh3+rdtsc/batch_256",
       peer(spin, in_batches([&](auto views) { return spin.ingest_batch(views); }))},
      {"std_mutex+std_deque/batch_256",
       peer(deque, in_batches([&](auto views) { return deque.ingest_batch(views); }))},
      {"shard/batch_256/drop_oldest_full",
       [&] {
         return timed_fills(payloads, fills,
                            in_batches([&](auto views) { return full.ingest_batch(views); }),
                            [] {});
       }},
  };
  bench::run_rounds(
      results, "batches of 256", batch, rounds, "boost_ring+spin_lock+xxh3+rdtsc/batch_256",
      {{"producers", 1}, {"shards", kShards}, {"payload", kPayload}, {"batch", kBatch}});
}
