// From ingest to the callback that gets the batches, 64-byte payloads: hash (or the producer's own
// place), route over 4 instances, stamp, copy, bounded; nothing is lost, producers wait while a
// queue is full; one thread consumes. Subjects and peers in turn.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "shard/pipeline.hpp"
#include "support/flow.hpp"
#include "support/results.hpp"

namespace {

using bench::Load;
using bench::QueueFlow;
using bench::Role;

constexpr std::size_t kPayload = bench::kRecordPayload;
constexpr std::size_t kBatch = 256;
constexpr std::size_t kShards = 4;
constexpr std::size_t kCapacity = 16'384;
constexpr std::size_t kDistinct = 8'192;  ///< payloads, handed in over and over

class ShardFlow final : public bench::Flow {
 public:
  explicit ShardFlow(const Load& load)
      : load_(load), pipeline_(options(load), [this](const shard::Batch& batch) {
          sink.take(batch, [](const shard::Event& event) { return event.payload; });
          return shard::Delivery::delivered();
        }) {
    for (std::size_t i = 0; i < load.producers; ++i) {
      producers_.push_back(pipeline_.producer());
    }
  }

  void produce(std::size_t producer) override {
    if (load_.own_place) {
      hand_in_to(producers_[producer]);
    } else {
      hand_in_to(pipeline_);
    }
  }

  /// Else the last events would wait for company, which is the pipeline's business but not that of
  /// this benchmark.
  void flush() override {
    if (!pipeline_.flush(std::chrono::seconds{10})) {
      std::fprintf(stderr, "the pipeline could not be flushed\n");
      std::_Exit(EXIT_FAILURE);
    }
  }

 private:
  static shard::PipelineOptions options(const Load& load) {
    shard::PipelineOptions options;
    options.manager.shards = load.shards;
    options.manager.ring_capacity = kCapacity;
    options.manager.backpressure = shard::Backpressure::block(std::chrono::seconds{10});
    options.workers = 1;
    return options;
  }

  template <class Target>
  void hand_in_to(Target& target) {
    std::uint64_t accepted = 0;
    load_.hand_in(
        [&](shard::Bytes payload) {
          accepted += target.ingest(payload) == shard::Outcome::accepted ? 1U : 0U;
        },
        [&](std::span<const shard::Bytes> payloads) { accepted += target.ingest_batch(payloads); });
    if (accepted != load_.events() / load_.producers) {
      std::fprintf(stderr, "the pipeline refused events\n");
      std::_Exit(EXIT_FAILURE);
    }
  }

  const Load load_;
  shard::Pipeline pipeline_;
  std::vector<shard::Producer> producers_;
};

/// How long the consumer of a paced peer rests when it found little, as the pipeline's workers do;
/// that of a peer looks into the queues as often as it can. Chosen from short runs with 5, 20 and 50 us, each a
/// program of its own, so not a careful comparison: 20 and 50 us were close.
constexpr auto kRest = std::chrono::microseconds{20};

/// The flows of one case, and the threads that produce for them.
class Case {
 public:
  explicit Case(const Load& load) : load_(load), team_(load.producers) {}

  template <class AnyFlow, class... Args>
  void add(const std::string& name, Role role, const Args&... args) {
    flows_.push_back(std::make_unique<AnyFlow>(load_, args...));
    const auto measure = [this, name, &flow = *flows_.back()] {
      return bench::run_flow(name, flow, team_, load_);
    };
    subjects_.push_back({name, measure});
    roles_.push_back(role);
  }

  /// A queue with a consumer that polls and with one that rests.
  template <class Queue>
  void add_peer(const std::string& name, std::size_t instances, std::size_t capacity) {
    add<QueueFlow<Queue>>(name + "/polls", Role::peer, instances, capacity);
    add<QueueFlow<Queue>>(name + "/rests", Role::paced_peer, instances, capacity, kRest);
  }

  void run(bench::Results& results, const std::string& title, int rounds) {
    const auto transfers = bench::measure_rounds(subjects_, rounds);
    bench::print_rounds(
        subjects_, {{"/polling", fastest(Role::peer)}, {"/resting", fastest(Role::paced_peer)}},
        transfers);
    results.add(bench::case_of(title, subjects_, roles_, transfers,
                               {{"producers", load_.producers},
                                {"shards", load_.shards},
                                {"payload", kPayload},
                                {"batch", load_.batch},
                                {"own_place", load_.own_place}}));
  }

 private:
  [[nodiscard]] const bench::Subject* fastest(Role role) const {
    const bench::Subject* best = nullptr;
    for (std::size_t i = 0; i < subjects_.size(); ++i) {
      if (roles_[i] == role && (best == nullptr || subjects_[i].median() < best->median())) {
        best = &subjects_[i];
      }
    }
    return best;
  }

  Load load_;
  bench::Team team_;
  std::vector<std::unique_ptr<bench::Flow>> flows_;
  std::vector<bench::Subject> subjects_;
  std::vector<Role> roles_;  ///< of the subjects
};

/// Blocks of 256, as its documentation has it for few producers and many events; 32, the default,
/// is mostly slower. Four queues, and one for all, which is how it is meant to be used: each
/// producer has a part of its own in it. The shard then travels with the event.
template <std::size_t kProducers>
void add_moodycamel([[maybe_unused]] Case& rows) {
#if BENCH_HAS_MOODYCAMEL
  constexpr std::size_t kPart = kCapacity / kProducers;
  rows.add_peer<bench::MoodycamelQueues<256, kPart>>("moodycamel/4_queues", kShards, kCapacity);
  rows.add_peer<bench::MoodycamelQueues<256, kPart * kShards>>("moodycamel/1_queue", 1,
                                                               kCapacity * kShards);
#endif
}

void run_case(bench::Results& results, const char* title, const Load& load, int rounds) {
  using bench::LockedRings;
  Case rows(load);
  rows.add<ShardFlow>(load.own_place ? "shard/producer_handle" : "shard", Role::subject);
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
                                  kRest);
  }
  std::printf("\n%s\n", title);
  rows.run(results, title, rounds);
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
