// A batch call whose slots change hands while it is under way.

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>

#include "support/batch_call.hpp"

using shard::Outcome;
using shard_test::BatchCall;

namespace {

constexpr auto kChunk = BatchCall::kChunk;
constexpr auto kEvents = BatchCall::kEvents;
constexpr auto kMoved = BatchCall::kMoved;
constexpr auto kStays = BatchCall::kStays;

}  // namespace

TEST_CASE("what follows a refused event of its shard is refused, also where its slot has gone",
          "[R-D3]") {
  BatchCall call;
  for (std::size_t i = 0; i < 3; ++i) call.set(i, kMoved);  // the third finds no room
  call.set(kChunk, kMoved);
  call.set(kChunk + 1, kStays);
  call.set(kChunk + 3, kMoved);
  call.set(2 * kChunk, kMoved);
  call.set(2 * kChunk + 2, kStays);
  const auto before = call.ledger(0).accepted;
  call.run([&] { call.move(kMoved); });

  CHECK(call.of(0) == Outcome::accepted);
  CHECK(call.of(1) == Outcome::accepted);
  CHECK(call.of(2) == Outcome::rejected_full);
  CHECK(call.of(kChunk) == Outcome::rejected_full);
  CHECK(call.of(kChunk + 1) == Outcome::rejected_full);
  CHECK(call.of(kChunk + 2) == Outcome::accepted);
  CHECK(call.of(kChunk + 3) == Outcome::rejected_full);
  CHECK(call.of(2 * kChunk) == Outcome::rejected_full);
  CHECK(call.of(2 * kChunk + 1) == Outcome::accepted);
  CHECK(call.of(2 * kChunk + 2) == Outcome::rejected_full);
  CHECK(call.accepted == kEvents - 6);
  // Each is counted by the shard that its slot led to then.
  CHECK(call.ledger(0).accepted == before + 2);
  CHECK(call.ledger(0).rejected_full == 3);
  CHECK(call.ledger(1).accepted == kEvents - 8);
  CHECK(call.ledger(1).rejected_full == 3);

  // The next call starts anew.
  CHECK(call.core.admit_by_hash({"x", {}, {}}, std::uint64_t{kMoved} << call.core.slot_shift) ==
        Outcome::accepted);
}

TEST_CASE("a batch whose slot moves goes on to the other shard when nothing of it was refused",
          "[R-D3]") {
  BatchCall call;
  call.set(0, kMoved);
  call.set(kChunk, kMoved);
  call.set(kChunk + 1, kStays);
  call.set(2 * kChunk, kMoved);
  call.run([&] { call.move(kMoved); });
  CHECK(call.accepted == kEvents);
  CHECK(call.ledger(0).rejected_full == 0);
  CHECK(call.ledger(1).accepted == kEvents - 2);
}

TEST_CASE("what is left of a batch is refused when the manager closes, wherever it would go",
          "[R-I1]") {
  BatchCall call;
  call.set(kChunk, kMoved);
  call.run([&] { call.core.close(); });
  CHECK(call.accepted == kChunk);
  for (std::size_t i = kChunk; i < kEvents; ++i) {
    REQUIRE(call.of(i) == Outcome::rejected_closed);
  }
  CHECK(call.core.own_counts().rejected_closed == kEvents - kChunk);
}
