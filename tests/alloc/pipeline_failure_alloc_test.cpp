// What becomes of a pipeline's events when it finds no memory, at whichever of its allocations: nothing is lost, and what
// was asked for happens when there is memory again. That nothing leaks is what LeakSanitizer says.

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "alloc/allocation_counter.hpp"
#include "shard/pipeline.hpp"
#include "support/manual_clock.hpp"
#include "support/pipeline.hpp"

namespace {

using shard::Batch;
using shard::Buffer;
using shard::Delivery;
using shard::FlushStatus;
using shard::Key;
using shard::Ledger;
using shard::Outcome;
using shard::Pipeline;
using shard::PipelineOptions;
using shard::Routing;
using shard_test::AllocationFailure;
using shard_test::ManualClock;

constexpr std::uint64_t kMost = 2'000;  ///< allocations of one operation
constexpr std::size_t kEvents = 60;

/// How often each event ended which way. Allocates nothing.
struct Ends {
  std::array<int, kEvents> delivered{};
  std::array<int, kEvents> dead{};
  std::uint64_t calls = 0;
  int destroyed = 0;
};

/// The events are "k:<number>", with enough behind it to be of all sizes.
std::size_t number_of(const shard::Event& event) {
  const auto text = event.text();
  std::size_t number = 0;
  for (std::size_t i = 2; i < text.size() && text[i] != ':'; ++i) {
    number = number * 10 + static_cast<std::size_t>(text[i] - '0');
  }
  return number;
}

/// Retries, refuses some, refuses all, delivers a part, delivers. Counts what it answers.
class Sink final : public shard::Adapter {
 public:
  Sink(Ends& ends, bool fails) : ends_(ends), fails_(fails) {}
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;
  ~Sink() override { ++ends_.destroyed; }

  Delivery deliver(const Batch& batch, const shard::DeliveryContext& /*context*/) override {
    switch (fails_ ? ends_.calls++ % 5 : 4) {
      case 0:
        return Delivery::retry("busy, and says so with more words than a short string holds");
      case 1:
        return Delivery::refuse({0},
                                "the first is bad");  // may throw bad_alloc: then it is retried
      case 2:
        deliver_first(batch, batch.size() / 2);
        return Delivery::delivered(batch.size() / 2);
      case 3:
        return Delivery::refuse("all are bad");
      default:
        deliver_first(batch, batch.size());
        return Delivery::delivered();
    }
  }

 private:
  void deliver_first(const Batch& batch, std::size_t events) {
    for (std::size_t i = 0; i < events; ++i) ++ends_.delivered.at(number_of(batch[i]));
  }

  Ends& ends_;
  bool fails_;
};

/// A pipeline with events in its shards, one of them in a large payload.
class Scene {
 public:
  /// In the machine's time what finds no memory is soon tried again; in virtual time when the test lets it pass.
  enum class Time { of_test, of_machine };

  explicit Scene(bool fails = true, Time time = Time::of_test) : time_(time) {
    pipeline = std::make_unique<Pipeline>(options(*this, 0), std::make_unique<Sink>(ends, fails));
  }
  static PipelineOptions options(Scene& scene, std::size_t workers) {
    auto options = shard_test::hosted_elastic_options(Routing::keyed, 3, 1, 6, 64);
    options.manager.ring_bytes = 32'768;
    options.workers = workers;
    if (workers == 0 && scene.time_ == Time::of_test) options.manager.time_source = &scene.clock;
    options.retry.initial_backoff = options.retry.max_backoff = std::chrono::nanoseconds{0};
    options.dead_letters = [&scene](const Batch& batch, const shard::DeadLetter& /*why*/) {
      for (const auto event : batch) ++scene.ends.dead.at(number_of(event));
    };
    options.listener = [](const shard::Notice& /*notice*/) {};
    return options;
  }
  void ingest(std::size_t count) {
    for (; count != 0; --count) {
      auto text = "k:" + std::to_string(sent) + ":";
      text.append(sent % 10 == 9 ? 1'500 : sent, '.');
      REQUIRE(pipeline->ingest(text, Key{"key " + std::to_string(sent % 5)}) == Outcome::accepted);
      ++sent;
    }
  }
  void run() {
    for (int i = 0; i < 5; ++i) {
      static_cast<void>(pipeline->run_once());
      clock.advance(20'000'000);
    }
  }
  /// Everything goes on, and each event has exactly one end.
  void check_afterwards() {
    CHECK(pipeline->ledger().balanced());
    ingest(std::min<std::size_t>(6, kEvents - sent));
    if (time_ == Time::of_machine) {
      CHECK(pipeline->flush(std::chrono::minutes{1}).status == FlushStatus::flushed);
    }
    for (int i = 0; i < 1'000 && pipeline->ledger().queued + pipeline->ledger().batched != 0; ++i) {
      run();
    }
    const auto ledger = pipeline->ledger();
    CHECK(ledger.balanced());
    CHECK(ledger.accepted == sent);
    CHECK(ledger.delivered + ledger.dead_lettered == sent);
    check_ends(ledger);
    CHECK(pipeline->close(std::chrono::minutes{1}).complete);
    pipeline.reset();
    CHECK(ends.destroyed == 1);
  }
  void check_ends(const Ledger& ledger) const {
    std::uint64_t delivered = 0;
    std::uint64_t dead = 0;
    bool once = true;
    for (std::size_t i = 0; i < kEvents; ++i) {
      delivered += static_cast<std::uint64_t>(ends.delivered[i]);
      dead += static_cast<std::uint64_t>(ends.dead[i]);
      once = once && ends.delivered[i] + ends.dead[i] <= 1;
    }
    CHECK(once);
    CHECK(delivered == ledger.delivered);
    CHECK(dead == ledger.dead_lettered);
  }

  ManualClock clock;
  Ends ends;
  std::unique_ptr<Pipeline> pipeline;
  std::size_t sent = 0;

 private:
  const Time time_;
};

/// Fails the n-th allocation of `call`; nothing if there is none.
struct Attempt {
  bool happened = false;
  bool threw = false;
};
Attempt fail_nth(std::uint64_t n, const std::function<void()>& call) {
  Attempt attempt;
  const AllocationFailure failure(n);
  try {
    call();
  } catch (const std::bad_alloc&) {
    attempt.threw = true;
  }
  attempt.happened = failure.happened();
  return attempt;
}

/// Each allocation of `call` in turn, each time in a new scene. `call` may be repeated after a failure. How many there are.
std::uint64_t fail_each(const std::function<void(Scene&)>& call,
                        Scene::Time time = Scene::Time::of_test) {
  for (std::uint64_t n = 1;; ++n) {
    CAPTURE(n);
    Scene scene(true, time);
    scene.ingest(30);
    const auto attempt = fail_nth(n, [&] { call(scene); });
    CHECK((attempt.happened || !attempt.threw));
    if (attempt.threw) {
      CHECK(scene.pipeline->ledger().balanced());
      call(scene);  // memory is back
    }
    scene.check_afterwards();
    if (!attempt.happened) return n - 1;
    REQUIRE(n < kMost);
  }
}

}  // namespace

TEST_CASE("a manager that finds no memory while it is made leaves nothing behind", "[R-C1]") {
  for (const auto routing : {Routing::balanced, Routing::keyed}) {
    const auto options = shard_test::elastic_options(routing, 3, 1, 6);
    std::uint64_t n = 1;
    for (;; ++n) {
      CAPTURE(n);
      const auto attempt = fail_nth(n, [&] {
        shard::Manager manager(options);
        static_cast<void>(manager.ingest("event"));
        static_cast<void>(manager.producer().ingest("event"));
      });
      if (!attempt.happened) break;
      REQUIRE(n < kMost);
    }
    CHECK(n > 10);
  }
}

TEST_CASE(
    "a pipeline that finds no memory while it is made leaves neither threads nor an adapter behind",
    "[R-C1][R-G8]") {
  const auto workers = GENERATE(std::size_t{0}, std::size_t{2});
  CAPTURE(workers);
  std::uint64_t n = 1;
  for (;; ++n) {
    CAPTURE(n);
    Scene scene;
    Ends ends;
    const auto options = Scene::options(scene, workers);
    std::unique_ptr<Pipeline> made;
    const auto attempt = fail_nth(n, [&] {
      made = std::make_unique<Pipeline>(options, std::make_unique<Sink>(ends, false));
    });
    CHECK(attempt.threw == (made == nullptr));
    if (made != nullptr) {
      CHECK(made->ingest("k:1:") == Outcome::accepted);
      CHECK(made->close(std::chrono::minutes{2}).complete);
      made.reset();
      CHECK(ends.delivered[1] == 1);
    }
    // Of what make_unique() could not make nothing can be destroyed.
    CHECK(ends.destroyed <= 1);
    if (!attempt.happened) break;
    REQUIRE(n < kMost);
  }
  CHECK(n > 20);
}

TEST_CASE("a large payload that finds no memory is refused and counted, whichever way it comes",
          "[R-C1][R-A9]") {
  const std::string large(1'500, 'x');
  for (int way = 0; way < 6; ++way) {
    for (std::uint64_t n = 1;; ++n) {
      CAPTURE(way, n);
      Scene scene(false);
      auto& pipeline = *scene.pipeline;
      auto producer = pipeline.producer();
      const std::array<shard::Bytes, 3> views{large, "k:1:", large};
      std::array<Outcome, 3> outcomes{};
      std::size_t accepted = 0;
      std::size_t offered = 1;
      const auto attempt = fail_nth(n, [&] {
        const auto one = [&](Outcome outcome) { accepted += outcome == Outcome::accepted; };
        switch (way) {
          case 0:
            return one(pipeline.ingest(large));
          case 1:
            return one(pipeline.ingest(large, Key{"key"}));
          case 2:
            return one(producer.ingest(large));
          case 3:
            offered = 3;
            accepted = pipeline.ingest_batch(views, outcomes);
            return;
          case 4:
            return one(pipeline.manager().shard(shard::ShardId{0})->try_push(large));
          default:
            offered = 0;  // if the copy fails, nothing was offered
            auto buffer = Buffer::copy_of(large);
            offered = 1;
            return one(pipeline.ingest(std::move(buffer)));
        }
      });
      CHECK(attempt.threw == (way == 5 && attempt.happened && offered == 0));
      const auto ledger = pipeline.ledger();
      CHECK(ledger.balanced());
      CHECK(ledger.offered() == offered);
      CHECK(ledger.accepted == accepted);
      CHECK(ledger.rejected_invalid == offered - accepted);
      CHECK((accepted == offered || attempt.happened));
      if (!attempt.happened) break;
      REQUIRE(n < kMost);
    }
  }
}

TEST_CASE("batches, retries and dead letters that find no memory lose nothing",
          "[R-C1][R-C4][R-F6]") {
  CHECK(fail_each([](Scene& scene) { scene.run(); }) >= 3);
}

TEST_CASE("a flush that finds no memory throws, has lost nothing and can be repeated",
          "[R-H1][R-C1]") {
  CHECK(fail_each(
            [](Scene& scene) {
              if (scene.pipeline->flush(std::chrono::minutes{1}).status != FlushStatus::flushed) {
                throw std::logic_error("not flushed");
              }
            },
            Scene::Time::of_machine) >= 2);
}

TEST_CASE("looking at a pipeline without memory changes nothing", "[R-C8]") {
  CHECK(fail_each([](Scene& scene) {
          const auto& pipeline = *scene.pipeline;
          static_cast<void>(pipeline.stats());
          static_cast<void>(pipeline.health());
          static_cast<void>(pipeline.latency(shard::ShardId{0}));
          static_cast<void>(pipeline.last_decision());
          static_cast<void>(pipeline.manager().collect_metrics());
          static_cast<void>(pipeline.manager().shard_ids());
          static_cast<void>(pipeline.manager().active_shard_ids());
          static_cast<void>(pipeline.manager().shard(shard::ShardId{1})->ledger());
          static_cast<void>(to_string(pipeline.ledger()));
        }) >= 1);
}

TEST_CASE("an operator who scales without memory loses nothing", "[R-E7][R-C1]") {
  CHECK(fail_each([](Scene& scene) {
          static_cast<void>(scene.pipeline->scale_up(2));
          scene.run();
          static_cast<void>(scene.pipeline->scale_down(2));
          scene.run();
        }) >= 10);
}

TEST_CASE("close without memory keeps its counts, and its report says that it is not complete",
          "[R-I1][R-I4][R-C1]") {
  const bool in_time = GENERATE(true, false);
  CAPTURE(in_time);
  std::uint64_t n = 1;
  for (;; ++n) {
    CAPTURE(n);
    Scene scene(false, Scene::Time::of_machine);
    scene.ingest(30);
    const auto within = in_time ? std::chrono::minutes{1} : std::chrono::minutes{0};
    std::optional<shard::CloseReport> report;
    const auto attempt = fail_nth(n, [&] { report = scene.pipeline->close(within); });
    CHECK(attempt.threw == !report);
    const auto again = scene.pipeline->close(within);
    CHECK(again.ledger == scene.pipeline->ledger());
    CHECK(again.ledger.balanced());
    CHECK(again.ledger.accepted == 30);
    CHECK(again.ledger.queued + again.ledger.batched == 0);
    if (in_time) {
      CHECK(again.ledger.delivered == 30);
    } else {
      CHECK(again.ledger.abandoned_queued == 30);
      CHECK_FALSE(again.complete);
    }
    if (again.complete) {
      CHECK(again.shards.size() == 3);
      CHECK(again.undelivered.empty());
    }
    scene.check_ends(again.ledger);
    scene.pipeline.reset();
    CHECK(scene.ends.destroyed == 1);
    if (!attempt.happened) break;
    REQUIRE(n < kMost);
  }
  CHECK(n > 3);
}

TEST_CASE("what was popped before there was no memory lets the shard that waits for it go on",
          "[R-D15][R-C1]") {
  auto options = shard_test::hosted_elastic_options(Routing::keyed, 1, 1, 2, 1'024);
  options.manager.ring_bytes = 65'536;
  options.batch.min_events = options.batch.max_events = 1;
  options.batch.max_delay = std::chrono::nanoseconds{0};
  shard_test::Hosted test(options);
  auto& manager = test.pipeline->manager();
  const auto push = [&](std::size_t key) {
    REQUIRE(test.pipeline->ingest("x", Key{std::to_string(key)}) == Outcome::accepted);
  };
  for (std::size_t i = 0; i < 100; ++i) push(i);
  REQUIRE(test.pipeline->scale_up(1).added.size() == 1);
  const auto first = manager.shard(shard::ShardId{0});
  const auto moved = manager.shard(shard::ShardId{1});
  for (std::size_t i = 0; moved->len() == 0; ++i) push(i);
  CHECK(test.pipeline->run_once() == 1);  // now the other one waits
  const auto left = first->len();

  shard::EventBatch popped;
  popped.reserve_more(256,
                      65'536);  // for what is popped under one lock; then it asks for as much again
  {
    const AllocationFailure failure(1);
    CHECK_THROWS_AS(first->pop_batch_into(popped), std::bad_alloc);
  }
  CHECK(popped.size() == left);
  CHECK(first->len() == 0);
  test.run();
  CHECK(moved->len() == 0);
  CHECK(test.ledger().balanced());
}

TEST_CASE("a destructor without memory neither throws nor loses what it can deliver", "[R-I5]") {
  for (std::uint64_t n = 1;; ++n) {
    CAPTURE(n);
    Scene scene(false, Scene::Time::of_machine);
    scene.ingest(30);
    const auto attempt = fail_nth(n, [&] { scene.pipeline.reset(); });
    CHECK_FALSE(attempt.threw);
    CHECK(scene.ends.destroyed == 1);
    CHECK(std::count(scene.ends.delivered.begin(), scene.ends.delivered.end(), 1) == 30);
    if (!attempt.happened) break;
    REQUIRE(n < kMost);
  }
}
