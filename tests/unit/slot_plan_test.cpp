// Whole plans for small tables, worked out by hand. What holds for any table is in tests/property.

#include "shard/detail/slot_plan.hpp"

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <vector>

namespace {

using namespace shard::detail::slot_plan;

constexpr auto kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr auto kInfinity = std::numeric_limits<double>::infinity();

/// So many slots that lead to one member.
struct Run {
  std::size_t slots;
  Member member;
};

Slots table(std::initializer_list<Run> runs) {
  Slots slots;
  for (const auto& run : runs) slots.insert(slots.end(), run.slots, run.member);
  return slots;
}

std::vector<Member> members(std::initializer_list<Member> list) { return list; }

/// No load but at these slots.
struct Load {
  std::size_t slot;
  double load;
};

std::vector<double> loads(std::size_t slots, std::initializer_list<Load> some) {
  std::vector<double> all(slots, 0.0);
  for (const auto& one : some) all[one.slot] = one.load;
  return all;
}

using Weights = std::vector<double>;
using Moves = std::vector<std::uint16_t>;

}  // namespace

// ---------------------------------------------------------------------------------- even, join, leave

TEST_CASE("an even table has a range for each member, in their order", "[R-D1]") {
  CHECK(even(16, members({5, 2, 9})) == table({{6, 5}, {5, 2}, {5, 9}}));
  CHECK(even(16, {}) == table({{16, kNowhere}}));
}

TEST_CASE("a newcomer takes from each in proportion, and what rounding leaves from who keeps most",
          "[R-D9]") {
  // A quarter of 12, 2 and 2 is 3, 0 and 0: the fourth slot comes from the first of them, wherever it is in the list.
  CHECK(join(table({{12, 1}, {2, 2}, {2, 3}}), members({2, 1, 3}), 4) ==
        table({{4, 4}, {8, 1}, {2, 2}, {2, 3}}));
  // Both give 2, and the fifth comes from who has more left; with as many left, from who is first in the list.
  CHECK(join(table({{7, 1}, {9, 2}}), members({1, 2}), 3) ==
        table({{2, 3}, {5, 1}, {3, 3}, {6, 2}}));
  CHECK(join(table({{8, 1}, {8, 2}}), members({2, 1}), 3) ==
        table({{2, 3}, {6, 1}, {3, 3}, {5, 2}}));
  CHECK(join(table({{32, 0}, {32, 1}}), members({0, 1}), 2) ==
        table({{11, 2}, {21, 0}, {10, 2}, {22, 1}}));
}

TEST_CASE("slots that lead nowhere go to the newcomer, as a part of its share", "[R-D9][R-D4]") {
  CHECK(join(table({{2, kNowhere}, {1, 3}, {13, 1}}), members({1}), 3) == table({{8, 3}, {8, 1}}));
  CHECK(join(table({{3, kNowhere}, {5, 1}}), members({1}), 2) == table({{4, 2}, {4, 1}}));
  // If that is more than its share already, nobody gives anything.
  CHECK(join(table({{6, kNowhere}, {2, 1}}), members({1}), 2) == table({{6, 2}, {2, 1}}));
  CHECK(join(table({{8, kNowhere}}), members({0, 1}), 2) == table({{8, 2}}));
  CHECK(join(table({{8, kNowhere}}), {}, 0) == table({{8, 0}}));
}

TEST_CASE("what a leaver had raises those with the fewest slots to one level", "[R-D9]") {
  // 7 for 5, 2 and 2: all have 5 then, and the one left over goes to who was first of those with the fewest.
  CHECK(leave(table({{7, 4}, {5, 1}, {2, 2}, {2, 3}}), 4, members({1, 3, 2})) ==
        table({{4, 3}, {3, 2}, {5, 1}, {2, 2}, {2, 3}}));
  // Who is above the level gets nothing.
  CHECK(leave(table({{4, 4}, {9, 1}, {1, 2}, {2, 3}}), 4, members({1, 2, 3})) ==
        table({{3, 2}, {1, 3}, {9, 1}, {1, 2}, {2, 3}}));
  CHECK(leave(table({{2, 4}, {1, 1}, {1, 2}}), 4, members({1, 2})) ==
        table({{1, 1}, {1, 2}, {1, 1}, {1, 2}}));  // nothing is left over
  CHECK(leave(table({{4, 1}, {4, 2}}), 1, {}) == table({{4, kNowhere}, {4, 2}}));
  CHECK(leave(table({{8, 1}}), 2, members({1})) == table({{8, 1}}));
}

// ---------------------------------------------------------------------------------- balance by weight

TEST_CASE("shares are one slot and a part of the rest in proportion to the weight",
          "[R-D6][R-D7]") {
  // 60 slots beyond the first ones by 1 : 1/2 : 1/4 : 1/4 make 31, 16, 8.5 and 8.5.
  const auto all = members({0, 1, 2, 3});
  const auto slots = even(64, all);
  const auto plan =
      table({{16, 0}, {16, 1}, {7, 0}, {9, 2}, {8, 0}, {8, 3}});  // a half makes no difference
  CHECK(balance(slots, all, Weights{1, 0.5, 0.25, 0.25}, 64) == plan);
  CHECK(balance(slots, all, Weights{5, 0.5, 0.25, 0.25}, 64) == plan);  // more than 1 counts as 1
  CHECK(balance(slots, all, Weights{1, 0.5, 0.25, 0.25}, 15) == plan);
  CHECK(balance(slots, all, Weights{1, 0.5, 0.25, 0.25}, 4) ==
        table({{16, 0}, {16, 1}, {2, 0}, {14, 2}, {2, 0}, {14, 3}}));
  CHECK(balance(slots, all, Weights{1, 0.5, 0.25, 0.25}, 0) == slots);
  CHECK(balance(plan, all, Weights{1, 0.5, 0.25, 0.25}, 64) == plan);
  CHECK(balance(table({{3, 0}, {1, 1}}), members({0, 1}), Weights{1, 1}, 4) ==
        table({{1, 1}, {2, 0}, {1, 1}}));  // where nothing is known of loads, the first slots go
}

TEST_CASE("nobody gets more than two fair shares, and the others share what that leaves",
          "[R-D6]") {
  // By weight alone 49, 4, 4 and 7. With at most 32 for the first it is 8.25, 8.25 and 15.5 for the others.
  const auto all = members({0, 1, 2, 3});
  CHECK(balance(even(64, all), all, Weights{1, 0.0625, 0.0625, 0.125}, 64) ==
        table({{16, 0}, {8, 0}, {8, 1}, {8, 0}, {8, 2}, {16, 3}}));
}

TEST_CASE("a table that is even to within rounding stays as it is", "[R-D6]") {
  std::vector<Member> all(64);
  std::iota(all.begin(), all.end(), Member{0});
  CHECK(balance(even(4096, all), all, Weights(64, 1.0), 4096) == even(4096, all));
  const auto three = members({0, 1, 2});
  CHECK(balance(even(64, three), three, Weights(3, 1.0), 64) == even(64, three));
  CHECK(balance(even(64, members({0})), members({0}), Weights{1}, 64) == even(64, members({0})));
}

TEST_CASE("slots of nobody in the list are given away in turn, whatever the limit",
          "[R-D4][R-D5]") {
  const auto slots = table({{4, 9}, {2, kNowhere}, {5, 0}, {5, 1}});
  const auto plan = table({{1, 1}, {1, 0}, {1, 1}, {1, 0}, {1, 1}, {1, 0}, {5, 0}, {5, 1}});
  for (const std::size_t most : {0U, 16U}) {
    CHECK(balance(slots, members({0, 1}), Weights{1, 1}, most) == plan);
    CHECK(balance(slots, members({0, 1}), Weights{1, 1}, most,
                  loads(16, {{0, 100}, {4, 100}, {6, 1}, {11, 1}})) == plan);
  }
  CHECK(balance(slots, {}, {}, 16) == table({{16, kNowhere}}));
}

// ---------------------------------------------------------------------------------- balance by load

TEST_CASE(
    "a shard with too much load gives as much of it as is too much, and keeps its hottest slot",
    "[R-D6]") {
  // Shard 0 has 21 of 40, 2.1 fair shares: with 13 of its 16 slots it would have 1.75 of them. 6 is above what is
  // enough, so of its hotter slots those with 4 and 2 go, and not those with 6.25 and 2.25; then one without load.
  const auto all = members({0, 1, 2, 3});
  const auto plan =
      table({{2, 0}, {1, 3}, {1, 0}, {1, 2}, {1, 1}, {10, 0}, {16, 1}, {16, 2}, {16, 3}});
  const auto load =
      loads(64, {{0, 6.5}, {1, 6.25}, {2, 4}, {3, 2.25}, {4, 2}, {16, 5}, {32, 6}, {48, 8}});
  CHECK(balance(even(64, all), all, Weights(4, 1.0), 64, load) == plan);
  // What is no load counts as none.
  auto strange = load;
  strange[7] = kNaN;
  strange[8] = kInfinity;
  strange[17] = -kInfinity;
  strange[33] = -5;
  CHECK(balance(even(64, all), all, Weights(4, 1.0), 64, strange) == plan);
  // Nor does the unit of the loads matter.
  auto small = load;
  for (auto& one : small) one /= 1024;
  CHECK(balance(even(64, all), all, Weights(4, 1.0), 64, small) == plan);
}

TEST_CASE("a shard with too little weight gives load in proportion", "[R-D6]") {
  // By 1 : 2 two slots leave shard 0, and of its load 8 a third may: with 1.5 and 1.05, and not with 2.7.
  CHECK(balance(even(16, members({0, 1})), members({0, 1}), Weights{0.5, 1}, 16,
                loads(16, {{0, 2.75}, {1, 2.7}, {2, 1.5}, {3, 1.05}, {8, 8}})) ==
        table({{2, 0}, {2, 1}, {4, 0}, {8, 1}}));
}

TEST_CASE("a shard with too many slots, and not too much load, gives its coldest slots first",
          "[R-D6]") {
  // Both have the same load, so shard 0 gives the two with less than average, and only then two of the others.
  const auto slots = table({{12, 0}, {4, 1}});
  auto load = loads(16, {{0, 1.5}, {10, 0.25}, {12, 13}});
  for (std::size_t slot = 1; slot < 10; ++slot) load[slot] = 1.25;
  const auto all = members({0, 1});
  CHECK(balance(slots, all, Weights{1, 1}, 16, load) ==
        table({{1, 0}, {2, 1}, {7, 0}, {2, 1}, {4, 1}}));
  CHECK(balance(slots, all, Weights{1, 1}, 2, load) == table({{10, 0}, {6, 1}}));
  // One with just the average is none of the hotter ones.
  CHECK(balance(table({{3, 0}, {1, 1}}), all, Weights{1, 1}, 4,
                loads(4, {{0, 1}, {2, 2}, {3, 3}})) == table({{1, 1}, {2, 0}, {1, 1}}));
}

TEST_CASE("a shard with one slot that is hotter than all else ends with that slot alone",
          "[R-D6]") {
  const auto slots = table({{2, 0}, {5, 1}, {5, 2}, {4, 3}});
  const auto all = members({0, 1, 2, 3});
  CHECK(balance(slots, all, Weights(4, 1.0), 16, loads(16, {{1, 97}, {2, 1}, {7, 1}, {12, 1}})) ==
        table({{1, 3}, {1, 0}, {5, 1}, {5, 2}, {4, 3}}));
  // Of two that are as hot, with the first.
  CHECK(balance(slots, all, Weights(4, 1.0), 16,
                loads(16, {{0, 97}, {1, 97}, {2, 1}, {7, 1}, {12, 1}})) ==
        table({{1, 0}, {1, 3}, {5, 1}, {5, 2}, {4, 3}}));
}

TEST_CASE("a shard with enough load gets no more slots, however few it has", "[R-D6]") {
  const auto slots = table({{8, 0}, {18, 1}, {19, 2}, {19, 3}});
  const auto all = members({0, 1, 2, 3});
  const auto of_first = [](double load) {
    return loads(64, {{0, load}, {8, 2}, {26, 2}, {45, 2}});
  };
  CHECK(balance(slots, all, Weights(4, 1.0), 64, of_first(4)) == slots);  // 1.6 fair shares
  CHECK(balance(slots, all, Weights(4, 1.0), 64, of_first(0)) !=
        slots);  // without it, as many as the others
}

TEST_CASE("a shard may have slots of average load until it has enough load, and no more",
          "[R-D6]") {
  // 0 and 1 have one slot and a fair share of the load each: half a share more is one slot. So both get one,
  // whatever the weights, and neither before the other.
  CHECK(balance(table({{1, kNowhere}, {1, 1}, {1, kNowhere}, {1, 0}}), members({0, 1}),
                Weights{1, 0.5}, 4, loads(4, {{1, 1}, {3, 1}})) == table({{2, 1}, {2, 0}}));
  // With 0.8 and 1.2 shares they may have 2.4 and 1.6 slots. 0 is further from that, and is served first.
  const auto slots = table({{1, kNowhere}, {1, 0}, {1, kNowhere}, {1, 1}});
  const auto load = loads(4, {{1, 2}, {3, 3}});
  CHECK(balance(slots, members({0, 1}), Weights{0.25, 1}, 4, load) == table({{2, 0}, {2, 1}}));
  CHECK(balance(slots, members({1, 0}), Weights{1, 0.25}, 4, load) == table({{2, 0}, {2, 1}}));
}

TEST_CASE("what no shard may have goes to all in proportion to what each may have", "[R-D6]") {
  // Shards 1 and 2 have 1.5 fair shares of the load and may have no second slot; 0 may have 42.67, two thirds of all.
  const auto slots = table({{62, 0}, {1, 1}, {1, 2}});
  CHECK(balance(slots, members({0, 1, 2}), Weights(3, 1.0), 64, loads(64, {{62, 1}, {63, 1}})) ==
        table({{1, 0}, {1, 2}, {60, 0}, {1, 1}, {1, 2}}));
  // Shares of 13.39, 1.26 and 1.36 slots: to within rounding it is so already.
  const auto even_enough = table({{14, 0}, {1, 1}, {1, 2}});
  CHECK(balance(even_enough, members({0, 1, 2}), Weights(3, 1.0), 16,
                loads(16, {{14, 1}, {15, 0.98}})) == even_enough);
}

// ---------------------------------------------------------------------------------- hot slots

TEST_CASE("the hottest slots that fit into half the difference move", "[R-E18]") {
  const auto slots = table({{8, 0}, {5, 1}, {3, 2}});
  // 9.5 here and 0.5 there: 4.5 may go. After the first 4 there is room for exactly 0.5.
  const auto load = loads(16, {{0, 4},
                               {1, 0.5},
                               {2, 4},
                               {3, kNaN},
                               {5, -3},
                               {6, kInfinity},
                               {7, 1},
                               {8, 0.5},
                               {9, kNaN},
                               {10, -1},
                               {13, 100}});
  CHECK(hot_moves(slots, load, 0, 1, 16) == Moves{0, 1});
  CHECK(hot_moves(slots, load, 0, 1, 2) == Moves{0, 1});
  CHECK(hot_moves(slots, load, 0, 1, 1) == Moves{0});  // of two that are as hot the first
  CHECK(hot_moves(slots, load, 0, 1, 0).empty());
  CHECK(hot_moves(slots, load, 1, 0, 16).empty());
  CHECK(hot_moves(table({{3, 0}, {1, 1}}), loads(4, {{0, 1}, {1, 2}, {2, 3}}), 0, 1, 16) ==
        Moves{2});
  CHECK(hot_moves(slots, std::vector<double>(16, 0.0), 0, 1, 16).empty());
}
