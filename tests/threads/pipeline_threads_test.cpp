// A pipeline with real threads: producers, workers, an adapter that fails in every way, flush and close in the middle of it.
// Short, for ThreadSanitizer; tests/faults.cpp is the long run.
//
// What adapters note down is not atomic and has no lock of its own: that one shard, and one key, is delivered by one thread
// at a time, each after the other, is the library's promise, and ThreadSanitizer's to check.

#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <latch>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "shard/pipeline.hpp"
#include "support/books.hpp"
#include "support/failures.hpp"
#include "support/options.hpp"
#include "support/pipeline.hpp"

namespace {

using shard::Backpressure;
using shard::BackpressureMode;
using shard::Batch;
using shard::Bytes;
using shard::CloseReport;
using shard::Delivery;
using shard::DeliveryContext;
using shard::FlushStatus;
using shard::Outcome;
using shard::Pipeline;
using shard::PipelineOptions;
using shard::ShardId;
using shard::Undelivered;
using shard::WaitStrategy;
using shard_test::Failures;
using shard_test::Tally;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::seconds;

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif
#else
constexpr bool kThreadSanitizer = false;
#endif
constexpr std::uint64_t kScale = kThreadSanitizer ? 1 : 3;

/// More than any of this takes on a busy machine: what waits so long has failed.
constexpr minutes kLong{2};

constexpr std::size_t kProducers = 3;
constexpr std::size_t kHost = kProducers;  // the test's own thread, as a producer
constexpr std::size_t kKeys = 8;           // of each producer
constexpr std::size_t kShardIds = 2'048;

/// Waits until it holds, not for ever; what it says in the end.
template <class Condition>
bool eventually(const Condition& condition) {
  const auto end = std::chrono::steady_clock::now() + kLong;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return condition();
    std::this_thread::yield();
  }
  return true;
}

std::uint64_t mix(std::uint64_t value) {  // splitmix64, by Sebastiano Vigna; public domain
  value += 0x9E3779B97F4A7C15U;
  value = (value ^ (value >> 30U)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27U)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31U);
}

Backpressure block_for_ever() { return Backpressure::block(nanoseconds::max()); }

/// Small shards and batches, so that everything happens often; retries at once, without end.
PipelineOptions quick_options(std::size_t workers, std::size_t shards,
                              Backpressure backpressure = block_for_ever()) {
  PipelineOptions options;
  options.manager = shard_test::small_options(shards, 64, backpressure);
  options.workers = workers;
  options.batch.min_events = 8;
  options.batch.max_events = 32;
  options.batch.max_delay = milliseconds{1};
  options.retry.initial_backoff = microseconds{50};
  options.retry.max_backoff = milliseconds{1};
  options.retry.max_attempts = 0;
  options.retry.max_elapsed = nanoseconds::max();
  options.notice_interval = nanoseconds{0};
  options.listener = [](const shard::Notice& /*notice*/) {};
  return options;
}

/// What every event says of itself; the number counts what its producer has got in with this key.
struct Stamp {
  std::uint64_t producer;
  std::uint64_t key;
  std::uint64_t number;

  [[nodiscard]] Bytes bytes() const {
    return {reinterpret_cast<const std::byte*>(this), sizeof *this};
  }
};

std::string key_of(std::size_t producer, std::size_t key) {
  return std::to_string(producer) + "/" + std::to_string(key);
}

enum class Fate : std::uint8_t { open, delivered, dead, unknown };

/// What adapters were given, by sequence number, and what they made of it.
/// Threads: look(), answer(), leave() and bury() for one shard by whoever has it; check() when all is quiet.
class Books {
 public:
  Failures failures;
  std::atomic<std::uint64_t> delivered{0};  ///< relaxed: it orders nothing

  /// At the beginning of a call.
  void look(const Batch& batch) {
    auto& at = shards_[batch.shard().value];
    failures.check(!at.busy.exchange(true, std::memory_order_relaxed),
                   "two calls for one shard at once");
    std::uint64_t next = 0;
    for (const auto event : batch) {
      const auto sequence = event.sequence.value;
      failures.check(event.shard == batch.shard(), "a batch is of two shards");
      failures.check(sequence >= next, "the sequence does not increase in a batch");
      next = sequence + 1;
      if (at.fates.size() <= sequence) at.fates.resize(sequence + 1, Fate::open);
      failures.check(at.fates[sequence] == Fate::open, "what is settled is tried again");
      static_cast<void>(stamp_of(event));
    }
    check_flushed(at, batch);
  }
  /// At its end: notes what the answer says.
  Delivery answer(const Batch& batch, Delivery delivery) {
    auto& at = shards_[batch.shard().value];
    check_flushed(at, batch);
    const auto& indices = delivery.indices();
    for (std::size_t i = 0; i < batch.size(); ++i) {
      switch (delivery.kind()) {
        case Delivery::Kind::delivered_prefix:
          if (i < delivery.count()) mark(at, batch[i], Fate::delivered);
          break;
        case Delivery::Kind::delivered_except:
          if (!std::binary_search(indices.begin(), indices.end(), i)) {
            mark(at, batch[i], Fate::delivered);
          }
          break;
        case Delivery::Kind::delivered:
          mark(at, batch[i], Fate::delivered);
          break;
        case Delivery::Kind::unknown:
          mark(at, batch[i], Fate::unknown);
          break;
        default:
          break;
      }
    }
    return delivery;
  }
  void leave(const Batch& batch) {
    shards_[batch.shard().value].busy.store(false, std::memory_order_relaxed);
  }
  void bury(const Batch& batch) {
    auto& at = shards_[batch.shard().value];
    for (const auto event : batch) {
      auto& fate = at.fates[event.sequence.value];
      failures.check(fate == Fate::open, "a dead letter was settled before");
      fate = Fate::dead;
    }
  }

  /// Everything below these sequence numbers is said to be terminal: a call that has some of it is wrong from now on.
  void flushed(ShardId shard, std::uint64_t sequences) {
    auto& to = shards_[shard.value].flushed_to;
    auto before = to.load();
    while (before < sequences && !to.compare_exchange_weak(before, sequences)) {
    }
  }

  /// Every event that was accepted has exactly one end, the counts say so, and the report names exactly what has no
  /// other. `told` is what the producers were told.
  void check(const CloseReport& report, const shard::Ledger& told) const {
    CHECK(failures.text() == "");
    std::map<std::uint32_t, std::map<std::uint64_t, Undelivered>> named;
    for (const auto& range : report.undelivered) {
      for (auto at = range.first.value; at <= range.last.value; ++at) {
        REQUIRE(named[range.shard.value].emplace(at, range.why).second);
      }
    }
    const auto count = [&](std::uint32_t id) {
      shard::Ledger counts;
      const auto& fates = shards_[id].fates;
      const auto& names = named[id];
      bool unnamed = true;
      for (std::uint64_t sequence = 0; sequence < fates.size(); ++sequence) {
        const auto fate = fates[sequence];
        if (const auto name = names.find(sequence); name != names.end()) {
          // Only of what was under way when time ran out may the adapter think something else.
          unnamed =
              unnamed && (fate == Fate::open || name->second == Undelivered::possibly_delivered);
          continue;
        }
        counts.delivered += fate == Fate::delivered ? 1U : 0U;
        counts.dead_lettered += fate == Fate::dead ? 1U : 0U;
        counts.possibly_delivered += fate == Fate::unknown ? 1U : 0U;
      }
      CHECK(unnamed);
      for (const auto& [sequence, why] : names) {
        counts.abandoned_queued += why == Undelivered::abandoned_queued ? 1U : 0U;
        counts.abandoned_batched += why == Undelivered::abandoned_batched ? 1U : 0U;
        counts.possibly_delivered += why == Undelivered::possibly_delivered ? 1U : 0U;
      }
      counts.taken = counts.delivered + counts.dead_lettered + counts.possibly_delivered +
                     counts.abandoned_batched;
      counts.accepted = counts.taken + counts.abandoned_queued;
      return counts;
    };

    shard::Ledger all;
    for (std::uint32_t id = 0; id < kShardIds; ++id) all += count(id);
    for (const auto& of : report.shards) {
      CAPTURE(of.shard.value, to_string(of.ledger));
      CHECK(of.ledger.balanced());
      auto counts = count(of.shard.value);
      add_what_cannot_be_seen(counts, of.ledger, report);
      counts.dropped_newest = of.ledger.dropped_newest;
      counts.rejected_full = of.ledger.rejected_full;
      counts.rejected_timeout = of.ledger.rejected_timeout;
      CHECK(of.ledger == counts);
      const auto& fates = shards_[of.shard.value].fates;
      CHECK(fates.size() <= of.ledger.accepted);
      const auto& names = named[of.shard.value];
      if (!names.empty()) CHECK(names.rbegin()->first < of.ledger.accepted);
    }
    add_what_cannot_be_seen(all, report.ledger, report);
    all.dropped_newest = told.dropped_newest;
    all.rejected_full = told.rejected_full;
    all.rejected_timeout = told.rejected_timeout;
    all.rejected_closed = told.rejected_closed;
    CHECK(report.ledger == all);
    CHECK(report.ledger.accepted == told.accepted);
    CHECK(report.ledger.balanced());
    CHECK(report.ledger.offered() == told.offered());
  }

 private:
  struct PerShard {
    std::vector<Fate> fates;
    std::uint64_t next = 0;  ///< one above the last that was delivered
    std::atomic<bool> busy{false};
    std::atomic<std::uint64_t> flushed_to{0};
  };

  /// Evictions, and dead letters that were counted when it was too late to hand them over.
  static void add_what_cannot_be_seen(shard::Ledger& counts, const shard::Ledger& said,
                                      const CloseReport& report) {
    counts.evicted = said.evicted;
    counts.accepted += said.evicted;
    if (!report.complete && said.dead_lettered > counts.dead_lettered) {
      const auto unseen = said.dead_lettered - counts.dead_lettered;
      counts.dead_lettered += unseen;
      counts.taken += unseen;
      counts.accepted += unseen;
    }
  }
  Stamp stamp_of(const shard::Event& event) {
    Stamp stamp{};
    if (failures.check(event.payload.size() == sizeof stamp, "an event has another size")) {
      std::memcpy(&stamp, event.payload.data(), sizeof stamp);
    }
    if (!failures.check(stamp.producer <= kHost && stamp.key < kKeys, "an event is corrupt")) {
      return {};
    }
    return stamp;
  }
  void check_flushed(const PerShard& at, const Batch& batch) {
    failures.check(batch.first_sequence().value >= at.flushed_to.load(),
                   "a flush succeeded while an event of before was under way");
  }
  void mark(PerShard& at, const shard::Event& event, Fate fate) {
    const auto sequence = event.sequence.value;
    at.fates[sequence] = fate;
    failures.check(sequence >= at.next, "an event came behind a younger one of its shard");
    at.next = sequence + 1;
    const auto stamp = stamp_of(event);
    auto& next = next_[stamp.producer][stamp.key];
    failures.check(stamp.number >= next, "an event came behind a younger one of its key");
    next = stamp.number + 1;
    if (fate == Fate::delivered) delivered.fetch_add(1, std::memory_order_relaxed);
  }

  std::vector<PerShard> shards_ = std::vector<PerShard>(kShardIds);
  std::array<std::array<std::uint64_t, kKeys>, kHost + 1> next_{};
};

using Answer = std::function<Delivery(const Batch&, const DeliveryContext&)>;

Delivery deliver_all(const Batch& /*batch*/, const DeliveryContext& /*context*/) {
  return Delivery::delivered();
}

/// An adapter that keeps the books, and answers as it is told.
class Booked final : public shard::Adapter {
 public:
  Booked(Books& books, Answer answer, std::atomic<bool>* destroyed = nullptr)
      : books_(books), answer_(std::move(answer)), destroyed_(destroyed) {}
  ~Booked() override {
    if (destroyed_ != nullptr) *destroyed_ = true;
  }
  Delivery deliver(const Batch& batch, const DeliveryContext& context) override {
    books_.look(batch);
    struct Leave {
      Books& books;
      const Batch& batch;
      ~Leave() { books.leave(batch); }
    };
    const Leave leave{books_, batch};
    return books_.answer(batch, answer_(batch, context));
  }

 private:
  Books& books_;
  const Answer answer_;
  std::atomic<bool>* const destroyed_;
};

/// Producers, and what they were told.
class Producers {
 public:
  explicit Producers(Pipeline& pipeline) : pipeline_(pipeline) {}
  Producers(const Producers&) = delete;
  Producers& operator=(const Producers&) = delete;
  ~Producers() { stop(); }

  /// Each in a way of its own.
  void start(std::uint64_t events_each = ~std::uint64_t{0}, std::size_t producers = kProducers) {
    for (std::size_t producer = 0; producer < producers; ++producer) {
      threads_.emplace_back([this, producer, events_each] {
        if (producer % 3 == 0) {
          one_by_one(producer, events_each,
                     [this](Bytes bytes, shard::Key key) { return pipeline_.ingest(bytes, key); });
        } else if (producer % 3 == 1) {
          auto handle = pipeline_.producer();
          one_by_one(producer, events_each,
                     [&handle](Bytes bytes, shard::Key key) { return handle.ingest(bytes, key); });
        } else {
          in_batches(producer, events_each);
        }
      });
    }
  }
  void join() {
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }
  void stop() {
    stop_ = true;
    join();
  }
  /// When they are joined.
  [[nodiscard]] shard::Ledger told() const {
    Tally all;
    for (const auto& each : tallies_) all += each;
    return all.ledger();
  }

 private:
  template <class Ingest>
  void one_by_one(std::size_t producer, std::uint64_t events, const Ingest& ingest) {
    std::array<std::uint64_t, kKeys> numbers{};
    std::array<std::string, kKeys> keys;
    for (std::size_t key = 0; key < kKeys; ++key) keys[key] = key_of(producer, key);
    for (std::uint64_t i = 0; i < events && !stop_.load(std::memory_order_relaxed); ++i) {
      const auto key = i * 5 % kKeys;
      const Stamp stamp{producer, key, numbers[key]};
      const auto outcome = ingest(stamp.bytes(), shard::Key{keys[key]});
      numbers[key] += tallies_[producer].saw(outcome) == Outcome::accepted ? 1U : 0U;
      if (outcome != Outcome::accepted) std::this_thread::yield();
    }
  }
  void in_batches(std::size_t producer, std::uint64_t events) {
    constexpr std::size_t kBatch = 12;
    std::array<std::uint64_t, kKeys> numbers{};
    std::array<std::string, kKeys> keys;
    for (std::size_t key = 0; key < kKeys; ++key) keys[key] = key_of(producer, key);
    std::array<Stamp, kBatch> stamps{};
    std::array<shard::RawEvent, kBatch> raw;
    std::array<Outcome, kBatch> outcomes{};
    for (std::uint64_t i = 0; i < events && !stop_.load(std::memory_order_relaxed); i += kBatch) {
      auto next = numbers;
      for (std::size_t e = 0; e < kBatch; ++e) {
        const auto key = (i + e) * 5 % kKeys;
        stamps[e] = {producer, key, next[key]++};
        raw[e] = pipeline_.manager().raw_event(stamps[e].bytes(), shard::Key{keys[key]});
      }
      static_cast<void>(pipeline_.ingest_raw_batch(raw, outcomes));
      for (std::size_t e = 0; e < kBatch; ++e) {
        // Of one key the first are accepted, and none behind one that was refused.
        numbers[stamps[e].key] +=
            tallies_[producer].saw(outcomes[e]) == Outcome::accepted ? 1U : 0U;
      }
    }
  }

  Pipeline& pipeline_;
  std::vector<std::thread> threads_;
  std::array<Tally, kProducers> tallies_;
  std::atomic<bool> stop_{false};
};

/// A pipeline whose adapter keeps books.
struct Rig {
  explicit Rig(PipelineOptions options, Answer answer = deliver_all) {
    options.dead_letters = [this](const Batch& batch, const shard::DeadLetter& /*why*/) {
      books.bury(batch);
    };
    pipeline = std::make_unique<Pipeline>(
        options, std::make_unique<Booked>(books, std::move(answer), &destroyed_));
    producers = std::make_unique<Producers>(*pipeline);
  }
  ~Rig() { end(); }
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  /// Ingests that many events of one key.
  void push(std::size_t events, std::uint64_t key = 0) {
    for (std::size_t i = 0; i < events; ++i) {
      const Stamp stamp{kHost, key, pushed_[key]++};
      const auto name = key_of(kHost, key);
      REQUIRE(told.saw(pipeline->ingest(stamp.bytes(), shard::Key{name})) == Outcome::accepted);
    }
  }
  CloseReport close(nanoseconds within = kLong) { return pipeline->close(within); }
  /// Destroys the pipeline, and waits for threads that close() has abandoned: from here on nobody writes the books.
  void end() {
    if (pipeline == nullptr) return;
    producers->stop();
    told_producers_ = producers->told();
    producers.reset();
    pipeline.reset();
    CHECK(eventually([this] { return destroyed_.load(); }));
  }
  /// What the producers were told, when they are joined.
  [[nodiscard]] shard::Ledger all_told() const {
    auto all = producers != nullptr ? producers->told() : told_producers_;
    all += told.ledger();
    return all;
  }
  void check(const CloseReport& report) const { books.check(report, all_told()); }
  /// The same where producers went on after the report was made: then it knows of fewer refusals.
  void check_later(const CloseReport& report) const {
    auto all = all_told();
    CHECK(all.rejected_closed >= report.ledger.rejected_closed);
    all.rejected_closed = report.ledger.rejected_closed;
    books.check(report, all);
  }

  Books books;
  std::unique_ptr<Pipeline> pipeline;
  std::unique_ptr<Producers> producers;
  Tally told;

 private:
  std::array<std::uint64_t, kKeys> pushed_{};
  shard::Ledger told_producers_;
  std::atomic<bool> destroyed_{false};
};

/// Holds whoever comes until it is opened; knows how many have come.
class Barrier {
 public:
  void wait() {
    came_.fetch_add(1);
    open_.wait();
  }
  void open() { open_.count_down(); }
  [[nodiscard]] std::size_t came() const { return came_.load(); }

 private:
  std::latch open_{1};
  std::atomic<std::size_t> came_{0};
};

// ---------------------------------------------------------------------------------- all is well

TEST_CASE("workers deliver every event exactly once, in the order of its shard and key",
          "[R-C1][R-G1][R-F7]") {
  const std::size_t workers = GENERATE(1U, 2U, 3U, 4U);
  CAPTURE(workers);
  Rig rig(quick_options(workers, 4));
  rig.producers->start(1'000 * kScale);
  rig.producers->join();
  CHECK(rig.pipeline->flush(kLong).status == FlushStatus::flushed);
  const auto offered = rig.producers->told().accepted;
  CHECK(rig.books.delivered.load() == offered);
  const auto report = rig.close();
  CHECK(report.complete);
  CHECK(report.ledger.delivered == offered);
  rig.check(report);
}

TEST_CASE("every key keeps its order while shards come and go under a pipeline",
          "[R-D9][R-D15][R-E4][R-E5]") {
  const std::size_t workers = GENERATE(1U, 3U);
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(workers, seed);
  auto options = quick_options(workers, 2);
  options.manager.routing = shard::Routing::keyed;
  options.manager.scaling.emplace();
  options.manager.scaling->min_shards = 1;
  options.manager.scaling->max_shards = 6;
  options.manager.scaling->auto_scale = false;
  options.manager.scaling->metrics_window = milliseconds{1};
  Rig rig(options);
  rig.producers->start();
  auto& manager = rig.pipeline->manager();
  std::mt19937_64 random(seed);
  std::uint64_t changes = 0;
  CHECK(eventually([&] {
    switch (random() % 3) {
      case 0:
        changes += rig.pipeline->scale_up(1 + random() % 2).added.size();
        break;
      case 1:
        changes += rig.pipeline->scale_down(1).draining.size();
        break;
      default:  // the controller does so too
        manager.finalize_draining();
        changes += manager.remove_stopped_shards();
        break;
    }
    return changes >= 60 * kScale && rig.books.delivered.load() > 3'000;
  }));
  rig.producers->stop();
  CHECK(rig.pipeline->flush(kLong).status == FlushStatus::flushed);
  CHECK(rig.books.delivered.load() == rig.producers->told().accepted);
  const auto report = rig.close();
  CHECK(report.complete);
  rig.check(report);
}

TEST_CASE("every way to wait for work delivers everything", "[R-G7]") {
  // A nanosecond is as good as not at all: then it parks, and all that comes has to wake it.
  const auto [wait, spin_for] =
      GENERATE(table<WaitStrategy, nanoseconds>({{WaitStrategy::park, microseconds{50}},
                                                 {WaitStrategy::spin_then_park, microseconds{50}},
                                                 {WaitStrategy::spin_then_park, nanoseconds{1}},
                                                 {WaitStrategy::spin, microseconds{50}}}));
  INFO(to_string(wait) << ", spins for " << spin_for.count() << " ns");
  auto options = quick_options(2, 3);
  options.wait = wait;
  options.spin_for = spin_for;
  options.batch.max_delay = microseconds{100};
  Rig rig(options);
  rig.producers->start(600 * kScale);
  rig.producers->join();
  // One at a time, so that workers come to rest in between.
  for (std::size_t i = 0; i < 100 * kScale; ++i) {
    const auto before = rig.books.delivered.load();
    const auto accepted = rig.producers->told().accepted + i;
    rig.push(1, i % kKeys);
    if (!eventually([&] { return rig.books.delivered.load() == accepted + 1; })) {
      FAIL("an event is not delivered, at " << before);
    }
  }
  const auto report = rig.close();
  CHECK(report.complete);
  rig.check(report);
}

TEST_CASE("an adapter may ingest", "[R-D13]") {
  std::atomic<Pipeline*> self{nullptr};
  std::atomic<std::uint64_t> accepted{0};
  std::atomic<std::uint64_t> refused{0};
  std::atomic<std::uint64_t> delivered{0};
  auto options = quick_options(2, 2);  // they would block, but not on a worker
  Pipeline pipeline(options, [&](const Batch& batch) {
    for (const auto event : batch) {
      delivered.fetch_add(1);
      if (event.text() == "first") {
        const auto outcome = self.load()->ingest("second", shard::Key{"k"});
        (outcome == Outcome::accepted ? accepted : refused).fetch_add(1);
      }
    }
    return Delivery::delivered();
  });
  self = &pipeline;
  constexpr std::uint64_t kEvents = 500;
  std::vector<std::thread> threads;
  for (int producer = 0; producer < 2; ++producer) {
    threads.emplace_back([&] {
      for (std::uint64_t i = 0; i < kEvents; ++i)
        pipeline.ingest("first", shard::Key{std::to_string(i)});
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(eventually([&] { return accepted.load() + refused.load() == 2 * kEvents; }));
  CHECK(pipeline.flush(kLong).status == FlushStatus::flushed);
  const auto report = pipeline.close(kLong);
  CHECK(report.complete);
  CHECK(delivered.load() == 2 * kEvents + accepted.load());
  CHECK(report.ledger.delivered == delivered.load());
  CHECK(report.ledger.rejected_full == refused.load());
  CHECK(report.ledger.balanced());
}

// ---------------------------------------------------------------------------------- who delivers

TEST_CASE("serialise_adapter allows one call at a time, whatever the number of workers") {
  auto options = quick_options(4, 4);
  options.serialise_adapter = true;
  std::uint64_t calls = 0;  // not atomic: that is the point
  std::atomic<bool> inside{false};
  Failures failures;
  Rig rig(options, [&](const Batch& /*batch*/, const DeliveryContext& /*context*/) {
    failures.check(!inside.exchange(true, std::memory_order_relaxed), "two calls at once");
    ++calls;
    std::this_thread::yield();
    inside.store(false, std::memory_order_relaxed);
    return Delivery::delivered();
  });
  rig.producers->start(500 * kScale);
  for (int i = 0; i < 10; ++i) CHECK(rig.pipeline->flush(kLong).status == FlushStatus::flushed);
  rig.producers->join();
  const auto report = rig.close();
  CHECK(report.complete);
  CHECK(calls != 0);
  CHECK(failures.text() == "");
  rig.check(report);
}

TEST_CASE("each adapter of a factory is used by its own worker only") {
  struct Made {
    std::uint64_t calls = 0;
    std::thread::id user;
    bool closed = false;
  };
  constexpr std::size_t kWorkers = 3;
  std::array<Made, kWorkers> made;
  Failures failures;
  Books books;
  class Own final : public shard::Adapter {
   public:
    Own(Made& made, Failures& failures, Books& books)
        : made_(made), failures_(failures), booked_(books, deliver_all) {}
    Delivery deliver(const Batch& batch, const DeliveryContext& context) override {
      used();
      return booked_.deliver(batch, context);
    }
    bool flush(const DeliveryContext& /*context*/) override {
      used();
      return true;
    }
    void close(const DeliveryContext& /*context*/) override {
      used();
      failures_.check(!std::exchange(made_.closed, true), "an adapter is closed twice");
    }

   private:
    void used() {
      const auto self = std::this_thread::get_id();
      if (made_.calls++ == 0) made_.user = self;
      failures_.check(made_.user == self, "an adapter is used by two threads");
    }
    Made& made_;
    Failures& failures_;
    Booked booked_;
  };
  Pipeline pipeline(quick_options(kWorkers, 5), shard::AdapterFactory([&](std::size_t worker) {
                      return std::make_unique<Own>(made.at(worker), failures, books);
                    }));
  Producers producers(pipeline);
  producers.start(500 * kScale);
  for (int i = 0; i < 5; ++i) CHECK(pipeline.flush(kLong).status == FlushStatus::flushed);
  producers.join();
  const auto report = pipeline.close(kLong);
  CHECK(report.complete);
  CHECK(failures.text() == "");
  for (const auto& each : made) CHECK(each.closed);
  books.check(report, producers.told());
}

TEST_CASE("a call that does not return keeps no other shard waiting while a worker is free",
          "[R-G1]") {
  auto options = quick_options(2, 4);
  options.wait = GENERATE(WaitStrategy::park, WaitStrategy::spin_then_park, WaitStrategy::spin);
  CAPTURE(to_string(options.wait));
  Barrier barrier;
  std::atomic<std::uint32_t> stuck{~0U};
  Rig rig(options, [&](const Batch& batch, const DeliveryContext& /*context*/) {
    auto none = ~0U;  // the first that comes
    if (stuck.compare_exchange_strong(none, batch.shard().value)) barrier.wait();
    return Delivery::delivered();
  });
  auto& manager = rig.pipeline->manager();
  rig.push(1, 0);
  REQUIRE(eventually([&] { return barrier.came() == 1; }));
  std::uint64_t others = 0;
  for (int round = 0; round < 50; ++round) {
    for (std::uint64_t key = 1; key < kKeys; ++key) {
      const auto name = key_of(kHost, key);
      if (manager.select_shard_by_hash(manager.hash(shard::Key{name}.bytes))->value !=
          stuck.load()) {
        rig.push(1, key);
        ++others;
      }
    }
    REQUIRE(eventually([&] { return rig.books.delivered.load() == others; }));
  }
  CHECK(others != 0);
  CHECK(rig.pipeline->health().busy_workers == 1);
  barrier.open();
  const auto report = rig.close();
  CHECK(report.complete);
  rig.check(report);
}

/// Whether this process has a thread of that name.
bool has_thread(const std::string& name) {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream comm(task.path() / "comm");
    std::string text;
    if (std::getline(comm, text) && text == name) return true;
  }
  return false;
}

TEST_CASE("workers have names and processors, and the controller a name", "[R-J1]") {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  std::vector<unsigned> processors;
  std::optional<unsigned> forbidden;
  for (unsigned i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &allowed)) {
      processors.push_back(i);
    } else if (!forbidden) {
      forbidden = i;
    }
  }
  // Two of them at once in their adapter, so each is seen, and a controller.
  auto options = quick_options(2, 2);
  options.processors = {processors.front(), processors.back()};
  options.thread_name = "a-rather-long-name";
  options.manager.scaling.emplace().max_shards = 2;
  options.manager.scaling->auto_scale = false;
  using Processors = std::vector<int>;
  std::map<std::string, Processors> seen;  ///< by the name of the worker
  std::mutex mutex;
  std::latch both{2};
  {
    Pipeline pipeline(options, [&](const Batch& /*batch*/) {
      std::array<char, 16> name{};
      pthread_getname_np(pthread_self(), name.data(), name.size());
      cpu_set_t mine;
      CPU_ZERO(&mine);
      pthread_getaffinity_np(pthread_self(), sizeof mine, &mine);
      {
        const std::lock_guard lock(mutex);
        for (int i = 0; i < CPU_SETSIZE; ++i) {
          if (CPU_ISSET(static_cast<std::size_t>(i), &mine)) seen[name.data()].push_back(i);
        }
      }
      both.arrive_and_wait();
    });
    for (const std::uint32_t shard : {0U, 1U}) {
      const auto payload = shard_test::payloads_for(pipeline.manager(), ShardId{shard}, 1)[0];
      CHECK(pipeline.ingest(payload) == Outcome::accepted);
    }
    CHECK(eventually([] { return has_thread("a-rather-long-2"); }));  // the controller
    CHECK(pipeline.close(kLong).complete);
  }
  CHECK(seen == std::map<std::string, Processors>{
                    {"a-rather-long-0", {static_cast<int>(processors.front())}},
                    {"a-rather-long-1", {static_cast<int>(processors.back())}}});

  REQUIRE(forbidden);
  options.processors = {processors.front(), *forbidden};
  try {
    const Pipeline pipeline(options, [](const Batch& /*batch*/) {});
    FAIL("a processor that is not to be used was accepted");
  } catch (const shard::ConfigError& error) {
    CHECK(std::string(error.what()).find("processors") != std::string::npos);
    CHECK(std::string(error.what()).find(std::to_string(*forbidden)) != std::string::npos);
  }
}

// ---------------------------------------------------------------------------------- faults

struct Fault {
  const char* name;
  Delivery (*answer)(const Batch& batch, std::uint64_t random);
};

Delivery failing(std::uint64_t random, std::uint64_t percent) {
  return random % 100 < percent ? Delivery::retry("busy") : Delivery::delivered();
}
Delivery deliver_a_prefix(const Batch& batch, std::uint64_t random) {
  const auto prefix = random % (batch.size() + 1);
  return Delivery::delivered(prefix, random % 2 == 0 ? "" : "full");
}
std::vector<std::size_t> some_of(const Batch& batch, std::uint64_t random) {
  std::vector<std::size_t> indices;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    if (mix(random + i) % 8 == 0) indices.push_back(i);
  }
  return indices;
}
Delivery refuse_some(const Batch& batch, std::uint64_t random) {
  const auto indices = some_of(batch, random);
  return random % 3 == 0 || indices.empty() ? Delivery::delivered()
                                            : Delivery::refuse(indices, "no such column");
}
Delivery deliver_all_but_some(const Batch& batch, std::uint64_t random) {
  return Delivery::delivered_except(some_of(batch, random), "no such column");
}
Delivery throw_something(const Batch& /*batch*/, std::uint64_t random) {
  switch (random % 5) {
    case 0:
      throw std::runtime_error("connection lost");
    case 1:
      throw shard::PermanentError("no such table");
    case 2:
      throw 42;
    default:
      return Delivery::delivered();
  }
}

constexpr std::array<Fault, 9> kFaults{{
    {"1 % fail", [](const Batch& /*batch*/, std::uint64_t r) { return failing(r, 1); }},
    {"50 % fail", [](const Batch& /*batch*/, std::uint64_t r) { return failing(r, 50); }},
    {"100 % fail", [](const Batch& /*batch*/, std::uint64_t r) { return failing(r, 100); }},
    {"prefixes", deliver_a_prefix},
    {"refuses some", refuse_some},
    {"delivers all but some", deliver_all_but_some},
    {"throws", throw_something},
    {"does not know",
     [](const Batch& /*batch*/, std::uint64_t random) {
       return random % 4 == 0 ? Delivery::unknown("timeout") : Delivery::delivered();
     }},
    {"slow",
     [](const Batch& /*batch*/, std::uint64_t /*random*/) {
       std::this_thread::sleep_for(microseconds{300});
       return Delivery::delivered();
     }},
}};

TEST_CASE(
    "the laws and the order hold whatever an adapter answers, and whenever the pipeline closes",
    "[R-C1][R-C3][R-C4][R-G2][R-G5][R-G9][R-I1][R-I2]") {
  enum class End { drained, in_the_middle, too_early };
  const auto fault = GENERATE(from_range(kFaults.begin(), kFaults.end()));
  const auto end = GENERATE(End::drained, End::in_the_middle, End::too_early);
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(fault.name, static_cast<int>(end), seed);
  auto options = quick_options(2, 3);
  const bool gives_up = std::string(fault.name) == "100 % fail" && end != End::too_early;
  options.retry.max_attempts = gives_up ? 3 : 0;
  std::atomic<std::uint64_t> calls{0};
  Rig rig(options, [&](const Batch& batch, const DeliveryContext& context) {
    calls.fetch_add(1, std::memory_order_relaxed);
    return fault.answer(batch, mix(mix(seed + batch.shard().value + context.attempt * 64U) +
                                   batch.first_sequence().value * 1024 + batch.size()));
  });
  CloseReport report;
  switch (end) {
    case End::drained:
      rig.producers->start(200 * kScale);
      rig.producers->join();
      CHECK(rig.pipeline->flush(kLong).status == FlushStatus::flushed);
      report = rig.close();
      CHECK(report.complete);
      CHECK(report.undelivered.empty());
      CHECK(rig.producers->told().rejected_closed == 0);
      break;
    case End::in_the_middle:
      rig.producers->start();
      REQUIRE(eventually([&] { return calls.load() > 40 * kScale; }));
      report = rig.close();
      CHECK(report.complete);
      rig.producers->stop();
      break;
    case End::too_early:
      rig.producers->start();
      REQUIRE(eventually([&] { return calls.load() > 20 * kScale; }));
      report = rig.close(microseconds{seed % 3 == 0 ? 0 : 300});
      rig.producers->stop();
      break;
  }
  CHECK(report.ledger.evicted == 0);
  if (gives_up) CHECK(report.ledger.dead_lettered == report.ledger.accepted);
  CHECK((!report.complete || report.undelivered.empty()));
  rig.end();
  rig.check_later(report);
}

TEST_CASE("a report names what was left behind and what was tried, and nothing else",
          "[R-I1][R-G5]") {
  // Nothing gets through, so everything that was accepted is in the report, batch or ring.
  std::atomic<std::uint64_t> calls{0};
  Rig rig(quick_options(2, 2, Backpressure::fail_producer()),
          [&](const Batch& /*batch*/, const DeliveryContext& /*context*/) {
            calls.fetch_add(1);
            return Delivery::retry("down");
          });
  rig.producers->start();
  REQUIRE(eventually([&] {
    const auto ledger = rig.pipeline->ledger();
    return ledger.rejected_full > 100 && calls.load() > 4;
  }));
  rig.producers->stop();
  const auto before = rig.pipeline->ledger();
  const auto report = rig.close(milliseconds{20});
  CHECK(!report.complete);
  CHECK(report.ledger.delivered == 0);
  CHECK(report.ledger.abandoned_queued + report.ledger.abandoned_batched == before.accepted);
  CHECK(shard_test::undelivered_as(report, Undelivered::abandoned_batched) ==
        report.ledger.abandoned_batched);
  CHECK(report.ledger.abandoned_batched != 0);
  const auto named = shard_test::undelivered_in(report);
  for (const auto& of : report.shards) {
    CHECK(named.at(of.shard.value).size() == of.ledger.accepted);
    CHECK(*named.at(of.shard.value).rbegin() == of.ledger.accepted - 1);
  }
  rig.check(report);
}

TEST_CASE("an adapter that ignores its stop token cannot hold close(), and comes back to nothing",
          "[R-I3]") {
  const bool pipeline_first = GENERATE(false, true);
  const std::size_t hanging = GENERATE(1U, 2U);
  CAPTURE(pipeline_first, hanging);
  Books books;
  Barrier barrier;
  std::atomic<bool> destroyed{false};
  class Hanging final : public shard::Adapter {
   public:
    Hanging(Books& books, Barrier& barrier, std::size_t hanging, std::atomic<bool>& destroyed)
        : barrier_(barrier),
          booked_(books,
                  [this, hanging](const Batch& batch, const DeliveryContext& /*context*/) {
                    if (batch.shard().value < hanging) barrier_.wait();
                    return Delivery::delivered();
                  }),
          destroyed_(destroyed) {}
    ~Hanging() override { destroyed_ = true; }
    Delivery deliver(const Batch& batch, const DeliveryContext& context) override {
      return booked_.deliver(batch, context);
    }
    void close(const DeliveryContext& /*context*/) override { closed = true; }
    bool closed = false;

   private:
    Barrier& barrier_;
    Booked booked_;
    std::atomic<bool>& destroyed_;
  };
  auto options = quick_options(hanging, 3, Backpressure::fail_producer());
  options.close_timeout = nanoseconds{0};
  auto pipeline = std::make_unique<Pipeline>(
      options, std::make_unique<Hanging>(books, barrier, hanging, destroyed));
  auto producers = std::make_unique<Producers>(*pipeline);
  producers->start(200);
  producers->join();
  REQUIRE(eventually([&] { return barrier.came() == hanging; }));
  const auto report = pipeline->close(milliseconds{30});
  CHECK(!report.complete);
  CHECK(report.abandoned_threads == hanging);
  const auto possibly = shard_test::undelivered_as(report, Undelivered::possibly_delivered);
  CHECK(possibly != 0);
  CHECK(possibly == report.ledger.possibly_delivered);
  books.check(report, producers->told());
  producers.reset();
  if (pipeline_first) {
    pipeline.reset();
    CHECK(!destroyed);  // the thread has it still
  }
  barrier.open();
  if (!pipeline_first) {
    // It has come back, and found that its batch is no longer its own.
    CHECK(pipeline->close(kLong).ledger == report.ledger);
    CHECK(pipeline->ledger() == report.ledger);
    pipeline.reset();
  }
  CHECK(eventually([&] { return destroyed.load(); }));
  CHECK(books.failures.text() == "");
}

TEST_CASE("an adapter that obeys its stop token has its batch reported as not delivered",
          "[R-I1][R-I3][R-G2]") {
  std::atomic<std::size_t> waiting{0};
  Rig rig(quick_options(2, 2, Backpressure::fail_producer()), [&](const Batch& /*batch*/,
                                                                  const DeliveryContext& context) {
    std::mutex mutex;
    std::condition_variable_any never;
    waiting.fetch_add(1);
    std::unique_lock lock(mutex);
    static_cast<void>(never.wait(lock, context.stop, [] { return false; }));
    return context.stop.stop_requested() ? Delivery::retry("stopped") : Delivery::delivered();
  });
  rig.producers->start(100);
  rig.producers->join();
  REQUIRE(eventually([&] { return waiting.load() == 2; }));
  // Nine tenths are for deliveries, so a tenth is left to come back in; ample, and not waited for.
  const auto report = rig.close(seconds{2});
  CHECK(waiting.load() == 2);
  CHECK(report.abandoned_threads == 0);
  CHECK(!report.complete);
  CHECK(report.ledger.possibly_delivered == 0);
  CHECK(report.ledger.abandoned_batched != 0);
  CHECK(report.ledger.delivered == 0);
  rig.check(report);
}

TEST_CASE("what keeps a thread in the adapter when all is delivered is told to stop, too",
          "[R-I3][R-I2]") {
  // A flush that began before close() knows no deadline.
  class Waits final : public shard::Adapter {
   public:
    explicit Waits(std::atomic<int>& flushes) : flushes_(flushes) {}
    Delivery deliver(const Batch& /*batch*/, const DeliveryContext& /*context*/) override {
      return Delivery::delivered();
    }
    bool flush(const DeliveryContext& context) override {
      if (flushes_.fetch_add(1) == 0) {
        std::mutex mutex;
        std::condition_variable_any never;
        std::unique_lock lock(mutex);
        static_cast<void>(never.wait(lock, context.stop, [] { return false; }));
      }
      return true;
    }

   private:
    std::atomic<int>& flushes_;
  };
  std::atomic<int> flushes{0};
  Pipeline pipeline(quick_options(1, 1), std::make_unique<Waits>(flushes));
  std::thread flusher([&] { static_cast<void>(pipeline.flush(kLong)); });
  REQUIRE(eventually([&] { return flushes.load() != 0; }));
  // Nine tenths go by before it is told; a tenth is ample to come back in, and not waited for.
  const auto report = pipeline.close(seconds{5});
  flusher.join();
  CHECK(report.abandoned_threads == 0);
  CHECK(report.complete);
  CHECK(flushes.load() == 2);
}

TEST_CASE("a callback of the stop token cannot make close() wait for itself", "[R-H4][R-I3]") {
  std::atomic<bool> would_deadlock{false};
  std::atomic<int> calls{0};
  std::latch told(1);
  std::unique_ptr<Pipeline> pipeline;
  pipeline = std::make_unique<Pipeline>(
      quick_options(1, 1), [&](const Batch& /*batch*/, const DeliveryContext& context) {
        const std::stop_callback on_stop(context.stop, [&] {
          would_deadlock = pipeline->close(seconds{1}).would_deadlock &&
                           pipeline->flush(seconds{1}).status == FlushStatus::would_deadlock;
          told.count_down();
        });
        calls.fetch_add(1);
        told.wait();
        return Delivery::retry("stopped");
      });
  REQUIRE(pipeline->ingest("x") == Outcome::accepted);
  REQUIRE(eventually([&] { return calls.load() == 1; }));
  const auto report = pipeline->close(seconds{1});
  CHECK(would_deadlock.load());
  CHECK(report.ledger.balanced());
}

TEST_CASE("who drives the pipeline in a flush delivers what comes in while one shard waits",
          "[R-G10][R-G1]") {
  auto options = quick_options(0, 2);
  options.batch.max_delay = nanoseconds{0};
  options.retry.initial_backoff = options.retry.max_backoff = std::chrono::hours{1};
  std::array<std::atomic<int>, 2> calls{};
  Pipeline pipeline(options, [&](const Batch& batch) {
    const auto call = calls[batch.shard().value].fetch_add(1);
    return batch.shard() == ShardId{0} && call == 0 ? Delivery::retry("once")
                                                    : Delivery::delivered();
  });
  const auto push = [&](ShardId id) {
    REQUIRE(pipeline.ingest(shard_test::payloads_for(pipeline.manager(), id, 1, "p").front()) ==
            Outcome::accepted);
  };
  push(ShardId{0});
  std::thread flusher([&] { static_cast<void>(pipeline.flush(kLong)); });
  CHECK(eventually([&] { return calls[0].load() == 1; }));
  push(ShardId{1});
  CHECK(eventually([&] { return calls[1].load() == 1; }));
  CHECK(pipeline.close(kLong).complete);  // tries at once what waits to be retried
  flusher.join();
}

TEST_CASE("a retry wait does not outlast close()", "[R-G2][R-I3]") {
  auto options = quick_options(1, 1);
  options.retry.initial_backoff = std::chrono::hours{1};
  options.retry.max_backoff = std::chrono::hours{1};
  std::atomic<std::uint64_t> calls{0};
  Rig rig(options, [&](const Batch& /*batch*/, const DeliveryContext& /*context*/) {
    return calls.fetch_add(1) == 0 ? Delivery::retry("once") : Delivery::delivered();
  });
  rig.push(1);
  REQUIRE(eventually([&] { return rig.pipeline->stats().ledger.batched == 1 && calls == 1; }));
  const auto report = rig.close();  // tries at once what waits to be retried
  CHECK(report.complete);
  CHECK(calls.load() == 2);
  rig.check(report);
}

// ---------------------------------------------------------------------------------- flush

/// Flushes again and again while events come in; each success is written into the books.
void flush_under_load(Rig& rig, std::uint64_t flushes, nanoseconds within, Failures& failures,
                      std::atomic<std::uint64_t>& succeeded) {
  auto& manager = rig.pipeline->manager();
  std::vector<std::pair<ShardId, std::uint64_t>> before;
  for (std::uint64_t i = 0; i < flushes; ++i) {
    before.clear();
    for (const auto id : manager.shard_ids()) {
      if (const auto handle = manager.shard(id)) before.emplace_back(id, handle->ledger().accepted);
    }
    const auto result = rig.pipeline->flush(within);
    if (result.status == FlushStatus::flushed) {
      for (const auto& [id, accepted] : before) rig.books.flushed(id, accepted);
      succeeded.fetch_add(1);
    }
    failures.check(result.status == FlushStatus::flushed || result.status == FlushStatus::timed_out,
                   "a flush answered something else");
  }
}

TEST_CASE("a flush under load never succeeds while an event of before is outstanding",
          "[R-H1][R-H2]") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  std::uint64_t all_succeeded = 0;
  const std::uint64_t runs = 100 * kScale;
  for (std::uint64_t run = 0; run < runs; ++run) {
    CAPTURE(run);
    const auto pick = [&random](std::uint64_t n) { return random() % n; };
    const std::array modes{Backpressure::drop_oldest(), Backpressure::fail_producer(),
                           Backpressure::drop_newest(), block_for_ever()};
    const auto mode = modes[pick(modes.size())];
    auto options = quick_options(1 + pick(3), 1 + pick(4), mode);
    options.manager.ring_capacity = std::size_t{8} << pick(4);
    options.batch.max_delay = microseconds{pick(3) * 500};
    options.wait = pick(4) == 0 ? WaitStrategy::spin_then_park : WaitStrategy::park;
    options.serialise_adapter = pick(4) == 0;
    const auto percent = pick(3) == 0 ? pick(60) : 0;
    Rig rig(options, [percent, run](const Batch& batch, const DeliveryContext& context) {
      const auto r = mix(mix(run + context.attempt) + batch.first_sequence().value);
      if (r % 16 == 0) std::this_thread::yield();
      return failing(r >> 8U, percent);
    });
    Failures failures;
    std::atomic<std::uint64_t> succeeded{0};
    const auto producers = 1 + pick(2);
    rig.producers->start(300, producers);
    std::vector<std::thread> flushers;
    const auto how_many = 1 + pick(2);
    for (std::uint64_t i = 0; i < how_many; ++i) {
      const auto within =
          pick(3) == 0 ? nanoseconds{microseconds{pick(2'000)}} : nanoseconds{kLong};
      flushers.emplace_back([&, within] { flush_under_load(rig, 5, within, failures, succeeded); });
    }
    for (auto& flusher : flushers) flusher.join();
    rig.producers->join();
    const auto report = rig.close();
    CHECK(report.complete);
    CHECK(failures.text() == "");
    if (mode.mode != BackpressureMode::drop_oldest) CHECK(report.ledger.evicted == 0);
    rig.check(report);
    all_succeeded += succeeded.load();
  }
  CHECK(all_succeeded >= runs);
}

TEST_CASE("a flush that is not in time says how many events are outstanding", "[R-H3]") {
  Barrier barrier;
  Rig rig(quick_options(2, 1), [&](const Batch& /*batch*/, const DeliveryContext& /*context*/) {
    barrier.wait();
    return Delivery::delivered();
  });
  rig.push(20);
  REQUIRE(eventually([&] { return barrier.came() == 1; }));
  const auto result = rig.pipeline->flush(milliseconds{1});
  CHECK(result.status == FlushStatus::timed_out);
  CHECK(result.outstanding == 20);
  barrier.open();
  CHECK(rig.pipeline->flush(kLong).status == FlushStatus::flushed);
  const auto report = rig.close();
  CHECK(report.complete);
  rig.check(report);
}

TEST_CASE("a flush that waits is told when the pipeline closes", "[R-H1][R-I4]") {
  Barrier barrier;
  Rig rig(quick_options(1, 1), [&](const Batch& /*batch*/, const DeliveryContext& context) {
    barrier.wait();
    return context.stop.stop_requested() ? Delivery::retry("stopped") : Delivery::delivered();
  });
  rig.push(1);
  REQUIRE(eventually([&] { return barrier.came() == 1; }));
  std::vector<std::thread> threads;
  std::array<FlushStatus, 2> said{};
  for (auto& each : said) {
    threads.emplace_back([&] { each = rig.pipeline->flush(nanoseconds::max()).status; });
  }
  const auto report = rig.close(milliseconds{20});
  for (auto& thread : threads) thread.join();
  for (const auto each : said) CHECK(each == FlushStatus::closed);
  CHECK(report.abandoned_threads == 1);
  rig.check(report);
  barrier.open();
}

// ---------------------------------------------------------------------------------- close

TEST_CASE("whoever closes at the same time gets the same report", "[R-I4]") {
  for (std::uint64_t run = 0; run < 20 * kScale; ++run) {
    Rig rig(quick_options(2, 2));
    rig.producers->start();
    REQUIRE(eventually([&] { return rig.books.delivered.load() > 50; }));
    std::array<CloseReport, 4> reports;
    std::latch start(reports.size());
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < reports.size(); ++i) {
      threads.emplace_back([&, i] {
        start.arrive_and_wait();
        reports[i] = rig.close(i % 2 == 0 ? nanoseconds{kLong} : nanoseconds{microseconds{100}});
      });
    }
    for (auto& thread : threads) thread.join();
    rig.producers->stop();
    for (const auto& report : reports) {
      CHECK(report.ledger == reports[0].ledger);
      CHECK(report.undelivered == reports[0].undelivered);
      CHECK(report.complete == reports[0].complete);
      CHECK(report.took == reports[0].took);
    }
    rig.end();
    rig.check_later(reports[0]);
  }
}

TEST_CASE("close() sends away the producers that wait for room", "[R-I1][R-D12]") {
  Barrier barrier;
  auto options = quick_options(1, 1);
  Rig rig(options, [&](const Batch& /*batch*/, const DeliveryContext& /*context*/) {
    barrier.wait();
    return Delivery::delivered();
  });
  rig.producers->start();
  const auto handle = *rig.pipeline->manager().shard(ShardId{0});
  REQUIRE(eventually([&] { return barrier.came() == 1 && handle.len() == 63; }));
  const auto report = rig.close(milliseconds{10});
  rig.producers->stop();  // they have come back
  CHECK(rig.all_told().rejected_closed >= kProducers);
  CHECK(report.abandoned_threads == 1);
  CHECK(report.ledger.abandoned_queued == 63);
  rig.check_later(report);
  barrier.open();
}

TEST_CASE("the destructor delivers what is pending", "[R-I5]") {
  const std::size_t workers = GENERATE(1U, 3U);
  std::atomic<std::uint64_t> delivered{0};
  {
    auto options = quick_options(workers, 3);
    options.batch.max_delay = seconds{30};  // nothing is due by itself
    options.close_timeout = std::chrono::hours{1};
    Pipeline pipeline(options, [&](const Batch& batch) { delivered.fetch_add(batch.size()); });
    std::thread([&] {  // gone before the pipeline is
      for (int i = 0; i < 5; ++i) pipeline.ingest(std::to_string(i));
    })
        .join();
  }
  CHECK(delivered.load() == 5);
}

TEST_CASE("many pipelines come and go", "[R-I5][R-G8]") {
  std::atomic<std::uint64_t> delivered{0};
  std::uint64_t accepted = 0;
  for (std::uint64_t run = 0; run < 100 * kScale; ++run) {
    auto options = quick_options(1 + run % 3, 1 + run % 2);
    options.wait = static_cast<WaitStrategy>(run % 3);
    Pipeline pipeline(options, [&](const Batch& batch) { delivered.fetch_add(batch.size()); });
    for (std::uint64_t i = 0; i < run % 4; ++i) {
      accepted += pipeline.ingest(std::to_string(i)) == Outcome::accepted ? 1U : 0U;
    }
    if (run % 3 == 1) CHECK(pipeline.flush(kLong).status == FlushStatus::flushed);
    if (run % 3 == 2) CHECK(pipeline.close(kLong).complete);
  }
  CHECK(delivered.load() == accepted);
}

TEST_CASE("an elastic pipeline comes to rest, and closes at any moment", "[R-E2][R-E14][R-I4]") {
  const auto routing = GENERATE(shard::Routing::balanced, shard::Routing::keyed);
  const bool in_the_middle = GENERATE(false, true);
  CAPTURE(to_string(routing), in_the_middle);
  auto options = quick_options(2, 1);
  options.manager.routing = routing;
  options.manager.scaling.emplace();
  auto& policy = *options.manager.scaling;
  policy.min_shards = 1;
  policy.max_shards = 4;
  policy.cooldown = policy.scale_up_delay = policy.scale_down_delay = policy.warm_up =
      nanoseconds{0};
  policy.metrics_window = milliseconds{1};
  policy.fill_threshold = 0.2;
  std::atomic<std::uint64_t> delivered{0};
  Pipeline pipeline(options, [&](const Batch& batch) {
    delivered.fetch_add(batch.size());
    std::this_thread::sleep_for(microseconds{50});
  });
  Producers producers(pipeline);
  producers.start();
  CHECK(eventually([&] { return delivered.load() > 2'000 * kScale; }));
  if (!in_the_middle) {
    producers.stop();
    CHECK(pipeline.flush(kLong).status == FlushStatus::flushed);
    CHECK(eventually([&] { return pipeline.stats().shards == policy.min_shards; }));
    CHECK(pipeline.stats().active_shards == policy.min_shards);
  }
  const auto report = pipeline.close(kLong);
  CHECK(pipeline.scale_up(1).added.empty());
  producers.stop();
  CHECK(report.complete);
  CHECK(report.ledger.balanced());
  CHECK(report.ledger.accepted == producers.told().accepted);
  CHECK(report.ledger.delivered == delivered.load());
}

TEST_CASE("a controller that has nothing to do sees what an operator changes", "[R-E7][R-E16]") {
  auto options = quick_options(1, 1);
  options.manager.routing = shard::Routing::balanced;
  auto& policy = options.manager.scaling.emplace();
  policy.min_shards = 1;
  policy.max_shards = 4;
  policy.metrics_window = milliseconds{1};
  policy.cooldown = policy.scale_down_delay = policy.warm_up = nanoseconds{0};
  Pipeline pipeline(options, [](const Batch& /*batch*/) {});
  for (int round = 0; round < 10; ++round) {
    // Nothing comes in, so that it takes the shards away again.
    static_cast<void>(pipeline.scale_up(2));
    REQUIRE(eventually([&] { return pipeline.stats().shards == 1; }));
  }
  pipeline.set_scaling_mode(shard::ScalingMode::paused);
  static_cast<void>(pipeline.scale_up(2));
  const auto shards = pipeline.stats().shards;
  policy.scale_down_delay = milliseconds{1};
  CHECK_FALSE(pipeline.manager().set_scaling_policy(policy));
  pipeline.set_scaling_mode(shard::ScalingMode::automatic);
  CHECK(shards > 1);
  CHECK(eventually([&] { return pipeline.stats().shards == 1; }));
  CHECK(pipeline.close(kLong).complete);
}

// ---------------------------------------------------------------------------------- fork()

TEST_CASE("in a forked child a pipeline is closed and its destructor returns at once", "[R-I6]") {
  if (kThreadSanitizer) {
    WARN("not under ThreadSanitizer");
    return;
  }
  std::atomic<std::uint64_t> delivered{0};
  auto options = quick_options(2, 2);
  options.batch.max_delay = seconds{30};  // the events are pending when it forks
  auto pipeline = std::make_unique<Pipeline>(
      options, [&](const Batch& batch) { delivered.fetch_add(batch.size()); });
  CHECK(pipeline->ingest("before") == Outcome::accepted);
  const auto child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(60);  // should it hang after all
    int wrong = 0;
    const auto expect = [&wrong](bool holds, int bit) { wrong |= holds ? 0 : bit; };
    expect(pipeline->is_closed(), 1);
    expect(pipeline->ingest("in the child") == Outcome::rejected_closed, 2);
    expect(pipeline->flush(seconds{1}).status == FlushStatus::closed, 4);
    expect(!pipeline->close(seconds{1}).complete, 8);
    expect(pipeline->run_once() == 0, 16);
    expect(pipeline->health().state == shard::HealthState::closed, 32);
    pipeline.reset();
    expect(delivered.load() == 0, 64);
    _exit(wrong);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(pipeline->ingest("after") == Outcome::accepted);
  CHECK(pipeline->flush(kLong).status == FlushStatus::flushed);
  CHECK(delivered.load() == 2);
  CHECK(pipeline->close(kLong).complete);
}

TEST_CASE("in a forked child no call waits for a lock that a thread of the parent had", "[R-I6]") {
  if (kThreadSanitizer) {
    WARN("not under ThreadSanitizer");
    return;
  }
  auto options = quick_options(1, 2);
  options.manager.routing = shard::Routing::balanced;
  options.manager.scaling.emplace();
  Pipeline pipeline(options, [](const Batch& /*batch*/) {});
  auto& manager = pipeline.manager();
  const auto handle = manager.shard(ShardId{0});
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) {
      static_cast<void>(pipeline.health());
      static_cast<void>(pipeline.last_decision());
      static_cast<void>(manager.scaling_policy());
      static_cast<void>(manager.collect_metrics());
      manager.set_shard_callbacks({});
      handle->record_batch_dispatch(1, nanoseconds{1});
    }
  });
  for (int i = 0; i < 20; ++i) {
    const auto child = fork();
    CHECK(child >= 0);
    if (child < 0) break;
    if (child == 0) {
      alarm(60);  // should it hang after all
      using shard::ScalingError;
      int wrong = 0;
      const auto expect = [&wrong](bool holds, int bit) { wrong |= holds ? 0 : bit; };
      expect(pipeline.health().state == shard::HealthState::closed, 1);
      expect(pipeline.last_decision().kind == shard::ScalingKind::none, 2);
      expect(pipeline.scale_up(1).error == ScalingError::closed, 4);
      expect(manager.add_shard().error() == ScalingError::closed, 8);
      expect(manager.drain_shard(ShardId{0}).error() == ScalingError::closed, 16);
      expect(!manager.scaling_policy() && manager.collect_metrics().empty(), 32);
      expect(manager.finalize_draining() == 0 && !manager.run_scaling().measured, 64);
      manager.set_shard_callbacks({});
      handle->record_batch_dispatch(1, nanoseconds{1});
      _exit(wrong);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  }
  stop = true;
  busy.join();
}

}  // namespace
