// What keeps a pipeline awake: the ready queue, the watches of shards that announce to it, and the gate that close() shuts.
// Then each with one function replaced by a wrong one, which the explorer must find.

#include <array>
#include <catch2/catch.hpp>
#include <deque>
#include <memory>
#include <string>

#include "schedule/scenario.hpp"
#include "shard/detail/agent.hpp"
#include "shard/detail/event_count.hpp"
#include "shard/detail/pipeline_core_impl.hpp"
#include "shard/detail/ready_queue.hpp"

// ---------------------------------------------------------------------------------- broken on purpose

namespace shard::test {
namespace {

// Each stands for the platform; the function specialised below for it is what it gets wrong.
struct ForgetsTheClaimed : ScheduledPlatform {};
struct SleepsWithoutLooking : ScheduledPlatform {};
struct WakesBeforeItIsReady : ScheduledPlatform {};
struct ForgetsMoves : ScheduledPlatform {};
struct WatchesWithoutLooking : ScheduledPlatform {};

}  // namespace
}  // namespace shard::test

namespace shard::detail {

template <>
void ReadyQueue<test::ForgetsTheClaimed>::announce(ReadyNode& node) noexcept {
  Wake wake;
  {
    const LockGuard lock(mutex_);
    if (place(node) != Place::idle) {
      return;
    }
    make_ready(node);
    wake = wake_for_work();
  }
  unpark(wake);
}

template <>
void ReadyQueue<test::SleepsWithoutLooking>::sleep(std::uint32_t /*ticket*/) noexcept {
  std::uint32_t expected = 0;
  {
    const LockGuard lock(mutex_);
    expected = wake_.load(std::memory_order_relaxed);
    set_sleeping(sleeping_ + 1);
  }
  test::ScheduledPlatform::park(wake_, expected);
  const LockGuard lock(mutex_);
  set_sleeping(sleeping_ - 1);
  woken_ -= woken_ != 0 ? 1U : 0U;
}

template <>
void ReadyQueue<test::WakesBeforeItIsReady>::announce(ReadyNode& node) noexcept {
  {
    const LockGuard lock(mutex_);
    wake_.fetch_add(1, std::memory_order_relaxed);
  }
  test::ScheduledPlatform::unpark_one(wake_);
  const LockGuard lock(mutex_);
  if (place(node) == Place::claimed) {
    node.again_ = true;
  } else if (place(node) == Place::idle) {
    make_ready(node);
  }
}

template <>
void ReadyQueue<test::ForgetsMoves>::release(ReadyNode& node, Rest rest, bool moved,
                                             Timestamp /*due*/) noexcept {
  const LockGuard lock(mutex_);
  --claimed_;
  if (moved) {
    note_move();
  }
  if (std::exchange(node.again_, false)) {
    make_ready(node);
  } else if (rest == Rest::fenced) {  // without a look whether somebody moved meanwhile
    set_place(node, Place::fenced);
    fenced_.push_back(node);
  } else {
    set_place(node, Place::idle);
  }
}

template <>
Rest ShardCore<test::WatchesWithoutLooking>::watch_for(std::size_t events,
                                                       std::size_t bytes) noexcept {
  const LockGuard lock(producer_);
  watched_ = true;
  limit_room(events - 1);
  arena_.limit(bytes);
  return Rest::idle;
}

/// Runs the workers of a pipeline on threads of the explorer.
struct PipelineTestAccess {
  using Pipeline = PipelineCore<test::ScheduledPlatform>;
  static void start(Pipeline& pipeline) {
    for (const auto& worker : pipeline.workers_) {
      worker->state.store(Agent<test::ScheduledPlatform>::State::inside);
    }
  }
  static void run_worker(Pipeline& pipeline, std::size_t index) {
    pipeline.run_worker(*pipeline.workers_[index]);
  }
  static bool drive(Pipeline& pipeline) { return pipeline.drive().has_value(); }
  static EventCount<test::ScheduledPlatform>& progress(Pipeline& pipeline) {
    return pipeline.queue().progress;
  }
  static const Clock& clock(Pipeline& pipeline) { return pipeline.clock(); }
};

}  // namespace shard::detail

namespace shard::test {
namespace {

using shard::detail::Agent;
using shard::detail::EventCount;
using shard::detail::Gate;
using shard::detail::ReadyNode;
using shard::detail::ReadyQueue;
using shard::detail::Rest;
using std::chrono::milliseconds;

// ---------------------------------------------------------------------------------- the queue alone

/// A node with work to do; work is put there before the node is announced, and taken by who has claimed it.
struct Node final : ReadyNode {
  ScheduledAtomic<int> work{0};
  ScheduledAtomic<int> claims{0};
};

template <class Platform>
struct Scene {
  explicit Scene(int work, std::size_t max_claims = ReadyQueue<Platform>::kNoLimit)
      : queue(clock, max_claims), wanted(work) {}

  void put(std::size_t node) {
    nodes[node].work.fetch_add(1);
    queue.announce(nodes[node]);
  }
  /// Does all the work of a node that is claimed.
  void do_work(Node& node) {
    require(node.claims.fetch_add(1) == 0, "a node is claimed twice");
    const auto found = node.work.exchange(0);
    node.claims.fetch_sub(1);
    finish(found);
  }
  void finish(int amount) {
    if (amount != 0 && done.fetch_add(amount) + amount == wanted) {
      queue.interrupt();  // the others need not wait any more
    }
  }
  /// A worker, until all that is wanted is done. `pass(node)` says how to release.
  template <class Pass>
  void run(const Pass& pass) {
    while (done.load() < wanted) {
      const auto claim = queue.claim(clock.now());
      if (claim.node != nullptr) {
        pass(static_cast<Node&>(*claim.node));
      } else if (done.load() < wanted) {
        queue.sleep(claim.ticket);
      }
    }
  }
  void run() {
    run([this](Node& node) {
      do_work(node);
      queue.release(node, Rest::idle, false);
    });
  }

  Clock clock{&scheduled_time()};
  ReadyQueue<Platform> queue;
  std::array<Node, 3> nodes;
  const int wanted;
  ScheduledAtomic<int> done{0};
};

/// Some workers, and some threads that each announce one node after the other.
template <class Platform>
std::function<void(Execution&)> announced(int workers, const std::vector<std::string>& producers,
                                          std::size_t max_claims = ~std::size_t{0}) {
  return [=](Execution& run) {
    int work = 0;
    for (const auto& nodes : producers) work += static_cast<int>(nodes.size());
    auto& scene = run.make<Scene<Platform>>(work, max_claims);
    for (int i = 0; i < workers; ++i) {
      run.thread([&scene] { scene.run(); });
    }
    for (const auto& nodes : producers) {
      run.thread([&scene, nodes] {
        for (const char node : nodes) scene.put(static_cast<std::size_t>(node - '0'));
      });
    }
    run.afterwards([&scene] { require(scene.done.load() == scene.wanted, "work is left"); });
  };
}

void check(const Exploration& found) {
  INFO(found);
  CHECK(found.passed());
}

TEST_CASE("what is announced is always done, whoever is about to sleep", "[R-G7]") {
  SECTION("one worker, one producer") {
    check(explore({.preemptions = 3 - kFewer}, announced<ScheduledPlatform>(1, {"00"})));
    check(explore({.preemptions = 2 - kFewer}, announced<ScheduledPlatform>(1, {"01"})));
  }
  SECTION("one worker, two producers of one node") {
    check(explore({.preemptions = 2 - kFewer}, announced<ScheduledPlatform>(1, {"0", "0"})));
  }
  SECTION("two workers, one producer") {
    check(explore({.preemptions = 1}, announced<ScheduledPlatform>(2, {"01"})));
    check(explore({.preemptions = 1}, announced<ScheduledPlatform>(2, {"00"})));
  }
  SECTION("two workers, two producers") {
    check(explore({.preemptions = 0}, announced<ScheduledPlatform>(2, {"0", "1"})));
  }
  SECTION("two workers of which one at a time may work") {
    check(explore({.preemptions = 1}, announced<ScheduledPlatform>(2, {"01"}, 1)));
  }
}

/// The first worker that claims node 0 stays with it until node 1 is done, so another has to wake up for that.
template <class Platform>
std::function<void(Execution&)> one_stays_away(bool one_producer) {
  return [=](Execution& run) {
    auto& scene = run.make<Scene<Platform>>(2);
    auto& bell = run.make<EventCount<ScheduledPlatform>>();
    for (int i = 0; i < 2; ++i) {
      run.thread([&] {
        scene.run([&](Node& node) {
          if (&node == &scene.nodes[0]) {
            for (;;) {
              const auto ticket = bell.prepare();
              if (scene.done.load() != 0) break;
              static_cast<void>(bell.wait_until(ticket, scene.clock, Timestamp::max()));
            }
          }
          scene.do_work(node);
          bell.notify_all();
          scene.queue.release(node, Rest::idle, false);
        });
      });
    }
    run.thread([&scene, one_producer] {
      scene.put(0);
      if (one_producer) scene.put(1);
    });
    if (!one_producer) {
      run.thread([&scene] { scene.put(1); });
    }
  };
}

TEST_CASE("while a worker is away another one is woken for what is ready", "[R-G1][R-G7]") {
  check(explore({.preemptions = 1}, one_stays_away<ScheduledPlatform>(true)));
  check(explore({.preemptions = 0}, one_stays_away<ScheduledPlatform>(false)));
}

TEST_CASE("a node that waits for a time is claimed then, or when it is announced", "[R-F2][R-G7]") {
  // The first pass finds that it is too early.
  const auto scenario = [](int workers, bool announced_again) {
    return [=](Execution& run) {
      auto& scene = run.make<Scene<ScheduledPlatform>>(1);
      auto& due = run.make<ScheduledAtomic<std::uint64_t>>(0);
      for (int i = 0; i < workers; ++i) {
        run.thread([&scene, &due] {
          scene.run([&](Node& node) {
            const auto now = scene.clock.now();
            if (due.load() == 0) due.store(now.after(milliseconds{5}).nanoseconds);
            const Timestamp at{due.load()};
            if (now < at && node.work.load() == 1) {
              scene.queue.release(node, Rest::later, false, at);
            } else {
              require(node.work.load() != 0, "a pass too many");
              node.work.store(0);
              scene.finish(1);
              scene.queue.release(node, Rest::idle, false);
            }
          });
        });
      }
      run.thread([&scene, announced_again] {
        scene.put(0);
        if (announced_again) scene.put(0);  // then it need not wait
      });
    };
  };
  check(explore({.preemptions = 1, .timeouts = 1}, scenario(1, false)));
  check(explore({.preemptions = 1, .timeouts = 1}, scenario(2, false)));
}

TEST_CASE("who watches a due time and goes to work leaves it to another", "[R-F2][R-G7]") {
  const auto found = explore({.preemptions = 1, .timeouts = 1}, [](Execution& run) {
    auto& scene = run.make<Scene<ScheduledPlatform>>(2);
    auto& bell = run.make<EventCount<ScheduledPlatform>>();
    auto& late = run.make<ScheduledAtomic<int>>(0);
    // Node 0 waits for its time; whoever claims node 1 stays with it until node 0 is done.
    for (int i = 0; i < 2; ++i) {
      run.thread([&] {
        scene.run([&](Node& node) {
          if (&node == &scene.nodes[0]) {
            if (late.exchange(1) == 0) {
              scene.queue.release(node, Rest::later, false,
                                  scene.clock.now().after(milliseconds{5}));
              return;
            }
          } else {
            for (;;) {
              const auto ticket = bell.prepare();
              if (scene.done.load() != 0) break;
              static_cast<void>(bell.wait_until(ticket, scene.clock, Timestamp::max()));
            }
          }
          scene.do_work(node);
          bell.notify_all();
          scene.queue.release(node, Rest::idle, false);
        });
      });
    }
    run.thread([&scene] {
      scene.put(0);
      scene.put(1);
    });
  });
  check(found);
}

TEST_CASE("interrupt() reaches whoever sleeps or is about to", "[R-G7][R-G2]") {
  const auto scenario = [](int workers) {
    return [=](Execution& run) {
      auto& scene = run.make<Scene<ScheduledPlatform>>(1);
      for (int i = 0; i < workers; ++i) run.thread([&scene] { scene.run(); });
      run.thread([&scene] {
        scene.done.store(1);  // said first
        scene.queue.interrupt();
      });
    };
  };
  check(explore({.preemptions = 3 - kFewer}, scenario(1)));
  check(explore({.preemptions = 2 - kFewer}, scenario(2)));
}

/// Node 0 may go on when node 1 has got past a position.
template <class Platform>
std::function<void(Execution&)> fenced(int workers, bool moved_from_outside) {
  return [=](Execution& run) {
    auto& scene = run.make<Scene<Platform>>(moved_from_outside ? 1 : 2);
    auto& position = run.make<ScheduledAtomic<int>>(0);
    for (int i = 0; i < workers; ++i) {
      run.thread([&scene, &position] {
        scene.run([&](Node& node) {
          if (&node == &scene.nodes[0] && position.load() == 0) {
            scene.queue.release(node, Rest::fenced, false);
            return;
          }
          const bool moves = &node == &scene.nodes[1];
          if (moves) position.store(1);
          scene.do_work(node);
          scene.queue.release(node, Rest::idle, moves);
        });
      });
    }
    run.thread([&scene, moved_from_outside] {
      scene.put(0);
      if (!moved_from_outside) scene.put(1);
    });
    if (moved_from_outside) {
      run.thread([&scene, &position] {
        position.store(1);
        scene.queue.moved();
      });
    }
  };
}

TEST_CASE("a node behind a fence is claimed again when another one has moved", "[R-D15][R-G7]") {
  check(explore({.preemptions = 2 - kFewer}, fenced<ScheduledPlatform>(1, false)));
  check(explore({.preemptions = 1}, fenced<ScheduledPlatform>(2, false)));
  check(explore({.preemptions = 2 - kFewer}, fenced<ScheduledPlatform>(1, true)));
}

TEST_CASE("who enters without a node counts as a claim, and nothing is forgotten meanwhile",
          "[R-G7]") {
  const auto found = explore({.preemptions = 1}, [](Execution& run) {
    auto& scene = run.make<Scene<ScheduledPlatform>>(1, std::size_t{1});
    auto& inside = run.make<ScheduledAtomic<int>>(0);
    const auto work = [&scene, &inside] {
      scene.run([&](Node& node) {
        require(inside.fetch_add(1) == 0, "two at once");
        inside.fetch_sub(1);
        scene.do_work(node);
        scene.queue.release(node, Rest::idle, false);
      });
    };
    run.thread(work);
    run.thread([&scene, &inside, work] {
      if (scene.queue.enter()) {
        require(inside.fetch_add(1) == 0, "two at once");
        inside.fetch_sub(1);
        scene.queue.leave();
      }
      work();  // as leave() says
    });
    run.thread([&scene] { scene.put(0); });
  });
  check(found);
}

TEST_CASE("who goes to work without claim() leaves what is ready to another", "[R-G1][R-G7]") {
  // It has made node 0 ready itself, as it ended a pass, and that wakes nobody.
  const bool polls = GENERATE(true, false);
  const bool other_spins = GENERATE(true, false);
  const auto found = explore({.preemptions = 1}, [=](Execution& run) {
    auto& scene = run.make<Scene<ScheduledPlatform>>(1);
    auto& bell = run.make<EventCount<ScheduledPlatform>>();
    run.thread([&scene, &bell, polls] {
      scene.put(0);
      if (const auto claim = scene.queue.claim(scene.clock.now()); claim.node != nullptr) {
        scene.queue.release(*claim.node, Rest::again, false);
      }
      require(polls ? scene.queue.try_claim(scene.nodes[1]) : scene.queue.enter(), "not claimed");
      for (;;) {
        const auto ticket = bell.prepare();
        if (scene.done.load() != 0) break;
        static_cast<void>(bell.wait_until(ticket, scene.clock, Timestamp::max()));
      }
    });
    run.thread([&scene, &bell, other_spins] {
      while (scene.done.load() == 0) {
        const auto claim = scene.queue.claim(scene.clock.now());
        if (claim.node != nullptr) {
          scene.do_work(static_cast<Node&>(*claim.node));
          bell.notify_all();
        } else if (other_spins) {
          static_cast<void>(scene.queue.spin(claim.ticket, Timestamp::max(), [] {
            give_way();
            return false;
          }));
        } else {
          scene.queue.sleep(claim.ticket);
        }
      }
    });
  });
  check(found);
}

TEST_CASE("a node is retired once, and never while it is claimed") {
  const auto found = explore({.preemptions = 2 - kFewer}, [](Execution& run) {
    auto& scene = run.make<Scene<ScheduledPlatform>>(1);
    auto& inside = run.make<ScheduledAtomic<int>>(0);
    auto& gone = run.make<ScheduledAtomic<int>>(0);
    run.thread([&] {
      const auto claim = scene.queue.claim(scene.clock.now());
      if (claim.node == nullptr) return;
      inside.store(1);
      require(gone.load() == 0, "a node that is gone was claimed");
      inside.store(0);
      scene.queue.release(*claim.node, Rest::idle, false);
    });
    run.thread([&] { scene.put(0); });
    run.thread([&] {
      if (scene.queue.retire(scene.nodes[0])) {
        require(inside.load() == 0, "a claimed node was retired");
        gone.store(1);
      }
    });
  });
  check(found);
}

TEST_CASE("who waits for progress is told when a node is retired", "[R-H1]") {
  // What its shard held may have been popped by whoever removes it, so that no worker makes another pass for it.
  const auto found = explore({.preemptions = 3}, [](Execution& run) {
    auto& scene = run.make<Scene<ScheduledPlatform>>(1);
    auto& gone = run.make<ScheduledAtomic<int>>(0);
    run.thread([&] {
      for (;;) {
        const auto ticket = scene.queue.progress.prepare();
        if (gone.load() == 1) return;
        static_cast<void>(scene.queue.progress.wait_until(ticket, scene.clock, Timestamp::max()));
      }
    });
    run.thread([&] {
      gone.store(1);
      require(scene.queue.retire(scene.nodes[0]), "a node that is idle was not retired");
    });
  });
  check(found);
}

TEST_CASE("a spinning worker takes what is announced, and wakes others for the rest", "[R-G7]") {
  // One parks at once, the other spins; whoever claims node 0 stays with it until node 1 is done.
  const auto found = explore({.preemptions = 1}, [](Execution& run) {
    auto& scene = run.make<Scene<ScheduledPlatform>>(2);
    auto& bell = run.make<EventCount<ScheduledPlatform>>();
    const auto pass = [&](Node& node) {
      if (&node == &scene.nodes[0]) {
        for (;;) {
          const auto ticket = bell.prepare();
          if (scene.done.load() != 0) break;
          static_cast<void>(bell.wait_until(ticket, scene.clock, Timestamp::max()));
        }
      }
      scene.do_work(node);
      bell.notify_all();
      scene.queue.release(node, Rest::idle, false);
    };
    run.thread([&scene, pass] { scene.run(pass); });
    run.thread([&scene, pass] {
      while (scene.done.load() < scene.wanted) {
        const auto claim = scene.queue.claim(scene.clock.now());
        if (claim.node != nullptr) {
          pass(static_cast<Node&>(*claim.node));
        } else {
          static_cast<void>(scene.queue.spin(claim.ticket, Timestamp::max(), [&scene] {
            give_way();
            return scene.done.load() == scene.wanted;
          }));
        }
      }
    });
    run.thread([&scene] {
      scene.put(0);
      scene.put(1);
    });
  });
  check(found);
}

// ---------------------------------------------------------------------------------- shards that announce

/// A shard whose events a consumer takes, and what that has got.
template <class Platform>
struct Fed {
  using AnyCore = shard::detail::ShardCore<Platform>;

  explicit Fed(std::uint64_t events, std::size_t shards = 1) : wanted(events) {
    for (std::size_t i = 0; i < shards; ++i) {
      cores.emplace_back(ShardId{static_cast<std::uint32_t>(i)},
                         small(Backpressure::drop_newest(), 8), clock, &consumer);
    }
  }

  void push(int producer, int number, std::size_t shard = 0) {
    auto& core = cores[shard];
    const auto payload = event_of(producer, number);
    const shard::detail::Item item{payload, {}, {}};
    auto verdict = core.push_if_room(1, item, AnyCore::kNoSlot, clock.now());
    if (verdict == shard::detail::Verdict::full) {
      shard::detail::Waiting none{.allowed = false};
      verdict = core.push(1, item, AnyCore::kNoSlot, clock.now(), none);
    }
    require(verdict == shard::detail::Verdict::accepted, "an event was not accepted");
  }
  void push_pair(int producer) {
    const std::array texts{event_of(producer, 0), event_of(producer, 1)};
    const std::array<shard::detail::Item, 2> items{{{texts[0], {}, {}}, {texts[1], {}, {}}}};
    const std::array<shard::detail::GroupIndex, 2> next{1, shard::detail::kGroupEnd};
    std::array<Outcome, 2> outcomes{};
    shard::detail::Waiting none{.allowed = false};
    BufferAccess::Chain evicted;
    const auto result = cores[0].push_group(1, items, shard::detail::Group{0, next.data()},
                                            clock.now(), none, false, outcomes.data(), evicted);
    require(result.accepted == 2, "a group was not accepted");
  }

  /// Takes all there is, and says how to release.
  void deliver(AnyCore& core, EventBatch& batch) {
    const auto taken = core.take(batch, 100, 10'000).events;
    if (taken == 0) return;
    for (const auto& event : batch) {
      require(event.text().size() == 4, "an event is corrupt");
      require(event.sequence.value == next_sequence[core.id().value]++,
              "an event is lost or out of order");
    }
    batch.clear();
    require(core.settle({.delivered = taken}, true, [] {}), "it has not expired");
    if (delivered.fetch_add(taken) + taken == wanted) {
      queue.interrupt();
      bell.notify_all();
    }
  }
  /// A worker that waits until `enough` are there, or their time has come.
  void run(std::size_t enough = 1) {
    EventBatch batch;
    while (delivered.load() < wanted) {
      const auto claim = queue.claim(clock.now());
      if (claim.node == nullptr) {
        if (delivered.load() < wanted) queue.sleep(claim.ticket);
        continue;
      }
      auto& core = cores[0];
      const auto due = core.oldest() ? core.oldest()->after(milliseconds{5}) : Timestamp::max();
      auto rest = Rest::again;
      if (core.length() < enough && !core.wants_flush() && clock.now() < due) {
        rest = core.watch_for(core.length() == 0 ? 1 : enough, core.bytes_capacity());
      }
      if (rest == Rest::again) {
        deliver(core, batch);
        rest = core.watch_for(1, core.bytes_capacity());
      }
      queue.release(*claim.node, rest, false,
                    rest == Rest::later && core.oldest() ? core.oldest()->after(milliseconds{5})
                                                         : clock.now());
    }
  }

  Clock clock{&scheduled_time()};
  ReadyQueue<Platform> queue{clock};
  EventCount<ScheduledPlatform> bell;
  const shard::detail::Consumer<Platform> consumer{
      &queue,
      [](AnyCore& /*core*/) -> std::unique_ptr<ReadyNode> { return std::make_unique<Node>(); }};
  std::deque<AnyCore> cores;
  std::array<std::uint64_t, 2> next_sequence{};
  const std::uint64_t wanted;
  ScheduledAtomic<std::uint64_t> delivered{0};
};

template <class Platform>
std::function<void(Execution&)> fed(int workers, int producers, int events,
                                    std::size_t enough = 1) {
  return [=](Execution& run) {
    auto& shard = run.make<Fed<Platform>>(static_cast<std::uint64_t>(producers * events));
    for (int i = 0; i < workers; ++i) run.thread([&shard, enough] { shard.run(enough); });
    for (int producer = 0; producer < producers; ++producer) {
      run.thread([&shard, producer, events] {
        for (int number = 0; number < events; ++number) shard.push(producer, number);
      });
    }
    run.afterwards([&shard] {
      const auto ledger = shard.cores[0].ledger();
      require(
          ledger.delivered == shard.wanted && ledger.accepted == shard.wanted && ledger.balanced(),
          "the events do not add up");
    });
  };
}

TEST_CASE("an event that is pushed while the consumer goes idle is announced", "[R-G7]") {
  SECTION("single events, one producer") {
    check(explore({.preemptions = 2 - kFewer}, fed<ScheduledPlatform>(1, 1, 1)));
    check(explore({.preemptions = 2 - kFewer}, fed<ScheduledPlatform>(1, 1, 2)));
  }
  SECTION("single events, two producers") {
    check(explore({.preemptions = 1}, fed<ScheduledPlatform>(1, 2, 1)));
  }
  SECTION("single events, two workers") {
    check(explore({.preemptions = 1}, fed<ScheduledPlatform>(2, 1, 2)));
  }
  SECTION("a group") {
    check(explore({.preemptions = 2 - kFewer}, [](Execution& run) {
      auto& shard = run.make<Fed<ScheduledPlatform>>(3U);
      run.thread([&shard] { shard.run(); });
      run.thread([&shard] {
        shard.push(0, 0);
        shard.push_pair(1);
      });
    }));
  }
}

TEST_CASE("a consumer that waits for company is told when it is there, or when the time has come",
          "[R-F2][R-G7]") {
  check(explore({.preemptions = 1, .timeouts = 1}, fed<ScheduledPlatform>(1, 1, 2, 2)));
  check(explore({.preemptions = 1, .timeouts = 1}, fed<ScheduledPlatform>(1, 1, 3, 2)));
  check(explore({.preemptions = 1, .timeouts = 1}, fed<ScheduledPlatform>(1, 2, 1, 2)));
}

TEST_CASE("a flush is seen by a consumer that waits for company, or goes to", "[R-H1]") {
  // No time passes: without the flush the first event would lie there.
  check(explore({.preemptions = 2 - kFewer}, [](Execution& run) {
    auto& shard = run.make<Fed<ScheduledPlatform>>(1U);
    run.thread([&shard] { shard.run(3); });
    run.thread([&shard] {
      shard.push(0, 0);
      const auto mark = shard.cores[0].request_flush();
      for (;;) {
        const auto ticket = shard.bell.prepare();
        if (shard.cores[0].watermark() >= mark.position) break;
        static_cast<void>(shard.bell.wait_until(ticket, shard.clock, Timestamp::max()));
      }
      require(shard.delivered.load() == 1 || shard.cores[0].ledger().delivered == 1,
              "a flush has ended before its event was delivered");
      require(shard.clock.now() < Timestamp{}.after(milliseconds{5}), "it took its time");
    });
  }));
}

// ---------------------------------------------------------------------------------- workers that poll

enum class Order { number_first, watch_first };

/// What workers do that look for a while before they park, as PipelineCore does it; they look once here.
struct Polling : Fed<ScheduledPlatform> {
  explicit Polling(Order which) : Fed(3, 2), order(which) {}

  [[nodiscard]] AnyCore* find_unwatched() {
    for (auto& core : cores) {
      if (core.has_queued() && ReadyQueue<ScheduledPlatform>::is_idle(*core.node())) return &core;
    }
    return nullptr;
  }
  void watch_all() {
    for (auto& core : cores) {
      auto number = queue.unwatched(*core.node());
      if (!number) continue;
      const auto rest = core.watch_for(1, core.bytes_capacity());
      if (order == Order::watch_first) number = queue.unwatched(*core.node());
      if (number) queue.note_watched(*core.node(), *number);
      if (rest == Rest::again) core.announce();
    }
  }
  void pass(AnyCore& core, EventBatch& batch) {
    if (&core == &cores[1]) {  // an adapter that is slow, here
      away.store(1);
      bell.notify_all();
      for (;;) {
        const auto ticket = bell.prepare();
        if (delivered.load() == wanted) break;
        static_cast<void>(bell.wait_until(ticket, clock, Timestamp::max()));
      }
    }
    deliver(core, batch);
    const auto rest =
        !queue.has_sleepers() ? Rest::unwatched : core.watch_for(1, core.bytes_capacity());
    queue.release(*core.node(), rest, false);
  }
  void run_polling() {
    EventBatch batch;
    while (delivered.load() < wanted) {
      if (auto* const core = find_unwatched(); core != nullptr && queue.try_claim(*core->node())) {
        pass(*core, batch);
        continue;
      }
      const auto claim = queue.claim(clock.now());
      if (claim.node != nullptr) {
        pass(claim.node == cores[0].node() ? cores[0] : cores[1], batch);
        continue;
      }
      if (delivered.load() == wanted) return;
      watch_all();
      queue.sleep(claim.ticket);
    }
  }

  void wait_for(const ScheduledAtomic<int>& flag) {
    for (;;) {
      const auto ticket = bell.prepare();
      if (flag.load() != 0) return;
      static_cast<void>(bell.wait_until(ticket, clock, Timestamp::max()));
    }
  }

  const Order order;
  ScheduledAtomic<int> pushed{0};
  ScheduledAtomic<int> away{0};  ///< somebody is at shard 1
};

/// Shard 0 has been left unwatched. A goes to park, so it gives it a watch; B is awake and takes an event that comes just
/// then; then shard 1 takes B away, and there comes another event to shard 0.
std::function<void(Execution&)> polled(Order order) {
  return [order](Execution& run) {
    auto& scene = run.make<Polling>(order);
    scene.push(0, 0);
    EventBatch old;
    const auto first = scene.queue.claim(scene.clock.now());
    require(first.node == scene.cores[0].node(), "an event is not announced");
    scene.pass(scene.cores[0], old);
    run.thread([&scene] { scene.run_polling(); });
    run.thread([&scene] {
      EventBatch batch;
      scene.wait_for(scene.pushed);
      const auto claim = scene.queue.claim(scene.clock.now());
      if (claim.node != nullptr) scene.pass(scene.cores[0], batch);
      scene.cores[1].announce();
      scene.run_polling();
    });
    run.thread([&scene] {
      scene.push(0, 1);
      scene.pushed.store(1);
      scene.bell.notify_all();
      scene.wait_for(scene.away);
      scene.push(0, 2);
    });
  };
}

TEST_CASE("no worker parks while a shard is unwatched", "[R-G1][R-G7]") {
  check(explore({.preemptions = 1}, polled(Order::number_first)));
}

// ---------------------------------------------------------------------------------- the gate

template <class AnyGate>
struct Closing {
  AnyGate gate;
  Agent<ScheduledPlatform> agent;
};

/// Somebody who comes from outside and runs the host's code, and close(): if that has seen nobody, nobody comes any more.
template <class AnyGate>
std::function<void(Execution&)> expired(int passes) {
  return [passes](Execution& run) {
    using State = Agent<ScheduledPlatform>::State;
    auto& scene = run.make<Closing<AnyGate>>();
    auto& saw_nobody = run.make<ScheduledAtomic<int>>(0);
    run.thread([&scene, &saw_nobody, passes] {
      for (int i = 0; i < passes; ++i) {
        const bool ran = scene.gate.run(scene.agent, [&saw_nobody]() noexcept {
          require(saw_nobody.load() == 0, "the host's code has begun unseen");
        });
        scene.agent.state.store(State::outside);
        if (!ran) break;
      }
    });
    run.thread([&scene, &saw_nobody] {
      scene.gate.stop();
      scene.gate.expire();
      while (Gate<ScheduledPlatform>::is_inside(scene.agent)) give_way();
      saw_nobody.store(Gate<ScheduledPlatform>::is_outside(scene.agent) ? 1 : 0);
    });
  };
}

/// A worker that takes one event and delivers it, and close(), with the shard that tells them apart.
template <class AnyGate>
std::function<void(Execution&)> delivered_or_reported() {
  return [](Execution& run) {
    using State = Agent<ScheduledPlatform>::State;
    struct Scene : Closing<AnyGate> {
      Fed<ScheduledPlatform> shard{1};
      bool ran = false;
      bool counted = false;
      int reported = 0;  ///< 1: not tried, 2: perhaps
      Ledger at_close;
    };
    auto& scene = run.make<Scene>();
    auto& calls = run.make<ScheduledAtomic<int>>(0);
    auto& core = scene.shard.cores[0];
    scene.shard.push(0, 0);
    scene.agent.state.store(State::inside);
    run.thread([&scene, &core, &calls] {
      EventBatch batch;
      if (core.take(batch, 1, 100).events == 1 && core.begin_attempt([] {})) {
        scene.ran = scene.gate.run(scene.agent, [&calls]() noexcept { calls.fetch_add(1); });
        scene.counted = core.settle(
            scene.ran ? shard::detail::Settlement{.delivered = 1} : shard::detail::Settlement{},
            scene.ran, [] {});
      }
      scene.agent.state.store(State::outside);
    });
    run.thread([&scene, &core] {
      scene.gate.stop();
      scene.gate.expire();
      while (Gate<ScheduledPlatform>::is_inside(scene.agent)) give_way();
      core.expire([&scene](bool attempting) { scene.reported = attempting ? 2 : 1; });
      scene.at_close = core.ledger();
    });
    run.afterwards([&scene, &core] {
      require(!core.with_pop_lock([] { require(false, "a batch is changed behind its report"); }),
              "a batch may be changed behind its report");
      EventBatch late;
      require(core.take(late, 1, 100).events == 0, "an event is taken behind the report");
      const auto ledger = core.ledger();
      require(ledger == scene.at_close, "the counts have changed after close()");
      require(ledger.balanced(), "the events do not add up");
      require(scene.reported != 1 || !scene.ran, "what was tried is reported as not tried");
      require(scene.ran && scene.counted ? ledger.delivered == 1 && scene.reported == 0
                                         : ledger.delivered == 0,
              "what was delivered is not counted as such");
      require(ledger.queued + ledger.batched + ledger.delivered + ledger.possibly_delivered +
                      ledger.abandoned_batched ==
                  1,
              "an event has two ends");
    });
  };
}

TEST_CASE("after the gate has expired nobody enters the host's code unseen", "[R-I3]") {
  using AnyGate = Gate<ScheduledPlatform>;
  check(explore({.preemptions = 4, .delayed_stores = 2}, expired<AnyGate>(1)));
  check(explore({.preemptions = 3, .delayed_stores = 2}, expired<AnyGate>(2)));
}

TEST_CASE("at the end of close() an event is delivered or reported, and stays so",
          "[R-I3][R-I1][R-C1]") {
  check(explore({.preemptions = 2}, delivered_or_reported<Gate<ScheduledPlatform>>()));
}

// ---------------------------------------------------------------------------------- whole pipelines

/// The workers, flush() and close() as they are, but for the threads that they run on.
struct WholePipeline {
  using Pipeline = shard::detail::PipelineCore<ScheduledPlatform>;

  /// \param refuses  the adapter does; else it delivers
  WholePipeline(std::size_t workers, std::size_t shards, bool refuses = false) {
    PipelineOptions options;
    options.manager = small(Backpressure::drop_newest(), 8, shards);
    options.workers = workers;
    options.batch.min_events = 1;
    options.batch.max_delay = std::chrono::nanoseconds{0};
    options.thread_name.clear();
    options.dead_letters = [this](const Batch& batch, const DeadLetter& /*why*/) {
      buried.fetch_add(batch.size());
    };
    pipeline = std::make_shared<Pipeline>(options, std::make_unique<Face>(*this, refuses), nullptr);
    if (workers != 0) {
      shard::detail::PipelineTestAccess::start(*pipeline);
    }
  }
  void run_worker(std::size_t index) {
    shard::detail::PipelineTestAccess::run_worker(*pipeline, index);
  }
  void check(const CloseReport& report) const {
    const auto undelivered = report.ledger.abandoned_queued + report.ledger.abandoned_batched +
                             report.ledger.possibly_delivered;
    require(report.ledger.balanced() && report.ledger.queued + report.ledger.batched == 0,
            "the events do not add up");
    require(report.ledger.accepted ==
                report.ledger.delivered + report.ledger.dead_lettered + undelivered,
            "an event was lost");
    require(report.ledger.dead_lettered == buried.peek(),
            "a dead letter was counted and not handed over");
    std::uint64_t named = 0;
    for (const auto& range : report.undelivered) {
      named += range.last.value - range.first.value + 1;
    }
    require(named == undelivered, "the report does not name what was not delivered");
    require(report.ledger.delivered <= delivered.peek() &&
                delivered.peek() <= report.ledger.delivered + report.ledger.possibly_delivered,
            "the report is not what the adapter has seen");
  }

  class Face final : public Adapter {
   public:
    Face(WholePipeline& whole, bool refuses) : whole_(whole), refuses_(refuses) {}
    Delivery deliver(const Batch& batch, const DeliveryContext& /*context*/) override {
      if (refuses_) return Delivery::refuse("for good");
      whole_.delivered.fetch_add(batch.size());
      return Delivery::delivered();
    }
    void close(const DeliveryContext& /*context*/) override { whole_.closes.fetch_add(1); }

   private:
    WholePipeline& whole_;
    const bool refuses_;
  };

  ScheduledAtomic<std::uint64_t> delivered{0};
  ScheduledAtomic<std::uint64_t> buried{0};
  ScheduledAtomic<std::uint64_t> closes{0};
  std::shared_ptr<Pipeline> pipeline;
};

constexpr auto kForEver = std::chrono::nanoseconds::max();

TEST_CASE("a flush ends when all is delivered, and close() after it, in every order",
          "[R-H1][R-G7][R-I2]") {
  const auto scenario = [](std::size_t workers, int events) {
    return [=](Execution& run) {
      auto& whole = run.make<WholePipeline>(workers, std::size_t{1});
      for (std::size_t i = 0; i < workers; ++i) {
        run.thread([&whole, i] { whole.run_worker(i); });
      }
      run.thread([&whole, events] {
        for (int i = 0; i < events; ++i) {
          require(whole.pipeline->manager.ingest(event_of(0, i)) == Outcome::accepted,
                  "an event was not accepted");
        }
        require(whole.pipeline->flush(kForEver).status == FlushStatus::flushed,
                "a flush has not ended as it should");
        require(whole.delivered.load() == static_cast<std::uint64_t>(events),
                "a flush has ended too early");
        const auto report = whole.pipeline->close(kForEver);
        require(report.complete && report.abandoned_threads == 0, "close() is not complete");
        whole.check(report);
      });
    };
  };
  check(explore({.preemptions = 1}, scenario(1, 1)));
  check(
      explore({.preemptions = 0}, scenario(2, 1)));  // with one: 180,000 executions, half a minute
}

TEST_CASE("an event that is accepted while the pipeline closes is delivered or in the report",
          "[R-I1][R-I2]") {
  const auto scenario = [](std::chrono::nanoseconds within) {
    return [=](Execution& run) {
      auto& whole = run.make<WholePipeline>(std::size_t{1}, std::size_t{1});
      auto& report = run.make<CloseReport>();
      auto& accepted = run.make<std::uint64_t>(0U);
      run.thread([&whole] { whole.run_worker(0); });
      run.thread([&whole, &accepted] {
        const auto outcome = whole.pipeline->manager.ingest(event_of(0, 0));
        require(outcome == Outcome::accepted || outcome == Outcome::rejected_closed,
                "an event was neither accepted nor refused");
        accepted = outcome == Outcome::accepted ? 1 : 0;
      });
      run.thread([&whole, &report, within] { report = whole.pipeline->close(within); });
      run.afterwards([&whole, &report, &accepted, within] {
        require(report.ledger.accepted == accepted, "an event was accepted after close()");
        require(within != kForEver || report.complete, "close() is not complete");
        whole.check(report);
      });
    };
  };
  check(explore({.preemptions = 1}, scenario(kForEver)));
  check(explore({.preemptions = 1}, scenario(std::chrono::nanoseconds{0})));
}

TEST_CASE("a dead letter is counted if its handler sees it, also while the pipeline closes",
          "[R-G4][R-I1][R-I3]") {
  check(explore({.preemptions = 1}, [](Execution& run) {
    auto& whole = run.make<WholePipeline>(std::size_t{1}, std::size_t{1}, true);
    auto& report = run.make<CloseReport>();
    require(whole.pipeline->manager.ingest(event_of(0, 0)) == Outcome::accepted, "not accepted");
    run.thread([&whole] { whole.run_worker(0); });
    run.thread([&whole, &report] { report = whole.pipeline->close(std::chrono::nanoseconds{0}); });
    run.afterwards([&whole, &report] { whole.check(report); });
  }));
}

TEST_CASE("who finds another thread driving the pipeline is told when that is done",
          "[R-G10][R-H1]") {
  check(explore({.preemptions = 3}, [](Execution& run) {
    using Access = shard::detail::PipelineTestAccess;
    auto& whole = run.make<WholePipeline>(std::size_t{0}, std::size_t{1});
    auto& pipeline = *whole.pipeline;
    run.thread([&pipeline] { static_cast<void>(pipeline.run_once()); });
    run.thread([&pipeline] {
      for (;;) {
        const auto ticket = Access::progress(pipeline).prepare();
        if (Access::drive(pipeline)) break;
        static_cast<void>(Access::progress(pipeline).wait_until(ticket, Access::clock(pipeline),
                                                                Timestamp::max()));
      }
    });
  }));
}

TEST_CASE("an adapter is closed also when its host drives the pipeline meanwhile",
          "[R-I1][R-G10]") {
  check(explore({.preemptions = 2}, [](Execution& run) {
    auto& whole = run.make<WholePipeline>(std::size_t{0}, std::size_t{1});
    auto& report = run.make<CloseReport>();
    require(whole.pipeline->manager.ingest(event_of(0, 0)) == Outcome::accepted, "not accepted");
    run.thread([&whole] { static_cast<void>(whole.pipeline->run_once()); });
    run.thread([&whole, &report] { report = whole.pipeline->close(kForEver); });
    run.afterwards([&whole, &report] {
      whole.check(report);
      require(whole.closes.peek() == 1, "an adapter was not closed");
    });
  }));
}

// ---------------------------------------------------------------------------------- broken on purpose

TEST_CASE("the explorer finds a queue that forgets what was announced while it was claimed") {
  const auto found = explore({.preemptions = 2}, announced<ForgetsTheClaimed>(1, {"00"}));
  INFO(found);
  CHECK(found.failure == "deadlock: A is never woken");
}

TEST_CASE("the explorer finds a worker that goes to sleep without another look") {
  const auto found = explore({.preemptions = 1}, announced<SleepsWithoutLooking>(1, {"0"}));
  INFO(found);
  CHECK(found.failure == "deadlock: A is never woken");
}

TEST_CASE("the explorer finds a queue that wakes before the node is ready") {
  const auto found = explore({.preemptions = 1}, announced<WakesBeforeItIsReady>(1, {"0"}));
  INFO(found);
  CHECK(found.failure == "deadlock: A is never woken");
}

TEST_CASE("the explorer finds a queue that forgets who moved during a pass") {
  const auto found = explore({.preemptions = 1}, fenced<ForgetsMoves>(1, true));
  INFO(found);
  CHECK(found.failure == "deadlock: A is never woken");
}

TEST_CASE("the explorer finds a watch that is set without a look at what is there") {
  const auto found = explore({.preemptions = 2}, fed<WatchesWithoutLooking>(1, 1, 2));
  INFO(found);
  CHECK(found.failure == "deadlock: A is never woken");
}

TEST_CASE("the explorer finds a worker that notes a watch which is used up already", "[R-G7]") {
  const auto found = explore({.preemptions = 1}, polled(Order::watch_first));
  INFO(found);
  CHECK(found.failure.find("deadlock") == 0);
}

/// Looks whether it may before it says that it goes.
struct LooksFirst : Gate<ScheduledPlatform> {
  template <class Code>
  [[nodiscard]] bool run(AnyAgent& agent, const Code& code) noexcept {
    if (is_expired()) return false;
    agent.state.store(State::away, std::memory_order_seq_cst);
    code();
    return true;
  }
};
/// Says that it goes, but the others may see it late.
struct SaysItLate : Gate<ScheduledPlatform> {
  template <class Code>
  [[nodiscard]] bool run(AnyAgent& agent, const Code& code) noexcept {
    agent.state.store(State::away, std::memory_order_release);
    const bool may = !is_expired();
    if (may) code();
    return may;
  }
};

TEST_CASE("the explorer finds a gate at which one looks before one says that one goes") {
  const auto found = explore({.preemptions = 2}, expired<LooksFirst>(1));
  INFO(found);
  CHECK(found.failure == "the host's code has begun unseen");
}

TEST_CASE("the explorer finds a gate at which one is seen too late") {
  const auto found = explore({.preemptions = 2, .delayed_stores = 1}, expired<SaysItLate>(1));
  INFO(found);
  CHECK(found.failure == "the host's code has begun unseen");
}

}  // namespace
}  // namespace shard::test
