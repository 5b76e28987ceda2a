// What a window measures of each shard, who is told of it, and which load the slots are taken to have.

#include "shard/detail/scaler.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "shard/detail/manager_core_impl.hpp"
#include "support/elastic.hpp"
#include "support/manual_clock.hpp"

namespace shard::detail {

struct ScalerTestAccess {
  template <class Platform>
  static std::vector<double> slot_load(const Scaler<Platform>& scaler,
                                       const RoutingTable<Platform>& table) {
    const LockGuard lock(scaler.mutex_);
    return scaler.slot_load(table);
  }
};

}  // namespace shard::detail

namespace {

using shard::Outcome;
using shard::Routing;
using shard::ScalingError;
using shard::ShardId;
using shard::ShardMetrics;
using shard::ShardState;
using shard_test::elastic_options;
using shard_test::ManualClock;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using Core = shard::detail::ManagerCore<shard::detail::SystemPlatform>;
using ShardCore = Core::Core;

constexpr auto kAll = std::numeric_limits<std::size_t>::max();

/// Shards whose windows of two seconds end when the test says so.
struct Measured {
  /// Hurried: whatever is to be done is done at once, but for a cooldown of five windows.
  enum class Pace : std::uint8_t { by_hand, hurried };

  static shard::ManagerOptions options(std::size_t shards, Pace pace, const ManualClock& clock) {
    auto options = elastic_options(Routing::keyed, shards, 1, 4, &clock);
    auto& policy = *options.scaling;
    policy.metrics_window = seconds{2};
    if (pace == Pace::hurried) {
      policy.auto_scale = true;
      policy.cooldown = seconds{10};
      policy.warm_up = policy.scale_up_delay = policy.scale_down_delay = nanoseconds{0};
    }
    return options;
  }
  explicit Measured(std::size_t shards, Pace pace = Pace::by_hand)
      : core(options(shards, pace, clock)) {
    window();
  }

  [[nodiscard]] ShardCore& of(std::uint32_t id) const { return *core.find(ShardId{id}); }
  [[nodiscard]] std::vector<std::uint32_t> slots_of(std::uint32_t id) const {
    const auto table = core.topology.tables.peek();
    const auto member = table->index_of(ShardId{id});
    std::vector<std::uint32_t> slots;
    for (std::uint32_t slot = 0; slot < table->slots.size(); ++slot) {
      if (table->slots[slot] == member) slots.push_back(slot);
    }
    return slots;
  }
  void push(std::uint32_t id, std::size_t events) {
    const auto slot = slots_of(id).front();
    for (std::size_t i = 0; i < events; ++i) {
      REQUIRE(core.admit({"x", {}, {}}, slot, core.topology.tables.cached()) == Outcome::accepted);
    }
  }
  std::size_t pop(std::uint32_t id, std::size_t events) const {
    shard::EventBatch batch;
    return of(id).pop(batch, events, kAll);
  }
  /// What the shards are like at the end of a window that ends now.
  std::vector<ShardMetrics> window() {
    clock.advance(2'000'000'000);
    REQUIRE(core.scaler.evaluate({}, true).fresh);
    return core.scaler.metrics();
  }
  [[nodiscard]] std::vector<double> slot_load() const {
    return shard::detail::ScalerTestAccess::slot_load(core.scaler, *core.topology.tables.peek());
  }

  ManualClock clock;
  Core core;
};

}  // namespace

// ---------------------------------------------------------------------------------- measured

TEST_CASE("a window tells what came to each shard and left it since the last one", "[R-E12]") {
  Measured test(2);
  auto metrics = test.core.scaler.metrics();
  REQUIRE(metrics.size() == 2);
  for (const auto& shard : metrics) {
    CHECK(shard.state == ShardState::active);
    CHECK(shard.events_per_second == 0);
    CHECK(shard.drained_per_second == 0);
    CHECK(shard.in_state_for == nanoseconds{0});  // it was not known before
    CHECK(shard.queue_age == nanoseconds{0});
    CHECK_FALSE(shard.delivering);
    CHECK(shard.slot_share == 0.5);
  }
  test.push(0, 7);
  REQUIRE(test.pop(0, 3) == 3);
  metrics = test.window();
  REQUIRE(metrics.size() == 2);
  CHECK(metrics[0].id == ShardId{0});
  CHECK(metrics[0].queued == 4);
  CHECK(metrics[0].fill_events == 4.0 / static_cast<double>(test.of(0).usable_capacity()));
  CHECK(metrics[0].fill_bytes > 0);
  CHECK(metrics[0].fill_bytes == test.of(0).fill_of_bytes());
  CHECK(metrics[0].events_per_second == 3.5);
  CHECK(metrics[0].drained_per_second == 1.5);
  const nanoseconds later{3};  // no two events of a shard have the same time, and three went ahead
  CHECK(metrics[0].queue_age == seconds{2} - later);
  CHECK(metrics[0].in_state_for == seconds{2});
  CHECK(metrics[1].id == ShardId{1});
  CHECK(metrics[1].queued == 0);
  CHECK(metrics[1].events_per_second == 0);
  CHECK(metrics[1].fill_bytes == 0);
  CHECK(metrics[1].queue_age == nanoseconds{0});

  metrics = test.window();
  CHECK(metrics[0].queued == 4);
  CHECK(metrics[0].events_per_second == 0);
  CHECK(metrics[0].drained_per_second == 0);
  CHECK(metrics[0].queue_age == seconds{4} - later);
  CHECK(metrics[0].in_state_for == seconds{4});
}

TEST_CASE("what comes at the very end of a window has no age", "[R-E12]") {
  Measured test(1);
  test.clock.advance(2'000'000'000);
  test.push(0, 1);
  REQUIRE(test.core.scaler.evaluate({}, true).fresh);
  CHECK(test.core.scaler.metrics()[0].queue_age == nanoseconds{0});
}

TEST_CASE("a shard is known to be in its state since that was seen first", "[R-E10]") {
  Measured test(2);
  test.window();
  test.push(1, 1);  // so that it goes on draining
  REQUIRE(test.core.topology.drain(ShardId{1}));
  auto metrics = test.window();
  CHECK(metrics[0].in_state_for == seconds{4});
  CHECK(metrics[0].slot_share == 1);
  CHECK(metrics[1].state == ShardState::draining);
  CHECK(metrics[1].in_state_for == nanoseconds{0});
  CHECK(metrics[1].slot_share == 0);
  metrics = test.window();
  CHECK(metrics[1].in_state_for == seconds{2});

  const auto added = test.core.topology.add(false);
  REQUIRE(added);
  metrics = test.window();
  REQUIRE(metrics.size() == 3);
  CHECK(metrics[2].id == *added);
  CHECK(metrics[2].state == ShardState::provisioning);
  CHECK(metrics[2].in_state_for == nanoseconds{0});
}

TEST_CASE("a shard whose events are with a sink is delivering until they are settled", "[R-E20]") {
  Measured test(2);
  auto& shard = test.of(0);
  test.push(0, 2);
  shard::EventBatch batch;
  REQUIRE(shard.take(batch, 2, kAll).events == 2);
  CHECK(test.window()[0].delivering);
  CHECK_FALSE(test.core.scaler.metrics()[1].delivering);
  CHECK(test.core.scaler.metrics()[0].drained_per_second == 1);
  REQUIRE(shard.begin_attempt([] {}));
  REQUIRE(shard.settle({.delivered = 2}, false, [] {}));
  CHECK_FALSE(test.window()[0].delivering);
}

TEST_CASE("a batch takes as long as those of the last window that had one", "[R-E14]") {
  Measured test(1);
  auto& shard = test.of(0);
  shard.record_dispatch(10, milliseconds{5});
  shard.record_dispatch(10, milliseconds{15});
  CHECK(test.window()[0].flush_latency == milliseconds{10});
  CHECK(test.window()[0].flush_latency == milliseconds{10});
  shard.record_dispatch(10, milliseconds{2});
  CHECK(test.window()[0].flush_latency == milliseconds{2});
}

// ---------------------------------------------------------------------------------- told

TEST_CASE("a window is new once to whoever acts on it, and to nobody before it ends", "[R-E11]") {
  Measured test(1);
  auto& scaler = test.core.scaler;
  CHECK_FALSE(scaler.evaluate({}, true).fresh);
  test.clock.advance(1'999'999'999);
  CHECK_FALSE(scaler.evaluate({}, true).fresh);
  test.clock.advance(1);
  CHECK(scaler.evaluate({}, false).fresh);  // who only asks takes nothing away
  CHECK_FALSE(scaler.evaluate({}, false).fresh);
  CHECK(scaler.evaluate({}, true).fresh);
  CHECK_FALSE(scaler.evaluate({}, true).fresh);
  test.clock.advance(2'000'000'000);
  CHECK(scaler.evaluate({}, true).fresh);
  CHECK_FALSE(scaler.evaluate({}, true).fresh);
}

TEST_CASE("the cooldown counts from the last change, whoever made it", "[R-E8]") {
  Measured test(2, Measured::Pace::hurried);
  const auto decide = [&] {
    test.clock.advance(2'000'000'000);
    return test.core.scaler.evaluate({}, true).decision;
  };
  CHECK(decide().count == 1);  // two idle shards are one too many
  const auto added = test.core.topology.add(true);
  REQUIRE(added);
  REQUIRE(test.core.topology.activate(*added));
  for (int window = 1; window < 5; ++window) {
    const auto cooling = decide();
    CHECK(cooling.wanted != 0);
    CHECK(cooling.count == 0);
    CHECK(cooling.limit == ScalingError::cooldown);
  }
  CHECK(decide().count != 0);
  REQUIRE(test.core.topology.drain(*added));
  CHECK(decide().limit == ScalingError::cooldown);
}

TEST_CASE(
    "hot slots go from a shard that stays overloaded to a cold one, and then it is given time",
    "[R-D8]") {
  Measured test(2, Measured::Pace::hurried);
  auto& scaler = test.core.scaler;
  test.push(0, 230);
  REQUIRE(test.pop(0, 10) == 10);
  test.window();
  const auto mine = test.slots_of(0);
  const auto moved = scaler.move_slots({});
  REQUIRE(moved.hot);
  CHECK(*moved.hot == shard::Rebalance{.from = ShardId{0}, .to = ShardId{1}});
  CHECK(moved.slots == 0);
  const auto left = test.slots_of(0);
  CHECK(left.size() < mine.size());
  CHECK(mine.size() - left.size() <= 4096 / 32);

  for (int window = 1; window < 5; ++window) {
    test.push(0, 1);
    REQUIRE(test.pop(0, 1) == 1);
    test.window();
    CHECK_FALSE(scaler.move_slots({}).hot);
  }
  CHECK(test.slots_of(0) == left);
  test.push(0, 1);
  REQUIRE(test.pop(0, 1) == 1);
  test.window();
  CHECK(scaler.move_slots({}).hot);
  CHECK(test.slots_of(0).size() < left.size());
}

// ---------------------------------------------------------------------------------- load of slots

TEST_CASE("without samples all slots of a shard share what it takes", "[R-D6]") {
  Measured test(2);
  CHECK(test.slot_load() == std::vector<double>(4096, 0.0));
  test.push(0, 100);
  test.window();
  std::vector<double> expected(4096, 0.0);
  for (const auto slot : test.slots_of(0)) expected[slot] = 50.0 / 2048;
  CHECK(test.slot_load() == expected);
}

TEST_CASE("the load of a slot is its part of the shard's samples", "[R-D6]") {
  Measured test(2);
  const auto mine = test.slots_of(0);
  const auto others = test.slots_of(1);
  const auto sample = [&](std::uint32_t slot) {
    test.of(0).sample({}, ShardCore::Measured::sampled, slot);
  };
  test.push(0, 120);
  test.push(1, 40);
  test.window();
  sample(mine[5]);
  sample(mine[9]);
  sample(mine[5]);
  std::vector<double> expected(4096, 0.0);
  expected[mine[5]] = 40;
  expected[mine[9]] = 20;
  for (const auto slot : others) expected[slot] = 20.0 / 2048;
  CHECK(test.slot_load() == expected);

  // One that leads elsewhere by now says nothing.
  sample(others[3]);
  CHECK(test.slot_load() == expected);
}

TEST_CASE("where all samples are of slots that have gone, those that are there share the load",
          "[R-D6]") {
  Measured test(2);
  test.push(0, 120);
  test.window();
  for (std::size_t i = 0; i < 3; ++i) {
    test.of(0).sample({}, ShardCore::Measured::sampled, test.slots_of(1)[i]);
  }
  std::vector<double> expected(4096, 0.0);
  for (const auto slot : test.slots_of(0)) expected[slot] = 60.0 / 2048;
  CHECK(test.slot_load() == expected);
}

TEST_CASE("a shard that was not measured, or is not active, adds no load", "[R-D6]") {
  Measured test(2);
  test.push(0, 100);
  test.push(1, 100);
  test.window();
  REQUIRE(test.core.topology.drain(ShardId{1}));
  const auto added = test.core.topology.add(false);
  REQUIRE(added);
  REQUIRE(test.core.topology.activate(*added));
  test.of(added->value)
      .sample({}, ShardCore::Measured::sampled, test.slots_of(added->value).front());
  const auto load = test.slot_load();
  std::vector<double> expected(4096, 0.0);
  // Its share is that of the window.
  for (const auto slot : test.slots_of(0)) expected[slot] = 50.0 / 2048;
  CHECK(load == expected);
}
