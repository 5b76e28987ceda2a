// Pushes, pops and evictions of one shard; the ring is one step.

#include <catch2/catch.hpp>

#include "schedule/scenario.hpp"

namespace shard::test {
namespace {

/// A shard alone, and the counts of what its producers were told.
struct OneShard {
  OneShard(Backpressure backpressure, std::size_t capacity)
      : core(ShardId{0}, small(backpressure, capacity), clock) {}

  Outcome push(int producer, int number) {
    const auto payload = event_of(producer, number);
    shard::detail::Waiting none{.allowed = false};
    const auto verdict = core.push(1, {payload, {}, {}}, Core::kNoSlot, clock.now(), none);
    require(shard::detail::is_final(verdict), "a push has no outcome");
    const auto told = shard::detail::outcome(verdict);
    ++outcomes[static_cast<std::size_t>(told)];
    return told;
  }
  [[nodiscard]] std::uint64_t count(Outcome told) const {
    return outcomes[static_cast<std::size_t>(told)];
  }
  void settle(std::uint64_t offered) {
    consumer.settle(core, offered);
    const auto ledger = core.ledger();
    require(ledger.accepted == count(Outcome::accepted) &&
                ledger.dropped_newest == count(Outcome::dropped_newest) &&
                ledger.rejected_full == count(Outcome::rejected_full) &&
                ledger.sampled_out == count(Outcome::sampled_out),
            "the ledger is not what the producers were told");
  }

  Clock clock{&scheduled_time()};
  Core core;
  Consumer consumer;
  std::array<std::uint64_t, 16> outcomes{};
};

TEST_CASE("the laws and the order hold while producers push, evict and a consumer pops",
          "[R-A2][R-C1][R-C2][R-J4]") {
  const auto mode = GENERATE(Backpressure::drop_newest(), Backpressure::drop_oldest(),
                             Backpressure::fail_producer(), Backpressure::sample(2));
  const auto scenario = [mode](int producers, int events) {
    return [=](Execution& run) {
      auto& shard = run.make<OneShard>(mode, std::size_t{2});  // one event fits
      for (int producer = 0; producer < producers; ++producer) {
        run.thread([&shard, producer, events] {
          for (int number = 0; number < events; ++number) {
            (void)shard.push(producer, number);
          }
        });
      }
      run.thread([&shard] {
        shard.consumer.pop(shard.core, 1);
        shard.consumer.pop(shard.core);
      });
      run.afterwards([&shard, producers, events] {
        shard.settle(static_cast<std::uint64_t>(producers) * static_cast<std::uint64_t>(events));
        const bool evicts = shard.core.ledger().evicted != 0;
        require(!evicts ||
                    shard.count(Outcome::dropped_newest) + shard.count(Outcome::rejected_full) == 0,
                "a mode that keeps the old events evicts");
      });
    };
  };
  CAPTURE(to_string(mode.mode));
  SECTION("one producer") {
    const auto found = explore({.preemptions = 3 - kFewer}, scenario(1, 3));
    INFO(found);
    CHECK(found.passed());
  }
  SECTION("two producers") {
    const auto found = explore({.preemptions = 2 - kFewer}, scenario(2, 2));
    INFO(found);
    CHECK(found.passed());
  }
}

TEST_CASE("two consumers of one shard get each event once, while it is evicted from as well",
          "[R-A2][R-C1]") {
  const auto found = explore({.preemptions = 2}, [](Execution& run) {
    auto& shard = run.make<OneShard>(Backpressure::drop_oldest(), std::size_t{4});
    auto& consumers = run.make<std::array<Consumer, 2>>();
    for (int number = 0; number < 3; ++number) {
      (void)shard.push(0, number);
    }
    for (auto& consumer : consumers) {
      run.thread([&] { consumer.pop(shard.core, 2); });
    }
    run.thread([&] { (void)shard.push(1, 0); });
    run.afterwards([&] {
      const auto popped = consumers[0].events() + consumers[1].events();
      require(shard.core.ledger().returned == popped, "an event was popped twice, or lost");
      require(shard.core.ledger().balanced(), "the accepted events do not add up");
    });
  });
  INFO(found);
  CHECK(found.passed());
}

TEST_CASE("a ledger read while events move never shows more out than in", "[R-C8][R-A6]") {
  const auto found = explore({.preemptions = 2}, [](Execution& run) {
    auto& shard = run.make<OneShard>(Backpressure::drop_oldest(), std::size_t{2});
    run.thread([&] {
      (void)shard.push(0, 0);
      (void)shard.push(0, 1);
    });
    run.thread([&] { shard.consumer.pop(shard.core); });
    run.thread([&] {
      std::uint64_t out = 0;
      for (int i = 0; i < 2; ++i) {
        const auto ledger = shard.core.ledger();
        const auto gone = ledger.returned + ledger.evicted + ledger.abandoned_queued;
        require(gone <= ledger.accepted, "the ledger shows more out than in");
        require(gone >= out, "a counter goes down");
        require(ledger.queued <= 1, "the ledger shows more queued than fit");
        out = gone;
      }
      const auto stats = shard.core.stats();
      require(stats.events_dispatched + stats.events_dropped <= stats.events_ingested,
              "the stats show more out than in");
      require(shard.core.length() <= 1, "the length is above what fits");
      require(shard.core.fill_ratio() <= 1.0, "the fill ratio is above 1");
    });
    run.afterwards([&] { shard.settle(2); });
  });
  INFO(found);
  CHECK(found.passed());
}

TEST_CASE("retiring a shard abandons what is left, whoever pushes and pops meanwhile",
          "[R-C1][R-D12]") {
  const auto found = explore({.preemptions = 2}, [](Execution& run) {
    auto& shard = run.make<OneShard>(Backpressure::drop_oldest(), std::size_t{4});
    (void)shard.push(0, 0);
    run.thread([&] {
      const auto payload = event_of(1, 0);
      shard::detail::Waiting waiting;
      const auto verdict =
          shard.core.push(1, {payload, {}, {}}, Core::kNoSlot, shard.clock.now(), waiting);
      require(
          verdict == shard::detail::Verdict::stale || verdict == shard::detail::Verdict::accepted,
          "a push to a shard with room was refused");
      shard.outcomes[0] += verdict == shard::detail::Verdict::accepted ? 1 : 0;
    });
    run.thread([&] { shard.consumer.pop(shard.core, 1); });
    run.thread([&] { shard.core.retire(); });
    run.afterwards([&] {
      const auto ledger = shard.core.ledger();
      require(ledger.accepted == shard.count(Outcome::accepted), "a push landed unseen");
      require(ledger.returned == shard.consumer.events(), "a pop is not counted");
      require(ledger.balanced() && ledger.queued == 0, "the accepted events do not add up");
      require(shard.consumer.pop(shard.core) == 0, "a retired shard gives events");
    });
  });
  INFO(found);
  CHECK(found.passed());
}

// ---------------------------------------------------------------------------------- broken on purpose

TEST_CASE("the explorer finds two threads that move the read index of a ring", "[R-A2]") {
  if constexpr (shard::detail::kDebugChecks) {
    const auto found = explore({.preemptions = 1}, [](Execution& run) {
      auto& ring = run.make<shard::detail::Ring>(std::size_t{4});
      auto& word = run.make<ScheduledAtomic<int>>(0);
      for (int i = 0; i < 2; ++i) {
        run.thread([&] {
          const auto turn = ring.read_turn();  // without the lock
          word.store(1);
          word.store(2);
        });
      }
    });
    INFO(found);
    CHECK(found.failure == "two threads move the read index of a ring");
  }
}

}  // namespace
}  // namespace shard::test
