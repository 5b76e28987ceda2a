#include "shard/event_batch.hpp"

#include <catch2/catch.hpp>
#include <cstddef>
#include <iterator>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "shard/manager.hpp"
#include "support/books.hpp"
#include "support/counted_buffer.hpp"
#include "support/options.hpp"

using shard::EventBatch;
using shard_test::texts_of;

namespace {

/// A manager of one shard with the events "0", "1", ... "n - 1".
struct Queue {
  explicit Queue(std::size_t events) {
    for (std::size_t i = 0; i < events; ++i) {
      REQUIRE(manager.ingest(std::to_string(i)) == shard::Outcome::accepted);
    }
  }
  shard::Manager manager{shard_test::small_options(1, 64)};
  shard::Shard shard = *manager.shard(shard::ShardId{0});
};

}  // namespace

TEST_CASE("popping appends to what a batch has", "[R-A8]") {
  Queue queue(5);
  EventBatch batch;
  CHECK(queue.shard.pop_batch_into(batch, 2) == 2);
  CHECK(queue.shard.try_pop(batch));
  CHECK(queue.shard.pop_batch_into(batch) == 2);
  CHECK_FALSE(queue.shard.try_pop(batch));
  CHECK(texts_of(batch) == std::vector<std::string>{"0", "1", "2", "3", "4"});
  CHECK(batch.size() == 5);
  CHECK(batch.payload_bytes() == 5);
  CHECK(batch[3].text() == "3");
  CHECK(batch[3].sequence.value == 3);
}

TEST_CASE("a batch grows while it has events without losing any", "[R-A8]") {
  Queue queue(3);
  EventBatch batch;
  queue.shard.pop_batch_into(batch);
  batch.reserve_more(100'000, 1'000'000);
  CHECK(texts_of(batch) == std::vector<std::string>{"0", "1", "2"});
}

TEST_CASE("the room of a batch at least doubles when it grows, and is what was asked for at first",
          "[R-A8]") {
  using shard::EventBatchAccess;
  EventBatch batch;
  CHECK(EventBatchAccess::event_room(batch) == 0);
  CHECK(EventBatchAccess::byte_room(batch) == 0);
  batch.reserve_more(10, 1000);
  CHECK(EventBatchAccess::event_room(batch) == 10);
  CHECK(EventBatchAccess::byte_room(batch) == 1000);
  batch.reserve_more(10, 1000);  // it has that
  CHECK(EventBatchAccess::event_room(batch) == 10);
  CHECK(EventBatchAccess::byte_room(batch) == 1000);
  batch.reserve_more(11, 1001);
  CHECK(EventBatchAccess::event_room(batch) == 20);
  CHECK(EventBatchAccess::byte_room(batch) == 2000);
  batch.reserve_more(100, 10'000);
  CHECK(EventBatchAccess::event_room(batch) == 100);
  CHECK(EventBatchAccess::byte_room(batch) == 10'000);
  Queue queue(10);
  REQUIRE(queue.shard.pop_batch_into(batch, 10) == 10);
  CHECK(EventBatchAccess::event_room(batch) == 90);
}

TEST_CASE("a cleared batch is empty and can be filled again", "[R-A8]") {
  Queue queue(4);
  EventBatch batch;
  queue.shard.pop_batch_into(batch, 3);
  batch.clear();
  CHECK(batch.empty());
  CHECK(batch.payload_bytes() == 0);
  CHECK(batch.begin() == batch.end());
  queue.shard.pop_batch_into(batch);
  CHECK(texts_of(batch) == std::vector<std::string>{"3"});
}

TEST_CASE("moving and swapping batches moves their events", "[R-A7]") {
  Queue queue(3);
  EventBatch first;
  queue.shard.pop_batch_into(first, 2);
  EventBatch second = std::move(first);
  CHECK(texts_of(second) == std::vector<std::string>{"0", "1"});
  queue.shard.pop_batch_into(first);
  CHECK(texts_of(first) == std::vector<std::string>{"2"});
  first.swap(second);
  CHECK(texts_of(first) == std::vector<std::string>{"0", "1"});
  CHECK(first.payload_bytes() == 2);
  CHECK(second.payload_bytes() == 1);
  first = std::move(second);
  CHECK(texts_of(first) == std::vector<std::string>{"2"});
}

TEST_CASE("a batch releases moved-in buffers when it is cleared, overwritten or destroyed",
          "[R-A7]") {
  shard_test::CountedBuffers counted;
  shard::Manager manager(shard_test::small_options(1, 64));
  const auto shard = *manager.shard(shard::ShardId{0});
  const auto fill = [&](EventBatch& batch) {
    REQUIRE(manager.ingest(counted.make("owned")) == shard::Outcome::accepted);
    REQUIRE(manager.ingest("copied") == shard::Outcome::accepted);
    REQUIRE(manager.ingest(counted.make("owned"), shard::Key{"k"}, shard::SourceIdentity{1, 2}) ==
            shard::Outcome::accepted);
    REQUIRE(shard.pop_batch_into(batch) == 3);
  };
  {
    EventBatch batch;
    fill(batch);
    CHECK(texts_of(batch) == std::vector<std::string>{"owned", "copied", "owned"});
    CHECK(counted.released() == 0);
    batch.clear();
    CHECK(counted.released() == 2);
    batch.clear();
    CHECK(counted.released() == 2);

    fill(batch);
    batch.reserve_more(1000, 1 << 20);  // the entries move, the buffers stay
    CHECK(counted.released() == 2);
    batch = EventBatch{};
    CHECK(counted.released() == 4);

    fill(batch);
    CHECK(counted.released() == 4);
  }
  CHECK(counted.released() == 6);
}

TEST_CASE("room that cannot be had leaves the batch as it was", "[R-A8]") {
  constexpr auto kTooMuch = std::numeric_limits<std::size_t>::max();
  Queue queue(2);
  EventBatch batch;
  queue.shard.pop_batch_into(batch);
  CHECK_THROWS_AS(batch.reserve_more(kTooMuch, 0), std::bad_alloc);
  CHECK_THROWS_AS(batch.reserve_more(0, kTooMuch), std::bad_alloc);
  CHECK_THROWS_AS(batch.reserve_more(1000, kTooMuch), std::bad_alloc);
  CHECK_THROWS_AS(batch.reserve_more(kTooMuch / 2, 0), std::bad_alloc);
  CHECK(texts_of(batch) == std::vector<std::string>{"0", "1"});
}

TEST_CASE("a batch iterates as a range of values", "[R-A5]") {
  STATIC_REQUIRE(std::input_iterator<EventBatch::Iterator>);
  Queue queue(3);
  EventBatch batch;
  queue.shard.pop_batch_into(batch);
  auto at = batch.begin();
  CHECK((*at).text() == "0");
  CHECK((*at++).text() == "0");
  CHECK((*++at).text() == "2");
  CHECK(++at == batch.end());
}
