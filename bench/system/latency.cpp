// Latency in an open loop: one producer that sends by a schedule, one consumer. An event's time
// begins when it was meant to be sent, so whatever holds up the producer is in the figures of all
// events that should have been sent meanwhile.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "shard/clock.hpp"
#include "shard/pipeline.hpp"
#include "support/open_loop.hpp"
#include "support/pipeline_flow.hpp"
#include "support/rounds.hpp"
#include "system/sections.hpp"

namespace bench::system {
namespace {

constexpr std::size_t kShards = 4;
constexpr std::size_t kCapacity = 16'384;
/// Events per second: so few that everybody has time to fall asleep in between, and so many that
/// the producer has not, which the slowest of them can still take. The same for all rows, unlike parts
/// of each one's capacity.
constexpr std::array<double, 2> kRates{2'000, 1'000'000};

double median_of(const std::vector<double>& values) { return quantile_of(values, 0.5); }

class Latencies {
 public:
  explicit Latencies(const Settings& settings) : settings_(settings) {
    add_shard("shard/low_latency/park", shard::BatchOptions::low_latency(),
              shard::WaitStrategy::park);
    add_shard("shard/low_latency/spin_then_park", shard::BatchOptions::low_latency(),
              shard::WaitStrategy::spin_then_park);
    add_shard("shard/default_batches/park", shard::BatchOptions{}, shard::WaitStrategy::park);
    add<QueueFlow<WaitingDeque, OpenLoop>>("std_mutex+std_deque+condition_variable", kShards,
                                           kCapacity);
#if BENCH_HAS_MOODYCAMEL
    add<QueueFlow<MoodycamelQueues<256, kCapacity * kShards>, OpenLoop>>("moodycamel/polls", 1,
                                                                         kCapacity);
#endif
    add<QueueFlow<LockedRings<YieldingSpinLock>, OpenLoop>>("boost_ring+spin_lock/polls", kShards,
                                                            kCapacity);
  }

  /// What each can do at most, driven by the same generator: what the loads are parts of.
  void measure_capacity() {
    std::printf("\nlatency: capacity, all events due at once\n");
    schedule_.interval = 0;
    schedule_.events = settings_.quick ? 100'000 : 4'000'000;
    std::vector<Subject> subjects;
    std::vector<Role> roles;
    for (auto& row : rows_) {
      subjects.push_back({row.name, [this, &row] { return run(row, 0); }});
      roles.push_back(row.role);
    }
    const auto transfers = measure_rounds(subjects, settings_.rounds());
    print_rounds(subjects, {}, transfers);
    settings_.results->add(case_of("latency: capacity", subjects, roles, transfers, parameters()));
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      rows_[i].capacity = 1e9 / subjects[i].median();
    }
  }

  /// \param load  the part of each row's own capacity
  void measure_at_load(double load) {
    auto given = parameters();
    given["load"] = load;
    const auto percent = std::to_string(static_cast<int>(load * 100 + 0.5));
    measure("latency: " + percent + " % of capacity", given,
            [load](const Row& row) { return load * row.capacity; });
  }

  /// \param rate  events per second, the same for all rows
  void measure_at_rate(double rate) {
    auto given = parameters();
    given["events_per_second"] = rate;
    measure("latency: " + std::to_string(static_cast<int>(rate)) + " events per second", given,
            [rate](const Row&) { return rate; });
  }

 private:
  struct Row {
    std::string name;
    Role role;
    std::unique_ptr<Flow> flow;
    double capacity = 0;  ///< events per second
    std::vector<double> p50 = {}, p99 = {}, p999 = {}, longest = {};
    std::vector<double> achieved = {};  ///< events per second, from the first to the last
  };

  template <class AnyFlow, class... Args>
  void add(const std::string& name, const Args&... args) {
    rows_.push_back({name, name.starts_with("shard") ? Role::subject : Role::peer,
                     std::make_unique<AnyFlow>(load_, args...)});
    rows_.back().flow->sink.report_to(&arrivals_);
  }

  void add_shard(const std::string& name, const shard::BatchOptions& batch,
                 shard::WaitStrategy wait) {
    auto options = waiting_pipeline(kShards);
    options.batch = batch;
    options.wait = wait;
    add<PipelineFlow<OpenLoop>>(name, options);
  }

  [[nodiscard]] static nlohmann::ordered_json parameters() {
    return {{"producers", OpenLoop::producers}, {"shards", kShards},   {"batch", 1},
            {"payload", OpenLoop::kPayload},    {"routing", "static"}, {"place", "content"}};
  }

  /// All events of the schedule as it is now; nanoseconds per event.
  Nanoseconds run(Row& row, std::uint64_t warm_up) {
    arrivals_.begin(warm_up);
    // A little later, so that the first is not late.
    schedule_.start = clock_.now().nanoseconds + (schedule_.interval == 0 ? 0 : 1'000'000);
    const auto took = run_flow(row.name, *row.flow, team_, load_);
    if (arrivals_.histogram().count() != schedule_.events - warm_up) {
      std::fprintf(stderr, "%s: not all latencies were counted\n", row.name.c_str());
      std::_Exit(EXIT_FAILURE);
    }
    return took;
  }

  template <class RateOf>
  void measure(const std::string& title, const nlohmann::ordered_json& given, RateOf rate_of) {
    const double seconds = settings_.quick ? 0.05 : 1.0;
    for (auto& row : rows_) {
      row.p50 = row.p99 = row.p999 = row.longest = row.achieved = {};
    }
    const auto transfers = interleave(rows_, settings_.rounds(), [&](Row& row, int round) {
      const double rate = rate_of(row);
      schedule_.interval = 1e9 / rate;
      schedule_.events = std::max<std::uint64_t>(100, static_cast<std::uint64_t>(seconds * rate));
      const auto took = run(row, schedule_.events / 10);
      if (round >= 0) {
        const auto& histogram = arrivals_.histogram();
        row.p50.push_back(static_cast<double>(histogram.quantile(0.5)));
        row.p99.push_back(static_cast<double>(histogram.quantile(0.99)));
        row.p999.push_back(static_cast<double>(histogram.quantile(0.999)));
        row.longest.push_back(static_cast<double>(histogram.longest()));
        row.achieved.push_back(1e9 / took);
      }
    });
    print(title, transfers);
    record(title, given, transfers);
  }

  void print(const std::string& title, const std::vector<Nanoseconds>& transfers) const {
    std::printf("\n%s\n%-42s %10s %10s %10s %10s %10s %11s\n", title.c_str(),
                "ns, medians of the rounds", "events/s", "p50", "p99", "p99.9", "max", "worst max");
    for (const auto& row : rows_) {
      std::printf("%-42s %10.0f %10.0f %10.0f %10.0f %10.0f %11.0f\n", row.name.c_str(),
                  median_of(row.achieved), median_of(row.p50), median_of(row.p99),
                  median_of(row.p999), median_of(row.longest), quantile_of(row.longest, 1));
    }
    std::printf("%zu rounds; ", transfers.size());
    print_transfers(transfers);
  }

  void record(const std::string& title, const nlohmann::ordered_json& given,
              const std::vector<Nanoseconds>& transfers) const {
    auto subjects = nlohmann::ordered_json::array();
    for (const auto& row : rows_) {
      nlohmann::ordered_json subject{{"name", row.name},
                                     {"role", to_string(row.role)},
                                     {"p50", median_of(row.p50)},
                                     {"p99", median_of(row.p99)},
                                     {"p999", median_of(row.p999)},
                                     {"max", median_of(row.longest)},
                                     {"worst_max", quantile_of(row.longest, 1)},
                                     {"events_per_second", median_of(row.achieved)}};
      if (given.contains("load")) {
        subject["load"] = given["load"];
      }
      subjects.push_back(std::move(subject));
    }
    settings_.results->add(latency_case_of(title, std::move(subjects), transfers, given));
  }

  const Settings settings_;
  const shard::Clock clock_;
  Schedule schedule_{clock_};
  Arrivals arrivals_{schedule_};
  const OpenLoop load_{.shards = kShards, .schedule = &schedule_};
  Team team_{1};
  std::vector<Row> rows_;
};

/// The method's own test. The callback stalls for 20 ms while a million events per second should
/// come, into rings so small that the producer can send hardly any of them: still each of those that
/// should have been sent in the first half of the stall has to show at least the other half.
void check_that_a_stall_shows() {
  constexpr auto kStall = std::chrono::milliseconds{20};
  constexpr std::uint64_t kHalf = 10'000'000;
  const shard::Clock clock;
  Schedule schedule(clock);
  schedule.interval = 1'000;
  schedule.events = 100'000;
  Arrivals arrivals(schedule);
  arrivals.begin(0);
  arrivals.stall(schedule.events / 2, kStall);
  const OpenLoop load{.shards = kShards, .schedule = &schedule};
  QueueFlow<LockedRings<YieldingSpinLock>, OpenLoop> flow(load, kShards, 64);
  flow.sink.report_to(&arrivals);
  Team team(1);
  schedule.start = clock.now().nanoseconds + 1'000'000;
  run_flow("check", flow, team, load);
  const auto late = arrivals.histogram().at_least(kHalf);
  const auto due = static_cast<double>(kHalf) / schedule.interval;
  std::printf(
      "\nlatency: check: a stall of 20 ms made %llu events late by 10 ms or more; %.0f were due\n",
      static_cast<unsigned long long>(late), due);
  if (static_cast<double>(late) < 0.9 * due) {
    std::fprintf(stderr, "a stall does not show in the latencies: they mean nothing\n");
    std::_Exit(EXIT_FAILURE);
  }
}

}  // namespace

void latency(const Settings& settings) {
  check_that_a_stall_shows();
  Latencies latencies(settings);
  latencies.measure_capacity();
  for (const double load : {0.1, 0.5, 0.9}) {
    latencies.measure_at_load(load);
  }
  for (const double rate : kRates) {
    latencies.measure_at_rate(rate);
  }
}

}  // namespace bench::system
