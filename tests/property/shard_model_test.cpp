// Random operations on a manager, each predicted by a model: outcome, content, order, sequence, timestamp,
// fill and every count, after every step.

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "shard/manager.hpp"
#include "support/books.hpp"
#include "support/counted_buffer.hpp"
#include "support/manual_clock.hpp"
#include "support/options.hpp"

using shard::BackpressureMode;
using shard::Bytes;
using shard::Key;
using shard::Outcome;
using shard::ShardId;
using shard::SourceIdentity;

namespace {

/// An event as the test makes it.
struct Sent {
  std::string payload;
  std::optional<std::string> key;
  std::optional<SourceIdentity> source;
  bool moved_in = false;  ///< as a Buffer

  [[nodiscard]] shard::RawEvent raw() const {
    auto event = shard::RawEvent::of(payload);
    if (key) event = event.with(Key{*key});
    if (source) event = event.with(*source);
    return event;
  }
};

/// How a call treats a full shard.
enum class Patience { may_wait, never_waits };

/// What one shard must do, written down from the documentation: a queue, a byte budget in which each
/// event takes its bytes rounded up to 16 and what it skips at the end of the arena, and a clock.
class ShardModel {
 public:
  explicit ShardModel(const shard::ManagerOptions& options) : options_(options) {}

  struct Queued {
    Sent sent;
    std::uint64_t timestamp;
    std::uint64_t sequence;
    std::uint64_t cost;
  };

  /// An event that is within the limits.
  Outcome push(const Sent& sent, std::uint64_t now, Patience patience) {
    if (next_timestamp_ > shard::Timestamp::max().nanoseconds) {
      return Outcome::timestamps_exhausted;
    }
    const bool owned = sent.moved_in || sent.payload.size() > options_.inline_max;
    const std::uint64_t block = (sent.key ? sent.key->size() : 0) + (sent.source ? 16 : 0) +
                                (owned ? 8 : sent.payload.size());
    const auto rounded = (block + 15) / 16 * 16;
    const auto before_end = options_.ring_bytes - arena_position_;
    const auto held = rounded <= before_end ? rounded : before_end + rounded;
    const auto cost = held + (owned ? sent.payload.size() : 0);
    if (!has_room(cost)) {
      if (const auto refused = overflow(patience); refused != Outcome::accepted) {
        return refused;
      }
      while (!has_room(cost)) {
        leave();
        ++ledger_.evicted;
      }
    }
    const auto timestamp = std::max(now, next_timestamp_);
    next_timestamp_ = timestamp + 1;
    arena_position_ = (arena_position_ + held) % options_.ring_bytes;
    bytes_ += cost;
    queue_.push_back({sent, timestamp, ledger_.accepted, cost});
    ++ledger_.accepted;
    return Outcome::accepted;
  }

  /// Counts what a batch refuses because an earlier event of it was.
  Outcome refuse(Outcome refusal) {
    count(refusal);
    return refusal;
  }

  std::vector<Queued> pop(std::size_t max_events, std::size_t max_bytes) {
    std::vector<Queued> popped;
    std::size_t bytes = 0;
    while (!queue_.empty() && popped.size() < max_events) {
      const auto size = queue_.front().sent.payload.size();
      if (!popped.empty() && bytes + size > max_bytes) break;
      bytes += size;
      popped.push_back(queue_.front());
      leave();
      ++ledger_.returned;
    }
    return popped;
  }

  [[nodiscard]] shard::Ledger ledger() const {
    auto ledger = ledger_;
    ledger.queued = queue_.size();
    return ledger;
  }
  [[nodiscard]] std::size_t length() const { return queue_.size(); }
  [[nodiscard]] double fill_ratio() const {
    return std::max(static_cast<double>(queue_.size()) / static_cast<double>(usable()),
                    static_cast<double>(bytes_) / static_cast<double>(options_.ring_bytes));
  }

 private:
  [[nodiscard]] std::size_t usable() const { return options_.ring_capacity - 1; }
  [[nodiscard]] bool has_room(std::uint64_t cost) const {
    return queue_.size() < usable() && bytes_ + cost <= options_.ring_bytes;
  }
  void leave() {
    bytes_ -= queue_.front().cost;
    queue_.pop_front();
  }
  Outcome overflow(Patience patience) {
    switch (options_.backpressure.mode) {
      case BackpressureMode::drop_newest:
        return refuse(Outcome::dropped_newest);
      case BackpressureMode::fail_producer:
        return refuse(Outcome::rejected_full);
      case BackpressureMode::sample:
        return ++overflows_ % options_.backpressure.rate == 0 ? Outcome::accepted
                                                              : refuse(Outcome::sampled_out);
      case BackpressureMode::block:  // the timeout is 0
        return refuse(patience == Patience::may_wait ? Outcome::rejected_timeout
                                                     : Outcome::rejected_full);
      case BackpressureMode::drop_oldest:
        break;
    }
    return Outcome::accepted;
  }
  void count(Outcome refusal) {
    ledger_.dropped_newest += refusal == Outcome::dropped_newest ? 1U : 0U;
    ledger_.rejected_full += refusal == Outcome::rejected_full ? 1U : 0U;
    ledger_.rejected_timeout += refusal == Outcome::rejected_timeout ? 1U : 0U;
    ledger_.sampled_out += refusal == Outcome::sampled_out ? 1U : 0U;
  }

  shard::ManagerOptions options_;
  std::deque<Queued> queue_;
  std::uint64_t arena_position_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint64_t next_timestamp_ = 0;
  std::uint64_t overflows_ = 0;
  shard::Ledger ledger_;
};

bool same(const shard::Event& event, const ShardModel::Queued& expected) {
  const bool same_key = event.key.has_value() == expected.sent.key.has_value() &&
                        (!event.key || event.key->bytes == Bytes(*expected.sent.key));
  return event.payload == Bytes(expected.sent.payload) && same_key &&
         event.source == expected.sent.source &&
         event.timestamp.nanoseconds == expected.timestamp &&
         event.sequence.value == expected.sequence;
}

/// A manager and its model, and the operations on both. Each operation compares what both answer.
class Run {
 public:
  Run(const shard::ManagerOptions& options, std::uint32_t seed)
      : random_(seed), options_(with_clock(options)), manager_(std::in_place, options_) {
    for (const auto id : manager_->shard_ids()) {
      shards_.push_back(*manager_->shard(id));
      models_.emplace_back(options_);
    }
    for (int i = 0; i < 2; ++i) {
      producers_.push_back({manager_->producer(), 0});
      find_shard_of(producers_.back());
    }
  }

  void operate() {
    switch (pick(9)) {
      case 0:
      case 1:
        return ingest();
      case 2:
        return ingest_buffer();
      case 3:
        return ingest_by_producer();
      case 4:
        return push_by_handle();
      case 5:
        return ingest_batch();
      case 6:
        return with_shard();
      default:
        return pop(pick(shards_.size()), PopByHandle{});
    }
  }

  void move_clock() {
    switch (pick(8)) {
      case 0:
        return clock_.advance(pick(5));
      case 1:
        return clock_.advance(pick(1'000'000));
      case 2:
        return clock_.set(pick(clock_.nanoseconds() + 1));
      default:
        return;  // it stands still
    }
  }
  void use_up_clock() { clock_.set(kUptime + shard::Timestamp::max().nanoseconds - 20); }

  /// Nothing has been disturbed that the model knows of.
  void check_books() {
    auto total = own_;
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      const auto expected = models_[i].ledger();
      REQUIRE(shards_[i].ledger() == expected);
      REQUIRE(shards_[i].len() == models_[i].length());
      REQUIRE(shards_[i].fill_ratio() == models_[i].fill_ratio());
      total += expected;
    }
    REQUIRE(manager_->ledger() == total);
    REQUIRE(total.offered() == offered_);
    REQUIRE(total.balanced());
  }

  /// Destroys the manager with what is queued.
  void end() {
    manager_.reset();
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      auto expected = models_[i].ledger();
      expected.abandoned_queued = std::exchange(expected.queued, 0);
      REQUIRE(shards_[i].ledger() == expected);
    }
    batch_.clear();
    REQUIRE(buffers_.released() == buffers_.made());
  }

 private:
  struct OfProducer {
    shard::Producer handle;
    std::size_t shard;
  };
  struct PopByHandle {
    std::size_t operator()(const shard::Shard& shard, shard::EventBatch& batch, std::size_t events,
                           std::size_t bytes) const {
      return shard.pop_batch_into(batch, events, bytes);
    }
  };

  std::size_t pick(std::size_t bound) {
    return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random_);
  }
  std::string bytes(std::size_t size) {
    std::string text(size, '\0');
    for (auto& c : text) c = static_cast<char>(pick(256));
    return text;
  }

  Sent any_event() {
    const std::array sizes{std::size_t{0},
                           std::size_t{1},
                           15 + pick(3),
                           pick(64),
                           pick(200),
                           pick(options_.inline_max + 1),
                           options_.inline_max,
                           options_.inline_max + 1 + pick(1000),
                           options_.max_payload,
                           options_.max_payload + 1};
    Sent sent;
    sent.payload = bytes(sizes[pick(sizes.size())]);
    if (pick(2) == 0) {
      const std::array keys{std::size_t{0},   pick(20),
                            pick(20),         pick(20),
                            options_.max_key, options_.max_key + (pick(8) == 0 ? 1U : 0U)};
      sent.key = bytes(keys[pick(keys.size())]);
    }
    if (pick(3) == 0) sent.source = SourceIdentity{pick(1000), pick(1000)};
    return sent;
  }

  [[nodiscard]] std::size_t routed(const Sent& sent) const {
    const auto hash = manager_->hash(sent.key ? Bytes(*sent.key) : Bytes(sent.payload));
    return manager_->select_shard_by_hash(hash)->value;
  }
  /// The manager was made at kUptime.
  [[nodiscard]] std::uint64_t now() const {
    const auto time = clock_.nanoseconds();
    return time > kUptime ? time - kUptime : 0;
  }

  /// What the model says of an event that goes to `shard`.
  Outcome expect(const Sent& sent, std::size_t shard, Patience patience = Patience::may_wait) {
    const auto outcome = sent.payload.size() > options_.max_payload ? Outcome::payload_too_large
                         : sent.key && sent.key->size() > options_.max_key
                             ? Outcome::key_too_large
                             : models_[shard].push(sent, now(), patience);
    return counted(outcome);
  }
  Outcome counted(Outcome outcome) {
    ++offered_;
    own_.rejected_invalid += is_invalid(outcome) ? 1U : 0U;
    return outcome;
  }

  void ingest() {
    const auto sent = any_event();
    const auto outcome = [&] {
      if (pick(2) == 0) return manager_->ingest_raw(manager_->raw_event(sent.raw()));
      if (sent.key && sent.source) {
        return manager_->ingest(sent.payload, Key{*sent.key}, *sent.source);
      }
      if (sent.key) return manager_->ingest(sent.payload, Key{*sent.key});
      if (sent.source) return manager_->ingest(sent.payload, *sent.source);
      return manager_->ingest(sent.payload);
    }();
    REQUIRE(outcome == expect(sent, routed(sent)));
  }

  void ingest_buffer() {
    auto sent = any_event();
    sent.moved_in = true;
    if (!sent.key) sent.source.reset();  // there is no such overload
    kept_.push_back(sent.payload);       // the buffer refers to it
    auto buffer = buffers_.make(kept_.back());
    const auto outcome = [&] {
      if (sent.key && sent.source) {
        return manager_->ingest(std::move(buffer), Key{*sent.key}, *sent.source);
      }
      if (sent.key) return manager_->ingest(std::move(buffer), Key{*sent.key});
      return manager_->ingest(std::move(buffer));
    }();
    REQUIRE(outcome == expect(sent, routed(sent)));
    // Either the ring has the bytes now, or the caller still has them.
    REQUIRE(buffer.bytes() == (outcome == Outcome::accepted ? Bytes{} : Bytes(sent.payload)));
  }

  void ingest_by_producer() {
    auto& producer = producers_[pick(producers_.size())];
    if (pick(4) == 0) {
      return batch_of(
          [&](const auto&, auto payloads, auto outcomes) {
            return producer.handle.ingest_batch(payloads, outcomes);
          },
          producer.shard, false);
    }
    const auto sent = any_event();
    const auto raw = pick(2) == 0 ? sent.raw() : manager_->raw_event(sent.raw());
    REQUIRE(producer.handle.ingest_raw(raw) ==
            expect(sent, sent.key ? routed(sent) : producer.shard));
  }

  void push_by_handle() {
    const auto shard = pick(shards_.size());
    const auto sent = any_event();
    REQUIRE(shards_[shard].try_push_raw(sent.raw()) == expect(sent, shard, Patience::never_waits));
  }

  void ingest_batch() {
    if (pick(2) == 0) {
      batch_of([&](auto raw, const auto&,
                   auto outcomes) { return manager_->ingest_raw_batch(raw, outcomes); },
               std::nullopt, true);
    } else {
      batch_of([&](const auto&, auto payloads,
                   auto outcomes) { return manager_->ingest_batch(payloads, outcomes); },
               std::nullopt, false);
    }
  }

  /// \param call      offers the events of a batch, given both as raw events and as payloads
  /// \param shard     where all go; nothing: each by its hash
  /// \param metadata  does the call take keys and sources?
  template <class Call>
  void batch_of(const Call& call, std::optional<std::size_t> shard, bool metadata) {
    std::vector<Sent> sent(pick(20) == 0 ? 300 : pick(12));
    std::vector<shard::RawEvent> raw;
    std::vector<Bytes> payloads;
    for (auto& one : sent) {
      one = any_event();
      if (!metadata) one = Sent{std::move(one.payload), {}, {}};
      raw.push_back(manager_->raw_event(one.raw()));
      payloads.emplace_back(one.payload);
    }
    std::vector<Outcome> outcomes(sent.size(), Outcome::unrouted);
    const bool wants_outcomes = pick(4) != 0;
    const auto accepted =
        call(std::span<const shard::RawEvent>(raw), std::span<const Bytes>(payloads),
             wants_outcomes ? std::span(outcomes) : std::span<Outcome>());

    // After the first refusal of a shard it refuses the rest, except that sampling goes on.
    std::vector<std::optional<Outcome>> refused(shards_.size());
    std::vector<Outcome> expected;
    for (const auto& one : sent) {
      const auto to = shard ? *shard : routed(one);
      const bool invalid = one.payload.size() > options_.max_payload ||
                           (one.key && one.key->size() > options_.max_key);
      if (refused[to] && !invalid) {
        expected.push_back(counted(models_[to].refuse(*refused[to])));
        continue;
      }
      expected.push_back(expect(one, to));
      if (is_backpressure(expected.back()) && expected.back() != Outcome::sampled_out) {
        refused[to] = expected.back();
      }
    }
    if (wants_outcomes) REQUIRE(outcomes == expected);
    REQUIRE(accepted == static_cast<std::size_t>(
                            std::count(expected.begin(), expected.end(), Outcome::accepted)));
  }

  void with_shard() {
    const auto shard = pick(shards_.size());
    const auto operations = pick(4);
    REQUIRE(manager_->with_shard(
        ShardId{static_cast<std::uint32_t>(shard)}, [&](shard::LockedShard& locked) {
          for (std::size_t i = 0; i < operations; ++i) {
            if (pick(2) == 0) {
              pop(shard, [&](const auto&, auto& batch, auto... bounds) {
                return locked.pop_batch_into(batch, bounds...);
              });
              continue;
            }
            const auto sent = any_event();
            const auto too_long_here = sent.payload.size() > options_.inline_max &&
                                       sent.payload.size() <= options_.max_payload &&
                                       !(sent.key && sent.key->size() > options_.max_key);
            const auto outcome = locked.try_push_raw(sent.raw());
            REQUIRE(outcome == (too_long_here ? counted(Outcome::payload_too_large)
                                              : expect(sent, shard, Patience::never_waits)));
            REQUIRE(locked.len() == models_[shard].length());
          }
        }));
  }

  template <class PopInto>
  void pop(std::size_t shard, const PopInto& pop_into) {
    constexpr auto kUnlimited = shard::Shard::kUnlimited;
    const auto max_events = pick(3) == 0 ? kUnlimited : pick(10);
    pop(shard, pop_into, max_events, pick(2) == 0 ? kUnlimited : pick(3000));
  }
  template <class PopInto>
  void pop(std::size_t shard, const PopInto& pop_into, std::size_t max_events,
           std::size_t max_bytes) {
    if (pick(3) == 0) batch_.clear();
    const auto before = batch_.size();
    const auto popped = pop_into(shards_[shard], batch_, max_events, max_bytes);
    const auto expected = models_[shard].pop(max_events, max_bytes);
    REQUIRE(popped == expected.size());
    REQUIRE(batch_.size() == before + popped);
    std::size_t different = 0;
    for (std::size_t i = 0; i < popped; ++i) {
      const auto event = batch_[before + i];
      different += same(event, expected[i]) && event.shard == shards_[shard].id() ? 0U : 1U;
    }
    REQUIRE(different == 0);
  }

  /// The slot of a producer is its own affair: one event shows where it leads.
  void find_shard_of(OfProducer& producer) {
    Sent probe;
    probe.payload = "probe";
    REQUIRE(producer.handle.ingest(probe.payload) == Outcome::accepted);
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      if (shards_[i].len() != models_[i].length()) producer.shard = i;
    }
    REQUIRE(expect(probe, producer.shard) == Outcome::accepted);
    pop(producer.shard, PopByHandle{}, 1, shard::Shard::kUnlimited);
  }

  shard::ManagerOptions with_clock(shard::ManagerOptions options) const {
    options.time_source = &clock_;
    return options;
  }

  static constexpr std::uint64_t kUptime = 1'000'000;

  std::mt19937 random_;
  shard_test::ManualClock clock_{kUptime};
  shard_test::CountedBuffers buffers_;
  std::deque<std::string> kept_;
  const shard::ManagerOptions options_;
  std::optional<shard::Manager> manager_;
  std::vector<shard::Shard> shards_;
  std::vector<ShardModel> models_;
  std::vector<OfProducer> producers_;
  shard::EventBatch batch_;
  shard::Ledger own_;
  std::uint64_t offered_ = 0;
};

}  // namespace

TEST_CASE("a manager does what the model of its shards predicts, step by step",
          "[R-A4][R-A5][R-A7][R-A10][R-A11][R-A12][R-A13][R-B1][R-B4][R-C1][R-C2][R-C5][R-C7]") {
  const auto mode = GENERATE(values<shard::Backpressure>(
      {shard::Backpressure::drop_newest(), shard::Backpressure::drop_oldest(),
       shard::Backpressure::fail_producer(), shard::Backpressure::sample(3),
       shard::Backpressure::block(std::chrono::nanoseconds{0})}));
  const auto shards = GENERATE(std::size_t{1}, std::size_t{2}, std::size_t{3});
  const auto capacity = GENERATE(std::size_t{2}, std::size_t{4}, std::size_t{8}, std::size_t{64});
  const auto seed = Catch::rngSeed() + static_cast<std::uint32_t>(shards * 100 + capacity);
  INFO(to_string(mode.mode) << ", " << shards << " shards of " << capacity << ", --rng-seed "
                            << Catch::rngSeed());
  Run run(shard_test::small_options(shards, capacity, mode), seed);
  constexpr int kSteps = 400;
  for (int step = 0; step < kSteps; ++step) {
    INFO("step " << step);
    if (step < kSteps * 9 / 10) {
      run.move_clock();
    } else if (step == kSteps * 9 / 10) {
      run.use_up_clock();  // the last steps see shards without timestamps
    }
    run.operate();
    run.check_books();
  }
  run.end();
}
