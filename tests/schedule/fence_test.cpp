// The order of keys while slots move: the fence protocol over the steps of the real code, for each pattern of moves,
// and then with one function replaced by a wrong one, which the explorer must find.

#include <algorithm>
#include <catch2/catch.hpp>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "schedule/scenario.hpp"

// ---------------------------------------------------------------------------------- broken on purpose

namespace shard::test {
namespace {

// Each stands for the platform; the functions specialised below for it are what it gets wrong.
struct WithoutFences : ScheduledPlatform {};
struct RefusesBeforePublishing : ScheduledPlatform {};
struct ResolvesBeforeClosing : ScheduledPlatform {};
struct FencesWithoutPosition : ScheduledPlatform {};
struct WatermarkIgnoresFences : ScheduledPlatform {};

}  // namespace
}  // namespace shard::test

namespace shard::detail {
namespace {

/// Which members lose slots to which, each pair once.
template <class Platform>
std::vector<std::pair<std::uint16_t, std::uint16_t>> pairs_of(const RoutingTable<Platform>& table,
                                                              const RoutingTable<Platform>& next) {
  std::vector<std::pair<std::uint16_t, std::uint16_t>> pairs;
  for (std::size_t slot = 0; slot < table.slots.size(); ++slot) {
    const std::pair pair(table.slots[slot], next.slots[slot]);
    if (pair.first != pair.second && std::find(pairs.begin(), pairs.end(), pair) == pairs.end()) {
      pairs.push_back(pair);
    }
  }
  return pairs;
}

template <class Platform>
Fence<Platform>* place(const RoutingTable<Platform>& table, std::uint16_t from, std::uint16_t to) {
  auto fence = std::make_unique<Fence<Platform>>(table.members[from].core);
  auto* const placed = fence.get();
  table.members[to].core->place_fence(std::move(fence));
  return placed;
}

}  // namespace

/// Moves single slots. What the library offers chooses the slots by their load.
struct TopologyTestAccess {
  template <class Platform>
  static void move(Topology<Platform>& topology, std::uint32_t slot, ShardId to) {
    const LockGuard lock(topology.mutex_);
    const auto table = topology.tables.peek();
    auto next = topology.next_of(*table);
    next->slots[slot] = table->index_of(to);
    topology.publish_moved(*table, std::move(next));
  }
};

template <>
void Topology<test::WithoutFences>::publish_moved(const Table& table, std::shared_ptr<Table> next) {
  const auto pairs = pairs_of(table, *next);
  const auto version = next->version;
  publish(std::move(next));
  for (const auto& [from, to] : pairs) {
    table.members[from].core->raise_min_version(version);
  }
}

template <>
void Topology<test::RefusesBeforePublishing>::publish_moved(const Table& table,
                                                            std::shared_ptr<Table> next) {
  for (const auto& [from, to] : pairs_of(table, *next)) {
    auto* const fence = place(*next, from, to);
    fence->until.store(table.members[from].core->raise_min_version(next->version));
  }
  publish(std::move(next));
}

template <>
void Topology<test::ResolvesBeforeClosing>::publish_moved(const Table& table,
                                                          std::shared_ptr<Table> next) {
  const auto version = next->version;
  for (const auto& [from, to] : pairs_of(table, *next)) {
    auto* const fence = place(*next, from, to);
    publish(next);
    fence->until.store(table.members[from].core->raise_min_version(0));  // only looks
    table.members[from].core->raise_min_version(version);
  }
}

template <>
void ShardCore<test::FencesWithoutPosition>::place_fence(
    std::unique_ptr<Fence<test::FencesWithoutPosition>> fence) noexcept {
  const LockGuard producer(producer_);
  const LockGuard consumer(pop_);
  fence->event = pushed();
  fence->position = pushed();
  auto* const placed = fence.get();
  (last_fence_ == nullptr ? first_fence_ : last_fence_->next) = std::move(fence);
  last_fence_ = placed;
}
template <>
void ShardCore<test::FencesWithoutPosition>::publish_watermark() noexcept {
  watermark_.store(head_.load(std::memory_order_relaxed), std::memory_order_release);
}

template <>
void ShardCore<test::WatermarkIgnoresFences>::publish_watermark() noexcept {
  watermark_.store(head_.load(std::memory_order_relaxed) + fences_passed_,
                   std::memory_order_release);
}

}  // namespace shard::detail

namespace shard::test {
namespace {

// ---------------------------------------------------------------------------------- what scenarios are made of

/// Looks at events in the order in which they were popped, whoever popped them. A reader's batch is looked at by
/// whoever comes first: another one may have popped a later event and look before the reader gets to it.
class Witness {
 public:
  struct Reader {
    EventBatch batch;
    std::size_t seen = 0;
  };

  explicit Witness(bool may_skip) : may_skip_(may_skip) {}

  Reader& reader() { return readers_.emplace_back(); }

  /// For the reader's own thread, after it has popped.
  void look(Reader& mine) {
    while (look_at_one()) {
    }
    mine.batch.clear();  // all of it was seen
    mine.seen = 0;
  }

  [[nodiscard]] int count(char key) const {
    const auto found = keys_.find(key);
    return found == keys_.end() ? 0 : found->second.count;
  }
  [[nodiscard]] std::uint64_t events() const { return events_; }

 private:
  struct OfKey {
    int next = 0;
    int count = 0;
  };

  bool look_at_one() {
    Reader* best = nullptr;
    int least = 0;
    for (auto& reader : readers_) {
      if (reader.seen == reader.batch.size()) {
        continue;
      }
      const auto text = reader.batch[reader.seen].text();
      require(text.size() == 4 && text.substr(0, 2) == text.substr(2), "an event is corrupt");
      const int ahead = text[1] - '0' - keys_[text[0]].next;
      if (best == nullptr || ahead < least) {
        best = &reader;
        least = ahead;
      }
    }
    if (best == nullptr) {
      return false;
    }
    const auto text = best->batch[best->seen++].text();
    require(least >= 0, "a key's events are out of order");
    require(may_skip_ || least == 0, "a key's event came before an older one");
    auto& key = keys_[text[0]];
    key.next = text[1] - '0' + 1;
    ++key.count;
    ++events_;
    return true;
  }

  const bool may_skip_;
  std::deque<Reader> readers_;
  std::map<char, OfKey> keys_;
  std::uint64_t events_ = 0;
};

/// A key of the first table: its bytes, and the letter that its events carry.
struct RoutedKey {
  std::string text;
  char letter;
  std::uint32_t slot;
};

ManagerOptions elastic(Backpressure backpressure, std::size_t ring_capacity, std::size_t shards) {
  auto options = small(backpressure, ring_capacity, shards);
  options.routing = Routing::keyed;
  options.scaling.emplace();
  options.scaling->max_shards = 4;
  options.scaling->cooldown = {};
  return options;
}

/// A manager whose shards come and go; the first ones are called 0, 1, 2 and so are their ids.
template <class Platform = ScheduledPlatform>
struct Elastic {
  using Topology = shard::detail::Topology<Platform>;

  explicit Elastic(std::size_t count, Backpressure backpressure = Backpressure::drop_newest(),
                   std::size_t ring_capacity = 8)
      : core(elastic(backpressure, ring_capacity, count)),
        witness(backpressure.mode == BackpressureMode::drop_oldest),
        first_slots(core.topology.tables.peek()->slots) {
    for (const auto& member : core.topology.tables.peek()->members) {
      shards.push_back(member.core);
    }
  }
  Elastic(const Elastic&) = delete;
  Elastic& operator=(const Elastic&) = delete;
  ~Elastic() { core.retire(); }  // fences of shards that wait for each other own them

  // Keys, looked for by where they go and where they would go.

  [[nodiscard]] RoutedKey key(char letter, const std::function<bool(std::uint32_t)>& fits) const {
    for (int i = 0;; ++i) {
      auto text = std::string(1, letter) + std::to_string(i);
      const auto slot = core.slot_of(core.hasher(text));
      if (fits(slot)) {
        return {std::move(text), letter, slot};
      }
    }
  }
  [[nodiscard]] RoutedKey key_of(char letter, std::uint16_t shard) const {
    return key(letter, [&](auto slot) { return first_slots[slot] == shard; });
  }
  [[nodiscard]] RoutedKey key_that_moves(char letter, const shard::detail::slot_plan::Slots& next,
                                         std::uint16_t from, std::uint16_t to) const {
    return key(letter, [&](auto slot) { return first_slots[slot] == from && next[slot] == to; });
  }
  [[nodiscard]] ShardId shard_of(const RoutedKey& key) const {
    return core.topology.tables.peek()->member_of(key.slot)->id();
  }

  // What threads do.

  [[nodiscard]] static std::string event(const RoutedKey& key, int number) {
    return event_of(key.letter - 'A', number);
  }
  Outcome offer(const RoutedKey& key, int number) {
    const auto payload = event(key, number);
    const auto raw = core.raw_event(RawEvent::of(payload).with(Key{key.text}));
    const auto outcome = core.admit_by_hash(shard::detail::item_of(raw), core.hash_of(raw));
    told(key, outcome);
    return outcome;
  }
  void told(const RoutedKey& key, Outcome outcome) {
    ++offered;
    accepted[key.letter] += outcome == Outcome::accepted ? 1 : 0;
  }
  void ingest(const RoutedKey& key, int first, int last) {
    for (int number = first; number <= last; ++number) {
      require(offer(key, number) == Outcome::accepted, "an event was not accepted");
    }
  }

  void move(const RoutedKey& key, std::uint32_t to) {
    shard::detail::TopologyTestAccess::move(core.topology, key.slot, ShardId{to});
  }
  ShardId provision() {
    const auto id = core.topology.add(true);
    require(id.has_value(), "no shard was added");
    shards.push_back(core.topology.tables.peek()->members.back().core);
    return *id;
  }

  std::size_t pop(Witness::Reader& reader, std::size_t shard) {
    const auto popped = shards[shard]->pop(reader.batch, 100, 1'000'000);
    witness.look(reader);
    return popped;
  }
  /// The destinations come before the sources: what may not pass a fence must stay behind it.
  void pop(Witness::Reader& reader, std::initializer_list<std::size_t> order) {
    for (const auto shard : order) {
      pop(reader, shard);
    }
  }
  void pop_until(Witness::Reader& reader, std::uint64_t events) {
    while (witness.events() < events) {
      std::size_t popped = 0;
      for (std::size_t shard = shards.size(); shard-- != 0;) {
        popped += pop(reader, shard);
      }
      if (popped == 0) {
        give_way();
      }
    }
  }
  /// Removes a shard; as often as it answers that others have to be popped first, does that.
  void remove(Witness::Reader& reader, ShardId id) {
    for (;;) {
      const auto removed = core.topology.remove(id, reader.batch);
      witness.look(reader);
      if (removed) {
        return;
      }
      require(removed.error() == ScalingError::fenced, "a shard was not removed");
      for (std::size_t shard = 0; shard < shards.size(); ++shard) {
        if (shards[shard]->id() != id) {
          pop(reader, shard);
        }
      }
    }
  }

  [[nodiscard]] Ledger ledger() const {
    auto total = core.own_counts();
    const auto table = core.topology.tables.peek();
    total += table->base;
    for (const auto& member : table->members) {
      total += member.core->ledger();
    }
    return total;
  }
  [[nodiscard]] std::uint64_t told_accepted() const {
    std::uint64_t sum = 0;
    for (const auto& [letter, count] : accepted) {
      sum += static_cast<std::uint64_t>(count);
    }
    return sum;
  }

  /// When all is quiet: every pass over the shards pops something until nothing is left, whatever draws is drained,
  /// and the laws hold.
  void settle() {
    auto& reader = witness.reader();
    for (std::size_t popped = 1; popped != 0;) {
      popped = 0;
      for (std::size_t shard = shards.size(); shard-- != 0;) {
        popped += pop(reader, shard);
      }
    }
    for (const auto& shard : shards) {
      require(shard->length() == 0, "an event stays behind a fence for ever");
      bool unclear = false;
      require(!shard->is_fenced(unclear), "a fence is never passed");
    }
    core.topology.finalize_draining();
    const auto before = ledger();
    const auto table = core.topology.tables.peek();
    for (const auto& member : table->members) {
      require(member.state != ShardState::draining, "a drain does not finish");
      if (member.state == ShardState::stopped) {
        const auto removed = core.topology.remove(member.core->id(), reader.batch);
        require((removed || removed.error() == ScalingError::closed) && reader.batch.empty(),
                "a stopped shard is not removed");
      }
    }
    const auto total = ledger();
    require(total == before, "the totals change when a stopped shard is removed");
    require(total.offered() == offered, "the offered events do not add up");
    require(total.accepted == told_accepted(), "accepted is not what the producers were told");
    require(total.balanced() && total.queued == 0, "the accepted events do not add up");
    require(total.returned == witness.events(), "what was returned is not what was popped");
    require(total.unrouted == 0 && total.abandoned_queued == 0, "an event was lost");
    if (core.options.backpressure.mode != BackpressureMode::drop_oldest) {
      require(total.returned == total.accepted, "an event was lost");
      for (const auto& [letter, count] : accepted) {
        require(witness.count(letter) == count, "an event was lost");
      }
    }
  }

  shard::detail::ManagerCore<Platform> core;
  std::vector<std::shared_ptr<shard::detail::ShardCore<Platform>>> shards;
  Witness witness;
  const shard::detail::slot_plan::Slots first_slots;
  std::uint64_t offered = 0;
  std::map<char, int> accepted;
};

constexpr std::size_t kFewSteps = 1'200;  // far more than any of these needs, far less than a spin

// ---------------------------------------------------------------------------------- the patterns

/// The second event of two keys, by a producer each or by one for both: with a thread less, more preemptions can be
/// tried.
struct Producers {
  bool one;
  unsigned preemptions;
};
constexpr Producers kOneForBoth{true, 2 - kFewer};
constexpr Producers kOneForEach{false, 1};

void produce(Execution& run, Elastic<>& elastic, const RoutedKey& k, const RoutedKey& j,
             const Producers& producers) {
  if (producers.one) {
    run.thread([&elastic, k, j] {
      elastic.ingest(k, 1, 1);
      elastic.ingest(j, 1, 1);
    });
  } else {
    run.thread([&elastic, k] { elastic.ingest(k, 1, 1); });
    run.thread([&elastic, j] { elastic.ingest(j, 1, 1); });
  }
}

/// One slot moves from 0 to 1.
template <class Platform>
void one_move(Execution& run, const RoutedKey& k) {
  auto& elastic = run.make<Elastic<Platform>>(2U);
  auto& reader = elastic.witness.reader();
  elastic.ingest(k, 0, 0);
  run.thread([&elastic, k] { elastic.ingest(k, 1, 2); });
  run.thread([&elastic, k] { elastic.move(k, 1); });
  run.thread([&elastic, &reader] { elastic.pop(reader, {1, 0, 1}); });
  run.afterwards([&elastic, k] {
    require(elastic.shard_of(k) == ShardId{1}, "the slot has not moved");
    elastic.settle();
  });
}

/// From 0 to 1, and then from 1 to 2.
template <class Platform>
void chain(Execution& run, const RoutedKey& k) {
  auto& elastic = run.make<Elastic<Platform>>(3U);
  auto& reader = elastic.witness.reader();
  elastic.ingest(k, 0, 0);
  run.thread([&elastic, k] { elastic.ingest(k, 1, 1); });
  run.thread([&elastic, k] {
    elastic.move(k, 1);
    elastic.move(k, 2);
  });
  run.thread([&elastic, &reader] { elastic.pop(reader, {2, 1, 0}); });
  run.afterwards([&elastic, k] {
    require(elastic.shard_of(k) == ShardId{2}, "the slot has not moved twice");
    elastic.settle();
  });
}

/// The same, and 1 evicts behind its fence: rings of one event.
template <class Platform>
void chain_with_eviction(Execution& run, const RoutedKey& k, const RoutedKey& j) {
  auto& elastic = run.make<Elastic<Platform>>(3U, Backpressure::drop_oldest(), 2U);
  auto& reader = elastic.witness.reader();
  elastic.ingest(k, 0, 0);
  elastic.move(k, 1);
  run.thread([&elastic, j] { elastic.ingest(j, 0, 1); });
  run.thread([&elastic, k] {
    elastic.move(k, 2);
    elastic.ingest(k, 1, 1);
  });
  run.thread([&elastic, &reader] { elastic.pop(reader, {2, 0}); });
  run.afterwards([&elastic] { elastic.settle(); });
}

TEST_CASE("a key keeps its order when its slot moves", "[R-D15][R-D9]") {
  const auto k = Elastic<>(2U).key_of('K', 0);
  const auto found = explore({.preemptions = 2 - kFewer, .steps = kFewSteps},
                             [&](Execution& run) { one_move<ScheduledPlatform>(run, k); });
  INFO(found);
  CHECK(found.passed());
}

TEST_CASE("a key keeps its order along a chain of moves", "[R-D15][R-D9]") {
  const auto k = Elastic<>(3U).key_of('K', 0);
  const auto found = explore({.preemptions = 2 - kFewer, .steps = kFewSteps},
                             [&](Execution& run) { chain<ScheduledPlatform>(run, k); });
  INFO(found);
  CHECK(found.passed());
}

TEST_CASE("two keys keep their order when they swap shards", "[R-D15][R-D9]") {
  const Elastic<> sample(2U);
  const auto k = sample.key_of('K', 0);
  const auto j = sample.key_of('J', 1);
  const auto producers = GENERATE(kOneForBoth, kOneForEach);
  CAPTURE(producers.one);
  const auto found =
      explore({.preemptions = producers.preemptions, .steps = kFewSteps}, [&](Execution& run) {
        auto& elastic = run.make<Elastic<>>(2U);
        auto& reader = elastic.witness.reader();
        elastic.ingest(k, 0, 0);
        elastic.ingest(j, 0, 0);
        produce(run, elastic, k, j, producers);
        run.thread([&elastic, k, j] {
          elastic.move(k, 1);
          elastic.move(j, 0);
        });
        run.thread([&elastic, &reader] { elastic.pop(reader, {1, 0}); });
        run.afterwards([&elastic, k, j] {
          require(elastic.shard_of(k) == ShardId{1} && elastic.shard_of(j) == ShardId{0},
                  "the slots have not been swapped");
          elastic.settle();
        });
      });
  INFO(found);
  CHECK(found.passed());
}

TEST_CASE("keys of two shards keep their order when a new shard takes slots of both",
          "[R-D15][R-D9][R-D14]") {
  Elastic<> sample(2U);
  const auto next =
      shard::detail::slot_plan::join(sample.first_slots, std::vector<std::uint16_t>{0, 1}, 2);
  const auto k = sample.key_that_moves('K', next, 0, 2);
  const auto j = sample.key_that_moves('J', next, 1, 2);
  const auto found =
      explore({.preemptions = kOneForEach.preemptions, .steps = kFewSteps}, [&](Execution& run) {
        auto& elastic = run.make<Elastic<>>(2U);
        auto& reader = elastic.witness.reader();
        elastic.ingest(k, 0, 0);
        elastic.ingest(j, 0, 0);
        const auto id = elastic.provision();
        produce(run, elastic, k, j, kOneForEach);
        run.thread([&elastic, id] {
          require(elastic.core.topology.activate(id).has_value(), "it was not activated");
        });
        run.thread([&elastic, &reader] { elastic.pop(reader, {2, 0, 2}); });
        run.afterwards([&elastic, k, j, id] {
          require(elastic.shard_of(k) == id && elastic.shard_of(j) == id,
                  "the slots have not moved");
          elastic.settle();
        });
      });
  INFO(found);
  CHECK(found.passed());
}

TEST_CASE(
    "keys of a shard that leaves keep their order where they go, and it stops when it is empty",
    "[R-D15][R-D9][R-E4][R-E5]") {
  const Elastic<> sample(3U);
  const auto next =
      shard::detail::slot_plan::leave(sample.first_slots, 0, std::vector<std::uint16_t>{1, 2});
  const auto k = sample.key_that_moves('K', next, 0, 1);
  const auto j = sample.key_that_moves('J', next, 0, 2);
  const auto found =
      explore({.preemptions = kOneForEach.preemptions, .steps = kFewSteps}, [&](Execution& run) {
        auto& elastic = run.make<Elastic<>>(3U);
        auto& reader = elastic.witness.reader();
        elastic.ingest(k, 0, 0);
        elastic.ingest(j, 0, 0);
        produce(run, elastic, k, j, kOneForEach);
        run.thread([&elastic] {
          require(elastic.core.topology.drain(ShardId{0}).has_value(), "it was not drained");
          elastic.core.topology.finalize_draining();
        });
        run.thread([&elastic, &reader] { elastic.pop(reader, {2, 1, 0}); });
        run.afterwards([&elastic] {
          elastic.settle();
          require(elastic.core.topology.tables.peek()->members.size() == 2, "it is not gone");
        });
      });
  INFO(found);
  CHECK(found.passed());
}

// ---------------------------------------------------------------------------------- removal

TEST_CASE(
    "a shard that is behind a fence is removed when the older shard was popped, and not before",
    "[R-D15][R-E4][R-E5][R-D12]") {
  const Elastic<> sample(3U);
  const auto k = sample.key_of('K', 0);
  const auto j = sample.key_of('J', 1);

  SECTION("what lies before the fence is handed out, what lies behind it is not") {
    Elastic<> elastic(3U);
    auto& reader = elastic.witness.reader();
    elastic.ingest(k, 0, 0);
    elastic.ingest(j, 0, 0);
    elastic.move(k, 1);
    elastic.ingest(k, 1, 1);
    for (int i = 0; i < 2; ++i) {
      const auto removed = elastic.core.topology.remove(ShardId{1}, reader.batch);
      CHECK((!removed && removed.error() == ScalingError::fenced));
      elastic.witness.look(reader);
      CHECK((elastic.witness.count('J') == 1 && elastic.witness.count('K') == 0));
      CHECK(elastic.core.topology.finalize_draining() == 0);
    }
    elastic.pop(reader, {0});
    CHECK(elastic.core.topology.remove(ShardId{1}, reader.batch).has_value());
    elastic.witness.look(reader);
    CHECK(elastic.witness.count('K') == 2);
    elastic.settle();
  }

  const auto removal = [&](bool produces) {
    return [&, produces](Execution& run) {
      auto& elastic = run.make<Elastic<>>(3U);
      auto& consumer = elastic.witness.reader();
      auto& remover = elastic.witness.reader();
      elastic.ingest(k, 0, 0);
      elastic.ingest(j, 0, 0);
      elastic.move(k, 1);
      elastic.ingest(k, 1, 1);
      run.thread([&elastic, &remover] { elastic.remove(remover, ShardId{1}); });
      run.thread([&elastic, &consumer] { elastic.pop(consumer, {2, 1, 0}); });
      if (produces) {
        run.thread([&elastic, k] { elastic.ingest(k, 2, 2); });
      }
      run.afterwards([&elastic] {
        require(elastic.core.topology.tables.peek()->members.size() == 2, "it is not gone");
        elastic.settle();
      });
    };
  };

  SECTION("while a consumer pops it as well") {
    const auto found = explore({.preemptions = 2 - kFewer, .steps = kFewSteps}, removal(false));
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("while a producer pushes, too") {
    const auto found = explore({.preemptions = 1, .steps = kFewSteps}, removal(true));
    INFO(found);
    CHECK(found.passed());
  }
}

TEST_CASE("a shard that is removed while it is activated leaves nothing behind",
          "[R-D15][R-E4][R-E2]") {
  Elastic<> sample(2U);
  const auto next =
      shard::detail::slot_plan::join(sample.first_slots, std::vector<std::uint16_t>{0, 1}, 2);
  const auto k = sample.key_that_moves('K', next, 0, 2);
  const auto found = explore({.preemptions = 1, .steps = kFewSteps}, [&](Execution& run) {
    auto& elastic = run.make<Elastic<>>(2U);
    auto& consumer = elastic.witness.reader();
    auto& remover = elastic.witness.reader();
    elastic.ingest(k, 0, 0);
    const auto id = elastic.provision();
    run.thread([&elastic, k] { elastic.ingest(k, 1, 1); });
    run.thread([&elastic, id] {
      const auto activated = elastic.core.topology.activate(id);
      require(activated || activated.error() == ScalingError::unknown_shard,
              "neither activated nor gone");
    });
    run.thread([&elastic, &remover, id] { elastic.remove(remover, id); });
    run.thread([&elastic, &consumer] { elastic.pop(consumer, {2, 0}); });
    run.afterwards([&elastic, id] {
      const auto table = elastic.core.topology.tables.peek();
      require(table->members.size() == 2 && table->index_of(id) == table->kNoMember,
              "a record is left");
      require(std::none_of(table->slots.begin(), table->slots.end(),
                           [](auto member) { return member >= 2; }),
              "a slot leads nowhere");
      elastic.settle();
    });
  });
  INFO(found);
  CHECK(found.passed());
}

// ---------------------------------------------------------------------------------- full shards

TEST_CASE("a producer that waits for room finds the shard that its slot has moved to",
          "[R-D15][R-D14][R-D3]") {
  const Elastic<> sample(2U);
  const auto k = sample.key_of('K', 0);
  const auto j = sample.key_of('J', 1);

  SECTION("it waits at the source, which nobody pops") {
    const auto found =
        explore({.preemptions = 3 - kFewer, .steps = kFewSteps}, [&](Execution& run) {
          auto& elastic = run.make<Elastic<>>(2U, block_for_ever(), 2U);
          elastic.ingest(k, 0, 0);
          run.thread([&elastic, k] { elastic.ingest(k, 1, 1); });
          run.thread([&elastic, k] { elastic.move(k, 1); });
          run.afterwards([&elastic] {
            require(elastic.shards[1]->length() == 1, "it has not found the destination");
            elastic.settle();
          });
        });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("it waits at the source with the rest of a batch") {
    const auto found = explore({.preemptions = 2, .steps = kFewSteps}, [&](Execution& run) {
      auto& elastic = run.make<Elastic<>>(2U, block_for_ever(), 4U);
      elastic.ingest(k, 0, 0);
      run.thread([&elastic, k] {
        std::array<std::string, 3> texts;
        std::array<RawEvent, 3> events{};
        std::array<Outcome, 3> outcomes{};
        for (std::size_t i = 0; i < texts.size(); ++i) {
          texts[i] = Elastic<>::event(k, static_cast<int>(i) + 1);
          events[i] = elastic.core.raw_event(RawEvent::of(texts[i]).with(Key{k.text}));
        }
        require(elastic.core.ingest_raw_batch(events, outcomes) == 3, "a batch was not accepted");
        for (const auto outcome : outcomes) {
          elastic.told(k, outcome);
        }
      });
      run.thread([&elastic, k] { elastic.move(k, 1); });
      run.afterwards([&elastic] { elastic.settle(); });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("it waits at the destination, behind the fence, until both are popped") {
    const auto found =
        explore({.preemptions = 2 - kFewer, .steps = kFewSteps}, [&](Execution& run) {
          auto& elastic = run.make<Elastic<>>(2U, block_for_ever(), 2U);
          auto& reader = elastic.witness.reader();
          elastic.ingest(k, 0, 0);
          elastic.move(k, 1);
          elastic.ingest(j, 0, 0);  // behind the fence, and full
          run.thread([&elastic, k] { elastic.ingest(k, 1, 2); });
          run.thread([&elastic, &reader] { elastic.pop_until(reader, 4); });
          run.afterwards([&elastic] { elastic.settle(); });
        });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("the destination is full in front of the fence") {
    const auto found = explore({.preemptions = 1, .steps = kFewSteps}, [&](Execution& run) {
      auto& elastic = run.make<Elastic<>>(2U, block_for_ever(), 2U);
      auto& reader = elastic.witness.reader();
      elastic.ingest(k, 0, 0);
      elastic.ingest(j, 0, 0);
      run.thread([&elastic, k] { elastic.ingest(k, 1, 1); });
      run.thread([&elastic, k] { elastic.move(k, 1); });
      run.thread([&elastic, &reader] { elastic.pop_until(reader, 3); });
      run.afterwards([&elastic] { elastic.settle(); });
    });
    INFO(found);
    CHECK(found.passed());
  }
}

TEST_CASE("evictions in front of a fence and behind it neither pass it nor hold it up",
          "[R-D15][R-D9]") {
  const Elastic<> sample(3U);
  const auto k = sample.key_of('K', 0);
  const auto j = sample.key_of('J', 1);

  SECTION("at the destination") {
    const auto found = explore({.preemptions = 1, .steps = kFewSteps}, [&](Execution& run) {
      auto& elastic = run.make<Elastic<>>(2U, Backpressure::drop_oldest(), 2U);
      auto& reader = elastic.witness.reader();
      elastic.ingest(k, 0, 0);
      elastic.ingest(j, 0, 0);
      run.thread([&elastic, j] { elastic.ingest(j, 1, 1); });
      run.thread([&elastic, k] {
        elastic.move(k, 1);
        elastic.ingest(k, 1, 1);
      });
      run.thread([&elastic, &reader] { elastic.pop(reader, {1, 0, 1}); });
      run.afterwards([&elastic] { elastic.settle(); });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("at the source") {
    const auto found =
        explore({.preemptions = 2 - kFewer, .steps = kFewSteps}, [&](Execution& run) {
          auto& elastic = run.make<Elastic<>>(2U, Backpressure::drop_oldest(), 2U);
          auto& reader = elastic.witness.reader();
          elastic.ingest(k, 0, 0);
          run.thread([&elastic, k] { elastic.ingest(k, 1, 1); });
          run.thread([&elastic, k] { elastic.move(k, 1); });
          run.thread([&elastic, &reader] { elastic.pop(reader, {1}); });
          run.afterwards([&elastic] { elastic.settle(); });
        });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("in the middle of a chain") {
    const auto found = explore({.preemptions = 1, .steps = kFewSteps}, [&](Execution& run) {
      chain_with_eviction<ScheduledPlatform>(run, k, j);
    });
    INFO(found);
    CHECK(found.passed());
  }
}

// ---------------------------------------------------------------------------------- workers

TEST_CASE("what a worker has taken is under way until it is settled, whenever its fence opened",
          "[R-D15][R-G7]") {
  // The slot moves from 0 to 1 and on to 2, and each shard has a worker. A fence may open while a worker takes: what it
  // takes then must hold back the next shard like anything else that is not delivered yet.
  const auto k = Elastic<>(3U).key_of('K', 0);
  struct Sink {
    int delivered = 0;

    void deliver(Core& core) {
      EventBatch batch;
      static_cast<void>(core.take(batch, 100, 1'000'000));
      if (batch.empty()) {
        return;
      }
      require(batch.size() == 1 && batch[0].text()[1] == static_cast<char>('0' + delivered),
              "an event is under way before an older one of its key was delivered");
      require(core.settle({.delivered = 1}, true, [&] { ++delivered; }), "it was not settled");
    }
  };
  const auto found = explore({.preemptions = 2, .steps = kFewSteps}, [&](Execution& run) {
    auto& elastic = run.make<Elastic<>>(3U);
    auto& sink = run.make<Sink>();
    for (int shard = 0; shard < 3; ++shard) {
      elastic.move(k, static_cast<std::uint32_t>(shard));
      elastic.ingest(k, shard, shard);
      run.thread([&elastic, &sink, shard] {
        sink.deliver(*elastic.shards[static_cast<std::size_t>(shard)]);
      });
    }
    run.afterwards([&elastic, &sink] {
      for (auto& shard : elastic.shards) {
        sink.deliver(*shard);
      }
      require(sink.delivered == 3, "an event stays behind a fence for ever");
    });
  });
  INFO(found);
  CHECK(found.passed());
}

TEST_CASE(
    "who waits behind two fences does not take one that is being passed for one that is closed",
    "[R-D15][R-H1]") {
  // All of 0 has left, so that the fence of 1 is passed by whoever looks, and nobody will say so afterwards. A flush looks
  // at 2 meanwhile: it may find it open, or not know.
  const auto k = Elastic<>(3U).key_of('K', 0);
  const auto found = explore({.preemptions = 3}, [&](Execution& run) {
    auto& elastic = run.make<Elastic<>>(3U);
    auto& reader = elastic.witness.reader();
    elastic.ingest(k, 0, 0);
    elastic.move(k, 1);
    elastic.move(k, 2);
    elastic.pop(reader, 0);
    run.thread([&elastic] { static_cast<void>(elastic.shards[1]->is_drained()); });
    run.thread([&elastic] {
      bool unclear = false;
      require(!elastic.shards[2]->is_fenced(unclear) || unclear,
              "a fence that is being passed is taken for one that is closed");
    });
    run.afterwards([&elastic] { elastic.settle(); });
  });
  INFO(found);
  CHECK(found.passed());
}

// ---------------------------------------------------------------------------------- late producers

TEST_CASE("a producer that is two changes late loses neither events nor their order",
          "[R-D15][R-D14][R-D3]") {
  const Elastic<> sample(3U);
  const auto k = sample.key_of('K', 0);
  const auto j = sample.key_of('J', 1);

  SECTION("with single events") {
    const auto found =
        explore({.preemptions = 2 - kFewer, .steps = kFewSteps}, [&](Execution& run) {
          auto& elastic = run.make<Elastic<>>(2U);
          auto& reader = elastic.witness.reader();
          run.thread([&elastic, k] { elastic.ingest(k, 0, 2); });
          run.thread([&elastic, &reader, k] {
            elastic.move(k, 1);
            elastic.pop(reader, {1});
            elastic.move(k, 0);  // back, where an older table also leads
            elastic.pop(reader, {0});
          });
          run.afterwards([&elastic] { elastic.settle(); });
        });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("with a batch, of which only a part moves") {
    const auto found =
        explore({.preemptions = 2 - kFewer, .steps = kFewSteps}, [&](Execution& run) {
          auto& elastic = run.make<Elastic<>>(3U);
          auto& reader = elastic.witness.reader();
          elastic.ingest(k, 0, 0);
          run.thread([&elastic, k, j] {
            const std::array<const RoutedKey*, 4> keys{&k, &j, &k, &j};
            const std::array numbers{1, 0, 2, 1};
            std::array<std::string, 4> texts;
            std::array<RawEvent, 4> events{};
            std::array<Outcome, 4> outcomes{};
            for (std::size_t i = 0; i < keys.size(); ++i) {
              texts[i] = Elastic<>::event(*keys[i], numbers[i]);
              events[i] = elastic.core.raw_event(RawEvent::of(texts[i]).with(Key{keys[i]->text}));
            }
            require(elastic.core.ingest_raw_batch(events, outcomes) == 4, "it was not accepted");
            for (std::size_t i = 0; i < keys.size(); ++i) {
              elastic.told(*keys[i], outcomes[i]);
            }
          });
          run.thread([&elastic, k] {
            elastic.move(k, 1);
            elastic.move(k, 2);
          });
          run.thread([&elastic, &reader] { elastic.pop(reader, {2, 0}); });
          run.afterwards([&elastic] { elastic.settle(); });
        });
    INFO(found);
    CHECK(found.passed());
  }
}

// ---------------------------------------------------------------------------------- closing

TEST_CASE("closing with an unsatisfied fence reorders nothing", "[R-D15][R-E5]") {
  const Elastic<> sample(2U);
  const auto k = sample.key_of('K', 0);

  SECTION("what was accepted can still be popped, in order") {
    const auto found =
        explore({.preemptions = 2 - kFewer, .steps = kFewSteps}, [&](Execution& run) {
          auto& elastic = run.make<Elastic<>>(2U);
          auto& reader = elastic.witness.reader();
          elastic.ingest(k, 0, 0);
          elastic.move(k, 1);
          run.thread([&elastic, k] {
            for (int number = 1; number <= 2; ++number) {
              const auto outcome = elastic.offer(k, number);
              require(outcome == Outcome::accepted || outcome == Outcome::rejected_closed,
                      "neither accepted nor closed");
            }
          });
          run.thread([&elastic] { elastic.core.close(); });
          run.thread([&elastic, &reader] { elastic.pop(reader, {1, 0, 1}); });
          run.afterwards([&elastic] { elastic.settle(); });
        });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION("while slots move") {
    const auto found = explore({.preemptions = 1, .steps = kFewSteps}, [&](Execution& run) {
      auto& elastic = run.make<Elastic<>>(2U);
      auto& reader = elastic.witness.reader();
      elastic.ingest(k, 0, 0);
      run.thread([&elastic, k] {
        const auto outcome = elastic.offer(k, 1);
        require(outcome == Outcome::accepted || outcome == Outcome::rejected_closed,
                "neither accepted nor closed");
      });
      run.thread([&elastic] {
        const auto drained = elastic.core.topology.drain(ShardId{0});
        require(drained || drained.error() == ScalingError::closed, "not drained");
      });
      run.thread([&elastic] { elastic.core.close(); });
      run.thread([&elastic, &reader] { elastic.pop(reader, {1, 0}); });
      run.afterwards([&elastic] { elastic.settle(); });
    });
    INFO(found);
    CHECK(found.passed());
  }

  SECTION(
      "when the rings are given back, what is behind the fence is abandoned with what it waits "
      "for") {
    const auto found =
        explore({.preemptions = 2 - kFewer, .steps = kFewSteps}, [&](Execution& run) {
          auto& elastic = run.make<Elastic<>>(2U);
          auto& reader = elastic.witness.reader();
          elastic.ingest(k, 0, 0);
          elastic.move(k, 1);
          elastic.ingest(k, 1, 1);
          run.thread([&elastic] { elastic.core.retire(); });
          run.thread([&elastic, &reader] { elastic.pop(reader, {1, 0, 1}); });
          run.afterwards([&elastic] {
            const auto total = elastic.ledger();
            require(total.balanced() && total.queued == 0, "the accepted events do not add up");
            require(total.returned == elastic.witness.events(), "a pop is not counted");
          });
        });
    INFO(found);
    CHECK(found.passed());
  }
}

// ---------------------------------------------------------------------------------- and the broken ones

constexpr const char* kReordered = "a key's event came before an older one";

TEST_CASE("the explorer finds slots that move without a fence", "[R-D15]") {
  const auto k = Elastic<>(2U).key_of('K', 0);
  const auto found = explore({.preemptions = 1, .steps = kFewSteps},
                             [&](Execution& run) { one_move<WithoutFences>(run, k); });
  INFO(found);
  CHECK(found.failure == kReordered);
}

TEST_CASE("the explorer finds slots that are refused before the new table is published",
          "[R-D15][R-D14]") {
  const auto k = Elastic<>(2U).key_of('K', 0);
  const auto found = explore({.preemptions = 1, .steps = kFewSteps},
                             [&](Execution& run) { one_move<RefusesBeforePublishing>(run, k); });
  INFO(found);
  CHECK(found.failure.find("a thread spins") != std::string::npos);
}

TEST_CASE("the explorer finds a fence that is resolved before its source is closed", "[R-D15]") {
  const auto k = Elastic<>(2U).key_of('K', 0);
  const auto found = explore({.preemptions = 2, .steps = kFewSteps},
                             [&](Execution& run) { one_move<ResolvesBeforeClosing>(run, k); });
  INFO(found);
  CHECK(found.failure == kReordered);
}

TEST_CASE("the explorer finds fences that have no position of their own", "[R-D15]") {
  const auto k = Elastic<>(3U).key_of('K', 0);
  const auto found = explore({.preemptions = 1, .steps = kFewSteps},
                             [&](Execution& run) { chain<FencesWithoutPosition>(run, k); });
  INFO(found);
  CHECK(found.failure == kReordered);
}

TEST_CASE("the explorer finds a watermark that passes a fence with evicted events", "[R-D15]") {
  const Elastic<> sample(3U);
  const auto k = sample.key_of('K', 0);
  const auto j = sample.key_of('J', 1);
  const auto found = explore({.preemptions = 1, .steps = kFewSteps}, [&](Execution& run) {
    chain_with_eviction<WatermarkIgnoresFences>(run, k, j);
  });
  INFO(found);
  CHECK(found.failure == "a key's events are out of order");
}

}  // namespace
}  // namespace shard::test
