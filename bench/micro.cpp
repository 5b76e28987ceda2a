// The stages of an ingest call and the operations beside it, one by one (Google Benchmark). For comparisons with peers
// see caller_side.cpp: absolute times drift with the machine.
#include <benchmark/benchmark.h>

#include <mutex>

#include "shard/json.hpp"
#include "shard/manager.hpp"
#include "support/google_benchmark.hpp"
#include "support/payloads.hpp"

namespace {

using shard::detail::SystemPlatform;

void clock_now(benchmark::State& state) {
  const shard::Clock clock;
  for (auto _ : state) {
    benchmark::DoNotOptimize(clock.now());
  }
}
BENCHMARK(clock_now)->Name("Clock/now");

void hash(benchmark::State& state) {
  const shard::detail::Hasher hasher(1);
  const bench::Payloads payloads(static_cast<std::size_t>(state.range(0)), 64);
  std::size_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(hasher(payloads.views[i++ % 64]));
  }
}
BENCHMARK(hash)->Name("Hasher/hash/bytes")->Arg(16)->Arg(64)->Arg(256)->Arg(1024);

template <class Lock>
void lock_unlock(benchmark::State& state) {
  static Lock lock;
  for (auto _ : state) {
    lock.lock();
    benchmark::ClobberMemory();
    lock.unlock();
  }
}
BENCHMARK_TEMPLATE(lock_unlock, shard::detail::BasicMutex<SystemPlatform>)
    ->Name("Mutex/lock_unlock")
    ->Threads(1)
    ->Threads(2);
BENCHMARK_TEMPLATE(lock_unlock, std::mutex)->Name("std_mutex/lock_unlock")->Threads(1)->Threads(2);

void snapshot_read(benchmark::State& state) {
  struct Value {
    std::uint64_t version;
  };
  shard::detail::SnapshotCell<SystemPlatform, Value> cell(std::make_shared<const Value>(Value{1}));
  benchmark::DoNotOptimize(cell.current());
  for (auto _ : state) {
    benchmark::DoNotOptimize(cell.cached());
  }
}
BENCHMARK(snapshot_read)->Name("SnapshotCell/cached");

/// Fills and drains in turn; what is not measured is drained with the time stopped.
void ingest(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  const auto count = std::min<std::size_t>(4'096, (std::size_t{4} << 20U) / size / 2);
  const bench::Payloads payloads(size, count);
  shard::Manager manager{{.shards = static_cast<std::size_t>(state.range(1))}};
  shard::EventBatch batch;
  std::size_t i = 0;
  for (auto _ : state) {
    if (i == count) {
      state.PauseTiming();
      for (const auto id : manager.shard_ids()) {
        batch.clear();
        manager.shard(id)->pop_batch_into(batch);
      }
      i = 0;
      state.ResumeTiming();
    }
    if (manager.ingest(payloads.views[i++]) != shard::Outcome::accepted) {
      state.SkipWithError("an event found no room");
      break;
    }
  }
}
BENCHMARK(ingest)
    ->Name("Manager/ingest/bytes/shards")
    ->ArgsProduct({{16, 64, 256, 1024, 16384, 65536}, {4}})
    ->ArgsProduct({{64}, {1, 16, 256, 1024}});

void pop(benchmark::State& state) {
  const bench::Payloads payloads(64, 8'192);
  shard::Manager manager{{.shards = 1}};
  const auto only = *manager.shard(manager.shard_ids().front());
  shard::EventBatch batch;
  for (auto _ : state) {
    state.PauseTiming();
    manager.ingest_batch(payloads.views);
    batch.clear();
    state.ResumeTiming();
    benchmark::DoNotOptimize(only.pop_batch_into(batch));
  }
  state.SetItemsProcessed(state.iterations() * 8'192);
}
BENCHMARK(pop)->Name("Shard/pop_batch_into/8192_events");

void stats(benchmark::State& state) {
  const shard::Manager manager{
      {.shards = static_cast<std::size_t>(state.range(0)), .ring_capacity = 1024}};
  for (auto _ : state) {
    benchmark::DoNotOptimize(manager.stats());
  }
}
BENCHMARK(stats)->Name("Manager/stats/shards")->Arg(1)->Arg(16)->Arg(256);

void ledger(benchmark::State& state) {
  const shard::Manager manager{
      {.shards = static_cast<std::size_t>(state.range(0)), .ring_capacity = 1024}};
  for (auto _ : state) {
    benchmark::DoNotOptimize(manager.ledger());
  }
}
BENCHMARK(ledger)->Name("Manager/ledger/shards")->Arg(1)->Arg(16)->Arg(256);

void ingest_json(benchmark::State& state) {
  shard::Manager manager{{.backpressure = shard::Backpressure::drop_oldest()}};
  const nlohmann::json value{{"date", "2001/01/01 00:47"},
                             {"delay", 66},
                             {"distance", 1750},
                             {"origin", "DTW"},
                             {"destination", "LAS"}};
  for (auto _ : state) {
    benchmark::DoNotOptimize(shard::ingest_json(manager, value));
  }
}
BENCHMARK(ingest_json)->Name("ingest_json/flight/drop_oldest");

void dump_json(benchmark::State& state) {
  const nlohmann::json value{{"date", "2001/01/01 00:47"},
                             {"delay", 66},
                             {"distance", 1750},
                             {"origin", "DTW"},
                             {"destination", "LAS"}};
  for (auto _ : state) {
    benchmark::DoNotOptimize(value.dump());
  }
}
BENCHMARK(dump_json)->Name("nlohmann_dump/flight");

}  // namespace

int main(int argc, char** argv) { return bench::run_google_benchmark(argc, argv); }
