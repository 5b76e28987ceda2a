// From ingest until the callback runs, one event at a time, each after everything has been idle for
// a while: parked and spinning, beside a condition variable and a spinning ring in the same rounds.
#include <array>
#include <atomic>
#include <boost/lockfree/spsc_queue.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "shard/bytes.hpp"
#include "shard/clock.hpp"
#include "shard/pipeline.hpp"
#include "support/queues.hpp"
#include "support/results.hpp"

namespace {

constexpr std::size_t kPayload = bench::kRecordPayload;
constexpr int kWarmUp = 100;
constexpr auto kIdle = std::chrono::microseconds{100};

/// The event that is under way: the producer puts the time into it, the callback tells how long it
/// took.
class Flight {
 public:
  using Text = std::array<char, kPayload>;

  /// The payload of an event that sets off now.
  [[nodiscard]] Text set_off() {
    seen_.store(kNotYet, std::memory_order_relaxed);  // the hand-over orders it
    Text text{};
    const auto now = clock_.now().nanoseconds;
    std::memcpy(text.data(), &now, sizeof now);
    return text;
  }

  /// In the callback, first of all.
  void arrive(shard::Bytes payload) {
    const auto now = clock_.now().nanoseconds;
    std::uint64_t then = 0;
    std::memcpy(&then, payload.data(), sizeof then);
    seen_.store(now - then, std::memory_order_release);
  }

  /// Nanoseconds that the last one took; kNotYet while it is under way.
  [[nodiscard]] std::uint64_t seen() const { return seen_.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint64_t now() const { return clock_.now().nanoseconds; }

  static constexpr std::uint64_t kNotYet = ~std::uint64_t{0};

 private:
  shard::Clock clock_;
  std::atomic<std::uint64_t> seen_{kNotYet};
};

/// How the producer passes the time in between: asleep, so that the consumer may have its core, or
/// awake on a core of its own. Awake keeps nobody from a core where the consumer spins on the other
/// one, and the caches stay warm.
enum class Pause { asleep, awake };

/// Sends events one by one, each when the last one has come and some time has passed; the latencies
/// of all.
template <class Send>
std::vector<double> latencies(Flight& flight, int samples, Pause pause, Send send) {
  std::vector<double> result;
  for (int i = -kWarmUp; i < samples; ++i) {
    const auto text = flight.set_off();
    send(shard::Bytes(text));
    do {
      if (pause == Pause::asleep) {
        std::this_thread::sleep_for(kIdle);
      } else {
        const auto until = flight.now() + std::chrono::nanoseconds(kIdle).count();
        while (flight.now() < until) {
          __builtin_ia32_pause();
        }
      }
    } while (flight.seen() == Flight::kNotYet);
    if (i >= 0) {
      result.push_back(static_cast<double>(flight.seen()));
    }
  }
  return result;
}

std::vector<double> shard_latencies(int samples, shard::WaitStrategy wait, Pause pause) {
  Flight flight;
  shard::PipelineOptions options;
  options.manager.shards = 4;
  options.batch = shard::BatchOptions::low_latency();
  options.workers = 1;
  options.wait = wait;
  shard::Pipeline pipeline{options, [&flight](const shard::Batch& batch) {
                             flight.arrive(batch[0].payload);
                             return shard::Delivery::delivered();
                           }};
  return latencies(flight, samples, pause,
                   [&pipeline](shard::Bytes payload) { pipeline.ingest(payload); });
}

/// A mutex, a condition variable and a deque; the consumer takes all there is by a swap.
std::vector<double> condition_variable_latencies(int samples, Pause pause) {
  Flight flight;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::string> queue;
  bool ended = false;
  std::jthread consumer([&] {
    std::deque<std::string> batch;
    for (;;) {
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return ended || !queue.empty(); });
        if (queue.empty()) {
          return;
        }
        batch.swap(queue);
      }
      for (const auto& payload : batch) {
        flight.arrive(payload);
      }
      batch.clear();
    }
  });
  auto result = latencies(flight, samples, pause, [&](shard::Bytes payload) {
    {
      const std::lock_guard lock(mutex);
      queue.emplace_back(payload.text());
    }
    changed.notify_one();
  });
  {
    const std::lock_guard lock(mutex);
    ended = true;
  }
  changed.notify_one();
  return result;
}

/// One ring and a consumer that does nothing but look into it: no routing, no lock, no stamp.
std::vector<double> spinning_ring_latencies(int samples, Pause pause) {
  Flight flight;
  boost::lockfree::spsc_queue<bench::Record> ring(1'024);
  std::atomic<bool> ended{false};
  std::jthread consumer([&] {
    std::vector<bench::Record> batch(bench::kTakeMax);
    while (!ended.load(std::memory_order_relaxed)) {
      const auto size = ring.pop(batch.data(), batch.size());
      for (std::size_t i = 0; i < size; ++i) {
        flight.arrive(batch[i].payload());
      }
      if (size == 0) {
        __builtin_ia32_pause();
      }
    }
  });
  auto result = latencies(flight, samples, pause, [&ring](shard::Bytes payload) {
    ring.push(bench::Record({payload, 0}, bench::ticks()));
  });
  ended.store(true);
  return result;
}

struct Row {
  std::string name;
  std::string condition;  ///< rows of one condition are beside each other
  std::function<std::vector<double>()> measure;
  std::vector<double> p50 = {};
  std::vector<double> p99 = {};
  std::vector<double> max = {};
  std::vector<double> transfers = {};  ///< p50 in units of the line transfer before it
};

/// What was measured under one condition; medians of the rounds.
void record(bench::Results& results, const std::string& condition, const std::vector<Row>& rows,
            const std::vector<double>& transfers) {
  auto subjects = nlohmann::ordered_json::array();
  for (const auto& row : rows) {
    if (row.condition == condition) {
      const bool ours = row.name.starts_with("shard");
      subjects.push_back(
          {{"name", row.name},
           {"role", bench::to_string(ours ? bench::Role::subject : bench::Role::peer)},
           {"p50", bench::quantile_of(row.p50, 0.5)},
           {"p99", bench::quantile_of(row.p99, 0.5)},
           {"max", bench::quantile_of(row.max, 0.5)},
           {"rounds", row.p50}});
    }
  }
  results.add(bench::latency_case_of("one event after idleness, " + condition, subjects, transfers,
                                     {{"payload", kPayload}}));
}

void run(bench::Results& results, std::vector<Row>& rows, int rounds) {
  const auto transfers = bench::interleave(rows, rounds, [](Row& row, int round) {
    const auto transfer = bench::line_transfer();  // right beside: it flips, and this is the unit
    const auto samples = row.measure();
    if (round >= 0) {
      row.p50.push_back(bench::quantile_of(samples, 0.5));
      row.p99.push_back(bench::quantile_of(samples, 0.99));
      row.max.push_back(bench::quantile_of(samples, 1));
      row.transfers.push_back(row.p50.back() / transfer);
    }
  });
  std::printf("%-44s %9s %9s %9s %16s\n", "ns, medians of the rounds", "p50", "p99", "max",
              "p50 / transfer");
  for (const auto& row : rows) {
    std::printf("%-44s %9.0f %9.0f %9.0f %16.1f\n", row.name.c_str(),
                bench::quantile_of(row.p50, 0.5), bench::quantile_of(row.p99, 0.5),
                bench::quantile_of(row.max, 0.5), bench::quantile_of(row.transfers, 0.5));
  }
  std::printf("%d rounds; ", rounds);
  bench::print_transfers(transfers);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i == 0 || rows[i].condition != rows[i - 1].condition) {
      record(results, rows[i].condition, rows, transfers);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  auto results = bench::Results::from_arguments(argc, argv);
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 11;
  const int samples = argc > 2 ? std::atoi(argv[2]) : 3'000;
  using shard::WaitStrategy;
  std::vector<Row> rows{
      {"shard/park", "parked",
       [=] { return shard_latencies(samples, WaitStrategy::park, Pause::asleep); }},
      {"condition_variable", "parked",
       [=] { return condition_variable_latencies(samples, Pause::asleep); }},
      {"shard/spin, producer awake", "spinning, producer awake",
       [=] { return shard_latencies(samples, WaitStrategy::spin, Pause::awake); }},
      {"spinning boost_ring, producer awake", "spinning, producer awake",
       [=] { return spinning_ring_latencies(samples, Pause::awake); }},
      {"shard/spin, producer asleep", "spinning, producer asleep",
       [=] { return shard_latencies(samples, WaitStrategy::spin, Pause::asleep); }},
      {"spinning boost_ring, producer asleep", "spinning, producer asleep",
       [=] { return spinning_ring_latencies(samples, Pause::asleep); }},
  };
  run(results, rows, rounds);
}
