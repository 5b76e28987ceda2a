#include "shard/scaling.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "shard/config_json.hpp"
#include "shard/options.hpp"

namespace {

using nlohmann::json;
using shard::ConfigError;
using shard::ScalingPolicy;
using shard::ShardMetrics;
using shard::ShardState;
using std::chrono::nanoseconds;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

using Change = std::function<void(ScalingPolicy&)>;

/// The place of what is wrong after the change; "-" when nothing is.
std::string refused(const Change& change) {
  ScalingPolicy policy;
  change(policy);
  try {
    policy.validate();
  } catch (const ConfigError& error) {
    CHECK_FALSE(error.value().empty());
    CHECK_FALSE(error.bound().empty());
    return error.field();
  }
  return "-";
}

std::string place_of(const char* text) {
  try {
    static_cast<void>(shard::scaling_policy_from_json(json::parse(text)));
  } catch (const ConfigError& error) {
    return error.field();
  }
  return "-";
}

}  // namespace

TEST_CASE("the default policy and the presets are valid and differ", "[R-J1]") {
  const ScalingPolicy standard;
  standard.validate();
  ScalingPolicy::high_throughput().validate();
  ScalingPolicy::conservative().validate();
  CHECK_FALSE(ScalingPolicy::high_throughput() == standard);
  CHECK_FALSE(ScalingPolicy::conservative() == standard);
  CHECK(ScalingPolicy::high_throughput().fill_threshold <
        ScalingPolicy::conservative().fill_threshold);
}

TEST_CASE("one preset grows early and in large steps, the other late and one by one", "[R-J1]") {
  const ScalingPolicy standard;
  const auto early = ScalingPolicy::high_throughput();
  CHECK(early.max_shards > standard.max_shards);
  CHECK(early.fill_threshold < standard.fill_threshold);
  CHECK(early.push_latency_threshold < standard.push_latency_threshold);
  CHECK(early.underutilised_threshold < standard.underutilised_threshold);
  CHECK(early.cooldown < standard.cooldown);
  CHECK(early.scale_up_delay < standard.scale_up_delay);
  CHECK(early.scale_down_delay > standard.scale_down_delay);
  CHECK(early.warm_up < standard.warm_up);
  CHECK(early.max_step > standard.max_step);

  const auto late = ScalingPolicy::conservative();
  CHECK(late.max_shards == 8);
  CHECK(late.fill_threshold > standard.fill_threshold);
  CHECK(late.push_latency_threshold > standard.push_latency_threshold);
  CHECK(late.flush_latency_threshold > standard.flush_latency_threshold);
  CHECK(late.cooldown > standard.cooldown);
  CHECK(late.scale_up_delay > standard.scale_up_delay);
  CHECK(late.scale_down_delay > standard.scale_down_delay);
  CHECK(late.warm_up > standard.warm_up);
  CHECK(late.max_step == 1);
}

TEST_CASE("the presets are these numbers, and the default policy's for the rest", "[R-J1]") {
  using std::chrono::microseconds;
  using std::chrono::milliseconds;
  using std::chrono::seconds;
  CHECK(ScalingPolicy::high_throughput() == ScalingPolicy{.max_shards = 64,
                                                          .fill_threshold = 0.5,
                                                          .push_latency_threshold = microseconds{2},
                                                          .underutilised_threshold = 0.05,
                                                          .cooldown = milliseconds{500},
                                                          .scale_up_delay = milliseconds{100},
                                                          .scale_down_delay = seconds{30},
                                                          .warm_up = milliseconds{500},
                                                          .max_step = 8});
  CHECK(ScalingPolicy::conservative() == ScalingPolicy{.max_shards = 8,
                                                       .fill_threshold = 0.85,
                                                       .push_latency_threshold = microseconds{20},
                                                       .flush_latency_threshold = milliseconds{10},
                                                       .cooldown = seconds{5},
                                                       .scale_up_delay = seconds{2},
                                                       .scale_down_delay = seconds{60},
                                                       .warm_up = seconds{5},
                                                       .max_step = 1});
}

TEST_CASE("metrics in which nothing is set are those of a shard that does nothing", "[R-E12]") {
  const shard::ShardMetrics nothing;
  CHECK(nothing.state == shard::ShardState::active);
  CHECK(nothing.fill() == 0);
  CHECK(nothing.queued == 0);
  CHECK(nothing.events_per_second == 0);
  CHECK(nothing.drained_per_second == 0);
  CHECK(nothing.push_latency.count() == 0);
  CHECK(nothing.flush_latency.count() == 0);
  CHECK(nothing.queue_age.count() == 0);
  CHECK(nothing.in_state_for.count() == 0);
  CHECK_FALSE(nothing.delivering);
  CHECK(nothing.slot_share == 0);
}

TEST_CASE("the default contention threshold is far above the cost of an idle push", "[R-E13]") {
  CHECK(ScalingPolicy{}.push_latency_threshold >= std::chrono::microseconds{1});
}

TEST_CASE("a policy field out of bounds is refused by name", "[R-J1]") {
  struct Case {
    std::string field;
    Change good;
    Change bad;
  };
  const std::vector<Case> cases{
      {"max_shards", [](auto& p) { p.max_shards = 1024; }, [](auto& p) { p.max_shards = 1025; }},
      {"max_shards", [](auto& p) { p.max_shards = 1; }, [](auto& p) { p.max_shards = 0; }},
      {"min_shards", [](auto& p) { p.min_shards = 16; }, [](auto& p) { p.min_shards = 0; }},
      {"fill_threshold", [](auto& p) { p.fill_threshold = 1; },
       [](auto& p) { p.fill_threshold = 1.001; }},
      {"fill_threshold", [](auto& p) { p.fill_threshold = 0.11; },
       [](auto& p) { p.fill_threshold = 0; }},
      {"underutilised_threshold", [](auto& p) { p.underutilised_threshold = 0; },
       [](auto& p) { p.underutilised_threshold = -0.1; }},
      {"max_step", [](auto& p) { p.max_step = 1024; }, [](auto& p) { p.max_step = 1025; }},
      {"max_step", [](auto& p) { p.max_step = 1; }, [](auto& p) { p.max_step = 0; }},
      {"metrics_window", [](auto& p) { p.metrics_window = std::chrono::milliseconds{1}; },
       [](auto& p) { p.metrics_window = nanoseconds{999'999}; }},
      {"metrics_window", [](auto& p) { p.metrics_window = std::chrono::minutes{1}; },
       [](auto& p) { p.metrics_window = std::chrono::minutes{2}; }},
  };
  for (const auto& one : cases) {
    INFO(one.field);
    CHECK(refused(one.good) == "-");
    CHECK(refused(one.bad) == "scaling." + one.field);
  }
  const std::vector<std::pair<std::string, nanoseconds ScalingPolicy::*>> times{
      {"push_latency_threshold", &ScalingPolicy::push_latency_threshold},
      {"flush_latency_threshold", &ScalingPolicy::flush_latency_threshold},
      {"cooldown", &ScalingPolicy::cooldown},
      {"scale_up_delay", &ScalingPolicy::scale_up_delay},
      {"scale_down_delay", &ScalingPolicy::scale_down_delay},
      {"warm_up", &ScalingPolicy::warm_up}};
  for (const auto& [field, member] : times) {
    INFO(field);
    const auto set = [member = member](nanoseconds value) {
      return [member, value](ScalingPolicy& policy) { policy.*member = value; };
    };
    CHECK(refused(set(nanoseconds{0})) == "-");
    CHECK(refused(set(std::chrono::hours{24})) == "-");
    CHECK(refused(set(nanoseconds{-1})) == "scaling." + field);
    CHECK(refused(set(std::chrono::hours{25})) == "scaling." + field);
    CHECK(refused(set(nanoseconds::min())) == "scaling." + field);
  }
}

TEST_CASE("thresholds that are no numbers are refused", "[R-J1]") {
  for (const double value : {kNaN, kInfinity, -kInfinity}) {
    CHECK(refused([value](auto& p) { p.fill_threshold = value; }) == "scaling.fill_threshold");
    CHECK(refused([value](auto& p) { p.underutilised_threshold = value; }) ==
          "scaling.underutilised_threshold");
  }
}

TEST_CASE("policy fields have to fit together", "[R-J2]") {
  CHECK(refused([](auto& p) { p.min_shards = 17; }) == "scaling.min_shards");
  CHECK(refused([](auto& p) { p.underutilised_threshold = p.fill_threshold; }) ==
        "scaling.underutilised_threshold");
  CHECK(refused([](auto& p) { p.min_shards = p.max_shards = 1024; }) == "-");
}

TEST_CASE("a policy can be read from JSON, and reads back the same", "[R-J3]") {
  CHECK(shard::scaling_policy_from_json(json::object()) == ScalingPolicy{});
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    ScalingPolicy policy;
    policy.max_shards = 1 + random() % 1024;
    policy.min_shards = 1 + random() % policy.max_shards;
    policy.auto_scale = random() % 2 == 0;
    policy.fill_threshold = std::uniform_real_distribution<double>{0.1, 1}(random);
    policy.underutilised_threshold = std::uniform_real_distribution<double>{0, 0.1}(random);
    for (auto* time :
         {&policy.push_latency_threshold, &policy.flush_latency_threshold, &policy.cooldown,
          &policy.scale_up_delay, &policy.scale_down_delay, &policy.warm_up}) {
      *time = nanoseconds{static_cast<std::int64_t>(random() % 86'400'000'000'000)};
    }
    policy.metrics_window =
        nanoseconds{static_cast<std::int64_t>(1'000'000 + random() % 1'000'000)};
    policy.max_step = 1 + random() % 1024;
    const auto text = json(policy).dump();
    INFO(text);
    CHECK(shard::scaling_policy_from_json(json::parse(text)) == policy);
  }
}

TEST_CASE("a policy in JSON that is wrong is refused at its place", "[R-J3]") {
  CHECK(place_of("[]") == "/scaling");
  CHECK(place_of(R"({"cooldown": 1})") == "/scaling/cooldown");
  CHECK(place_of(R"({"cooldown_ns": -1})") == "/scaling/cooldown_ns");
  CHECK(place_of(R"({"cooldown_ns": 86400000000001})") == "/scaling/cooldown_ns");
  CHECK(place_of(R"({"auto_scale": 1})") == "/scaling/auto_scale");
  CHECK(place_of(R"({"fill_threshold": "high"})") == "/scaling/fill_threshold");
  CHECK(place_of(R"({"fill_threshold": 2})") == "/scaling/fill_threshold");
  CHECK(place_of(R"({"min_shards": 4, "max_shards": 3})") == "/scaling/min_shards");
  CHECK(place_of(R"({"fill_threshold": 1})") == "-");
  CHECK_THROWS_AS(shard::scaling_policy_from_json(json{{"cooldown_ns", 1.5}}), ConfigError);
  try {
    static_cast<void>(shard::scaling_policy_from_json(json{{"max_step", 0}}, "/shards/0/policy"));
    FAIL("accepted");
  } catch (const ConfigError& error) {
    CHECK(error.field() == "/shards/0/policy/max_step");
  }
}

TEST_CASE("metrics of a shard are written as JSON, whatever the numbers", "[R-E12]") {
  const json written = ShardMetrics{.id = shard::ShardId{7},
                                    .state = ShardState::draining,
                                    .fill_events = 0.25,
                                    .fill_bytes = kNaN,
                                    .queued = 3,
                                    .events_per_second = kInfinity,
                                    .queue_age = std::chrono::microseconds{2}};
  CHECK(written["id"] == 7);
  CHECK(written["state"] == "draining");
  CHECK(written["fill_events"] == 0.25);
  CHECK(written["fill_bytes"].is_null());
  CHECK(written["events_per_second"].is_null());
  CHECK(written["queue_age_ns"] == 2000);
  CHECK(json(ShardState::active) == "active");
}

TEST_CASE("fill is by events or by bytes, whichever is more", "[R-A11]") {
  CHECK(ShardMetrics{.fill_events = 0.2, .fill_bytes = 0.9}.fill() == 0.9);
  CHECK(ShardMetrics{.fill_events = 0.3, .fill_bytes = 0.1}.fill() == 0.3);
}
