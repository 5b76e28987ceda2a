#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "shard/detail/manager_core_impl.hpp"
#include "shard/detail/routing_table.hpp"
#include "shard/manager.hpp"
#include "support/books.hpp"
#include "support/scripted_clock.hpp"
#include "support/tables.hpp"

namespace {

using shard::Bytes;
using shard::Manager;
using shard::ManagerOptions;
using shard::Outcome;
using shard::ShardId;
using shard_test::payloads_for;
using shard_test::ScriptedClock;
using Core = shard::detail::ManagerCore<shard::detail::SystemPlatform>;
using Table = shard::detail::RoutingTable<shard::detail::SystemPlatform>;
using ShardCore = shard::detail::ShardCore<shard::detail::SystemPlatform>;

/// A table for so many members, none of which is there; only its slots matter.
Table slots_only(std::size_t members) {
  return shard_test::table_of<shard::detail::SystemPlatform>(
      1, std::vector<std::shared_ptr<ShardCore>>(members), Table::slots_for(members));
}

/// How often each member has how many of the slots.
std::vector<std::size_t> slots_of_members(const Table& table) {
  std::vector<std::size_t> counts(table.members.size());
  for (const auto member : table.slots) ++counts.at(member);
  return counts;
}

/// How far `seen` is from `expected`, in standard deviations of the chi-square statistic. About normal
/// for many classes, so a hash that spreads well is within a few of them on either side.
double chi_square_deviation(const std::vector<std::size_t>& seen,
                            const std::vector<double>& expected) {
  double chi = 0;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const auto off = static_cast<double>(seen[i]) - expected[i];
    chi += off * off / expected[i];
  }
  const auto freedom = static_cast<double>(seen.size() - 1);
  return (chi - freedom) / std::sqrt(2 * freedom);
}

/// Texts that differ little from each other, as keys do.
std::string similar_text(std::size_t kind, std::size_t i) {
  switch (kind) {
    case 0:
      return std::to_string(i);
    case 1:
      return "device-" + std::to_string(i) + "/temperature";
    default: {
      std::string bytes(8, '\0');  // a binary counter
      for (auto& byte : bytes) {
        byte = static_cast<char>(i & 0xFFU);
        i >>= 8U;
      }
      return bytes;
    }
  }
}

ManagerOptions many_small(std::size_t shards) {
  return {.shards = shards,
          .ring_capacity = 1024,
          .ring_bytes = 32768,
          .max_payload = 1024,
          .inline_max = 1024,
          .max_key = 256,
          .backpressure = shard::Backpressure::fail_producer(),
          .seed = 42};
}

}  // namespace

// ---------------------------------------------------------------------------------- even slots

TEST_CASE("every member has its even share of the slots, for any number of shards",
          "[R-D1][R-D4]") {
  for (std::size_t members = 1; members <= ManagerOptions::kMaxShards; ++members) {
    CAPTURE(members);
    const auto table = slots_only(members);
    const auto counts = slots_of_members(table);
    const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
    REQUIRE(*most - *least <= 1);
    REQUIRE(*least >= 16);
    REQUIRE(std::is_sorted(table.slots.begin(), table.slots.end()));
  }
}

TEST_CASE("a table without members leads nowhere", "[R-D4]") {
  const auto table = slots_only(0);
  for (std::uint32_t slot = 0; slot < table.slots.size(); ++slot) {
    REQUIRE(table.member_of(slot) == nullptr);
  }
}

// ---------------------------------------------------------------------------------- an even hash

TEST_CASE("similar texts spread evenly over the slots", "[R-D1]") {
  const auto kind = GENERATE(0U, 1U, 2U);
  const auto seed = GENERATE(0U, 1U, 0xDEADBEEFU);
  CAPTURE(kind, seed);
  constexpr std::size_t kSlots = 4096;
  constexpr std::size_t kTexts = 40 * kSlots;
  const shard::detail::Hasher hasher(seed);
  std::vector<std::size_t> seen(kSlots);
  for (std::size_t i = 0; i < kTexts; ++i) ++seen[hasher(similar_text(kind, i)) >> 52U];
  const auto deviation = chi_square_deviation(
      seen, std::vector<double>(kSlots, static_cast<double>(kTexts) / static_cast<double>(kSlots)));
  CHECK(std::abs(deviation) < 5);
}

TEST_CASE("similar texts spread evenly over any number of shards", "[R-D1]") {
  const auto kind = GENERATE(0U, 1U, 2U);
  const std::size_t shards = GENERATE(2U, 3U, 5U, 7U, 10U, 16U, 100U, 255U, 641U, 1000U, 1024U);
  CAPTURE(kind, shards);
  const shard::detail::Hasher hasher(7);
  const auto table = slots_only(shards);
  const auto shift = static_cast<unsigned>(65 - std::bit_width(table.slots.size()));
  const auto texts = std::max<std::size_t>(10'000, 100 * shards);
  std::vector<std::size_t> seen(shards);
  for (std::size_t i = 0; i < texts; ++i) {
    ++seen[table.slots[hasher(similar_text(kind, i)) >> shift]];
  }
  std::vector<double> expected;
  for (const auto slots : slots_of_members(table)) {
    expected.push_back(static_cast<double>(texts) * static_cast<double>(slots) /
                       static_cast<double>(table.slots.size()));
  }
  // With few shards the statistic is skewed: more room above than a normal one would need.
  CHECK(chi_square_deviation(seen, expected) < 7);
}

// ---------------------------------------------------------------------------------- where events go

TEST_CASE("every way in puts an event where select_shard_by_hash says", "[R-D4][R-D8][R-D1]") {
  const std::size_t shards = GENERATE(1U, 2U, 3U, 16U, 37U);
  CAPTURE(shards);
  Manager manager(many_small(shards));
  std::mt19937_64 random(shards);
  std::vector<std::string> texts;
  for (int i = 0; i < 600; ++i) {
    std::string text(random() % 60, '\0');
    for (auto& c : text) c = static_cast<char>(random());
    texts.push_back(text + std::to_string(i));
  }
  const auto where = [&](Bytes bytes) {
    return *manager.select_shard_by_hash(manager.hash(bytes));
  };
  const auto all_where_they_belong = [&](std::size_t count) {
    std::size_t popped = 0;
    for (const auto id : manager.shard_ids()) {
      const auto batch = manager.shard(id)->pop_batch();
      for (const auto event : batch) {
        REQUIRE(event.shard == id);
        REQUIRE(where(event.key ? event.key->bytes : event.payload) == id);
      }
      popped += batch.size();
    }
    REQUIRE(popped == count);
  };

  for (const auto& text : texts) REQUIRE(manager.ingest(text) == Outcome::accepted);
  all_where_they_belong(600);
  for (const auto& text : texts)
    REQUIRE(manager.ingest("same", shard::Key{text}) == Outcome::accepted);
  all_where_they_belong(600);
  CHECK(manager.ingest_batch(shard_test::views_of(texts)) == 600);
  all_where_they_belong(600);
  std::vector<shard::RawEvent> events;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    events.push_back(i % 2 == 0 ? manager.raw_event(texts[i])
                                : manager.raw_event("same", shard::Key{texts[i]}));
  }
  CHECK(manager.ingest_raw_batch(events) == 600);
  all_where_they_belong(600);
  for (const auto& event : events) REQUIRE(manager.ingest_raw(event) == Outcome::accepted);
  all_where_they_belong(600);
}

TEST_CASE("an event that was hashed with another seed still goes to the right shard", "[R-D10]") {
  Manager manager(many_small(16));
  auto options = many_small(16);
  options.seed = 43;
  const Manager elsewhere(options);
  std::vector<shard::RawEvent> foreign;
  std::vector<std::string> texts;
  for (int i = 0; i < 300; ++i) texts.push_back("text" + std::to_string(i));
  for (const auto& text : texts) foreign.push_back(elsewhere.raw_event(text));
  for (const auto& event : foreign) REQUIRE(manager.ingest_raw(event) == Outcome::accepted);
  CHECK(manager.ingest_raw_batch(foreign) == foreign.size());
  for (const auto id : manager.shard_ids()) {
    for (const auto event : manager.shard(id)->pop_batch()) {
      REQUIRE(manager.select_shard_by_hash(manager.hash(event.payload)) == id);
    }
  }
}

TEST_CASE("a hash that was made outside with the manager's seed is taken as it is", "[R-D10]") {
  Manager manager(many_small(16));
  // The hash of another payload, so that it shows which one was used.
  const auto hash = manager.hash("another payload");
  const auto event = shard::RawEvent::with_hash("payload", hash, manager.seed());
  REQUIRE(manager.ingest_raw(event) == Outcome::accepted);
  CHECK(manager.shard(*manager.select_shard_by_hash(hash))->len() == 1);
}

TEST_CASE("the seed decides where events go, and by default it is another one each time",
          "[R-D10]") {
  auto options = many_small(16);
  const Manager one(options);
  options.seed = 43;
  const Manager other(options);
  int moved = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto text = std::to_string(i);
    moved +=
        one.select_shard_by_hash(one.hash(text)) != other.select_shard_by_hash(other.hash(text))
            ? 1
            : 0;
  }
  CHECK(moved > 850);  // 15 of 16 are expected
  options.seed.reset();
  CHECK(Manager(options).seed() != Manager(options).seed());
}

TEST_CASE("a key goes to one shard whatever the payload", "[R-D8]") {
  const std::size_t shards = GENERATE(1U, 2U, 7U, 64U);
  CAPTURE(shards);
  Manager manager(many_small(shards));
  for (int key = 0; key < 20; ++key) {
    const auto name = "key" + std::to_string(key);
    std::vector<std::string> texts;
    for (int i = 0; i < 30; ++i) texts.push_back(std::string(static_cast<std::size_t>(i), 'p'));
    for (const auto& text : texts) {
      REQUIRE(manager.ingest(text, shard::Key{name}) == Outcome::accepted);
    }
    const auto id = *manager.select_shard_by_hash(manager.hash(name));
    REQUIRE(manager.total_pending_in_rings() == texts.size());
    REQUIRE(shard_test::drain(*manager.shard(id)) == texts);  // and in order
  }
}

TEST_CASE("identical payloads with different keys spread", "[R-D8]") {
  Manager manager(many_small(16));
  for (int i = 0; i < 1600; ++i) {
    REQUIRE(manager.ingest("same", shard::Key{std::to_string(i)}) == Outcome::accepted);
  }
  for (const auto id : manager.shard_ids()) {
    CHECK(manager.shard(id)->len() > 50);
    CHECK(manager.shard(id)->len() < 150);
  }
}

// ---------------------------------------------------------------------------------- a table that changes

namespace {

/// A core of two shards and a newer table for it that sends everything to the second.
struct Moving {
  explicit Moving(shard::Backpressure backpressure = shard::Backpressure::fail_producer())
      : core([&] {
          auto options = many_small(2);
          options.backpressure = backpressure;
          options.time_source = &clock;
          return std::make_shared<Core>(options);
        }()) {
    for (const auto& member : core->topology.tables.peek()->members) members.push_back(member.core);
  }

  /// Publishes the table and closes the first shard for the older one, as a removal does.
  void move() {
    auto next = std::make_shared<Table>(shard_test::table_of(
        core->topology.tables.version() + 1, members, core->topology.tables.peek()->slots.size()));
    std::fill(next->slots.begin(), next->slots.end(), std::uint16_t{1});
    const auto version = next->version;
    core->topology.tables.publish(std::move(next));
    members[0]->raise_min_version(version);
  }

  /// Moves in the middle of an ingest call: at so many readings of the clock from here.
  void move_at_reading(std::uint64_t reading) {
    clock.on_reading([this, at = clock.readings() + reading] {
      if (clock.readings() == at) move();
    });
  }

  [[nodiscard]] Outcome ingest(const std::string& text) {
    return core->admit_by_hash(shard::detail::Item{text, {}, {}}, core->hasher(text));
  }

  /// Texts that the first table sends to the first shard.
  [[nodiscard]] std::vector<std::string> texts(std::size_t count) const {
    std::vector<std::string> some;
    for (std::size_t i = 0; some.size() < count; ++i) {
      auto text = std::to_string(i);
      if (core->hasher(text) >> 63U == 0) some.push_back(std::move(text));
    }
    return some;
  }

  [[nodiscard]] std::vector<std::string> popped(std::size_t member) {
    shard::EventBatch batch;
    members[member]->pop(batch, 10'000, 1U << 30U);
    std::vector<std::string> some;
    for (const auto event : batch) some.emplace_back(event.text());
    return some;
  }

  ScriptedClock clock;
  std::shared_ptr<Core> core;
  std::vector<std::shared_ptr<ShardCore>> members;
};

}  // namespace

TEST_CASE("a producer reads its cached table until there is a newer one, and then that", "[R-D2]") {
  Moving moving;
  const auto texts = moving.texts(3);
  REQUIRE(moving.ingest(texts[0]) == Outcome::accepted);
  const auto* cached = moving.core->topology.tables.cached();
  REQUIRE(cached != nullptr);
  REQUIRE(moving.ingest(texts[1]) == Outcome::accepted);
  CHECK(moving.core->topology.tables.cached() == cached);
  moving.move();
  CHECK(moving.core->topology.tables.cached() == nullptr);
  REQUIRE(moving.ingest(texts[2]) == Outcome::accepted);
  REQUIRE(moving.core->topology.tables.cached() != nullptr);
  CHECK(moving.core->topology.tables.cached()->version == cached->version + 1);
  CHECK(moving.popped(0) == std::vector{texts[0], texts[1]});
  CHECK(moving.popped(1) == std::vector{texts[2]});
}

TEST_CASE("an event whose shard is closed under it goes where the newer table says",
          "[R-D3][R-D14][R-C5]") {
  Moving moving;
  const auto texts = moving.texts(2);
  REQUIRE(moving.ingest(texts[0]) == Outcome::accepted);
  moving.move_at_reading(1);  // after the table was read, before the lock is taken
  CHECK(moving.ingest(texts[1]) == Outcome::accepted);
  CHECK(moving.popped(0) == std::vector{texts[0]});
  CHECK(moving.popped(1) == std::vector{texts[1]});
  CHECK(moving.core->own_counts() == shard::Ledger{});  // the refusal in between is no outcome
}

TEST_CASE("a producer that waits for room in a shard that is closed goes on to the next",
          "[R-D14][R-J4]") {
  Moving moving(shard::Backpressure::block(std::chrono::nanoseconds::max()));
  const auto texts = moving.texts(1024);
  for (std::size_t i = 0; i < 1023; ++i) REQUIRE(moving.ingest(texts[i]) == Outcome::accepted);
  moving.move_at_reading(3);
  CHECK(moving.ingest(texts[1023]) == Outcome::accepted);
  CHECK(moving.popped(0).size() == 1023);
  CHECK(moving.popped(1) == std::vector{texts[1023]});
}

TEST_CASE("a batch's group that is refused goes as a whole where the newer table says",
          "[R-D3][R-B6]") {
  Moving moving;
  const auto texts = moving.texts(700);
  REQUIRE(moving.ingest(texts[0]) == Outcome::accepted);
  const std::vector<Bytes> payloads(texts.begin() + 1, texts.end());
  std::vector<Outcome> outcomes(payloads.size());
  // The clock is read once for each 256 events, and a lock is not held for more.
  moving.move_at_reading(2);
  CHECK(moving.core->ingest_batch(payloads, outcomes) == payloads.size());
  CHECK(std::count(outcomes.begin(), outcomes.end(), Outcome::accepted) == 699);
  CHECK(moving.popped(0) == std::vector<std::string>(texts.begin(), texts.begin() + 257));
  CHECK(moving.popped(1) == std::vector<std::string>(texts.begin() + 257, texts.end()));
}

TEST_CASE("without an active shard every event is unrouted, and counted", "[R-D4][R-C1]") {
  Moving moving;
  REQUIRE(moving.ingest("before") == Outcome::accepted);
  moving.core->topology.tables.publish(std::make_shared<const Table>(
      shard_test::table_of(2, std::vector<std::shared_ptr<ShardCore>>{},
                           moving.core->topology.tables.peek()->slots.size())));
  CHECK(moving.ingest("x") == Outcome::unrouted);
  CHECK(moving.ingest("x") == Outcome::unrouted);
  const std::vector<Bytes> payloads(300, Bytes{"x"});
  std::vector<Outcome> outcomes(300);
  CHECK(moving.core->ingest_batch(payloads, outcomes) == 0);
  CHECK(std::count(outcomes.begin(), outcomes.end(), Outcome::unrouted) == 300);
  CHECK(moving.core->own_counts() == shard::Ledger{.unrouted = 302});
}

TEST_CASE("releasing evicted buffers after a table change uses no table that is gone", "[R-D13]") {
  // The release callback publishes twice and ingests, so that the table which the batch call began with
  // loses its last owner while the call goes on.
  struct Host {
    Moving moving{shard::Backpressure::drop_oldest()};
    int released = 0;
  } host;
  auto& moving = host.moving;
  const auto release = [](void* self) noexcept {
    auto& me = *static_cast<Host*>(self);
    if (me.released++ == 0) {
      me.moving.move();
      static_cast<void>(me.moving.ingest("a"));
      me.moving.move();
      static_cast<void>(me.moving.ingest("b"));
    }
  };
  auto buffer = shard::Buffer::adopt(Bytes{"old"}, release, &host);
  shard::detail::Item item{"old", {}, {}};
  item.owned = shard::BufferAccess::release(buffer);
  item.flags = shard::detail::Record::kOwned;
  REQUIRE(moving.core->admit_by_hash(item, 0) == Outcome::accepted);
  // To both shards in turn, so that there is another group to push behind the one that evicts.
  std::vector<std::string> texts;
  for (const auto& text : moving.texts(1500)) {
    texts.push_back(text);
    std::string to_second = "s0";
    for (int i = 0; moving.core->hasher(to_second) >> 63U == 0; ++i) {
      to_second = "s" + text + "." + std::to_string(i);
    }
    texts.push_back(to_second);
  }
  const std::vector<Bytes> payloads(texts.begin(), texts.end());
  CHECK(moving.core->ingest_batch(payloads, {}) == payloads.size());
  CHECK(host.released == 1);
}
