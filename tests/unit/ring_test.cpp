#include "shard/detail/ring.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/misuse_recorder.hpp"

using shard::detail::kDebugChecks;
using shard::detail::Record;
using shard::detail::Ring;

namespace {

Record numbered(std::uint64_t number) { return {number, 0, 0, 0, 0, 0}; }

/// Pops all that there is; their numbers.
std::vector<std::uint64_t> drain(Ring& ring) {
  std::vector<std::uint64_t> numbers;
  std::vector<Record> out(3);
  const auto turn = ring.read_turn();
  while (const auto count = ring.pop(turn, out)) {
    for (std::size_t i = 0; i < count; ++i) numbers.push_back(out[i].timestamp());
  }
  return numbers;
}

}  // namespace

TEST_CASE("a ring of capacity n holds n - 1 records and gives them back in order", "[R-A5]") {
  const auto capacity = GENERATE(std::size_t{2}, std::size_t{4}, std::size_t{64});
  Ring ring(capacity);
  for (std::uint64_t round = 0; round < 3; ++round) {
    std::vector<std::uint64_t> pushed;
    for (std::uint64_t i = 0; i < capacity - 1; ++i) {
      pushed.push_back(round * 1000 + i);
      ring.push(ring.write_turn(), numbered(pushed.back()));
    }
    CHECK(drain(ring) == pushed);
    CHECK(drain(ring).empty());
  }
}

TEST_CASE("a ring holds no record beyond its usable capacity", "[R-A5]") {
  if constexpr (kDebugChecks) {
    const shard_test::MisuseRecorder misuse;
    Ring ring(4);
    const std::vector<Record> records(4, numbered(1));
    ring.push(ring.write_turn(), records);
    CHECK(misuse.count() == 1);
    CHECK(misuse.last() == "a ring was pushed beyond its capacity");
    CHECK(drain(ring).size() == 3);
  }
}

TEST_CASE("two turns at the same end of a ring that overlap are caught", "[R-A2]") {
  if constexpr (kDebugChecks) {
    const shard_test::MisuseRecorder misuse;
    Ring ring(4);
    SECTION("the read index") {
      const auto first = ring.read_turn();
      CHECK(misuse.count() == 0);
      const auto second = ring.read_turn();
      CHECK(misuse.count() == 1);
      CHECK(misuse.last() == "two threads move the read index of a ring");
    }
    SECTION("the write index") {
      const auto first = ring.write_turn();
      CHECK(misuse.count() == 0);
      const auto second = ring.write_turn();
      CHECK(misuse.count() == 1);
      CHECK(misuse.last() == "two threads move the write index of a ring");
    }
    SECTION("from another thread") {
      const auto first = ring.read_turn();
      std::thread([&ring] { const auto second = ring.read_turn(); }).join();
      CHECK(misuse.count() == 1);
    }
  }
}

TEST_CASE("turns are checked per index and per ring, so the two ends may be held at once",
          "[R-A2]") {
  const shard_test::MisuseRecorder misuse;
  Ring ring(4);
  Ring other(4);
  const auto writing = ring.write_turn();
  const auto reading = ring.read_turn();
  const auto elsewhere = other.read_turn();
  CHECK(misuse.count() == 0);
}

TEST_CASE("turns of different threads one after the other are no misuse", "[R-A3]") {
  const shard_test::MisuseRecorder misuse;
  Ring ring(8);
  const auto use = [&ring] {
    ring.push(ring.write_turn(), numbered(1));
    CHECK(drain(ring).size() == 1);  // joined below, so no two threads check at once
  };
  use();
  std::thread(use).join();
  std::thread(use).join();
  use();
  CHECK(misuse.count() == 0);
}

TEST_CASE("a turn is given back on early return and on exceptions", "[R-A3]") {
  const shard_test::MisuseRecorder misuse;
  Ring ring(4);
  const auto returns_early = [&ring](bool early) {
    const auto turn = ring.read_turn();
    if (early) return 1;
    return 2;
  };
  CHECK(returns_early(true) == 1);
  const auto throws = [&ring] {
    const auto turn = ring.read_turn();
    throw std::runtime_error("in the middle of a turn");
  };
  CHECK_THROWS_AS(throws(), std::runtime_error);
  CHECK(drain(ring).empty());
  CHECK(misuse.count() == 0);
}
