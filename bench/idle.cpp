// What a pipeline with nothing to do costs: processor time and wake-ups of the whole process, with
// 64 shards and 2 workers that park, after a burst of events was delivered.
#include <sys/resource.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "shard/pipeline.hpp"
#include "support/payloads.hpp"
#include "support/results.hpp"

namespace {

constexpr std::size_t kShards = 64;
constexpr std::size_t kBurst = 100'000;
constexpr auto kSettle = std::chrono::seconds{2};

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

/// How often a thread of this process has gone to sleep, which is how often one was woken.
long sleeps() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_nvcsw;
}

struct Idleness {
  std::vector<bench::Subject> percent;   ///< of a core
  std::vector<bench::Subject> wake_ups;  ///< per second
};

void measure(Idleness& idleness, const char* name, const shard::ManagerOptions& manager,
             std::chrono::seconds span) {
  shard::PipelineOptions options;
  options.manager = manager;
  options.workers = 2;
  options.wait = shard::WaitStrategy::park;
  std::atomic<std::uint64_t> delivered{0};
  shard::Pipeline pipeline{options, [&delivered](const shard::Batch& batch) {
                             delivered.fetch_add(batch.size(), std::memory_order_relaxed);
                             return shard::Delivery::delivered();
                           }};
  const bench::Payloads payloads(64, kBurst);
  pipeline.ingest_batch(payloads.views);
  if (!pipeline.flush(std::chrono::seconds{10}) || delivered.load() != kBurst) {
    std::fprintf(stderr, "the burst was not delivered\n");
    std::exit(EXIT_FAILURE);
  }
  std::this_thread::sleep_for(kSettle);

  const auto sleeps_before = sleeps();
  const auto before = processor_seconds();
  const auto start = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(span);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  const auto used = processor_seconds() - before;
  const double percent = 100 * used / took.count();
  const double wake_ups = static_cast<double>(sleeps() - sleeps_before) / took.count();
  std::printf("%-44s %14.5f %12.2f\n", name, percent, wake_ups);
  std::fflush(stdout);
  idleness.percent.push_back({name, {}, {percent}});
  idleness.wake_ups.push_back({name, {}, {wake_ups}});
}

}  // namespace

int main(int argc, char** argv) {
  auto results = bench::Results::from_arguments(argc, argv);
  const std::chrono::seconds span{argc > 1 ? std::atoi(argv[1]) : 30};
  shard::ManagerOptions manager;
  manager.shards = kShards;
  manager.backpressure = shard::Backpressure::block(std::chrono::seconds{10});
  std::printf("%-44s %14s %12s\n", "64 shards, 2 workers, idle", "% of a core", "wake-ups/s");
  Idleness idleness;
  measure(idleness, "static", manager, span);

  // It stays at its 64 shards: what is measured is the cost of watching them, not that of removing
  // them.
  manager.scaling = shard::ScalingPolicy{};
  manager.scaling->min_shards = kShards;
  manager.scaling->max_shards = 2 * kShards;
  measure(idleness, "elastic", manager, span);

  const std::vector<bench::Role> roles(2, bench::Role::subject);
  const nlohmann::ordered_json parameters{{"shards", kShards}, {"workers", 2}};
  results.add(bench::case_of("processor time of an idle pipeline", idleness.percent, roles, {},
                             parameters, "% of a core"));
  results.add(bench::case_of("wake-ups of an idle pipeline", idleness.wake_ups, roles, {},
                             parameters, "per second"));
}
