// Many operators at once, at every lifecycle call.

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <latch>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "shard/detail/manager_core_impl.hpp"
#include "shard/manager.hpp"
#include "support/books.hpp"
#include "support/elastic.hpp"
#include "support/failures.hpp"

namespace {

using shard::EventBatch;
using shard::Key;
using shard::Manager;
using shard::Outcome;
using shard::Routing;
using shard::ScalingKind;
using shard::ShardId;
using shard::ShardState;
using shard_test::elastic_options;
using shard_test::Failures;
using shard_test::Tally;

// ThreadSanitizer slows all this down by a factor of ten or more.
#if defined(__SANITIZE_THREAD__)
constexpr std::size_t kScale = 1;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr std::size_t kScale = 1;
#else
constexpr std::size_t kScale = 5;
#endif
#else
constexpr std::size_t kScale = 5;
#endif

constexpr std::size_t kOperators = 8;
constexpr std::size_t kMin = 2;
constexpr std::size_t kMax = 6;

shard::ManagerOptions options(Routing routing) {
  auto options = elastic_options(routing, 3, kMin, kMax, nullptr, 64);
  options.scaling->metrics_window = std::chrono::milliseconds{1};
  options.backpressure = shard::Backpressure::drop_oldest();
  return options;
}

/// For how long operators go on: until each has made so many calls and so much time has passed.
struct Extent {
  std::size_t calls_each = 0;
  std::chrono::seconds time{0};

  [[nodiscard]] bool goes_on(std::size_t calls, std::chrono::steady_clock::time_point start) const {
    return calls < calls_each || std::chrono::steady_clock::now() - start < time;
  }
};

/// Eight operators, two producers and a reader of tables. What is checked of each table holds whatever happens.
void tables_stay_within_bounds(Routing routing, const Extent& extent) {
  using Core = shard::detail::ManagerCore<shard::detail::SystemPlatform>;
  Core core(options(routing));
  Failures failures;
  std::atomic<bool> done{false};
  std::latch start(kOperators + 3);
  std::atomic<std::size_t> changes{0};
  std::size_t tables_seen = 0;

  std::thread reader([&] {
    start.arrive_and_wait();
    std::uint64_t version = 0;
    while (!done) {
      const auto table = core.topology.tables.peek();
      if (table->version == version) {
        std::this_thread::yield();
        continue;
      }
      failures.check(table->version > version, "a version came back");
      version = table->version;
      ++tables_seen;
      const auto active = table->count(ShardState::active);
      failures.check(active >= kMin, "fewer active shards than min_shards");
      failures.check(active + table->count(ShardState::provisioning) <= kMax,
                     "more shards than max_shards");
      failures.check(std::is_sorted(table->members.begin(), table->members.end(),
                                    [](const auto& left, const auto& right) {
                                      return left.core->id() < right.core->id();
                                    }),
                     "the members are not in order");
      for (const auto slot : table->slots) {
        if (!failures.check(
                slot < table->members.size() && table->members[slot].state == ShardState::active,
                "a slot leads to a shard that is not active")) {
          break;
        }
      }
    }
  });

  std::vector<std::thread> producers;
  std::vector<std::uint64_t> offered(2, 0);
  for (std::size_t p = 0; p < 2; ++p) {
    producers.emplace_back([&, p] {
      start.arrive_and_wait();
      while (!done) {
        const auto text = std::to_string(offered[p]++);
        const auto outcome =
            core.admit_by_hash(shard::detail::Item{text, {}, {}}, core.hasher(text));
        failures.check(outcome == Outcome::accepted, "an event was not accepted");
      }
    });
  }

  std::vector<std::thread> operators;
  std::vector<std::uint64_t> returned(kOperators, 0);
  for (std::size_t o = 0; o < kOperators; ++o) {
    operators.emplace_back([&, o] {
      std::mt19937 random(static_cast<unsigned>(o));
      EventBatch batch;
      start.arrive_and_wait();
      const auto begin = std::chrono::steady_clock::now();
      for (std::size_t call = 0; extent.goes_on(call, begin); ++call) {
        const auto table = core.topology.tables.peek();
        const auto& member = table->members[random() % table->members.size()];
        const auto id = member.core->id();
        batch.clear();
        bool changed = false;
        switch (random() % 7) {
          case 0:
            changed = core.topology.add(random() % 2 == 0).has_value();
            break;
          case 1:
          case 2:
            changed = core.topology.activate(id).has_value();
            break;
          case 3:
            changed = core.topology.drain(id).has_value();
            break;
          case 4:
            changed = core.topology.remove(id, batch).has_value();
            break;
          case 5:
            changed = core.topology.finalize_draining() != 0;
            static_cast<void>(core.topology.set_policy(*core.topology.policy()));
            break;
          default:
            member.core->pop(batch, 100, 1U << 20U);
            static_cast<void>(core.scaler.evaluate({}, true));
            static_cast<void>(core.scaler.move_slots({}));
        }
        returned[o] += batch.size();
        changes += changed ? 1U : 0U;
      }
    });
  }
  for (auto& thread : operators) thread.join();
  done = true;
  for (auto& thread : producers) thread.join();
  reader.join();

  CHECK(failures.text().empty());
  INFO(failures.text());
  CHECK(changes > extent.calls_each / 10);
  CHECK(tables_seen > 1);
  // And nothing was lost on the way.
  const auto table = core.topology.tables.peek();
  auto ledger = core.own_counts();
  ledger += table->base;
  for (const auto& member : table->members) ledger += member.core->ledger();
  CHECK(ledger.balanced());
  CHECK(ledger.accepted == offered[0] + offered[1]);
  CHECK(ledger.abandoned_queued == 0);
  std::uint64_t popped = 0;
  for (const auto count : returned) popped += count;
  CHECK(ledger.returned == popped);
}

/// The same by the public operations, with callbacks; each shard is announced once as it comes and once as it goes.
void callbacks_tell_all(Routing routing, const Extent& extent) {
  Manager manager(options(routing));
  Failures failures;
  std::mutex mutex;
  std::set<ShardId> here;
  std::set<ShardId> gone;
  manager.set_shard_callbacks(
      {.added =
           [&](ShardId id) {
             static_cast<void>(manager.shard_state(id));
             const std::lock_guard lock(mutex);
             failures.check(here.insert(id).second, "a shard was added twice");
           },
       .removed =
           [&](ShardId id) {
             failures.check(!manager.shard_state(id), "a removed shard is still there");
             const std::lock_guard lock(mutex);
             failures.check(gone.insert(id).second, "a shard was removed twice");
           }});
  std::latch start(kOperators);
  std::vector<Tally> tallies(kOperators);
  std::vector<std::uint64_t> returned(kOperators, 0);
  std::vector<std::thread> operators;
  for (std::size_t o = 0; o < kOperators; ++o) {
    operators.emplace_back([&, o] {
      std::mt19937 random(static_cast<unsigned>(100 + o));
      EventBatch batch;
      auto producer = manager.producer();
      start.arrive_and_wait();
      const auto begin = std::chrono::steady_clock::now();
      for (std::size_t call = 0; extent.goes_on(call, begin); ++call) {
        const auto ids = manager.shard_ids();
        const auto id = ids[random() % ids.size()];
        batch.clear();
        switch (random() % 12) {
          case 0:
            if (const auto added = manager.add_shard_force()) {
              static_cast<void>(manager.activate_shard(*added));
            }
            break;
          case 1:
            static_cast<void>(manager.add_shard());
            break;
          case 2:
            static_cast<void>(manager.activate_shard(id));
            break;
          case 3:
            static_cast<void>(manager.drain_shard(id));
            break;
          case 4:
            static_cast<void>(manager.remove_shard(id, batch));
            break;
          case 5:
            manager.finalize_draining();
            manager.remove_stopped_shards();
            break;
          case 6:
            static_cast<void>(manager.execute({.kind = ScalingKind::scale_up, .count = 2}));
            break;
          case 7:
            static_cast<void>(manager.run_scaling());
            break;
          case 8: {
            // One of two policies, whole: never the bounds of one with the cooldown of the other.
            auto policy = *manager.scaling_policy();
            failures.check((policy.cooldown.count() == 0) == (policy.max_step == 4),
                           "half a policy was seen");
            const bool other = random() % 2 == 0;
            policy.cooldown = std::chrono::nanoseconds{other ? 1 : 0};
            policy.max_step = other ? 5 : 4;
            failures.check(!manager.set_scaling_policy(policy), "a policy was refused");
            break;
          }
          case 9: {
            const auto metrics = manager.collect_metrics();  // of one table
            std::size_t active = 0;
            std::size_t provisioning = 0;
            for (const auto& shard : metrics) {
              active += shard.state == ShardState::active ? 1U : 0U;
              provisioning += shard.state == ShardState::provisioning ? 1U : 0U;
            }
            failures.check(metrics.empty() || (active >= kMin && active + provisioning <= kMax),
                           "the metrics show shards out of bounds");
            static_cast<void>(manager.evaluate_scaling());
            break;
          }
          default:
            for (int i = 0; i < 5; ++i) {
              tallies[o].saw(manager.ingest("x", Key{std::to_string(random() % 100)}));
              tallies[o].saw(producer.ingest("y"));
            }
            if (const auto handle = manager.shard(id)) {
              tallies[o].saw(handle->try_push("z"));
              handle->pop_batch_into(batch);
            }
        }
        returned[o] += batch.size();
      }
    });
  }
  for (auto& thread : operators) thread.join();

  INFO(failures.text());
  CHECK(failures.text().empty());
  shard_test::check_agreement(manager);
  Tally tally;
  for (const auto& each : tallies) tally += each;
  std::uint64_t popped = 0;
  for (const auto count : returned) popped += count;
  const auto ledger = manager.ledger();
  CHECK(ledger == tally.ledger({.evicted = ledger.evicted, .returned = popped}));
  // The first three were there before anybody listened.
  for (std::uint32_t id = 0; id < 3; ++id) here.insert(ShardId{id});
  for (const auto id : manager.shard_ids()) gone.insert(id);
  CHECK(here == gone);
  CHECK(here.size() > 3);
}

}  // namespace

TEST_CASE("no published table is out of bounds while eight operators change the shards",
          "[R-E3][R-D11][R-C1]") {
  for (const auto routing : {Routing::balanced, Routing::keyed}) {
    tables_stay_within_bounds(routing, {.calls_each = 300 * kScale});
  }
}

TEST_CASE("operators, callbacks, policies, producers and consumers may all run at once",
          "[R-E3][R-E17][R-E19][R-C7]") {
  for (const auto routing : {Routing::balanced, Routing::keyed}) {
    callbacks_tell_all(routing, {.calls_each = 300 * kScale});
  }
}

TEST_CASE("eight operators for a minute", "[.long][R-E3]") {
  for (const auto routing : {Routing::balanced, Routing::keyed}) {
    tables_stay_within_bounds(routing, {.time = std::chrono::seconds{15}});
    callbacks_tell_all(routing, {.time = std::chrono::seconds{15}});
  }
}
