// An hour of virtual time for each load shape, with the real manager: a host ingests, pops with a bounded rate for each
// shard, reports what it delivered, and calls run_scaling(). Rates are small, so that an hour takes a second or two.

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "shard/manager.hpp"
#include "shard/mapper.hpp"
#include "support/elastic.hpp"
#include "support/manual_clock.hpp"

namespace {

using shard::Manager;
using shard::Routing;
using shard::ScalingPolicy;
using shard::ShardId;
using shard::SinkState;
using shard_test::ManualClock;

constexpr std::size_t kSlots = 4096;
constexpr double kHour = 3600;  // seconds
constexpr double kStep = 0.1;   // seconds
constexpr std::uint64_t kStepNs = 100'000'000;
constexpr double kServiceRate = 50;  // events per second that are popped from one shard
constexpr std::size_t kRing = 256;
constexpr std::uint64_t kSeed = 7;

/// Everything ten times slower than the defaults, since there are fewer events, too.
ScalingPolicy slow_policy() {
  ScalingPolicy policy;
  policy.cooldown = std::chrono::seconds{10};
  policy.scale_up_delay = std::chrono::seconds{3};
  policy.scale_down_delay = std::chrono::seconds{100};
  policy.warm_up = std::chrono::seconds{10};
  policy.metrics_window = std::chrono::seconds{1};
  return policy;
}

/// How the traffic is spread over the slots; sums up to 1.
using Shape = std::vector<double>;

Shape uniform() { return Shape(kSlots, 1.0 / kSlots); }

/// `part` of the traffic goes to a range of slots.
Shape hot_range(std::size_t first, std::size_t count, double part) {
  Shape shape(kSlots, (1 - part) / kSlots);
  for (std::size_t i = 0; i < count; ++i) shape[first + i] += part / static_cast<double>(count);
  return shape;
}

/// Keys whose k-th has a frequency of 1 / k, each in a slot of its own choice.
Shape zipf(std::uint64_t seed, std::size_t keys) {
  std::mt19937_64 random(seed);
  Shape shape(kSlots, 0.0);
  double sum = 0;
  for (std::size_t key = 1; key <= keys; ++key) {
    shape[random() % kSlots] += 1.0 / static_cast<double>(key);
    sum += 1.0 / static_cast<double>(key);
  }
  for (auto& part : shape) part /= sum;
  return shape;
}

/// The traffic from some moment on.
struct Phase {
  double start = 0;                    ///< seconds
  std::function<double(double)> rate;  ///< events per second at a time
  Shape shape = uniform();
};

Phase steady(double start, double rate, Shape shape = uniform()) {
  return {.start = start, .rate = [rate](double) { return rate; }, .shape = std::move(shape)};
}

enum class Sink { healthy, failing, hanging, gone };

/// What happened.
struct Story {
  struct Change {
    double time = 0;
    std::size_t shards = 0;
    bool up = false;
    bool operator==(const Change&) const = default;
  };
  std::vector<Change> changes;
  std::size_t most_shards = 0;
  std::size_t last_shards = 0;
  double worst_share = 0;    ///< the largest share / max(2x fair, hottest slot) after settling
  double largest_share = 0;  ///< relative to the fair one, after settling
  std::uint64_t offered = 0;
  std::uint64_t lost = 0;     ///< events that were refused, after settling
  std::uint64_t gone = 0;     ///< events that nobody will see, in all
  std::uint64_t removed = 0;  ///< shards that were taken out
  std::size_t rebalances = 0;
  double last_rebalance = 0;
  std::uint64_t slots_moved = 0;
  std::vector<std::uint64_t> log;  ///< all that run_scaling() reported, for comparisons

  [[nodiscard]] std::string text() const {
    std::ostringstream out;
    out << "shards:";
    for (const auto& change : changes) out << ' ' << change.shards << "@" << change.time;
    out << "; most " << most_shards << ", at the end " << last_shards << "; share / bound "
        << worst_share << "; share / fair " << largest_share << "; lost " << lost << " of "
        << offered << "; rebalanced " << rebalances << " times, last at " << last_rebalance
        << "; slots moved " << slots_moved;
    return out.str();
  }
};

class Simulation {
 public:
  Simulation(Routing routing, std::vector<Phase> phases, std::size_t shards = 1,
             const ScalingPolicy& policy = slow_policy(), shard::Backpressure mode = {})
      : clock_(1),
        manager_(options(routing, shards, policy, mode, clock_)),
        phases_(std::move(phases)) {}

  /// The sink stops to work at this time.
  void break_sink(Sink how, double when) {
    broken_ = how;
    broken_at_ = when;
  }
  /// Somebody reads metrics, counts and advice in every step.
  void read_all_the_time() { readers_ = true; }
  /// For how long after a change of the load or of the shards shares may be uneven and events may be lost.
  void allow_to_settle(double seconds) { settling_ = seconds; }

  Story run(double end = kHour) {
    const auto steps = static_cast<std::size_t>(std::llround(end / kStep));
    for (std::size_t step = 0; step < steps; ++step) {
      now_ = static_cast<double>(step) * kStep;
      while (phase_ + 1 < phases_.size() && phases_[phase_ + 1].start <= now_) {
        ++phase_;
        disturbed_at_ = now_;
        slots_by_weight_.reset();
        shares_known_ = false;
      }
      ingest();
      deliver();
      clock_.advance(kStepNs);
      if (readers_) read();
      control();
      observe();
    }
    story_.last_shards = manager_.active_shard_ids().size();
    check_books();
    return story_;
  }

 private:
  static shard::ManagerOptions options(Routing routing, std::size_t shards,
                                       const ScalingPolicy& policy, shard::Backpressure mode,
                                       const ManualClock& clock) {
    auto options = shard_test::small_options(shards, kRing, mode);
    options.ring_bytes = 16384;
    options.routing = routing;
    options.time_source = &clock;
    options.scaling = policy;
    options.seed = kSeed;
    return options;
  }

  void ingest() {
    if (!slots_by_weight_) {
      const auto& shape = phases_[phase_].shape;
      slots_by_weight_.emplace(shape.begin(), shape.end());
      hottest_ = *std::max_element(shape.begin(), shape.end());
    }
    const auto mean = phases_[phase_].rate(now_) * kStep;
    const auto count = mean > 0 ? std::poisson_distribution<std::uint64_t>(mean)(random_) : 0;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t slot = (*slots_by_weight_)(random_);
      const auto outcome =
          manager_.ingest_raw(shard::RawEvent::with_hash("12345678", slot << 52U, kSeed));
      ++story_.offered;
      const bool settled = now_ >= std::max(disturbed_at_, changed_at_) + settling_;
      if (outcome != shard::Outcome::accepted && settled) ++story_.lost;
    }
  }

  [[nodiscard]] bool is_dead() const { return broken_ != Sink::healthy && now_ >= broken_at_; }

  /// Takes what each shard may have delivered in a step.
  void deliver() {
    if (is_dead()) return;
    for (const auto id : manager_.shard_ids()) {
      const auto handle = manager_.shard(id);
      batch_.clear();
      const auto popped =
          handle->pop_batch_into(batch_, static_cast<std::size_t>(kServiceRate * kStep));
      if (popped != 0) handle->record_batch_dispatch(popped, std::chrono::milliseconds{5});
    }
  }

  [[nodiscard]] SinkState sink() const {
    SinkState sink{.workers = 64, .busy_workers = 2};
    if (is_dead()) {
      if (broken_ == Sink::failing) sink.consecutive_failures = 5;
      if (broken_ == Sink::hanging) sink.busy_workers = sink.workers;
      if (broken_ == Sink::gone) sink = {};
    }
    return sink;
  }

  void read() {
    for (int i = 0; i < 2; ++i) {
      static_cast<void>(manager_.evaluate_scaling(sink()));
      static_cast<void>(manager_.collect_metrics());
      static_cast<void>(manager_.ledger());
      static_cast<void>(manager_.stats());
      static_cast<void>(manager_.active_shard_ids());
      for (const auto id : manager_.shard_ids()) {
        const auto handle = manager_.shard(id);
        static_cast<void>(handle->fill_ratio());
        static_cast<void>(handle->dispatch_stats());
      }
    }
  }

  void control() {
    const auto report = manager_.run_scaling(sink());
    story_.removed += report.removed;
    story_.slots_moved += report.slots_moved;
    if (report.rebalanced) {
      ++story_.rebalances;
      story_.last_rebalance = now_;
    }
    CHECK_FALSE(report.error);
    const bool up = !report.added.empty();
    if (up || !report.draining.empty()) {
      story_.changes.push_back(
          {.time = now_, .shards = manager_.active_shard_ids().size(), .up = up});
      changed_at_ = now_;
    }
    if (up || !report.draining.empty() || report.slots_moved != 0 || report.rebalanced) {
      shares_known_ = false;
    }
    for (const auto value :
         {static_cast<std::uint64_t>(report.decision.kind),
          static_cast<std::uint64_t>(report.decision.reason), std::uint64_t{report.decision.wanted},
          std::uint64_t{report.added.size()}, std::uint64_t{report.draining.size()},
          std::uint64_t{report.removed}, std::uint64_t{report.slots_moved},
          std::uint64_t{report.rebalanced ? report.rebalanced->to.value + 1U : 0U}}) {
      story_.log.push_back(value);
    }
  }

  void observe() {
    const auto active = manager_.active_shard_ids();
    story_.most_shards = std::max(story_.most_shards, active.size());
    if (now_ < std::max(disturbed_at_, changed_at_) + settling_) return;
    if (!shares_known_) {
      std::map<ShardId, double> shares;
      for (std::uint64_t slot = 0; slot < kSlots; ++slot) {
        shares[*manager_.select_shard_by_hash(slot << 52U)] += phases_[phase_].shape[slot];
      }
      largest_ = 0;
      for (const auto& [id, share] : shares) largest_ = std::max(largest_, share);
      shares_known_ = true;
    }
    const auto fair = 1.0 / static_cast<double>(active.size());
    story_.largest_share = std::max(story_.largest_share, largest_ / fair);
    story_.worst_share = std::max(story_.worst_share, largest_ / std::max(2 * fair, hottest_));
  }

  /// After all that: nothing is lost that was not counted.
  void check_books() {
    shard_test::check_agreement(manager_);
    const auto ledger = manager_.ledger();
    CHECK(ledger.offered() == story_.offered);
    CHECK(ledger.unrouted + ledger.rejected_closed + ledger.rejected_invalid == 0);
    CHECK(ledger.abandoned_queued == 0);
    story_.gone = ledger.lost();
  }

  ManualClock clock_;
  Manager manager_;
  std::vector<Phase> phases_;
  std::mt19937_64 random_{1};
  std::optional<std::discrete_distribution<std::uint64_t>> slots_by_weight_;
  shard::EventBatch batch_;
  Sink broken_ = Sink::healthy;
  double broken_at_ = kHour;
  bool readers_ = false;
  double settling_ = 300;

  double now_ = 0;
  std::size_t phase_ = 0;
  double disturbed_at_ = 0;
  double changed_at_ = 0;
  double hottest_ = 0;         ///< the share of the hottest slot
  double largest_ = 0;         ///< the largest share of a shard
  bool shares_known_ = false;  ///< is largest_ that of the table and phase of now?
  Story story_;
};

/// The most changes of direction (from adding to removing or back) between two changes of the load.
std::size_t reversals_per_load_change(const Story& story, const std::vector<Phase>& phases) {
  std::size_t most = 0;
  std::optional<bool> direction;
  auto change = story.changes.begin();
  for (std::size_t phase = 0; phase < phases.size(); ++phase) {
    const auto end = phase + 1 < phases.size() ? phases[phase + 1].start : kHour;
    std::size_t reversals = 0;
    for (; change != story.changes.end() && change->time < end; ++change) {
      reversals += direction && *direction != change->up ? 1U : 0U;
      direction = change->up;
    }
    most = std::max(most, reversals);
  }
  return most;
}

/// The longest time after a change of the load at which the number of shards still changed.
double longest_settling(const Story& story, const std::vector<Phase>& phases) {
  double longest = 0;
  for (const auto& change : story.changes) {
    double start = 0;
    for (const auto& phase : phases) {
      if (phase.start <= change.time) start = phase.start;
    }
    longest = std::max(longest, change.time - start);
  }
  return longest;
}

/// Enough shards for this rate, and not many more than that.
void check_last_shards(const Story& story, double rate) {
  CHECK(static_cast<double>(story.last_shards) * kServiceRate > rate);
  CHECK(static_cast<double>(story.last_shards) <=
        std::ceil(rate / (shard::Mapper::kUtilisation * kServiceRate)) + 1);
}

constexpr auto kRoutings = {Routing::balanced, Routing::keyed};

}  // namespace

TEST_CASE("the manager settles under a constant load and stays there for the rest of an hour",
          "[R-E18][R-E14][R-D6]") {
  for (const auto routing : kRoutings) {
    for (const double rate : {35.0, 300.0}) {
      const std::vector<Phase> phases{steady(0, rate)};
      const auto story = Simulation(routing, phases, 2).run();
      INFO(to_string(routing) << ", " << rate << "/s: " << story.text());
      CHECK(reversals_per_load_change(story, phases) <= 1);
      CHECK(longest_settling(story, phases) < 600);
      check_last_shards(story, rate);
      CHECK(story.worst_share <= 1);
      CHECK(story.lost == 0);
    }
  }
}

TEST_CASE("the manager follows a ramp up and down", "[R-E18]") {
  for (const auto routing : kRoutings) {
    const std::vector<Phase> phases{
        {.start = 0, .rate = [](double time) { return 10 + 350 * time / (kHour / 2); }},
        {.start = kHour / 2,
         .rate = [](double time) { return 10 + 350 * (kHour - time) / (kHour / 2); }}};
    Simulation simulation(routing, phases);
    const auto story = simulation.run();
    INFO(to_string(routing) << ": " << story.text());
    CHECK(reversals_per_load_change(story, phases) <= 1);
    CHECK(story.most_shards >= 8);
    CHECK(story.most_shards <= 12);
    CHECK(story.last_shards <= 3);
    CHECK(story.removed >= 5);
    CHECK(story.worst_share <= 1);
  }
}

TEST_CASE("a square wave moves the number of shards at most once in each direction per edge",
          "[R-E18][R-E9]") {
  for (const auto routing : kRoutings) {
    std::vector<Phase> phases;
    for (int half = 0; half < 6; ++half) {
      phases.push_back(steady(600.0 * half, half % 2 == 0 ? 250 : 30));
    }
    const auto story = Simulation(routing, phases).run();
    INFO(to_string(routing) << ": " << story.text());
    CHECK(reversals_per_load_change(story, phases) <= 1);
    CHECK(story.most_shards >= 6);
    CHECK(story.most_shards <= 9);
    CHECK(story.last_shards <= 3);
    CHECK(story.removed >= 5);
    CHECK(story.worst_share <= 1);
  }
}

TEST_CASE("idleness shorter than the scale-down delay takes away no shard that the bursts need",
          "[R-E9][R-E18]") {
  for (const auto routing : kRoutings) {
    // Bursts of half a minute, then 80 s of nothing; it takes some 10 s more until a burst shows in the smoothed rate.
    const std::vector<Phase> phases{
        {.start = 0, .rate = [](double time) { return std::fmod(time, 110) < 30 ? 250.0 : 1.0; }}};
    const auto story = Simulation(routing, phases).run();
    INFO(to_string(routing) << ": " << story.text());
    // While a burst is young it is not known how many it takes; one too many may go again, and then all is quiet.
    CHECK(story.removed <= 1);
    CHECK(story.last_shards >= 6);
    CHECK(story.most_shards <= 9);
    CHECK(longest_settling(story, phases) < 600);
  }
}

TEST_CASE("a spike adds shards once at most, and these go again", "[R-E18][R-E9]") {
  for (const auto routing : kRoutings) {
    std::vector<Phase> phases;
    for (int i = 0; i < 12; ++i) {
      phases.push_back(steady(300.0 * i, 600));
      phases.push_back(steady(300.0 * i + 1, 60));
    }
    Simulation simulation(routing, phases, 2);
    simulation.allow_to_settle(150);
    const auto story = simulation.run();
    INFO(to_string(routing) << ": " << story.text());
    // Both edges of a spike are over when the first of them is noticed, so the two changes of direction that they may
    // cost come after it.
    CHECK(reversals_per_load_change(story, phases) <= 2);
    CHECK(story.most_shards <= 4);
    CHECK(story.changes.size() <= 2 * 12);
    CHECK(story.last_shards <= 3);
    CHECK(story.worst_share <= 1);
    CHECK(story.lost == 0);
  }
}

TEST_CASE("a hot range of keys is spread, and then all is quiet", "[R-E18][R-D6]") {
  for (const auto routing : kRoutings) {
    // At first all is even; then half of the traffic goes to an eighth of a shard's slots, and somewhere else later.
    const std::vector<Phase> phases{steady(0, 150), steady(600, 150, hot_range(100, 64, 0.5)),
                                    steady(2100, 150, hot_range(3000, 64, 0.5))};
    Simulation simulation(routing, phases, 4);
    simulation.allow_to_settle(900);
    const auto story = simulation.run();
    INFO(to_string(routing) << ": " << story.text());
    CHECK(reversals_per_load_change(story, phases) <= 1);
    CHECK(story.last_shards <= 8);
    if (routing == Routing::balanced) {
      CHECK(story.worst_share <= 1);
    } else {
      CHECK(story.rebalances > 0);
      CHECK(story.rebalances <= 80);
      CHECK(story.last_rebalance < 2100 + 600);  // quiet for the rest
    }
    CHECK(story.lost == 0);
  }
}

TEST_CASE("zipf keys settle, and no shard has more than its bound", "[R-E18][R-D6]") {
  for (const auto routing : kRoutings) {
    const std::vector<Phase> phases{steady(0, 200, zipf(3, 20'000))};
    Simulation simulation(routing, phases, 2);
    simulation.allow_to_settle(900);
    const auto story = simulation.run();
    INFO(to_string(routing) << ": " << story.text());
    CHECK(reversals_per_load_change(story, phases) <= 1);
    CHECK(longest_settling(story, phases) < 1800);
    CHECK(story.last_shards >= 4);
    CHECK(story.last_shards <= 10);
    if (routing == Routing::balanced) {
      CHECK(story.worst_share <= 1);
      CHECK(story.lost == 0);
    }
  }
}

TEST_CASE("a sink that dies adds no shard, however full the rings are", "[R-E20]") {
  for (const auto routing : kRoutings) {
    for (const auto how : {Sink::failing, Sink::hanging, Sink::gone}) {
      for (const auto mode : {shard::Backpressure::drop_newest(),
                              shard::Backpressure::drop_oldest(), shard::Backpressure::sample(2)}) {
        const std::vector<Phase> phases{steady(0, 100)};
        Simulation simulation(routing, phases, 4, slow_policy(), mode);
        simulation.break_sink(how, 300);
        const auto story = simulation.run(1200);
        INFO(to_string(routing) << ", " << static_cast<int>(how) << ", " << to_string(mode.mode)
                                << ": " << story.text());
        CHECK(story.gone > 80'000);  // it is dead
        for (const auto& change : story.changes) CHECK(change.time < 300);
      }
    }
  }
}

TEST_CASE("a fresh shard is left out of decisions until it is warm", "[R-E10]") {
  for (const auto routing : kRoutings) {
    auto policy = slow_policy();
    policy.warm_up = std::chrono::seconds{60};
    policy.max_step = 1;
    const std::vector<Phase> phases{steady(0, 400)};
    const auto story = Simulation(routing, phases, 1, policy).run(600);
    INFO(to_string(routing) << ": " << story.text());
    // All are overloaded from the first second. After each change the newest is not looked at for a minute: as soon
    // as most of the warm ones say so there may be another, but at the very first there is none that is warm.
    REQUIRE_FALSE(story.changes.empty());
    CHECK(story.changes.front().time >= 63);
    CHECK(story.changes.front().time < 75);
    for (std::size_t i = 1; i < story.changes.size(); ++i) {
      CHECK(story.changes[i].time - story.changes[i - 1].time >= 10);  // and the cooldown holds
    }
  }
}

TEST_CASE("reading metrics, counts and advice all the time changes no decision", "[R-E11]") {
  for (const auto routing : kRoutings) {
    std::vector<Phase> phases;
    for (int half = 0; half < 4; ++half) {
      phases.push_back(steady(400.0 * half, half % 2 == 0 ? 250 : 30, hot_range(70, 64, 0.3)));
    }
    Simulation quiet(routing, phases);
    Simulation observed(routing, phases);
    observed.read_all_the_time();
    const auto expected = quiet.run(1600);
    const auto story = observed.run(1600);
    INFO(to_string(routing) << ": " << expected.text() << "\nobserved: " << story.text());
    CHECK(expected.changes.size() >= 4);
    const bool same = story.log == expected.log;
    CHECK(same);
    CHECK(story.changes == expected.changes);
  }
}
