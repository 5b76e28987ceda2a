// What a change of the shards publishes, opens, fences, tells and retires, seen from inside.

#include "shard/detail/topology.hpp"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shard/detail/manager_core_impl.hpp"
#include "shard/detail/slot_plan.hpp"
#include "support/books.hpp"
#include "support/elastic.hpp"
#include "support/manual_clock.hpp"
#include "support/topology_access.hpp"

namespace {

using shard::EventBatch;
using shard::Outcome;
using shard::Routing;
using shard::ScalingError;
using shard::ShardId;
using shard::ShardState;
using shard_test::elastic_options;
using shard_test::error_of;
using shard_test::kRoutings;
using shard_test::ManualClock;
namespace slot_plan = shard::detail::slot_plan;

/// A word of the library whose additions can be watched: that is how an event count notifies.
template <class T>
struct WatchedAtomic : std::atomic<T> {
  using std::atomic<T>::atomic;
};
template <>
struct WatchedAtomic<std::uint32_t> : std::atomic<std::uint32_t> {
  using Base = std::atomic<std::uint32_t>;
  using Base::Base;

  static inline std::function<void(const void*)> on_add;  ///< with the word's address

  std::uint32_t fetch_add(std::uint32_t more,
                          std::memory_order order = std::memory_order_seq_cst) noexcept {
    const auto before = Base::fetch_add(more, order);
    if (on_add) on_add(this);
    return before;
  }
};

struct WatchedPlatform : shard::detail::SystemPlatform {
  template <class T>
  using Atomic = WatchedAtomic<T>;
  using Word = Atomic<std::uint32_t>;
};

using Core = shard::detail::ManagerCore<WatchedPlatform>;
using ShardCore = shard::detail::ShardCore<WatchedPlatform>;
using Table = shard::detail::RoutingTable<WatchedPlatform>;

/// What the queue of a pipeline keeps with a shard.
struct Node : shard::detail::ReadyNode {
  explicit Node(ShardId shard) : id(shard) {}
  const ShardId id;
};

struct Changing {
  explicit Changing(const shard::ManagerOptions& options, bool consumed = false)
      : core(options, consumed ? &kConsumption : nullptr) {}

  static inline const Core::Consumption kConsumption{
      .attach = [](ShardCore& shard) { return std::make_unique<Node>(shard.id()); }};

  [[nodiscard]] std::shared_ptr<const Table> table() const { return core.topology.tables.peek(); }
  [[nodiscard]] ShardCore& of(std::uint32_t id) const { return *core.find(ShardId{id}); }
  [[nodiscard]] std::optional<ShardState> state(std::uint32_t id) const {
    const auto now = table();
    const auto index = now->index_of(ShardId{id});
    return index == Table::kNoMember ? std::nullopt : std::optional(now->members[index].state);
  }

  ShardId add() {
    const auto id = core.topology.add(true);
    REQUIRE(id);
    return *id;
  }
  void activate(std::uint32_t id) { REQUIRE(core.topology.activate(ShardId{id})); }
  void drain(std::uint32_t id) { REQUIRE(core.topology.drain(ShardId{id})); }

  /// Publishes the current table, changed by hand.
  template <class Change>
  void publish(const Change& change) {
    auto next = std::make_shared<Table>(*core.topology.tables.peek());
    ++next->version;
    change(*next);
    core.topology.tables.prepare_to_publish();
    core.topology.tables.publish(std::move(next));
  }

  /// To where a slot of the 4096 leads.
  Outcome push(std::size_t slot, const char* text) {
    return core.admit_by_hash(shard::detail::Item{text, {}, {}}, std::uint64_t{slot} << 52U);
  }
  /// To a shard, as its handle does.
  Outcome push_to(std::uint32_t id) {
    return core.admit_to(of(id), shard::detail::Item{"x", {}, {}});
  }
  std::vector<std::string> pop(std::uint32_t id) {
    EventBatch batch;
    of(id).pop(batch, 1000, 1U << 20U);
    return shard_test::texts_of(batch);
  }

  /// How many fences were ever placed in a shard: positions number them and the events.
  [[nodiscard]] std::uint64_t fences(std::uint32_t id) const {
    auto& one = of(id);
    return one.raise_min_version(0) - one.push_costs().pushed;
  }

  /// The shards that the consumer was told to look at since it was last asked, in that order.
  std::vector<ShardId> told() {
    std::vector<ShardId> ids;
    while (auto* const node = core.ready->claim(core.clock.now()).node) {
      ids.push_back(static_cast<Node&>(*node).id);
      core.ready->release(*node, shard::detail::Rest::idle, false);
    }
    return ids;
  }
  /// As a pass that finds that a shard has to wait for another one.
  void leave_fenced(std::uint32_t id) {
    REQUIRE(core.ready->try_claim(*of(id).node()));
    core.ready->release(*of(id).node(), shard::detail::Rest::fenced, false);
  }

  Core core;
};

std::vector<ShardId> ids(std::initializer_list<std::uint32_t> list) {
  std::vector<ShardId> all;
  for (const auto id : list) all.push_back(ShardId{id});
  return all;
}

}  // namespace

// ---------------------------------------------------------------------------------- what moves

TEST_CASE(
    "a change in keyed routing fences each destination once for each source, and tells the sources",
    "[R-D9][R-D15]") {
  Changing test(elastic_options(Routing::keyed, 3, 1, 5), true);
  auto& topology = test.core.topology;
  CHECK(test.table()->version == 1);
  auto before = test.table()->slots;
  test.add();
  CHECK(test.table()->version == 2);
  CHECK(test.table()->slots == before);
  CHECK(test.told().empty());

  test.activate(3);
  CHECK(test.table()->version == 3);
  CHECK(test.table()->slots == slot_plan::join(before, std::vector<std::uint16_t>{0, 1, 2}, 3));
  CHECK(test.told() == ids({0, 1, 2}));
  CHECK(test.fences(3) == 3);
  for (const auto source : {0U, 1U, 2U}) CHECK(test.fences(source) == 0);

  // Who waits behind a fence is to look again: it may have looked before the fence was complete.
  test.leave_fenced(3);
  before = test.table()->slots;
  test.drain(1);
  CHECK(test.table()->version == 4);
  CHECK(test.table()->slots == slot_plan::leave(before, 1, std::vector<std::uint16_t>{0, 2, 3}));
  CHECK(test.told() == ids({1, 3}));
  CHECK(test.fences(0) == 1);
  CHECK(test.fences(1) == 0);
  CHECK(test.fences(2) == 1);
  CHECK(test.fences(3) == 4);

  // A change that moves nothing is none.
  REQUIRE(topology.activate(ShardId{3}));
  CHECK(test.table()->version == 4);
  CHECK(test.told().empty());
}

TEST_CASE("a change in balanced routing fences nothing, and tells only who has to be emptied",
          "[R-D7][R-E5]") {
  Changing test(elastic_options(Routing::balanced, 3, 1, 5), true);
  const auto before = test.table()->slots;
  test.leave_fenced(1);  // for whatever reason
  test.add();
  test.activate(3);
  CHECK(test.table()->slots == before);
  CHECK(test.told().empty());
  test.drain(2);
  CHECK(test.table()->slots == slot_plan::leave(before, 2, std::vector<std::uint16_t>{0, 1, 3}));
  CHECK(test.told() == ids({2}));
  for (const auto id : {0U, 1U, 2U, 3U}) CHECK(test.fences(id) == 0);
}

TEST_CASE("a single slot that moves keeps its order, wherever in the table it is",
          "[R-D9][R-D15][R-E18]") {
  // The table is compared in steps of four slots.
  const std::size_t slot = GENERATE(0U, 1U, 2U, 3U, 2047U, 2048U, 2049U, 4094U, 4095U);
  CAPTURE(slot);
  Changing test(elastic_options(Routing::keyed, 2, 1, 2));
  const std::uint32_t from = slot < 2048 ? 0 : 1;
  const std::uint32_t to = 1 - from;
  auto expected = test.table()->slots;
  REQUIRE(expected[slot] == from);
  expected[slot] = static_cast<std::uint16_t>(to);
  REQUIRE(test.push(slot, "old") == Outcome::accepted);

  std::vector<double> load(4096, 0.0);
  load[slot] = 1;
  load[from == 0 ? 1000 : 3000] = 10;  // more than half the difference: it stays
  CHECK(test.core.topology.move_hot(ShardId{from}, ShardId{to}, load, 100).value() == ShardId{to});
  CHECK(test.table()->slots == expected);
  CHECK(test.table()->version == 2);
  CHECK(test.fences(to) == 1);
  CHECK(test.fences(from) == 0);

  REQUIRE(test.push(slot, "new") == Outcome::accepted);
  CHECK(test.pop(to).empty());  // "old" comes first
  CHECK(test.pop(from) == std::vector<std::string>{"old"});
  CHECK(test.pop(to) == std::vector<std::string>{"new"});
  CHECK_FALSE(test.core.topology.last_change());  // scaling does not wait for this
}

TEST_CASE("each pair of shards has one fence, however its slots lie among those of others",
          "[R-D15]") {
  Changing test(elastic_options(Routing::keyed, 4, 1, 4), true);
  const slot_plan::Slots before{0, 1, 0, 1, 0, 1, 0, 1};
  const slot_plan::Slots after{2, 2, 3, 3, 2, 2, 0, 1};
  test.publish([&](Table& table) { std::copy(before.begin(), before.end(), table.slots.begin()); });
  shard::detail::TopologyTestAccess::move(test.core.topology, [&](slot_plan::Slots& slots) {
    std::copy(after.begin(), after.end(), slots.begin());
  });
  CHECK(test.fences(2) == 2);
  CHECK(test.fences(3) == 2);
  CHECK(test.told() == ids({0, 1}));
  bool unclear = false;
  for (const auto id : {0U, 1U, 2U, 3U}) CHECK_FALSE(test.of(id).is_fenced(unclear));
}

TEST_CASE("hot slots move between two active shards or not at all, and the answer says why",
          "[R-E16][R-E18]") {
  Changing test(elastic_options(Routing::keyed, 3, 1, 5));
  auto& topology = test.core.topology;
  test.add();
  test.drain(2);
  std::vector<double> load(4096, 0.0);
  for (std::size_t slot = 0; slot < load.size(); slot += 16) load[slot] = 1;
  const auto before = test.table();
  const auto move = [&](std::uint32_t from, std::uint32_t to) {
    const auto done = topology.move_hot(ShardId{from}, ShardId{to}, load, 10);
    CHECK(topology.tables.peek() == before);
    return error_of(done);
  };
  CHECK(move(0, 9) == ScalingError::unknown_shard);
  CHECK(move(9, 0) == ScalingError::unknown_shard);
  CHECK(move(0, 0) == ScalingError::wrong_state);
  CHECK(move(0, 2) == ScalingError::wrong_state);  // draining
  CHECK(move(2, 0) == ScalingError::wrong_state);
  CHECK(move(0, 3) == ScalingError::wrong_state);  // provisioning
  CHECK(move(3, 0) == ScalingError::wrong_state);
  std::fill(load.begin(), load.end(), 0.0);
  CHECK_FALSE(move(0, 1));  // done: there was none to move
  test.core.close();
  CHECK(move(0, 1) == ScalingError::closed);
  Changing fixed({.shards = 2});
  CHECK(error_of(fixed.core.topology.move_hot(ShardId{0}, ShardId{1}, load, 10)) ==
        ScalingError::scaling_disabled);
}

TEST_CASE("balancing follows the plan for the table that it was made for, and counts what moved",
          "[R-D3][R-D6]") {
  Changing test(elastic_options(Routing::balanced, 3, 1, 5));
  auto& topology = test.core.topology;
  const std::vector<std::uint16_t> members{0, 1, 2};
  const std::vector<double> weights{1, 0.25, 0.25};
  const auto first = test.table();
  const auto plan = slot_plan::balance(first->slots, members, weights, 100);
  CHECK(topology.balance(2, members, weights, 100, {}) == 0);
  CHECK(topology.balance(1, members, weights, 0, {}) == 0);
  CHECK(test.table() == first);
  CHECK(topology.balance(1, members, weights, 100, {}) == 100);
  CHECK(test.table()->slots == plan);
  CHECK(test.table()->version == 2);
  CHECK(topology.balance(1, members, weights, 100, {}) == 0);
  CHECK(topology.balance(2, members, weights, 1, {}) == 1);
  CHECK(test.table()->version == 3);
  CHECK_FALSE(topology.last_change());
  const auto second = test.table();
  test.core.close();
  CHECK(topology.balance(3, members, weights, 100, {}) == 0);
  CHECK(test.table() == second);

  Changing keyed(elastic_options(Routing::keyed, 3, 1, 5));
  CHECK(keyed.core.topology.balance(1, members, weights, 100, {}) == 0);
  Changing fixed({.shards = 3});
  CHECK(fixed.core.topology.balance(1, members, weights, 100, {}) == 0);
}

// ---------------------------------------------------------------------------------- what opens and closes

TEST_CASE("an activation opens the shard that it names, and no other", "[R-E2][R-D12]") {
  for (const auto routing : kRoutings) {
    Changing test(elastic_options(routing, 1, 1, 4));
    test.add();
    test.add();
    test.activate(2);
    CHECK(test.push_to(2) == Outcome::accepted);
    CHECK(test.push_to(1) == Outcome::rejected_closed);
    // Also when it is the first in the table.
    EventBatch batch;
    test.pop(2);
    REQUIRE(test.core.topology.remove(ShardId{0}, batch));
    REQUIRE(test.table()->index_of(ShardId{1}) == 0);
    test.activate(1);
    CHECK(test.push_to(1) == Outcome::accepted);
    CHECK(test.push_to(2) == Outcome::accepted);
  }
}

TEST_CASE("the first active shard gets all slots, and has nobody to wait for", "[R-D4][R-D15]") {
  for (const auto routing : kRoutings) {
    Changing test(elastic_options(routing, 1, 1, 4));
    test.publish([](Table& table) {
      table.members[0].state = ShardState::stopped;
      std::fill(table.slots.begin(), table.slots.end(), Table::kNoMember);
    });
    test.add();
    test.activate(1);
    CHECK(test.table()->slots == slot_plan::Slots(4096, 1));
    CHECK(test.fences(1) == 0);
    CHECK(test.push(7, "x") == Outcome::accepted);
  }
}

TEST_CASE("in a forked child changes answer closed, and questions nothing", "[R-I6]") {
  // A child knows itself by a version of 0, to which its memory was wiped.
  Changing test(elastic_options(Routing::balanced, 3, 1, 5));
  auto& topology = test.core.topology;
  const auto policy = *topology.policy();
  test.add();
  test.drain(1);
  const auto parents = test.table();
  test.publish([](Table& table) { table.version = 0; });
  REQUIRE(topology.tables.forked());
  EventBatch batch;
  const std::vector<double> load(4096, 1.0);
  CHECK(error_of(topology.add(true)) == ScalingError::closed);
  CHECK(error_of(topology.activate(ShardId{3})) == ScalingError::closed);
  CHECK(error_of(topology.drain(ShardId{0})) == ScalingError::closed);
  CHECK(error_of(topology.remove(ShardId{0}, batch)) == ScalingError::closed);
  CHECK(error_of(topology.move_hot(ShardId{0}, ShardId{2}, load, 10)) == ScalingError::closed);
  CHECK(topology.finalize_draining() == 0);
  CHECK(topology.balance(0, std::vector<std::uint16_t>{0, 2}, std::vector<double>{1, 0.25}, 10,
                         {}) == 0);
  CHECK(topology.set_policy(policy) == ScalingError::closed);
  CHECK_FALSE(topology.policy());
  CHECK_FALSE(topology.last_change());
  // As the parent again, or it would leave behind what a child must not release.
  topology.tables.prepare_to_publish();
  topology.tables.publish(parents);
  CHECK(topology.policy() == policy);
  CHECK(topology.finalize_draining() == 1);
}

TEST_CASE("a retired manager is closed, and so are its shards", "[R-D12][R-E16]") {
  Changing test(elastic_options(Routing::keyed, 2, 1, 4));
  test.core.topology.retire();
  CHECK(error_of(test.core.topology.add(true)) == ScalingError::closed);
  CHECK(test.push_to(0) == Outcome::rejected_closed);
}

TEST_CASE("a shard that is stopped or removed lets pass all who wait for it", "[R-E5][R-D15]") {
  constexpr auto kPassed = std::numeric_limits<std::uint64_t>::max();
  for (const auto routing : kRoutings) {
    Changing test(elastic_options(routing, 3, 1, 5));
    test.add();
    const auto stopped = test.core.find(ShardId{1});
    const auto removed = test.core.find(ShardId{2});
    const auto rolled_back = test.core.find(ShardId{3});
    EventBatch batch;
    test.drain(1);
    CHECK(stopped->watermark() == 0);
    CHECK(test.core.topology.finalize_draining() == 1);
    CHECK(test.state(1) == ShardState::stopped);
    CHECK(stopped->watermark() == kPassed);
    for (const auto& [shard, rollback] :
         {std::pair(removed, false), std::pair(rolled_back, true)}) {
      CHECK(shard->watermark() < kPassed);
      CHECK(test.core.topology.remove(shard->id(), batch, rollback));
      CHECK(shard->watermark() == kPassed);
    }
  }
}

TEST_CASE("only what is still provisioning is rolled back", "[R-E1][R-E16]") {
  Changing test(elastic_options(Routing::keyed, 4, 1, 5));
  auto& topology = test.core.topology;
  test.drain(1);
  test.drain(2);
  REQUIRE(test.push_to(3) == Outcome::accepted);
  CHECK(topology.finalize_draining() == 2);
  test.drain(3);
  EventBatch batch;
  const auto before = test.table();
  for (const auto id : {0U, 1U, 3U}) {  // active, stopped, draining
    CHECK(error_of(topology.remove(ShardId{id}, batch, true)) == ScalingError::wrong_state);
  }
  CHECK(error_of(topology.remove(ShardId{4}, batch, true)) == ScalingError::unknown_shard);
  CHECK(test.table() == before);
  CHECK(batch.empty());
  test.add();
  CHECK(topology.remove(ShardId{4}, batch, true).value() == ShardId{4});
}

TEST_CASE("a shard at which somebody looks is neither stopped nor removed", "[R-E5][R-E16]") {
  for (const auto routing : kRoutings) {
    Changing test(elastic_options(routing, 3, 1, 5), true);
    auto& topology = test.core.topology;
    test.add();
    EventBatch batch;
    const auto look_at = [&](std::uint32_t id) {
      auto& node = *test.of(id).node();
      REQUIRE(test.core.ready->try_claim(node));
      return &node;
    };
    test.drain(1);
    REQUIRE(test.told() == ids({1}));
    for (const auto id : {1U, 2U, 3U}) {  // draining, active, provisioning
      CAPTURE(id);
      auto* const node = look_at(id);
      CHECK(topology.finalize_draining() == 0);
      CHECK(error_of(topology.remove(ShardId{id}, batch)) == ScalingError::fenced);
      CHECK(test.state(id) == (id == 3 ? ShardState::provisioning : ShardState::draining));
      test.core.ready->release(*node, shard::detail::Rest::idle, false);
      CHECK(topology.remove(ShardId{id}, batch).value() == ShardId{id});
      CHECK_FALSE(test.state(id));
    }
  }
}

// ---------------------------------------------------------------------------------- what is told when

TEST_CASE("whoever waits for progress is told of a change when it can be seen", "[R-E16][R-G7]") {
  for (const auto routing : kRoutings) {
    Changing test(elastic_options(routing, 3, 1, 6), true);
    auto& topology = test.core.topology;
    struct Watch {
      explicit Watch(Core& core) {
        WatchedAtomic<std::uint32_t>::on_add = [this, &core](const void* word) {
          if (word == &core.ready->progress) seen = core.topology.tables.version();
        };
      }
      Watch(const Watch&) = delete;
      Watch& operator=(const Watch&) = delete;
      ~Watch() { WatchedAtomic<std::uint32_t>::on_add = nullptr; }
      std::uint64_t seen = 0;  ///< the version of the table when they were last told
    } watch(test.core);
    EventBatch batch;
    std::uint64_t version = 1;
    const auto told_of_one_change = [&] { return watch.seen == ++version; };
    test.add();
    CHECK(told_of_one_change());
    test.activate(3);
    CHECK(told_of_one_change());
    test.drain(1);
    CHECK(told_of_one_change());
    REQUIRE(topology.finalize_draining() == 1);
    CHECK(told_of_one_change());
    REQUIRE(topology.remove(ShardId{1}, batch));
    CHECK(told_of_one_change());
    REQUIRE(topology.remove(ShardId{2}, batch));
    ++version;  // drained first
    CHECK(told_of_one_change());
    test.add();
    CHECK(told_of_one_change());
    REQUIRE(topology.remove(ShardId{4}, batch, true));
    CHECK(told_of_one_change());
    if (routing == Routing::balanced) {
      CHECK(topology.balance(version, std::vector<std::uint16_t>{0, 1},
                             std::vector<double>{1, 0.25}, 10, {}) == 10);
    } else {
      std::vector<double> load(4096, 0.0);
      for (std::size_t slot = 0; slot < 8; ++slot) load[slot] = 1;
      CHECK(topology.move_hot(ShardId{3}, ShardId{0}, load, 10));  // the newcomer got these
    }
    CHECK(told_of_one_change());
    CHECK(topology.tables.version() == version);
  }
}

TEST_CASE("the time of the last change is that of the last shard that came, went or was activated",
          "[R-E8]") {
  ManualClock clock(1000);
  Changing test(elastic_options(Routing::keyed, 2, 1, 4, &clock));
  auto& topology = test.core.topology;
  CHECK_FALSE(topology.last_change());
  const auto is_now = [&] {
    const bool now = topology.last_change() == test.core.clock.now();
    clock.advance(10);
    return now;
  };
  clock.advance(10);
  test.add();
  CHECK(is_now());
  test.activate(2);
  CHECK(is_now());
  test.drain(0);
  CHECK(is_now());
  EventBatch batch;
  CHECK(topology.finalize_draining() == 1);
  CHECK_FALSE(is_now());  // the drain was the change
  REQUIRE(topology.remove(ShardId{0}, batch));
  CHECK(is_now());
  REQUIRE(topology.activate(ShardId{2}));
  CHECK_FALSE(is_now());
}

// ---------------------------------------------------------------------------------- bounds

TEST_CASE("a policy has to have room for the shards that are on their way", "[R-E3][R-E19]") {
  Changing test(elastic_options(Routing::keyed, 2, 1, 4));
  test.add();
  auto policy = *test.core.topology.policy();
  policy.max_shards = 2;
  CHECK(test.core.topology.set_policy(policy) == ScalingError::at_max);
  CHECK(test.core.topology.policy()->max_shards == 4);
  policy.max_shards = 3;
  CHECK_FALSE(test.core.topology.set_policy(policy));
  // They do not count as active yet.
  policy.min_shards = 3;
  CHECK(test.core.topology.set_policy(policy) == ScalingError::at_min);
  test.activate(2);
  CHECK_FALSE(test.core.topology.set_policy(policy));
}

TEST_CASE("there are at most 2048 shards, those included that are stopped and not removed",
          "[R-E3][R-E16]") {
  Changing test(elastic_options(Routing::keyed, 1, 1, 4));
  auto& topology = test.core.topology;
  test.publish([](Table& table) {
    table.members.resize(2047, {table.members[0].core, ShardState::stopped});
  });
  CHECK(topology.add(true).value() == ShardId{1});
  CHECK(error_of(topology.add(true)) == ScalingError::at_max);
  EventBatch batch;
  CHECK(topology.remove(ShardId{1}, batch));
  CHECK(topology.add(true).value() == ShardId{2});
}
