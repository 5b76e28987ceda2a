// An hour of virtual time for each load shape: the mapper and the slot plans drive a model of shards.

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "shard/detail/slot_plan.hpp"
#include "shard/mapper.hpp"
#include "shard/scaling.hpp"

namespace {

namespace slot_plan = shard::detail::slot_plan;
using shard::Mapper;
using shard::Routing;
using shard::ScalingKind;
using shard::ScalingPolicy;
using shard::ShardId;
using shard::ShardMetrics;
using shard::ShardState;
using shard::SinkState;
using shard::Timestamp;
using std::chrono::duration;
using std::chrono::duration_cast;
using std::chrono::nanoseconds;

constexpr std::size_t kSlots = 4096;
constexpr double kTick = 0.1;  // seconds
constexpr double kHour = 3600;
constexpr double kServiceRate = 1000;  // events per second that one shard can deliver
constexpr double kRing = 2000;         // events
constexpr std::size_t kMovesPerTick = 64;

/// How the traffic is spread over the slots; sums up to 1.
using Shape = std::vector<double>;

Shape uniform() { return Shape(kSlots, 1.0 / kSlots); }

/// `part` of the traffic goes to one slot, the rest is uniform.
Shape hot_slot(std::size_t slot, double part) {
  Shape shape(kSlots, (1 - part) / kSlots);
  shape[slot] += part;
  return shape;
}

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

enum class Sink { healthy, failing, hanging, unknown_and_dead };

/// What happened.
struct Story {
  struct Change {
    double time = 0;
    std::size_t shards = 0;
    bool up = false;
  };
  std::vector<Change> changes;
  std::size_t most_shards = 0;
  std::size_t last_shards = 0;
  double worst_share = 0;    ///< the largest share / max(2x fair, hottest slot) after settling
  double largest_share = 0;  ///< relative to the fair one, after settling
  double lost = 0;           ///< events, after settling
  std::size_t rebalances = 0;
  double last_rebalance = 0;

  [[nodiscard]] std::string text() const {
    std::ostringstream out;
    out << "shards:";
    for (const auto& change : changes) out << ' ' << change.shards << "@" << change.time;
    out << "; most " << most_shards << ", at the end " << last_shards << "; share / bound "
        << worst_share << "; share / fair " << largest_share << "; lost " << lost << "; rebalanced "
        << rebalances << " times, last at " << last_rebalance;
    return out.str();
  }
};

class Simulation {
 public:
  Simulation(Routing routing, std::vector<Phase> phases, std::uint64_t seed, std::size_t shards = 1,
             const ScalingPolicy& policy = {})
      : mapper_(policy), routing_(routing), phases_(std::move(phases)), random_(seed) {
    for (std::size_t i = 0; i < shards; ++i) add();
    for (auto& shard : shards_) shard.state = ShardState::active;
    slots_ = slot_plan::even(kSlots, active());
  }

  /// The sink stops to work at this time.
  void break_sink(Sink how, double when) {
    broken_ = how;
    broken_at_ = when;
  }

  /// For how long after a change of the load shares may be uneven and events may be lost.
  void allow_to_settle(double seconds) { settling_ = seconds; }

  Story run() {
    for (std::size_t tick = 0; static_cast<double>(tick) * kTick < kHour; ++tick) {
      now_ = static_cast<double>(tick) * kTick;
      step();
    }
    story_.last_shards = active().size();
    return story_;
  }

 private:
  struct Shard {
    ShardState state = ShardState::provisioning;
    double since = 0;
    double queued = 0;
    double accepted = 0;  ///< in this tick
    double drained = 0;   ///< likewise
  };

  [[nodiscard]] Timestamp timestamp() const {
    return {static_cast<std::uint64_t>(std::llround(now_ * 1e9))};
  }

  [[nodiscard]] std::vector<slot_plan::Member> active() const {
    std::vector<slot_plan::Member> members;
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      if (shards_[i].state == ShardState::active) {
        members.push_back(static_cast<slot_plan::Member>(i));
      }
    }
    return members;
  }

  void add() { shards_.push_back({.since = now_}); }

  void change_slots(slot_plan::Slots slots) {
    slots_ = std::move(slots);
    shares_known_ = false;
    balanced_.clear();
  }

  void step() {
    while (phase_ + 1 < phases_.size() && phases_[phase_ + 1].start <= now_) {
      ++phase_;
      disturbed_at_ = now_;
      shares_known_ = false;
      balanced_.clear();
    }
    activate();
    traffic();
    control();
    observe();
  }

  /// What was provisioned in the last tick takes part from now on.
  void activate() {
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      if (shards_[i].state != ShardState::provisioning) continue;
      if (routing_ == Routing::keyed) {
        change_slots(slot_plan::join(slots_, active(), static_cast<slot_plan::Member>(i)));
      }
      shards_[i].state = ShardState::active;
      shards_[i].since = now_;
    }
  }

  void traffic() {
    if (!shares_known_) {
      shares_.assign(shards_.size(), 0.0);
      for (std::size_t slot = 0; slot < kSlots; ++slot) {
        shares_[slots_[slot]] += phases_[phase_].shape[slot];
      }
      const auto& shape = phases_[phase_].shape;
      hottest_ = *std::max_element(shape.begin(), shape.end());
      shares_known_ = true;
    }
    shares_.resize(shards_.size());
    const bool dead = broken_ != Sink::healthy && now_ >= broken_at_;
    const auto rate = phases_[phase_].rate(now_);
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      auto& shard = shards_[i];
      if (shard.state == ShardState::stopped) continue;
      const auto mean = rate * shares_[i] * kTick;
      const auto arrived = std::max(0.0, mean + std::sqrt(mean) * noise_(random_));
      shard.drained = dead ? 0 : std::min(shard.queued + arrived, kServiceRate * kTick);
      const auto room = kRing - shard.queued + shard.drained;
      shard.accepted = std::min(arrived, room);
      shard.queued += shard.accepted - shard.drained;
      if (now_ >= disturbed_at_ + settling_) story_.lost += arrived - shard.accepted;
      if (shard.state == ShardState::draining && shard.queued <= 0) {
        shard.state = ShardState::stopped;
      }
    }
  }

  [[nodiscard]] std::vector<ShardMetrics> metrics() const {
    std::vector<ShardMetrics> all;
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      const auto& shard = shards_[i];
      if (shard.state == ShardState::stopped) continue;
      all.push_back(
          {.id = ShardId{static_cast<std::uint32_t>(i)},
           .state = shard.state,
           .fill_events = shard.queued / kRing,
           .queued = static_cast<std::uint64_t>(shard.queued),
           .events_per_second = shard.accepted / kTick,
           .drained_per_second = shard.drained / kTick,
           .flush_latency = std::chrono::milliseconds{5},
           .in_state_for = duration_cast<nanoseconds>(duration<double>(now_ - shard.since))});
    }
    return all;
  }

  void control() {
    SinkState sink{.workers = 64, .busy_workers = 2};
    if (now_ >= broken_at_) {
      if (broken_ == Sink::failing) sink.consecutive_failures = 5;
      if (broken_ == Sink::hanging) sink.busy_workers = sink.workers;
      if (broken_ == Sink::unknown_and_dead) sink = {};
    }
    const auto seen = metrics();
    const auto decision = mapper_.evaluate(seen, sink, timestamp());
    if (decision.kind == ScalingKind::scale_up) {
      for (std::size_t i = 0; i < decision.count; ++i) add();
    }
    for (const auto id : decision.shards) {
      shards_[id.value].state = ShardState::draining;
      change_slots(slot_plan::leave(slots_, static_cast<slot_plan::Member>(id.value), active()));
    }
    if (decision.kind != ScalingKind::none) {
      mapper_.note_change(timestamp());
      const bool up = decision.kind == ScalingKind::scale_up;
      const auto shards = active().size() + (up ? decision.count : 0);
      story_.changes.push_back({.time = now_, .shards = shards, .up = up});
      story_.most_shards = std::max(story_.most_shards, shards);
    }
    if (routing_ == Routing::keyed) {
      if (const auto advice = mapper_.rebalance(seen, sink, timestamp())) {
        auto slots = slots_;
        const auto to = static_cast<slot_plan::Member>(advice->to.value);
        const auto moves = slot_plan::hot_moves(slots, phases_[phase_].shape,
                                                static_cast<slot_plan::Member>(advice->from.value),
                                                to, kMovesPerTick);
        mapper_.note_rebalance(timestamp());
        if (!moves.empty()) {
          for (const auto slot : moves) slots[slot] = to;
          change_slots(std::move(slots));
          ++story_.rebalances;
          story_.last_rebalance = now_;
        }
      }
    } else {
      std::vector<double> weights;
      const auto members = active();
      for (const auto& shard : seen) {
        if (shards_[shard.id.value].state == ShardState::active) {
          weights.push_back(mapper_.weight_of(shard));
        }
      }
      if (weights == balanced_) return;  // nothing to move, as the last time
      auto slots =
          slot_plan::balance(slots_, members, weights, kMovesPerTick, phases_[phase_].shape);
      if (slots != slots_) {
        change_slots(std::move(slots));
      } else {
        balanced_ = std::move(weights);
      }
    }
  }

  void observe() {
    if (!story_.changes.empty() && story_.changes.back().time == now_) {
      changed_at_ = now_;
    }
    story_.most_shards = std::max(story_.most_shards, active().size());
    if (now_ < std::max(disturbed_at_, changed_at_) + settling_ || !shares_known_) return;
    const auto members = active();
    const auto fair = 1.0 / static_cast<double>(members.size());
    for (const auto member : members) {
      story_.largest_share = std::max(story_.largest_share, shares_[member] / fair);
      story_.worst_share =
          std::max(story_.worst_share, shares_[member] / std::max(2 * fair, hottest_));
    }
  }

  Mapper mapper_;
  Routing routing_;
  std::vector<Phase> phases_;
  std::mt19937_64 random_;
  std::normal_distribution<double> noise_;
  Sink broken_ = Sink::healthy;
  double broken_at_ = kHour;
  double settling_ = 60;

  double now_ = 0;
  std::size_t phase_ = 0;
  double disturbed_at_ = 0;
  double changed_at_ = 0;
  std::vector<Shard> shards_;
  slot_plan::Slots slots_;
  std::vector<double> shares_;    ///< of the traffic
  double hottest_ = 0;            ///< the share of the hottest slot
  bool shares_known_ = false;     ///< are shares_ those of slots_ and of this phase?
  std::vector<double> balanced_;  ///< weights for which these slots need no move; or empty
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

}  // namespace

TEST_CASE("under a constant load the number of shards settles and stays", "[R-E18][R-E9]") {
  const auto routing = GENERATE(Routing::balanced, Routing::keyed);
  for (const double rate : {50.0, 700.0, 950.0, 3000.0, 9900.0}) {
    const std::vector<Phase> phases{steady(0, rate)};
    Simulation simulation(routing, phases, 1, 4);
    const auto story = simulation.run();
    INFO(to_string(routing) << ", " << rate << " events/s: " << story.text());
    CHECK(reversals_per_load_change(story, phases) <= 1);
    CHECK(longest_settling(story, phases) < 120);
    CHECK(static_cast<double>(story.last_shards) * kServiceRate > rate);  // enough
    CHECK(static_cast<double>(story.last_shards) <=
          std::ceil(rate / (Mapper::kUtilisation * kServiceRate)));
    CHECK(story.worst_share <= 1);
    CHECK(story.lost == 0);
  }
}

TEST_CASE("the number of shards follows a ramp up and down without wavering", "[R-E18]") {
  const auto routing = GENERATE(Routing::balanced, Routing::keyed);
  const std::vector<Phase> phases{
      {.start = 0, .rate = [](double time) { return 100 + 9000 * time / (kHour / 2); }},
      {.start = kHour / 2,
       .rate = [](double time) { return 100 + 9000 * (kHour - time) / (kHour / 2); }}};
  Simulation simulation(routing, phases, 2);
  const auto story = simulation.run();
  INFO(to_string(routing) << ": " << story.text());
  CHECK(reversals_per_load_change(story, phases) <= 1);
  CHECK(story.most_shards >= 10);
  CHECK(story.most_shards <= 16);
  CHECK(story.last_shards == 1);
}

TEST_CASE("a square wave is followed with one change of direction per edge", "[R-E18]") {
  const auto routing = GENERATE(Routing::balanced, Routing::keyed);
  std::vector<Phase> phases;
  for (int half = 0; half < 12; ++half) {
    phases.push_back(steady(half * kHour / 12, half % 2 == 0 ? 300.0 : 6000.0));
  }
  Simulation simulation(routing, phases, 3);
  const auto story = simulation.run();
  INFO(to_string(routing) << ": " << story.text());
  CHECK(reversals_per_load_change(story, phases) <= 1);
  CHECK(longest_settling(story, phases) < 120);
  CHECK(story.most_shards >= 7);
  CHECK(story.most_shards <= 12);
  CHECK(story.worst_share <= 1);
  CHECK(story.lost == 0);
}

TEST_CASE("a square wave faster than the scale-down delay leaves the shards it needs", "[R-E9]") {
  const auto routing = GENERATE(Routing::balanced, Routing::keyed);
  std::vector<Phase> phases;
  for (int half = 0; half < 720; ++half) {
    phases.push_back(steady(half * 5, half % 2 == 0 ? 300.0 : 6000.0));
  }
  Simulation simulation(routing, phases, 4);
  const auto story = simulation.run();
  INFO(to_string(routing) << ": " << story.text());
  CHECK(std::all_of(story.changes.begin(), story.changes.end(),
                    [](const Story::Change& change) { return change.up && change.time < 60; }));
  CHECK(story.most_shards <= 12);
}

TEST_CASE("spikes add shards once each at most, and these go again", "[R-E18][R-E9]") {
  const auto routing = GENERATE(Routing::balanced, Routing::keyed);
  std::vector<Phase> phases{steady(0, 600)};
  for (int spike = 1; spike < 12; ++spike) {
    phases.push_back(steady(spike * 300, 9000));
    phases.push_back(steady(spike * 300 + 2, 600));
  }
  Simulation simulation(routing, phases, 5);
  const auto story = simulation.run();
  INFO(to_string(routing) << ": " << story.text());
  CHECK(reversals_per_load_change(story, phases) <= 1);
  CHECK(longest_settling(story, phases) < 120);
  CHECK(story.last_shards <= 2);
  CHECK(story.worst_share <= 1);
}

TEST_CASE("a hot range of keys is spread over the shards that are there", "[R-E18]") {
  const auto routing = GENERATE(Routing::balanced, Routing::keyed);
  // Half of the traffic in 64 neighbouring slots, which at first all lead to one shard.
  const std::vector<Phase> phases{steady(0, 2400), steady(600, 2400, hot_range(1000, 64, 0.5)),
                                  steady(2100, 2400, hot_range(3000, 64, 0.5))};
  Simulation simulation(routing, phases, 6, 4);
  const auto story = simulation.run();
  INFO(to_string(routing) << ": " << story.text());
  CHECK(reversals_per_load_change(story, phases) <= 1);
  CHECK(longest_settling(story, phases) < 120);
  CHECK(story.most_shards <= 5);
  CHECK(story.worst_share <= 1);
  CHECK(story.lost == 0);
}

TEST_CASE("one key hotter than a shard adds no shards without end", "[R-E18]") {
  const auto routing = GENERATE(Routing::balanced, Routing::keyed);
  const std::vector<Phase> phases{steady(0, 2400), steady(600, 2400, hot_slot(1000, 0.5))};
  Simulation simulation(routing, phases, 7, 4);
  const auto story = simulation.run();
  INFO(to_string(routing) << ": " << story.text());
  CHECK(reversals_per_load_change(story, phases) <= 1);
  CHECK(longest_settling(story, phases) < 120);
  CHECK(story.most_shards <= 5);
  CHECK(story.last_rebalance < 660);  // and it is not handed back and forth
  CHECK(story.worst_share <= 1);
}

TEST_CASE("zipf-distributed keys settle", "[R-E18]") {
  const auto routing = GENERATE(Routing::balanced, Routing::keyed);
  for (const std::uint64_t seed : {1U, 2U}) {
    const std::vector<Phase> phases{steady(0, 5000, zipf(seed, 10'000))};
    Simulation simulation(routing, phases, seed);
    const auto story = simulation.run();
    INFO(to_string(routing) << ", seed " << seed << ": " << story.text());
    CHECK(reversals_per_load_change(story, phases) <= 1);
    CHECK(longest_settling(story, phases) < 120);
    CHECK(story.most_shards <= 12);
    CHECK(story.lost == 0);
    if (routing == Routing::balanced) CHECK(story.worst_share <= 1);
  }
}

TEST_CASE("a sink that dies adds no shards", "[R-E20]") {
  const auto routing = GENERATE(Routing::balanced, Routing::keyed);
  for (const auto how : {Sink::failing, Sink::hanging, Sink::unknown_and_dead}) {
    Simulation simulation(routing, {steady(0, 3000)}, 8, 4);
    simulation.break_sink(how, 300);
    const auto story = simulation.run();
    INFO(to_string(routing) << ", " << static_cast<int>(how) << ": " << story.text());
    CHECK(std::all_of(story.changes.begin(), story.changes.end(),
                      [](const Story::Change& change) { return change.time < 300; }));
    CHECK(story.last_shards <= 5);
  }
}

TEST_CASE("a sink that is dead from the start adds no shards", "[R-E20]") {
  const auto routing = GENERATE(Routing::balanced, Routing::keyed);
  for (const auto how : {Sink::failing, Sink::hanging, Sink::unknown_and_dead}) {
    Simulation simulation(routing, {steady(0, 3000)}, 9, 4);
    simulation.break_sink(how, 0);
    const auto story = simulation.run();
    INFO(to_string(routing) << ", " << static_cast<int>(how) << ": " << story.text());
    CHECK(story.changes.empty());
  }
}

TEST_CASE("the presets settle as well", "[R-E18]") {
  const auto routing = GENERATE(Routing::balanced, Routing::keyed);
  for (const auto& policy : {ScalingPolicy::high_throughput(), ScalingPolicy::conservative()}) {
    const std::vector<Phase> phases{steady(0, 300), steady(900, 5000), steady(1800, 300)};
    Simulation simulation(routing, phases, 10, 1, policy);
    const auto story = simulation.run();
    INFO(to_string(routing) << ", up to " << policy.max_shards << ": " << story.text());
    CHECK(reversals_per_load_change(story, phases) <= 1);
    CHECK(longest_settling(story, phases) < 600);
    CHECK(story.most_shards >= 6);
    CHECK(story.last_shards == 1);
    CHECK(story.worst_share <= 1);
  }
}
