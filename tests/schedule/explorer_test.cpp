// The explorer itself: it must find what it is there for, and count what it has tried.

#include <catch2/catch.hpp>

#include "support/schedule.hpp"

namespace shard::test {
namespace {

using Word = ScheduledPlatform::Word;

/// Two threads that add by a load and a store.
void lost_update(Execution& run) {
  auto& count = run.make<Word>(0U);
  for (int i = 0; i < 2; ++i) {
    run.thread([&] { count.store(count.load() + 1); });
  }
  run.afterwards([&] { require(count.load() == 2, "an update was lost"); });
}

TEST_CASE("the explorer finds a lost update with one preemption, and not without") {
  const auto without = explore({.preemptions = 0}, lost_update);
  INFO(without);
  CHECK(without.passed());
  CHECK(without.executions == 2);  // A first or B first

  const auto with = explore({.preemptions = 1}, lost_update);
  INFO(with);
  CHECK(with.failure == "an update was lost");
}

TEST_CASE("the explorer tries every interleaving exactly once") {
  // Two threads of n stores each make (2n)! / (n! n!) of them.
  for (const auto& [n, expected] : {std::pair(1, 2U), {2, 6U}, {3, 20U}, {4, 70U}}) {
    const auto found = explore({.preemptions = 100}, [n = n](Execution& run) {
      auto& word = run.make<Word>(0U);
      for (int i = 0; i < 2; ++i) {
        run.thread([&word, n] {
          for (int k = 0; k < n; ++k) {
            word.store(0);
          }
        });
      }
    });
    INFO(found);
    CHECK(found.passed());
    CHECK(found.executions == expected);
  }
}

TEST_CASE("a schedule that the explorer prints repeats the failure") {
  const auto found = explore({.preemptions = 1}, lost_update);
  REQUIRE(!found.failure.empty());
  const auto again = explore({.preemptions = 1, .replay = found.schedule}, lost_update);
  CHECK(again.executions == 1);
  CHECK(again.failure == found.failure);
  CHECK(again.trace == found.trace);
}

TEST_CASE("the explorer finds threads that park for ever") {
  const auto found = explore({}, [](Execution& run) {
    auto& word = run.make<Word>(0U);
    run.thread([&] {
      if (word.load() == 0) {
        ScheduledPlatform::park(word, 0);
      }
    });
    run.thread([&] {
      ScheduledPlatform::unpark_all(word);  // too early: the word must change first
      word.store(1);
    });
  });
  INFO(found);
  CHECK(found.failure == "deadlock: A is never woken");
}

TEST_CASE("the explorer finds a thread that spins for what nobody does") {
  const auto found = explore({.steps = 100}, [](Execution& run) {
    auto& word = run.make<Word>(0U);
    run.thread([&] {
      while (word.load() == 0) {
        ScheduledPlatform::relax();
      }
    });
    run.thread([&] { (void)word.load(); });
  });
  INFO(found);
  CHECK(found.failure.find("a thread spins") != std::string::npos);
}

TEST_CASE("a thread that spins makes way for the one it waits for") {
  const auto found = explore({}, [](Execution& run) {
    auto& word = run.make<Word>(0U);
    run.thread([&] {
      while (word.load() == 0) {
        ScheduledPlatform::relax();
      }
    });
    run.thread([&] { word.store(1); });
  });
  INFO(found);
  CHECK(found.passed());
}

TEST_CASE("time passes when nobody can go on, and before that as often as the bound says") {
  const auto scenario = [](bool& woken_early, Execution& run) {
    auto& word = run.make<Word>(0U);
    auto& clock = run.make<Clock>(&scheduled_time());
    run.thread([&] {
      const auto deadline = clock.now().after(std::chrono::seconds{1});
      while (word.load() == 0) {
        if (!ScheduledPlatform::park_until(word, 0, clock, deadline)) {
          require(clock.now() >= deadline, "the deadline has passed");
          woken_early = woken_early || word.load() == 0;
          return;
        }
      }
    });
    run.thread([&] {
      word.store(1);
      ScheduledPlatform::unpark_all(word);
    });
  };
  for (const unsigned timeouts : {0U, 1U}) {
    bool early = false;
    const auto found =
        explore({.timeouts = timeouts}, [&](Execution& run) { scenario(early, run); });
    INFO(found);
    CHECK(found.passed());
    CHECK(early == (timeouts == 1));
  }
}

TEST_CASE("unpark_one() wakes each of the parked threads in some schedule") {
  bool first[2] = {};
  const auto found = explore({}, [&](Execution& run) {
    auto& word = run.make<Word>(0U);
    auto& woken = run.make<Word>(0U);
    for (int i = 0; i < 2; ++i) {
      run.thread([&, i] {
        ScheduledPlatform::park(word, 0);
        if (woken.exchange(1) == 0) {
          first[i] = true;
        }
      });
    }
    run.thread([&] {
      ScheduledPlatform::unpark_one(word);
      word.store(1);
      ScheduledPlatform::unpark_all(word);
    });
  });
  INFO(found);
  CHECK(found.passed());
  CHECK(first[0]);
  CHECK(first[1]);
}

TEST_CASE("a scenario that is not the same each time is found out") {
  int runs = 0;
  const auto found = explore({}, [&](Execution& run) {
    auto& word = run.make<Word>(0U);
    const int stores = ++runs == 1 ? 3 : 1;
    run.thread([&word, stores] {
      for (int i = 0; i < stores; ++i) {
        word.store(0);
      }
    });
    run.thread([&word] { word.store(1); });
    if (runs > 1) {
      run.thread([&word] { word.store(1); });
    }
  });
  CHECK(found.failure == "the scenario does not do the same when it is run again");
}

}  // namespace
}  // namespace shard::test
