#include "shard/pipeline_options.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "shard/options.hpp"

namespace {

using shard::ConfigError;
using shard::PipelineOptions;
using shard::ScalingPolicy;
using std::chrono::hours;
using std::chrono::nanoseconds;
using std::chrono::seconds;

using Change = std::function<void(PipelineOptions&)>;

/// The place of what is wrong after the change; "-" when nothing is.
std::string refused(const Change& change) {
  PipelineOptions options;
  change(options);
  try {
    options.validate();
  } catch (const ConfigError& error) {
    CHECK_FALSE(error.value().empty());
    CHECK_FALSE(error.bound().empty());
    CHECK(error.what() == error.field() + " = " + error.value() + ": must be " + error.bound());
    return error.field();
  }
  return "-";
}

}  // namespace

TEST_CASE(
    "by default one worker parks while there is nothing to do, and notices come once a second") {
  const PipelineOptions options;
  CHECK(options.workers == 1);
  CHECK(options.wait == shard::WaitStrategy::park);
  CHECK(options.notice_interval == seconds{1});
}

TEST_CASE("the default options of a pipeline are valid, without any handler", "[R-J1]") {
  const PipelineOptions options;
  options.validate();
  CHECK_FALSE(options.dead_letters);
  CHECK_FALSE(options.listener);
}

TEST_CASE("an option of a pipeline is taken up to its bounds and refused beyond them, by name",
          "[R-J1]") {
  struct Case {
    std::string field;
    Change good;
    Change bad;
  };
  const std::vector<Case> cases{
      {"workers", [](auto& o) { o.workers = 0; },
       [](auto& o) { o.workers = std::numeric_limits<std::size_t>::max(); }},
      {"workers", [](auto& o) { o.workers = 256; }, [](auto& o) { o.workers = 257; }},
      {"wait", [](auto& o) { o.wait = shard::WaitStrategy::spin; },
       [](auto& o) { o.wait = static_cast<shard::WaitStrategy>(3); }},
      {"spin_for", [](auto& o) { o.spin_for = nanoseconds{0}; },
       [](auto& o) { o.spin_for = nanoseconds{-1}; }},
      {"spin_for", [](auto& o) { o.spin_for = seconds{1}; },
       [](auto& o) { o.spin_for = seconds{1} + nanoseconds{1}; }},
      {"processors[0]", [](auto& o) { o.processors = {1023}; },
       [](auto& o) { o.processors = {1024}; }},
      {"processors[2]",
       [](auto& o) {
         o.processors = {0, 0, 1};
       },
       [](auto& o) {
         o.processors = {0, 1, std::numeric_limits<unsigned>::max(), 1024};
       }},
      {"attempt_timeout", [](auto& o) { o.attempt_timeout = nanoseconds{1}; },
       [](auto& o) { o.attempt_timeout = nanoseconds{0}; }},
      {"attempt_timeout", [](auto& o) { o.attempt_timeout = nanoseconds::max(); },
       [](auto& o) { o.attempt_timeout = nanoseconds{-1}; }},
      {"close_timeout", [](auto& o) { o.close_timeout = nanoseconds{0}; },
       [](auto& o) { o.close_timeout = nanoseconds{-1}; }},
      {"close_timeout", [](auto& o) { o.close_timeout = hours{1}; },
       [](auto& o) { o.close_timeout = hours{1} + nanoseconds{1}; }},
      {"notice_interval", [](auto& o) { o.notice_interval = nanoseconds{0}; },
       [](auto& o) { o.notice_interval = nanoseconds{-1}; }},
      {"notice_interval", [](auto& o) { o.notice_interval = hours{1}; },
       [](auto& o) { o.notice_interval = hours{1} + nanoseconds{1}; }},
      {"batch.max_delay", [](auto& o) { o.batch.max_delay = nanoseconds{0}; },
       [](auto& o) { o.batch.max_delay = nanoseconds{-1}; }},
      {"retry.jitter", [](auto& o) { o.retry.jitter = 1; },
       [](auto& o) { o.retry.jitter = std::numeric_limits<double>::quiet_NaN(); }},
      {"manager.ring_capacity", [](auto& o) { o.manager.ring_capacity = 2; },
       [](auto& o) { o.manager.ring_capacity = 3; }},
      {"manager.backpressure.rate", [](auto& o) { o.manager.backpressure.rate = 1; },
       [](auto& o) { o.manager.backpressure.rate = 0; }},
      {"manager.routing", [](auto& o) { o.manager.routing = shard::Routing::keyed; },
       [](auto& o) { o.manager.routing = static_cast<shard::Routing>(2); }},
      {"manager.scaling.cooldown",
       [](auto& o) { o.manager.scaling = ScalingPolicy{.cooldown = nanoseconds{0}}; },
       [](auto& o) { o.manager.scaling = ScalingPolicy{.cooldown = nanoseconds{-1}}; }},
      {"manager.scaling.fill_threshold",
       [](auto& o) { o.manager.scaling = ScalingPolicy{.fill_threshold = 1}; },
       [](auto& o) {
         o.manager.scaling =
             ScalingPolicy{.fill_threshold = std::numeric_limits<double>::infinity()};
       }},
  };
  for (const auto& one : cases) {
    INFO(one.field);
    CHECK(refused(one.good) == "-");
    CHECK(refused(one.bad) == one.field);
  }
}

TEST_CASE("the shards of a pipeline lie within its scaling policy", "[R-J2]") {
  const auto with = [](std::size_t shards) {
    return [shards](PipelineOptions& options) {
      options.manager.shards = shards;
      options.manager.scaling = ScalingPolicy{.min_shards = 2, .max_shards = 6};
    };
  };
  CHECK(refused(with(1)) == "manager.shards");
  CHECK(refused(with(2)) == "-");
  CHECK(refused(with(6)) == "-");
  CHECK(refused(with(7)) == "manager.shards");
  CHECK(refused([](auto& options) { options.manager.shards = 1024; }) == "-");
}
