// The names of all that a host may want to log.

#include <catch2/catch.hpp>
#include <string_view>
#include <vector>

#include "shard/pipeline.hpp"

namespace {

using Names = std::vector<std::string_view>;

/// Those of the values 0, 1, ... up to the first that has none.
template <class Enum>
Names names_of() {
  Names names;
  for (int value = 0; value < 256; ++value) {
    const auto name = to_string(static_cast<Enum>(value));
    if (name == "unknown") break;
    names.push_back(name);
  }
  return names;
}

}  // namespace

TEST_CASE("outcomes and modes are named as they are spelled", "[R-J4]") {
  CHECK(names_of<shard::Outcome>() ==
        Names{"accepted", "dropped_newest", "rejected_full", "rejected_timeout", "sampled_out",
              "rejected_closed", "unrouted", "payload_too_large", "key_too_large", "invalid_json",
              "out_of_memory", "timestamps_exhausted"});
  CHECK(names_of<shard::BackpressureMode>() ==
        Names{"drop_newest", "drop_oldest", "fail_producer", "sample", "block"});
}

TEST_CASE("states, errors and decisions of scaling are named as they are spelled", "[R-E16]") {
  CHECK(names_of<shard::ShardState>() == Names{"provisioning", "active", "draining", "stopped"});
  CHECK(names_of<shard::ScalingError>() == Names{"scaling_disabled", "unknown_shard", "wrong_state",
                                                 "at_max", "at_min", "cooldown", "fenced", "closed",
                                                 "ids_exhausted"});
  CHECK(names_of<shard::Routing>() == Names{"balanced", "keyed"});
  CHECK(names_of<shard::ScalingKind>() == Names{"none", "scale_up", "scale_down"});
  CHECK(names_of<shard::ScalingReason>() == Names{"settled", "overloaded", "underutilised",
                                                  "sink_saturated", "skewed", "recovering",
                                                  "waiting"});
}

TEST_CASE("what a pipeline answers and tells is named as it is spelled") {
  CHECK(names_of<shard::WaitStrategy>() == Names{"park", "spin_then_park", "spin"});
  CHECK(names_of<shard::DeadLetterCause>() ==
        Names{"refused", "attempts_exhausted", "time_exhausted"});
  CHECK(names_of<shard::NoticeKind>() ==
        Names{"scaled_up", "scaled_down", "retrying", "dead_lettered", "recovered", "evicting"});
  CHECK(names_of<shard::FlushStatus>() ==
        Names{"flushed", "timed_out", "would_deadlock", "closed", "adapter_failed"});
  CHECK(names_of<shard::Undelivered>() ==
        Names{"abandoned_queued", "abandoned_batched", "possibly_delivered"});
  CHECK(names_of<shard::HealthState>() == Names{"healthy", "retrying", "stuck", "closed"});
}
