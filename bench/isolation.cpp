// What one slow shard does to the others: 10,000 events per second into 4 shards with 2 workers,
// undisturbed and with an adapter that takes 100 ms for each batch of one of the shards. In turn,
// so that both see the same machine.
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "shard/clock.hpp"
#include "shard/pipeline.hpp"
#include "support/queues.hpp"
#include "support/results.hpp"

namespace {

constexpr std::size_t kShards = 4;
constexpr auto kInterval = std::chrono::microseconds{100};  // 10,000 events per second
constexpr auto kDelay = std::chrono::milliseconds{100};
constexpr std::size_t kNone = kShards;

/// For each shard, a key that goes there.
std::vector<std::string> keys_of(const shard::Manager& manager) {
  std::vector<std::string> keys;
  for (const auto id : manager.shard_ids()) {
    std::string key;
    for (int i = 0; key.empty(); ++i) {
      const auto candidate = "key-" + std::to_string(i);
      if (manager.select_shard_by_hash(manager.hash(candidate)) == id) {
        key = candidate;
      }
    }
    keys.push_back(key);
  }
  return keys;
}

struct Latencies {
  double p50 = 0;
  double p99 = 0;
};

/// What the events of all shards but one (`watched_not`) took, from ingest to the callback, while
/// shard `slow` is slow.
Latencies run(int events, std::size_t slow, std::size_t watched_not) {
  const shard::Clock clock;
  std::array<std::vector<double>, kShards>
      took;  // each by the callback of its own shard, one at a time
  for (auto& latencies : took) {
    latencies.reserve(static_cast<std::size_t>(events));
  }
  shard::PipelineOptions options;
  options.manager.shards = kShards;
  options.manager.backpressure = shard::Backpressure::block(std::chrono::seconds{10});
  options.batch = shard::BatchOptions::low_latency();
  options.workers = 2;
  shard::Pipeline pipeline{options, [&](const shard::Batch& batch) {
                             const auto now = clock.now().nanoseconds;
                             std::size_t place = 0;
                             for (const auto event : batch) {
                               std::array<std::uint64_t, 2> words{};
                               std::memcpy(words.data(), event.payload.data(), sizeof words);
                               place = words[1];
                               took[place].push_back(static_cast<double>(now - words[0]));
                             }
                             if (place == slow) {
                               std::this_thread::sleep_for(kDelay);
                             }
                             return shard::Delivery::delivered();
                           }};
  const auto keys = keys_of(pipeline.manager());

  auto next = std::chrono::steady_clock::now();
  for (int i = 0; i < events; ++i) {
    std::this_thread::sleep_until(next += kInterval);
    const auto place = static_cast<std::size_t>(i) % kShards;
    std::array<char, bench::kRecordPayload> payload{};
    const std::array<std::uint64_t, 2> words{clock.now().nanoseconds, place};
    std::memcpy(payload.data(), words.data(), sizeof words);
    pipeline.ingest(shard::Bytes(payload), shard::Key(keys[place]));
  }
  if (!pipeline.close(std::chrono::seconds{10}).complete) {
    std::fprintf(stderr, "not all events were delivered\n");
    std::exit(EXIT_FAILURE);
  }

  std::vector<double> others;
  std::size_t delivered = 0;
  for (std::size_t place = 0; place < kShards; ++place) {
    delivered += took[place].size();
    if (place != watched_not) {
      others.insert(others.end(), took[place].begin(), took[place].end());
    }
  }
  if (delivered != static_cast<std::size_t>(events)) {
    std::fprintf(stderr, "%zu events instead of %d\n", delivered, events);
    std::exit(EXIT_FAILURE);
  }
  return {bench::quantile_of(others, 0.5), bench::quantile_of(others, 0.99)};
}

void print(const char* name, const std::vector<double>& undisturbed,
           const std::vector<double>& disturbed) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < undisturbed.size(); ++i) {
    ratios.push_back(disturbed[i] / undisturbed[i]);
  }
  std::printf("%-44s %12.1f %12.1f %8.2f\n", name, bench::quantile_of(undisturbed, 0.5) / 1'000,
              bench::quantile_of(disturbed, 0.5) / 1'000, bench::quantile_of(ratios, 0.5));
}

}  // namespace

int main(int argc, char** argv) {
  auto results = bench::Results::from_arguments(argc, argv);
  const int runs = argc > 1 ? std::atoi(argv[1]) : 9;
  const int events = argc > 2 ? std::atoi(argv[2]) : 20'000;
  std::array<std::vector<double>, 2> p50;
  std::array<std::vector<double>, 2> p99;
  std::vector<double> transfers;
  for (int i = 0; i < runs; ++i) {
    transfers.push_back(bench::line_transfer());
    const auto slow = static_cast<std::size_t>(i) % kShards;
    for (const bool first : {true, false}) {
      const bool disturb = first == (i % 2 != 0);  // neither is always the first
      const auto latencies = run(events, disturb ? slow : kNone, slow);
      p50[disturb ? 1 : 0].push_back(latencies.p50);
      p99[disturb ? 1 : 0].push_back(latencies.p99);
    }
  }
  std::printf("%-44s %12s %12s %8s\n", "us, the three other shards", "undisturbed", "one slow",
              "ratio");
  print("p50", p50[0], p50[1]);
  print("p99", p99[0], p99[1]);
  std::printf("medians of %d runs of %d events each; the ratio is the median of the runs' ratios\n",
              runs, events);
  bench::print_transfers(transfers);
  const auto row = [&](const char* name, bench::Role role, std::size_t index) {
    return nlohmann::ordered_json{{"name", name},
                                  {"role", bench::to_string(role)},
                                  {"p50", bench::quantile_of(p50[index], 0.5)},
                                  {"p99", bench::quantile_of(p99[index], 0.5)},
                                  {"rounds", p50[index]}};
  };
  results.add(
      bench::latency_case_of("the three other shards while the adapter takes 100 ms for one",
                             {row("shard/undisturbed", bench::Role::baseline, 0),
                              row("shard/one_slow", bench::Role::subject, 1)},
                             transfers, {{"shards", kShards}, {"workers", 2}}));
}
