// Random lifecycle calls, ingests, pops and ticks against a model that knows what should be where.

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "shard/manager.hpp"
#include "support/books.hpp"
#include "support/elastic.hpp"
#include "support/manual_clock.hpp"

namespace {

using shard::Backpressure;
using shard::EventBatch;
using shard::Key;
using shard::Manager;
using shard::Outcome;
using shard::Routing;
using shard::ScalingError;
using shard::ShardId;
using shard::ShardState;
using shard_test::ManualClock;

constexpr std::size_t kKeys = 200;
constexpr std::size_t kSlots = 4096;
constexpr std::size_t kMin = 2;
constexpr std::size_t kMax = 7;

/// A manager, and what is known of it from the answers to the calls alone.
class Model {
 public:
  Model(Routing routing, Backpressure mode, std::uint64_t seed)
      : random_(seed),
        routing_(routing),
        clock_(1),
        manager_(options(routing, mode, clock_)),
        next_in_(kKeys, 0),
        last_out_(kKeys, -1) {
    for (const auto id : manager_.shard_ids()) states_[id] = ShardState::active;
  }

  void run(std::size_t steps) {
    for (std::size_t step = 0; step < steps; ++step) {
      CAPTURE(step);
      switch (below(24)) {
        case 0:
          add();
          break;
        case 1:
        case 2:
          activate();
          break;
        case 3:
          drain();
          break;
        case 4:
          remove();
          break;
        case 5:
          finalize();
          break;
        case 6:
          remove_stopped();
          break;
        case 7:
          tick();
          break;
        case 8:
        case 9:
        case 10:
        case 11:
          pop();
          break;
        case 12:
          ingest_batch();
          break;
        default:
          ingest();
      }
      if (step % 50 == 0) check();
    }
    finish();
  }

 private:
  static shard::ManagerOptions options(Routing routing, Backpressure mode,
                                       const ManualClock& clock) {
    auto options = shard_test::elastic_options(routing, 3, kMin, kMax, &clock, 64);
    options.ring_bytes = 8192;
    options.backpressure = mode;
    options.scaling->cooldown = std::chrono::milliseconds{50};
    return options;
  }

  [[nodiscard]] std::size_t below(std::size_t bound) { return random_() % bound; }
  [[nodiscard]] std::size_t count(ShardState state) const {
    return static_cast<std::size_t>(std::count_if(
        states_.begin(), states_.end(), [state](const auto& of) { return of.second == state; }));
  }
  /// One that there is, mostly; else one that is gone or never was.
  [[nodiscard]] ShardId any() {
    if (below(10) == 0) return ShardId{static_cast<std::uint32_t>(below(next_id_ + 3))};
    return std::next(states_.begin(), static_cast<std::ptrdiff_t>(below(states_.size())))->first;
  }
  [[nodiscard]] std::optional<ShardState> state(ShardId id) const {
    const auto found = states_.find(id);
    return found == states_.end() ? std::nullopt : std::optional(found->second);
  }
  void changed() { last_change_ = now_; }
  void pass(std::uint64_t ns) {
    now_ += ns;
    clock_.advance(ns);
  }

  // ------------------------------------------------------------------ lifecycle

  void add() {
    pass(below(2) * 30'000'000);
    const bool force = below(3) == 0;
    const auto done = force ? manager_.add_shard_force() : manager_.add_shard();
    if (count(ShardState::active) + count(ShardState::provisioning) >= kMax) {
      return refused(done, ScalingError::at_max);
    }
    if (!force && last_change_ && now_ < *last_change_ + 50'000'000) {
      return refused(done, ScalingError::cooldown);
    }
    REQUIRE(done);
    REQUIRE(*done == ShardId{next_id_});
    ++next_id_;
    states_[*done] = ShardState::provisioning;
    changed();
  }

  void activate() {
    const auto id = any();
    const auto before = routes();
    const auto done = manager_.activate_shard(id);
    if (!state(id)) return refused(done, ScalingError::unknown_shard);
    if (state(id) != ShardState::active && state(id) != ShardState::provisioning) {
      return refused(done, ScalingError::wrong_state);
    }
    REQUIRE(done);
    const bool was_active = state(id) == ShardState::active;
    states_[id] = ShardState::active;
    const auto after = routes();
    if (was_active || routing_ == Routing::balanced) {
      REQUIRE(after == before);
    } else {
      // About 1/n of the keys move, and all of them to the newcomer.
      std::size_t moved = 0;
      for (std::size_t slot = 0; slot < kSlots; ++slot) {
        if (after[slot] == before[slot]) continue;
        REQUIRE(after[slot] == id);
        ++moved;
      }
      REQUIRE(moved == kSlots / count(ShardState::active));
    }
    if (!was_active) changed();
  }

  void drain() {
    const auto id = any();
    const auto before = routes();
    const auto done = manager_.drain_shard(id);
    if (!state(id)) return refused(done, ScalingError::unknown_shard);
    if (state(id) != ShardState::active) return refused(done, ScalingError::wrong_state);
    if (count(ShardState::active) <= kMin) return refused(done, ScalingError::at_min);
    REQUIRE(done);
    states_[id] = ShardState::draining;
    check_left(before, id);
    changed();
  }

  void remove() {
    const auto id = any();
    const auto before = routes();
    const auto handle = manager_.shard(id);
    const auto queued = handle ? handle->len() : 0;
    EventBatch batch;
    const auto done = manager_.remove_shard(id, batch);
    took(batch);
    if (!state(id)) return refused(done, ScalingError::unknown_shard);
    if (state(id) == ShardState::active) {
      if (count(ShardState::active) <= kMin) return refused(done, ScalingError::at_min);
      check_left(before, id);
      states_[id] = ShardState::draining;
      changed();
    }
    if (!done) {
      REQUIRE(done.error() == ScalingError::fenced);
      REQUIRE(routing_ == Routing::keyed);
      REQUIRE(state(id) == ShardState::draining);
      REQUIRE(handle->len() == queued - batch.size());
      return;
    }
    REQUIRE(batch.size() == queued);
    REQUIRE(handle->try_push("late") == Outcome::rejected_closed);
    tally_.saw(Outcome::rejected_closed);
    states_.erase(id);
    changed();
  }

  void finalize() {
    std::vector<ShardId> may;
    for (const auto& [id, state] : states_) {
      if (state == ShardState::draining && manager_.shard(id)->is_empty()) may.push_back(id);
    }
    const auto done = manager_.finalize_draining();
    REQUIRE(done <= may.size());
    if (routing_ == Routing::balanced) REQUIRE(done == may.size());
    std::size_t stopped = 0;
    for (const auto id : may) {
      if (manager_.shard_state(id) != ShardState::stopped) continue;
      states_[id] = ShardState::stopped;
      ++stopped;
    }
    REQUIRE(stopped == done);
  }

  void remove_stopped() {
    REQUIRE(manager_.remove_stopped_shards() == count(ShardState::stopped));
    if (count(ShardState::stopped) != 0) changed();
    std::erase_if(states_, [](const auto& of) { return of.second == ShardState::stopped; });
  }

  /// The end of a metrics window: balanced slots move, drained shards go.
  void tick() {
    pass(100'000'000);
    const auto before = routes();
    std::vector<ShardId> gone;
    for (const auto& [id, state] : states_) {
      if (state == ShardState::stopped) gone.push_back(id);
    }
    const auto report = manager_.run_scaling();
    REQUIRE((report.added.empty() && report.draining.empty()));
    REQUIRE(report.removed >= gone.size());
    for (auto it = states_.begin(); it != states_.end();) {
      if (manager_.shard_state(it->first)) {
        ++it;
        continue;
      }
      REQUIRE((it->second == ShardState::stopped || it->second == ShardState::draining));
      it = states_.erase(it);
    }
    if (report.removed != 0) changed();
    const auto after = routes();
    std::size_t moved = 0;
    for (std::size_t slot = 0; slot < kSlots; ++slot)
      moved += after[slot] != before[slot] ? 1U : 0U;
    REQUIRE(moved == report.slots_moved);
    REQUIRE(moved <= (routing_ == Routing::balanced ? kSlots / 32 : 0));
  }

  // ------------------------------------------------------------------ events

  [[nodiscard]] static std::string payload(std::size_t key, std::int64_t number) {
    return std::to_string(key) + ":" + std::to_string(number);
  }

  void ingest() {
    const auto key = below(kKeys);
    const auto name = "key-" + std::to_string(key);
    const auto to = manager_.select_shard_by_hash(manager_.hash(name));
    REQUIRE(to);
    REQUIRE(state(*to) == ShardState::active);
    const auto handle = *manager_.shard(*to);
    const auto accepted = handle.ledger().accepted;
    const auto outcome = tally_.saw(manager_.ingest(payload(key, next_in_[key]), Key{name}));
    if (outcome == Outcome::accepted) {
      ++next_in_[key];
      REQUIRE(handle.ledger().accepted == accepted + 1);  // there and nowhere else
    } else {
      REQUIRE(handle.ledger().accepted == accepted);
    }
  }

  void ingest_batch() {
    std::vector<std::size_t> keys;
    std::vector<std::string> names;
    std::vector<std::string> payloads;
    auto next = next_in_;
    for (std::size_t i = 0; i < 40; ++i) {
      keys.push_back(below(kKeys));
      names.push_back("key-" + std::to_string(keys[i]));
      payloads.push_back(payload(keys[i], next[keys[i]]++));
    }
    std::vector<shard::RawEvent> events;
    for (std::size_t i = 0; i < 40; ++i) {
      events.push_back(manager_.raw_event(payloads[i], Key{names[i]}));
    }
    std::vector<Outcome> outcomes(events.size());
    manager_.ingest_raw_batch(events, outcomes);
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      tally_.saw(outcomes[i]);
      if (outcomes[i] == Outcome::accepted) {
        // What is refused leaves a gap in the numbers of its key, and is never taken in later.
        next_in_[keys[i]] = std::stoll(payloads[i].substr(payloads[i].find(':') + 1)) + 1;
      }
    }
  }

  /// From a shard by chance, and not always all.
  void pop() {
    const auto id = any();
    const auto handle = manager_.shard(id);
    REQUIRE(handle.has_value() == state(id).has_value());
    if (!handle) return;
    EventBatch batch;
    handle->pop_batch_into(batch, below(4) == 0 ? 1 + below(20) : 1000);
    took(batch);
  }

  void took(const EventBatch& batch) {
    for (const auto event : batch) {
      const std::string text(event.text());
      const auto key = std::stoul(text);
      const auto number = std::stoll(text.substr(text.find(':') + 1));
      if (routing_ == Routing::keyed) {
        CAPTURE(text, last_out_[key]);
        REQUIRE(number > last_out_[key]);
        last_out_[key] = number;
      } else {
        REQUIRE(seen_.insert({key, number}).second);
      }
      ++taken_;
    }
  }

  // ------------------------------------------------------------------ checks

  template <class Done>
  void refused(const Done& done, ScalingError error) {
    REQUIRE_FALSE(done);
    REQUIRE(done.error() == error);
  }

  [[nodiscard]] std::vector<ShardId> routes() const {
    std::vector<ShardId> routes;
    for (std::uint64_t slot = 0; slot < kSlots; ++slot) {
      routes.push_back(*manager_.select_shard_by_hash(slot << 52U));
    }
    return routes;
  }

  /// Only what led to the shard that left leads elsewhere now.
  void check_left(const std::vector<ShardId>& before, ShardId left) const {
    const auto after = routes();
    for (std::size_t slot = 0; slot < kSlots; ++slot) {
      const bool right = before[slot] == left ? after[slot] != left : after[slot] == before[slot];
      REQUIRE(right);
    }
  }

  void check() {
    std::vector<ShardId> ids;
    for (const auto& [id, state] : states_) {
      ids.push_back(id);
      REQUIRE(manager_.shard_state(id) == state);
      if (state == ShardState::active) continue;
      REQUIRE(manager_.shard(id)->try_push("x") == Outcome::rejected_closed);
      tally_.saw(Outcome::rejected_closed);
    }
    REQUIRE(manager_.shard_ids() == ids);
    shard_test::check_agreement(manager_);
    REQUIRE(manager_.ledger() ==
            tally_.ledger({.evicted = manager_.ledger().evicted, .returned = taken_}));
  }

  /// All that was accepted comes out, whichever shard is popped first, and every drain finishes.
  void finish() {
    check();
    while (manager_.total_pending_in_rings() != 0) {
      const auto before = taken_;
      auto ids = manager_.shard_ids();
      std::shuffle(ids.begin(), ids.end(), random_);
      for (const auto id : ids) {
        EventBatch batch;
        manager_.shard(id)->pop_batch_into(batch);
        took(batch);
      }
      REQUIRE(taken_ > before);  // a whole round without progress would be a deadlock
    }
    const auto draining = count(ShardState::draining);
    REQUIRE(manager_.finalize_draining() == draining);
    for (auto& [id, state] : states_) {
      if (state == ShardState::draining) state = ShardState::stopped;
    }
    remove_stopped();
    check();
  }

  std::mt19937_64 random_;
  Routing routing_;
  ManualClock clock_;
  Manager manager_;
  std::map<ShardId, ShardState> states_;
  std::uint32_t next_id_ = 3;
  std::uint64_t now_ = 0;
  std::optional<std::uint64_t> last_change_;
  std::vector<std::int64_t> next_in_;   ///< of each key: the number of its next event
  std::vector<std::int64_t> last_out_;  ///< of each key: the number of its last event that came out
  std::set<std::pair<std::size_t, std::int64_t>> seen_;
  shard_test::Tally tally_;
  std::uint64_t taken_ = 0;
};

}  // namespace

TEST_CASE("random changes of shards lose nothing, and keys keep their order and their shard",
          "[R-E1][R-E3][R-E16][R-D8][R-D9][R-D11][R-C7]") {
  const std::vector<Backpressure> modes{Backpressure::fail_producer(), Backpressure::drop_newest(),
                                        Backpressure::drop_oldest(), Backpressure::sample(2)};
  for (const auto routing : {Routing::keyed, Routing::balanced}) {
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
      const auto mode = modes[seed % modes.size()];
      INFO(to_string(routing) << ", " << to_string(mode.mode) << ", seed " << seed);
      Model(routing, mode, seed).run(2000);
    }
  }
}
