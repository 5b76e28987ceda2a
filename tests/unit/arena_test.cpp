#include "shard/detail/arena.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <vector>

using shard::detail::copy_bytes;
using shard::detail::SystemPlatform;

namespace {

/// With its tail, which a shard keeps elsewhere.
class Arena {
 public:
  using Place = shard::detail::Arena<SystemPlatform>::Place;

  explicit Arena(std::size_t size, std::uint64_t first_position = 0)
      : arena_(size, first_position), tail_(first_position) {}

  [[nodiscard]] Place place(std::uint32_t block) const { return arena_.place(tail_, block); }
  [[nodiscard]] bool seems_to_fit(std::uint64_t cost) const {
    return arena_.seems_to_fit(tail_, cost);
  }
  [[nodiscard]] bool fits(std::uint64_t cost) { return arena_.fits(tail_, cost); }
  void limit(std::size_t bytes) { arena_.limit(bytes); }
  void allocate(Place place, std::uint64_t cost) {
    shard::detail::Arena<SystemPlatform>::allocate(tail_, place, cost);
  }
  void free(std::uint64_t cost) { arena_.free(cost); }
  [[nodiscard]] std::byte* at(std::uint32_t offset) const { return arena_.at(offset); }
  [[nodiscard]] std::size_t size() const { return arena_.size(); }
  [[nodiscard]] std::size_t used() const { return arena_.used(tail_); }

 private:
  shard::detail::Arena<SystemPlatform> arena_;
  shard::detail::Arena<SystemPlatform>::Tail tail_;
};

}  // namespace

TEST_CASE("blocks lie one after the other, rounded up to 16 bytes", "[R-A10]") {
  Arena arena(4096);
  const auto first = arena.place(1);
  CHECK(first.offset == 0);
  CHECK(first.held == 16);
  arena.allocate(first, first.held);
  const auto second = arena.place(16);
  CHECK(second.offset == 16);
  CHECK(second.held == 16);
  arena.allocate(second, second.held);
  const auto third = arena.place(17);
  CHECK(third.offset == 32);
  CHECK(third.held == 32);
  CHECK(arena.used() == 32);
}

TEST_CASE("an empty block takes no bytes", "[R-A10]") {
  Arena arena(4096);
  CHECK(arena.place(0).held == 0);
}

TEST_CASE("a block that does not fit before the end starts anew and is charged for what it skips",
          "[R-A10]") {
  Arena arena(4096);
  arena.allocate(arena.place(4080), 4080);
  arena.free(4080);
  const auto fits = arena.place(16);
  CHECK(fits.offset == 4080);
  CHECK(fits.held == 16);
  const auto wraps = arena.place(17);
  CHECK(wraps.offset == 0);
  CHECK(wraps.held == 16 + 32);
}

TEST_CASE("exactly the whole budget can be in use, and not a byte more", "[R-A10]") {
  Arena arena(4096);
  CHECK(arena.fits(4096));
  CHECK_FALSE(arena.fits(4097));
  arena.allocate(arena.place(4096), 4096);
  CHECK(arena.used() == 4096);
  CHECK(arena.fits(0));
  CHECK_FALSE(arena.fits(1));
  arena.free(1);
  CHECK(arena.fits(1));
  CHECK_FALSE(arena.fits(2));
}

TEST_CASE("what was freed shows when somebody looks for it", "[R-A10]") {
  Arena arena(4096);
  CHECK(arena.seems_to_fit(4096));
  CHECK_FALSE(arena.seems_to_fit(4097));
  arena.allocate(arena.place(4096), 4096);
  arena.free(16);
  CHECK_FALSE(arena.seems_to_fit(16));
  CHECK(arena.fits(16));
  CHECK(arena.seems_to_fit(16));
  CHECK_FALSE(arena.seems_to_fit(17));
}

TEST_CASE("blocks of a cache line do not straddle two") {
  std::deque<Arena> arenas;  // several: one may lie right by chance
  for (int i = 0; i < 8; ++i) {
    const auto& arena = arenas.emplace_back(4096);
    CHECK(reinterpret_cast<std::uintptr_t>(arena.at(0)) % shard::detail::kCacheLine == 0);
  }
}

TEST_CASE("a limit makes the budget smaller, until it is lifted", "[R-A10]") {
  Arena arena(4096);
  arena.limit(64);
  CHECK(arena.fits(64));
  CHECK_FALSE(arena.fits(65));
  arena.limit(arena.size());
  CHECK(arena.fits(4096));
}

TEST_CASE("what lies elsewhere counts against the budget without taking room", "[R-A10]") {
  Arena arena(4096);
  const auto place = arena.place(8);
  arena.allocate(place, place.held + 4000U);
  CHECK(arena.used() == 4016);
  CHECK(arena.place(8).offset == 16);
  CHECK_FALSE(arena.fits(96));
  CHECK(arena.fits(80));
}

TEST_CASE("positions that pass the end of 64 bits change nothing", "[R-A4]") {
  constexpr std::uint32_t kSize = 4096;
  const auto seed = GENERATE(1U, 2U, 3U);
  INFO("seed " << seed);
  std::mt19937 random(seed);
  // The first position is a few blocks before the wrap, at a multiple of the size as in a new arena.
  const auto before_wrap = std::uint64_t{0} - 2 * kSize;
  Arena arena(kSize, before_wrap);
  Arena reference(kSize);

  struct Block {
    Arena::Place place;
    std::uint32_t size;
    unsigned char fill;
  };
  std::deque<Block> live;
  std::uint64_t allocated = 0;
  std::size_t refused = 0;
  std::size_t corrupted = 0;
  for (unsigned step = 0; step < 2000; ++step) {
    const auto size = std::uniform_int_distribution<std::uint32_t>(0, kSize / 2)(random);
    const auto place = arena.place(size);
    const auto expected = reference.place(size);
    REQUIRE(place.offset == expected.offset);
    REQUIRE(place.held == expected.held);
    const bool fits = arena.fits(place.held);
    REQUIRE(fits == reference.fits(place.held));
    if (fits) {
      const auto fill = static_cast<unsigned char>(step);
      arena.allocate(place, place.held);
      reference.allocate(place, place.held);
      std::memset(arena.at(place.offset), fill, size);
      live.push_back({place, size, fill});
      allocated += place.held;
    } else {
      ++refused;
      REQUIRE_FALSE(live.empty());  // any block up to half of the size fits when all else is freed
      const auto& oldest = live.front();
      const auto* at = arena.at(oldest.place.offset);
      corrupted += std::all_of(at, at + oldest.size,
                               [&](std::byte b) { return b == std::byte{oldest.fill}; })
                       ? 0U
                       : 1U;
      arena.free(oldest.place.held);
      reference.free(oldest.place.held);
      live.pop_front();
    }
    REQUIRE(arena.used() == reference.used());
  }
  CHECK(corrupted == 0);
  CHECK(refused > 100);
  CHECK(allocated > 2 * kSize);  // the positions have wrapped
}

TEST_CASE("copying bytes writes exactly the range, for every size", "[R-A12]") {
  std::vector<std::byte> from(300);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 37 + 1);
  for (std::size_t size = 0; size <= 290; ++size) {
    std::vector<std::byte> to(from.size(), std::byte{0xEE});
    copy_bytes(to.data() + 5, from.data() + 3, size);
    std::vector<std::byte> expected(from.size(), std::byte{0xEE});
    std::copy_n(from.begin() + 3, size, expected.begin() + 5);
    INFO("size " << size);
    REQUIRE(to == expected);
  }
}
