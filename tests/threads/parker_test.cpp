// The parkers, the mutex and the snapshot cell under real threads; ThreadSanitizer looks on.

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "shard/detail/event_count.hpp"
#include "shard/detail/mutex.hpp"
#include "shard/detail/platform.hpp"
#include "shard/detail/snapshot.hpp"

namespace shard::test {
namespace {

using detail::BasicMutex;
using detail::LockGuard;
using detail::PortableParker;
using detail::SystemPlatform;

/// The machine with the portable parker, and without process barriers.
struct PortablePlatform {
  template <class T>
  using Atomic = std::atomic<T>;
  using Word = PortableParker::Word;
  static void relax() noexcept { SystemPlatform::relax(); }
  static constexpr int kSpins = 64;
  static void yield() noexcept { SystemPlatform::yield(); }
  static constexpr int kYields = 2;
  static void park(const Word& word, std::uint32_t expected) noexcept {
    PortableParker::park(word, expected);
  }
  static bool park_until(const Word& word, std::uint32_t expected, const Clock& clock,
                         Timestamp deadline) noexcept {
    return PortableParker::park_until(word, expected, clock, deadline);
  }
  static void unpark_one(const Word& word) noexcept { PortableParker::unpark_all(word); }
  static void unpark_all(const Word& word) noexcept { PortableParker::unpark_all(word); }
  static bool enable_process_barrier() noexcept { return false; }
  static bool process_barrier() noexcept { return false; }
};

/// Time that a test moves.
class HandTime final : public TimeSource {
 public:
  [[nodiscard]] std::uint64_t nanoseconds() const noexcept override { return now_.load(); }
  void advance(std::chrono::nanoseconds span) {
    now_.fetch_add(static_cast<std::uint64_t>(span.count()));
  }

 private:
  std::atomic<std::uint64_t> now_{1};
};

// Nothing here waits for a length of time; what would be lost would hang, and ctest ends that.

TEMPLATE_TEST_CASE("a parked thread is woken when the word has changed", "[R-J4]", SystemPlatform,
                   PortablePlatform) {
  // Two threads hand a number back and forth, so each parks for nearly every step.
  constexpr std::uint32_t kSteps = 5'000;
  typename TestType::Word word{0};
  const auto side = [&word](std::uint32_t parity) {
    for (auto next = parity; next < kSteps; next += 2) {
      for (auto now = word.load(); now != next; now = word.load()) {
        TestType::park(word, now);
      }
      word.store(next + 1);
      TestType::unpark_one(word);
    }
  };
  std::jthread other([&] { side(1); });
  side(0);
  other.join();
  CHECK(word.load() == kSteps);
}

TEMPLATE_TEST_CASE("unpark_all() wakes all who are parked on the word", "[R-J4]", SystemPlatform,
                   PortablePlatform) {
  constexpr int kRounds = 200;
  constexpr int kThreads = 4;
  typename TestType::Word word{0};
  typename TestType::Word other{0};  // parked on by nobody, in another place
  std::atomic<int> arrived{0};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        for (std::uint32_t round = 0; round < kRounds; ++round) {
          ++arrived;
          while (word.load() == round) {
            TestType::park(word, round);
          }
        }
      });
    }
    for (int round = 1; round <= kRounds; ++round) {
      while (arrived.load() != round * kThreads) {
        std::this_thread::yield();
      }
      TestType::unpark_all(other);
      word.fetch_add(1);
      TestType::unpark_all(word);
    }
  }
  CHECK(arrived.load() == kRounds * kThreads);
}

TEMPLATE_TEST_CASE("parking ends at once when the word differs or the deadline has passed",
                   "[R-J4]", SystemPlatform, PortablePlatform) {
  const Clock clock;
  const typename TestType::Word word{7};
  TestType::park(word, 8);
  CHECK(TestType::park_until(word, 8, clock, Timestamp::max()));
  const auto now = clock.now();
  CHECK_FALSE(TestType::park_until(word, 7, clock, now));
  CHECK_FALSE(TestType::park_until(word, 7, clock, Timestamp{0}));
}

TEMPLATE_TEST_CASE("a deadline ends a park, and never before its time", "[R-J4]", SystemPlatform,
                   PortablePlatform) {
  const Clock clock;
  const typename TestType::Word word{0};
  const auto deadline = clock.now().after(std::chrono::milliseconds{3});
  while (TestType::park_until(word, 0, clock, deadline)) {  // it may return early
    CHECK(word.load() == 0);
  }
  CHECK(clock.now() >= deadline);
}

TEMPLATE_TEST_CASE("a deadline follows the time source that the clock was given", "[R-J4]",
                   SystemPlatform, PortablePlatform) {
  HandTime time;
  const Clock clock(&time);
  const typename TestType::Word word{0};
  const auto deadline = clock.now().after(std::chrono::hours{1});
  std::atomic<bool> expired{false};
  std::atomic<int> looks{0};
  std::jthread waiter([&] {
    while (TestType::park_until(word, 0, clock, deadline)) {
      ++looks;
    }
    expired = true;
  });
  while (looks.load() < 2) {  // it looks again by itself, since nobody tells it of this time
    std::this_thread::yield();
  }
  CHECK_FALSE(expired.load());
  time.advance(std::chrono::hours{1});
  waiter.join();
  CHECK(expired.load());
}

TEMPLATE_TEST_CASE("no wake-up of an event count is lost under real threads", "[R-J4]",
                   SystemPlatform, PortablePlatform) {
  constexpr int kSteps = 5'000;
  detail::EventCount<TestType> count;
  const Clock clock;
  std::atomic<int> ready{0};
  std::atomic<int> taken{0};
  const auto wait_until = [&](const std::atomic<int>& what, int value) {
    for (;;) {
      const auto ticket = count.prepare();
      if (what.load() >= value) {
        return;
      }
      count.wait_until(ticket, clock, Timestamp::max());
    }
  };
  std::vector<std::jthread> waiters;
  for (int t = 0; t < 2; ++t) {
    waiters.emplace_back([&] {
      for (int step = 1; step <= kSteps; ++step) {
        wait_until(ready, step);
        ++taken;
        count.notify_all();
      }
    });
  }
  for (int step = 1; step <= kSteps; ++step) {
    ready = step;
    count.notify_all();
    wait_until(taken, 2 * step);
  }
  waiters.clear();
  CHECK(taken.load() == 2 * kSteps);
}

// ---------------------------------------------------------------------------------- mutex

TEMPLATE_TEST_CASE("threads that hold the mutex see what the one before them wrote", "[R-A2]",
                   SystemPlatform, PortablePlatform) {
  constexpr std::uint64_t kRounds = 50'000;
  constexpr std::uint64_t kThreads = 4;
  struct Guarded {
    BasicMutex<TestType> mutex;
    std::array<std::uint64_t, 32>
        cells{};  // not atomic; all the same whenever nobody holds the mutex
  };
  Guarded guarded;
  std::atomic<std::uint64_t> torn{0};
  std::atomic<std::uint64_t> tried{0};
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t]() SHARD_NO_THREAD_SAFETY_ANALYSIS {
        for (std::uint64_t round = 0; round < kRounds; ++round) {
          if (t != 0 || !guarded.mutex.try_lock()) {  // one of them tries first
            guarded.mutex.lock();
          } else {
            tried.fetch_add(1, std::memory_order_relaxed);
          }
          const auto first = guarded.cells.front();
          for (auto& cell : guarded.cells) {
            torn.fetch_add(cell != first ? 1 : 0, std::memory_order_relaxed);
            ++cell;
          }
          if (round % 1'024 == 0) {
            std::this_thread::yield();  // so that others run into a held mutex, and park
          }
          guarded.mutex.unlock();
        }
      });
    }
  }
  CHECK(torn.load() == 0);
  CHECK(tried.load() > 0);
  CHECK(guarded.cells.front() == kRounds * kThreads);
  CHECK(guarded.cells.back() == kRounds * kThreads);
}

// ---------------------------------------------------------------------------------- snapshot cell

/// Counts how many there are, and knows a value that was destroyed or torn.
struct Counted {
  Counted(std::uint64_t number, std::atomic<std::int64_t>& count)
      : version(number), twice(2 * number), alive(count) {
    alive.fetch_add(1, std::memory_order_relaxed);
  }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() {
    twice = 1;
    alive.fetch_sub(1, std::memory_order_relaxed);
  }
  [[nodiscard]] bool sound() const { return twice == 2 * version; }

  std::uint64_t version;
  std::uint64_t twice;
  std::atomic<std::int64_t>& alive;
};

TEST_CASE("readers of a snapshot cell see sound values that never go back, also when threads end",
          "[R-D2]") {
  using Cell = detail::SnapshotCell<SystemPlatform, Counted>;
  constexpr std::uint64_t kVersions = 40'000;
  constexpr int kReaders = 3;
  std::atomic<std::int64_t> alive{0};
  std::atomic<std::uint64_t> faults{0};
  std::atomic<std::uint64_t> readings{0};
  std::atomic<std::int64_t> most{0};
  {
    Cell cell(std::make_shared<const Counted>(std::uint64_t{1}, alive));
    BasicMutex<SystemPlatform> publishing;
    std::uint64_t next = 2;
    std::atomic<std::uint64_t> published{1};
    std::atomic<int> running{2};

    const auto publish = [&] {
      for (;;) {
        const LockGuard lock(publishing);
        if (next > kVersions) {
          break;
        }
        cell.publish(std::make_shared<const Counted>(next, alive));
        published.store(next++, std::memory_order_release);
        if (alive.load() > most.load()) {
          most = alive.load();
        }
      }
      --running;
    };
    const auto read = [&](std::uint64_t times, std::uint64_t& last) {
      for (std::uint64_t i = 0; i < times; ++i) {
        const auto at_least = published.load(std::memory_order_acquire);
        const auto* now = cell.cached();
        std::shared_ptr<const Counted> kept;
        if (now == nullptr) {
          kept = cell.current();
          now = kept.get();
        }
        faults += !now->sound() || now->version < last || now->version < at_least ? 1 : 0;
        last = now->version;
      }
      readings += times;
    };

    std::vector<std::jthread> threads;
    for (int p = 0; p < 2; ++p) {
      threads.emplace_back(publish);
    }
    for (int r = 0; r < kReaders; ++r) {
      threads.emplace_back([&] {
        std::uint64_t last = 0;
        while (running.load() != 0) {
          read(1'000, last);
        }
      });
    }
    threads.emplace_back([&] {
      while (running.load() != 0) {  // threads that read once and end, with a value in their cache
        std::jthread([&] {
          std::uint64_t last = 0;
          read(3, last);
        }).join();
      }
    });
    threads.clear();
    CHECK(published.load() == kVersions);

    std::uint64_t last = 0;
    read(2, last);
    CHECK(last == kVersions);
    cell.publish(std::make_shared<const Counted>(kVersions + 1, alive));
    cell.publish(std::make_shared<const Counted>(kVersions + 2, alive));
    // What no thread caches any more is gone: left are the current value, its predecessor, which is freed by
    // the next publisher, and the one that this thread has cached.
    CHECK(alive.load() <= 3);
    read(1, last);
  }
  CHECK(faults.load() == 0);
  CHECK(readings.load() > 0);
  CHECK(alive.load() == 1);  // this thread still has the last value in its cache
  for (std::uint64_t slot = 0; slot < detail::kSnapshotSlots; ++slot) {
    detail::remember_snapshot({.instance = ~std::uint64_t{3} + slot}, nullptr);
  }
  CHECK(alive.load() == 0);
  // Each reader pins one value at most, and publishers free the others as they go.
  CHECK(most.load() <= 2 * (kReaders + 2) + 4);
}

TEST_CASE("a new snapshot cell at the address of an old one is not mistaken for it", "[R-D2]") {
  using Cell = detail::SnapshotCell<SystemPlatform, Counted>;
  static std::atomic<std::int64_t> alive{
      0};  // this thread's cache keeps values until the thread ends
  std::optional<Cell> cell;
  for (std::uint64_t version = 1; version <= 10; ++version) {
    cell.reset();
    cell.emplace(std::make_shared<const Counted>(std::uint64_t{5}, alive));  // the same version
    CHECK(cell->cached() == nullptr);
    const auto now = cell->current();
    CHECK(now->sound());
    CHECK(cell->cached() == now.get());
  }
  CHECK(alive.load() <= static_cast<std::int64_t>(detail::kSnapshotSlots) + 1);
}

}  // namespace
}  // namespace shard::test
