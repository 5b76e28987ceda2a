#include <catch2/catch.hpp>

#include "shard/detail/event_count.hpp"
#include "support/schedule.hpp"

namespace shard::test {
namespace {

using EventCount = shard::detail::EventCount<ScheduledPlatform>;

struct Shared {
  EventCount count;
  ScheduledAtomic<int> ready{0};
  Clock clock{&scheduled_time()};
};

void wait_for(Shared& shared, int wanted) {
  for (;;) {
    const auto ticket = shared.count.prepare();
    if (shared.ready.load() >= wanted) {
      return;
    }
    require(shared.count.wait_until(ticket, shared.clock, Timestamp::max()),
            "there is no deadline");
  }
}

TEST_CASE("who waits on an event count is woken by what happens after prepare()", "[R-J4]") {
  SECTION("one waiter, two notifications") {
    const auto found = explore({.preemptions = 8}, [](Execution& run) {
      auto& shared = run.make<Shared>();
      run.thread([&] { wait_for(shared, 2); });
      run.thread([&] {
        for (int i = 1; i <= 2; ++i) {
          shared.ready.store(i);
          shared.count.notify_all();
        }
      });
    });
    INFO(found);
    CHECK(found.passed());
  }
  SECTION("two waiters for different conditions, one notifier") {
    const auto found = explore({.preemptions = 3}, [](Execution& run) {
      auto& shared = run.make<Shared>();
      run.thread([&] { wait_for(shared, 1); });
      run.thread([&] { wait_for(shared, 2); });
      run.thread([&] {
        for (int i = 1; i <= 2; ++i) {
          shared.ready.store(i);
          shared.count.notify_all();
        }
      });
    });
    INFO(found);
    CHECK(found.passed());
  }
  SECTION("one waiter, two notifiers") {
    const auto found = explore({.preemptions = 3}, [](Execution& run) {
      auto& shared = run.make<Shared>();
      run.thread([&] { wait_for(shared, 2); });
      for (int i = 0; i < 2; ++i) {
        run.thread([&] {
          shared.ready.fetch_add(1);
          shared.count.notify_all();
        });
      }
    });
    INFO(found);
    CHECK(found.passed());
  }
}

TEST_CASE("waiting on an event count ends at the deadline", "[R-J4]") {
  const auto found = explore({.preemptions = 3, .timeouts = 2}, [](Execution& run) {
    auto& shared = run.make<Shared>();
    run.thread([&] {
      const auto deadline = shared.clock.now().after(std::chrono::milliseconds{5});
      for (;;) {
        const auto ticket = shared.count.prepare();
        if (shared.ready.load() != 0) {
          return;
        }
        if (!shared.count.wait_until(ticket, shared.clock, deadline)) {
          require(shared.clock.now() >= deadline, "it gave up before the deadline");
          return;
        }
      }
    });
    run.thread([&] { shared.count.notify_all(); });  // nothing has happened
  });
  INFO(found);
  CHECK(found.passed());
}

// ---------------------------------------------------------------------------------- broken on purpose

TEST_CASE("the explorer finds a waiter that looks before it announces itself") {
  const auto found = explore({.preemptions = 1}, [](Execution& run) {
    auto& shared = run.make<Shared>();
    run.thread([&] {
      while (shared.ready.load() == 0) {
        const auto ticket = shared.count.prepare();
        shared.count.wait_until(ticket, shared.clock, Timestamp::max());
      }
    });
    run.thread([&] {
      shared.ready.store(1);
      shared.count.notify_all();
    });
  });
  INFO(found);
  CHECK(found.failure == "deadlock: A is never woken");
}

TEST_CASE("the explorer finds a notifier that notifies before the condition is true") {
  const auto found = explore({.preemptions = 1}, [](Execution& run) {
    auto& shared = run.make<Shared>();
    run.thread([&] { wait_for(shared, 1); });
    run.thread([&] {
      shared.count.notify_all();
      shared.ready.store(1);
    });
  });
  INFO(found);
  CHECK(found.failure == "deadlock: A is never woken");
}

/// An event count whose bit alone tells that somebody waits: without an epoch a ticket stays good for ever.
struct WithoutEpoch {
  ScheduledPlatform::Word word{0};
  void prepare() noexcept { word.fetch_or(1); }
  void notify_all() noexcept {
    if ((word.load() & 1U) != 0) {
      ScheduledPlatform::unpark_all(word);
    }
  }
};

TEST_CASE("the explorer finds an event count that forgets notifications before the park") {
  const auto found = explore({.preemptions = 1}, [](Execution& run) {
    auto& count = run.make<WithoutEpoch>();
    auto& ready = run.make<ScheduledAtomic<int>>(0);
    run.thread([&] {
      count.prepare();
      while (ready.load() == 0) {
        ScheduledPlatform::park(count.word, 1);
      }
    });
    run.thread([&] {
      ready.store(1);
      count.notify_all();
    });
  });
  INFO(found);
  CHECK(found.failure == "deadlock: A is never woken");
}

}  // namespace
}  // namespace shard::test
