#include <catch2/catch.hpp>
#include <memory>

#include "shard/detail/snapshot.hpp"
#include "support/schedule.hpp"

namespace shard::test {
namespace {

struct Value {
  explicit Value(std::uint64_t number) : version(number) {}
  Value(const Value&) = delete;
  Value& operator=(const Value&) = delete;
  ~Value() {
    alive = 0;
    require(current_thread() != kReader, "a value was destroyed on a reader's path");
  }
  static constexpr int kReader = 0;
  std::uint64_t version;
  std::uint64_t alive = 0x5AFE;
};

using Cell = shard::detail::SnapshotCell<ScheduledPlatform, Value>;

std::shared_ptr<const Value> value(std::uint64_t version) {
  return std::make_shared<const Value>(version);
}

TEST_CASE("a reader of a snapshot never sees a destroyed value, and never goes back", "[R-D2]") {
  for (const int publishers : {1, 2}) {
    const auto found = explore({.preemptions = publishers == 1 ? 4U : 2U}, [=](Execution& run) {
      struct State {
        Cell cell{value(1)};
        shard::detail::BasicMutex<ScheduledPlatform> publishing;
        std::uint64_t next = 2;
        ScheduledAtomic<std::uint64_t> published{1};
      };
      auto& state = run.make<State>();
      run.thread([&state] {
        std::uint64_t last = 0;
        for (int i = 0; i < 3; ++i) {
          const auto published = state.published.load();
          const auto* now = state.cell.cached();
          std::shared_ptr<const Value> kept;
          if (now == nullptr) {
            kept = state.cell.current();
            now = kept.get();
          }
          const auto version = state.cell.version();  // a step, between finding and using the value
          require(now->alive == 0x5AFE, "the value is destroyed");
          require(now->version >= last && now->version <= version, "the version goes back");
          require(now->version >= published, "an old value after the publisher was done");
          last = now->version;
        }
      });
      for (int p = 0; p < publishers; ++p) {
        run.thread([&state] {
          for (int i = 0; i < 2; ++i) {
            const shard::detail::LockGuard lock(state.publishing);
            state.cell.publish(value(state.next));
            state.published.store(state.next++);
          }
        });
      }
      run.afterwards([&state, publishers] {
        const auto last = static_cast<std::uint64_t>(1 + 2 * publishers);
        require(state.cell.peek()->version == last, "the last value is current");
      });
    });
    INFO(found);
    CHECK(found.passed());
  }
}

TEST_CASE("a thread keeps the snapshots of several cells apart", "[R-D2]") {
  const auto found = explore({.preemptions = 3}, [](Execution& run) {
    struct State {
      Cell first{value(1)};
      Cell second{value(100)};
    };
    auto& state = run.make<State>();
    run.thread([&state] {
      for (int i = 0; i < 2; ++i) {
        for (auto* cell : {&state.first, &state.second}) {
          const auto* now = cell->cached();
          const auto kept = now == nullptr ? cell->current() : nullptr;
          const auto version = (now == nullptr ? kept.get() : now)->version;
          require((version >= 100) == (cell == &state.second), "the value of another cell");
        }
      }
    });
    run.thread([&state] {
      state.first.publish(value(2));
      state.second.publish(value(101));
    });
  });
  INFO(found);
  CHECK(found.passed());
}

/// Publishes as a cell does that frees the old value at once.
TEST_CASE("the explorer finds a cell that frees values which readers still use") {
  const auto found = explore({.preemptions = 1}, [](Execution& run) {
    struct State {
      std::unique_ptr<std::uint64_t> first = std::make_unique<std::uint64_t>(1);
      std::unique_ptr<std::uint64_t> second = std::make_unique<std::uint64_t>(2);
      ScheduledAtomic<bool> second_is_current{false};
    };
    auto& state = run.make<State>();
    run.thread([&state] {
      const auto& now = state.second_is_current.load() ? state.second : state.first;
      (void)state.second_is_current.load();
      require(now != nullptr, "the value is destroyed");
    });
    run.thread([&state] {
      state.second_is_current.store(true);
      state.first.reset();
    });
  });
  INFO(found);
  CHECK(found.failure == "the value is destroyed");
}

}  // namespace
}  // namespace shard::test
