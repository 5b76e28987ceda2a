#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <latch>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "shard/manager.hpp"
#include "support/books.hpp"
#include "support/failures.hpp"

namespace {

using shard::Backpressure;
using shard::BackpressureMode;
using shard::Bytes;
using shard::Ledger;
using shard::Manager;
using shard::ManagerOptions;
using shard::Outcome;
using shard::ShardId;
using shard_test::Failures;
using shard_test::Tally;

// ThreadSanitizer slows all this down by a factor of ten or more.
#if defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kScale = 1;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr std::uint64_t kScale = 1;
#else
constexpr std::uint64_t kScale = 5;
#endif
#else
constexpr std::uint64_t kScale = 5;
#endif

constexpr std::size_t kProducers = 4;
constexpr std::size_t kShards = 3;
constexpr std::uint64_t kEventsEach = 800 * kScale;
constexpr std::size_t kBatch = 37;

/// What every event says of itself, so that loss, duplication, reordering and corruption differ.
struct Stamp {
  std::uint64_t producer;
  std::uint64_t counter;
  std::uint64_t check;

  static Stamp make(std::uint64_t producer, std::uint64_t counter) {
    return {producer, counter, mixed(producer, counter)};
  }
  static std::uint64_t mixed(std::uint64_t producer, std::uint64_t counter) {
    return (counter + 1) * 0x9E3779B97F4A7C15U ^ producer << 56U;
  }
  [[nodiscard]] bool intact() const { return check == mixed(producer, counter); }
  [[nodiscard]] Bytes bytes() const {
    return {reinterpret_cast<const std::byte*>(this), sizeof *this};
  }
};

/// What a consumer saw of an event.
struct Seen {
  std::uint32_t shard;
  std::uint64_t sequence;
  std::uint64_t timestamp;
  Stamp stamp;
};

/// What a producer was answered.
struct Answers {
  Tally tally;
  std::vector<std::uint64_t> accepted;  ///< counters, ascending

  void saw(std::uint64_t counter, Outcome outcome) {
    if (tally.saw(outcome) == Outcome::accepted) accepted.push_back(counter);
  }
};

ManagerOptions crowded(Backpressure backpressure) {
  return {.shards = kShards,
          .ring_capacity = 64,
          .ring_bytes = 4096,  // 32-byte blocks: the ring is full first
          .max_payload = 512,
          .inline_max = 512,
          .max_key = 64,
          .backpressure = backpressure,
          .seed = 11};
}

/// Pops until `done` and everything is empty.
void consume(const Manager& manager, const std::atomic<bool>& done, std::vector<Seen>& seen,
             Failures& failures) {
  std::vector<shard::Shard> shards;
  for (const auto id : manager.shard_ids()) shards.push_back(*manager.shard(id));
  shard::EventBatch batch;
  for (bool last = false; !last;) {
    last = done.load();  // looked at first: then a pass that finds nothing has missed nothing
    for (const auto& shard : shards) {
      batch.clear();
      if (shard.pop_batch_into(batch, 50) != 0) last = false;
      for (const auto event : batch) {
        Stamp stamp{};
        if (!failures.check(event.payload.size() == sizeof stamp, "an event has another size")) {
          continue;
        }
        std::memcpy(&stamp, event.payload.data(), sizeof stamp);
        failures.check(stamp.intact() && stamp.producer < kProducers, "an event is corrupt");
        failures.check(event.shard == shard.id(), "an event names another shard");
        seen.push_back(
            {event.shard.value, event.sequence.value, event.timestamp.nanoseconds, stamp});
      }
    }
  }
}

bool no_count_fell(const Ledger& before, const Ledger& now) {
  return before.accepted <= now.accepted && before.dropped_newest <= now.dropped_newest &&
         before.rejected_full <= now.rejected_full &&
         before.rejected_timeout <= now.rejected_timeout && before.sampled_out <= now.sampled_out &&
         before.rejected_closed <= now.rejected_closed &&
         before.rejected_invalid <= now.rejected_invalid && before.unrouted <= now.unrouted &&
         before.evicted <= now.evicted && before.returned <= now.returned &&
         before.abandoned_queued <= now.abandoned_queued;
}

/// Reads every count all the time and checks what must hold in every snapshot.
void watch(const Manager& manager, const std::atomic<bool>& done, Failures& failures) {
  std::vector<shard::Shard> shards;
  for (const auto id : manager.shard_ids()) shards.push_back(*manager.shard(id));
  std::vector<Ledger> before(shards.size());
  Ledger total_before;
  const auto sum = [&] {
    auto all = manager.own_ledger();
    for (const auto& shard : shards) all += shard.ledger();
    return all;
  };
  const auto plausible = [&](const Ledger& now) {
    failures.check(now.returned + now.evicted + now.abandoned_queued <= now.accepted,
                   "a snapshot shows more out than in");
  };
  while (!done.load()) {
    for (std::size_t i = 0; i < shards.size(); ++i) {
      const auto now = shards[i].ledger();
      plausible(now);
      failures.check(no_count_fell(before[i], now), "a shard's count went down");
      failures.check(now.queued <= shards[i].usable_capacity(), "more is queued than fits");
      before[i] = now;
      const auto stats = shards[i].stats();
      failures.check(stats.events_dispatched <= stats.events_ingested,
                     "more was dispatched than ingested");
      failures.check(shards[i].len() <= shards[i].usable_capacity(),
                     "a shard is longer than it is");
      const auto fill = shards[i].fill_ratio();
      failures.check(fill >= 0 && fill <= 1, "a fill ratio is out of 0 .. 1");
    }
    const auto low = sum();
    const auto total = manager.ledger();
    const auto high = sum();
    plausible(total);
    failures.check(no_count_fell(total_before, total), "a total went down");
    failures.check(no_count_fell(low, total) && no_count_fell(total, high),
                   "a total is not the sum over the shards and the manager's own");
    total_before = total;
    if (const auto pending = manager.try_total_pending_in_rings()) {
      failures.check(*pending <= shards.size() * shards[0].usable_capacity(),
                     "more is pending than fits");
    }
  }
}

/// How a producer offers its events 0, 1, 2, ... ; writes down each answer.
using Offer = void (*)(Manager&, std::uint64_t producer, Answers&);

void offer_single(Manager& manager, std::uint64_t producer, Answers& answers) {
  for (std::uint64_t i = 0; i < kEventsEach; ++i) {
    answers.saw(i, manager.ingest(Stamp::make(producer, i).bytes()));
  }
}

template <class Ingest>
void offer_batches(std::uint64_t producer, Answers& answers, const Ingest& ingest) {
  std::vector<Stamp> stamps;
  std::array<Outcome, kBatch> outcomes{};
  for (std::uint64_t i = 0; i < kEventsEach; i += stamps.size()) {
    stamps.clear();
    for (std::uint64_t c = i; c < std::min(i + kBatch, kEventsEach); ++c) {
      stamps.push_back(Stamp::make(producer, c));
    }
    const std::size_t accepted = ingest(std::span<const Stamp>(stamps), outcomes);
    std::size_t counted = 0;
    for (std::size_t k = 0; k < stamps.size(); ++k) {
      answers.saw(stamps[k].counter, outcomes[k]);
      counted += outcomes[k] == Outcome::accepted ? 1U : 0U;
    }
    if (accepted != counted) answers.tally.saw(Outcome::unrouted);  // makes the books differ
  }
}

void offer_batch(Manager& manager, std::uint64_t producer, Answers& answers) {
  offer_batches(producer, answers, [&](std::span<const Stamp> stamps, std::span<Outcome> outcomes) {
    std::vector<Bytes> payloads;
    for (const auto& stamp : stamps) payloads.push_back(stamp.bytes());
    return manager.ingest_batch(payloads, outcomes);
  });
}

void offer_keyed_raw_batch(Manager& manager, std::uint64_t producer, Answers& answers) {
  offer_batches(producer, answers, [&](std::span<const Stamp> stamps, std::span<Outcome> outcomes) {
    std::vector<shard::RawEvent> events;
    for (const auto& stamp : stamps) {
      const Bytes key(reinterpret_cast<const std::byte*>(&stamp.counter), 1);
      events.push_back(manager.raw_event(stamp.bytes(), shard::Key{key}));
    }
    return manager.ingest_raw_batch(events, outcomes);
  });
}

void offer_by_handle(Manager& manager, std::uint64_t producer, Answers& answers) {
  auto handle = manager.producer({.change_slot_every = 100});
  for (std::uint64_t i = 0; i < kEventsEach; ++i) {
    answers.saw(i, handle.ingest(Stamp::make(producer, i).bytes()));
  }
}

void offer_batches_by_handle(Manager& manager, std::uint64_t producer, Answers& answers) {
  auto handle = manager.producer();
  offer_batches(producer, answers, [&](std::span<const Stamp> stamps, std::span<Outcome> outcomes) {
    std::vector<Bytes> payloads;
    for (const auto& stamp : stamps) payloads.push_back(stamp.bytes());
    return handle.ingest_batch(payloads, outcomes);
  });
}

struct Way {
  const char* name;
  Offer offer;
};

constexpr std::array kWays{
    Way{"single events", offer_single},
    Way{"batches", offer_batch},
    Way{"raw batches with keys", offer_keyed_raw_batch},
    Way{"a producer's single events", offer_by_handle},
    Way{"a producer's batches", offer_batches_by_handle},
};

/// The order and the completeness of what was popped. Called when all is popped.
void check_stream(const std::vector<Answers>& answers, std::vector<Seen> seen,
                  const Ledger& ledger) {
  std::sort(seen.begin(), seen.end(), [](const Seen& a, const Seen& b) {
    return std::pair(a.shard, a.sequence) < std::pair(b.shard, b.sequence);
  });
  std::size_t out_of_order = 0;
  std::size_t duplicates = 0;
  std::array<std::array<std::int64_t, kProducers>, kShards> last_counter;
  for (auto& shard : last_counter) shard.fill(-1);
  std::vector<std::vector<std::uint64_t>> popped(kProducers);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const auto& event = seen[i];
    if (i > 0 && seen[i - 1].shard == event.shard) {
      duplicates += seen[i - 1].sequence == event.sequence ? 1U : 0U;
      out_of_order += seen[i - 1].timestamp >= event.timestamp ? 1U : 0U;
    }
    auto& last = last_counter.at(event.shard).at(event.stamp.producer);
    out_of_order += last >= static_cast<std::int64_t>(event.stamp.counter) ? 1U : 0U;
    last = static_cast<std::int64_t>(event.stamp.counter);
    popped[event.stamp.producer].push_back(event.stamp.counter);
  }
  CHECK(duplicates == 0);
  CHECK(out_of_order == 0);

  std::size_t never_accepted = 0;
  std::size_t missing = 0;
  for (std::size_t p = 0; p < kProducers; ++p) {
    std::sort(popped[p].begin(), popped[p].end());
    CHECK(std::adjacent_find(popped[p].begin(), popped[p].end()) == popped[p].end());
    std::vector<std::uint64_t> difference;
    std::set_difference(popped[p].begin(), popped[p].end(), answers[p].accepted.begin(),
                        answers[p].accepted.end(), std::back_inserter(difference));
    never_accepted += difference.size();
    difference.clear();
    std::set_difference(answers[p].accepted.begin(), answers[p].accepted.end(), popped[p].begin(),
                        popped[p].end(), std::back_inserter(difference));
    missing += difference.size();
  }
  CHECK(never_accepted == 0);
  CHECK(missing == ledger.evicted);
  CHECK(seen.size() == ledger.returned);
}

/// Runs `offer` in kProducers threads beside consumers and a reader of the counts, and checks the books.
void race(Backpressure mode, Offer offer, std::size_t consumers) {
  Manager manager(crowded(mode));
  Failures failures;
  std::vector<Answers> answers(kProducers);
  std::vector<std::vector<Seen>> seen(consumers);
  std::atomic<bool> produced{false};
  std::latch start(static_cast<std::ptrdiff_t>(kProducers + consumers + 1));
  std::vector<std::thread> others;
  for (std::size_t c = 0; c < consumers; ++c) {
    others.emplace_back([&, c] {
      start.arrive_and_wait();
      consume(manager, produced, seen[c], failures);
    });
  }
  others.emplace_back([&] {
    start.arrive_and_wait();
    watch(manager, produced, failures);
  });
  std::vector<std::thread> producers;
  for (std::size_t p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] {
      start.arrive_and_wait();
      offer(manager, p, answers[p]);
    });
  }
  for (auto& thread : producers) thread.join();
  produced = true;
  for (auto& thread : others) thread.join();

  CHECK(failures.text() == "");
  Tally tally;
  for (const auto& answer : answers) tally += answer.tally;
  std::vector<Seen> all;
  for (const auto& some : seen) all.insert(all.end(), some.begin(), some.end());
  const auto ledger = manager.ledger();
  CHECK(ledger.offered() == kProducers * kEventsEach);
  CHECK(ledger == tally.ledger({.evicted = ledger.evicted, .returned = all.size()}));
  CHECK(ledger.queued == 0);
  for (const auto id : manager.shard_ids()) CHECK(manager.shard(id)->ledger().balanced());
  if (mode.mode != BackpressureMode::drop_oldest && mode.mode != BackpressureMode::sample) {
    CHECK(ledger.evicted == 0);
  }
  if (mode.mode == BackpressureMode::drop_oldest || mode.mode == BackpressureMode::block) {
    CHECK(ledger.accepted == kProducers * kEventsEach);
  }
  check_stream(answers, std::move(all), ledger);
}

}  // namespace

TEST_CASE("four producers, consumers and a reader leave exact books in every mode and by every way",
          "[R-C1][R-C5][R-C7][R-C8][R-C2][R-A6]") {
  const auto mode = GENERATE(Backpressure::drop_newest(), Backpressure::drop_oldest(),
                             Backpressure::fail_producer(), Backpressure::sample(3),
                             Backpressure::block(std::chrono::nanoseconds::max()));
  const std::size_t consumers = GENERATE(1U, 2U);
  for (const auto& way : kWays) {
    CAPTURE(to_string(mode.mode), way.name, consumers);
    race(mode, way.offer, consumers);
  }
}

TEST_CASE("who retries what a batch refused keeps the order of every shard", "[R-C5][R-J4][R-C1]") {
  // The refusals of the race above cannot show this: there the refused events never come again.
  Manager manager(crowded(Backpressure::fail_producer()));
  Failures failures;
  std::vector<Answers> answers(kProducers);
  std::vector<Seen> seen;
  std::atomic<bool> produced{false};
  std::thread consumer([&] { consume(manager, produced, seen, failures); });
  std::vector<std::thread> producers;
  for (std::size_t p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] {
      std::vector<Stamp> stamps;
      for (std::uint64_t next = 0; next < kEventsEach || !stamps.empty();) {
        while (stamps.size() < kBatch && next < kEventsEach) {
          stamps.push_back(Stamp::make(p, next++));
        }
        std::vector<Bytes> payloads;
        for (const auto& stamp : stamps) payloads.push_back(stamp.bytes());
        std::vector<Outcome> outcomes(stamps.size());
        manager.ingest_batch(payloads, outcomes);
        std::vector<Stamp> refused;
        for (std::size_t i = 0; i < stamps.size(); ++i) {
          answers[p].tally.saw(outcomes[i]);
          if (outcomes[i] != Outcome::accepted) refused.push_back(stamps[i]);
        }
        if (refused.size() == stamps.size()) std::this_thread::yield();
        stamps = std::move(refused);
      }
      for (std::uint64_t i = 0; i < kEventsEach; ++i) answers[p].accepted.push_back(i);
    });
  }
  for (auto& thread : producers) thread.join();
  produced = true;
  consumer.join();
  CHECK(failures.text() == "");
  Tally tally;
  for (const auto& answer : answers) tally += answer.tally;
  CHECK(manager.ledger() == tally.ledger({.returned = kProducers * kEventsEach}));
  check_stream(answers, std::move(seen), manager.ledger());
}

TEST_CASE("close in the middle refuses everything from its return on and loses nothing",
          "[R-C1][R-D12][R-C7]") {
  const auto mode = GENERATE(Backpressure::drop_newest(), Backpressure::drop_oldest(),
                             Backpressure::block(std::chrono::nanoseconds::max()));
  const bool consumed = GENERATE(false, true);
  CAPTURE(to_string(mode.mode), consumed);
  Manager manager(crowded(mode));
  Failures failures;
  std::vector<Answers> answers(kProducers);
  std::latch under_way(kProducers);
  std::vector<std::thread> producers;
  for (std::size_t p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] {
      auto handle = manager.producer();
      // Ends by being refused, or hangs: also who waits for room that never comes.
      for (std::uint64_t i = 0;; ++i) {
        if (i == 0) under_way.count_down();  // not later: where nobody pops, it may be waiting then
        const auto stamp = Stamp::make(p, i);
        const auto outcome =
            i % 2 == 0 ? manager.ingest(stamp.bytes()) : handle.ingest(stamp.bytes());
        answers[p].saw(i, outcome);
        if (outcome == Outcome::rejected_closed) break;
      }
    });
  }
  std::atomic<bool> closed{false};
  std::vector<Seen> seen;
  std::thread consumer([&] {
    if (consumed) consume(manager, closed, seen, failures);
  });
  under_way.wait();
  manager.close();
  const auto accepted_at_close = manager.ledger().accepted;
  CHECK(manager.ingest("late") == Outcome::rejected_closed);
  for (auto& thread : producers) thread.join();
  CHECK(manager.ledger().accepted == accepted_at_close);
  closed = true;
  consumer.join();
  if (!consumed) consume(manager, closed, seen, failures);

  CHECK(failures.text() == "");
  Tally tally;
  tally.saw(Outcome::rejected_closed);  // the late one
  for (const auto& answer : answers) tally += answer.tally;
  const auto ledger = manager.ledger();
  CHECK(ledger == tally.ledger({.evicted = ledger.evicted, .returned = seen.size()}));
  CHECK(ledger.queued == 0);
  check_stream(answers, std::move(seen), ledger);
}

TEST_CASE("handles in other threads go on safely when their manager is destroyed",
          "[R-D12][R-C1]") {
  const auto mode = GENERATE(Backpressure::drop_oldest(), Backpressure::fail_producer(),
                             Backpressure::block(std::chrono::nanoseconds::max()));
  CAPTURE(to_string(mode.mode));
  std::optional<Manager> manager(std::in_place, crowded(mode));
  std::vector<shard::Shard> shards;
  for (const auto id : manager->shard_ids()) shards.push_back(*manager->shard(id));
  Failures failures;
  std::vector<Tally> tallies(kProducers + kShards);
  std::latch under_way(kProducers + kShards);
  std::vector<std::thread> threads;
  for (std::size_t p = 0; p < kProducers; ++p) {
    threads.emplace_back([&, p, producer = manager->producer()]() mutable {
      for (std::uint64_t i = 0;; ++i) {
        if (i == 10) under_way.count_down();
        if (tallies[p].saw(producer.ingest(Stamp::make(p, i).bytes())) ==
            Outcome::rejected_closed) {
          break;
        }
      }
    });
  }
  std::atomic<std::uint64_t> popped{0};
  for (std::size_t s = 0; s < kShards; ++s) {
    threads.emplace_back([&, s, shard = shards[s]] {
      shard::EventBatch batch;
      for (std::uint64_t i = 0;; ++i) {
        if (i == 10) under_way.count_down();
        if (tallies[kProducers + s].saw(shard.try_push(Stamp::make(0, i).bytes())) ==
            Outcome::rejected_closed) {
          break;
        }
        if (i % 8 == 0) {
          batch.clear();
          popped += shard.pop_batch_into(batch, 4);
          for (const auto event : batch) {
            failures.check(event.payload.size() == sizeof(Stamp), "an event has another size");
          }
        }
      }
      popped += shard.pop_batch(3).size();  // refused, but perhaps not destroyed yet
    });
  }
  under_way.wait();
  manager.reset();
  for (auto& thread : threads) thread.join();
  CHECK(failures.text() == "");
  for (const auto& shard : shards) CHECK(shard.pop_batch().empty());
  Tally tally;
  for (const auto& each : tallies) tally += each;
  Ledger total;
  for (const auto& shard : shards) {
    CHECK(shard.ledger().balanced());
    CHECK(shard.ledger().queued == 0);
    total += shard.ledger();
  }
  // The manager's own counts went with it: one refusal for each thread.
  total.rejected_closed = threads.size();
  CHECK(total == tally.ledger({.evicted = total.evicted,
                               .returned = popped.load(),
                               .abandoned_queued = total.abandoned_queued}));
}

TEST_CASE("nothing moves in a shard while a with_shard closure runs", "[R-D13][R-C1]") {
  Manager manager(crowded(Backpressure::drop_oldest()));
  const auto id = manager.shard_ids().front();
  Failures failures;
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> popped{0};
  std::vector<std::thread> threads;
  for (std::size_t p = 0; p < 2; ++p) {
    threads.emplace_back([&, p] {
      const auto shard = *manager.shard(id);
      for (std::uint64_t i = 0; !done.load(); ++i) {
        failures.check(shard.try_push(Stamp::make(p, i).bytes()) == Outcome::accepted,
                       "drop_oldest refused");
        if (i % 16 == 0) popped += shard.pop_batch(3).size();
      }
    });
  }
  std::uint64_t pushed = 0;
  shard::EventBatch batch;
  for (std::uint64_t i = 0; i < 200 * kScale; ++i) {
    manager.with_shard(id, [&](shard::LockedShard& locked) {
      const auto before = locked.len();
      if (before == locked.usable_capacity()) {
        batch.clear();
        popped += locked.pop_batch_into(batch, 5);
        failures.check(locked.len() == before - 5, "the length moved under the locks");
      } else {
        failures.check(locked.try_push(Stamp::make(3, i).bytes()) == Outcome::accepted,
                       "a push under the locks was refused");
        ++pushed;
        failures.check(locked.len() == before + 1, "the length moved under the locks");
      }
    });
  }
  done = true;
  for (auto& thread : threads) thread.join();
  CHECK(failures.text() == "");
  const auto ledger = manager.ledger();
  CHECK(ledger.balanced());
  CHECK(ledger.returned == popped.load());
  CHECK(ledger.accepted >= pushed);
}

TEST_CASE("dispatch sums that are read together belong together", "[R-C10]") {
  const Manager manager({.shards = 1});
  const auto shard = *manager.shard(ShardId{0});
  constexpr std::uint64_t kRecords = 2'000 * kScale;
  constexpr std::size_t kWriters = 3;
  Failures failures;
  std::atomic<std::size_t> writing{kWriters};
  std::vector<std::thread> threads;
  for (std::size_t w = 0; w < kWriters; ++w) {
    threads.emplace_back([&] {
      for (std::uint64_t i = 0; i < kRecords; ++i) {
        // Two events a batch and seven nanoseconds an event, whatever the snapshot.
        shard.record_batch_dispatch(2, std::chrono::nanoseconds{14});
      }
      --writing;
    });
  }
  std::uint64_t last = 0;
  for (bool more = true; more;) {
    more = writing.load() != 0;
    const auto stats = shard.dispatch_stats();
    failures.check(stats.events == 2 * stats.batches, "events and batches are of two moments");
    failures.check(stats.total_latency.count() == 14 * static_cast<std::int64_t>(stats.batches),
                   "latency and batches are of two moments");
    failures.check(stats.batches >= last, "a sum went down");
    last = stats.batches;
  }
  for (auto& thread : threads) thread.join();
  CHECK(failures.text() == "");
  CHECK(shard.dispatch_stats().batches == kWriters * kRecords);
}
