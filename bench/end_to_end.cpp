// From ingest to the callback that gets the batches, 64-byte payloads: hash (or the producer's own
// place), route over 4 instances, stamp, copy, bounded; nothing is lost, producers wait while a
// queue is full; one thread consumes. Subjects and peers in turn.
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "support/flow.hpp"
#include "support/flow_case.hpp"
#include "support/pipeline_flow.hpp"
#include "support/results.hpp"

namespace {

using bench::FlowCase;
using bench::Load;
using bench::QueueFlow;
using bench::Role;

constexpr std::size_t kPayload = bench::kRecordPayload;
constexpr std::size_t kBatch = 256;
constexpr std::size_t kShards = 4;
constexpr std::size_t kCapacity = 16'384;
constexpr std::size_t kDistinct = 8'192;  ///< payloads, handed in over and over

/// Blocks of 256, as its documentation has it for few producers and many events; 32, the default,
/// is mostly slower. Four queues, and one for all, which is how it is meant to be used: each
/// producer has a part of its own in it. The shard then travels with the event.
template <std::size_t kProducers>
void add_moodycamel([[maybe_unused]] FlowCase& rows) {
#if BENCH_HAS_MOODYCAMEL
  constexpr std::size_t kPart = kCapacity / kProducers;
  rows.add_peer<bench::MoodycamelQueues<256, kPart>>("moodycamel/4_queues", kShards, kCapacity);
  rows.add_peer<bench::MoodycamelQueues<256, kPart * kShards>>("moodycamel/1_queue", 1,
                                                               kCapacity * kShards);
#endif
}

void run_case(bench::Results& results, const char* title, const Load& load, int rounds) {
  using bench::LockedRings;
  FlowCase rows(load);
  auto options = bench::waiting_pipeline(load.shards);
  options.manager.ring_capacity = kCapacity;
  rows.add<bench::PipelineFlow<>>(load.own_place ? "shard/producer_handle" : "shard", Role::subject,
                                  options);
  rows.add_peer<LockedRings<bench::YieldingSpinLock>>("boost_ring+spin_lock", kShards, kCapacity);
  rows.add_peer<LockedRings<std::mutex>>("boost_ring+std_mutex", kShards, kCapacity);
  if (load.producers == 1) {
    add_moodycamel<1>(rows);
  } else {
    add_moodycamel<2>(rows);
  }
#if BENCH_HAS_ATOMIC_QUEUE
  rows.add_peer<bench::AtomicQueues>("atomic_queue", kShards, kCapacity);
#endif
#if BENCH_HAS_TBB
  rows.add_peer<bench::TbbQueues>("tbb_bounded_queue", kShards, kCapacity);
#endif
  rows.add_peer<bench::MutexDeques>("std_mutex+std_deque", kShards, kCapacity);
  if (load.own_place) {
    // As long as no two producers share a place, none of them needs a lock.
    using Unlocked = LockedRings<bench::NoLock>;
    rows.add<QueueFlow<Unlocked>>("floor: boost_ring/polls", Role::floor, kShards, kCapacity);
    rows.add<QueueFlow<Unlocked>>("floor: boost_ring/rests", Role::floor, kShards, kCapacity,
                                  bench::kRest);
  }
  rows.run(results, title, rounds,
           {{"producers", load.producers},
            {"shards", load.shards},
            {"payload", kPayload},
            {"batch", load.batch},
            {"own_place", load.own_place}});
}

}  // namespace

int main(int argc, char** argv) {
  auto results = bench::Results::from_arguments(argc, argv);
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 11;
  const std::size_t events = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 4'000'000;
  for (const auto& [built_in, package] : {std::pair{BENCH_HAS_MOODYCAMEL, "libconcurrentqueue-dev"},
                                          std::pair{BENCH_HAS_ATOMIC_QUEUE, "libatomic-queue-dev"},
                                          std::pair{BENCH_HAS_TBB, "libtbb-dev"}}) {
    if (built_in == 0) {
      std::printf("left out, because it was not there when this was built: %s\n", package);
    }
  }
  const bench::Payloads payloads(kPayload, kDistinct);
  const auto load = [&](std::size_t producers, std::size_t batch, bool own_place) {
    return Load{.producers = producers,
                .batch = batch,
                .own_place = own_place,
                .shards = kShards,
                .passes = std::max<std::size_t>(1, events / producers / kDistinct),
                .payloads = &payloads};
  };
  const auto run = [&](const char* title, const Load& how) {
    run_case(results, title, how, rounds);
  };
  run("1 producer, single events", load(1, 1, false));
  run("1 producer, batches of 256", load(1, kBatch, false));
  run("2 producers, single events by content", load(2, 1, false));
  run("2 producers, single events, each in its own place", load(2, 1, true));
  run("2 producers, batches of 256", load(2, kBatch, false));
}
