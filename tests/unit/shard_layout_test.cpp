#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include "shard/clock.hpp"
#include "shard/detail/platform.hpp"
#include "shard/detail/shard_core.hpp"
#include "shard/event_batch.hpp"
#include "support/manual_clock.hpp"
#include "support/options.hpp"

using shard::detail::kCacheLine;
using ShardCore = shard::detail::ShardCore<shard::detail::SystemPlatform>;
using Lines = std::set<std::size_t>;

namespace {

template <class Object>
std::vector<std::byte> bytes_of(const Object& object) {
  static_assert(alignof(Object) % kCacheLine == 0, "lines are counted from its beginning");
  std::vector<std::byte> bytes(sizeof object);
  std::memcpy(bytes.data(), static_cast<const void*>(&object), bytes.size());
  return bytes;
}

/// The cache lines in which they differ.
Lines lines_between(const std::vector<std::byte>& before, const std::vector<std::byte>& after) {
  Lines lines;
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (before[i] != after[i]) lines.insert(i / kCacheLine);
  }
  return lines;
}

/// Which cache lines of an object have another content after `change`. Locks are as they were then, but each lies in a
/// line with what it guards.
template <class Object, class Change>
Lines lines_written(const Object& object, const Change& change) {
  const auto before = bytes_of(object);
  change();
  return lines_between(before, bytes_of(object));
}

Lines both(const Lines& some, const Lines& others) {
  Lines lines;
  for (const auto line : some) {
    if (others.count(line) != 0) lines.insert(line);
  }
  return lines;
}

/// A shard with room for all that is pushed here.
struct Subject {
  shard_test::ManualClock source;
  shard::Clock clock{&source};
  ShardCore core{shard::ShardId{0}, options(), clock};
  shard::EventBatch batch;

  static shard::ManagerOptions options() {
    auto options = shard_test::small_options(1, 1'024);
    options.ring_bytes = std::size_t{64} << 10U;
    return options;
  }
  void push(std::size_t events) {
    for (std::size_t i = 0; i < events; ++i) {
      source.advance(1);
      REQUIRE(core.push_if_room(ShardCore::kAnyVersion, {shard::Bytes("payload"), {}, {}},
                                ShardCore::kNoSlot,
                                clock.now()) == shard::detail::Verdict::accepted);
    }
  }
  void pop(std::size_t events) {
    batch.clear();
    REQUIRE(core.pop(batch, events, 1U << 20U) == events);
  }
};

}  // namespace

TEST_CASE("who pushes and who pops write different cache lines of a shard, counts included",
          "[R-C9]") {
  Subject subject;
  // The first ones set up what lasts, and the stage takes up to 256 records out of the ring.
  subject.push(300);
  subject.pop(10);

  const auto pushing = lines_written(subject.core, [&] { subject.push(3); });
  const auto popping = lines_written(subject.core, [&] { subject.pop(3); });
  CHECK(!pushing.empty());
  CHECK(!popping.empty());
  CHECK(both(pushing, popping) == Lines{});

  // A hold of the lock later: the records come out of the ring, too.
  const auto filling = lines_written(subject.core, [&] { subject.pop(280); });
  CHECK(both(pushing, filling) == Lines{});
}

TEST_CASE("a push changes one cache line of its shard, the one with the lock", "[R-C9]") {
  Subject subject;
  subject.push(300);
  const auto pushing = lines_written(subject.core, [&] { subject.push(3); });
  CHECK(pushing.size() == 1);
  // It is one of the two that differ while both locks are held.
  const auto free = bytes_of(subject.core);
  const auto locks =
      subject.core.with_locks([&] { return lines_between(free, bytes_of(subject.core)); });
  CHECK(locks.size() == 2);
  CHECK(both(pushing, locks) == pushing);
}

TEST_CASE("what is counted once for each batch lies with who pops, not with who pushes", "[R-C9]") {
  Subject subject;
  subject.push(10);
  const auto pushing = lines_written(subject.core, [&] { subject.push(3); });
  const auto counting = lines_written(
      subject.core, [&] { subject.core.record_dispatch(10, std::chrono::microseconds{5}); });
  CHECK(!counting.empty());
  CHECK(both(pushing, counting) == Lines{});
}

TEST_CASE("two shards share no cache line", "[R-C9]") {
  STATIC_REQUIRE(alignof(ShardCore) >= kCacheLine);
  STATIC_REQUIRE(sizeof(ShardCore) % kCacheLine == 0);
}
