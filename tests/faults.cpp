// A pipeline at full speed, with an adapter that fails in every way; then every event must be accounted for.
//
// An event carries its producer, its key and its number within both. What an adapter has answered is noted by sequence
// number, without a lock, since a shard is delivered by one thread at a time. From that follow the counts that the ledger
// must show, and with the report of close() exactly one end for every event that was accepted. Memory is bounded: of a
// shard only what is in its batch is kept, since nothing before that may ever come again.

#include <unistd.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <latch>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "shard/pipeline.hpp"

namespace {

using shard::Batch;
using shard::Delivery;
using shard::Ledger;
using shard::Outcome;
using shard::Undelivered;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using Time = std::chrono::steady_clock::time_point;

constexpr std::chrono::minutes kLong{3};  // more than any of this takes, less than ctest waits
constexpr std::size_t kProducers = 2;
constexpr std::size_t kKeys = 32;  // of each producer
constexpr std::size_t kShardIds = 1U << 14U;

struct Settings {
  double seconds = 5;           // for each case
  std::uint64_t runs = 10'000;  // of flush-random
  std::uint64_t seed = std::random_device{}();
  std::string only;  // this case; all of them if empty
  double soak = 0;   // minutes; if not 0, nothing else is run
};

std::uint64_t mix(std::uint64_t value) {  // splitmix64, by Sebastiano Vigna; public domain
  value += 0x9E3779B97F4A7C15U;
  value = (value ^ (value >> 30U)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27U)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31U);
}

Time now() { return std::chrono::steady_clock::now(); }

template <class Condition>
bool eventually(const Condition& condition) {
  const auto end = now() + kLong;
  while (!condition()) {
    if (now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

/// What went wrong. Threads: any.
class Violations {
 public:
  /// \param what  a literal
  void check(bool holds, const char* what) noexcept {
    if (!holds && count_.fetch_add(1) < 10) {
      std::printf("  VIOLATION %s\n", what);
    }
  }
  void equal(std::uint64_t is, std::uint64_t must_be, const char* what) noexcept {
    if (is != must_be && count_.fetch_add(1) < 10) {
      std::printf("  VIOLATION %s: %llu instead of %llu\n", what,
                  static_cast<unsigned long long>(is), static_cast<unsigned long long>(must_be));
    }
  }
  [[nodiscard]] std::uint64_t count() const noexcept { return count_.load(); }

 private:
  std::atomic<std::uint64_t> count_{0};
};

struct Payload {
  std::uint64_t producer;
  std::uint64_t key;
  std::uint64_t number;  // of this producer's accepted events with this key
};

enum class Fate : std::uint8_t { open, delivered, dead, unknown };

/// What adapters were given and what they made of it.
class Books {
 public:
  explicit Books(Violations& violations, std::size_t shard_ids = kShardIds)
      : violations_(violations), shards_(shard_ids) {}

  void look(const Batch& batch) {
    auto& at = shards_[batch.shard().value];
    violations_.check(!at.busy.exchange(true, std::memory_order_relaxed),
                      "two calls for one shard at once");
    at.settle_before(batch.first_sequence().value, violations_);
    auto next = at.base;
    for (const auto event : batch) {
      const auto sequence = event.sequence.value;
      violations_.check(sequence >= next && event.shard == batch.shard(),
                        "a batch is out of order");
      next = sequence + 1;
      violations_.check(at.fate(sequence) == Fate::open, "what is settled is tried again");
    }
    check_flushed(at, batch);
  }
  Delivery answer(const Batch& batch, Delivery delivery) {
    auto& at = shards_[batch.shard().value];
    check_flushed(at, batch);
    const auto& indices = delivery.indices();
    for (std::size_t i = 0; i < batch.size(); ++i) {
      switch (delivery.kind()) {
        case Delivery::Kind::delivered:
          mark(at, batch[i], Fate::delivered);
          break;
        case Delivery::Kind::delivered_prefix:
          if (i < delivery.count()) mark(at, batch[i], Fate::delivered);
          break;
        case Delivery::Kind::delivered_except:
          if (!std::binary_search(indices.begin(), indices.end(), i)) {
            mark(at, batch[i], Fate::delivered);
          }
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
      auto& fate = at.fate(event.sequence.value);
      violations_.check(fate == Fate::open, "a dead letter was settled before");
      fate = Fate::dead;
    }
  }
  /// The shard is no more. Nothing of it may come again, so that what is noted of its events can be given back.
  void gone(shard::ShardId shard) {
    auto& at = shards_[shard.value];
    at.settle_before(at.base + at.fates.size(), violations_);
    at.fates.shrink_to_fit();
  }
  /// Everything below is said to be terminal.
  void flushed(shard::ShardId shard, std::uint64_t sequences) {
    auto& to = shards_[shard.value].flushed_to;
    auto before = to.load();
    while (before < sequences && !to.compare_exchange_weak(before, sequences)) {
    }
  }

  /// When nobody writes any more: the report must show what is noted here, and what the producers were told.
  void check(const shard::CloseReport& report, const Ledger& told) {
    std::map<std::uint32_t, std::map<std::uint64_t, Undelivered>> named;
    for (const auto& range : report.undelivered) {
      for (auto at = range.first.value; at <= range.last.value; ++at) {
        violations_.check(named[range.shard.value].emplace(at, range.why).second,
                          "the report names an event twice");
      }
    }
    const auto count = [&](std::uint32_t id) {
      const auto& at = shards_[id];
      const auto& names = named[id];
      Ledger counts = at.counts;
      for (std::uint64_t i = 0; i < at.fates.size(); ++i) {
        if (const auto name = names.find(at.base + i); name != names.end()) {
          violations_.check(
              at.fates[i] == Fate::open || name->second == Undelivered::possibly_delivered,
              "the report names what has another end");
        } else {
          add(counts, at.fates[i]);
        }
      }
      for (const auto& [sequence, why] : names) {
        violations_.check(sequence >= at.base, "the report names what is settled");
        counts.abandoned_queued += why == Undelivered::abandoned_queued ? 1U : 0U;
        counts.abandoned_batched += why == Undelivered::abandoned_batched ? 1U : 0U;
        counts.possibly_delivered += why == Undelivered::possibly_delivered ? 1U : 0U;
      }
      counts.taken = counts.delivered + counts.dead_lettered + counts.possibly_delivered +
                     counts.abandoned_batched;
      counts.accepted = counts.taken + counts.abandoned_queued;
      return counts;
    };
    Ledger all;
    for (std::uint32_t id = 0; id < shards_.size(); ++id) all += count(id);
    for (const auto& of : report.shards) {
      compare(count(of.shard.value), of.ledger);
      violations_.check(
          shards_[of.shard.value].base + shards_[of.shard.value].fates.size() <= of.ledger.accepted,
          "an event came out that never went in");
    }
    compare(all, report.ledger);
    violations_.equal(report.ledger.accepted, told.accepted, "accepted");
    violations_.equal(report.ledger.dropped_newest, told.dropped_newest, "dropped_newest");
    violations_.equal(report.ledger.rejected_full, told.rejected_full, "rejected_full");
    violations_.check(report.ledger.rejected_closed <= told.rejected_closed, "rejected_closed");
  }

 private:
  struct PerShard {
    std::uint64_t base = 0;  ///< all before is settled for good
    std::vector<Fate> fates;
    Ledger counts;           ///< of what is before
    std::uint64_t next = 0;  ///< one above the last that was delivered
    std::atomic<bool> busy{false};
    std::atomic<std::uint64_t> flushed_to{0};

    [[nodiscard]] Fate& fate(std::uint64_t sequence) {
      const auto i = sequence < base ? 0 : sequence - base;
      if (fates.size() <= i) fates.resize(i + 1, Fate::open);
      return fates[i];
    }
    void settle_before(std::uint64_t first, Violations& violations) {
      violations.check(first >= base, "an event comes behind younger ones of its shard");
      const auto n = std::min<std::uint64_t>(first < base ? 0 : first - base, fates.size());
      for (std::uint64_t i = 0; i < n; ++i) add(counts, fates[i]);
      fates.erase(fates.begin(), fates.begin() + static_cast<std::ptrdiff_t>(n));
      base = std::max(base, first);
    }
  };

  static void add(Ledger& counts, Fate fate) {
    counts.delivered += fate == Fate::delivered ? 1U : 0U;
    counts.dead_lettered += fate == Fate::dead ? 1U : 0U;
    counts.possibly_delivered += fate == Fate::unknown ? 1U : 0U;
  }
  void compare(const Ledger& counts, const Ledger& said) {
    violations_.check(said.balanced(), "the laws do not hold");
    violations_.equal(said.delivered, counts.delivered, "delivered");
    violations_.equal(said.dead_lettered, counts.dead_lettered, "dead_lettered");
    violations_.equal(said.possibly_delivered, counts.possibly_delivered, "possibly_delivered");
    violations_.equal(said.abandoned_batched, counts.abandoned_batched, "abandoned_batched");
    violations_.equal(said.abandoned_queued, counts.abandoned_queued, "abandoned_queued");
    violations_.equal(said.evicted, said.accepted - counts.accepted, "evicted");
    violations_.equal(said.queued + said.batched, 0, "queued or batched at the end");
  }
  void check_flushed(const PerShard& at, const Batch& batch) {
    violations_.check(batch.first_sequence().value >= at.flushed_to.load(),
                      "a flush succeeded while an event of before was under way");
  }
  void mark(PerShard& at, const shard::Event& event, Fate fate) {
    const auto sequence = event.sequence.value;
    at.fate(sequence) = fate;
    violations_.check(sequence >= at.next, "an event came behind a younger one of its shard");
    at.next = sequence + 1;
    Payload payload{};
    if (event.payload.size() == sizeof payload) {
      std::memcpy(&payload, event.payload.data(), sizeof payload);
    }
    if (event.payload.size() != sizeof payload || payload.producer >= kProducers ||
        payload.key >= kKeys) {
      violations_.check(false, "an event is corrupt");
      return;
    }
    auto& next = next_[payload.producer][payload.key];
    violations_.check(payload.number >= next, "an event came behind a younger one of its key");
    next = payload.number + 1;
  }

  Violations& violations_;
  std::vector<PerShard> shards_;
  std::array<std::array<std::uint64_t, kKeys>, kProducers> next_{};
};

using Answer = std::function<Delivery(const Batch&, std::uint64_t random)>;

class Faulty final : public shard::Adapter {
 public:
  Faulty(Books& books, Answer answer, std::uint64_t seed, std::atomic<bool>& destroyed)
      : books_(books), answer_(std::move(answer)), seed_(seed), destroyed_(destroyed) {}
  ~Faulty() override { destroyed_ = true; }
  Delivery deliver(const Batch& batch, const shard::DeliveryContext& context) override {
    books_.look(batch);
    struct Leave {
      Books& books;
      const Batch& batch;
      ~Leave() { books.leave(batch); }
    };
    const Leave leave{books_, batch};
    const auto random = mix(mix(mix(seed_ + batch.shard().value) + batch.first_sequence().value) +
                            batch.size() * 1'024 + context.attempt);
    return books_.answer(batch, answer_(batch, random));
  }

 private:
  Books& books_;
  const Answer answer_;
  const std::uint64_t seed_;
  std::atomic<bool>& destroyed_;
};

/// Producers at full speed, each with keys of its own.
class Producers {
 public:
  Producers(shard::Pipeline& pipeline, std::size_t producers, std::uint64_t events = ~0ULL) {
    for (std::size_t producer = 0; producer < producers; ++producer) {
      threads_.emplace_back(
          [this, &pipeline, producer, events] { run(pipeline, producer, events); });
    }
  }
  Producers(const Producers&) = delete;
  Producers& operator=(const Producers&) = delete;
  ~Producers() { stop(); }

  void join() {
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }
  void stop() {
    stop_ = true;
    join();
  }
  /// When they are joined.
  [[nodiscard]] Ledger told() const {
    const auto sum = [this](Outcome outcome) {
      std::uint64_t events = 0;
      for (const auto& told : told_) events += told[static_cast<std::size_t>(outcome)];
      return events;
    };
    Ledger all;
    all.accepted = sum(Outcome::accepted);
    all.dropped_newest = sum(Outcome::dropped_newest);
    all.rejected_full = sum(Outcome::rejected_full);
    all.rejected_closed = sum(Outcome::rejected_closed);
    return all;
  }

 private:
  void run(shard::Pipeline& pipeline, std::size_t producer, std::uint64_t events) {
    constexpr std::size_t kBatch = 32;
    std::array<std::uint64_t, kKeys> numbers{};
    std::array<std::string, kKeys> keys;
    for (std::size_t key = 0; key < kKeys; ++key) {
      keys[key] = std::to_string(producer) + "/" + std::to_string(key);
    }
    std::array<Payload, kBatch> payloads{};
    std::array<shard::RawEvent, kBatch> raw;
    std::array<Outcome, kBatch> outcomes{};
    auto& told = told_[producer];
    for (std::uint64_t i = 0; i < events && !stop_.load(std::memory_order_relaxed); i += kBatch) {
      auto next = numbers;
      const bool singly = i / kBatch % 4 == 0;
      for (std::size_t e = 0; e < kBatch; ++e) {
        const auto key = (i + e) * 7 % kKeys;
        payloads[e] = {producer, key, singly ? numbers[key] : next[key]++};
        const shard::Bytes bytes(reinterpret_cast<const std::byte*>(&payloads[e]), sizeof(Payload));
        if (singly) {
          outcomes[e] = pipeline.ingest(bytes, shard::Key{keys[key]});
          numbers[key] += outcomes[e] == Outcome::accepted ? 1U : 0U;
        } else {
          raw[e] = pipeline.manager().raw_event(bytes, shard::Key{keys[key]});
        }
      }
      if (!singly) static_cast<void>(pipeline.ingest_raw_batch(raw, outcomes));
      bool refused = false;
      for (std::size_t e = 0; e < kBatch; ++e) {
        ++told[static_cast<std::size_t>(outcomes[e])];
        refused = refused || outcomes[e] != Outcome::accepted;
        if (!singly) numbers[payloads[e].key] += outcomes[e] == Outcome::accepted ? 1U : 0U;
      }
      if (refused) std::this_thread::yield();
    }
  }

  std::vector<std::thread> threads_;
  std::atomic<bool> stop_{false};
  std::array<std::array<std::uint64_t, 16>, kProducers> told_{};
};

// ---------------------------------------------------------------------------------- what can be wrong

Delivery failing(std::uint64_t random, std::uint64_t percent) {
  return random % 100 < percent ? Delivery::retry("busy") : Delivery::delivered();
}

Delivery partly(const Batch& batch, std::uint64_t random) {
  std::vector<std::size_t> some;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    if (mix(random + i) % 64 == 0) some.push_back(i);
  }
  switch (random % 6) {
    case 0:
      return Delivery::delivered(random / 8 % (batch.size() + 1), random % 16 < 8 ? "" : "full");
    case 1:
      return Delivery::delivered_except(some, "no such column");
    case 2:
      return some.empty() ? Delivery::delivered() : Delivery::refuse(some, "no such column");
    case 3:
      return Delivery::unknown("timeout");
    case 4:
      return random % 64 == 4 ? Delivery::refuse("no such table") : Delivery::delivered();
    default:
      return Delivery::delivered();
  }
}

Delivery throwing(const Batch& /*batch*/, std::uint64_t random) {
  switch (random % 8) {
    case 0:
      throw std::runtime_error("connection lost");
    case 1:
      throw shard::PermanentError("no such table");
    case 2:
      throw 42;
    case 3:
      throw std::out_of_range("a defect of the adapter");
    default:
      return Delivery::delivered();
  }
}

/// A thousand times longer than it takes to get an event in.
Delivery slow(const Batch& batch, std::uint64_t /*random*/) {
  std::this_thread::sleep_for(microseconds{20} * batch.size());
  return Delivery::delivered();
}

enum class End : std::uint8_t { drained, in_the_middle, too_early, hanging };

struct Case {
  const char* name;
  End end;
  bool in_rounds;  ///< many pipelines, each closed after a while; else one, to the end
};
constexpr std::array<Case, 10> kCases{{
    {"fail-1", End::drained, false},
    {"fail-50", End::drained, false},
    {"outage", End::drained, false},
    {"partly", End::drained, false},
    {"throw", End::drained, false},
    {"slow", End::drained, false},
    {"shards-change", End::drained, false},
    {"close-middle", End::in_the_middle, true},
    {"close-early", End::too_early, true},
    {"hang", End::hanging, true},
}};

shard::PipelineOptions options_of(std::mt19937_64& random) {
  const auto pick = [&random](std::uint64_t n) { return static_cast<std::size_t>(random() % n); };
  shard::PipelineOptions options;
  options.manager.shards = 1 + pick(4);
  options.manager.ring_capacity = std::size_t{64} << pick(5);
  options.manager.ring_bytes = 64 * options.manager.ring_capacity;
  options.manager.max_payload = options.manager.inline_max = 64;
  options.manager.max_key = 16;
  options.manager.seed = random();
  const std::array modes{shard::Backpressure::drop_newest(), shard::Backpressure::drop_oldest(),
                         shard::Backpressure::fail_producer(),
                         shard::Backpressure::block(nanoseconds::max())};
  options.manager.backpressure = modes[pick(modes.size())];
  options.workers = 1 + pick(3);
  constexpr std::array kWaits{shard::WaitStrategy::park, shard::WaitStrategy::park,
                              shard::WaitStrategy::spin_then_park, shard::WaitStrategy::spin};
  options.wait = kWaits[pick(kWaits.size())];
  options.serialise_adapter = pick(5) == 0;
  options.batch.min_events = 1 + pick(64);
  options.batch.max_events = options.batch.min_events + pick(512);
  options.batch.max_delay = microseconds{500 * pick(4)};
  options.retry.initial_backoff = microseconds{10};
  options.retry.max_backoff = milliseconds{1};
  options.retry.max_attempts = 0;
  options.retry.max_elapsed = nanoseconds::max();
  return options;
}

struct Totals {
  std::uint64_t rounds = 0;
  std::uint64_t calls = 0;
  Ledger ledger;
  std::uint64_t abandoned_threads = 0;
};

/// One pipeline from its beginning to its end.
void run_round(const Case& which, std::uint64_t seed, nanoseconds duration, Violations& violations,
               Totals& totals) {
  const std::string_view name = which.name;
  std::mt19937_64 random(seed);
  auto options = options_of(random);
  const bool changes = name == "shards-change";
  if (changes) {
    options.manager.routing = shard::Routing::keyed;
    options.manager.scaling.emplace();
    options.manager.scaling->max_shards = 8;
    options.manager.scaling->auto_scale = false;
    options.manager.scaling->metrics_window = milliseconds{1};
  }
  Books books(violations);
  options.dead_letters = [&books](const Batch& batch, const shard::DeadLetter& /*why*/) {
    books.bury(batch);
  };
  std::atomic<std::uint64_t> calls{0};
  // Producers that block end up waiting at the first shard that hangs: a second one may never get a
  // batch to hang with.
  const bool producers_wait = options.manager.backpressure.mode == shard::BackpressureMode::block;
  const auto can_hang = options.serialise_adapter || producers_wait
                            ? 1
                            : std::min(options.workers, options.manager.shards);
  std::atomic<std::uint64_t> hangs{which.end == End::hanging ? 1 + random() % can_hang : 0};
  std::latch released(1);
  const auto began = now();
  const auto outage = std::min<nanoseconds>(std::chrono::seconds{2}, duration / 2);
  const auto fault = random() % 5;
  std::atomic<bool> destroyed{false};
  auto adapter = std::make_unique<Faulty>(
      books,
      [&, fault](const Batch& batch, std::uint64_t r) {
        const auto call = calls.fetch_add(1, std::memory_order_relaxed);
        if (which.end == End::hanging && call > 20) {
          auto left = hangs.load(std::memory_order_relaxed);
          while (left != 0 &&
                 !hangs.compare_exchange_weak(left, left - 1, std::memory_order_relaxed)) {
          }
          if (left != 0) released.wait();
        }
        if (name == "fail-1") return failing(r, 1);
        if (name == "fail-50" || changes) return failing(r, 50);
        if (name == "outage") return failing(r, now() - began < outage ? 100 : 0);
        if (name == "partly") return partly(batch, r);
        if (name == "throw") return throwing(batch, r);
        if (name == "slow") return slow(batch, r);
        switch (fault) {
          case 0:
            return failing(r, 50);
          case 1:
            return failing(r, which.end == End::too_early ? 100 : 1);
          case 2:
            return partly(batch, r);
          case 3:
            return throwing(batch, r);
          default:
            return Delivery::delivered();
        }
      },
      seed, destroyed);
  auto pipeline = std::make_unique<shard::Pipeline>(options, std::move(adapter));
  auto producers = std::make_unique<Producers>(*pipeline, 1 + random() % kProducers);
  std::uint64_t done = 0;
  while (now() - began < duration) {
    if (changes && done < kShardIds / 2) {
      done += random() % 2 == 0 ? pipeline->scale_up(1 + random() % 2).added.size()
                                : pipeline->scale_down(1).draining.size();
      pipeline->manager().finalize_draining();
      pipeline->manager().remove_stopped_shards();
    }
    std::this_thread::sleep_for(microseconds{200});
  }
  shard::CloseReport report;
  switch (which.end) {
    case End::drained:
      producers->stop();
      violations.check(pipeline->flush(kLong).status == shard::FlushStatus::flushed,
                       "a flush of what can be delivered has failed");
      report = pipeline->close(kLong);
      violations.check(report.complete, "a pipeline that was flushed is not complete");
      violations.equal(report.undelivered.size(), 0, "undelivered after a flush");
      break;
    case End::in_the_middle:
      report = pipeline->close(kLong);
      violations.check(report.complete, "a pipeline with time to close is not complete");
      break;
    case End::too_early:
      report = pipeline->close(microseconds{random() % 2'000});
      break;
    case End::hanging:
      violations.check(eventually([&] { return hangs.load() == 0; }), "nobody hangs");
      report = pipeline->close(milliseconds{5});
      violations.check(report.abandoned_threads != 0 && !report.complete,
                       "a thread that hangs was not abandoned");
      violations.check(report.ledger.possibly_delivered != 0, "what hangs is not reported");
      break;
  }
  producers->stop();
  const auto told = producers->told();
  producers.reset();
  pipeline.reset();
  released.count_down();
  violations.check(eventually([&] { return destroyed.load(); }), "an adapter was not destroyed");
  if (options.manager.backpressure.mode != shard::BackpressureMode::drop_oldest) {
    violations.equal(report.ledger.evicted, 0, "evicted in a mode that evicts nothing");
  }
  books.check(report, told);
  ++totals.rounds;
  totals.calls += calls.load();
  totals.ledger += report.ledger;
  totals.abandoned_threads += report.abandoned_threads;
}

/// One pipeline under load that is flushed again and again.
void run_flushes(std::uint64_t seed, Violations& violations, Totals& totals) {
  std::mt19937_64 random(seed);
  auto options = options_of(random);
  options.manager.ring_capacity = std::size_t{8} << random() % 4;  // so that much is refused
  options.manager.ring_bytes = 4'096;
  Books books(violations);
  std::atomic<bool> destroyed{false};
  const auto percent = random() % 3 == 0 ? random() % 60 : 0;
  shard::Pipeline pipeline(options, std::make_unique<Faulty>(
                                        books,
                                        [percent](const Batch& /*batch*/, std::uint64_t r) {
                                          if (r % 16 == 0) std::this_thread::yield();
                                          return failing(r >> 8U, percent);
                                        },
                                        seed, destroyed));
  std::atomic<std::uint64_t> succeeded{0};
  Producers producers(pipeline, 1 + random() % kProducers, 256);
  std::vector<std::thread> flushers;
  for (auto i = 1 + random() % 2; i != 0; --i) {
    const auto within =
        random() % 4 == 0 ? nanoseconds{microseconds{random() % 2'000}} : nanoseconds{kLong};
    flushers.emplace_back([&, within] {
      std::vector<std::pair<shard::ShardId, std::uint64_t>> before;
      for (int flush = 0; flush < 4; ++flush) {
        before.clear();
        for (const auto id : pipeline.manager().shard_ids()) {
          before.emplace_back(id, pipeline.manager().shard(id)->ledger().accepted);
        }
        const auto status = pipeline.flush(within).status;
        if (status == shard::FlushStatus::flushed) {
          for (const auto& [id, accepted] : before) books.flushed(id, accepted);
          succeeded.fetch_add(1);
        }
        violations.check(status == shard::FlushStatus::flushed ||
                             (status == shard::FlushStatus::timed_out && within != kLong),
                         "a flush with time has failed");
      }
    });
  }
  for (auto& flusher : flushers) flusher.join();
  producers.join();
  const auto report = pipeline.close(kLong);
  violations.check(report.complete, "a pipeline with time to close is not complete");
  books.check(report, producers.told());
  ++totals.rounds;
  totals.calls += succeeded.load();
  totals.ledger += report.ledger;
}

// ---------------------------------------------------------------------------------- for long

/// What the process has in memory, in bytes; 0 where the system does not tell.
std::uint64_t resident() {
  unsigned long long pages = 0;
  if (auto* const file = std::fopen("/proc/self/statm", "r"); file != nullptr) {
    if (std::fscanf(file, "%*u %llu", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

/// Whether memory is flat: after the warm-up it grows by at most 5 % or 4 MB, whichever is larger.
class Memory {
 public:
  explicit Memory(Time warm) : warm_(warm) {}
  void sample(Violations& violations) {
    last_ = resident();
    if (now() < warm_) return;
    if (base_ == 0) base_ = min_ = last_;
    min_ = std::min(min_, last_);
    max_ = std::max(max_, last_);
    if (last_ > base_ + std::max(base_ / 20, kMegabyte * 4) && !grown_) {
      grown_ = true;
      violations.equal(last_, base_, "resident memory has grown");
    }
  }
  static double megabytes(std::uint64_t bytes) {
    return static_cast<double>(bytes) / static_cast<double>(kMegabyte);
  }
  [[nodiscard]] double last() const { return megabytes(last_); }
  [[nodiscard]] double base() const { return megabytes(base_); }
  [[nodiscard]] double min() const { return megabytes(min_); }
  [[nodiscard]] double max() const { return megabytes(max_); }

 private:
  static constexpr std::uint64_t kMegabyte = 1'000'000;
  const Time warm_;
  std::uint64_t last_ = 0;
  std::uint64_t base_ = 0;  // at the end of the warm-up
  std::uint64_t min_ = 0;   // since then
  std::uint64_t max_ = 0;
  bool grown_ = false;
};

/// Adds and drains shards of a pipeline.
class Churn {
 public:
  Churn(shard::Pipeline& pipeline, Books& books, std::uint64_t seed, std::size_t shard_ids)
      : pipeline_(pipeline), books_(books), random_(seed), shard_ids_(shard_ids) {
    known_ = pipeline_.manager().shard_ids();
    added_ = known_.size();
  }
  void step() {
    if (random_() % 2 == 0) {
      if (added_ + 2 > shard_ids_) return;
      const auto added = pipeline_.scale_up(1 + random_() % 2).added.size();
      added_ += added;
      changes_ += added;
    } else {
      changes_ += pipeline_.scale_down(1).draining.size();
    }
    pipeline_.manager().finalize_draining();
    pipeline_.manager().remove_stopped_shards();
    auto ids = pipeline_.manager().shard_ids();
    for (const auto id : known_) {
      if (std::find(ids.begin(), ids.end(), id) == ids.end()) books_.gone(id);
    }
    known_ = std::move(ids);
  }
  [[nodiscard]] std::uint64_t changes() const { return changes_; }
  [[nodiscard]] std::size_t shards() const { return known_.size(); }

 private:
  shard::Pipeline& pipeline_;
  Books& books_;
  std::mt19937_64 random_;
  const std::size_t shard_ids_;
  std::vector<shard::ShardId> known_;
  std::uint64_t added_ = 0;
  std::uint64_t changes_ = 0;
};

/// Has the allocator give back what is freed: else a thread keeps for itself what another could use, and the shards that
/// come and go spread over ever more of it, up to some multiple of what is in use.
void give_memory_back() {
#if defined(__GLIBC__)
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_THRESHOLD, 64 << 10);  // given, it stays; else it grows with what is freed
#endif
}

/// One pipeline for so many minutes. Its adapter fails in another way every second, and is down for one in six.
std::uint64_t run_soak(double minutes, std::uint64_t seed) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  constexpr milliseconds kStep{20};
  give_memory_back();
  const auto n = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  const auto duration = std::chrono::duration_cast<nanoseconds>(
      std::chrono::duration<double, std::ratio<60>>(minutes));
  const auto shard_ids = static_cast<std::size_t>(duration / kStep) * 2 + 64;

  shard::PipelineOptions options;
  options.manager.shards = 4;
  options.manager.ring_capacity = 4'096;
  options.manager.ring_bytes = std::size_t{256} << 10U;
  options.manager.max_payload = options.manager.inline_max = 64;
  options.manager.max_key = 16;
  options.manager.seed = seed;
  options.manager.backpressure = shard::Backpressure::block(nanoseconds::max());
  options.manager.routing = shard::Routing::keyed;
  options.manager.scaling.emplace();
  options.manager.scaling->min_shards = 2;
  options.manager.scaling->max_shards = 8;
  options.manager.scaling->auto_scale = false;
  options.workers = 2;
  options.batch.min_events = 64;
  options.batch.max_events = 1'024;
  options.retry.initial_backoff = microseconds{10};
  options.retry.max_backoff = milliseconds{1};
  options.retry.max_attempts = 0;
  options.retry.max_elapsed = nanoseconds::max();

  Violations violations;
  Books books(violations, shard_ids);
  options.dead_letters = [&books](const Batch& batch, const shard::DeadLetter& /*why*/) {
    books.bury(batch);
  };
  const auto began = now();
  std::atomic<std::uint64_t> faults{0};
  std::atomic<std::uint64_t> ways{0};  // in which it fails: a second each
  const auto fail = [&ways](const Batch& batch, std::uint64_t r) {
    switch (ways.load(std::memory_order_relaxed) % 6) {
      case 0:
        return failing(r, 1);
      case 1:
        return failing(r, 50);
      case 2:
        return partly(batch, r);
      case 3:
        return throwing(batch, r);
      case 4:
        return failing(r, 100);
      default:
        return Delivery::delivered();
    }
  };
  std::atomic<bool> destroyed{false};
  auto adapter = std::make_unique<Faulty>(
      books,
      [&faults, &fail](const Batch& batch, std::uint64_t r) {
        try {
          auto answer = fail(batch, r);
          faults.fetch_add(answer.kind() == Delivery::Kind::delivered ? 0U : 1U,
                           std::memory_order_relaxed);
          return answer;
        } catch (...) {
          faults.fetch_add(1, std::memory_order_relaxed);
          throw;
        }
      },
      seed, destroyed);
  auto pipeline = std::make_unique<shard::Pipeline>(options, std::move(adapter));
  Producers producers(*pipeline, kProducers);
  Churn churn(*pipeline, books, seed, shard_ids);
  const auto warm_up = std::min<nanoseconds>(std::chrono::minutes{2}, duration / 4);
  Memory memory(began + warm_up);
  std::uint64_t samples = 0;
  std::uint64_t lines = 0;
  std::uint64_t accepted = 0;
  for (auto elapsed = nanoseconds{0}; elapsed < duration; elapsed = now() - began) {
    ways = static_cast<std::uint64_t>(elapsed / std::chrono::seconds{1});
    churn.step();
    if (elapsed >= samples * std::chrono::seconds{2}) {
      ++samples;
      memory.sample(violations);
    }
    if (elapsed >= (lines + 1) * std::chrono::minutes{1}) {
      ++lines;
      const auto sum = pipeline->manager().ledger().accepted;
      std::printf(
          "minute %3llu: %12llu events (%llu/s), %2zu shards, %7llu changes, %9llu faults, "
          "%6.1f MB, %llu wrong\n",
          n(lines), n(sum), n((sum - accepted) / 60), churn.shards(), n(churn.changes()),
          n(faults.load()), memory.last(), n(violations.count()));
      std::fflush(stdout);
      accepted = sum;
    }
    std::this_thread::sleep_for(kStep);  // paces the changes: it waits for nothing
  }
  memory.sample(violations);
  ways = 5;
  producers.stop();
  violations.check(pipeline->flush(kLong).status == shard::FlushStatus::flushed,
                   "a flush of what can be delivered has failed");
  const auto report = pipeline->close(kLong);
  violations.check(report.complete, "a pipeline that was flushed is not complete");
  violations.equal(report.undelivered.size(), 0, "undelivered after a flush");
  violations.check(churn.changes() != 0 && faults.load() != 0, "nothing has changed or failed");
  pipeline.reset();
  violations.check(eventually([&] { return destroyed.load(); }), "an adapter was not destroyed");
  books.check(report, producers.told());
  const auto& ledger = report.ledger;
  std::printf(
      "%.1f minutes: %llu events, %llu delivered, %llu dead letters, %llu possibly delivered; "
      "%llu changes, %llu faults;\nresident from %.1f MB after %.0f s: min %.1f, max %.1f MB; "
      "%llu wrong: %s\n",
      std::chrono::duration<double, std::ratio<60>>(now() - began).count(), n(ledger.accepted),
      n(ledger.delivered), n(ledger.dead_lettered), n(ledger.possibly_delivered),
      n(churn.changes()), n(faults.load()), memory.base(),
      std::chrono::duration<double>(warm_up).count(), memory.min(), memory.max(),
      n(violations.count()), violations.count() == 0 ? "ok" : "FAILED");
  return violations.count();
}

// ---------------------------------------------------------------------------------- all of it

void print(const char* name, const Totals& totals, double seconds, std::uint64_t violations) {
  const auto n = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  const auto& ledger = totals.ledger;
  std::printf("%-14s %7.1f %7llu %9llu %11llu %11llu %9llu %9llu %9llu %9llu %10llu %4llu %5llu\n",
              name, seconds, n(totals.rounds), n(totals.calls), n(ledger.accepted),
              n(ledger.delivered), n(ledger.dead_lettered), n(ledger.possibly_delivered),
              n(ledger.abandoned_queued + ledger.abandoned_batched), n(ledger.evicted),
              n(ledger.offered() - ledger.accepted), n(totals.abandoned_threads), n(violations));
  std::fflush(stdout);
}

template <class Run>
std::uint64_t measured(const char* name, const Run& run) {
  Violations violations;
  Totals totals;
  const auto began = now();
  run(violations, totals);
  print(name, totals, std::chrono::duration<double>(now() - began).count(), violations.count());
  return violations.count();
}

[[noreturn]] void usage() {
  std::fputs(
      "usage: shard_faults [--seconds S] [--runs N] [--seed N] [--case NAME] [--soak "
      "MINUTES]\ncases:",
      stderr);
  for (const auto& each : kCases) std::fprintf(stderr, " %s", each.name);
  std::fputs(" flush-random\n", stderr);
  std::exit(2);
}

Settings parse(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    if (i + 1 == argc) usage();
    const char* const value = argv[i + 1];
    char* end = nullptr;
    if (name == "--seconds") {
      settings.seconds = std::strtod(value, &end);
    } else if (name == "--runs") {
      settings.runs = std::strtoull(value, &end, 10);
    } else if (name == "--seed") {
      settings.seed = std::strtoull(value, &end, 10);
    } else if (name == "--soak") {
      settings.soak = std::strtod(value, &end);
      if (!(settings.soak > 0)) usage();
    } else if (name == "--case") {
      settings.only = value;
      if (settings.only != "flush-random" &&
          std::none_of(kCases.begin(), kCases.end(),
                       [&](const Case& each) { return settings.only == each.name; })) {
        usage();
      }
      continue;
    } else {
      usage();
    }
    if (end == value || *end != '\0' || !(settings.seconds > 0)) usage();
  }
  return settings;
}

std::uint64_t run_all(const Settings& settings) {
  std::printf("seed %llu; of flush-random, calls are flushes that succeeded\n",
              static_cast<unsigned long long>(settings.seed));
  std::printf("%-14s %7s %7s %9s %11s %11s %9s %9s %9s %9s %10s %4s %5s\n", "case", "seconds",
              "rounds", "calls", "accepted", "delivered", "dead", "possibly", "abandoned",
              "evicted", "refused", "hung", "wrong");
  std::uint64_t violations = 0;
  const auto wanted = [&](std::string_view name) {
    return settings.only.empty() || settings.only == name;
  };
  const auto seconds =
      std::chrono::duration_cast<nanoseconds>(std::chrono::duration<double>(settings.seconds));
  for (const auto& each : kCases) {
    if (!wanted(each.name)) continue;
    violations += measured(each.name, [&](Violations& found, Totals& totals) {
      const auto end = now() + seconds;
      std::uint64_t round = 0;
      do {
        const auto seed =
            mix(mix(settings.seed + (round++)) + static_cast<std::uint64_t>(&each - kCases.data()));
        run_round(each, seed, each.in_rounds ? milliseconds{2 + seed % 20} : seconds, found,
                  totals);
      } while (each.in_rounds && now() < end);
    });
  }
  if (wanted("flush-random")) {
    violations += measured("flush-random", [&](Violations& found, Totals& totals) {
      for (std::uint64_t run = 0; run < settings.runs; ++run) {
        run_flushes(mix(settings.seed + run), found, totals);
      }
    });
  }
  return violations;
}

}  // namespace

int main(int argc, char** argv) {
  const auto settings = parse(argc, argv);
  try {
    const auto violations =
        settings.soak > 0 ? run_soak(settings.soak, settings.seed) : run_all(settings);
    return violations == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "shard_faults: %s\n", error.what());
    return 2;
  }
}
