#include "shard/adapter.hpp"
#include "shard/pipeline.hpp"

#include <catch2/catch.hpp>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "shard/event_batch.hpp"

namespace {

using shard::Adapter;
using shard::Batch;
using shard::Delivery;
using shard::DeliveryContext;
using shard::make_adapter;

/// Does what it must and nothing else.
struct Smallest : Adapter {
  Delivery deliver(const Batch& /*batch*/, const DeliveryContext& /*context*/) override {
    return Delivery::delivered();
  }
};

/// A batch that is told apart by its identity; adapters of these tests look at no event.
struct Given {
  shard::EventBatch events;
  Batch batch{events, {.producer = 7, .epoch = 8}};
};

}  // namespace

TEST_CASE("an adapter that only delivers flushes, closes and has a name") {
  Smallest adapter;
  CHECK(adapter.flush({}));
  adapter.close({});
  CHECK(adapter.name() == "adapter");
}

TEST_CASE("an adapter stays where it is and is destroyed through its base") {
  STATIC_REQUIRE(std::has_virtual_destructor_v<Adapter>);
  STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<Smallest>);
  STATIC_REQUIRE_FALSE(std::is_move_constructible_v<Smallest>);
  auto shared = std::make_shared<int>(1);
  {
    const std::unique_ptr<Adapter> adapter = make_adapter([shared](const Batch&) {});
    CHECK(shared.use_count() == 2);
  }
  CHECK(shared.use_count() == 1);
}

TEST_CASE("a callable that returns nothing has delivered") {
  const Given given;
  std::uint64_t seen = 0;
  const auto adapter =
      make_adapter([&seen](const Batch& batch) { seen = batch.identity().producer; });
  CHECK(adapter->deliver(given.batch, {}).kind() == Delivery::Kind::delivered);
  CHECK(seen == 7);
}

TEST_CASE("a callable's answer is the adapter's") {
  const Given given;
  const auto adapter = make_adapter([](const Batch&) { return Delivery::delivered(3, "full"); });
  const auto answer = adapter->deliver(given.batch, {});
  CHECK(answer.kind() == Delivery::Kind::delivered_prefix);
  CHECK(answer.count() == 3);
  CHECK(answer.reason().text() == "full");
}

TEST_CASE("a callable that wants the context gets it") {
  const Given given;
  const auto adapter = make_adapter([](const Batch&, const DeliveryContext& context) {
    return Delivery::retry(std::to_string(context.attempt));
  });
  CHECK(adapter->deliver(given.batch, {.attempt = 5}).reason().text() == "5");
  std::uint32_t seen = 0;
  const auto silent = make_adapter(
      [&seen](const Batch&, const DeliveryContext& context) { seen = context.attempt; });
  CHECK(silent->deliver(given.batch, {.attempt = 6}).kind() == Delivery::Kind::delivered);
  CHECK(seen == 6);
}

TEST_CASE("a callable may be move-only, keep state and be an lvalue") {
  const Given given;
  auto count = std::make_unique<int>(0);
  auto* const seen = count.get();
  const auto adapter = make_adapter([count = std::move(count)](const Batch&) { ++*count; });
  static_cast<void>(adapter->deliver(given.batch, {}));
  static_cast<void>(adapter->deliver(given.batch, {}));
  CHECK(*seen == 2);

  int calls = 0;
  auto mutating = [calls](const Batch&) mutable {
    return Delivery::delivered(static_cast<std::size_t>(++calls));
  };
  const auto copy = make_adapter(mutating);
  static_cast<void>(copy->deliver(given.batch, {}));
  CHECK(copy->deliver(given.batch, {}).count() == 2);
  CHECK(mutating(given.batch).count() == 1);  // it has a copy
}

TEST_CASE("what a callable throws comes through") {
  const Given given;
  const auto adapter =
      make_adapter([](const Batch&) { throw shard::PermanentError("no such table"); });
  CHECK_THROWS_AS(adapter->deliver(given.batch, {}), shard::PermanentError);
}

TEST_CASE("an adapter is no callable, nor is what takes no batch") {
  STATIC_REQUIRE_FALSE(shard::DeliverCallable<Smallest>);
  STATIC_REQUIRE_FALSE(shard::DeliverCallable<Smallest&>);
  STATIC_REQUIRE_FALSE(shard::DeliverCallable<int>);
  STATIC_REQUIRE_FALSE(shard::DeliverCallable<void (*)(int)>);
  STATIC_REQUIRE(shard::DeliverCallable<void (*)(const Batch&)>);
  STATIC_REQUIRE(shard::DeliverCallable<Delivery (&)(const Batch&, const DeliveryContext&)>);
}

TEST_CASE("a callable that returns what is no answer cannot be an adapter") {
  const auto flag = [](const shard::Batch&) { return true; };
  const auto answer = [](const shard::Batch&) { return shard::Delivery::delivered(); };
  const auto nothing = [](const shard::Batch&, const shard::DeliveryContext&) {};
  STATIC_REQUIRE_FALSE(shard::DeliverCallable<decltype(flag)>);
  STATIC_REQUIRE(shard::DeliverCallable<decltype(answer)>);
  STATIC_REQUIRE(shard::DeliverCallable<decltype(nothing)>);
}

TEST_CASE("a generic lambda can be an adapter, and so can what a factory makes for each worker") {
  std::size_t delivered = 0;
  shard::Pipeline generic{{.workers = 0},
                          [&delivered](const auto& batch) { delivered += batch.size(); }};
  shard::Pipeline made{{.workers = 0}, [&delivered](std::size_t) {
                         return shard::make_adapter([&delivered](const shard::Batch& batch) {
                           delivered += batch.size();
                         });
                       }};
  generic.ingest("one");
  made.ingest("two");
  generic.close(std::chrono::seconds{10});
  made.close(std::chrono::seconds{10});
  CHECK(delivered == 2);
}
