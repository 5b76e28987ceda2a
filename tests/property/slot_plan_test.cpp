#include "shard/detail/slot_plan.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace {

using namespace shard::detail::slot_plan;

using Random = std::mt19937_64;

/// Distinct members, in any order, such that there are at least 16 slots for each.
std::vector<Member> random_members(Random& random, std::size_t most) {
  std::vector<Member> members(2 * most);
  std::iota(members.begin(), members.end(), Member{0});
  std::shuffle(members.begin(), members.end(), random);
  members.resize(1 + random() % most);
  return members;
}

/// Slots that lead to these members, the first few to more of them than the others.
Slots random_slots(Random& random, std::size_t count, const std::vector<Member>& members) {
  Slots slots(count);
  for (auto& slot : slots) slot = members[random() % (1 + random() % members.size())];
  return slots;
}

std::vector<double> random_parts(Random& random, std::size_t count) {
  std::vector<double> parts(count);
  for (auto& part : parts) part = std::uniform_real_distribution<double>{}(random);
  return parts;
}

std::size_t held(const Slots& slots, Member member) {
  return static_cast<std::size_t>(std::count(slots.begin(), slots.end(), member));
}

/// The same for all members at once.
std::vector<std::size_t> held_by_each(const Slots& slots) {
  std::vector<std::size_t> counts(std::size_t{kNowhere} + 1);
  for (const auto member : slots) ++counts[member];
  return counts;
}

double load_of(const Slots& slots, const std::vector<double>& load, Member member) {
  double sum = 0;
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    if (slots[slot] == member) sum += load[slot];
  }
  return sum;
}

/// The difference between the members with the most and the fewest slots.
std::size_t unevenness(const Slots& slots, const std::vector<Member>& members) {
  std::size_t least = slots.size();
  std::size_t most = 0;
  const auto counts = held_by_each(slots);
  for (const auto member : members) {
    least = std::min(least, counts[member]);
    most = std::max(most, counts[member]);
  }
  return most - least;
}

std::size_t moves(const Slots& before, const Slots& after) {
  std::size_t count = 0;
  for (std::size_t slot = 0; slot < before.size(); ++slot) count += before[slot] != after[slot];
  return count;
}

std::size_t random_count(Random& random) { return std::size_t{4096} << random() % 2; }

}  // namespace

TEST_CASE("an even table gives the same number of slots to all, to one", "[R-D1]") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    INFO("seed " << seed);
    Random random(seed);
    const auto count = random_count(random);
    const auto members = random_members(random, count / 16);
    const auto slots = even(count, members);
    CHECK(slots.size() == count);
    CHECK(unevenness(slots, members) <= 1);
  }
  CHECK(held(even(4096, {}), kNowhere) == 4096);
}

TEST_CASE("a newcomer takes its fair share, evenly from all, and nothing else moves", "[R-D9]") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    INFO("seed " << seed);
    Random random(seed);
    const auto count = random_count(random);
    auto members = random_members(random, count / 16);
    const auto newcomer = members.back();
    members.pop_back();
    const auto before = members.empty() || seed % 2 == 0 ? even(count, members)
                                                         : random_slots(random, count, members);
    const auto after = join(before, members, newcomer);
    CHECK(after == join(before, members, newcomer));
    CHECK(held(after, newcomer) == (members.empty() ? count : count / (members.size() + 1)));
    CHECK(moves(before, after) == held(after, newcomer));  // nobody else gains
    const auto had = held_by_each(before);
    const auto has = held_by_each(after);
    for (const auto donor : members) {  // each gives one n-th of what it had
      const auto given = static_cast<double>(had[donor] - has[donor]);
      const auto due = static_cast<double>(had[donor]) / static_cast<double>(members.size() + 1);
      CHECK(std::abs(given - due) <= 1.5);
    }
    if (seed % 2 == 0) {
      members.push_back(newcomer);
      CHECK(unevenness(after, members) <= 1);
    }
  }
}

TEST_CASE("what a leaver had is spread over the others, and nothing else moves", "[R-D9]") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    INFO("seed " << seed);
    Random random(seed);
    const auto count = random_count(random);
    auto members = random_members(random, count / 16);
    const auto before = seed % 2 == 0 ? even(count, members) : random_slots(random, count, members);
    const auto leaver = members[random() % members.size()];
    std::erase(members, leaver);
    const auto after = leave(before, leaver, members);
    CHECK(held(after, leaver) == 0);
    CHECK(moves(before, after) == held(before, leaver));  // nobody else loses
    CHECK(held(after, kNowhere) == (members.empty() ? count : 0));
    if (seed % 2 == 0 && !members.empty()) CHECK(unevenness(after, members) <= 1);
    // Nobody is raised above a level that another one, without a gain, is below.
    const auto had = held_by_each(before);
    const auto has = held_by_each(after);
    std::size_t level = 0;
    for (const auto member : members) {
      if (has[member] > had[member]) level = std::max(level, has[member]);
    }
    for (const auto member : members) CHECK(has[member] + 1 >= level);
  }
}

TEST_CASE("shares stay even however often shards come and go", "[R-D9][R-D5]") {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    INFO("seed " << seed);
    Random random(seed);
    std::vector<Member> members{0};
    auto slots = even(4096, members);
    for (Member next = 1; next < 300; ++next) {
      if (members.size() > 1 && random() % 2 == 0) {
        const auto leaver = members[random() % members.size()];
        std::erase(members, leaver);
        slots = leave(std::move(slots), leaver, members);
      } else {
        slots = join(std::move(slots), members, next);
        members.push_back(next);
      }
      REQUIRE(unevenness(slots, members) <= 1);
      REQUIRE(held(slots, kNowhere) == 0);
    }
  }
}

TEST_CASE("balancing moves no more than permitted, closer to the weights each time, and ends",
          "[R-D6][R-D7][R-D5]") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    INFO("seed " << seed);
    Random random(seed);
    const std::size_t count = 4096;
    const auto members = random_members(random, 64);
    auto weights = random_parts(random, members.size());
    for (auto& weight : weights) weight = 1.0 / 16 + weight * 15 / 16;
    const auto goal = balance(even(count, members), members, weights, count);
    const auto at_goal = held_by_each(goal);
    const auto n = static_cast<double>(members.size());
    for (const auto member : members) {
      CHECK(held(goal, member) >= 1);
      CHECK(static_cast<double>(held(goal, member)) <= std::max(1.0, kMostSlots / n) * count + 1);
    }
    CHECK(balance(goal, members, weights, count) == goal);  // within rounding nothing moves

    auto slots = random_slots(random, count, members);
    const auto distance = [&](const Slots& from) {
      std::size_t sum = 0;
      for (const auto member : members) {
        const auto a = held(from, member);
        const auto b = held(goal, member);
        sum += a > b ? a - b : b - a;
      }
      return sum;
    };
    const std::size_t most = 16 + random() % 200;
    for (std::size_t round = 0;; ++round) {
      REQUIRE(round <= 2 * count / most + 2);  // it comes to an end
      const auto next = balance(slots, members, weights, most);
      if (next == slots) break;
      REQUIRE(moves(slots, next) <= most);
      // Nobody moves away from its goal, or past it, but for rounding.
      const auto had = held_by_each(slots);
      const auto has = held_by_each(next);
      for (const auto member : members) {
        const auto before = had[member];
        const auto after = has[member];
        const auto end = at_goal[member];
        REQUIRE(std::min(before, end) <= after + 1);
        REQUIRE(after <= std::max(before, end) + 1);
      }
      slots = next;
    }
    CHECK(distance(slots) <= members.size());
  }
}

TEST_CASE("a small difference in weight makes a small difference in share", "[R-D6]") {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    INFO("seed " << seed);
    Random random(seed);
    const auto members = random_members(random, 32);
    auto weights = random_parts(random, members.size());
    for (auto& weight : weights) weight = 1.0 / 16 + weight * 15 / 16;
    const auto slots = even(4096, members);
    const auto one = balance(slots, members, weights, 4096);
    auto& changed = weights[random() % weights.size()];
    changed = std::min(1.0, changed * 1.01);
    const auto other = balance(slots, members, weights, 4096);
    for (const auto member : members) {
      const auto a = static_cast<double>(held(one, member));
      const auto b = static_cast<double>(held(other, member));
      CHECK(std::abs(a - b) <= 0.011 * a + 2);
    }
  }
}

TEST_CASE("weights that are no numbers leave every shard a candidate", "[R-D5]") {
  constexpr auto kNaN = std::numeric_limits<double>::quiet_NaN();
  constexpr auto kInfinity = std::numeric_limits<double>::infinity();
  const std::vector<Member> members{0, 1, 2, 3};
  const auto slots = even(4096, members);
  const std::vector<std::vector<double>> all{{kNaN, kNaN, kNaN, kNaN},
                                             {0, 0, 0, 0},
                                             {kInfinity, kInfinity, kInfinity, kInfinity},
                                             {-1, -kInfinity, kNaN, 0}};
  for (const auto& weights : all) CHECK(balance(slots, members, weights, 4096) == slots);
  const auto mixed = balance(slots, members, std::vector<double>{kNaN, kInfinity, 0, 1}, 4096);
  for (const auto member : members) CHECK(held(mixed, member) >= 1);
  CHECK(held(mixed, 1) <= 2048);
  CHECK(held(balance(slots, {}, {}, 10), kNowhere) == 4096);
}

TEST_CASE("balancing gives away what leads nowhere or to a shard that is gone", "[R-D4][R-D5]") {
  const std::vector<Member> all{0, 1, 2, 3};
  const std::vector<Member> left{1, 3};
  const auto slots = balance(even(4096, all), left, std::vector<double>{1, 1}, 0);
  CHECK(held(slots, 1) == 2048);
  CHECK(held(slots, 3) == 2048);
  CHECK(unevenness(balance(Slots(4096, kNowhere), all, std::vector<double>(4, 1.0), 0), all) <= 1);
}

TEST_CASE("a fresh shard ramps up by a bounded number of slots", "[R-D7]") {
  const std::vector<Member> old{0, 1, 2};
  const std::vector<Member> all{0, 1, 2, 3};
  auto slots = even(4096, old);
  for (std::size_t round = 1; round <= 16; ++round) {
    slots = balance(slots, all, std::vector<double>(4, 1.0), 64);
    CHECK(held(slots, 3) == 64 * round);
  }
  CHECK(unevenness(slots, all) <= 1);
}

TEST_CASE("with known loads no shard keeps twice its share, unless by its hottest slot", "[R-D6]") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    INFO("seed " << seed);
    Random random(seed);
    const auto members = random_members(random, 32);
    std::vector<double> load(4096, 0.0);
    for (int key = 1; key < 2000; ++key) load[random() % load.size()] += 1.0 / key;
    const auto total = std::accumulate(load.begin(), load.end(), 0.0);
    const auto hottest = *std::max_element(load.begin(), load.end());
    const std::vector<double> weights(members.size(), 1.0);
    auto slots = even(4096, members);
    for (std::size_t round = 0;; ++round) {
      REQUIRE(round < 1000);  // it comes to an end
      auto next = balance(slots, members, weights, 64, load);
      if (next == slots) break;
      slots = std::move(next);
    }
    const auto fair = total / static_cast<double>(members.size());
    for (const auto member : members) {
      CHECK(load_of(slots, load, member) <= std::max(2 * fair, hottest) + 1e-9);
      CHECK(held(slots, member) >= 1);
    }
  }
}

TEST_CASE("moving hot slots brings two loads closer, never past each other, and ends", "[R-E18]") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    INFO("seed " << seed);
    Random random(seed);
    const std::vector<Member> members{0, 1, 2};
    auto slots = random_slots(random, 4096, members);
    std::vector<double> load(4096, 0.0);
    for (auto& one : load) one = random() % 10 == 0 ? static_cast<double>(random() % 1000) : 0;
    if (seed % 2 == 0) load[random() % load.size()] = 1e6;  // hotter than all else
    Member from = 0;
    Member to = 1;
    if (load_of(slots, load, from) < load_of(slots, load, to)) std::swap(from, to);
    const std::size_t most = 1 + random() % 100;
    for (int round = 0;; ++round) {
      REQUIRE(round < 5000);
      const auto list = hot_moves(slots, load, from, to, most);
      CHECK(hot_moves(slots, load, to, from, most).empty());  // nothing goes back
      REQUIRE(list.size() <= most);
      if (list.empty()) break;
      const auto before = load_of(slots, load, from);
      for (const auto slot : list) {
        REQUIRE(slots[slot] == from);
        slots[slot] = to;
      }
      REQUIRE(load_of(slots, load, from) >= load_of(slots, load, to));
      REQUIRE(load_of(slots, load, from) < before);
    }
    // What still differs is less than twice any slot that could go.
    const auto difference = load_of(slots, load, from) - load_of(slots, load, to);
    for (std::size_t slot = 0; slot < slots.size(); ++slot) {
      if (slots[slot] == from && load[slot] > 0) CHECK(2 * load[slot] > difference);
    }
  }
}

TEST_CASE("one hot slot stays, and what shares its shard leaves", "[R-E18]") {
  const std::vector<Member> members{0, 1};
  auto slots = even(4096, members);
  std::vector<double> load(4096, 0.0);
  load[7] = 600;
  for (std::size_t slot = 100; slot < 140; ++slot) load[slot] = 10;
  const auto list = hot_moves(slots, load, 0, 1, 4096);
  CHECK(list.size() == 40);
  CHECK(std::find(list.begin(), list.end(), 7) == list.end());
}
