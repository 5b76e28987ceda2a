// Throughput: around one base case, one axis at a time. All producers wait while a queue is full, and
// each instance is bounded to 1 MiB of payload, so the largest payloads have the fewest places.
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

#include "shard/pipeline.hpp"
#include "support/flow_case.hpp"
#include "support/pipeline_flow.hpp"
#include "system/sections.hpp"

namespace bench::system {
namespace {

constexpr std::size_t kInstanceBytes = std::size_t{1} << 20U;  ///< ManagerOptions::ring_bytes
/// Of all payloads of a case, which are handed in over and over.
constexpr std::size_t kTextBytes = std::size_t{1} << 19U;
constexpr std::size_t kBatch = 256;

/// What a case is about; the defaults are the base case.
struct Axes {
  std::size_t producers = 2;
  std::size_t shards = 4;
  std::size_t batch = 1;
  std::size_t payload = 64;
  std::string routing = "static";
  bool own_place = false;
};

shard::PipelineOptions options_of(const Axes& axes, const std::string& routing) {
  auto options = waiting_pipeline(axes.shards);
  if (routing != "static") {
    // The price of being able to change, while nothing does.
    options.manager.scaling = shard::ScalingPolicy{
        .min_shards = axes.shards, .max_shards = axes.shards, .auto_scale = false};
    options.manager.routing = routing == "keyed" ? shard::Routing::keyed : shard::Routing::balanced;
  }
  return options;
}

/// The queue's bound for each producer is a part of its type, so there is a type for each bound.
template <std::size_t kPayload, std::size_t kPart>
bool add_moodycamel_if([[maybe_unused]] FlowCase& rows, [[maybe_unused]] const std::string& name,
                       [[maybe_unused]] std::size_t instances, std::size_t part) {
#if BENCH_HAS_MOODYCAMEL
  if (part == kPart) {
    rows.add_peer<MoodycamelQueues<256, kPart, kPayload>>(name, instances, part);
  }
#endif
  return part == kPart;
}

template <std::size_t kPayload>
void add_moodycamel(FlowCase& rows, const std::string& name, std::size_t instances,
                    std::size_t part) {
  constexpr std::size_t kAll = kInstanceBytes / kPayload;
  bool known = add_moodycamel_if<kPayload, kAll / 2>(rows, name, instances, part) ||
               add_moodycamel_if<kPayload, kAll * 2>(rows, name, instances, part);
  if constexpr (kPayload == kRecordPayload) {  // only there the producers and the shards vary
    known = known || add_moodycamel_if<kPayload, kAll / 8>(rows, name, instances, part) ||
            add_moodycamel_if<kPayload, kAll / 4>(rows, name, instances, part) ||
            add_moodycamel_if<kPayload, kAll>(rows, name, instances, part) ||
            add_moodycamel_if<kPayload, kAll * 4>(rows, name, instances, part) ||
            add_moodycamel_if<kPayload, kAll * 8>(rows, name, instances, part);
  }
  if (!known) {
    std::fprintf(stderr, "no moodycamel queue for %zu events of a producer\n", part);
    std::exit(EXIT_FAILURE);
  }
}

/// Blocks of 256, as its documentation has it for few producers and many events. A queue for each
/// shard, and one for all, which is how it is meant to be used: each producer has a part of its own in
/// it, and the shard travels with the event.
template <std::size_t kPayload>
void add_peers(FlowCase& rows, const Axes& axes) {
  constexpr std::size_t kCapacity = kInstanceBytes / kPayload;
  const auto shards = axes.shards;
  rows.add_peer<LockedRings<YieldingSpinLock, kPayload>>("boost_ring+spin_lock", shards, kCapacity);
  rows.add_peer<LockedRings<std::mutex, kPayload>>("boost_ring+std_mutex", shards, kCapacity);
  rows.add_peer<BoostQueues<kPayload>>("boost_queue", shards, kCapacity);
  add_moodycamel<kPayload>(rows, "moodycamel/1_queue", 1, kCapacity * shards / axes.producers);
  if (shards > 1) {
    add_moodycamel<kPayload>(rows, "moodycamel/each_shard", shards, kCapacity / axes.producers);
  }
#if BENCH_HAS_ATOMIC_QUEUE
  rows.add_peer<BasicAtomicQueues<kPayload>>("atomic_queue", shards, kCapacity);
#endif
#if BENCH_HAS_TBB
  rows.add_peer<BasicTbbQueues<kPayload>>("tbb_bounded_queue", shards, kCapacity);
#endif
  rows.add_peer<MutexDeques>("std_mutex+std_deque", shards, kCapacity);
  if (axes.own_place && axes.producers <= shards) {
    // As long as no two producers share a place, none of them needs a lock.
    using Unlocked = QueueFlow<LockedRings<NoLock, kPayload>>;
    rows.add<Unlocked>("floor: boost_ring/polls", Role::floor, shards, kCapacity);
    rows.add<Unlocked>("floor: boost_ring/rests", Role::floor, shards, kCapacity, kRest);
  }
}

void run_case(const Settings& settings, const std::string& title, const Axes& axes) {
  const std::size_t events = settings.quick ? 60'000 : 2'000'000;
  const Payloads payloads(axes.payload, kTextBytes / axes.payload);
  const Load load{
      .producers = axes.producers,
      .batch = axes.batch,
      .own_place = axes.own_place,
      .shards = axes.shards,
      .passes = std::max<std::size_t>(1, events / axes.producers / payloads.views.size()),
      .payloads = &payloads};
  FlowCase rows(load);
  const std::string name = axes.own_place ? "shard/producer_handle" : "shard";
  rows.add<PipelineFlow<>>(name, Role::subject, options_of(axes, "static"));
  if (axes.routing != "static") {
    rows.add<PipelineFlow<>>(name + "/" + axes.routing, Role::subject,
                             options_of(axes, axes.routing));
  }
  switch (axes.payload) {
    case 64:
      add_peers<64>(rows, axes);
      break;
    case 256:
      add_peers<256>(rows, axes);
      break;
    case 1'024:
      add_peers<1'024>(rows, axes);
      break;
    default:
      std::fprintf(stderr, "no peers for payloads of %zu bytes\n", axes.payload);
      std::exit(EXIT_FAILURE);
  }
  rows.run(*settings.results, "throughput: " + title, settings.rounds(),
           {{"producers", axes.producers},
            {"shards", axes.shards},
            {"batch", axes.batch},
            {"payload", axes.payload},
            {"routing", axes.routing},
            {"place", axes.own_place ? "producer" : "content"}});
}

}  // namespace

void throughput(const Settings& settings) {
  run_case(settings, "2 producers, 4 shards, single events of 64 bytes", {});
  for (const std::size_t producers : {1U, 4U, 8U}) {
    run_case(settings, "producers: " + std::to_string(producers), {.producers = producers});
  }
  for (const std::size_t producers : {1U, 2U, 4U, 8U}) {
    run_case(settings, "producers: " + std::to_string(producers) + ", each in its own place",
             {.producers = producers, .own_place = true});
  }
  for (const std::size_t producers : {1U, 2U, 4U, 8U}) {
    run_case(settings, "batches of 256, producers: " + std::to_string(producers),
             {.producers = producers, .batch = kBatch});
  }
  run_case(settings, "batches of 256, 2 producers, each in its own place",
           {.batch = kBatch, .own_place = true});
  for (const std::size_t shards : {1U, 16U}) {
    run_case(settings, "shards: " + std::to_string(shards), {.shards = shards});
  }
  for (const std::size_t payload : {256U, 1'024U}) {
    run_case(settings, "payload: " + std::to_string(payload), {.payload = payload});
  }
  for (const auto* routing : {"balanced", "keyed"}) {
    run_case(settings, std::string("routing: ") + routing, {.routing = routing});
  }
}

}  // namespace bench::system
