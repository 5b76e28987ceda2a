#include "shard/mapper.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "shard/options.hpp"

namespace {

using namespace std::chrono_literals;
using shard::Grant;
using shard::Mapper;
using shard::Rebalance;
using shard::ScalingDecision;
using shard::ScalingError;
using shard::ScalingKind;
using shard::ScalingPolicy;
using shard::ScalingReason;
using shard::ShardId;
using shard::ShardMetrics;
using shard::ShardState;
using shard::SinkState;
using shard::Timestamp;
using std::chrono::nanoseconds;

constexpr Timestamp at(nanoseconds time) { return Timestamp{}.after(time); }

constexpr SinkState kSink{.workers = 64, .busy_workers = 1};

/// A shard that takes 1000 events per second and can do no more.
ShardMetrics full(std::uint32_t id) {
  return {.id = ShardId{id},
          .fill_events = 0.9,
          .queued = 900,
          .events_per_second = 1000,
          .drained_per_second = 1000,
          .in_state_for = 1h};
}

ShardMetrics idle(std::uint32_t id, double rate = 10) {
  return {
      .id = ShardId{id}, .events_per_second = rate, .drained_per_second = rate, .in_state_for = 1h};
}

/// Neither overloaded nor idle.
ShardMetrics busy(std::uint32_t id) {
  auto shard = full(id);
  shard.fill_events = 0.4;
  shard.queued = 400;
  return shard;
}

std::vector<ShardMetrics> fleet(std::size_t count, ShardMetrics (*make)(std::uint32_t)) {
  std::vector<ShardMetrics> all;
  for (std::uint32_t id = 0; id < count; ++id) all.push_back(make(id));
  return all;
}

ShardMetrics idle_one(std::uint32_t id) { return idle(id); }

/// What it says at the end of a span in which nothing changes, asked in every window.
ScalingDecision after(Mapper& mapper, const std::vector<ShardMetrics>& shards, nanoseconds from,
                      nanoseconds span, const SinkState& sink = kSink) {
  ScalingDecision decision;
  for (auto time = from; time <= from + span; time += mapper.policy().metrics_window) {
    decision = mapper.evaluate(shards, sink, at(time));
  }
  return decision;
}

}  // namespace

TEST_CASE("of a sink, a budget and a decision nothing is known until it is said") {
  CHECK(SinkState{}.workers == 0);
  CHECK(SinkState{}.busy_workers == 0);
  CHECK(SinkState{}.consecutive_failures == 0);
  CHECK(shard::ShardCount{}.active == 0);
  CHECK(shard::ShardCount{}.provisioning == 0);
  CHECK(Grant{} == Grant{.count = 0});
  CHECK(ScalingDecision{} ==
        ScalingDecision{
            .kind = ScalingKind::none, .reason = ScalingReason::settled, .wanted = 0, .count = 0});
  CHECK_FALSE(shard::ScalingReport{}.measured);
}

TEST_CASE("shards are added when most are overloaded for the scale-up delay", "[R-E7]") {
  Mapper mapper({});
  const auto shards = fleet(4, full);
  CHECK(after(mapper, shards, 0s, 200ms).reason == ScalingReason::waiting);
  const auto decision = after(mapper, shards, 300ms, 0s);
  CHECK(decision.kind == ScalingKind::scale_up);
  CHECK(decision.reason == ScalingReason::overloaded);
  CHECK(decision.wanted == 2);  // 4 / 0.7, rounded up, are 6
  CHECK(decision.count == 2);
  CHECK_FALSE(decision.limit);
}

TEST_CASE("a break in the overload starts the scale-up delay anew", "[R-E7]") {
  Mapper mapper({});
  after(mapper, fleet(4, full), 0s, 200ms);
  after(mapper, fleet(4, busy), 300ms, 0s);
  CHECK(after(mapper, fleet(4, full), 400ms, 200ms).reason == ScalingReason::waiting);
  CHECK(after(mapper, fleet(4, full), 700ms, 0s).kind == ScalingKind::scale_up);
}

TEST_CASE("skew, a saturated sink and a recovery start the scale-up delay anew, too",
          "[R-E7][R-E18]") {
  const auto skewed = std::vector{full(0), idle(1), idle(2), idle(3)};
  const SinkState busy_sink{.workers = 2, .busy_workers = 2};
  for (const bool saturated : {false, true}) {
    CAPTURE(saturated);
    Mapper mapper({});
    after(mapper, fleet(4, full), 0s, 200ms);
    const auto broken = saturated ? after(mapper, fleet(4, full), 300ms, 0s, busy_sink)
                                  : after(mapper, skewed, 300ms, 0s);
    CHECK(broken.reason == (saturated ? ScalingReason::sink_saturated : ScalingReason::skewed));
    CHECK(after(mapper, fleet(4, full), 400ms, 200ms).reason == ScalingReason::waiting);
    CHECK(after(mapper, fleet(4, full), 700ms, 0s).kind == ScalingKind::scale_up);
  }
  Mapper mapper({});
  after(mapper, fleet(4, full), 0s, 200ms);
  auto draining = fleet(4, full);
  for (auto& shard : draining) shard.drained_per_second = 2000;
  auto decision = after(mapper, draining, 300ms, 0s);
  auto time = nanoseconds{300ms};
  while (decision.reason == ScalingReason::recovering) {  // until that is forgotten
    time += 100ms;
    decision = after(mapper, fleet(4, full), time, 0s);
    REQUIRE(time < 10s);
  }
  CHECK(time > 300ms);
  CHECK(decision.reason == ScalingReason::waiting);
  CHECK(after(mapper, fleet(4, full), time + 100ms, 200ms).kind == ScalingKind::scale_up);
}

TEST_CASE("a sink that fails and an overload start the scale-down delay anew", "[R-E9]") {
  const SinkState failing{.workers = 64, .consecutive_failures = 1};
  for (const bool fails : {false, true}) {
    CAPTURE(fails);
    ScalingPolicy policy;
    policy.scale_down_delay = 10s;
    Mapper mapper(policy);
    const auto shards = fleet(4, idle_one);
    CHECK(after(mapper, shards, 0s, 9900ms).reason == ScalingReason::waiting);
    const auto broken = fails ? after(mapper, shards, 9950ms, 0s, failing)
                              : after(mapper, {full(0), idle(1), idle(2), idle(3)}, 9950ms, 0s);
    CHECK(broken.reason == (fails ? ScalingReason::settled : ScalingReason::skewed));
    CHECK(after(mapper, shards, 10s, 9900ms).reason == ScalingReason::waiting);
    CHECK(after(mapper, shards, 20s, 0s).kind == ScalingKind::scale_down);
  }
}

TEST_CASE("shards are added for what comes in, where that is more than the full ones would need",
          "[R-E7]") {
  ScalingPolicy policy;
  policy.max_shards = 64;
  policy.max_step = 64;
  Mapper mapper(policy);
  auto shards = fleet(4, full);
  for (auto& shard : shards) shard.events_per_second = 3500;
  // 14,000 of 1000 a shard, each of them used to 70 %: 20.
  CHECK(after(mapper, shards, 0s, 300ms).wanted == 16);
}

TEST_CASE("no more shards are removed than are idle", "[R-E9]") {
  Mapper mapper({});
  after(mapper, fleet(4, full), 0s, 1s);  // shows what a shard can do
  auto quiet = busy(0);
  quiet.fill_events = mapper.policy().underutilised_threshold + 0.01;
  quiet.events_per_second = quiet.drained_per_second = 10;
  std::vector<ShardMetrics> shards{idle(9)};
  for (std::uint32_t id = 0; id < 3; ++id) {
    quiet.id = ShardId{id};
    shards.push_back(quiet);
  }
  const auto decision = after(mapper, shards, 2s, 60s);
  CHECK(decision.wanted == 1);
  CHECK(decision.shards == std::vector{ShardId{9}});
}

TEST_CASE("thresholds count from where they are, but that of idleness", "[R-E10][R-E14]") {
  const ScalingPolicy policy;
  const auto reason = [&](void (*change)(ShardMetrics&, const ScalingPolicy&)) {
    Mapper mapper(policy);
    auto shards = fleet(4, full);
    for (auto& shard : shards) change(shard, policy);
    return after(mapper, shards, 0s, 0s).reason;
  };
  CHECK(reason([](auto& shard, const auto& bounds) {
          shard.fill_events = bounds.fill_threshold;
        }) == ScalingReason::waiting);
  CHECK(reason([](auto& shard, const auto& bounds) { shard.in_state_for = bounds.warm_up; }) ==
        ScalingReason::waiting);
  CHECK(reason([](auto& shard, const auto& bounds) {
          shard.flush_latency = bounds.flush_latency_threshold;
          shard.fill_events = bounds.underutilised_threshold;
        }) == ScalingReason::settled);
}

TEST_CASE("a decision says how many it can give and why not more", "[R-E7][R-E3]") {
  ScalingPolicy policy;
  policy.max_shards = 5;
  Mapper mapper(policy);
  auto decision = after(mapper, fleet(4, full), 0s, 1s);
  CHECK(decision.wanted == 2);
  CHECK(decision.count == 1);
  CHECK(decision.limit == ScalingError::at_max);
  decision = after(mapper, fleet(5, full), 1s, 1s);
  CHECK(decision.kind == ScalingKind::none);
  CHECK(decision.wanted == 3);
  CHECK(decision.count == 0);
  CHECK(decision.limit == ScalingError::at_max);
}

TEST_CASE("a request for exactly what there is room for is granted without a limit",
          "[R-E3][R-E7]") {
  ScalingPolicy policy;
  policy.min_shards = 2;
  policy.max_shards = 5;
  const Mapper mapper(policy);
  CHECK(mapper.grant_add(2, {.active = 2, .provisioning = 1}, at(0s), false) == Grant{.count = 2});
  CHECK(mapper.grant_remove(2, {.active = 4}, at(0s), false) == Grant{.count = 2});
}

TEST_CASE("shards that are being provisioned count as help on its way", "[R-E3]") {
  Mapper mapper({});
  auto shards = fleet(4, full);
  shards.push_back({.id = ShardId{4}, .state = ShardState::provisioning});
  CHECK(after(mapper, shards, 0s, 1s).count == 1);
  shards.push_back({.id = ShardId{5}, .state = ShardState::provisioning});
  CHECK(after(mapper, shards, 1s, 1s) == ScalingDecision{.reason = ScalingReason::recovering});
}

TEST_CASE("no decision adds or removes more than max_step", "[R-E7]") {
  ScalingPolicy policy;
  policy.max_step = 1;
  Mapper mapper(policy);
  CHECK(after(mapper, fleet(8, full), 0s, 1s).count == 1);
}

TEST_CASE("the cooldown gates automatic changes in both directions", "[R-E8]") {
  ScalingPolicy policy;
  policy.cooldown = 1min;
  for (const bool up : {true, false}) {
    Mapper mapper(policy);
    const auto shards = up ? fleet(4, full) : fleet(4, idle_one);
    mapper.note_change(at(1s));
    auto decision = after(mapper, shards, 1s, 59s);
    CHECK(decision.kind == ScalingKind::none);
    CHECK(decision.limit == ScalingError::cooldown);
    CHECK(decision.wanted > 0);
    CHECK(after(mapper, shards, 61s, 0s).count > 0);
  }
}

TEST_CASE("telling of a change twice restarts nothing", "[R-E8]") {
  Mapper mapper({});
  mapper.note_change(at(0s));
  for (auto time = 0ms; time < 1s; time += 100ms) {
    mapper.note_change(at(0s));
    static_cast<void>(mapper.evaluate(fleet(4, full), kSink, at(time)));
  }
  CHECK(after(mapper, fleet(4, full), 1s, 0s).kind == ScalingKind::scale_up);
}

TEST_CASE("force skips the cooldown and never the budget", "[R-E8][R-E3]") {
  Mapper mapper({});  // 1 .. 16
  mapper.note_change(at(0s));
  CHECK(mapper.grant_add(2, {.active = 4}, at(1ms), false) ==
        Grant{.count = 0, .limit = ScalingError::cooldown});
  CHECK(mapper.grant_add(2, {.active = 4}, at(1ms), true) == Grant{.count = 2});
  CHECK(mapper.grant_add(9, {.active = 4, .provisioning = 5}, at(1ms), true) ==
        Grant{.count = 7, .limit = ScalingError::at_max});
  CHECK(mapper.grant_add(1, {.active = 10, .provisioning = 7}, at(5s), true) ==
        Grant{.count = 0, .limit = ScalingError::at_max});
  CHECK(mapper.grant_remove(2, {.active = 4}, at(1ms), false) ==
        Grant{.count = 0, .limit = ScalingError::cooldown});
  CHECK(mapper.grant_remove(4, {.active = 4, .provisioning = 3}, at(1ms), true) ==
        Grant{.count = 3, .limit = ScalingError::at_min});
  CHECK(mapper.grant_remove(1, {}, at(5s), true) ==
        Grant{.count = 0, .limit = ScalingError::at_min});
  CHECK(mapper.grant_add(1, {.active = 4}, at(1s), false) == Grant{.count = 1});
}

TEST_CASE("without shards there is room for all of the budget, and none to remove", "[R-E3]") {
  const Mapper mapper({});
  const auto budget = mapper.policy().max_shards;
  CHECK(mapper.grant_add(budget, {}, at(0s), false) == Grant{.count = budget});
  CHECK(mapper.grant_add(budget + 1, {}, at(0s), false) ==
        Grant{.count = budget, .limit = ScalingError::at_max});
  CHECK(mapper.grant_remove(1, {}, at(0s), false) ==
        Grant{.count = 0, .limit = ScalingError::at_min});
}

TEST_CASE("a request for no shards is granted and changes nothing", "[R-E15]") {
  Mapper mapper({});
  mapper.note_change(at(0s));
  CHECK(mapper.grant_add(0, {.active = 16}, at(1ms), false) == Grant{});
  CHECK(mapper.grant_remove(0, {.active = 1}, at(1ms), false) == Grant{});
  CHECK(mapper.grant_add(1, {.active = 1}, at(1s), false) == Grant{.count = 1});
}

TEST_CASE("only shards that are too many for the whole delay are removed", "[R-E9]") {
  Mapper mapper({});
  const auto shards = fleet(4, idle_one);
  CHECK(after(mapper, shards, 0s, 9900ms).reason == ScalingReason::waiting);
  after(mapper, fleet(4, busy), 9950ms, 0s);  // one look at work, and it begins anew
  CHECK(after(mapper, shards, 10s, 9900ms).kind == ScalingKind::none);
  const auto decision = after(mapper, shards, 20s, 0s);
  CHECK(decision.kind == ScalingKind::scale_down);
  CHECK(decision.reason == ScalingReason::underutilised);
  CHECK(decision.count == 1);  // nobody knows yet what one shard can do
  CHECK(decision.shards == std::vector{ShardId{3}});
}

TEST_CASE("the shards to remove are those with the least to do, then the newest", "[R-E9]") {
  Mapper mapper({});
  auto shards = fleet(4, idle_one);
  shards[1].events_per_second = 5;
  CHECK(after(mapper, shards, 0s, 10s).shards == std::vector{ShardId{1}});
  shards[2].events_per_second = 5;
  CHECK(after(mapper, shards, 11s, 0s).shards == std::vector{ShardId{2}});
  shards[2].queued = 1;
  CHECK(after(mapper, shards, 12s, 0s).shards == std::vector{ShardId{1}});
}

TEST_CASE("shards are never fewer than min_shards", "[R-E3]") {
  ScalingPolicy policy;
  policy.min_shards = 3;
  Mapper mapper(policy);
  CHECK(after(mapper, fleet(4, idle_one), 0s, 20s).count == 1);
  mapper.note_change(at(20s));
  CHECK(after(mapper, fleet(3, idle_one), 20s, 60s).kind == ScalingKind::none);
}

TEST_CASE("what was needed once at this load is not taken away again", "[R-E18]") {
  Mapper mapper({});
  after(mapper, fleet(4, full), 0s, 5s);
  CHECK(mapper.capacity() == Approx(1000));
  mapper.note_change(at(5s));
  std::vector<ShardMetrics> shards;  // the same 4000 events per second on six shards
  for (std::uint32_t id = 0; id < 6; ++id) shards.push_back(idle(id, 4000.0 / 6));
  CHECK(after(mapper, shards, 5s, 60s).kind == ScalingKind::none);
  for (auto& shard : shards) shard.events_per_second = shard.drained_per_second = 1300.0 / 6;
  after(mapper, shards, 66s, 10s);  // rates are smoothed
  mapper.note_change(at(76s));
  const auto decision = after(mapper, shards, 76s, 10s);
  CHECK(decision.kind == ScalingKind::scale_down);
  CHECK(decision.count == 4);  // two can do 1300
}

TEST_CASE("as many shards are removed as were too many all the time", "[R-E9]") {
  // One can do 1000, of which 700 are asked of it: of six, four are too many for 1300, and two for 2500.
  const double first = GENERATE(1300.0, 2500.0);
  const double second = 1300 + 2500 - first;
  CAPTURE(first, second);
  Mapper mapper({});
  after(mapper, fleet(4, full), 0s, 5s);
  std::vector<ShardMetrics> shards;
  for (std::uint32_t id = 0; id < 6; ++id) shards.push_back(idle(id, first / 6));
  after(mapper, shards, 6s, 10s);  // rates are smoothed
  mapper.note_change(at(16s));
  after(mapper, shards, 16s, 5s);
  for (auto& shard : shards) shard.events_per_second = shard.drained_per_second = second / 6;
  const auto decision = after(mapper, shards, 21100ms, 5s);
  CHECK(decision.kind == ScalingKind::scale_down);
  CHECK(decision.count == 2);
}

TEST_CASE("no shard is removed whose events would not fit well into the others", "[R-E9]") {
  const auto kind = [](double first, double second) {
    Mapper mapper({});
    std::vector<ShardMetrics> shards{busy(0), busy(1), idle(2)};
    shards[0].fill_events = first;
    shards[1].fill_events = second;
    return after(mapper, shards, 0s, 1min).kind;
  };
  CHECK(kind(0.4, 0.3) == ScalingKind::scale_down);  // half of the threshold of two shards
  CHECK(kind(0.4, 0.35) == ScalingKind::none);
  CHECK(kind(0.6, 0.6) == ScalingKind::none);
}

TEST_CASE("a shard is idle below the threshold, not at it", "[R-E9]") {
  Mapper mapper({});
  auto shards = fleet(4, idle_one);
  for (auto& shard : shards) shard.fill_events = mapper.policy().underutilised_threshold;
  CHECK(after(mapper, shards, 0s, 1min).kind == ScalingKind::none);
  shards[1].fill_events = 0.09;
  CHECK(after(mapper, shards, 61s, 1min).shards == std::vector{ShardId{1}});
}

TEST_CASE("rates that are negative or infinite count as none", "[R-D5]") {
  const double rate = GENERATE(-1e9, std::numeric_limits<double>::infinity());
  CAPTURE(rate);
  Mapper mapper({});
  auto shards = fleet(4, full);
  shards[0].events_per_second = shards[0].drained_per_second = rate;
  CHECK(after(mapper, shards, 0s, 1s).reason == ScalingReason::overloaded);
  CHECK(mapper.capacity() == Approx(750));
}

TEST_CASE("a new policy starts the delays anew", "[R-E19]") {
  Mapper mapper({});
  after(mapper, fleet(4, full), 0s, 200ms);
  mapper.set_policy({});
  CHECK(after(mapper, fleet(4, full), 300ms, 200ms).reason == ScalingReason::waiting);
  CHECK(after(mapper, fleet(4, full), 600ms, 0s).kind == ScalingKind::scale_up);
}

TEST_CASE("no shard is removed while one is being provisioned", "[R-E9]") {
  Mapper mapper({});
  auto shards = fleet(4, idle_one);
  shards.push_back({.id = ShardId{4}, .state = ShardState::provisioning});
  CHECK(after(mapper, shards, 0s, 1min).kind == ScalingKind::none);
}

TEST_CASE("what a shard can do is learnt at once, and then over ten windows", "[R-E12]") {
  ScalingPolicy policy;
  policy.metrics_window = 200ms;
  Mapper mapper(policy);
  after(mapper, fleet(4, idle_one), 0s, 0s);
  CHECK(mapper.capacity() == 0);
  auto shards = fleet(4, full);
  after(mapper, shards, 200ms, 0s);
  CHECK(mapper.capacity() == Approx(1000));
  for (auto& shard : shards) shard.drained_per_second = 2000;
  after(mapper, shards, 400ms, 0s);
  CHECK(mapper.capacity() == Approx(1000 + 1000 * (1 - std::exp(-0.1))));
}

TEST_CASE("a shard that does more than was thought possible raises what it can do", "[R-E12]") {
  const double unit = GENERATE(1.0, 1e-4);  // rates below one per second are rates, too
  CAPTURE(unit);
  Mapper mapper({});
  auto shards = fleet(1, full);
  shards[0].events_per_second = shards[0].drained_per_second = 1000 * unit;
  CHECK(after(mapper, shards, 0s, 5s).reason == ScalingReason::overloaded);
  CHECK(mapper.capacity() == Approx(1000 * unit));
  after(mapper, {idle(0, 3000 * unit)}, 5s, 1min);
  CHECK(mapper.capacity() == Approx(3000 * unit));
  after(mapper, {idle(0, 10 * unit)}, 66s, 1min);
  CHECK(mapper.capacity() == Approx(3000 * unit));  // idleness tells nothing
}

TEST_CASE("fresh shards are left out of decisions", "[R-E10]") {
  Mapper mapper({});
  auto shards = fleet(2, full);
  for (auto& shard : shards) shard.in_state_for = 900ms;
  CHECK(after(mapper, shards, 0s, 5s).reason == ScalingReason::settled);
  shards = fleet(4, idle_one);
  shards[3].in_state_for = 900ms;
  CHECK(after(mapper, shards, 5s, 60s).kind == ScalingKind::none);  // wait and see what it does
}

TEST_CASE("shards that are not active are left out of decisions", "[R-E10]") {
  Mapper mapper({});
  auto shards = fleet(5, full);
  for (std::size_t i = 1; i < 5; ++i) {
    shards[i].state = i % 2 == 0 ? ShardState::draining : ShardState::stopped;
  }
  shards[0] = idle(0);
  CHECK(after(mapper, shards, 0s, 60s).kind == ScalingKind::none);
}

TEST_CASE("a dead or saturated sink adds no shards", "[R-E20]") {
  auto shards = fleet(4, full);
  const auto reason = [&](const SinkState& sink) {
    Mapper mapper({});
    return after(mapper, shards, 0s, 1min, sink).reason;
  };
  CHECK(reason({.workers = 2, .busy_workers = 2}) == ScalingReason::sink_saturated);
  CHECK(reason({.workers = 2, .consecutive_failures = 1}) == ScalingReason::sink_saturated);
  CHECK(reason({.workers = 2, .busy_workers = 1}) == ScalingReason::overloaded);
  CHECK(reason({}) == ScalingReason::overloaded);  // a host that pops
  shards[0].delivering = true;
  CHECK(reason({.workers = 2, .busy_workers = 1}) == ScalingReason::overloaded);  // one is free
  shards[1].delivering = true;  // one of them waits to be retried
  CHECK(reason({.workers = 2, .busy_workers = 1}) == ScalingReason::sink_saturated);
  for (auto& shard : shards) shard.drained_per_second = 0;
  CHECK(reason({}) == ScalingReason::sink_saturated);  // a host that does not pop any more
}

TEST_CASE("while the sink fails no shard is removed", "[R-E20]") {
  Mapper mapper({});
  const SinkState failing{.workers = 2, .consecutive_failures = 1};
  CHECK(after(mapper, fleet(4, idle_one), 0s, 1min, failing).kind == ScalingKind::none);
}

TEST_CASE("a backlog that shrinks by itself adds no shards", "[R-E18]") {
  Mapper mapper({});
  auto shards = fleet(4, full);
  for (auto& shard : shards) shard.events_per_second = 800;
  CHECK(after(mapper, shards, 0s, 1min).reason == ScalingReason::recovering);
}

TEST_CASE("a few overloaded shards are a matter of rebalancing", "[R-E18]") {
  Mapper mapper({});
  auto shards = fleet(4, idle_one);
  shards[0] = full(0);
  shards[1] = full(1);
  CHECK(after(mapper, shards, 0s, 1min).reason == ScalingReason::skewed);
}

TEST_CASE("contention alone adds shards, and can be switched off", "[R-E13]") {
  auto shards = fleet(2, idle_one);
  for (auto& shard : shards) shard.push_latency = 6us;
  Mapper mapper({});
  CHECK(after(mapper, shards, 0s, 1s).kind == ScalingKind::scale_up);
  ScalingPolicy policy;
  policy.push_latency_threshold = 0ns;
  mapper = Mapper(policy);
  CHECK(after(mapper, shards, 0s, 1s).kind == ScalingKind::none);
  CHECK(mapper.weight_of(shards[0]) == 1);
  policy.push_latency_threshold = 1ns;  // the least that is not off
  mapper = Mapper(policy);
  for (auto& shard : shards) shard.push_latency = 1ns;
  CHECK(after(mapper, shards, 0s, 1s).kind == ScalingKind::scale_up);
  CHECK(mapper.weight_of(shards[0]) == Approx(1 - (1 - Mapper::kLeastWeight) / 2));
}

TEST_CASE("slow flushes add shards where events pile up, not where the sink keeps up", "[R-E14]") {
  auto shards = fleet(2, idle_one);
  for (auto& shard : shards) shard.flush_latency = 5ms;
  Mapper mapper({});
  CHECK(after(mapper, shards, 0s, 1s).kind == ScalingKind::none);
  for (auto& shard : shards) shard.fill_events = 0.2;
  CHECK(after(mapper, shards, 1s, 1s).kind == ScalingKind::scale_up);
  ScalingPolicy policy;
  policy.flush_latency_threshold = 0ns;
  mapper = Mapper(policy);
  CHECK(after(mapper, shards, 0s, 1s).kind == ScalingKind::none);
}

TEST_CASE("without auto_scale nothing is decided", "[R-E16]") {
  ScalingPolicy policy;
  policy.auto_scale = false;
  Mapper mapper(policy);
  CHECK(after(mapper, fleet(4, full), 0s, 1min) ==
        ScalingDecision{.limit = ScalingError::scaling_disabled});
  CHECK(mapper.grant_add(1, {.active = 4}, at(1min), false) == Grant{.count = 1});
}

TEST_CASE("the policy can be replaced; a wrong one changes nothing", "[R-E19]") {
  Mapper mapper({});
  after(mapper, fleet(4, full), 0s, 1s);
  ScalingPolicy policy;
  policy.max_shards = 4;
  mapper.set_policy(policy);
  CHECK(mapper.policy() == policy);
  CHECK(after(mapper, fleet(4, full), 1s, 1s).limit == ScalingError::at_max);
  auto wrong = policy;
  wrong.min_shards = 5;
  CHECK_THROWS_AS(mapper.set_policy(wrong), shard::ConfigError);
  CHECK_THROWS_AS(Mapper(wrong), shard::ConfigError);
  CHECK(mapper.policy() == policy);
}

TEST_CASE("metrics that are no numbers lead to no decision and no crash", "[R-D5]") {
  constexpr auto kNaN = std::numeric_limits<double>::quiet_NaN();
  constexpr auto kInfinity = std::numeric_limits<double>::infinity();
  for (const double value : {kNaN, kInfinity, -kInfinity, 1e308, -1.0}) {
    INFO(value);
    Mapper mapper({});
    auto shards = fleet(4, idle_one);
    for (auto& shard : shards) {
      shard.events_per_second = shard.drained_per_second = value;
      shard.fill_events = shard.fill_bytes = std::isnan(value) ? value : 0.9;
    }
    const auto decision = after(mapper, shards, 0s, 1min);
    CHECK(decision.count <= 4);
    CHECK(decision.kind != ScalingKind::scale_down);
    CHECK(std::isfinite(mapper.capacity()));
    CHECK_NOTHROW(mapper.rebalance(shards, kSink, at(1min)));
    CHECK(after(mapper, fleet(4, full), 2min, 1min).kind == ScalingKind::scale_up);
  }
  Mapper mapper({});
  CHECK(after(mapper, {}, 0s, 1min).kind == ScalingKind::none);
}

TEST_CASE("time that stands still or goes back does no harm", "[R-E8]") {
  Mapper mapper({});
  mapper.note_change(at(10s));
  const auto shards = fleet(4, full);
  for (int i = 0; i < 100; ++i) {
    CHECK(mapper.evaluate(shards, kSink, at(5s)).kind == ScalingKind::none);
  }
  CHECK(after(mapper, shards, 11s, 1s).kind == ScalingKind::scale_up);
}

TEST_CASE("a weight falls continuously with load and stays within its bounds", "[R-D6]") {
  const Mapper mapper({});
  CHECK(mapper.weight_of({}) == 1);
  CHECK(mapper.weight_of({.fill_events = 1}) == Mapper::kLeastWeight);
  CHECK(mapper.weight_of({.fill_bytes = 1}) == Mapper::kLeastWeight);
  double last = 2;
  for (int i = 0; i <= 1000; ++i) {
    const auto weight = mapper.weight_of({.fill_events = i / 1000.0});
    CHECK(weight < last);
    CHECK(last - weight < (i == 0 ? 1.1 : 0.0011));
    last = weight;
  }
  last = 2;
  for (auto latency = 0ns; latency < 20us; latency += 50ns) {
    const auto weight = mapper.weight_of({.push_latency = latency});
    CHECK(weight < last);
    CHECK(last - weight < (latency == 0ns ? 1.1 : 0.011));
    CHECK(weight > Mapper::kLeastWeight);
    last = weight;
  }
}

TEST_CASE("a weight is finite and positive whatever the metrics say", "[R-D5][R-D6]") {
  const Mapper mapper({});
  const std::vector<double> values{std::numeric_limits<double>::quiet_NaN(),
                                   std::numeric_limits<double>::infinity(),
                                   -std::numeric_limits<double>::infinity(),
                                   -1,
                                   0,
                                   1e308};
  for (const double events : values) {
    for (const double bytes : values) {
      for (const auto latency : {nanoseconds::min(), -1ns, 0ns, nanoseconds::max()}) {
        const auto weight =
            mapper.weight_of({.fill_events = events, .fill_bytes = bytes, .push_latency = latency});
        CHECK(weight >= Mapper::kLeastWeight);
        CHECK(weight <= 1);
      }
    }
  }
  CHECK(mapper.weight_of({.fill_bytes = values[0]}) == Mapper::kLeastWeight);
}

TEST_CASE("hot slots move from the longest wait to the shortest, once it has lasted", "[R-E18]") {
  Mapper mapper({});
  std::vector<ShardMetrics> shards{full(0), full(1), busy(2), idle(3), idle(4, 5)};
  shards[0].fill_events = 1;
  shards[1].drained_per_second = 500;  // 1.8 s to wait instead of 0.9
  for (auto time = 0ms; time < 300ms; time += 100ms) {
    CHECK_FALSE(mapper.rebalance(shards, kSink, at(time)));
  }
  CHECK(mapper.rebalance(shards, kSink, at(300ms)) == Rebalance{ShardId{1}, ShardId{4}});
  mapper.note_rebalance(at(300ms));
  for (auto time = 400ms; time < 1300ms; time += 100ms) {
    CHECK_FALSE(mapper.rebalance(shards, kSink, at(time)));
  }
  CHECK(mapper.rebalance(shards, kSink, at(1300ms)));
}

TEST_CASE("after hot slots have moved, the next move has to last as long", "[R-E18]") {
  ScalingPolicy policy;
  policy.cooldown = 0s;
  Mapper mapper(policy);
  const std::vector<ShardMetrics> shards{full(0), idle(1)};
  static_cast<void>(mapper.rebalance(shards, kSink, at(0s)));
  CHECK(mapper.rebalance(shards, kSink, at(300ms)));
  mapper.note_rebalance(at(300ms));
  CHECK_FALSE(mapper.rebalance(shards, kSink, at(400ms)));
  CHECK_FALSE(mapper.rebalance(shards, kSink, at(600ms)));
  CHECK(mapper.rebalance(shards, kSink, at(700ms)));
}

TEST_CASE("a shard that is hot no longer starts the delay anew", "[R-E18]") {
  Mapper mapper({});
  const std::vector hot{full(0), idle(1)};
  CHECK_FALSE(mapper.rebalance(hot, kSink, at(0s)));
  CHECK_FALSE(mapper.rebalance(fleet(2, idle_one), kSink, at(200ms)));
  CHECK_FALSE(mapper.rebalance(hot, kSink, at(300ms)));
  CHECK_FALSE(mapper.rebalance(hot, kSink, at(500ms)));
  CHECK(mapper.rebalance(hot, kSink, at(600ms)));
}

TEST_CASE("without auto_scale no delay runs", "[R-E16]") {
  ScalingPolicy policy;
  policy.auto_scale = false;
  Mapper mapper(policy);
  const std::vector hot{full(0), idle(1)};
  static_cast<void>(mapper.rebalance(hot, kSink, at(0s)));
  static_cast<void>(mapper.evaluate(hot, kSink, at(100ms)));
  CHECK_FALSE(mapper.rebalance(hot, kSink, at(300ms)));
}

TEST_CASE("of shards that are as hot or as cold the first one is taken, and none that stands still",
          "[R-E18]") {
  const auto moves = [](const std::vector<ShardMetrics>& shards, const SinkState& sink = kSink) {
    Mapper mapper({});
    static_cast<void>(mapper.rebalance(shards, sink, at(0s)));
    return mapper.rebalance(shards, sink, at(300ms));
  };
  CHECK(moves({full(0), full(1), idle(2), idle(3)}) == Rebalance{ShardId{0}, ShardId{2}});
  auto stuck = full(0);
  stuck.drained_per_second = 0;
  CHECK(moves({stuck, full(1), idle(2)}) == Rebalance{ShardId{1}, ShardId{2}});
  CHECK(moves({full(0), idle(1, 999)}) == Rebalance{ShardId{0}, ShardId{1}});
  CHECK_FALSE(moves({full(0), idle(1, 1000)}));  // as much comes in there

  auto delivering = full(0);
  delivering.delivering = true;
  const SinkState two{.workers = 2};
  CHECK(moves({delivering, idle(1), idle(2), idle(3)}, two));
  auto too = idle(1);
  too.delivering = true;
  CHECK_FALSE(moves({delivering, too, idle(2), idle(3)}, two));
}

TEST_CASE("a change of the shards starts the delay of hot slots anew", "[R-E18]") {
  ScalingPolicy policy;
  policy.cooldown = 0s;
  Mapper mapper(policy);
  const std::vector<ShardMetrics> shards{full(0), idle(1)};
  static_cast<void>(mapper.rebalance(shards, kSink, at(0s)));
  mapper.note_change(at(100ms));
  CHECK_FALSE(mapper.rebalance(shards, kSink, at(300ms)));
  CHECK(mapper.rebalance(shards, kSink, at(600ms)));
}

TEST_CASE("no slots move where that would not help", "[R-E20][R-E10]") {
  const auto advised = [](const std::vector<ShardMetrics>& shards, const SinkState& sink = kSink) {
    Mapper mapper({});
    static_cast<void>(mapper.rebalance(shards, sink, at(0s)));
    return mapper.rebalance(shards, sink, at(1s)).has_value();
  };
  std::vector<ShardMetrics> shards{full(0), idle(1)};
  CHECK(advised(shards));
  CHECK_FALSE(advised({full(0), busy(1)}));  // nobody is cold
  auto other = busy(1);
  other.events_per_second = 500;
  CHECK_FALSE(advised({full(0), other}));  // half of the threshold is no longer cold
  other.fill_events = 0.35;
  CHECK_FALSE(advised({full(0), other}));
  other.fill_events = 0.3;
  CHECK(advised({full(0), other}));  // 0.4 s to wait there, less than half of 0.9
  other.queued = 450;
  CHECK_FALSE(advised({full(0), other}));
  CHECK_FALSE(advised({busy(0), idle(1)}));  // nobody is hot
  CHECK_FALSE(advised(shards, {.workers = 1, .busy_workers = 1}));
  CHECK_FALSE(advised(shards, {.workers = 9, .consecutive_failures = 1}));
  shards[1].in_state_for = 1ms;
  CHECK_FALSE(advised(shards));  // too fresh to know
  shards[1] = idle(1);
  shards[0].drained_per_second = 0;
  CHECK_FALSE(advised(shards));  // stuck: a fence would only spread that
  shards[0].drained_per_second = 1100;
  CHECK_FALSE(advised(shards));  // it recovers by itself
}
