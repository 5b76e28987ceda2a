#include "simulation/world.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <utility>

#include "shard/detail/pipeline_core_impl.hpp"
#include "shard/pipeline.hpp"
#include "support/tally.hpp"

namespace shard_test {
namespace {

class World;

/// The machine, but for its scheduler: a thread that would sleep lets the world go on instead.
/// Threads: each belongs to the world that it simulates.
struct SimulatedPlatform : shard::detail::SystemPlatform {
  static inline thread_local World* world = nullptr;

  static void park(const Word& word, std::uint32_t expected) noexcept;
  static bool park_until(const Word& word, std::uint32_t expected, const shard::Clock& clock,
                         shard::Timestamp deadline) noexcept;
};

}  // namespace
}  // namespace shard_test

namespace shard::detail {

struct PipelineTestAccess {
  template <class Platform>
  static void set_random(BasicPipeline<Platform>& pipeline, std::uint64_t random) {
    pipeline.core_->workers_.front()->random = random;
  }
};

}  // namespace shard::detail

namespace shard_test {
namespace {

using shard::Backpressure;
using shard::BackpressureMode;
using shard::Batch;
using shard::Delivery;
using shard::DeliveryContext;
using shard::EventBatch;
using shard::FlushStatus;
using shard::HealthState;
using shard::Key;
using shard::Ledger;
using shard::Outcome;
using shard::PipelineOptions;
using shard::Routing;
using shard::ShardState;
using shard::SourceIdentity;
using shard::Timestamp;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using Pipeline = shard::BasicPipeline<SimulatedPlatform>;

constexpr std::size_t kKeys = 6;             ///< each has one producer
constexpr std::size_t kHandle = kKeys;       ///< sends by a Producer, without a key
constexpr std::size_t kAnybody = kKeys + 1;  ///< sends without a key
constexpr std::size_t kProducers = kAnybody + 1;
constexpr std::size_t kOrdered = kHandle + 1;  ///< these have an order to be kept
constexpr std::size_t kRingBytes = 4096;
constexpr std::size_t kMaxPayload = 2048;
constexpr std::size_t kInlineMax = 1024;
constexpr std::uint64_t kHour = 3'600'000'000'000;

/// An invariant does not hold.
struct Violation {
  const char* what;
};

/// What the world knows of one event.
enum class State : std::uint8_t { refused, live, delivered, dead, possibly, returned };
struct Fate {
  State state = State::refused;
  std::uint16_t size = 0;     ///< of the payload
  std::uint32_t seen = 0;     ///< attempts in which it was
  std::uint64_t sent_at = 0;  ///< what the pipeline's clock said before it was sent
};

/// Who sent it and its number there.
struct Name {
  std::size_t producer = 0;
  std::size_t number = 0;
  bool operator==(const Name&) const = default;
};
using Numbered = std::pair<std::uint64_t, Name>;  ///< and its sequence number

/// What the world knows of one shard.
struct Lane {
  std::vector<Numbered> held;         ///< must come again, exactly so
  std::optional<std::uint64_t> last;  ///< the highest sequence number that came out
  std::uint64_t stamped = 0;          ///< the latest timestamp that came out, + 1
  std::vector<bool> ended;            ///< by sequence number: terminal or returned
  std::size_t ends = 0;               ///< how many of them
};

class Time final : public shard::TimeSource {
 public:
  [[nodiscard]] std::uint64_t nanoseconds() const noexcept override { return now; }
  std::uint64_t now = 10 * kHour;
};

class World {
 public:
  explicit World(const Simulation& simulation)
      : random_(simulation.seed), traced_(simulation.traced) {
    churn_ = simulation.shards == ShardLife::by_seed ? below(3) == 0
                                                     : simulation.shards == ShardLife::churn;
    SimulatedPlatform::world = this;
    say([] { return std::string("made"); }, true);
    make_options();
    pipeline_ = std::make_unique<Pipeline>(options_, std::make_unique<Sink>(*this));
    shard::detail::PipelineTestAccess::set_random(*pipeline_, random_());
    producer_.emplace(pipeline_->producer());
    identity_ = pipeline_->identity();
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World() {
    leaving_ = true;
    reenters_ = false;
    producer_.reset();
    pipeline_.reset();
    SimulatedPlatform::world = nullptr;
  }

  void step() {
    ++totals.steps;
    if (traced_) {
      if (trace_.size() == Simulation::kTraced) trace_.pop_front();
      trace_.emplace_back();
    }
    if (churn_ && below(4) == 0) {
      change_shards();
    }
    switch (below(18)) {
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
        pass(below(3'000'000));
        break;
      case 7:
        pass(below(100'000'000));
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
        if (!closed_) run_until_nothing_is_due();
        break;
      case 12:
        something_rare();
        break;
      case 13:
        ingest_many();
        break;
      default:
        run_once();
        break;
    }
    check();
  }

  /// What comes after the last step.
  void end() {
    if (!closed_ && !end_of_time_ && below(3) == 0) recover();
    if (!closed_ && below(16) == 0) {
      say([] { return std::string("destroyed"); }, true);
      finish();
      return;
    }
    if (!closed_) close();
    check();
    finish();
  }

  SimulationTotals totals;

  /// A producer sleeps: `deadline` is when it gives up.
  void wait_instead(Timestamp deadline) noexcept {
    try {
      wait(deadline);
    } catch (const Violation& violation) {
      note(violation.what);
    } catch (...) {
      note("something else was thrown");
    }
  }
  void note(const char* violation) noexcept {
    if (violation_ == nullptr) violation_ = violation;
  }
  /// What was noted first is the cause.
  [[nodiscard]] const char* first_violation(const char* latest) const noexcept {
    return violation_ != nullptr ? violation_ : latest;
  }
  [[nodiscard]] std::vector<std::string> trace() const {
    std::vector<std::string> lines;
    for (const auto& lines_of_step : trace_) {
      lines.insert(lines.end(), lines_of_step.begin(), lines_of_step.end());
    }
    return lines;
  }

 private:
  /// The adapter. What it throws when an invariant is violated looks to the pipeline as any exception of an adapter,
  /// so the violation is noted besides.
  class Sink final : public shard::Adapter {
   public:
    explicit Sink(World& world) : world_(world) {}
    Sink(const Sink&) = delete;
    Sink& operator=(const Sink&) = delete;
    ~Sink() override { ++world_.sinks_destroyed_; }

    Delivery deliver(const Batch& batch, const DeliveryContext& context) override {
      return world_.deliver(batch, context);
    }
    bool flush(const DeliveryContext& /*context*/) override { return world_.flush_sink(); }
    void close(const DeliveryContext& /*context*/) override { world_.close_sink(); }

   private:
    World& world_;
  };

  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  template <class T, std::size_t N>
  T one_of(const std::array<T, N>& values) {
    return values[below(N)];
  }

  void require(bool condition, const char* what) {
    if (!condition) [[unlikely]] {
      note(what);
      throw Violation{what};
    }
  }

  /// A line of the trace: what the host does, or what happens in it. `text` is only called when there is a trace.
  template <class Text>
  void say(const Text& text, bool by_host = false) {
    if (!traced_) return;
    if (trace_.empty()) trace_.emplace_back();
    trace_.back().push_back("step " + std::to_string(totals.steps) + ", " +
                            std::to_string(clock() / 1'000) + " us" + (by_host ? ": " : ":   ") +
                            text());
  }

  // How it is made. Each random number is drawn in a statement of its own, as compilers differ in the order of arguments.

  void make_options() {
    auto& options = options_;
    auto& manager = options.manager;
    options.workers = 0;
    options.producer_id = 7;
    const auto max_shards = churn_ ? 4 : 1 + below(4);
    manager.shards = 1 + below(max_shards);
    manager.ring_capacity = std::size_t{4} << below(4);
    manager.ring_bytes = kRingBytes;
    manager.max_payload = kMaxPayload;
    manager.inline_max = kInlineMax;
    manager.max_key = 512;
    manager.backpressure = any_mode();
    manager.seed = random_();
    manager.time_source = &time_;
    manager.routing = churn_ || below(2) == 0 ? Routing::keyed : Routing::balanced;
    if (churn_ || below(4) != 0) {
      auto& policy = manager.scaling.emplace();
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
    batch.max_delay = milliseconds{one_of(std::array{0, 1, 10})};
    auto& retry = options.retry;
    retry.initial_backoff = milliseconds{one_of(std::array{0, 1, 20})};
    retry.max_backoff = milliseconds{100};
    retry.jitter = below(2) == 0 ? 0.25 : 0;
    retry.max_attempts = static_cast<std::uint32_t>(below(5));
    retry.max_elapsed = below(2) == 0 ? nanoseconds::max() : milliseconds{1 + below(50)};
    options.attempt_timeout =
        one_of(std::array<nanoseconds, 3>{milliseconds{10}, seconds{30}, nanoseconds::max()});
    options.dead_letters = [this](const Batch& dead, const shard::DeadLetter& why) {
      bury(dead, why);
    };
    if (below(2) == 0) {
      options.listener = [this](const shard::Notice&) {
        if (below(8) == 0) throw std::runtime_error("a listener");
      };
      options.notice_interval = milliseconds{below(2) * 10};
    } else {
      options.notice_interval = nanoseconds{0};
    }
    options.serialise_adapter = below(4) == 0;
    faults_ = one_of(std::array<std::uint64_t, 4>{0, 2, 5, 9});
    jumps_ = below(3) == 0;
    reenters_ = below(3) == 0;
    end_of_time_ = jumps_ && below(16) == 0;
    evicts_ = manager.backpressure.mode == BackpressureMode::drop_oldest ||
              manager.backpressure.mode == BackpressureMode::sample;
    keeps_order_ = manager.routing == Routing::keyed || !manager.scaling;
    began_ = time_.now;
  }
  Backpressure any_mode() {
    switch (below(6)) {
      case 0:
        return Backpressure::drop_newest();
      case 1:
        return Backpressure::drop_oldest();
      case 2:
        return Backpressure::fail_producer();
      case 3:
        return Backpressure::sample(3);
      case 4:
        return Backpressure::block(nanoseconds{0});
      default:
        return Backpressure::block(
            one_of(std::array<nanoseconds, 3>{milliseconds{1}, milliseconds{50}, hours{1}}));
    }
  }

  // Time.

  /// What the pipeline's clock says.
  [[nodiscard]] std::uint64_t clock() const noexcept {
    return std::min(time_.now > began_ ? time_.now - began_ : 0, Timestamp::max().nanoseconds);
  }
  void pass(std::uint64_t span) {
    time_.now += span;
    say([&] { return "time passes: " + std::to_string(span / 1'000) + " us"; }, true);
  }
  void jump() {
    if (!jumps_ || steady_) return;
    ++totals.jumps;
    latest_time_ = std::max(latest_time_, time_.now);
    switch (below(6)) {
      case 0:
        time_.now += kHour * (1 + below(100));
        break;
      case 1:
        time_.now -= std::min(time_.now, below(100'000'000));
        break;
      case 2:
        time_.now -= std::min(time_.now, kHour * (1 + below(3)));
        break;
      case 3:
        time_.now = began_;
        break;
      case 4:
        time_.now = 0;
        break;
      default:
        if (end_of_time_) {
          time_.now = began_ + Timestamp::max().nanoseconds - below(4);
        } else {
          time_.now += below(10) * 1'000'000'000;
        }
        break;
    }
    say([&] { return std::string("the clock jumps"); });
  }

  // What comes in.

  /// A payload that says where it comes from.
  std::string payload(Name name) {
    auto text = std::to_string(name.producer) + ":" + std::to_string(name.number) + ":";
    const auto kind = below(64);
    const auto size = kind == 0   ? below(kMaxPayload - 32)
                      : kind == 1 ? kMaxPayload + below(100)  // refused
                                  : below(20);
    text.append(size, '.');
    fates_[name.producer][name.number].size = static_cast<std::uint16_t>(text.size());
    return text;
  }
  Name next(std::size_t producer) {
    fates_[producer].emplace_back();
    fates_[producer].back().sent_at = clock();
    return {producer, fates_[producer].size() - 1};
  }
  /// \param limit  a longer payload is refused on this way
  void sent(Name name, Outcome outcome, std::size_t limit = kMaxPayload) {
    saw(outcome);
    auto& fate = fates_[name.producer][name.number];
    require(
        fate.size > limit ? outcome != Outcome::accepted : outcome != Outcome::payload_too_large,
        "a payload that is too large was taken, or another one was not");
    require(outcome != Outcome::timestamps_exhausted || end_of_time_, "time has ended too soon");
    if (outcome == Outcome::accepted) {
      require(!closed_ || closed_while_waiting_, "something was accepted after close");
      // It may have come out already, while its producer waited for room.
      if (fate.state == State::refused) become_live(fate);
      ++accepted_;
      ++totals.accepted;
    } else {
      require(fate.state == State::refused, "a refused event came out");
    }
  }
  void become_live(Fate& fate) {
    fate.state = State::live;
    ++count(State::live);
    live_bytes_ += fate.size;
  }
  void saw(Outcome outcome) {
    ++totals.offered;
    const auto invalid = tally_.answers().rejected_invalid;
    tally_.saw(outcome);
    require(tally_.answers().rejected_invalid == invalid || shard::is_invalid(outcome),
            "an outcome that nobody knows");
  }
  static SourceIdentity source_of(Name name) { return {name.producer + 1, name.number}; }

  /// While a call may wait for room others go on, on this thread. A thread of its own would keep the table that it read,
  /// and with it the shard that it waits for; here these handles do.
  class Calling {
   public:
    explicit Calling(World& world) : world_(world) {
      if (world.options_.manager.backpressure.mode == BackpressureMode::block) {
        for (const auto id : world.pipeline_->manager().shard_ids()) {
          handles_.push_back(world.pipeline_->manager().shard(id));
        }
      }
      ++world_.calling_;
    }
    Calling(const Calling&) = delete;
    Calling& operator=(const Calling&) = delete;
    ~Calling() { --world_.calling_; }

   private:
    World& world_;
    std::vector<std::optional<Pipeline::Manager::Shard>> handles_;
  };

  void ingest() {
    if (calling_ != 0) return;  // one that waits keeps its place in its producer's order
    const auto producer = below(kProducers);
    const auto name = next(producer);
    auto text = payload(name);
    const auto key = std::to_string(producer);
    const auto way = below(4);
    Outcome outcome{};
    {
      const Calling calling(*this);
      if (producer == kHandle) {
        outcome = way == 0   ? producer_->ingest(shard::Buffer::adopt(std::move(text)))
                  : way == 1 ? producer_->ingest(text, source_of(name))
                             : producer_->ingest(text);
      } else if (producer == kAnybody) {
        outcome = way == 0   ? pipeline_->ingest(shard::Buffer::adopt(std::move(text)))
                  : way == 1 ? pipeline_->ingest(text, source_of(name))
                             : pipeline_->ingest(text);
      } else {
        outcome = way == 0   ? pipeline_->ingest(shard::Buffer::adopt(std::move(text)), Key{key})
                  : way == 1 ? pipeline_->ingest(text, Key{key}, source_of(name))
                             : pipeline_->ingest(text, Key{key});
      }
    }
    say([&] { return "ingest " + show(name) + " -> " + std::string(to_string(outcome)); }, true);
    sent(name, outcome);
  }
  void ingest_many() {
    if (calling_ != 0) return;
    const auto events = 1 + below(20);
    const bool by_handle = below(3) == 0;
    std::vector<Name> names;
    std::vector<std::string> texts;
    std::vector<std::string> keys;
    for (std::size_t i = 0; i < events; ++i) {
      const auto producer = by_handle ? kHandle : below(kKeys);
      names.push_back(next(producer));
      texts.push_back(payload(names.back()));
      keys.push_back(std::to_string(producer));
    }
    std::vector<Outcome> outcomes(events);
    std::size_t accepted = 0;
    {
      const Calling calling(*this);
      if (by_handle) {
        const std::vector<shard::Bytes> views(texts.begin(), texts.end());
        accepted = producer_->ingest_batch(views, outcomes);
      } else {
        std::vector<shard::RawEvent> raw;
        for (std::size_t i = 0; i < events; ++i) {
          raw.push_back(pipeline_->manager().raw_event(texts[i], Key{keys[i]}));
        }
        accepted = pipeline_->ingest_raw_batch(raw, outcomes);
      }
    }
    say(
        [&] {
          return "ingest a batch of " + std::to_string(events) + " from " + show(names.front()) +
                 " -> " + std::to_string(accepted) + " accepted";
        },
        true);
    for (std::size_t i = 0; i < events; ++i) sent(names[i], outcomes[i]);
    require(accepted == static_cast<std::size_t>(
                            std::count(outcomes.begin(), outcomes.end(), Outcome::accepted)),
            "a batch call counts wrong");
  }
  void push_directly() {
    auto& manager = pipeline_->manager();
    const auto ids = manager.shard_ids();
    if (ids.empty()) return;
    const auto id = ids[below(ids.size())];
    const auto name = next(kAnybody);
    const auto text = payload(name);
    auto outcome = Outcome::unrouted;
    const bool by_handle = below(2) == 0;
    if (by_handle) {
      outcome = manager.shard(id)->try_push(text);
    } else if (!manager.with_shard(id, [&](auto& locked) { outcome = locked.try_push(text); })) {
      require(false, "a shard that is there was not found");
    }
    say(
        [&] {
          return "push " + show(name) + " to shard " + std::to_string(id.value) + " -> " +
                 std::string(to_string(outcome));
        },
        true);
    sent(name, outcome, by_handle ? kMaxPayload : kInlineMax);
  }

  /// Others go on while a producer sleeps.
  void wait(Timestamp deadline) {
    if (calling_ != 1 || inside_ != 0) note("somebody sleeps who must not");
    if (deadline == Timestamp::max() && !end_of_time_) note("somebody would sleep for ever");
    if (violation_ != nullptr || ++waits_ > 20) {  // it has waited for long
      waits_ = 0;
      time_.now = std::max(time_.now, began_ + deadline.nanoseconds);
      return;
    }
    ++totals.waits;
    say([&] { return std::string("a producer waits for room"); });
    switch (below(16)) {
      case 0:
        change_shards();
        break;
      case 1:
        take_by_hand();
        break;
      case 2:
        time_.now = std::max(time_.now, began_ + deadline.nanoseconds);
        break;
      case 3:
        flush();
        break;
      case 4:
        if (below(8) == 0) {
          close();
          closed_while_waiting_ = true;
        }
        break;
      case 5:
        jump();
        break;
      case 6:
      case 7:
      case 8:
        time_.now += below(20'000'000);
        break;
      default:
        run_once();
        break;
    }
  }

  // What comes out.

  [[nodiscard]] static std::string show(Name name) {
    return std::to_string(name.producer) + ":" + std::to_string(name.number);
  }
  /// Is it as it was sent?
  Name name_of(const shard::Event& event) {
    const auto text = event.text();
    Name name;
    std::size_t at = 0;
    for (auto* const part : {&name.producer, &name.number}) {
      require(at < text.size() && text[at] != ':', "a payload was damaged");
      for (; at < text.size() && text[at] != ':'; ++at) {
        require(text[at] >= '0' && text[at] <= '9', "a payload was damaged");
        *part = *part * 10 + static_cast<std::size_t>(text[at] - '0');
      }
      ++at;
    }
    require(name.producer < kProducers && name.number < fates_[name.producer].size(),
            "nobody sent this event");
    const auto& fate = fates_[name.producer][name.number];
    require(text.size() == fate.size && text.find_first_not_of('.', at) == std::string_view::npos,
            "a payload was damaged");
    require(event.key.has_value() == (name.producer < kKeys), "a key was lost, or found");
    if (event.key) {
      const auto key = event.key->bytes.text();
      require(key.size() == 1 && key.front() == static_cast<char>('0' + name.producer),
              "a key was damaged");
    }
    require(!event.source || *event.source == source_of(name), "a source was damaged");
    return name;
  }
  /// An event comes out for the first time.
  void stamped(Lane& lane, const shard::Event& event, Name name) {
    const auto time = event.timestamp.nanoseconds;
    require(time + 1 > lane.stamped, "timestamps do not grow strictly");
    // (While a producer waits for room the clock may step back; then it is stamped by that.)
    require(time >= fates_[name.producer][name.number].sent_at ||
                (jumps_ && options_.manager.backpressure.mode == BackpressureMode::block),
            "an event is older than its ingest call");
    lane.stamped = time + 1;
  }
  Fate& live(Name name) {
    auto& fate = fates_[name.producer][name.number];
    if (fate.state == State::refused && calling_ != 0) {
      become_live(fate);  // its call has not returned yet: it waits for others of its batch
    }
    require(fate.state == State::live, "a refused or terminal event came out");
    return fate;
  }
  void end_as(State state, Lane& lane, std::uint64_t sequence, Name name) {
    auto& fate = live(name);
    --count(State::live);
    ++count(state);
    fate.state = state;
    live_bytes_ -= fate.size;
    if (lane.ended.size() <= sequence) lane.ended.resize(sequence + 1);
    require(!lane.ended[sequence], "a sequence number ended twice");
    lane.ended[sequence] = true;
    ++lane.ends;
  }

  Delivery deliver(const Batch& batch, const DeliveryContext& context) {
    require(!no_attempts_, "an attempt was made that must not be");
    require(inside_ == 0, "two attempts at once");
    struct Inside {
      explicit Inside(int& count) : count_(count) { ++count_; }
      Inside(const Inside&) = delete;
      Inside& operator=(const Inside&) = delete;
      ~Inside() { --count_; }
      int& count_;
    };
    const Inside inside(inside_);
    ++attempts_;
    ++totals.attempts;
    retries_ += context.attempt > 1;
    require(!batch.empty() && batch.size() <= options_.batch.max_events, "a batch of a wrong size");
    require(batch.size() == 1 || batch.payload_bytes() <= options_.batch.max_bytes,
            "a batch of too many bytes");
    require(batch.identity() == identity_, "a batch of another pipeline");
    auto& lane = lanes_[batch.shard().value];
    look_at(batch, lane);
    say([&] {
      return "deliver shard " + std::to_string(batch.shard().value) + " #" +
             std::to_string(batch.first_sequence().value) + ".." +
             std::to_string(batch.last_sequence().value) + " (" + std::to_string(batch.size()) +
             "), attempt " + std::to_string(context.attempt);
    });
    take_time();
    if (reenters_ && below(8) == 0) reenter();
    return answer(lane);
  }

  void look_at(const Batch& batch, Lane& lane) {
    auto& names = names_;
    names.clear();
    const bool is_new = lane.held.empty();
    for (const auto event : batch) {
      const auto name = name_of(event);
      require(event.shard == batch.shard(), "events of two shards in a batch");
      auto& seen = live(name);
      names.emplace_back(event.sequence.value, name);
      ++seen.seen;
      if (is_new) stamped(lane, event, name);
    }
    for (std::size_t i = 1; i < names.size(); ++i) {
      require(names[i - 1].first < names[i].first, "a batch is not in order");
    }
    if (!is_new) {
      require(names == lane.held, "a retried batch is not the same");
      return;
    }
    require(!lane.last || *lane.last < names.front().first, "a batch came after a later one");
    for (const auto& [sequence, name] : names) {
      require(fates_[name.producer][name.number].seen == 1,
              "a new batch with an event that was seen before");
      if (keeps_order_ && name.producer < kOrdered) {
        auto& latest = latest_[name.producer];
        require(!latest || *latest < name.number, "an event overtook an older one of its key");
        latest = name.number;
      }
    }
    if (!keeps_order_) return;
    for (const auto& [id, other] : lanes_) {
      for (const auto& held : other.held) {
        const auto producer = held.second.producer;
        require(producer >= kOrdered || std::none_of(names.begin(), names.end(),
                                                     [producer](const auto& n) {
                                                       return n.second.producer == producer;
                                                     }),
                "an event overtook one of its key that waits to be retried");
      }
    }
  }

  /// An attempt takes its time, or hangs.
  void take_time() {
    const auto began = clock();
    switch (below(32)) {
      case 0:
      case 1:
      case 2:
      case 3:
        time_.now += below(4'000'000);
        break;
      case 4:
        time_.now += 1'000'000'000 * (1 + below(60));
        break;
      case 5:
        jump();
        break;
      default:
        return;
    }
    if (leaving_) return;  // nobody may call a pipeline that is being destroyed
    const auto health = pipeline_->health();
    const auto limit = options_.attempt_timeout;
    const bool stuck =
        limit != nanoseconds::max() && Timestamp{clock()} > Timestamp{began}.after(limit);
    totals.hangs += stuck;
    require(closing_ ? health.state == HealthState::closed
                     : (health.state == HealthState::stuck) == stuck,
            "health does not see that an attempt hangs, or sees what is not");
    require(health.busy_workers == 1, "who is in the adapter is not busy");
    say([&] { return "it takes its time" + std::string(stuck ? ", and hangs" : ""); });
  }

  /// The adapter, or a handler, calls the pipeline.
  void reenter() {
    if (leaving_) return;
    ++totals.reentries;
    say([&] { return std::string("from within:"); });
    switch (below(6)) {
      case 0:
        require(pipeline_->flush(hours{1}).status == FlushStatus::would_deadlock,
                "a flush from within does not say that it would deadlock");
        break;
      case 1:
        require(pipeline_->close(hours{1}).would_deadlock,
                "a close from within does not say that it would deadlock");
        break;
      case 2:
        require(pipeline_->run_once() == 0, "run_once() from within does something");
        break;
      case 3:
        if (!closed_) change_shards();
        break;
      default:
        if (calling_ == 0) ++ingested_within_;
        ingest();
        break;
    }
  }

  Delivery answer(Lane& lane) {
    lane.last = names_.back().first;
    // (Nothing below uses names_, as a call from within may have led here again.)
    lane.held = names_;
    const auto size = lane.held.size();
    const auto some = [&] {
      std::vector<std::size_t> indices;
      for (std::size_t i = 0; i < size; ++i) {
        if (below(3) == 0) indices.push_back(i);
      }
      return indices;
    };
    if (below(10) >= faults_) {
      settle(lane, size, State::delivered);
      say([] { return std::string("-> delivered"); });
      return Delivery::delivered();
    }
    ++totals.refusals;
    const auto kind = below(12);
    totals.throws += kind >= 5 && kind <= 9;
    static constexpr std::array kAnswers{"delivered a prefix",
                                         "delivered all but some",
                                         "refused some",
                                         "refused all",
                                         "unknown",
                                         "throws RetryableError",
                                         "throws PermanentError",
                                         "throws logic_error",
                                         "throws an int",
                                         "throws bad_alloc",
                                         "retry",
                                         "retry"};
    say([&] { return std::string("-> ") + kAnswers[kind]; });
    switch (kind) {
      case 0: {
        const auto prefix = below(size + 1);
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
        settle(lane, size, State::possibly);
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
      end_as(state, lane, lane.held[i].first, lane.held[i].second);
    }
    lane.held.erase(lane.held.begin(), lane.held.begin() + static_cast<std::ptrdiff_t>(events));
  }
  void expect_letters(Lane& lane, const std::vector<std::size_t>& indices) {
    std::vector<Numbered> kept;
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
    std::vector<Numbered> got;
    for (const auto event : batch) got.emplace_back(event.sequence.value, name_of(event));
    require(got == letters_, "other letters than those that failed");
    for (const auto& [sequence, name] : got) end_as(State::dead, lane, sequence, name);
    letters_.clear();
    say([&] {
      return std::to_string(batch.size()) + " dead letters of shard " +
             std::to_string(batch.shard().value) + ": " + std::string(to_string(why.cause));
    });
    if (reenters_ && below(8) == 0) reenter();
    if (below(16) == 0) throw std::runtime_error("a handler");
  }

  bool flush_sink() {
    require(!leaving_ || !closed_, "the adapter is flushed after close");
    require(sink_closes_ == 0, "the adapter is flushed after it was closed");
    ++sink_flushes_;
    const auto kind = faults_ == 0 ? 9 : below(10);
    sink_flushed_ = kind > 1;
    say([&] { return "the adapter flushes" + std::string(sink_flushed_ ? "" : ", and fails"); });
    if (kind == 0) throw std::runtime_error("no room");
    return sink_flushed_;
  }
  void close_sink() {
    require(++sink_closes_ == 1, "the adapter is closed twice");
    sink_closed_ = faults_ == 0 || below(8) != 0;
    say([&] { return "the adapter closes" + std::string(sink_closed_ ? "" : ", and fails"); });
    if (!sink_closed_) throw std::runtime_error("cannot close");
  }

  // What the host does.

  void run_once() { run_once(calling_ == 0); }
  void run_once(bool by_host) {
    const auto before = terminal();
    const auto settled = pipeline_->run_once();
    say([&] { return "run_once -> " + std::to_string(settled) + " settled"; }, by_host);
    require(terminal() - before == settled, "run_once() counts wrong");
  }
  void run_until_nothing_is_due() {
    for (int i = 0; i < 100'000; ++i) {
      run_once();
      if (Timestamp{clock()} == Timestamp::max()) return;  // nothing is later than now
      if (pipeline_->next_due() > pipeline_->now()) {
        const bool waits = std::any_of(lanes_.begin(), lanes_.end(),
                                       [](const auto& lane) { return !lane.second.held.empty(); });
        require(waits || pipeline_->lag() == nanoseconds{0} ||
                    pipeline_->lag() < options_.batch.max_delay,
                "an event waits for longer than max_delay");
        return;
      }
    }
    require(false, "there is always something due");
  }
  /// With an adapter that works again and time that passes, nothing stays behind: no wake-up was lost.
  void recover() {
    say([] { return std::string("recovery"); }, true);
    faults_ = 0;
    reenters_ = false;
    steady_ = true;
    time_.now = std::max(time_.now,
                         latest_time_);  // what was due at a time is due when it is that time again
    for (int i = 0; i < 100'000; ++i) {
      run_until_nothing_is_due();
      const auto ledger = pipeline_->ledger();
      if (ledger.queued + ledger.batched == 0) {
        check();
        return;
      }
      const auto due = pipeline_->next_due();
      require(due != Timestamp::max(), "events wait and nothing is due any more");
      time_.now = began_ + due.nanoseconds;
    }
    require(false, "events wait for ever");
  }

  void flush() {
    ++totals.flushes;
    const auto within =
        one_of(std::array<nanoseconds, 3>{nanoseconds{0}, milliseconds{5}, hours{1}});
    ingested_within_ = 0;
    const auto flushes = sink_flushes_;
    const auto result = pipeline_->flush(within);
    const auto ledger = pipeline_->ledger();
    const auto left = ledger.queued + ledger.batched;
    say(
        [&] {
          return "flush within " + std::to_string(within.count() / 1'000) + " us -> " +
                 std::string(to_string(result.status)) + ", " + std::to_string(result.outstanding) +
                 " outstanding";
        },
        calling_ == 0);
    if (closed_) {
      require(result.status == FlushStatus::closed, "a flush of what is closed");
      return;
    }
    switch (result.status) {
      case FlushStatus::flushed:
      case FlushStatus::adapter_failed:
        require(left <= ingested_within_, "flushed, and something is left");
        require(sink_flushes_ > flushes, "flushed, and the adapter was not");
        require((result.status == FlushStatus::flushed) == sink_flushed_,
                "flushed as the adapter was not");
        break;
      case FlushStatus::timed_out:
        require(result.outstanding <= left && result.outstanding + ingested_within_ >= left,
                "outstanding is not what is left");
        require(within == nanoseconds{0} || left != 0 || within == milliseconds{5} || jumps_,
                "everything is terminal, there was time, and it is not flushed");
        break;
      default:
        require(false, "a flush that can only be late failed");
    }
  }

  void change_shards() {
    ++totals.changes;
    auto& manager = pipeline_->manager();
    const auto ids = manager.shard_ids();
    const auto id = ids[below(ids.size())];
    const auto kind = below(7);
    const auto shards = 1 + below(2);
    const auto tell = [&](const char* what, bool done) {
      say(
          [&] {
            return std::string(what) + " (shard " + std::to_string(id.value) + ") -> " +
                   (done ? "done" : "refused");
          },
          calling_ == 0 && inside_ == 0);
      require(!done || !closed_, "a shard was changed after close");
    };
    switch (kind) {
      case 0:
      case 1: {
        const auto report = pipeline_->scale_up(shards);
        require(report.added.size() <= shards && (report.added.size() == shards || report.error),
                "less was added than asked for, and nobody says why");
        tell("scale up", !report.added.empty());
        break;
      }
      case 2: {
        const auto report = pipeline_->scale_down(shards);
        require(report.draining.size() <= shards, "more was removed than asked for");
        tell("scale down", !report.draining.empty());
        break;
      }
      case 3:
        tell("drain", manager.drain_shard(id).has_value());
        break;
      case 4:
        tell("add", manager.add_shard_force().has_value());
        break;
      case 5:
        tell("activate", manager.activate_shard(id).has_value() && !closed_);
        break;
      default:
        pipeline_->set_scaling_mode(
            one_of(std::array{shard::ScalingMode::automatic, shard::ScalingMode::paused,
                              shard::ScalingMode::dry_run}));
        break;
    }
  }
  /// A host may pop, and may remove a shard; what it gets so is returned.
  void take_by_hand() {
    auto& manager = pipeline_->manager();
    const auto ids = manager.shard_ids();
    const auto id = ids[below(ids.size())];
    EventBatch taken;
    const bool pops = below(2) == 0;
    if (pops) {
      manager.shard(id)->pop_batch_into(taken, 1 + below(4));
    } else {
      static_cast<void>(manager.remove_shard(id, taken));
    }
    auto& lane = lanes_[id.value];
    for (const auto event : taken) {
      const auto name = name_of(event);
      static_cast<void>(live(name));
      require(!lane.last || *lane.last < event.sequence.value, "returned out of order");
      stamped(lane, event, name);
      lane.last = event.sequence.value;
      end_as(State::returned, lane, event.sequence.value, name);
    }
    say(
        [&] {
          return std::string(pops ? "pop from" : "remove") + " shard " + std::to_string(id.value) +
                 " -> " + std::to_string(taken.size()) + " returned";
        },
        calling_ == 0);
  }
  void something_rare() {
    switch (below(4)) {
      case 0:
        say([] { return std::string("a jump"); }, true);
        jump();
        break;
      case 1:
        if (!closed_ && below(16) == 0) {
          ++totals.closes;
          close();
        }
        break;
      case 2:
        faults_ = one_of(std::array<std::uint64_t, 4>{0, 2, 5, 9});
        break;
      default:
        run_once();
        break;
    }
  }

  void close() {
    const auto within =
        one_of(std::array<nanoseconds, 3>{nanoseconds{0}, milliseconds{5}, hours{1}});
    say([&] { return "close within " + std::to_string(within.count() / 1'000) + " us"; },
        calling_ == 0);
    if (within == nanoseconds{0}) no_attempts_ = true;
    closing_ = true;
    const auto report = pipeline_->close(within);
    closed_ = no_attempts_ = true;
    require(report.ledger == pipeline_->ledger(), "the report is not what the ledger says");
    require(report.ledger.balanced(), "the report is not balanced");
    require(report.ledger.queued == 0 && report.ledger.batched == 0, "something is under way");
    require(report.abandoned_threads == 0, "there is no thread to abandon");
    require(sink_closes_ == 1 || within == nanoseconds{0} || jumps_ || sink_closes_ == 0,
            "the adapter was not closed once");
    require(report.complete ==
                (report.undelivered.empty() && sink_closes_ == 1 && sink_flushed_ && sink_closed_),
            "complete means that nothing is left, and that the adapter was flushed and closed");
    require(report.took >= nanoseconds{0}, "closing took less than no time");

    // Exactly what is not terminal is in the report.
    std::map<std::uint32_t, std::uint64_t> left;
    std::set<std::pair<std::uint32_t, std::uint64_t>> named;
    std::set<std::pair<std::uint32_t, std::uint64_t>> batched;
    for (const auto& range : report.undelivered) {
      require(range.first <= range.last, "a range ends before it begins");
      require(range.why != shard::Undelivered::possibly_delivered, "no attempt was under way");
      const auto& lane = lanes_[range.shard.value];
      for (auto at = range.first.value; at <= range.last.value; ++at) {
        require(named.emplace(range.shard.value, at).second, "an event is reported twice");
        require(at >= lane.ended.size() || !lane.ended[at], "a terminal event is reported");
        if (range.why == shard::Undelivered::abandoned_batched) {
          batched.emplace(range.shard.value, at);
        }
        ++left[range.shard.value];
      }
    }
    require(named.size() == report.ledger.abandoned_batched + report.ledger.abandoned_queued,
            "the ranges are not what was abandoned");
    // What a batch call that waits has pushed already is known when it returns.
    require(calling_ != 0 || named.size() + report.ledger.evicted == count(State::live),
            "what was neither delivered nor evicted is not what is reported");
    std::set<std::pair<std::uint32_t, std::uint64_t>> held;
    for (const auto& [id, lane] : lanes_) {
      for (const auto& entry : lane.held) held.emplace(id, entry.first);
    }
    require(held == batched,
            "what the adapter has seen and is not terminal is not what is reported");
    for (const auto& shard : report.shards) {
      require(shard.ledger.balanced(), "a shard's part of the report is not balanced");
      const auto id = shard.shard.value;
      require(shard.ledger.accepted == lanes_[id].ends + shard.ledger.evicted + left[id],
              "a gap is not a counted eviction");
    }
    const auto again = pipeline_->close(hours{1});
    require(again.undelivered == report.undelivered && again.ledger == report.ledger,
            "another report");
    at_close_ = report.ledger;
  }
  void finish() {
    totals.delivered += count(State::delivered);
    leaving_ = true;
    no_attempts_ = no_attempts_ || closed_;
    producer_.reset();
    pipeline_.reset();
    require(sinks_destroyed_ == 1, "the adapter was not destroyed");
    require(sink_closes_ <= 1, "the adapter was closed twice");
    require(violation_ == nullptr, violation_);
  }

  // Books.

  [[nodiscard]] std::uint64_t& count(State state) noexcept {
    return counts_[static_cast<std::size_t>(state)];
  }
  [[nodiscard]] std::uint64_t terminal() noexcept {
    return count(State::delivered) + count(State::dead) + count(State::possibly);
  }
  void check() {
    require(violation_ == nullptr, violation_);
    waits_ = 0;
    closed_while_waiting_ = false;
    const auto ledger = pipeline_->ledger();
    require(ledger.balanced(), "the ledger is not balanced");
    require(ledger == tally_ledger(ledger), "an outcome was counted as another");
    require(ledger.delivered == count(State::delivered), "delivered is wrong");
    require(ledger.dead_lettered == count(State::dead), "dead_lettered is wrong");
    require(ledger.possibly_delivered == count(State::possibly), "possibly_delivered is wrong");
    require(ledger.returned == count(State::returned), "returned is wrong");
    check_never_down(ledger);
    const auto stats = pipeline_->stats();
    require(stats.attempts == attempts_ && stats.retries == retries_, "attempts are wrong");
    require(stats.latency.count() == ledger.delivered, "not every delivered event has a latency");
    require(letters_.empty(), "letters did not reach their handler");
    if (closed_) {
      require(ledger.abandoned_queued + ledger.abandoned_batched ==
                  at_close_.abandoned_queued + at_close_.abandoned_batched,
              "something became of an event after close");
      return;
    }
    std::uint64_t held = 0;
    std::uint64_t held_bytes = 0;
    for (const auto& [id, lane] : lanes_) {
      held += lane.held.size();
      for (const auto& entry : lane.held) {
        held_bytes += fates_[entry.second.producer][entry.second.number].size;
      }
    }
    require(ledger.batched == held, "batched is wrong");
    require(ledger.accepted - ledger.evicted - ledger.queued == terminal() + ledger.returned + held,
            "an event is nowhere");
    require((stats.oldest > nanoseconds{0}) <= (ledger.queued + ledger.batched != 0),
            "the oldest of no events is old");
    require(stats.oldest >= nanoseconds{0}, "the oldest event is from the future");
    require(evicts_ || ledger.evicted == 0, "something was evicted that must not be");
    check_shards(ledger, evicts_ ? 0 : live_bytes_ - held_bytes);
  }
  void check_shards(const Ledger& ledger, std::uint64_t queued_bytes) {
    const auto& manager = pipeline_->manager();
    const auto ids = manager.shard_ids();
    require(queued_bytes <= ids.size() * kRingBytes,
            "more bytes are queued than there is room for");
    std::size_t active = 0;
    std::size_t provisioning = 0;
    std::size_t queued = 0;
    for (const auto id : ids) {
      const auto shard = manager.shard(id);
      const auto state = manager.shard_state(id);
      require(shard && state, "a shard that is there was not found");
      require(shard->ledger().balanced(), "a shard is not balanced");
      require(shard->len() <= options_.manager.ring_capacity - 1 && shard->fill_ratio() <= 1.0,
              "a shard is more than full");
      queued += shard->len();
      active += *state == ShardState::active;
      provisioning += *state == ShardState::provisioning;
      require(shard->is_empty() || *state != ShardState::stopped,
              "something is in a stopped shard");
    }
    require(queued == ledger.queued, "queued is wrong");
    if (const auto& policy = options_.manager.scaling) {
      require(active >= policy->min_shards && active + provisioning <= policy->max_shards,
              "there are more shards than allowed, or fewer");
    } else {
      require(active == options_.manager.shards, "a fixed number of shards changed");
    }
  }
  void check_never_down(const Ledger& ledger) {
    for (const auto& [name, number] : shard::detail::kLedgerCounts) {
      const auto member = number;
      require(ledger.*member >= before_.*member || member == &Ledger::queued ||
                  member == &Ledger::batched,
              "a counter went down");
    }
    before_ = ledger;
  }
  /// The same ledger with what the calls answered.
  [[nodiscard]] Ledger tally_ledger(Ledger ledger) const {
    const auto& told = tally_.answers();
    ledger.accepted = told.accepted;
    ledger.dropped_newest = told.dropped_newest;
    ledger.rejected_full = told.rejected_full;
    ledger.rejected_timeout = told.rejected_timeout;
    ledger.sampled_out = told.sampled_out;
    ledger.rejected_closed = told.rejected_closed;
    ledger.unrouted = told.unrouted;
    ledger.rejected_invalid = told.rejected_invalid;
    return ledger;
  }

  std::mt19937_64 random_;
  const bool traced_;
  bool churn_ = false;
  Time time_;
  std::uint64_t began_ = 0;
  std::uint64_t latest_time_ = 0;  ///< before the clock jumped
  PipelineOptions options_;
  bool keeps_order_ = false;
  bool evicts_ = false;
  bool jumps_ = false;
  bool reenters_ = false;
  bool steady_ = false;       ///< the clock jumps no more
  bool end_of_time_ = false;  ///< the clock reaches Timestamp::max()
  std::uint64_t faults_ = 0;  ///< of ten attempts

  std::array<std::vector<Fate>, kProducers> fates_;
  std::array<std::uint64_t, 6> counts_{};                    ///< by State
  std::uint64_t live_bytes_ = 0;                             ///< payloads of events that are live
  std::array<std::optional<std::size_t>, kOrdered> latest_;  ///< of each key, that came out
  std::map<std::uint32_t, Lane> lanes_;
  std::vector<Numbered> names_;    ///< of the batch that is delivered now
  std::vector<Numbered> letters_;  ///< that the handler must get next
  Tally tally_;
  Ledger before_;
  Ledger at_close_;
  std::uint64_t accepted_ = 0;
  std::uint64_t attempts_ = 0;
  std::uint64_t retries_ = 0;
  std::uint64_t ingested_within_ = 0;
  std::uint64_t sink_flushes_ = 0;
  int sink_closes_ = 0;
  int sinks_destroyed_ = 0;
  int inside_ = 0;   ///< the adapter
  int calling_ = 0;  ///< ingest calls that may wait
  int waits_ = 0;
  bool sink_flushed_ = true;
  bool sink_closed_ = false;
  bool no_attempts_ = false;
  bool closing_ = false;
  bool closed_ = false;
  bool closed_while_waiting_ = false;
  bool leaving_ = false;
  const char* violation_ = nullptr;
  std::deque<std::vector<std::string>> trace_;

  std::unique_ptr<Pipeline> pipeline_;
  std::optional<Pipeline::Producer> producer_;
  shard::Identity identity_;
};

void SimulatedPlatform::park(const Word& /*word*/, std::uint32_t /*expected*/) noexcept {
  std::abort();  // a lock is held by nobody else, as there is nobody else
}

bool SimulatedPlatform::park_until(const Word& word, std::uint32_t expected,
                                   const shard::Clock& clock, Timestamp deadline) noexcept {
  if (clock.now() >= deadline) return false;
  if (word.load(std::memory_order_relaxed) == expected) world->wait_instead(deadline);
  return clock.now() < deadline;
}

}  // namespace

SimulationTotals& SimulationTotals::operator+=(const SimulationTotals& other) noexcept {
  steps += other.steps;
  offered += other.offered;
  accepted += other.accepted;
  delivered += other.delivered;
  attempts += other.attempts;
  refusals += other.refusals;
  throws += other.throws;
  hangs += other.hangs;
  reentries += other.reentries;
  waits += other.waits;
  jumps += other.jumps;
  changes += other.changes;
  flushes += other.flushes;
  closes += other.closes;
  return *this;
}

std::string to_string(const SimulationTotals& totals) {
  std::string text;
  const auto add = [&text](std::uint64_t count, const char* what) {
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + what;
  };
  add(totals.steps, "steps");
  add(totals.offered, "events offered");
  add(totals.accepted, "accepted");
  add(totals.delivered, "delivered");
  add(totals.attempts, "attempts");
  add(totals.refusals, "faults");
  add(totals.throws, "of them thrown");
  add(totals.hangs, "hangs");
  add(totals.reentries, "calls from within");
  add(totals.waits, "waits for room");
  add(totals.jumps, "jumps of the clock");
  add(totals.changes, "changes of shards");
  add(totals.flushes, "flushes");
  add(totals.closes, "early closes");
  return text;
}

std::optional<SimulationFailure> simulate(const Simulation& simulation, SimulationTotals& totals) {
  World world(simulation);
  std::optional<SimulationFailure> failure;
  try {
    for (std::size_t i = 0; i < simulation.steps; ++i) world.step();
    world.end();
  } catch (const Violation& violation) {
    failure = {world.first_violation(violation.what), world.totals.steps, world.trace()};
  } catch (const std::exception& error) {
    failure = {std::string("a call has thrown: ") + error.what(), world.totals.steps,
               world.trace()};
  }
  totals += world.totals;
  return failure;
}

}  // namespace shard_test
