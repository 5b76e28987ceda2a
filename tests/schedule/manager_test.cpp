// Waiting for room, closing, and late producers, through the manager.

#include <catch2/catch.hpp>
#include <new>
#include <optional>

#include "schedule/large_blocks.hpp"
#include "schedule/scenario.hpp"
#include "support/tables.hpp"

namespace shard::test {
namespace {

using shard::detail::Item;
using shard::detail::LockGuard;

void ingest_accepted(ScheduledManager& manager, int producer, int events) {
  for (int number = 0; number < events; ++number) {
    require(manager.ingest(event_of(producer, number)) == Outcome::accepted,
            "an event that may wait for ever was not accepted");
  }
}

std::size_t pop(ScheduledManager& manager, Consumer& consumer) {
  EventBatch batch;
  manager.shard(ShardId{0})->pop_batch_into(batch);
  for (const auto& event : batch) {
    consumer.take(event);
  }
  return batch.size();
}

void pop_until(ScheduledManager& manager, Consumer& consumer, std::uint64_t events) {
  while (consumer.events() < events) {
    if (pop(manager, consumer) == 0) {
      give_way();
    }
  }
}

// ---------------------------------------------------------------------------------- block

TEST_CASE("a producer that blocks is always woken", "[R-J4][R-C1][R-D12]") {
  SECTION("by a pop: two producers") {
    const auto found = explore({.preemptions = 1}, [](Execution& run) {
      auto& manager = run.make<ScheduledManager>(small(block_for_ever()));
      auto& consumer = run.make<Consumer>();
      ingest_accepted(manager, 2, 1);  // it is full
      for (int producer = 0; producer < 2; ++producer) {
        run.thread([&manager, producer] { ingest_accepted(manager, producer, 1); });
      }
      run.thread([&] { pop_until(manager, consumer, 3); });
      run.afterwards([&] {
        const auto ledger = manager.ledger();
        require(ledger.accepted == 3 && ledger.offered() == 3 && ledger.balanced(),
                "the events do not add up");
      });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("by a pop: one producer, several events") {
    const auto found = explore({.preemptions = 2}, [](Execution& run) {
      auto& manager = run.make<ScheduledManager>(small(block_for_ever()));
      auto& consumer = run.make<Consumer>();
      run.thread([&] { ingest_accepted(manager, 0, 3); });
      run.thread([&] { pop_until(manager, consumer, 3); });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("by a pop: a batch that is longer than the ring") {
    const auto found = explore({.preemptions = 2}, [](Execution& run) {
      auto& manager = run.make<ScheduledManager>(small(block_for_ever(), 4));
      auto& consumer = run.make<Consumer>();
      run.thread([&] {
        std::array<std::string, 5> texts;
        std::array<Bytes, 5> payloads;
        std::array<Outcome, 5> outcomes{};
        for (int i = 0; i < 5; ++i) {
          texts[static_cast<std::size_t>(i)] = event_of(0, i);
          payloads[static_cast<std::size_t>(i)] = texts[static_cast<std::size_t>(i)];
        }
        require(manager.ingest_batch(payloads, outcomes) == 5, "a batch was not accepted");
      });
      run.thread([&] { pop_until(manager, consumer, 5); });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("by with_shard()") {
    const auto found = explore({.preemptions = 3}, [](Execution& run) {
      auto& manager = run.make<ScheduledManager>(small(block_for_ever()));
      ingest_accepted(manager, 1, 1);
      run.thread([&] { ingest_accepted(manager, 0, 1); });
      run.thread([&] {
        EventBatch batch;
        manager.with_shard(ShardId{0}, [&](auto& locked) { locked.pop_batch_into(batch, 1); });
        require(batch.size() == 1, "nothing to pop from a full shard");
      });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("by a pop that made room and then found no memory to go on") {
    const auto found = explore({.preemptions = 1}, [](Execution& run) {
      auto options = small(block_for_ever(), 512);
      options.ring_bytes = 8192;  // 511 events of 16 bytes
      auto& manager = run.make<ScheduledManager>(options);
      for (int i = 0; i < 511; ++i) {
        require(manager.ingest("x") == Outcome::accepted, "it is full too early");
      }
      run.thread([&] { require(manager.ingest("y") == Outcome::accepted, "not accepted"); });
      run.thread([&] {
        EventBatch batch;
        batch.reserve_more(256, std::size_t{64} << 10U);  // the first hold fits
        no_large_blocks(true);
        bool thrown = false;
        try {
          manager.shard(ShardId{0})->pop_batch_into(batch);
        } catch (const std::bad_alloc&) {
          thrown = true;
        }
        no_large_blocks(false);
        require(thrown && batch.size() == 256, "the second hold was to fail");
      });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("by close()") {
    const auto found = explore({.preemptions = 3}, [](Execution& run) {
      auto& manager = run.make<ScheduledManager>(small(block_for_ever()));
      ingest_accepted(manager, 1, 1);
      run.thread([&] {
        require(manager.ingest(event_of(0, 0)) == Outcome::rejected_closed, "there was no room");
      });
      run.thread([&] { manager.close(); });
      run.afterwards([&] { require(manager.ledger().rejected_closed == 1, "counted once"); });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("by destruction") {
    const auto found = explore({.preemptions = 3}, [](Execution& run) {
      auto& manager =
          run.make<std::optional<ScheduledManager>>(std::in_place, small(block_for_ever()));
      ingest_accepted(*manager, 1, 1);
      auto& producer = run.make<ScheduledManager::Producer>(manager->producer());
      run.thread([&] {
        require(producer.ingest(event_of(0, 0)) == Outcome::rejected_closed, "there was no room");
      });
      run.thread([&] { manager.reset(); });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("by its deadline") {
    const auto found = explore({.preemptions = 1, .timeouts = 1}, [](Execution& run) {
      auto& manager =
          run.make<ScheduledManager>(small(Backpressure::block(std::chrono::milliseconds{5})));
      auto& consumer = run.make<Consumer>();
      auto& told = run.make<std::array<Outcome, 2>>();
      ingest_accepted(manager, 2, 1);
      for (int producer = 0; producer < 2; ++producer) {
        run.thread([&, producer] {
          const auto start = manager.now();
          const auto outcome = manager.ingest(event_of(producer, 0));
          told[static_cast<std::size_t>(producer)] = outcome;
          require(outcome == Outcome::accepted || outcome == Outcome::rejected_timeout,
                  "neither accepted nor timed out");
          require(outcome == Outcome::accepted ||
                      manager.now() >= start.after(std::chrono::milliseconds{5}),
                  "it gave up before its deadline");
        });
      }
      run.thread([&] { pop(manager, consumer); });
      run.afterwards([&] {
        const auto ledger = manager.ledger();
        const auto accepted = std::count(told.begin(), told.end(), Outcome::accepted);
        require(ledger.accepted == 1 + static_cast<std::uint64_t>(accepted), "accepted");
        require(ledger.rejected_timeout == 2 - static_cast<std::uint64_t>(accepted), "timed out");
        require(ledger.balanced(), "the events do not add up");
      });
    });
    INFO(found);
    CHECK(found.passed());
  }
}

// ---------------------------------------------------------------------------------- close

TEST_CASE("nothing is accepted any more when close() has returned", "[R-D12][R-C1]") {
  const auto mode = GENERATE(Backpressure::drop_oldest(), block_for_ever());
  CAPTURE(to_string(mode.mode));
  const auto found = explore({.preemptions = 2 - kFewer}, [mode](Execution& run) {
    struct State {
      explicit State(Backpressure backpressure) : manager(small(backpressure, 2, 2)) {}
      ScheduledManager manager;
      ScheduledAtomic<bool> closed{false};
      std::uint64_t accepted_at_close = 0;
      std::uint64_t accepted = 0;
      std::uint64_t refused = 0;
      void told(Outcome outcome, bool was_closed) {
        require(outcome == Outcome::accepted || outcome == Outcome::rejected_closed, "the outcome");
        require(!was_closed || outcome == Outcome::rejected_closed, "accepted after close()");
        ++(outcome == Outcome::accepted ? accepted : refused);
      }
    };
    auto& state = run.make<State>(mode);
    run.thread([&state] {
      const bool was_closed = state.closed.load();
      state.told(state.manager.ingest(event_of(0, 0)), was_closed);
    });
    run.thread([&state] {
      const std::array<std::string, 2> texts{event_of(1, 0), event_of(1, 1)};
      const std::array<Bytes, 2> payloads{texts[0], texts[1]};
      std::array<Outcome, 2> outcomes{};
      const bool was_closed = state.closed.load();
      (void)state.manager.ingest_batch(payloads, outcomes);
      for (const auto outcome : outcomes) {
        state.told(outcome, was_closed);
      }
    });
    run.thread([&state] {
      state.manager.close();
      state.closed.store(true);
      state.accepted_at_close = state.manager.ledger().accepted;
    });
    run.afterwards([&state] {
      const auto ledger = state.manager.ledger();
      require(ledger.accepted == state.accepted_at_close, "an event landed after close()");
      require(ledger.accepted == state.accepted, "accepted is not what producers were told");
      require(ledger.rejected_closed == state.refused, "refused is not what producers were told");
      require(ledger.balanced() && ledger.offered() == 3, "the events do not add up");
      EventBatch batch;
      for (const auto id : state.manager.shard_ids()) {
        state.manager.shard(id)->pop_batch_into(batch);
      }
      require(batch.size() == ledger.queued, "what is queued cannot be popped after close()");
    });
  });
  INFO(found);
  CHECK(found.passed());
}

// ---------------------------------------------------------------------------------- late producers

/// Two shards, of which the first is taken out of the table while producers push to its slots.
struct Removal {
  explicit Removal(Backpressure backpressure, std::size_t capacity = 4)
      : core(small(backpressure, capacity, 2)),
        first(core.topology.tables.peek()->members[0].core),
        second(core.topology.tables.peek()->members[1].core) {}

  static constexpr std::uint64_t kHashOfFirst = 0;

  Outcome ingest(int producer, int number) {
    const auto payload = event_of(producer, number);
    return core.admit_by_hash(Item{payload, {}, {}}, kHashOfFirst);
  }
  std::size_t ingest_batch(int producer, std::span<Outcome> outcomes) {
    std::vector<std::string> texts;
    std::vector<RawEvent> events;
    for (std::size_t number = 0; number < outcomes.size(); ++number) {
      texts.push_back(event_of(producer, static_cast<int>(number)));
    }
    for (const auto& text : texts) {
      events.push_back(RawEvent::with_hash(text, kHashOfFirst, core.hasher.seed()));
    }
    return core.ingest_raw_batch(events, outcomes);
  }

  void publish_without_first() {
    core.topology.tables.publish(std::make_shared<const Table>(
        shard_test::table_of(2, std::vector{second}, Table::slots_for(core.options.shards))));
  }
  void remove_first() {
    const LockGuard lock(changes);  // close() may come from another thread
    publish_without_first();
    first->raise_min_version(2);
  }

  shard::detail::BasicMutex<ScheduledPlatform> changes;
  ManagerCore core;
  std::shared_ptr<Core> first;
  std::shared_ptr<Core> second;
  Consumer consumer;
};

constexpr std::size_t kFewSteps = 600;  // far more than pushing needs, far less than spinning takes

TEST_CASE("a late producer is refused by the removed shard and finds the newer table at once",
          "[R-D14]") {
  SECTION("single events, with a cached table") {
    const auto found = explore({.preemptions = 3 - kFewer, .steps = kFewSteps}, [](Execution& run) {
      auto& removal = run.make<Removal>(Backpressure::drop_newest());
      run.thread([&] {
        for (int number = 0; number < 3; ++number) {
          require(removal.ingest(0, number) == Outcome::accepted, "an event has no place to go");
        }
      });
      run.thread([&] {
        removal.remove_first();
        removal.consumer.pop(*removal.first);
        const auto left = removal.first->ledger();
        require(left.queued == 0, "it is not empty");
        removal.first->raise_min_version(2);  // a step: others go on
        require(removal.first->ledger() == left, "a push landed in the removed shard");
      });
      run.afterwards([&] {
        require(removal.first->ledger().queued == 0, "a push landed in the removed shard");
        removal.consumer.pop(*removal.second);
        require(removal.consumer.events() == 3, "an event was lost");
      });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("batches beside single events") {
    const auto found = explore({.preemptions = 2 - kFewer, .steps = kFewSteps}, [](Execution& run) {
      auto& removal = run.make<Removal>(Backpressure::drop_newest());
      run.thread([&] {
        for (int i = 0; i < 2; ++i) {
          std::array<Outcome, 1> outcomes{};
          require(removal.ingest_batch(i, outcomes) == 1, "a batch has no place to go");
        }
      });
      run.thread([&] { require(removal.ingest(2, 0) == Outcome::accepted, "no place to go"); });
      run.thread([&] {
        removal.remove_first();
        removal.consumer.pop(*removal.first);
      });
      run.afterwards([&] {
        require(removal.first->ledger().queued == 0, "a push landed in the removed shard");
        removal.consumer.pop(*removal.second);
        require(removal.consumer.events() == 3, "an event was lost");
      });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("a producer that waits for room there") {
    const auto found = explore({.preemptions = 2, .steps = kFewSteps}, [](Execution& run) {
      auto& removal = run.make<Removal>(block_for_ever(), std::size_t{2});
      require(removal.ingest(2, 0) == Outcome::accepted, "it is full already");
      run.thread([&] { require(removal.ingest(0, 0) == Outcome::accepted, "no place to go"); });
      run.thread([&] { removal.remove_first(); });
      run.afterwards([&] {
        require(removal.first->ledger().accepted == 1, "it went to the removed shard");
        require(removal.second->ledger().accepted == 1, "it did not go to the other shard");
      });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("the manager closes meanwhile") {
    const auto found = explore({.preemptions = 2 - kFewer, .steps = kFewSteps}, [](Execution& run) {
      auto& removal = run.make<Removal>(Backpressure::drop_newest());
      run.thread([&] {
        for (int number = 0; number < 2; ++number) {
          const auto outcome = removal.ingest(0, number);
          require(outcome == Outcome::accepted || outcome == Outcome::rejected_closed,
                  "neither accepted nor closed");
        }
      });
      run.thread([&] { removal.remove_first(); });
      run.thread([&] { removal.core.close(); });
    });
    INFO(found);
    CHECK(found.passed());
  }
}

// ---------------------------------------------------------------------------------- broken on purpose

TEST_CASE("the explorer finds a removal that refuses before it publishes", "[R-D14]") {
  const auto found = explore({.preemptions = 1, .steps = kFewSteps}, [](Execution& run) {
    auto& removal = run.make<Removal>(Backpressure::drop_newest());
    run.thread([&] { (void)removal.ingest(0, 0); });
    run.thread([&] {
      removal.first->raise_min_version(2);
      removal.publish_without_first();
    });
  });
  INFO(found);
  CHECK(found.failure.find("a thread spins") != std::string::npos);
}

TEST_CASE("the explorer finds a removal that publishes and does not refuse", "[R-D14]") {
  const auto found = explore({.preemptions = 1, .steps = kFewSteps}, [](Execution& run) {
    auto& removal = run.make<Removal>(Backpressure::drop_newest());
    run.thread([&] { (void)removal.ingest(0, 0); });
    run.thread([&] {
      removal.publish_without_first();
      removal.consumer.pop(*removal.first);
    });
    run.afterwards([&] {
      require(removal.first->ledger().queued == 0, "a push landed in the removed shard");
    });
  });
  INFO(found);
  CHECK(found.failure == "a push landed in the removed shard");
}

TEST_CASE("the explorer finds a close that does not wait for pushes under way", "[R-D12]") {
  const auto found = explore({.preemptions = 1}, [](Execution& run) {
    struct State {
      ManagerCore core{small(Backpressure::drop_newest())};
      ScheduledAtomic<bool> closed{false};
      std::uint64_t at_close = 0;
    };
    auto& state = run.make<State>();
    run.thread([&state] {
      const auto payload = event_of(0, 0);
      if (!state.closed.load()) {  // a flag, looked at without the lock
        (void)state.core.admit_by_hash(Item{payload, {}, {}}, 0);
      }
    });
    run.thread([&state] {
      state.closed.store(true);
      state.at_close = state.core.topology.tables.peek()->members[0].core->ledger().accepted;
    });
    run.afterwards([&state] {
      require(
          state.core.topology.tables.peek()->members[0].core->ledger().accepted == state.at_close,
          "an event landed after close()");
    });
  });
  INFO(found);
  CHECK(found.failure == "an event landed after close()");
}

}  // namespace
}  // namespace shard::test
