// One shard by itself, as managers and pipelines use it: when its consumer is told, what one hold of a lock does, what the
// watermark and fences let out, and what becomes of what was taken.

#include "shard/detail/shard_core.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "shard/detail/shard_core_impl.hpp"
#include "support/books.hpp"
#include "support/counted_buffer.hpp"
#include "support/manual_clock.hpp"
#include "support/options.hpp"
#include "support/tracking_platform.hpp"

namespace {

using shard::Backpressure;
using shard::BufferAccess;
using shard::Bytes;
using shard::EventBatch;
using shard::Ledger;
using shard::Outcome;
using shard::ShardId;
using shard::Timestamp;
using shard::detail::GroupIndex;
using shard::detail::Item;
using shard::detail::Record;
using shard::detail::Rest;
using shard::detail::Verdict;
using shard::detail::Waiting;
using shard_test::TrackingPlatform;
using Core = shard::detail::ShardCore<TrackingPlatform>;
using Fence = shard::detail::Fence<TrackingPlatform>;
using Cores = std::vector<const Core*>;
using Sizes = std::vector<std::size_t>;

constexpr auto kAll = std::numeric_limits<std::size_t>::max();
constexpr auto kEnd = std::numeric_limits<std::uint64_t>::max();

struct Node final : shard::detail::ReadyNode {
  explicit Node(Core& of) : core(of) {}
  Core& core;
};

/// Shards that a consumer is told of, as a pipeline has them.
struct Consumed {
  shard_test::ManualClock time;
  shard::Clock clock{&time};
  shard::detail::ReadyQueue<TrackingPlatform> ready{clock};
  shard::detail::Consumer<TrackingPlatform> consumer{
      &ready, [](Core& core) { return std::make_unique<Node>(core); }};
  std::vector<std::shared_ptr<Core>> shards;

  Consumed() = default;
  Consumed(const Consumed&) = delete;
  Consumed& operator=(const Consumed&) = delete;
  ~Consumed() {  // fences of shards that wait for each other own them
    for (const auto& shard : shards) shard->retire();
  }

  std::shared_ptr<Core> add(std::size_t ring_capacity = 64, Backpressure mode = {}) {
    const ShardId id{static_cast<std::uint32_t>(shards.size())};
    shards.push_back(std::make_shared<Core>(id, shard_test::small_options(1, ring_capacity, mode),
                                            clock, &consumer));
    return shards.back();
  }
  /// One whose first event has come and gone: nothing in it is watched.
  std::shared_ptr<Core> add_used(std::size_t ring_capacity = 64, Backpressure mode = {}) {
    auto shard = add(ring_capacity, mode);
    push(*shard);
    told();
    EventBatch popped;
    REQUIRE(shard->pop(popped, 1, kAll) == 1);
    return shard;
  }

  void push(Core& core, std::size_t events = 1) const {
    for (std::size_t i = 0; i < events; ++i) {
      Waiting none{.allowed = false};
      REQUIRE(core.push(Core::kAnyVersion, {"x", {}, {}}, Core::kNoSlot, clock.now(), none) ==
              Verdict::accepted);
    }
  }
  /// Which shards the consumer has been told of since the last time; idle again, and nobody watches them.
  Cores told() {
    std::vector<Node*> nodes;
    while (auto* const node = ready.claim(clock.now()).node) {
      nodes.push_back(static_cast<Node*>(node));
    }
    Cores cores;
    for (auto* const node : nodes) {
      ready.release(*node, Rest::idle, false);
      cores.push_back(&node->core);
    }
    return cores;
  }
  /// The consumer has found it behind a fence: it is told again when any shard has moved on.
  void set_aside(Core& core) {
    ready.announce(*core.node());
    auto* const node = ready.claim(clock.now()).node;
    REQUIRE(node == core.node());
    ready.release(*node, Rest::fenced, false);
  }

  /// A fence behind all that `to` has, for what `from` has; it is passed when `from` has got to its `until`.
  static Fence& place(Core& to, const std::shared_ptr<Core>& from) {
    auto fence = std::make_unique<Fence>(from);
    auto& placed = *fence;
    to.place_fence(std::move(fence));
    return placed;
  }
};

/// The part of a batch call that goes to one shard.
struct Call {
  explicit Call(std::vector<Item> of) : items(std::move(of)), outcomes(items.size()) {
    for (std::size_t i = 1; i < items.size(); ++i) next.push_back(static_cast<GroupIndex>(i));
    next.push_back(shard::detail::kGroupEnd);
  }
  explicit Call(std::size_t events) : Call(std::vector<Item>(events, Item{"x", {}, {}})) {}

  Core::GroupResult push(Core& core, GroupIndex from = 0,
                         std::uint64_t version = Core::kAnyVersion) {
    return core.push_group(version, items, {from, next.data()}, Timestamp{}, waiting, false,
                           outcomes.data(), evicted);
  }

  std::vector<Item> items;
  std::vector<GroupIndex> next;
  std::vector<Outcome> outcomes;
  Waiting waiting{.allowed = false};
  BufferAccess::Chain evicted;
};

std::size_t pop(Core& core, std::size_t max_events = kAll, std::size_t max_bytes = kAll) {
  EventBatch popped;
  return core.pop(popped, max_events, max_bytes);
}

bool is_fenced(Core& core) {
  bool unclear = false;
  return core.is_fenced(unclear);
}

}  // namespace

// ---------------------------------------------------------------------------------- who is told

TEST_CASE("the consumer is told once, when as many events are queued as it waits for",
          "[R-G7][R-F2]") {
  Consumed test;
  auto& core = *test.add();
  CHECK(test.told().empty());
  test.push(core);  // from the beginning it waits for any
  CHECK(test.told() == Cores{&core});
  test.push(core, 2);
  CHECK(test.told().empty());  // it has not said that it waits again

  CHECK(core.watch_for(5, 4096) == Rest::later);
  test.push(core);
  CHECK(test.told().empty());
  // Where the way of most pushes ends, too: that tells nobody and pushes nothing.
  CHECK(core.push_if_room(Core::kAnyVersion, {"x", {}, {}}, Core::kNoSlot, Timestamp{}) ==
        Verdict::full);
  CHECK(core.length() == 4);
  CHECK(test.told().empty());
  test.push(core);
  CHECK(test.told() == Cores{&core});
  test.push(core);
  CHECK(test.told().empty());

  CHECK(core.watch_for(6, 4096) == Rest::again);  // they are there, so it has to look by itself
  test.push(core);
  CHECK(test.told().empty());

  // What has been popped does not count.
  REQUIRE(pop(core) == 7);
  CHECK(core.watch_for(1, 4096) == Rest::idle);
  test.push(core);
  CHECK(test.told() == Cores{&core});
}

TEST_CASE("the consumer is told when so many bytes are used as it waits for", "[R-G7][R-A10]") {
  Consumed test;
  auto& core = *test.add_used();
  CHECK(core.watch_for(100, 40) == Rest::idle);
  test.push(core, 2);  // 16 bytes each
  CHECK(test.told().empty());
  test.push(core);
  CHECK(test.told() == Cores{&core});
  CHECK(core.watch_for(100, 49) == Rest::later);
  CHECK(core.watch_for(100, 48) == Rest::again);
  CHECK(core.watch_for(100, 64) == Rest::later);
  test.push(core);  // exactly
  CHECK(test.told() == Cores{&core});
  REQUIRE(pop(core, 3) == 3);
  CHECK(core.watch_for(100, 16) == Rest::again);  // one event can be enough
  REQUIRE(pop(core) == 1);
  CHECK(core.watch_for(100, 0) == Rest::idle);  // none is not
}

TEST_CASE("a shard that is full tells its consumer once, whatever that waits for", "[R-G7][R-J4]") {
  Consumed test;
  auto& core = *test.add_used(4);
  Call call(5);
  CHECK(core.watch_for(100, 4096) == Rest::idle);
  SECTION("by one event after the other") {
    test.push(core, 3);
    CHECK(test.told().empty());
    Waiting none{.allowed = false};
    const auto push = [&] {
      return core.push(Core::kAnyVersion, {"x", {}, {}}, Core::kNoSlot, Timestamp{}, none);
    };
    CHECK(push() == shard::detail::verdict(Outcome::dropped_newest));
    auto* const node = test.ready.claim(Timestamp{}).node;
    CHECK(node == core.node());
    CHECK(push() == shard::detail::verdict(Outcome::dropped_newest));
    test.ready.release(*node, Rest::idle, false);
    CHECK(test.told().empty());  // not again while it looks
  }
  SECTION("by a batch call, which fills it exactly") {
    const auto result = call.push(core);
    CHECK(result.accepted == 3);
    CHECK(result.rest == shard::detail::kGroupEnd);
    CHECK(std::count(call.outcomes.begin(), call.outcomes.end(), Outcome::accepted) == 3);
    CHECK(test.told() == Cores{&core});
  }
  CHECK(core.length() == 3);
}

TEST_CASE("a batch call tells the consumer in its middle and goes on", "[R-G7]") {
  Consumed test;
  auto& core = *test.add_used();
  CHECK(core.watch_for(3, 4096) == Rest::idle);
  Call call(5);
  CHECK(call.push(core).accepted == 5);
  CHECK(test.told() == Cores{&core});
  CHECK(Call(5).push(core).accepted == 5);
  CHECK(test.told().empty());
}

TEST_CASE("a flush tells the consumer, and what it asks for waits for no company", "[R-H1]") {
  Consumed test;
  auto& core = *test.add_used();
  CHECK(core.watch_for(3, 4096) == Rest::idle);
  test.push(core, 2);
  CHECK_FALSE(core.wants_flush());
  const auto mark = core.request_flush();
  CHECK(mark.position == 3);
  CHECK(mark.events == 3);
  CHECK(core.wants_flush());
  // It is told already, so what comes in meanwhile does not tell it again.
  auto* const node = test.ready.claim(Timestamp{}).node;
  CHECK(node == core.node());
  test.push(core, 2);
  test.ready.release(*node, Rest::idle, false);
  CHECK(test.told().empty());

  CHECK(core.watch_for(100, 4096) == Rest::again);
  EventBatch batch;
  CHECK(core.take(batch, 100, kAll).events == 4);
  CHECK(core.wants_flush());
  CHECK(core.watch_for(100, 4096) == Rest::idle);  // nothing is queued that could be hurried
  CHECK(core.settle({.delivered = 4}, true, [] {}));
  CHECK_FALSE(core.wants_flush());
  test.push(core);
  CHECK(core.watch_for(100, 4096) == Rest::later);
}

TEST_CASE("who pops by hand tells whoever waits for other shards, who finds nothing does not",
          "[R-D15]") {
  Consumed test;
  auto& core = *test.add_used();
  auto& waiter = *test.add_used();
  test.set_aside(waiter);
  CHECK(pop(core) == 0);
  CHECK(test.told().empty());
  test.push(core, 2);
  CHECK(pop(core, 1) == 1);
  CHECK(test.told() == Cores{&waiter});
}

TEST_CASE("an eviction tells whoever may wait for what was evicted, and nobody later",
          "[R-D15][R-C2]") {
  Consumed test;
  auto& core = *test.add(4, Backpressure::drop_oldest());
  auto& waiter = *test.add_used();
  test.push(core, 3);
  test.told();
  const auto is_told_of_push = [&] {
    test.set_aside(waiter);
    test.push(core);
    const auto told = test.told();
    CHECK(told.size() <= 1);
    test.ready.announce(*waiter.node());  // if it still waits
    test.told();
    return told == Cores{&waiter};
  };
  CHECK_FALSE(is_told_of_push());  // nobody waits for anything here
  CHECK(core.raise_min_version(1) == 4);
  CHECK(core.watermark() == 1);
  SECTION("one at a time") {
    for (int i = 0; i < 3; ++i) CHECK(is_told_of_push());
    CHECK(core.watermark() == 4);
    CHECK_FALSE(is_told_of_push());
  }
  SECTION("of several in one call, if one of them was waited for") {
    CHECK(is_told_of_push());
    CHECK(is_told_of_push());
    test.set_aside(waiter);
    Call call(2);
    CHECK(call.push(core).news.moved);
    CHECK(test.told() == Cores{&waiter});
    CHECK(core.ledger().evicted == 5);
  }
}

TEST_CASE("who makes room wakes whoever waits for it, and so does who closes", "[R-J4][R-D12]") {
  const shard_test::ManualClock time;
  const shard::Clock clock(&time);
  Core core(ShardId{0}, shard_test::small_options(1, 4, Backpressure::block(std::chrono::hours{1})),
            clock);
  const auto push = [&] {
    Waiting waiting;
    return core.push(Core::kAnyVersion, {"x", {}, {}}, Core::kNoSlot, Timestamp{}, waiting);
  };
  const auto is_woken = [&](const std::function<void()>& by) {
    REQUIRE(push() == Verdict::must_wait);
    const auto before = TrackingPlatform::wakes.load();
    by();
    return TrackingPlatform::wakes != before;
  };
  for (int i = 0; i < 3; ++i) REQUIRE(push() == Verdict::accepted);
  CHECK_FALSE(is_woken([] {}));
  CHECK_FALSE(is_woken([&] { pop(core, 0); }));
  CHECK(is_woken([&] { CHECK(pop(core, 1) == 1); }));
  CHECK(push() == Verdict::accepted);
  CHECK(is_woken([&] { CHECK(pop(core, 2) == 2); }));
  for (int i = 0; i < 2; ++i) REQUIRE(push() == Verdict::accepted);
  CHECK(is_woken([&] { core.raise_min_version(Core::kClosed); }));
  CHECK(push() == Verdict::stale);
}

// ---------------------------------------------------------------------------------- pushing

TEST_CASE("no push by a table older than the shard's own lands, by any way, and one as old does",
          "[R-D3][R-E4]") {
  const shard_test::ManualClock time;
  const shard::Clock clock(&time);
  Core core(ShardId{0}, shard_test::small_options(1, 64), clock, nullptr, true);
  const auto push_by = [&](std::uint64_t version) {
    const Item item{"x", {}, {}};
    Waiting none{.allowed = false};
    const std::array verdicts{core.push_if_room(version, item, Core::kNoSlot, Timestamp{}),
                              core.push(version, item, Core::kNoSlot, Timestamp{}, none),
                              Call(2).push(core, 0, version).verdict};
    CHECK(std::adjacent_find(verdicts.begin(), verdicts.end(), std::not_equal_to<>()) ==
          verdicts.end());
    return verdicts[0];
  };
  CHECK(push_by(Core::kAnyVersion) == Verdict::stale);  // made closed
  core.open();
  CHECK(push_by(0) == Verdict::accepted);
  CHECK(core.raise_min_version(5) == 4);
  CHECK(push_by(4) == Verdict::stale);
  CHECK(push_by(5) == Verdict::accepted);
  CHECK(core.raise_min_version(3) == 8);  // it is never lowered
  CHECK(push_by(4) == Verdict::stale);
  CHECK(push_by(5) == Verdict::accepted);
  CHECK(core.ledger() == Ledger{.accepted = 12, .queued = 12});
  // Where a group has stopped is what the caller goes on with.
  Call call(2);
  const auto result = call.push(core, 1, 4);
  CHECK(result.rest == 1);
  CHECK(result.accepted == 0);
}

TEST_CASE("an event costs its bytes and what lies before them, rounded up to 16", "[R-A10]") {
  struct Case {
    std::size_t payload;
    std::size_t key;
    bool source;
    bool owned;
    std::size_t cost;
  };
  const shard_test::ManualClock time;
  const shard::Clock clock(&time);
  Core core(ShardId{0}, shard_test::small_options(1, 64), clock);
  const std::string bytes(100, 'b');
  for (const auto& tried :
       {Case{0, 0, false, false, 0}, Case{1, 0, false, false, 16}, Case{16, 0, false, false, 16},
        Case{17, 0, false, false, 32}, Case{0, 1, false, false, 16}, Case{8, 8, false, false, 16},
        Case{8, 9, false, false, 32}, Case{0, 0, true, false, 16}, Case{16, 0, true, false, 32},
        Case{1, 16, true, false, 48}, Case{100, 0, false, true, 116},
        Case{100, 8, false, true, 116}, Case{100, 9, false, true, 132},
        Case{100, 8, true, true, 132}, Case{0, 8, true, true, 32}}) {
    CAPTURE(tried.payload, tried.key, tried.source, tried.owned);
    const auto payload = Bytes(bytes).text().substr(0, tried.payload);
    Item item{payload, Bytes(bytes).text().substr(0, tried.key), {7, 8}};
    item.flags = static_cast<std::uint16_t>((tried.key != 0 ? Record::kHasKey : 0U) |
                                            (tried.source ? Record::kHasSource : 0U) |
                                            (tried.owned ? Record::kOwned : 0U));
    if (tried.owned) {
      auto buffer = shard::Buffer::copy_of(payload);
      item.owned = BufferAccess::release(buffer);
    }
    REQUIRE(core.push_if_room(Core::kAnyVersion, item, Core::kNoSlot, Timestamp{}) ==
            Verdict::accepted);
    CHECK(core.bytes_used() == tried.cost);
    EventBatch popped;
    REQUIRE(core.pop(popped, 1, kAll) == 1);
    CHECK(popped[0].text() == payload);
    CHECK(core.bytes_used() == 0);
  }
}

TEST_CASE("a batch call gives the lock back after 64 KiB, and goes on where it was",
          "[R-A8][R-D3]") {
  auto options = shard_test::small_options(1, 64);
  options.ring_bytes = std::size_t{1} << 20U;
  const shard_test::ManualClock time;
  const shard::Clock clock(&time);
  Core core(ShardId{0}, options, clock);
  const std::string payload(16'384, 'p');  // four of them are not more
  Call call(std::vector<Item>(8, Item{payload, {}, {}}));
  const auto first = call.push(core);
  CHECK(first.verdict == Verdict::again);
  CHECK(first.accepted == 5);
  CHECK(first.rest == 5);
  CHECK(core.length() == 5);
  const auto second = call.push(core, first.rest);
  CHECK(second.verdict == Verdict::accepted);
  CHECK(second.accepted == 3);
  CHECK(second.rest == shard::detail::kGroupEnd);
}

TEST_CASE("a batch call that has to wait says where, and goes on there", "[R-D3][R-J4]") {
  const shard_test::ManualClock time;
  const shard::Clock clock(&time);
  Core core(ShardId{0}, shard_test::small_options(1, 4, Backpressure::block(std::chrono::hours{1})),
            clock);
  Call call(5);
  call.waiting.allowed = true;
  struct Step {
    GroupIndex from;
    GroupIndex rest;
  };
  for (const auto& step : {Step{0, 3}, Step{3, 4}}) {
    const auto result = call.push(core, step.from);
    CHECK(result.verdict == Verdict::must_wait);
    CHECK(result.rest == step.rest);
    CHECK_FALSE(result.refused);
    CHECK(pop(core, 1) == 1);
  }
  CHECK(call.push(core, 4).verdict == Verdict::accepted);
  CHECK(core.ledger() == Ledger{.accepted = 5, .returned = 2, .queued = 3});
}

TEST_CASE("one of 256 events is measured, whichever way they come in", "[R-E13]") {
  const shard_test::ManualClock time;
  const shard::Clock clock(&time);
  SECTION("one after the other, each of which evicts") {
    Core core(ShardId{0}, shard_test::small_options(1, 4, Backpressure::drop_oldest()), clock);
    for (std::uint64_t i = 1; i <= 600; ++i) {
      Waiting none{.allowed = false};
      REQUIRE(core.push(Core::kAnyVersion, {"x", {}, {}}, 5, Timestamp{}, none) ==
              Verdict::accepted);
      REQUIRE(core.push_costs().sampled == i / 256);
    }
    CHECK(core.sampled_slots()[1] == 5);
    CHECK(core.sampled_slots()[2] == Core::kNoSlot);
  }
  SECTION("as groups") {
    auto options = shard_test::small_options(1, 1024);
    options.ring_bytes = std::size_t{64} << 10U;
    Core core(ShardId{0}, options, clock);
    using Measured = Core::Measured;
    CHECK(Call(200).push(core).measured == Measured::no);
    CHECK(Call(100).push(core).measured == Measured::sampled);
    CHECK(Call(44).push(core).measured == Measured::no);
    CHECK(Call(168).push(core).measured == Measured::sampled);  // the 512th is its last
    CHECK(Call(10).push(core).measured == Measured::no);
    CHECK(core.push_costs().pushed == 522);
  }
}

TEST_CASE("what is measured is real time only, with the slots of the last 64", "[R-E13]") {
  using Measured = Core::Measured;
  SECTION("virtual time says nothing of what a push costs") {
    shard_test::ManualClock time(100);
    const shard::Clock clock(&time);
    Core core(ShardId{0}, shard_test::small_options(1, 4), clock);
    time.advance(50);
    core.sample(Timestamp{20}, Measured::sampled, 7);
    core.sample(Timestamp{20}, Measured::waited, 7);
    CHECK(core.push_costs().sampled == 1);
    CHECK(core.push_costs().sampled_ns == 0);
    CHECK(core.push_costs().waited_ns == 0);
  }
  SECTION("real time") {
    const shard::Clock clock;
    Core core(ShardId{0}, shard_test::small_options(1, 4), clock);
    const auto slots = core.sampled_slots();
    CHECK(std::count(slots.begin(), slots.end(), Core::kNoSlot) == 64);
    const auto before = clock.now();
    while (clock.now() <= before) {
    }
    const auto least = clock.now().nanoseconds - before.nanoseconds;
    core.sample(before, Measured::waited, 100);
    const auto waited = core.push_costs().waited_ns;
    core.sample(before, Measured::sampled, 101);
    const auto most = clock.now().nanoseconds - before.nanoseconds;
    CHECK(waited >= least);
    CHECK(core.push_costs().waited_ns == waited);
    CHECK(core.push_costs().sampled == 1);
    const auto sampled = core.push_costs().sampled_ns;
    CHECK(sampled >= waited);
    CHECK(sampled <= most);
    core.sample(Timestamp::max(), Measured::sampled, 102);  // from before the clock stepped back
    CHECK(core.push_costs().sampled == 2);
    CHECK(core.push_costs().sampled_ns == sampled);
    for (std::uint32_t slot = 103; slot < 165; ++slot) core.sample(before, Measured::sampled, slot);
    CHECK(core.sampled_slots()[0] == 164);
    for (std::uint16_t i = 1; i < 64; ++i) CHECK(core.sampled_slots()[i] == 100 + i);
  }
}

// ---------------------------------------------------------------------------------- popping

namespace {

/// How many events leave a shard in each hold of its lock.
struct Holds {
  static inline const Core* shard = nullptr;
  static inline std::size_t before = 0;
  static inline Sizes sizes = {};

  static void note() {
    const auto now = shard->length();
    sizes.push_back(before - now);
    before = now;
  }
  template <class Act>
  static Sizes of(const Core& core, const Act& act) {
    shard = &core;
    before = core.length();
    sizes.clear();
    shard_test::t_on_unlock = &note;
    act();
    shard_test::t_on_unlock = nullptr;
    return sizes;
  }
};

/// A shard that nobody is told of.
struct Alone {
  shard_test::ManualClock time;
  shard::Clock clock{&time};
  Core core;

  explicit Alone(std::size_t ring_capacity, std::size_t ring_bytes = std::size_t{64} << 10U)
      : core(ShardId{0}, options(ring_capacity, ring_bytes), clock) {}
  static shard::ManagerOptions options(std::size_t ring_capacity, std::size_t ring_bytes) {
    auto options = shard_test::small_options(1, ring_capacity);
    options.ring_bytes = ring_bytes;
    return options;
  }
  void push(std::size_t events, const std::string& payload = "x") {
    for (std::size_t i = 0; i < events; ++i) {
      REQUIRE(core.push_if_room(Core::kAnyVersion, {payload, {}, {}}, Core::kNoSlot, Timestamp{}) ==
              Verdict::accepted);
    }
  }
};

}  // namespace

TEST_CASE("a pop takes the lock for 256 events at a time, and no more often than it has to",
          "[R-A8]") {
  Alone test(1024);
  EventBatch out;
  test.push(600);
  CHECK(Holds::of(test.core, [&] { test.core.pop(out, 600, kAll); }) == Sizes{256, 256, 88});
  test.push(3);
  CHECK(Holds::of(test.core, [&] { test.core.pop(out, kAll, kAll); }) == Sizes{3});
  test.push(3);
  CHECK(Holds::of(test.core, [&] { test.core.pop(out, 2, kAll); }) == Sizes{2});
  CHECK(Holds::of(test.core, [&] { test.core.pop(out, 0, kAll); }) == Sizes{});
}

TEST_CASE("a pop gives the lock back after 64 KiB, and sooner where there is no room for more",
          "[R-A8]") {
  Alone test(64, std::size_t{1} << 20U);
  const auto sizes_into = [&](EventBatch& out) {
    test.push(10, std::string(16'384, 'p'));  // four of them are not more
    auto sizes = Holds::of(test.core, [&] { CHECK(test.core.pop(out, kAll, kAll) == 10); });
    std::erase(sizes, 0U);  // it looks once more
    return sizes;
  };
  EventBatch large;
  large.reserve_more(100, std::size_t{1} << 20U);
  CHECK(sizes_into(large) == Sizes{5, 5});
  EventBatch fresh;
  CHECK(sizes_into(fresh) == Sizes{4, 4, 2});
}

TEST_CASE("the bound of bytes holds over all that one pop takes, however often it takes the lock",
          "[R-A8]") {
  Alone test(1024);
  test.push(300);
  SECTION("where it is reached with the last event of a hold") {
    CHECK(pop(test.core, kAll, 256) == 256);
    CHECK(pop(test.core) == 44);
  }
  SECTION("in a later hold") { CHECK(pop(test.core, kAll, 280) == 280); }
  SECTION("and events without payload come along when it is reached") {
    REQUIRE(pop(test.core) == 300);
    test.push(256);
    test.push(1, "");
    test.push(10);
    CHECK(pop(test.core, kAll, 256) == 257);
  }
}

TEST_CASE("a shard that goes releases the buffers that are left in it", "[R-A7]") {
  shard_test::CountedBuffers counted;
  {
    Alone test(4);
    auto buffer = counted.make("owned");
    Item item{buffer.bytes(), {}, {}};
    item.owned = BufferAccess::release(buffer);
    item.flags = Record::kOwned;
    REQUIRE(test.core.push_if_room(Core::kAnyVersion, item, Core::kNoSlot, Timestamp{}) ==
            Verdict::accepted);
    CHECK(counted.released() == 0);
  }
  CHECK(counted.released() == 1);
}

// ---------------------------------------------------------------------------------- taken

TEST_CASE("the watermark stays at the first event of a batch until all of it is settled",
          "[R-D15][R-H1]") {
  Alone test(1024);
  auto& core = test.core;
  EventBatch batch;
  CHECK(core.watermark() == 0);
  test.push(10);
  REQUIRE(pop(core) == 10);
  CHECK(core.watermark() == 10);
  CHECK_FALSE(core.has_queued());
  test.push(310);
  CHECK(core.has_queued());
  const auto taken = core.take(batch, 300, kAll);  // by two holds of the lock
  CHECK(taken.events == 300);
  CHECK_FALSE(taken.fenced);
  CHECK_FALSE(taken.unclear);
  CHECK(core.watermark() == 10);
  CHECK(core.in_batch() == 300);
  CHECK(core.drained() == 310);

  int changes = 0;
  const auto change = [&] { ++changes; };
  CHECK(core.begin_attempt(change));
  CHECK(core.settle({.delivered = 100}, false, change));
  CHECK(core.watermark() == 10);
  CHECK(core.in_batch() == 200);
  CHECK(core.settle({.dead_lettered = 50, .possibly_delivered = 150}, true, change));
  CHECK(changes == 3);
  CHECK(core.watermark() == 310);
  CHECK(core.in_batch() == 0);
  CHECK(core.with_pop_lock(change));
  CHECK(changes == 4);
  CHECK(core.ledger() == Ledger{.accepted = 320,
                                .returned = 10,
                                .queued = 10,
                                .taken = 300,
                                .delivered = 100,
                                .dead_lettered = 50,
                                .possibly_delivered = 150});
  CHECK(core.stats().events_dispatched == 110);
}

TEST_CASE("who takes and finds nothing holds nothing back", "[R-D15]") {
  Alone test(8);
  EventBatch batch;
  const auto taken = test.core.take(batch, 10, kAll);
  CHECK(taken.events == 0);
  CHECK_FALSE(taken.fenced);
  CHECK_FALSE(taken.unclear);
  test.push(2);
  REQUIRE(pop(test.core, 1) == 1);
  CHECK(test.core.watermark() == 1);
}

TEST_CASE("when time is over what is under way is counted by whether it is tried just now",
          "[R-I2][R-I3]") {
  Alone test(64);
  auto& core = test.core;
  EventBatch batch;
  test.push(6);
  int changes = 0;
  const auto change = [&] { ++changes; };
  std::vector<bool> looks;
  const auto look = [&](bool attempting) { looks.push_back(attempting); };
  Ledger expected{.accepted = 6, .queued = 1, .taken = 5};
  SECTION("nothing is") {
    core.expire(look);
    CHECK(looks.empty());
    expected.queued = 6;
    expected.taken = 0;
  }
  SECTION("it was not tried yet") {
    REQUIRE(core.take(batch, 5, kAll).events == 5);
    core.expire(look);
    CHECK(looks == std::vector<bool>{false});
    expected.abandoned_batched = 5;
  }
  SECTION("it is tried") {
    REQUIRE(core.take(batch, 5, kAll).events == 5);
    REQUIRE(core.begin_attempt([] {}));
    core.expire(look);
    CHECK(looks == std::vector<bool>{true});
    expected.possibly_delivered = 5;
  }
  SECTION("its attempt has been answered") {
    REQUIRE(core.take(batch, 5, kAll).events == 5);
    REQUIRE(core.begin_attempt([] {}));
    REQUIRE(core.settle({.delivered = 2}, false, [] {}));
    core.expire(look);
    CHECK(looks == std::vector<bool>{false});
    expected.delivered = 2;
    expected.abandoned_batched = 3;
  }
  CHECK(core.ledger() == expected);
  CHECK(core.in_batch() == 0);
  // Whoever comes back later finds it taken away.
  CHECK_FALSE(core.begin_attempt(change));
  CHECK_FALSE(core.settle({.delivered = 1}, true, change));
  CHECK_FALSE(core.with_pop_lock(change));
  CHECK(changes == 0);
  const auto taken = core.take(batch, 10, kAll);
  CHECK(taken.events == 0);
  CHECK_FALSE(taken.fenced);
  CHECK(core.ledger() == expected);
}

// ---------------------------------------------------------------------------------- fences

TEST_CASE("a fence lets out what came before it, and the rest when its source has got there",
          "[R-D15]") {
  Consumed test;
  auto& core = *test.add();
  const auto source = test.add();
  test.push(*source);
  test.push(core, 3);
  REQUIRE(pop(core, 1) == 1);
  auto& fence = Consumed::place(core, source);
  test.push(core, 3);
  CHECK(core.raise_min_version(1) == 7);  // six events and a fence
  CHECK_FALSE(is_fenced(core));
  CHECK(pop(core, 1) == 1);
  CHECK(pop(core) == 1);   // the last one before it
  CHECK(is_fenced(core));  // until when is not known yet
  CHECK(pop(core) == 0);
  CHECK(core.watermark() == 3);

  fence.until.store(1);
  EventBatch batch;
  const auto waits = core.take(batch, 10, kAll);
  CHECK(waits.events == 0);
  CHECK(waits.fenced);
  CHECK_FALSE(waits.unclear);
  REQUIRE(pop(*source) == 1);
  CHECK_FALSE(is_fenced(core));
  CHECK(core.watermark() == 4);
  CHECK(core.take(batch, 2, kAll).events == 2);
  CHECK(core.watermark() == 4);  // where the batch begins, the fence counted
  CHECK(core.settle({.delivered = 2}, true, [] {}));
  CHECK(core.watermark() == 6);
  CHECK(pop(core) == 1);
  CHECK(core.watermark() == 7);
}

TEST_CASE("fences in one shard are passed one after the other, and others can follow", "[R-D15]") {
  Consumed test;
  auto& core = *test.add();
  const std::array sources{test.add(), test.add(), test.add()};
  std::vector<Fence*> fences;
  for (const auto& source : sources) {
    test.push(*source);
    fences.push_back(&Consumed::place(core, source));
    test.push(core);
  }
  CHECK(core.raise_min_version(1) == 6);
  for (auto* const fence : fences) fence->until.store(1);
  // The last two may be passed, but not before the first.
  REQUIRE(pop(*sources[1]) == 1);
  REQUIRE(pop(*sources[2]) == 1);
  CHECK(pop(core) == 0);
  CHECK(core.watermark() == 0);
  REQUIRE(pop(*sources[0]) == 1);
  CHECK(pop(core) == 3);
  CHECK(core.watermark() == 6);
  auto& later = Consumed::place(core, sources[0]);
  test.push(core);
  CHECK(is_fenced(core));
  CHECK(pop(core) == 0);
  CHECK(core.watermark() == 6);
  later.until.store(1);
  CHECK(pop(core) == 1);
  CHECK(core.watermark() == 8);
}

TEST_CASE("a batch that ends with a hold of the lock, at a fence, is not fenced itself",
          "[R-D15]") {
  Consumed test;
  auto& core = *test.add(1024);
  const auto source = test.add();
  Call call(std::vector<Item>(256, Item{"", {}, {}}));
  REQUIRE(call.push(core).accepted == 256);
  Consumed::place(core, source);
  test.push(core);
  EventBatch batch;
  const auto taken = core.take(batch, 1'000, kAll);
  CHECK(taken.events == 256);
  CHECK_FALSE(taken.fenced);
  REQUIRE(core.settle({.delivered = 256}, true, [] {}));
  CHECK(core.take(batch, 1'000, kAll).fenced);
}

TEST_CASE("an eviction that goes past a fence does not take its place in the order away",
          "[R-D15][R-C2]") {
  Consumed test;
  auto& core = *test.add(4, Backpressure::drop_oldest());
  const auto source = test.add();
  test.push(*source);
  test.push(core, 2);
  auto& fence = Consumed::place(core, source);
  fence.until.store(1);
  test.push(core, 4);
  CHECK(core.ledger().evicted == 3);
  CHECK(core.watermark() == 2);
  CHECK(pop(core) == 0);
  REQUIRE(pop(*source) == 1);
  CHECK(pop(core) == 3);
  CHECK(core.watermark() == 7);
}

TEST_CASE("where another thread is in the way, whether a fence is passed is unclear, not no",
          "[R-D15]") {
  Consumed test;
  const auto first = test.add();
  const auto second = test.add();
  auto& last = *test.add();
  test.push(*first);
  Consumed::place(*second, first).until.store(1);
  Consumed::place(last, second).until.store(1);
  EventBatch batch;
  bool unclear = false;
  bool at_watermark_unclear = false;
  Core::Taken taken;
  REQUIRE(first->with_pop_lock([&] {
    CHECK(last.is_fenced(unclear));
    taken = last.take(batch, 10, kAll);
    CHECK(first->is_past(0, at_watermark_unclear));  // this needs no look
  }));
  CHECK(unclear);
  CHECK(taken.fenced);
  CHECK(taken.unclear);
  CHECK_FALSE(at_watermark_unclear);
  CHECK(last.is_fenced(unclear));  // nobody is in the way any more
  CHECK_FALSE(unclear);
  taken = last.take(batch, 10, kAll);
  CHECK(taken.fenced);
  CHECK_FALSE(taken.unclear);
  CHECK_FALSE(first->is_past(1, unclear));
  CHECK_FALSE(unclear);
  unclear = true;  // by somebody else before
  CHECK_FALSE(first->is_past(1, unclear));
  CHECK(unclear);
  REQUIRE(pop(*first) == 1);
  CHECK_FALSE(is_fenced(last));
}

TEST_CASE("fences that lead back to the shard that is asked are not taken for another thread",
          "[R-D15]") {
  Consumed test;
  const auto core = test.add();
  const auto other = test.add();
  test.push(*core);
  Consumed::place(*other, core).until.store(1);
  Consumed::place(*core, other).until.store(1);  // behind the fence in there
  EventBatch batch;
  REQUIRE(core->take(batch, 10, kAll).events == 1);
  bool unclear = true;
  CHECK(core->is_fenced(unclear));
  CHECK_FALSE(unclear);
  // And only while it asks.
  REQUIRE(core->with_pop_lock([&] { CHECK(other->is_fenced(unclear)); }));
  CHECK(unclear);
  REQUIRE(core->settle({.delivered = 1}, true, [] {}));
  CHECK_FALSE(is_fenced(*core));
  CHECK_FALSE(is_fenced(*other));
}

TEST_CASE("a shard is drained when it is closed and has neither event nor batch nor fence",
          "[R-E5][R-D15]") {
  Consumed test;
  auto& core = *test.add();
  const auto source = test.add();
  CHECK_FALSE(core.is_drained());
  test.push(core, 2);
  auto& fence = Consumed::place(core, source);
  core.raise_min_version(Core::kClosed);
  CHECK_FALSE(core.is_drained());
  REQUIRE(pop(core, 1) == 1);
  EventBatch batch;
  REQUIRE(core.take(batch, 10, kAll).events == 1);
  fence.until.store(0);
  CHECK_FALSE(core.is_drained());
  REQUIRE(core.settle({.delivered = 1}, true, [] {}));
  CHECK(core.is_drained());

  auto& fenced = *test.add();
  Consumed::place(fenced, source);
  fenced.raise_min_version(Core::kClosed);
  CHECK_FALSE(fenced.is_drained());
  auto& queued = *test.add();
  test.push(queued);
  queued.raise_min_version(Core::kClosed);
  CHECK_FALSE(queued.is_drained());
}

TEST_CASE("who waits for a shard that is retired goes on only if that let everything go",
          "[R-D15][R-I1]") {
  Consumed test;
  auto& waiter = *test.add();
  const auto source = test.add();
  Consumed::place(waiter, source).until.store(2);
  test.push(*source, 2);
  SECTION("it did") {
    REQUIRE(pop(*source) == 2);
    source->retire();
    CHECK(source->watermark() == kEnd);
    CHECK_FALSE(is_fenced(waiter));
  }
  SECTION("it did not") {
    REQUIRE(pop(*source, 1) == 1);
    source->retire();
    source->retire();
    CHECK(source->watermark() == 1);
    CHECK(is_fenced(waiter));
    CHECK(source->ledger() == Ledger{.accepted = 2, .returned = 1, .abandoned_queued = 1});
    CHECK(source->bytes_used() == 0);
  }
  CHECK(pop(*source) == 0);
}
