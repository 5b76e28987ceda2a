// What a lifecycle call leaves behind when it finds no memory: nothing, at whichever of its allocations.

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "alloc/allocation_counter.hpp"
#include "shard/manager.hpp"
#include "support/elastic.hpp"

namespace {

using shard::EventBatch;
using shard::Manager;
using shard::Outcome;
using shard::Routing;
using shard::ScalingKind;
using shard::ShardId;
using shard::ShardState;
using shard_test::AllocationFailure;
using shard_test::check_agreement;
using shard_test::elastic_options;
using shard_test::kRoutings;

constexpr ShardId kProvisioning{3};
constexpr ShardId kStopped{4};
constexpr ShardId kDraining{5};

/// For what runs while allocations fail: Catch2's own checks allocate.
void require(bool condition) {
  if (!condition) throw std::logic_error("a call has failed");
}

/// What can be seen of a manager from outside.
struct View {
  std::map<ShardId, ShardState> states;
  shard::Ledger ledger;
  shard::ScalingPolicy policy;
  std::vector<ShardId> routes;
  bool operator==(const View&) const = default;

  explicit View(const Manager& manager)
      : ledger(manager.ledger()), policy(*manager.scaling_policy()) {
    for (const auto id : manager.shard_ids()) states[id] = *manager.shard_state(id);
    for (std::uint64_t i = 0; i < 4096; ++i) {
      routes.push_back(*manager.select_shard_by_hash(i << 52U));
    }
  }
};

/// Shards in each state, with fences and with something queued, and room for two more.
class Scene {
 public:
  explicit Scene(Routing routing) : manager(elastic_options(routing, 3, 1, 6)) {
    manager.set_shard_callbacks(
        {.added = [this](ShardId) { ++callbacks; }, .removed = [this](ShardId) { ++callbacks; }});
    ingest(150);
    REQUIRE(manager.add_shard().value() == kProvisioning);
    REQUIRE(manager.add_shard().value() == kStopped);
    REQUIRE(manager.activate_shard(kStopped));
    pop();  // so that no fence is left
    REQUIRE(manager.drain_shard(kStopped));
    REQUIRE(manager.finalize_draining() == 1);
    REQUIRE(manager.add_shard().value() == kDraining);
    REQUIRE(manager.activate_shard(kDraining));
    REQUIRE(manager.shard(kDraining)->try_push("queued") == Outcome::accepted);
    REQUIRE(manager.drain_shard(kDraining));
    ingest(150);
    callbacks = 0;
  }

  void pop() {
    for (const auto id : manager.shard_ids()) popped += manager.shard(id)->pop_batch().size();
  }
  void ingest(std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      REQUIRE(manager.ingest(std::to_string(offered++)) == Outcome::accepted);
    }
  }

  /// Nothing is lost and all goes on.
  void check_afterwards() {
    check_agreement(manager);
    ingest(50);
    for (int round = 0; round < 5; ++round) pop();  // those that wait for others get their turn
    popped += queued.size();
    CHECK(manager.ledger() == shard::Ledger{.accepted = offered + 1, .returned = popped});
    CHECK(popped == offered + 1);
    manager.finalize_draining();
    manager.remove_stopped_shards();
    for (const auto id : manager.shard_ids()) {
      const auto state = manager.shard_state(id);
      CHECK((state == ShardState::active || state == ShardState::provisioning));
    }
  }

  Manager manager;
  EventBatch queued;
  int callbacks = 0;
  std::uint64_t offered = 0;
  std::uint64_t popped = 0;
};

struct Allowance {
  bool may_change = false;  ///< a failure need not leave everything as it was
  bool emptied = false;     ///< the draining shard has been emptied before
};
/// Fails each allocation of `call` in turn; how many there are.
std::uint64_t fail_each(Routing routing, const std::function<void(Scene&)>& call,
                        const Allowance& allowance = {}) {
  for (std::uint64_t n = 1;; ++n) {
    Scene scene(routing);
    if (allowance.emptied) scene.popped += scene.manager.shard(kDraining)->pop_batch().size();
    const View before(scene.manager);
    bool threw = false;
    bool happened = false;
    {
      const AllocationFailure failure(n);
      try {
        call(scene);
      } catch (const std::bad_alloc&) {
        threw = true;
      }
      happened = failure.happened();
    }
    CAPTURE(n, to_string(routing));
    CHECK((happened ||
           !threw));  // (some algorithms do without: std::stable_sort has less to copy to)
    if (threw) {
      CHECK(scene.callbacks == 0);
      if (!allowance.may_change) {
        const bool same = View(scene.manager) == before;
        CHECK(same);
        CHECK(scene.queued.empty());
      }
      call(scene);  // memory is back
    }
    const bool changed = !(View(scene.manager) == before);
    CHECK(changed);
    scene.check_afterwards();
    if (!happened) return n - 1;
    REQUIRE(n < 1000);
  }
}

}  // namespace

TEST_CASE("a lifecycle call that finds no memory leaves everything as it was", "[R-E1][R-C1]") {
  for (const auto routing : kRoutings) {
    CHECK(fail_each(routing, [](Scene& scene) {
            require(scene.manager.add_shard().value() > kDraining);
          }) >= 5);
    CHECK(fail_each(routing, [](Scene& scene) {
            require(scene.manager.add_shard_force().value() > kDraining);
          }) >= 5);
    CHECK(fail_each(routing, [](Scene& scene) {
            require(scene.manager.activate_shard(kProvisioning).has_value());
          }) >= 4);
    CHECK(fail_each(routing, [](Scene& scene) {
            require(scene.manager.drain_shard(ShardId{1}).has_value());
          }) >= 4);
    CHECK(fail_each(routing, [](Scene& scene) { require(scene.manager.finalize_draining() == 1); },
                    {.emptied = true}) >= 4);
    // Rolling back, and taking a stopped one out.
    for (const auto id : {kProvisioning, kStopped}) {
      CHECK(fail_each(routing, [id](Scene& scene) {
              require(scene.manager.remove_shard(id, scene.queued).has_value());
            }) >= 3);
    }
    CHECK(fail_each(routing, [](Scene& scene) {
            require(scene.manager.remove_stopped_shards() == 1);
          }) >= 3);
  }
}

TEST_CASE("a removal that finds no memory half-way loses nothing and can be repeated",
          "[R-E4][R-C1]") {
  for (const auto routing : kRoutings) {
    CHECK(fail_each(routing,
                    [](Scene& scene) {
                      require(scene.manager.remove_shard(kDraining, scene.queued).has_value());
                    },
                    {.may_change = true}) >= 4);
    CHECK(fail_each(routing,
                    [](Scene& scene) {
                      require(scene.manager.remove_shard(ShardId{1}, scene.queued).has_value());
                    },
                    {.may_change = true, .emptied = true}) >= 6);
  }
}

TEST_CASE("an automatic change that finds no memory leaves no shard behind that nobody knows",
          "[R-E1][R-E7]") {
  for (const auto routing : kRoutings) {
    for (std::uint64_t n = 1;; ++n) {
      Scene scene(routing);
      const auto before = scene.manager.shard_ids().size();
      bool happened = false;
      bool threw = false;
      {
        const AllocationFailure failure(n);
        try {
          static_cast<void>(scene.manager.execute({.kind = ScalingKind::scale_up, .count = 1}));
        } catch (const std::bad_alloc&) {
          threw = true;
        }
        happened = failure.happened();
      }
      CAPTURE(n, to_string(routing));
      CHECK(scene.manager.shard_ids().size() == before + (threw ? 0U : 1U));
      for (const auto id : scene.manager.shard_ids()) {
        if (id > kDraining) {
          CHECK(scene.manager.shard_state(id) == ShardState::active);
        }
      }
      scene.check_afterwards();
      if (!happened) break;
      REQUIRE(n < 1000);
    }
  }
}

TEST_CASE("a policy that finds no memory is not in force", "[R-E19]") {
  for (std::uint64_t n = 1;; ++n) {
    Scene scene(Routing::keyed);
    auto policy = *scene.manager.scaling_policy();
    policy.cooldown = std::chrono::seconds{5};
    const View before(scene.manager);
    bool happened = false;
    bool threw = false;
    {
      const AllocationFailure failure(n);
      try {
        static_cast<void>(scene.manager.set_scaling_policy(policy));
      } catch (const std::bad_alloc&) {
        threw = true;
      }
      happened = failure.happened();
    }
    CHECK((happened || !threw));
    CHECK((scene.manager.scaling_policy() == policy) == !threw);
    scene.check_afterwards();
    if (!happened) break;
    REQUIRE(n < 1000);
  }
}

TEST_CASE("a tick of scaling that finds no memory loses nothing, and the next one goes on",
          "[R-E5][R-C1]") {
  for (const auto routing : kRoutings) {
    for (std::uint64_t n = 1;; ++n) {
      Scene scene(routing);
      scene.queued.clear();
      bool happened = false;
      {
        const AllocationFailure failure(n);
        try {
          static_cast<void>(scene.manager.run_scaling());
        } catch (const std::bad_alloc&) {
        }
        happened = failure.happened();
      }
      CAPTURE(n, to_string(routing));
      scene.check_afterwards();
      if (!happened) break;
      REQUIRE(n < 1000);
    }
  }
}
