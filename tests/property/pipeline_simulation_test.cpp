#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/pipeline.hpp"

namespace shard::detail {

struct PipelineTestAccess {
  static void set_random(Pipeline& pipeline, std::uint64_t random) {
    pipeline.core_->workers_.front()->random = random;
  }
};

}  // namespace shard::detail

// A pipeline that its host drives, in a world made of a seed: producers, an adapter with every kind of fault, time that
// passes in steps, shards that come and go, flushes, and a close at a random moment. The test keeps its own books of each
// event and compares them with everything that the pipeline says.

namespace {

using shard::Backpressure;
using shard::Batch;
using shard::Delivery;
using shard::DeliveryContext;
using shard::EventBatch;
using shard::FlushStatus;
using shard::Key;
using shard::Ledger;
using shard::Outcome;
using shard::Pipeline;
using shard::PipelineOptions;
using shard::Routing;
using shard::ShardId;
using shard_test::ManualClock;
using shard_test::Tally;
using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr std::size_t kKeys = 6;  ///< each has one producer; producer kKeys sends without a key

/// As REQUIRE, but for a test that checks millions of times.
void require(bool condition, const char* what) {
  if (!condition) {
    FAIL(what);
  }
}

/// What the test knows of one event.
struct Fate {
  enum class State { refused, live, delivered, dead, possibly, returned };
  State state = State::refused;
  std::uint64_t seen = 0;  ///< attempts in which it was
};
using State = Fate::State;

/// Who sent it and its number there.
struct Name {
  std::size_t producer = 0;
  std::size_t number = 0;
  auto operator<=>(const Name&) const = default;
};

/// What the test knows of one shard.
struct Lane {
  std::vector<std::pair<std::uint64_t, Name>> held;  ///< must come again, exactly so
  std::optional<std::uint64_t> last;                 ///< the highest sequence number that came out
  std::map<std::uint64_t, Name> terminal;            ///< by sequence number
};

class World {
 public:
  /// How much shards come and go.
  enum class Shards { any, churn };

  World(std::uint64_t seed, Shards shards_are)
      : random_(seed), churn_(shards_are == Shards::churn) {
    PipelineOptions options = shard_test::hosted_options();
    const auto max_shards = churn_ ? 4 : 1 + below(4);
    const auto shards = 1 + below(max_shards);
    options.manager = shard_test::small_options(shards, std::size_t{4} << below(4), any_mode());
    options.manager.seed = random_();
    options.manager.time_source = &clock_;
    options.manager.routing = churn_ || below(2) == 0 ? Routing::keyed : Routing::balanced;
    if (churn_ || below(4) != 0) {
      auto& policy = options.manager.scaling.emplace();
      policy.max_shards = max_shards;
      policy.auto_scale = below(2) == 0;
      policy.cooldown = milliseconds{below(3) * 50};
      policy.warm_up = policy.scale_up_delay = nanoseconds{0};
      policy.scale_down_delay = milliseconds{below(3) * 100};
      policy.metrics_window = milliseconds{1 + below(50)};
    }
    auto& batch = options.batch;
    batch.min_events = 1 + below(8);
    batch.max_events = batch.min_events + below(10);
    batch.max_bytes = below(2) == 0 ? 4096 : 16 + below(100);
    batch.max_delay = milliseconds{std::array<int, 3>{0, 1, 10}[below(3)]};
    auto& retry = options.retry;
    retry.initial_backoff = milliseconds{std::array<int, 3>{0, 1, 20}[below(3)]};
    retry.max_backoff = milliseconds{100};
    retry.jitter = below(2) == 0 ? 0.25 : 0;
    retry.max_attempts = static_cast<std::uint32_t>(below(5));
    retry.max_elapsed = below(2) == 0 ? nanoseconds::max() : milliseconds{1 + below(50)};
    options.dead_letters = [this](const Batch& dead, const shard::DeadLetter& why) {
      bury(dead, why);
    };
    if (below(2) == 0) {
      options.listener = [](const shard::Notice&) {};
      options.notice_interval = milliseconds{below(2) * 10};
    }
    faults_ = std::array<std::uint64_t, 4>{0, 2, 5, 9}[below(4)];
    keeps_order_ = options.manager.routing == Routing::keyed || !options.manager.scaling;
    options_ = options;
    pipeline_ = std::make_unique<Pipeline>(
        options, [this](const Batch& given, const DeliveryContext& context) {
          return deliver(given, context);
        });
    shard::detail::PipelineTestAccess::set_random(*pipeline_, random_());
  }

  void step() {
    if (churn_ && below(4) == 0) {
      change_shards();
    }
    switch (below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
        for (auto n = 1 + below(8); n != 0; --n) ingest();
        break;
      case 4:
        push_directly();
        break;
      case 5:
      case 6:
        clock_.advance(below(3'000'000));
        break;
      case 7:
        clock_.advance(below(100'000'000));
        break;
      case 8:
        flush();
        break;
      case 9:
        change_shards();
        break;
      case 10:
        if (!churn_ || below(4) == 0) take_by_hand();
        break;
      case 11:
        run_until_nothing_is_due();
        break;
      default:
        run_once();
        break;
    }
    check();
  }

  /// With an adapter that works again and time that passes, nothing stays behind: no wake-up was lost.
  void recover() {
    faults_ = 0;
    for (int i = 0; i < 100'000; ++i) {
      run_until_nothing_is_due();
      const auto ledger = pipeline_->ledger();
      if (ledger.queued + ledger.batched == 0) return;
      const auto due = pipeline_->next_due();
      require(due != shard::Timestamp::max(), "events wait and nothing is due any more");
      clock_.set(due.nanoseconds);
    }
    FAIL("events wait for ever");
  }

  void close() {
    const auto within =
        std::array<nanoseconds, 3>{nanoseconds{0}, milliseconds{5}, hours{1}}[below(3)];
    if (within == nanoseconds{0}) no_attempts_ = true;
    const auto report = pipeline_->close(within);
    no_attempts_ = true;
    require(tally_.saw(pipeline_->ingest("late")) == Outcome::rejected_closed,
            "something was accepted after close");
    auto ledger = report.ledger;
    ledger.rejected_closed += 1;  // that one
    require(ledger == pipeline_->ledger(), "the report is not what the ledger says");
    require(report.ledger.balanced(), "the report is not balanced");
    require(report.ledger.queued == 0 && report.ledger.batched == 0, "something is under way");
    require(report.abandoned_threads == 0, "there is no thread to abandon");
    require(report.complete == report.undelivered.empty(), "complete means that nothing is left");

    // Exactly what is not terminal is in the report.
    const auto named = shard_test::undelivered_in(report);
    std::uint64_t undelivered = 0;
    for (const auto& [id, sequences] : named) {
      undelivered += sequences.size();
      for (const auto sequence : sequences) {
        require(!lanes_[id].terminal.contains(sequence), "a terminal event is reported");
      }
    }
    require(undelivered == report.ledger.abandoned_batched + report.ledger.abandoned_queued,
            "the ranges are not what was abandoned");
    require(undelivered + report.ledger.evicted == count(State::live),
            "what was neither delivered nor evicted is not what is reported");
    require(shard_test::undelivered_as(report, shard::Undelivered::possibly_delivered) == 0,
            "no attempt was under way");
    std::set<std::pair<std::uint32_t, std::uint64_t>> held;
    for (const auto& [id, lane] : lanes_) {
      for (const auto& [sequence, name] : lane.held) held.emplace(id, sequence);
    }
    std::set<std::pair<std::uint32_t, std::uint64_t>> batched;
    for (const auto& range : report.undelivered) {
      if (range.why != shard::Undelivered::abandoned_batched) continue;
      for (auto at = range.first.value; at <= range.last.value; ++at) {
        batched.emplace(range.shard.value, at);
      }
    }
    require(held == batched,
            "what the adapter has seen and is not terminal is not what is reported");
    for (const auto& shard : report.shards) {
      require(shard.ledger.balanced(), "a shard's part of the report is not balanced");
      const auto id = shard.shard.value;
      const auto here = named.find(id);
      const auto left = here == named.end() ? 0 : here->second.size();
      require(shard.ledger.accepted == lanes_[id].terminal.size() + shard.ledger.evicted + left,
              "a gap is not a counted eviction");
    }
    require(pipeline_->close(hours{1}).undelivered == report.undelivered, "another report");
    pipeline_.reset();
  }

 private:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }

  Backpressure any_mode() {
    switch (below(5)) {
      case 0:
        return Backpressure::drop_newest();
      case 1:
        return Backpressure::drop_oldest();
      case 2:
        return Backpressure::fail_producer();
      case 3:
        return Backpressure::sample(3);
      default:
        return Backpressure::block(nanoseconds{0});
    }
  }

  // What comes in.

  /// A payload that says where it comes from.
  std::string payload(Name name) {
    auto text = std::to_string(name.producer) + ":" + std::to_string(name.number) + ":";
    text.append(below(20), '.');
    return text;
  }
  static Name name_of(const shard::Event& event) {
    const auto text = std::string(event.text());
    const auto colon = text.find(':');
    require(colon != std::string::npos, "a payload was damaged");
    return {std::stoul(text), std::stoul(text.substr(colon + 1))};
  }
  Fate& fate(Name name) {
    require(name.producer < fates_.size() && name.number < fates_[name.producer].size(),
            "nobody sent this event");
    return fates_[name.producer][name.number];
  }
  Name next(std::size_t producer) {
    fates_[producer].emplace_back();
    return {producer, fates_[producer].size() - 1};
  }
  void sent(Name name, Outcome outcome) {
    tally_.saw(outcome);
    ++offered_;
    if (outcome == Outcome::accepted) fate(name).state = State::live;
  }

  void ingest() {
    const auto producer = below(kKeys + 1);
    const auto name = next(producer);
    const auto text = payload(name);
    if (producer == kKeys) {
      sent(name, pipeline_->ingest(text));
    } else {
      sent(name, pipeline_->ingest(text, Key{std::to_string(producer)}));
    }
  }
  void push_directly() {
    const auto ids = pipeline_->manager().shard_ids();
    const auto id = ids[below(ids.size())];
    const auto name = next(kKeys);
    const auto text = payload(name);
    auto outcome = Outcome::unrouted;
    if (below(2) == 0) {
      outcome = pipeline_->manager().shard(id)->try_push(text);
    } else {
      pipeline_->manager().with_shard(
          id, [&](shard::LockedShard& locked) { outcome = locked.try_push(text); });
    }
    sent(name, outcome);
  }

  // What comes out.

  Delivery deliver(const Batch& batch, const DeliveryContext& context) {
    require(!no_attempts_, "an attempt was made that must not be");
    require(!std::exchange(inside_, true), "two attempts at once");
    ++attempts_;
    retries_ += context.attempt > 1;
    require(!batch.empty() && batch.size() <= options_.batch.max_events, "a batch of a wrong size");
    require(batch.size() == 1 || batch.payload_bytes() <= options_.batch.max_bytes,
            "a batch of too many bytes");
    auto& lane = lanes_[batch.shard().value];
    const auto names = look_at(batch, lane);
    if (below(8) == 0) clock_.advance(below(4'000'000));
    inside_ = false;
    return answer(lane, names);
  }

  std::vector<std::pair<std::uint64_t, Name>> look_at(const Batch& batch, const Lane& lane) {
    std::vector<std::pair<std::uint64_t, Name>> names;
    for (const auto event : batch) {
      const auto name = name_of(event);
      auto& seen = fate(name);
      require(event.shard == batch.shard(), "events of two shards in a batch");
      require(seen.state == State::live, "a refused or terminal event was delivered");
      names.emplace_back(event.sequence.value, name);
      ++seen.seen;
    }
    for (std::size_t i = 1; i < names.size(); ++i) {
      require(names[i - 1].first < names[i].first, "a batch is not in order");
    }
    if (!lane.held.empty()) {
      require(names == lane.held, "a retried batch is not the same");
      return names;
    }
    require(!lane.last || *lane.last < names.front().first, "a batch came after a later one");
    for (const auto& [sequence, name] : names) {
      require(fate(name).seen == 1, "a new batch with an event that was seen before");
      if (keeps_order_ && name.producer < kKeys) {
        auto& latest = latest_[name.producer];
        require(!latest || *latest < name.number, "an event overtook an older one of its key");
        latest = name.number;
      }
    }
    for (const auto& [id, other] : lanes_) {
      for (const auto& [sequence, name] : other.held) {
        require(!keeps_order_ || name.producer == kKeys ||
                    std::none_of(names.begin(), names.end(),
                                 [producer = name.producer](const auto& n) {
                                   return n.second.producer == producer;
                                 }),
                "an event overtook one of its key that waits to be retried");
      }
    }
    return names;
  }

  Delivery answer(Lane& lane, const std::vector<std::pair<std::uint64_t, Name>>& names) {
    lane.last = names.back().first;
    lane.held = names;
    const auto some = [&] {
      std::vector<std::size_t> indices;
      for (std::size_t i = 0; i < names.size(); ++i) {
        if (below(3) == 0) indices.push_back(i);
      }
      return indices;
    };
    if (below(10) >= faults_) {
      settle(lane, names.size(), State::delivered);
      return Delivery::delivered();
    }
    switch (below(11)) {
      case 0: {
        const auto prefix = below(names.size() + 1);
        settle(lane, prefix, State::delivered);
        return Delivery::delivered(prefix, below(2) == 0 ? shard::Reason("part") : shard::Reason());
      }
      case 1: {
        const auto indices = some();
        expect_letters(lane, indices);
        settle(lane, lane.held.size(), State::delivered);
        return Delivery::delivered_except(indices, "some are bad");
      }
      case 2: {
        const auto indices = some();
        expect_letters(lane, indices);
        return Delivery::refuse(indices, "some are bad");
      }
      case 3:
        expect_all_letters(lane);
        return Delivery::refuse("all are bad");
      case 4:
        settle(lane, names.size(), State::possibly);
        return Delivery::unknown("who knows");
      case 5:
        throw shard::RetryableError("thrown");
      case 6:
        expect_all_letters(lane);
        throw shard::PermanentError("thrown");
      case 7:
        expect_all_letters(lane);
        throw std::logic_error("thrown");
      case 8:
        throw 7;
      case 9:
        throw std::bad_alloc();
      default:
        break;
    }
    return Delivery::retry("busy");
  }

  /// The first `events` that are held are terminal now.
  void settle(Lane& lane, std::size_t events, State state) {
    for (std::size_t i = 0; i < events; ++i) {
      const auto& [sequence, name] = lane.held[i];
      fate(name).state = state;
      lane.terminal.emplace(sequence, name);
    }
    lane.held.erase(lane.held.begin(), lane.held.begin() + static_cast<std::ptrdiff_t>(events));
  }
  void expect_letters(Lane& lane, const std::vector<std::size_t>& indices) {
    std::vector<std::pair<std::uint64_t, Name>> kept;
    std::size_t next_index = 0;
    for (std::size_t i = 0; i < lane.held.size(); ++i) {
      if (next_index < indices.size() && indices[next_index] == i) {
        letters_.push_back(lane.held[i]);
        ++next_index;
      } else {
        kept.push_back(lane.held[i]);
      }
    }
    lane.held = kept;
  }
  void expect_all_letters(Lane& lane) {
    letters_ = lane.held;
    lane.held.clear();
  }

  void bury(const Batch& batch, const shard::DeadLetter& why) {
    auto& lane = lanes_[batch.shard().value];
    if (why.cause != shard::DeadLetterCause::refused) {
      require(letters_.empty(), "letters are exhausted that were to be refused");
      require(why.cause != shard::DeadLetterCause::attempts_exhausted ||
                  why.attempts == options_.retry.max_attempts,
              "attempts are exhausted too soon");
      expect_all_letters(lane);
    }
    std::vector<std::pair<std::uint64_t, Name>> got;
    for (const auto event : batch) got.emplace_back(event.sequence.value, name_of(event));
    require(got == letters_, "other letters than those that failed");
    for (const auto& [sequence, name] : got) {
      require(fate(name).state == State::live, "a terminal event became a dead letter");
      fate(name).state = State::dead;
      lane.terminal.emplace(sequence, name);
    }
    letters_.clear();
  }

  // What the host does.

  void run_once() {
    const auto before = terminal();
    const auto settled = pipeline_->run_once();
    require(terminal() - before == settled, "run_once() counts wrong");
  }
  void run_until_nothing_is_due() {
    for (int i = 0; i < 100'000; ++i) {
      run_once();
      if (pipeline_->next_due() > pipeline_->manager().now()) {
        const bool waits = std::any_of(lanes_.begin(), lanes_.end(),
                                       [](const auto& lane) { return !lane.second.held.empty(); });
        require(waits || pipeline_->lag() == nanoseconds{0} ||
                    pipeline_->lag() < options_.batch.max_delay,
                "an event waits for longer than max_delay");
        return;
      }
    }
    FAIL("there is always something due");
  }
  void flush() {
    const auto within =
        std::array<nanoseconds, 3>{nanoseconds{0}, milliseconds{5}, hours{1}}[below(3)];
    const auto result = pipeline_->flush(within);
    const auto ledger = pipeline_->ledger();
    const auto left = ledger.queued + ledger.batched;
    if (result.status == FlushStatus::flushed) {
      require(left == 0, "flushed, and something is left");
    } else {
      require(result.status == FlushStatus::timed_out, "a flush that can only be late failed");
      require(result.outstanding == left, "outstanding is not what is left");
      require(within == nanoseconds{0} || left != 0 || within == milliseconds{5},
              "everything is terminal, there was time, and it is not flushed");
    }
  }
  void change_shards() {
    auto& manager = pipeline_->manager();
    const auto ids = manager.shard_ids();
    const auto id = ids[below(ids.size())];
    switch (below(7)) {
      case 0:
      case 1:
        static_cast<void>(pipeline_->scale_up(1 + below(2)));
        break;
      case 2:
        static_cast<void>(pipeline_->scale_down(1 + below(2)));
        break;
      case 3:
        static_cast<void>(manager.drain_shard(id));
        break;
      case 4:
        static_cast<void>(manager.add_shard_force());
        break;
      case 5:
        static_cast<void>(manager.activate_shard(id));
        break;
      default:
        pipeline_->set_scaling_mode(std::array{shard::ScalingMode::automatic,
                                               shard::ScalingMode::paused,
                                               shard::ScalingMode::dry_run}[below(3)]);
        break;
    }
  }
  /// A host may pop, and may remove a shard; what it gets so is returned.
  void take_by_hand() {
    auto& manager = pipeline_->manager();
    const auto ids = manager.shard_ids();
    const auto id = ids[below(ids.size())];
    EventBatch taken;
    if (below(2) == 0) {
      manager.shard(id)->pop_batch_into(taken, 1 + below(4));
    } else {
      static_cast<void>(manager.remove_shard(id, taken));
    }
    auto& lane = lanes_[id.value];
    for (const auto event : taken) {
      const auto name = name_of(event);
      require(fate(name).state == State::live, "a terminal event was returned");
      require(!lane.last || *lane.last < event.sequence.value, "returned out of order");
      lane.last = event.sequence.value;
      fate(name).state = State::returned;
      lane.terminal.emplace(event.sequence.value, name);
    }
  }

  // Books.

  [[nodiscard]] std::uint64_t count(State state) const {
    std::uint64_t events = 0;
    for (const auto& producer : fates_) {
      events += static_cast<std::uint64_t>(std::count_if(
          producer.begin(), producer.end(), [state](const Fate& f) { return f.state == state; }));
    }
    return events;
  }
  [[nodiscard]] std::uint64_t terminal() const {
    return count(State::delivered) + count(State::dead) + count(State::possibly);
  }
  void check() {
    const auto ledger = pipeline_->ledger();
    require(ledger.balanced(), "the ledger is not balanced");
    require(ledger.offered() == offered_, "offered is not what was offered");
    require(ledger.delivered == count(State::delivered), "delivered is wrong");
    require(ledger.dead_lettered == count(State::dead), "dead_lettered is wrong");
    require(ledger.possibly_delivered == count(State::possibly), "possibly_delivered is wrong");
    require(ledger.returned == count(State::returned), "returned is wrong");
    std::uint64_t held = 0;
    for (const auto& [id, lane] : lanes_) held += lane.held.size();
    require(ledger.batched == held, "batched is wrong");
    require(ledger == tally_ledger(ledger), "an outcome was counted as another");
    require(ledger.accepted - ledger.evicted - ledger.queued == terminal() + ledger.returned + held,
            "an event is nowhere");
    require(letters_.empty(), "letters did not reach their handler");
    for (const auto id : pipeline_->manager().shard_ids()) {
      require(pipeline_->manager().shard(id)->ledger().balanced(), "a shard is not balanced");
    }
    const auto stats = pipeline_->stats();
    require(stats.attempts == attempts_ && stats.retries == retries_, "attempts are wrong");
    require(stats.latency.count() == ledger.delivered, "not every delivered event has a latency");
    require((stats.oldest > nanoseconds{0}) <= (ledger.queued + ledger.batched != 0),
            "the oldest of no events is old");
  }
  /// The same ledger with what the calls answered.
  [[nodiscard]] Ledger tally_ledger(Ledger ledger) const {
    const auto seen = tally_.ledger();
    ledger.accepted = seen.accepted;
    ledger.dropped_newest = seen.dropped_newest;
    ledger.rejected_full = seen.rejected_full;
    ledger.rejected_timeout = seen.rejected_timeout;
    ledger.sampled_out = seen.sampled_out;
    ledger.rejected_closed = seen.rejected_closed;
    ledger.unrouted = seen.unrouted;
    ledger.rejected_invalid = seen.rejected_invalid;
    return ledger;
  }

  std::mt19937_64 random_;
  const bool churn_;
  ManualClock clock_;
  PipelineOptions options_;
  bool keeps_order_ = false;
  std::uint64_t faults_ = 0;  ///< of ten attempts

  std::array<std::vector<Fate>, kKeys + 1> fates_;
  std::array<std::optional<std::size_t>, kKeys> latest_;  ///< of each key, that came out
  std::map<std::uint32_t, Lane> lanes_;
  std::vector<std::pair<std::uint64_t, Name>> letters_;  ///< that the handler must get next
  Tally tally_;
  std::uint64_t offered_ = 0;
  std::uint64_t attempts_ = 0;
  std::uint64_t retries_ = 0;
  bool inside_ = false;
  bool no_attempts_ = false;

  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace

TEST_CASE("whatever the adapter answers and whenever, each event ends once, in order and counted",
          "[R-C1][R-F1][R-F7][R-G1][R-G3][R-G10][R-H2][R-I1][R-I2]") {
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    INFO("seed " << seed);
    World world(seed, World::Shards::any);
    const auto steps = 20 + seed % 100;
    for (std::uint64_t i = 0; i < steps; ++i) world.step();
    if (seed % 3 == 0) world.recover();
    world.close();
  }
}

TEST_CASE("keys keep their order and nothing stays behind while shards come and go all the time",
          "[R-D9][R-D15][R-E4][R-E5]") {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    INFO("seed " << seed);
    World world(seed, World::Shards::churn);
    for (int i = 0; i < 120; ++i) world.step();
    if (seed % 2 == 0) world.recover();
    world.close();
  }
}
