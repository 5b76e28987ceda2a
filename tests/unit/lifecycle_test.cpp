#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "shard/detail/check.hpp"
#include "shard/detail/manager_core_impl.hpp"
#include "shard/manager.hpp"
#include "support/books.hpp"
#include "support/elastic.hpp"
#include "support/manual_clock.hpp"
#include "support/misuse_recorder.hpp"
#include "support/topology_access.hpp"

namespace {

using shard::Backpressure;
using shard::EventBatch;
using shard::Key;
using shard::Ledger;
using shard::Manager;
using shard::Outcome;
using shard::Routing;
using shard::ScalingDecision;
using shard::ScalingError;
using shard::ScalingKind;
using shard::ShardId;
using shard::ShardState;
using shard_test::check_agreement;
using shard_test::drain;
using shard_test::elastic_options;
using shard_test::error_of;
using shard_test::kRoutings;
using shard_test::ManualClock;
using shard_test::payloads_for;
using shard_test::texts_of;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::uint64_t ns(std::chrono::nanoseconds time) { return static_cast<std::uint64_t>(time.count()); }

ShardId add(Manager& manager) {
  const auto id = manager.add_shard();
  REQUIRE(id);
  return *id;
}
ShardId add_active(Manager& manager) {
  const auto id = add(manager);
  REQUIRE(manager.activate_shard(id));
  return id;
}

/// A shard in the given state.
ShardId make(Manager& manager, ShardState state) {
  const auto id = add(manager);
  if (state != ShardState::provisioning) REQUIRE(manager.activate_shard(id));
  if (state == ShardState::draining || state == ShardState::stopped) {
    REQUIRE(manager.drain_shard(id));
  }
  if (state == ShardState::stopped) REQUIRE(manager.finalize_draining() == 1);
  REQUIRE(manager.shard_state(id) == state);
  return id;
}

/// All that can be seen of a manager from outside.
struct View {
  std::map<ShardId, ShardState> states;
  Ledger ledger;
  std::vector<ShardId> routes;
  bool operator==(const View&) const = default;

  static View of(const Manager& manager) {
    View view;
    for (const auto id : manager.shard_ids()) view.states[id] = *manager.shard_state(id);
    view.ledger = manager.ledger();
    for (std::uint64_t i = 0; i < 4096; ++i) {
      view.routes.push_back(*manager.select_shard_by_hash(i << 52U));
    }
    return view;
  }
};

/// How many of the table's 4096 slots lead to a shard.
std::size_t slots_of(const Manager& manager, ShardId id) {
  std::size_t slots = 0;
  for (std::uint64_t i = 0; i < 4096; ++i) {
    slots += manager.select_shard_by_hash(i << 52U) == id ? 1U : 0U;
  }
  return slots;
}

}  // namespace

// ---------------------------------------------------------------------------------- states

TEST_CASE("a shard is provisioning, active, draining, stopped and gone, in this order",
          "[R-E1][R-D11]") {
  for (const auto routing : kRoutings) {
    Manager manager(elastic_options(routing, 1, 1, 4));
    check_agreement(manager);
    const auto id = add(manager);
    CHECK(manager.shard_state(id) == ShardState::provisioning);
    check_agreement(manager);
    CHECK(manager.activate_shard(id).value() == id);
    CHECK(manager.shard_state(id) == ShardState::active);
    check_agreement(manager);
    const auto handle = *manager.shard(id);
    REQUIRE(handle.try_push("x") == Outcome::accepted);
    CHECK(manager.drain_shard(id).value() == id);
    CHECK(manager.shard_state(id) == ShardState::draining);
    check_agreement(manager);
    CHECK(manager.finalize_draining() == 0);  // it still holds an event
    CHECK(manager.shard_state(id) == ShardState::draining);
    CHECK(drain(handle).size() == 1);
    CHECK(manager.finalize_draining() == 1);
    CHECK(manager.finalize_draining() == 0);
    CHECK(manager.shard_state(id) == ShardState::stopped);
    check_agreement(manager);
    CHECK(manager.remove_stopped_shards() == 1);
    CHECK(manager.remove_stopped_shards() == 0);
    CHECK_FALSE(manager.shard_state(id));
    CHECK_FALSE(manager.shard(id));
    check_agreement(manager);
  }
}

TEST_CASE("each transition that there is not is refused with its own error and changes nothing",
          "[R-E1][R-E16]") {
  const auto routing = GENERATE(Routing::balanced, Routing::keyed);
  Manager manager(elastic_options(routing, 1, 1, 8));
  EventBatch batch;
  const auto refused = [&](auto call, ScalingError error) {
    const auto before = View::of(manager);
    CHECK(error_of(call()) == error);
    CHECK(View::of(manager) == before);
    CHECK(batch.empty());
  };
  const auto activate = [&](ShardId id) { return [&, id] { return manager.activate_shard(id); }; };
  const auto drain_it = [&](ShardId id) { return [&, id] { return manager.drain_shard(id); }; };
  const auto remove = [&](ShardId id) {
    return [&, id] { return manager.remove_shard(id, batch); };
  };

  const auto provisioning = make(manager, ShardState::provisioning);
  const auto stopped = make(manager, ShardState::stopped);
  const auto draining = make(manager, ShardState::draining);
  refused(drain_it(provisioning), ScalingError::wrong_state);
  refused(activate(draining), ScalingError::wrong_state);
  refused(drain_it(draining), ScalingError::wrong_state);
  refused(activate(stopped), ScalingError::wrong_state);
  refused(drain_it(stopped), ScalingError::wrong_state);
  // The first one is the last one active.
  refused(drain_it(ShardId{0}), ScalingError::at_min);
  refused(remove(ShardId{0}), ScalingError::at_min);
  for (const auto id : {ShardId{100}, ShardId{0xFFFF'FFFF}}) {
    refused(activate(id), ScalingError::unknown_shard);
    refused(drain_it(id), ScalingError::unknown_shard);
    refused(remove(id), ScalingError::unknown_shard);
  }
  // Activating is idempotent, and moves nothing the second time.
  const auto active = make(manager, ShardState::active);
  const auto before = View::of(manager);
  CHECK(manager.activate_shard(active).value() == active);
  CHECK(View::of(manager) == before);
  // A removed one is as unknown as one that never was; each state can be removed.
  for (const auto id : {provisioning, stopped, draining, active}) {
    CHECK(manager.remove_shard(id, batch).value() == id);
    refused(activate(id), ScalingError::unknown_shard);
    refused(drain_it(id), ScalingError::unknown_shard);
    refused(remove(id), ScalingError::unknown_shard);
    check_agreement(manager);
  }
  CHECK(manager.shard_ids() == std::vector{ShardId{0}});
}

TEST_CASE("a provisioning that is rolled back leaves no record", "[R-E1][R-E6]") {
  for (const auto routing : kRoutings) {
    Manager manager(elastic_options(routing, 2, 1, 3));
    for (int i = 0; i < 100; ++i) REQUIRE(manager.ingest(std::to_string(i)) == Outcome::accepted);
    const auto before = View::of(manager);
    for (std::uint32_t i = 0; i < 5; ++i) {
      const auto id = add(manager);
      CHECK(id.value == 2 + i);  // never the same again
      CHECK(error_of(manager.add_shard()) == ScalingError::at_max);
      EventBatch batch;
      CHECK(manager.remove_shard(id, batch));
      CHECK(batch.empty());
      CHECK(View::of(manager) == before);
      CHECK_FALSE(manager.shard(id));
      check_agreement(manager);
    }
  }
}

TEST_CASE("no id is used twice, whatever becomes of the shard", "[R-E6]") {
  Manager manager(elastic_options(Routing::keyed, 2, 1, 4));
  std::set<ShardId> seen{ShardId{0}, ShardId{1}};
  for (int round = 0; round < 50; ++round) {
    for (const auto state : {ShardState::provisioning, ShardState::active, ShardState::draining,
                             ShardState::stopped}) {
      const auto id = make(manager, state);
      CHECK(seen.insert(id).second);
      EventBatch batch;
      REQUIRE(manager.remove_shard(id, batch));
    }
  }
}

TEST_CASE("after the last id there is none, and the manager goes on", "[R-E6][R-E16]") {
  const auto options = elastic_options(Routing::keyed, 1, 1, 4);
  shard::detail::ManagerCore<shard::detail::SystemPlatform> core(options);
  auto& topology = core.topology;
  const std::uint64_t last = std::numeric_limits<std::uint32_t>::max();
  shard::detail::TopologyTestAccess::set_next_id(topology, last);
  CHECK(topology.add(true).value() == ShardId{0xFFFF'FFFF});
  CHECK(error_of(topology.add(true)) == ScalingError::ids_exhausted);
  CHECK(error_of(topology.add(false)) == ScalingError::ids_exhausted);
  CHECK(topology.activate(ShardId{0xFFFF'FFFF}));
  EventBatch batch;
  CHECK(topology.remove(ShardId{0}, batch));
  CHECK(error_of(topology.add(true)) == ScalingError::ids_exhausted);  // ids do not come back
  CHECK(topology.tables.peek()->members.size() == 1);
}

TEST_CASE("a shard can be selected after its activation and not before", "[R-E2][R-D4]") {
  for (const auto routing : kRoutings) {
    Manager manager(elastic_options(routing, 2, 1, 3));
    const auto id = add(manager);
    const auto handle = *manager.shard(id);
    CHECK(slots_of(manager, id) == 0);
    for (int i = 0; i < 200; ++i) REQUIRE(manager.ingest(std::to_string(i)) == Outcome::accepted);
    CHECK(handle.try_push("x") == Outcome::rejected_closed);
    manager.with_shard(
        id, [](auto& locked) { CHECK(locked.try_push("x") == Outcome::rejected_closed); });
    CHECK(handle.is_empty());
    CHECK(handle.ledger() == Ledger{});
    CHECK(manager.own_ledger() == Ledger{.rejected_closed = 2});

    REQUIRE(manager.activate_shard(id));
    CHECK(handle.try_push("x") == Outcome::accepted);
    if (routing == Routing::keyed) {
      CHECK(slots_of(manager, id) == 4096 / 3);
    } else {
      CHECK(slots_of(manager, id) == 0);  // it is ramped up by run_scaling()
      manager.run_scaling();
      CHECK(slots_of(manager, id) == 4096 / 32);
    }
  }
}

// ---------------------------------------------------------------------------------- budget

TEST_CASE("active and provisioning shards stay within the bounds whatever is asked for",
          "[R-E3][R-E16]") {
  for (const auto routing : kRoutings) {
    Manager manager(elastic_options(routing, 2, 2, 4));
    EventBatch batch;
    CHECK(error_of(manager.drain_shard(ShardId{0})) == ScalingError::at_min);
    const auto third = add(manager);
    // One that is provisioning does not count as active.
    CHECK(error_of(manager.drain_shard(ShardId{0})) == ScalingError::at_min);
    CHECK(error_of(manager.remove_shard(ShardId{0}, batch)) == ScalingError::at_min);
    const auto fourth = add(manager);
    CHECK(error_of(manager.add_shard()) == ScalingError::at_max);
    CHECK(error_of(manager.add_shard_force()) == ScalingError::at_max);
    REQUIRE(manager.activate_shard(third));
    CHECK(error_of(manager.add_shard_force()) == ScalingError::at_max);
    // One that is draining counts no more.
    REQUIRE(manager.drain_shard(ShardId{1}));
    const auto fifth = add(manager);
    CHECK(error_of(manager.add_shard_force()) == ScalingError::at_max);
    CHECK(error_of(manager.drain_shard(third)) == ScalingError::at_min);
    REQUIRE(manager.activate_shard(fourth));
    REQUIRE(manager.activate_shard(fifth));
    CHECK(manager.active_shard_ids() == std::vector{ShardId{0}, third, fourth, fifth});
    check_agreement(manager);
  }
}

TEST_CASE("a decision is executed as far as possible and the report says how far and why",
          "[R-E7][R-E3]") {
  Manager manager(elastic_options(Routing::keyed, 2, 1, 5));
  const auto four = manager.execute({.kind = ScalingKind::scale_up, .wanted = 4, .count = 4});
  CHECK(four.added == std::vector{ShardId{2}, ShardId{3}, ShardId{4}});
  CHECK(four.error == ScalingError::at_max);
  CHECK(manager.active_shard_ids().size() == 5);
  check_agreement(manager);

  const auto fewer = manager.execute(
      {.kind = ScalingKind::scale_down,
       .wanted = 6,
       .count = 6,
       .shards = {ShardId{4}, ShardId{77}, ShardId{3}, ShardId{0}, ShardId{1}, ShardId{2}}});
  CHECK(fewer.draining == std::vector{ShardId{4}, ShardId{3}, ShardId{0}, ShardId{1}});
  CHECK(fewer.error == ScalingError::at_min);
  CHECK(manager.active_shard_ids() == std::vector{ShardId{2}});
  check_agreement(manager);

  const auto two = manager.execute({.kind = ScalingKind::scale_up, .wanted = 2, .count = 2});
  CHECK(two.added.size() == 2);
  CHECK_FALSE(two.error);
}

TEST_CASE("a request for nothing does nothing, not even to the cooldown", "[R-E15][R-E8]") {
  ManualClock clock(1);
  auto options = elastic_options(Routing::keyed, 2, 1, 5, &clock);
  options.scaling->cooldown = seconds{1};
  Manager manager(options);
  const auto before = View::of(manager);
  for (const auto kind : {ScalingKind::none, ScalingKind::scale_up, ScalingKind::scale_down}) {
    const auto report = manager.execute({.kind = kind});
    CHECK((report.added.empty() && report.draining.empty() && !report.error));
  }
  CHECK(manager.finalize_draining() == 0);
  CHECK(manager.remove_stopped_shards() == 0);
  CHECK(View::of(manager) == before);
  CHECK(manager.add_shard());  // no cooldown has begun
  clock.advance(ns(milliseconds{600}));
  CHECK(manager.execute({.kind = ScalingKind::scale_up}).added.empty());
  CHECK(manager.activate_shard(ShardId{0}));  // active already: no change either
  CHECK(manager.finalize_draining() == 0);
  clock.advance(ns(milliseconds{400}));
  CHECK(manager.add_shard());  // nor was the one that ran made longer
}

TEST_CASE("the cooldown keeps add_shard away from any change, and force skips only the cooldown",
          "[R-E8][R-E16]") {
  ManualClock clock(1);
  auto options = elastic_options(Routing::keyed, 2, 1, 4, &clock);
  options.scaling->cooldown = seconds{1};
  Manager manager(options);
  EventBatch batch;
  const auto cools_down_for_a_second = [&] {
    CHECK(error_of(manager.add_shard()) == ScalingError::cooldown);
    clock.advance(ns(seconds{1}) - 1);
    const auto before = View::of(manager);
    CHECK(error_of(manager.add_shard()) == ScalingError::cooldown);
    CHECK(View::of(manager) == before);
    clock.advance(1);
  };
  const auto second = add(manager);
  cools_down_for_a_second();
  REQUIRE(manager.activate_shard(second));
  cools_down_for_a_second();
  REQUIRE(manager.drain_shard(second));  // a targeted one
  cools_down_for_a_second();
  REQUIRE(manager.remove_shard(second, batch));
  cools_down_for_a_second();
  const auto third = add(manager);
  const auto fourth = manager.add_shard_force();
  REQUIRE(fourth);
  CHECK(error_of(manager.add_shard_force()) == ScalingError::at_max);
  CHECK(error_of(manager.add_shard()) == ScalingError::at_max);  // says what waiting will not cure
  REQUIRE(manager.remove_shard(third, batch));
  REQUIRE(manager.remove_shard(*fourth, batch));
  // The operator's other calls do not wait.
  REQUIRE(manager.drain_shard(ShardId{1}));
  cools_down_for_a_second();
  CHECK(manager.add_shard());
}

// ---------------------------------------------------------------------------------- removal

TEST_CASE("removing an active shard hands back exactly what was queued, in order",
          "[R-E4][R-C1][R-C6]") {
  for (const auto routing : kRoutings) {
    auto options = elastic_options(routing, 3, 1, 3, nullptr, 1024);
    options.ring_bytes = 1U << 20U;
    options.max_payload = 64U << 10U;
    Manager manager(options);
    const ShardId victim{1};
    std::vector<std::string> expected;
    std::uint64_t offered = 0;
    for (int i = 0; i < 1500; ++i) {
      // Some too long to be copied into the ring.
      const auto payload = std::to_string(i) + std::string(i % 97 == 0 ? 5000 : 0, 'x');
      const auto to = manager.select_shard_by_hash(manager.hash(payload));
      REQUIRE(manager.ingest(payload) == Outcome::accepted);
      ++offered;
      if (to == victim) expected.push_back(payload);
    }
    EventBatch batch;
    REQUIRE(manager.shard(victim)->pop_batch_into(batch, 3) == 3);
    REQUIRE(manager.remove_shard(victim, batch));  // appends
    CHECK(texts_of(batch) == expected);
    for (std::size_t i = 0; i < batch.size(); ++i) CHECK(batch[i].sequence.value == i);
    CHECK(manager.ledger() == Ledger{.accepted = offered,
                                     .returned = expected.size(),
                                     .queued = offered - expected.size()});
    check_agreement(manager);
    for (const auto id : manager.shard_ids()) drain(*manager.shard(id));
    CHECK(manager.ledger() == Ledger{.accepted = offered, .returned = offered});
  }
}

TEST_CASE("producers that knew a removed shard reach another one at once", "[R-E4][R-D12][R-D14]") {
  for (const auto routing : kRoutings) {
    Manager manager(elastic_options(routing, 2, 1, 2));
    auto producer = manager.producer();
    const auto payloads = payloads_for(manager, ShardId{1}, 20);
    REQUIRE(manager.ingest(payloads[0]) == Outcome::accepted);  // caches the table
    const auto handle = *manager.shard(ShardId{1});
    auto [first, second] = std::pair(manager.producer(), manager.producer());
    EventBatch batch;
    REQUIRE(manager.remove_shard(ShardId{1}, batch));
    CHECK(batch.size() == 1);
    for (const auto& payload : payloads) CHECK(manager.ingest(payload) == Outcome::accepted);
    CHECK(producer.ingest("x") == Outcome::accepted);
    CHECK(first.ingest("x") == Outcome::accepted);
    CHECK(second.ingest("x") == Outcome::accepted);
    CHECK(manager.ingest_batch(shard_test::views_of(payloads)) == 20);
    CHECK(manager.own_ledger() == Ledger{});
    CHECK(manager.shard(ShardId{0})->len() == 43);

    // What is offered to the removed one by its handle counts at the manager, not with the shard.
    const auto gone = handle.ledger();
    CHECK(gone == Ledger{.accepted = 1, .returned = 1});
    CHECK(handle.try_push("late") == Outcome::rejected_closed);
    CHECK(handle.try_push("late", Key{"k"}) == Outcome::rejected_closed);
    auto buffer = shard::Buffer::adopt(std::string("mine"));
    CHECK(handle.try_push(std::move(buffer)) == Outcome::rejected_closed);
    CHECK(buffer.bytes() == shard::Bytes{"mine"});
    CHECK(handle.ledger() == gone);
    CHECK(handle.pop_batch().empty());
    CHECK((handle.is_empty() && handle.fill_ratio() == 0));
    handle.record_batch_dispatch(1, milliseconds{1});  // a consumer may be late, too
    CHECK(manager.own_ledger() == Ledger{.rejected_closed = 3});
    CHECK(manager.ledger() ==
          Ledger{.accepted = 44, .rejected_closed = 3, .returned = 1, .queued = 43});
    check_agreement(manager);
  }
}

TEST_CASE("every count of a shard stays in the totals when it is removed", "[R-C6][R-C7]") {
  const std::array modes{Backpressure::drop_newest(), Backpressure::drop_oldest(),
                         Backpressure::fail_producer(), Backpressure::sample(3),
                         Backpressure::block(std::chrono::nanoseconds{0})};
  const auto mode = GENERATE_COPY(from_range(modes));
  for (const auto routing : kRoutings) {
    auto options = elastic_options(routing, 3, 1, 3, nullptr, 8);
    options.backpressure = mode;
    Manager manager(options);
    shard_test::Tally tally;
    const auto offer = [&](int round) {
      for (int i = 0; i < 100; ++i) {
        tally.saw(manager.ingest(std::to_string(round) + "-" + std::to_string(i)));
        tally.saw(manager.shard(manager.shard_ids().front())->try_push("x"));
      }
      tally.saw(manager.ingest(std::string(3000, 'x')));  // invalid
    };
    std::uint64_t returned = 0;
    EventBatch batch;
    offer(0);
    for (const auto id : {ShardId{2}, ShardId{0}}) {
      const auto before = manager.ledger();
      const auto queued = manager.shard(id)->len();
      REQUIRE(queued > 0);
      batch.clear();
      auto removed = manager.remove_shard(id, batch);
      if (!removed) {  // keyed: what the first one left behind has to go first
        CHECK(removed.error() == ScalingError::fenced);
        returned += drain(*manager.shard(ShardId{1})).size();
        removed = manager.remove_shard(id, batch);
      }
      CHECK(removed);
      returned += batch.size();
      auto after = before;
      after.returned = returned;
      after.queued = manager.total_pending_in_rings();
      CHECK(manager.ledger() == after);  // no other count has moved
      check_agreement(manager);
      offer(static_cast<int>(id.value) + 1);
    }
    const auto total = manager.ledger();
    CHECK(total == tally.ledger({.evicted = total.evicted, .returned = returned}));
    CHECK(total.offered() == 603);
    const bool some = total.dropped_newest + total.sampled_out + total.rejected_full +
                          total.rejected_timeout + total.evicted >
                      0;
    CHECK(some);
  }
}

// ---------------------------------------------------------------------------------- draining

TEST_CASE("a draining shard finishes when it has been emptied, and no push keeps it",
          "[R-E5][R-C1]") {
  for (const auto routing : kRoutings) {
    Manager manager(elastic_options(routing, 2, 1, 2));
    for (int i = 0; i < 300; ++i) REQUIRE(manager.ingest(std::to_string(i)) == Outcome::accepted);
    const auto handle = *manager.shard(ShardId{1});
    const auto queued = handle.len();
    REQUIRE(queued > 100);
    REQUIRE(manager.drain_shard(ShardId{1}));
    EventBatch batch;
    for (std::size_t popped = 0; popped < queued; ++popped) {
      CHECK(manager.finalize_draining() == 0);
      CHECK(handle.try_push("straggler") == Outcome::rejected_closed);
      REQUIRE(handle.try_pop(batch));
    }
    CHECK(handle.try_push("straggler") == Outcome::rejected_closed);
    CHECK(manager.finalize_draining() == 1);
    CHECK(manager.remove_stopped_shards() == 1);
    CHECK(manager.ledger().returned == queued);
    check_agreement(manager);
  }
}

TEST_CASE("run_scaling takes drained shards out, without anybody asking for it", "[R-E5]") {
  ManualClock clock(1);
  Manager manager(elastic_options(Routing::keyed, 3, 1, 3, &clock));
  REQUIRE(manager.drain_shard(ShardId{1}));
  REQUIRE(manager.shard(ShardId{2})->try_push("x") == Outcome::accepted);
  REQUIRE(manager.drain_shard(ShardId{2}));
  CHECK(manager.run_scaling().removed == 1);
  CHECK(manager.run_scaling().removed == 0);  // the window lasts
  CHECK(drain(*manager.shard(ShardId{2})).size() == 1);
  clock.advance(ns(milliseconds{100}));
  CHECK(manager.run_scaling().removed == 1);
  CHECK(manager.shard_ids() == std::vector{ShardId{0}});
}

TEST_CASE("fences that are due are passed although nobody pops the shards that have them",
          "[R-E5][R-D15]") {
  // Shard 0 holds one event; its slots go to 1, those of 1 to 2, ...: a chain of fences, each in a shard that is empty
  // otherwise and that nobody looks at.
  Manager manager(elastic_options(Routing::keyed, 1, 1, 2));
  const auto first = *manager.shard(ShardId{0});
  REQUIRE(manager.ingest("oldest") == Outcome::accepted);
  std::vector<ShardId> chain;
  for (int i = 0; i < 20; ++i) {
    const auto next = add_active(manager);
    REQUIRE(manager.drain_shard(chain.empty() ? ShardId{0} : chain.back()));
    chain.push_back(next);
  }
  REQUIRE(manager.ingest("newest") == Outcome::accepted);
  const auto last = *manager.shard(chain.back());
  CHECK(last.len() == 1);
  CHECK(last.pop_batch().empty());  // "oldest" comes first
  CHECK(manager.finalize_draining() == 0);
  EventBatch batch;
  CHECK(error_of(manager.remove_shard(chain.front(), batch)) == ScalingError::fenced);
  CHECK(drain(first) == std::vector<std::string>{"oldest"});
  CHECK(drain(last) == std::vector<std::string>{"newest"});
  CHECK(manager.finalize_draining() == 20);
  CHECK(manager.remove_stopped_shards() == 20);
  CHECK(manager.shard_ids() == std::vector{chain.back()});
  check_agreement(manager);
}

TEST_CASE("a removal that has to wait for older events says so and can be repeated",
          "[R-E4][R-D9][R-E16]") {
  Manager manager(elastic_options(Routing::keyed, 2, 1, 3));
  const auto in_first = payloads_for(manager, ShardId{0}, 10, "a");
  for (const auto& payload : in_first) REQUIRE(manager.ingest(payload) == Outcome::accepted);
  const auto first = *manager.shard(ShardId{0});
  const auto before_fence = payloads_for(manager, ShardId{1}, 5, "b");
  for (const auto& payload : before_fence) REQUIRE(manager.ingest(payload) == Outcome::accepted);
  REQUIRE(manager.drain_shard(ShardId{0}));
  for (const auto& payload : in_first) REQUIRE(manager.ingest(payload) == Outcome::accepted);
  add_active(manager);  // somebody has to stay
  EventBatch batch;
  for (int i = 0; i < 2; ++i) {
    CHECK(error_of(manager.remove_shard(ShardId{1}, batch)) == ScalingError::fenced);
    CHECK(texts_of(batch) == before_fence);  // what lies before the fence, once
    CHECK(manager.shard_state(ShardId{1}) == ShardState::draining);
    check_agreement(manager);
  }
  CHECK(drain(first) == in_first);
  batch.clear();
  CHECK(manager.remove_shard(ShardId{1}, batch));
  CHECK(texts_of(batch) == in_first);
  CHECK(manager.finalize_draining() == 1);
  check_agreement(manager);
}

// ---------------------------------------------------------------------------------- callbacks

TEST_CASE("callbacks tell of every shard that came or went, after the fact", "[R-E17]") {
  Manager manager(elastic_options(Routing::keyed, 1, 1, 4));
  std::vector<std::string> log;
  manager.set_shard_callbacks({.added =
                                   [&](ShardId id) {
                                     CHECK(manager.shard_state(id) == ShardState::provisioning);
                                     log.push_back("+" + std::to_string(id.value));
                                   },
                               .removed =
                                   [&](ShardId id) {
                                     CHECK_FALSE(manager.shard_state(id));
                                     log.push_back("-" + std::to_string(id.value));
                                   }});
  EventBatch batch;
  const auto id = add_active(manager);
  REQUIRE(manager.remove_shard(id, batch));
  REQUIRE(manager.add_shard_force());
  REQUIRE(manager.remove_shard(ShardId{2}, batch));  // a rollback
  CHECK_FALSE(manager.remove_shard(ShardId{2}, batch));
  const auto grown = manager.execute({.kind = ScalingKind::scale_up, .count = 2});
  REQUIRE(grown.added.size() == 2);
  REQUIRE(manager.drain_shard(ShardId{3}));
  REQUIRE(manager.finalize_draining() == 1);  // stopped is not gone
  CHECK(log == std::vector<std::string>{"+1", "-1", "+2", "-2", "+3", "+4"});
  CHECK(manager.remove_stopped_shards() == 1);
  CHECK(log.back() == "-3");
  CHECK(log.size() == 7);
  manager.set_shard_callbacks({});
  add(manager);
  CHECK(log.size() == 7);
}

TEST_CASE("a callback may change the shards and the callbacks themselves", "[R-E17][R-D13]") {
  for (const auto routing : kRoutings) {
    Manager manager(elastic_options(routing, 1, 1, 6));
    EventBatch batch;
    int removed = 0;
    manager.set_shard_callbacks({.added = [&](ShardId id) {
      // Sets up its consumer, and then all that there is to call.
      CHECK(manager.shard(id)->is_empty());
      REQUIRE(manager.activate_shard(id));
      CHECK(manager.ingest("from a callback") == Outcome::accepted);
      if (id.value < 3) {
        REQUIRE(manager.add_shard());
        REQUIRE(manager.execute({.kind = ScalingKind::scale_up, .count = 1}).added.size() == 1);
      }
      REQUIRE(manager.drain_shard(id));
      manager.run_scaling();
      static_cast<void>(manager.evaluate_scaling());
      manager.finalize_draining();
      static_cast<void>(manager.collect_metrics());
      CHECK_FALSE(manager.set_scaling_policy(*manager.scaling_policy()));
      manager.set_shard_callbacks({.removed = [&](ShardId) {
        ++removed;
        manager.remove_stopped_shards();
      }});
    }});
    REQUIRE(manager.add_shard());
    manager.remove_stopped_shards();
    for (const auto id : manager.shard_ids()) {
      if (manager.shard_state(id) == ShardState::draining) drain(*manager.shard(id));
    }
    drain(*manager.shard(ShardId{0}));
    for (int i = 0; i < 5; ++i) {
      for (const auto id : manager.shard_ids()) {
        if (manager.shard_state(id) == ShardState::draining) drain(*manager.shard(id));
      }
      manager.finalize_draining();
      manager.remove_stopped_shards();
    }
    CHECK(removed > 0);
    CHECK(manager.ledger().accepted == 3);  // one within the other, until the third replaced them
    check_agreement(manager);
  }
}

TEST_CASE("what a callback throws passes, and the change has been made", "[R-E17]") {
  Manager manager(elastic_options(Routing::keyed, 1, 1, 3));
  const auto fail = [](ShardId) { throw std::runtime_error("no consumer"); };
  manager.set_shard_callbacks({.added = fail, .removed = fail});
  CHECK_THROWS_AS(manager.add_shard(), std::runtime_error);
  CHECK_THROWS_AS(manager.add_shard_force(), std::runtime_error);
  CHECK(manager.shard_state(ShardId{1}) == ShardState::provisioning);
  CHECK(manager.shard_state(ShardId{2}) == ShardState::provisioning);
  REQUIRE(manager.activate_shard(ShardId{1}));
  REQUIRE(manager.shard(ShardId{1})->try_push("x") == Outcome::accepted);
  EventBatch batch;
  CHECK_THROWS_AS(manager.remove_shard(ShardId{1}, batch), std::runtime_error);
  CHECK(texts_of(batch) == std::vector<std::string>{"x"});
  CHECK_FALSE(manager.shard_state(ShardId{1}));
  CHECK_THROWS_AS(manager.remove_shard(ShardId{2}, batch), std::runtime_error);
  CHECK(manager.shard_ids() == std::vector{ShardId{0}});
  CHECK(manager.ledger() == Ledger{.accepted = 1, .returned = 1});
  check_agreement(manager);
}

TEST_CASE("a shard that the manager makes by itself is rolled back when its callback throws",
          "[R-E17][R-E1]") {
  // It would stay provisioning: nobody knows its id, it takes a place in the budget, and as long as a shard is
  // provisioning none is removed.
  Manager manager(elastic_options(Routing::keyed, 1, 1, 3));
  int calls = 0;
  bool activates = false;
  manager.set_shard_callbacks({.added = [&](ShardId id) {
    ++calls;
    if (activates) REQUIRE(manager.activate_shard(id));
    throw std::runtime_error("no consumer");
  }});
  for (int i = 0; i < 5; ++i) {
    CHECK_THROWS_AS(manager.execute({.kind = ScalingKind::scale_up, .count = 1}),
                    std::runtime_error);
    CHECK(manager.shard_ids() == std::vector{ShardId{0}});
  }
  CHECK(calls == 5);
  // What the host has taken over is its own.
  activates = true;
  CHECK_THROWS_AS(manager.execute({.kind = ScalingKind::scale_up, .count = 1}), std::runtime_error);
  CHECK(manager.active_shard_ids() == std::vector{ShardId{0}, ShardId{6}});
  check_agreement(manager);
}

TEST_CASE("a callback that takes its shard away again shows in the report", "[R-E17][R-E7]") {
  Manager manager(elastic_options(Routing::keyed, 1, 1, 3));
  EventBatch batch;
  manager.set_shard_callbacks(
      {.added = [&](ShardId id) { REQUIRE(manager.remove_shard(id, batch)); }});
  const auto report = manager.execute({.kind = ScalingKind::scale_up, .count = 2});
  CHECK(report.added.empty());
  CHECK(report.error == ScalingError::unknown_shard);
  CHECK(manager.shard_ids() == std::vector{ShardId{0}});
}

TEST_CASE("a closure of with_shard that changes shards is caught in debug builds", "[R-D13]") {
  if constexpr (shard::detail::kDebugChecks) {
    Manager manager(elastic_options(Routing::balanced, 3, 1, 8));
    const auto spare = add(manager);
    EventBatch batch;
    shard_test::MisuseRecorder misuse;
    std::size_t calls = 0;
    // None of these touches shard 0, or they would wait for ever.
    manager.with_shard(ShardId{0}, [&](auto&) {
      static_cast<void>(manager.add_shard());
      CHECK(misuse.count() == ++calls);
      static_cast<void>(manager.add_shard_force());
      CHECK(misuse.count() == ++calls);
      static_cast<void>(manager.activate_shard(spare));
      CHECK(misuse.count() == ++calls);
      static_cast<void>(manager.drain_shard(ShardId{1}));
      CHECK(misuse.count() == ++calls);
      manager.finalize_draining();
      CHECK(misuse.count() == ++calls);
      static_cast<void>(manager.remove_shard(ShardId{2}, batch));
      CHECK(misuse.count() == ++calls);
      manager.execute({});
      CHECK(misuse.count() == ++calls);
    });
    CHECK(misuse.last() == "a manager was called from within with_shard()");
  }
}

// ---------------------------------------------------------------------------------- policy

TEST_CASE("the policy is replaced as a whole, after it was validated", "[R-E19][R-J1]") {
  ManualClock clock(1);
  Manager manager(elastic_options(Routing::keyed, 2, 1, 2, &clock));
  CHECK(error_of(manager.add_shard()) == ScalingError::at_max);
  auto policy = *manager.scaling_policy();
  policy.max_shards = 4;
  policy.cooldown = seconds{1};
  CHECK_FALSE(manager.set_scaling_policy(policy));
  CHECK(manager.scaling_policy() == policy);
  const auto third = add_active(manager);
  CHECK(error_of(manager.add_shard()) == ScalingError::cooldown);

  auto wrong = policy;
  wrong.max_shards = 9;
  wrong.fill_threshold = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(manager.set_scaling_policy(wrong), shard::ConfigError);
  wrong = policy;
  wrong.max_shards = 257;  // 4096 slots, 16 for each
  CHECK_THROWS_AS(manager.set_scaling_policy(wrong), shard::ConfigError);
  CHECK(manager.scaling_policy() == policy);
  policy.max_shards = 256;
  CHECK_FALSE(manager.set_scaling_policy(policy));

  // The bounds hold at every moment, so they are not drawn where the shards are not.
  const auto in_force = policy;
  policy.max_shards = 2;
  CHECK(manager.set_scaling_policy(policy) == ScalingError::at_max);
  policy.max_shards = 4;
  policy.min_shards = 4;
  CHECK(manager.set_scaling_policy(policy) == ScalingError::at_min);
  CHECK(manager.scaling_policy() == in_force);
  policy.min_shards = 3;
  policy.max_shards = 3;
  CHECK_FALSE(manager.set_scaling_policy(policy));
  CHECK(error_of(manager.drain_shard(third)) == ScalingError::at_min);
  CHECK(error_of(manager.add_shard_force()) == ScalingError::at_max);
  check_agreement(manager);
}

TEST_CASE("a new policy is what the next decision is made by", "[R-E19]") {
  ManualClock clock(1);
  auto options = elastic_options(Routing::balanced, 2, 1, 4, &clock);
  Manager manager(options);
  CHECK(manager.evaluate_scaling().limit == ScalingError::scaling_disabled);
  options.scaling->auto_scale = true;
  options.scaling->scale_up_delay = options.scaling->warm_up = std::chrono::nanoseconds{0};
  options.scaling->scale_down_delay = std::chrono::hours{1};
  REQUIRE_FALSE(manager.set_scaling_policy(*options.scaling));
  for (int window = 0; window < 3; ++window) {
    for (int i = 0; i < 1000; ++i) manager.ingest(std::to_string(i));
    EventBatch batch;
    for (const auto id : manager.shard_ids()) manager.shard(id)->pop_batch_into(batch, 50);
    clock.advance(ns(milliseconds{100}));
    if (manager.run_scaling().added.empty()) continue;
    break;
  }
  CHECK(manager.active_shard_ids().size() > 2);
}

// ---------------------------------------------------------------------------------- refusals

TEST_CASE("a static manager answers scaling_disabled to everything that would change its shards",
          "[R-E16]") {
  Manager manager({.shards = 2});
  EventBatch batch;
  const auto before = View::of(manager);
  int calls = 0;
  manager.set_shard_callbacks(
      {.added = [&](ShardId) { ++calls; }, .removed = [&](ShardId) { ++calls; }});
  CHECK(error_of(manager.add_shard()) == ScalingError::scaling_disabled);
  CHECK(error_of(manager.add_shard_force()) == ScalingError::scaling_disabled);
  for (const auto id : {ShardId{0}, ShardId{7}}) {
    CHECK(error_of(manager.activate_shard(id)) == ScalingError::scaling_disabled);
    CHECK(error_of(manager.drain_shard(id)) == ScalingError::scaling_disabled);
    CHECK(error_of(manager.remove_shard(id, batch)) == ScalingError::scaling_disabled);
  }
  CHECK(manager.finalize_draining() == 0);
  CHECK(manager.remove_stopped_shards() == 0);
  CHECK(manager.set_scaling_policy({}) == ScalingError::scaling_disabled);
  CHECK_FALSE(manager.scaling_policy());
  CHECK(manager.evaluate_scaling() == ScalingDecision{.limit = ScalingError::scaling_disabled});
  const auto report = manager.run_scaling();
  CHECK(report.decision.limit == ScalingError::scaling_disabled);
  CHECK((report.added.empty() && report.removed == 0 && report.slots_moved == 0));
  CHECK(manager.execute({.kind = ScalingKind::scale_up, .count = 1}).error ==
        ScalingError::scaling_disabled);
  CHECK(manager.execute({.kind = ScalingKind::scale_down, .count = 1, .shards = {ShardId{0}}})
            .error == ScalingError::scaling_disabled);
  CHECK(manager.collect_metrics().empty());
  CHECK(calls == 0);
  CHECK(View::of(manager) == before);
  for (const auto id : manager.shard_ids()) CHECK(manager.shard_state(id) == ShardState::active);
}

TEST_CASE("a closed manager answers closed, and can still be emptied", "[R-E16][R-D12]") {
  for (const auto routing : kRoutings) {
    ManualClock clock(1);
    Manager manager(elastic_options(routing, 3, 1, 8, &clock));
    const auto spare = add(manager);
    REQUIRE(manager.ingest("x") == Outcome::accepted);
    REQUIRE(manager.drain_shard(ShardId{2}));
    manager.close();
    EventBatch batch;
    for (const auto id : {spare, ShardId{0}, ShardId{2}, ShardId{9}}) {
      CHECK(error_of(manager.activate_shard(id)) == ScalingError::closed);
      CHECK(error_of(manager.drain_shard(id)) == ScalingError::closed);
      CHECK(error_of(manager.remove_shard(id, batch)) == ScalingError::closed);
    }
    CHECK(error_of(manager.add_shard()) == ScalingError::closed);
    CHECK(error_of(manager.add_shard_force()) == ScalingError::closed);
    CHECK(manager.set_scaling_policy(*manager.scaling_policy()) == ScalingError::closed);
    CHECK(manager.execute({.kind = ScalingKind::scale_up, .count = 1}).error ==
          ScalingError::closed);
    CHECK(manager.execute({.kind = ScalingKind::scale_down, .count = 1, .shards = {ShardId{0}}})
              .error == ScalingError::closed);
    const auto report = manager.run_scaling();
    CHECK((report.added.empty() && report.slots_moved == 0));
    CHECK(batch.empty());
    CHECK(manager.shard(spare)->try_push("x") == Outcome::rejected_closed);
    std::size_t left = 0;
    for (const auto id : manager.shard_ids()) left += drain(*manager.shard(id)).size();
    CHECK(left == 1);
    CHECK(manager.active_shard_ids().size() == 2);
  }
}

// ---------------------------------------------------------------------------------- metrics

TEST_CASE("rates are per second and latencies are averages, whatever the window",
          "[R-E12][R-E14]") {
  ManualClock clock(1);
  auto options = elastic_options(Routing::balanced, 1, 1, 4, &clock);
  options.scaling->metrics_window = milliseconds{10};
  Manager manager(options);
  const auto handle = *manager.shard(ShardId{0});
  manager.run_scaling();
  for (const auto window : {milliseconds{10}, milliseconds{250}, milliseconds{2000}}) {
    for (int i = 0; i < 100; ++i) REQUIRE(manager.ingest("x") == Outcome::accepted);
    REQUIRE(handle.pop_batch(50).size() == 50);
    handle.record_batch_dispatch(40, milliseconds{2});
    handle.record_batch_dispatch(10, milliseconds{6});
    clock.advance(ns(window));
    manager.run_scaling();
    const auto metrics = manager.collect_metrics();
    REQUIRE(metrics.size() == 1);
    const auto per_second = 1000.0 / static_cast<double>(window.count());
    CHECK(metrics[0].events_per_second == Approx(100 * per_second));
    CHECK(metrics[0].drained_per_second == Approx(50 * per_second));
    CHECK(metrics[0].flush_latency == milliseconds{4});
    CHECK(metrics[0].queued == 50);
    CHECK(metrics[0].fill_events == Approx(50.0 / 255));
    CHECK(metrics[0].queue_age <= window);  // timestamps of one moment differ by a nanosecond each
    CHECK(metrics[0].queue_age >= window - std::chrono::nanoseconds{100});
    CHECK(metrics[0].slot_share == 1);
    REQUIRE(handle.pop_batch().size() == 50);
    clock.advance(ns(milliseconds{10}));
    manager.run_scaling();  // what is left over from this window is in no later one
  }
  // Without a delivery the last one is what is known.
  CHECK(manager.collect_metrics()[0].flush_latency == milliseconds{4});
}

TEST_CASE("events that were evicted are not taken for delivered ones", "[R-E20][R-E12]") {
  ManualClock clock(1);
  auto options = elastic_options(Routing::balanced, 1, 1, 4, &clock, 8);
  options.backpressure = Backpressure::drop_oldest();
  Manager manager(options);
  manager.run_scaling();
  for (int i = 0; i < 100; ++i) REQUIRE(manager.ingest("x") == Outcome::accepted);
  clock.advance(ns(seconds{1}));
  manager.run_scaling();
  CHECK(manager.collect_metrics()[0].events_per_second == Approx(100));
  CHECK(manager.collect_metrics()[0].drained_per_second == 0);
}

TEST_CASE("asking for metrics and for advice takes nothing away from run_scaling", "[R-E11]") {
  ManualClock clock(1);
  Manager manager(elastic_options(Routing::balanced, 2, 1, 2, &clock));
  REQUIRE(manager.drain_shard(ShardId{1}));
  manager.run_scaling();
  CHECK(manager.shard_ids().size() == 1);
  for (int i = 0; i < 10; ++i) {
    for (int k = 0; k < 5; ++k) REQUIRE(manager.ingest("x") == Outcome::accepted);
    const auto id = add_active(manager);
    REQUIRE(manager.drain_shard(id));
    clock.advance(ns(milliseconds{100}));
    // Whoever is first at the end of a window closes it, ...
    static_cast<void>(manager.evaluate_scaling());
    const auto seen = manager.collect_metrics();
    static_cast<void>(manager.evaluate_scaling());
    CHECK(manager.collect_metrics() == seen);
    // ... and yet all that is due is done.
    CHECK(manager.run_scaling().removed == 1);
    CHECK(manager.run_scaling().removed == 0);
    CHECK(manager.collect_metrics() == seen);
    CHECK(seen[0].events_per_second == Approx(50));
  }
}

namespace {

/// Tells when a thread has to wait for a lock.
struct ParkingPlatform : shard::detail::SystemPlatform {
  static inline std::atomic<std::size_t> parked{0};
  static void park(const Word& word, std::uint32_t expected) noexcept {
    ++parked;
    SystemPlatform::park(word, expected);
  }
};

}  // namespace

TEST_CASE("every push that waits for the lock is measured, and one in 256 of the others",
          "[R-E13]") {
  const auto options = elastic_options(Routing::balanced, 1, 1, 4, nullptr, 4096);
  shard::detail::ManagerCore<ParkingPlatform> core(options);
  const auto shard = core.find(ShardId{0});
  const auto push = [&] { return core.admit_by_hash(shard::detail::Item{"x", {}, {}}, 0); };
  for (std::uint64_t i = 1; i <= 1024; ++i) {
    REQUIRE(push() == Outcome::accepted);
    REQUIRE(shard->push_costs().pushed == i);
    REQUIRE(shard->push_costs().sampled == i / 256);
  }
  CHECK(shard->push_costs().waited_ns == 0);

  // A producer is made to wait, as is known by its having gone to sleep.
  const auto wait_for_the_lock = [&] {
    ParkingPlatform::parked = 0;
    Outcome answer{};
    std::thread producer;
    shard->with_locks([&] {
      producer = std::thread([&] { answer = push(); });
      while (ParkingPlatform::parked == 0) std::this_thread::yield();
    });
    producer.join();
    CHECK(answer == Outcome::accepted);
  };
  wait_for_the_lock();
  CHECK(shard->push_costs().waited_ns > 0);
  CHECK(shard->push_costs().sampled == 4);

  // The controller is told what waiting has cost on average: here most of the pushes of its window waited.
  static_cast<void>(core.scaler.evaluate({}, true));
  const auto before = shard->push_costs();
  for (int i = 0; i < 3; ++i) wait_for_the_lock();
  REQUIRE(push() == Outcome::accepted);
  while (!core.scaler.evaluate({}, true).fresh) std::this_thread::yield();
  const auto after = shard->push_costs();
  REQUIRE(after.pushed - before.pushed == 4);
  const auto mean = (after.waited_ns - before.waited_ns) / 4;
  CHECK(core.scaler.metrics()[0].push_latency ==
        std::chrono::nanoseconds{static_cast<std::int64_t>(mean)});
}

// ---------------------------------------------------------------------------------- balanced routing

TEST_CASE("a fresh shard in balanced routing ramps up tick by tick", "[R-D7]") {
  ManualClock clock(1);
  Manager manager(elastic_options(Routing::balanced, 3, 1, 4, &clock));
  const auto id = add_active(manager);
  std::size_t before = 0;
  std::size_t ticks = 0;
  for (; ticks < 100 && slots_of(manager, id) < 4096 / 4; ++ticks) {
    const auto report = manager.run_scaling();
    const auto now = slots_of(manager, id);
    CHECK(report.slots_moved <= 4096 / 32);
    CHECK(now == before + report.slots_moved);
    CHECK(manager.run_scaling().slots_moved == 0);  // once per window
    before = now;
    clock.advance(ns(milliseconds{100}));
  }
  CHECK(ticks == 8);
  CHECK(manager.run_scaling().slots_moved == 0);  // even, and so it stays
}

TEST_CASE("shares follow the load gradually and within bounds", "[R-D6]") {
  // Shard 1 is a little, or much, fuller than the others; how many slots it has in the end.
  const auto share_at = [](std::size_t queued) {
    ManualClock clock(1);
    Manager manager(elastic_options(Routing::balanced, 4, 1, 4, &clock));
    const auto handle = *manager.shard(ShardId{1});
    for (std::size_t i = 0; i < queued; ++i) REQUIRE(handle.try_push("x") == Outcome::accepted);
    std::size_t moved = 1;
    for (int tick = 0; tick < 200 && moved != 0; ++tick) {
      moved = manager.run_scaling().slots_moved;
      CHECK(moved <= 4096 / 32);
      clock.advance(ns(milliseconds{100}));
    }
    CHECK(moved == 0);  // it converges
    for (const auto id : manager.shard_ids()) {
      const auto slots = slots_of(manager, id);
      CHECK(slots >= 1);
      CHECK(slots <= 2 * 4096 / 4);
    }
    return slots_of(manager, ShardId{1});
  };
  auto before = share_at(0);
  CHECK(before == 1024);
  for (std::size_t queued = 5; queued <= 255; queued += 10) {
    const auto share = share_at(queued);
    CAPTURE(queued, share);
    CHECK(share <= before);
    CHECK(before - share <= 80);  // two percent of all for four percent of fill
    before = share;
  }
  CHECK(before < 200);
}
