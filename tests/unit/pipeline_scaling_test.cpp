// Shards that come and go under a pipeline that its host drives: fences between them, and scaling by itself and by an
// operator.

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/pipeline.hpp"
#include "support/pipeline_access.hpp"

namespace {

using shard::Batch;
using shard::Delivery;
using shard::DeliveryContext;
using shard::Key;
using shard::NoticeKind;
using shard::Outcome;
using shard::PipelineOptions;
using shard::Routing;
using shard::ScalingKind;
using shard::ScalingMode;
using shard::ShardId;
using shard::ShardState;
using shard::detail::PipelineTestAccess;
using shard_test::Hosted;
using shard_test::hosted_elastic_options;
using shard_test::hosted_options;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr ShardId kFirst{0};

/// Two shards, or more, whose events have keys.
struct Keyed : Hosted {
  explicit Keyed(const PipelineOptions& options) : Hosted(options) {}

  [[nodiscard]] ShardId shard_of(const std::string& key) const {
    return *pipeline->manager().select_shard_by_hash(pipeline->manager().hash(key));
  }
  /// A key that goes to that shard now.
  [[nodiscard]] std::vector<std::string> keys_of(ShardId id, std::size_t count) const {
    return shard_test::payloads_for(pipeline->manager(), id, count, "k");
  }
  void push(const std::string& key, std::size_t number) {
    REQUIRE(pipeline->ingest(key + ":" + std::to_string(number), Key{key}) == Outcome::accepted);
  }
  /// What came out of one key, in the order in which it was delivered.
  [[nodiscard]] std::vector<std::string> delivered_of(const std::string& key) const {
    std::vector<std::string> texts;
    for (const auto& batch : sink.batches) {
      for (std::size_t i = 0; i < batch.size(); ++i) {
        if (batch.keys[i] == key) texts.push_back(batch.texts[i]);
      }
    }
    return texts;
  }
};

PipelineOptions keyed_options(std::size_t shards) {
  auto options = hosted_elastic_options(Routing::keyed, shards, 1, 4);
  options.batch.max_delay = nanoseconds{0};
  return options;
}

}  // namespace

TEST_CASE("a shard that got a key waits while older events of it wait to be retried elsewhere",
          "[R-D9][R-D15]") {
  Keyed test(keyed_options(1));
  const auto keys = test.keys_of(kFirst, 40);
  for (const auto& key : keys) test.push(key, 0);
  test.sink.answer(Delivery::retry("busy"));
  test.run();
  REQUIRE(test.ledger().delivered == 0);
  REQUIRE(test.pipeline->scale_up(1).added.size() == 1);
  for (const auto& key : keys) test.push(key, 1);
  CHECK(test.run() == 0);
  CHECK(test.sink.batches.size() == 1);
  CHECK(test.pipeline->next_due() > test.now());
  test.advance(milliseconds{100});
  test.run();
  std::set<std::uint32_t> shards;
  for (const auto& batch : test.sink.batches) shards.insert(batch.shard.value);
  CHECK(shards.size() == 2);
  CHECK(test.ledger().delivered == 80);
  test.sink.batches.erase(test.sink.batches.begin());  // that failed
  for (const auto& key : keys) {
    CHECK(test.delivered_of(key) == std::vector<std::string>{key + ":0", key + ":1"});
  }
}

TEST_CASE("a dead letter lets the shard that waits for it go on, after its handler", "[R-D15]") {
  Keyed test(keyed_options(1));
  const auto keys = test.keys_of(kFirst, 8);
  for (const auto& key : keys) test.push(key, 0);
  test.sink.answer(Delivery::retry("busy"));
  test.sink.answer(Delivery::refuse("never"));
  test.run();
  REQUIRE(test.pipeline->scale_up(1).added.size() == 1);
  for (const auto& key : keys) test.push(key, 1);
  test.run();
  test.sink.on_letter = [&](const auto&) { CHECK(test.sink.batches.size() == 2); };
  test.advance(milliseconds{100});
  test.run();
  CHECK(test.sink.letters.size() == 1);
  CHECK(test.ledger().delivered == 8);
}

TEST_CASE("what is popped by hand is not waited for", "[R-D15]") {
  Keyed test(keyed_options(1));
  const auto keys = test.keys_of(kFirst, 8);
  for (const auto& key : keys) test.push(key, 0);
  REQUIRE(test.pipeline->scale_up(1).added.size() == 1);
  for (const auto& key : keys) test.push(key, 1);
  const auto moved = test.pipeline->manager().shard(ShardId{1});
  REQUIRE(moved->len() != 0);
  shard::EventBatch popped;
  CHECK(moved->pop_batch_into(popped) == 0);  // older events of those keys are in the other
  test.pipeline->manager().shard(kFirst)->pop_batch_into(popped);
  test.run();
  CHECK(moved->ledger().delivered == moved->ledger().accepted);
  CHECK(test.ledger().returned + test.ledger().delivered == 16);
}

TEST_CASE("who waits behind fences in a circle is not looked at again and again", "[R-D15]") {
  auto options = hosted_elastic_options(Routing::keyed, 2, 1, 4, 1024);
  options.batch.max_delay = nanoseconds{0};
  Keyed test(options);
  test.sink.otherwise = [](const Batch& batch, const DeliveryContext&) {
    return batch.shard() == ShardId{1} ? Delivery::retry("busy") : Delivery::delivered();
  };
  for (const auto& key : test.keys_of(kFirst, 8)) test.push(key, 0);
  for (const auto& key : test.keys_of(ShardId{1}, 8)) test.push(key, 0);
  test.run();  // shard 1 waits to be retried
  REQUIRE(test.pipeline->scale_up(1).added.size() == 1);
  for (const auto& key : test.keys_of(ShardId{2}, 30)) test.push(key, 1);
  const auto moved = test.keys_of(ShardId{2}, 30);
  test.run();  // shard 2 waits for shard 1
  REQUIRE(test.pipeline->manager().drain_shard(ShardId{2}));
  for (const auto& key : moved) {
    if (test.shard_of(key) == kFirst) test.push(key, 2);
  }
  test.run();  // shard 0 waits for shard 2; and shard 1 will, too
  std::size_t passes = 0;
  const auto end = test.now().after(milliseconds{50});
  while (test.now() < end && ++passes < 10'000) {
    test.clock.set(std::min(end, test.pipeline->next_due()).nanoseconds);
    test.pipeline->run_once();
  }
  CHECK(passes < 10);  // kLookAgain: every 50 us
  test.sink.always(Delivery::delivered());
}

TEST_CASE("an eviction lets the shard that waits for the evicted events go on", "[R-D15]") {
  auto options = hosted_elastic_options(Routing::keyed, 1, 1, 2, 16);
  options.manager.backpressure = shard::Backpressure::drop_oldest();
  options.batch.min_events = options.batch.max_events = 1;
  options.batch.max_delay = nanoseconds{0};
  Keyed test(options);
  for (const auto& key : test.keys_of(kFirst, 3)) test.push(key, 0);
  REQUIRE(test.pipeline->scale_up(1).added.size() == 1);
  for (const auto& key : test.keys_of(ShardId{1}, 2)) test.push(key, 0);  // behind those three
  REQUIRE(test.pipeline->manager().drain_shard(ShardId{1}));
  CHECK(test.pipeline->run_once() == 1);                               // one of the three
  for (const auto& key : test.keys_of(kFirst, 15)) test.push(key, 1);  // behind those two
  REQUIRE(test.ledger().evicted == 2);
  for (int i = 0; i < 20; ++i) {
    test.run();
    test.advance(milliseconds{100});
  }
  CHECK(test.ledger().queued == 0);
  CHECK(test.ledger().delivered == 18);
}

TEST_CASE("popping under the locks lets the shard that waits for the popped events go on",
          "[R-D15]") {
  auto options = hosted_elastic_options(Routing::keyed, 1, 1, 2, 16);
  options.batch.min_events = options.batch.max_events = 1;
  options.batch.max_delay = nanoseconds{0};
  Keyed test(options);
  for (const auto& key : test.keys_of(kFirst, 3)) test.push(key, 0);
  REQUIRE(test.pipeline->scale_up(1).added.size() == 1);
  for (const auto& key : test.keys_of(ShardId{1}, 2)) test.push(key, 0);
  CHECK(test.pipeline->run_once() == 1);  // now the other one waits
  shard::EventBatch popped;
  REQUIRE(test.pipeline->manager().with_shard(
      kFirst, [&](shard::LockedShard& locked) { CHECK(locked.pop_batch_into(popped, 10) == 2); }));
  CHECK(test.run() == 2);
  CHECK(test.ledger().queued == 0);
}

TEST_CASE("close abandons what is behind a fence that is not passed, and never reorders it",
          "[R-D15][R-I1]") {
  Keyed test(keyed_options(1));
  const auto keys = test.keys_of(kFirst, 8);
  for (const auto& key : keys) test.push(key, 0);
  test.sink.always(Delivery::retry("down"));
  test.run();
  REQUIRE(test.pipeline->scale_up(1).added.size() == 1);
  for (const auto& key : keys) test.push(key, 1);
  const auto moved = static_cast<std::uint64_t>(std::count_if(
      keys.begin(), keys.end(), [&](const auto& key) { return test.shard_of(key) != kFirst; }));
  REQUIRE(moved > 0);
  const auto report = test.pipeline->close(hours{1});
  CHECK(std::all_of(test.sink.batches.begin(), test.sink.batches.end(),
                    [](const auto& batch) { return batch.shard == kFirst; }));
  CHECK(report.ledger.abandoned_batched == 8);
  CHECK(report.ledger.abandoned_queued == 8);
  auto named = shard_test::undelivered_in(report);
  CHECK(named[0].size() == 16 - moved);
  CHECK(named[1].size() == moved);
}

TEST_CASE("flush gets past fences", "[R-D15][R-H1]") {
  auto options = keyed_options(1);
  options.batch.max_delay = seconds{1};
  Keyed test(options);
  const auto keys = test.keys_of(kFirst, 5);
  for (std::size_t round = 0; round < 4; ++round) {
    for (const auto& key : keys) test.push(key, round);
    static_cast<void>(round == 2 ? test.pipeline->scale_down(2) : test.pipeline->scale_up(1));
  }
  for (const auto& key : keys) test.push(key, 4);
  CHECK(test.pipeline->flush(hours{1}));
  for (const auto& key : keys) {
    std::vector<std::string> expected;
    for (int i = 0; i < 5; ++i) expected.push_back(key + ":" + std::to_string(i));
    CHECK(test.delivered_of(key) == expected);
  }
}

TEST_CASE("a drained shard is taken out at the end of a window, and its counts stay",
          "[R-E4][R-E5][R-C6]") {
  auto options = hosted_elastic_options(Routing::balanced, 2, 1, 4);
  options.batch.max_delay = nanoseconds{0};
  Keyed test(options);
  for (const auto& key : test.keys_of(ShardId{1}, 20)) test.push(key, 0);
  REQUIRE(test.pipeline->manager().drain_shard(ShardId{1}));
  const auto handle = test.pipeline->manager().shard(ShardId{1});
  test.sink.answer(Delivery::retry("busy"));
  test.run();
  test.advance(milliseconds{99});
  test.run();
  CHECK(test.pipeline->manager().shard_state(ShardId{1}) == ShardState::draining);
  for (int i = 0; i < 10 && test.pipeline->stats().shards != 1; ++i) {
    test.advance(milliseconds{100});
    test.run();
  }
  CHECK(test.pipeline->stats().shards == 1);
  CHECK(test.ledger().delivered == 20);
  CHECK(test.pipeline->manager().stats().events_dispatched == 20);
  CHECK(test.ledger().balanced());
  CHECK(test.pipeline->stats().latency.count() == 20);
  CHECK_FALSE(test.pipeline->latency(ShardId{1}));
  CHECK(handle->ledger().delivered == 20);
  CHECK(handle->try_push("late") == Outcome::rejected_closed);
}

TEST_CASE("an operator scales within the budget of the policy", "[R-E3][R-E7][R-E16]") {
  Hosted test(hosted_elastic_options(Routing::balanced, 2, 1, 4));
  const auto up = test.pipeline->scale_up(4);
  CHECK(up.added.size() == 2);
  CHECK(up.error == shard::ScalingError::at_max);
  CHECK(test.pipeline->stats().active_shards == 4);
  const auto down = test.pipeline->scale_down(9);
  CHECK(down.draining.size() == 3);
  CHECK(test.pipeline->stats().active_shards == 1);
  CHECK(test.pipeline->scale_down(1).error == shard::ScalingError::at_min);
  CHECK(test.pipeline->scale_up(0).added.empty());
}

TEST_CASE("without a policy an operator cannot scale, either", "[R-E16]") {
  Hosted test(hosted_options());
  CHECK(test.pipeline->scale_up(1).error == shard::ScalingError::scaling_disabled);
  CHECK(test.pipeline->scale_down(1).error == shard::ScalingError::scaling_disabled);
  CHECK(test.pipeline->stats().shards == 1);
}

TEST_CASE("a request for no shards is none, whether the pipeline scales or not", "[R-E15]") {
  const auto check = [](const shard::ScalingReport& report) {
    CHECK(report.decision == shard::ScalingDecision{});
    CHECK_FALSE(report.error);
  };
  Hosted fixed(hosted_options());
  check(fixed.pipeline->scale_up(0));
  check(fixed.pipeline->scale_down(0));
  Hosted elastic(hosted_elastic_options(Routing::balanced, 2, 1, 4));
  check(elastic.pipeline->scale_up(0));
  check(elastic.pipeline->scale_down(0));
}

TEST_CASE("an operator removes the shards with the least to do") {
  auto options = hosted_elastic_options(Routing::balanced, 3, 1, 4);
  Keyed test(options);
  for (const auto& key : test.keys_of(ShardId{0}, 3)) test.push(key, 0);
  for (const auto& key : test.keys_of(ShardId{2}, 5)) test.push(key, 0);
  const auto report = test.pipeline->scale_down(2);
  CHECK(report.draining == std::vector<ShardId>{{1}, {0}});
  CHECK_FALSE(report.error);
}

namespace {

/// A policy that acts at the first sight.
PipelineOptions eager_options() {
  auto options = hosted_elastic_options(Routing::balanced, 1, 1, 4);
  auto& policy = *options.manager.scaling;
  policy.auto_scale = true;
  policy.warm_up = policy.scale_up_delay = nanoseconds{0};
  policy.push_latency_threshold = nanoseconds{0};
  return options;
}

/// Three windows; some is delivered, but not all that came.
void overload(Hosted& test) {
  test.run();
  for (const std::size_t events : {60U, 8U}) {
    test.advance(milliseconds{100});
    test.push(events);
    test.pipeline->run_once();
  }
}

}  // namespace

TEST_CASE("an overloaded pipeline adds shards by itself and tells the listener") {
  Hosted test(eager_options());
  overload(test);
  CHECK(test.pipeline->stats().active_shards > 1);
  CHECK(test.pipeline->last_decision().kind == ScalingKind::scale_up);
  REQUIRE(test.sink.noticed(NoticeKind::scaled_up) == 1);
  const auto& notice = test.sink.notices.front();
  CHECK_FALSE(notice.shard);
  CHECK(notice.events == test.pipeline->stats().active_shards - 1);
  CHECK(notice.reason.text() == "overloaded");
}

TEST_CASE("an idle pipeline removes shards by itself and tells the listener") {
  auto options = eager_options();
  options.manager.shards = 3;
  options.manager.scaling->scale_down_delay = nanoseconds{0};
  Hosted test(options);
  std::uint64_t removed = 0;
  for (int i = 0; i < 10; ++i) {
    test.run();
    test.advance(milliseconds{100});
  }
  for (const auto& notice : test.sink.notices) {
    CHECK(notice.kind == NoticeKind::scaled_down);
    CHECK_FALSE(notice.shard);
    CHECK(notice.reason.text() == "underutilised");
    removed += notice.events;
  }
  CHECK(removed == 2);
  CHECK(test.pipeline->stats().shards == 1);
}

TEST_CASE("where it does not scale by itself it still takes drained shards out", "[R-E5]") {
  const auto mode = GENERATE(ScalingMode::paused, ScalingMode::dry_run);
  Hosted test(hosted_elastic_options(Routing::balanced, 2, 1, 4));
  test.pipeline->set_scaling_mode(mode);
  test.run();
  REQUIRE(test.pipeline->manager().drain_shard(ShardId{1}));
  test.advance(milliseconds{99});
  test.run();
  CHECK(test.pipeline->stats().shards == 2);
  test.advance(milliseconds{1});
  test.run();
  CHECK(test.pipeline->stats().shards == 1);
}

TEST_CASE("in a dry run it decides and does not act") {
  Hosted test(eager_options());
  test.pipeline->set_scaling_mode(ScalingMode::dry_run);
  overload(test);
  CHECK(test.pipeline->stats().shards == 1);
  CHECK(test.pipeline->last_decision().kind == ScalingKind::scale_up);
  CHECK(test.sink.noticed(NoticeKind::scaled_up) == 0);
}

TEST_CASE("paused it decides nothing, and does so again when it goes on") {
  Hosted test(eager_options());
  test.pipeline->set_scaling_mode(ScalingMode::paused);
  overload(test);
  CHECK(test.pipeline->stats().shards == 1);
  CHECK(test.pipeline->last_decision().kind == ScalingKind::none);
  test.pipeline->set_scaling_mode(ScalingMode::automatic);
  test.advance(milliseconds{100});
  test.push(8);
  test.pipeline->run_once();
  CHECK(test.pipeline->stats().shards > 1);
}

TEST_CASE("an adapter that is down adds no shards", "[R-E20]") {
  Hosted test(eager_options());
  test.sink.always(Delivery::retry("down"));
  test.push(8);
  test.run();
  test.push(60);
  for (int i = 0; i < 50; ++i) {
    test.advance(milliseconds{100});
    test.run();
  }
  CHECK(test.pipeline->stats().shards == 1);
}

TEST_CASE("how long a delivery takes reaches the metrics", "[R-E14]") {
  Hosted test(hosted_elastic_options(Routing::balanced, 1, 1, 2));
  test.sink.otherwise = [&](const Batch&, const DeliveryContext&) {
    test.advance(milliseconds{3});
    return Delivery::delivered();
  };
  test.run();
  test.push(16);
  test.run();
  test.advance(milliseconds{100});
  test.run();
  const auto metrics = test.pipeline->manager().collect_metrics();
  REQUIRE(metrics.size() == 1);
  CHECK(metrics[0].flush_latency == milliseconds{3});
  CHECK(metrics[0].drained_per_second > 0);
}

// ---------------------------------------------------------------------------------- when there is nothing to do

TEST_CASE("the controller rests when nothing is going on and nothing can be changed", "[R-G7]") {
  auto options = hosted_elastic_options(Routing::balanced, 1, 1, 4);
  Hosted test(options);
  shard::ScalingReport report;
  report.measured = true;
  const auto rests = [&] { return PipelineTestAccess::is_settled(*test.pipeline, report); };
  CHECK(rests());

  SECTION("not while something was done") {
    auto changed = report;
    const auto rests_after = [&](const auto& change) {
      report = changed;
      change();
      return rests();
    };
    CHECK(rests_after([] {}));
    CHECK_FALSE(rests_after([&] { report.measured = false; }));
    CHECK_FALSE(rests_after([&] { report.decision.kind = ScalingKind::scale_up; }));
    CHECK_FALSE(rests_after([&] { report.removed = 1; }));
    CHECK_FALSE(rests_after([&] { report.slots_moved = 1; }));
    CHECK_FALSE(rests_after([&] { report.rebalanced.emplace(); }));
    CHECK(rests_after([] {}));
  }
  SECTION("not while events come, are queued or are under way") {
    test.sink.answer(Delivery::retry("busy"));
    test.push(8);
    CHECK_FALSE(rests());
    CHECK_FALSE(rests());  // queued
    test.run();
    REQUIRE(test.ledger().batched == 8);
    CHECK_FALSE(rests());
    test.advance(milliseconds{100});
    test.run();
    REQUIRE(test.ledger().delivered == 8);
    CHECK(rests());
  }
  SECTION("not while a shard is on its way out") {
    REQUIRE(test.pipeline->scale_up(1).added.size() == 1);
    CHECK(rests());
    REQUIRE(test.pipeline->manager().drain_shard(ShardId{1}));
    CHECK_FALSE(rests());
  }
  SECTION("not while there are shards that can be spared") {
    REQUIRE(test.pipeline->scale_up(1).added.size() == 1);
    auto policy = *options.manager.scaling;
    const auto rests_with = [&](bool auto_scale, double underutilised) {
      policy.auto_scale = auto_scale;
      policy.underutilised_threshold = underutilised;
      REQUIRE_FALSE(test.pipeline->manager().set_scaling_policy(policy));
      return rests();
    };
    CHECK(rests_with(false, 0.1));
    CHECK(rests_with(true, 0));
    CHECK_FALSE(rests_with(true, 0.1));
    test.pipeline->set_scaling_mode(ScalingMode::dry_run);
    CHECK_FALSE(rests());
    test.pipeline->set_scaling_mode(ScalingMode::paused);
    CHECK(rests());
    test.pipeline->set_scaling_mode(ScalingMode::automatic);
    policy.min_shards = 2;
    CHECK(rests_with(true, 0.1));
  }
}

TEST_CASE("a window whose callback has thrown is no rest: the next one goes on", "[R-E17][R-G7]") {
  Hosted test(hosted_elastic_options(Routing::balanced, 2, 1, 4));
  test.pipeline->set_scaling_mode(ScalingMode::paused);
  test.pipeline->manager().set_shard_callbacks(
      {.removed = [](ShardId) { throw std::runtime_error("the host's own"); }});
  REQUIRE(test.pipeline->manager().drain_shard(ShardId{1}));
  CHECK_FALSE(PipelineTestAccess::tick(*test.pipeline));
  CHECK(test.pipeline->stats().shards == 1);
  test.advance(milliseconds{100});
  CHECK(PipelineTestAccess::tick(*test.pipeline));
}
