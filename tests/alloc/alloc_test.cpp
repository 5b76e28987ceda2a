#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <streambuf>
#include <string>
#include <utility>
#include <vector>

#include "alloc/allocation_counter.hpp"
#include "shard/detail/manager_impl.hpp"
#include "shard/detail/snapshot.hpp"
#include "shard/json.hpp"
#include "shard/manager.hpp"
#include "support/batch_call.hpp"
#include "support/counted_buffer.hpp"
#include "support/options.hpp"
#include "support/tracking_platform.hpp"

using shard::Bytes;
using shard::Key;
using shard::Outcome;
using shard::RawEvent;
using shard::ShardId;
using shard::SourceIdentity;
using shard_test::AllocationScope;
using shard_test::small_options;
using shard_test::TrackingPlatform;

namespace {

const std::array kModes{
    shard::Backpressure::drop_newest(),
    shard::Backpressure::drop_oldest(),
    shard::Backpressure::fail_producer(),
    shard::Backpressure::sample(3),
    shard::Backpressure::block(std::chrono::nanoseconds{0}),
};

/// Every way in and out, for a manager of either platform. What a way needs is made here, beforehand.
template <class Platform>
class Ways {
 public:
  using Manager = shard::BasicManager<Platform>;

  explicit Ways(const shard::ManagerOptions& options, std::size_t payload_size)
      : manager(options),
        producer_(manager.producer()),
        shard_(*manager.shard(ShardId{0})),
        payload_(payload_size, 'p'),
        payloads_(kBatch, payload_),
        raw_(kBatch),
        outcomes_(kBatch) {
    batch_.reserve_more(1024, std::size_t{1} << 20U);  // rounds differ a little in what they pop
    for (std::size_t i = 0; i < kBatch; ++i) {
      keys_.push_back("key-" + std::to_string(i));
    }
    for (std::size_t i = 0; i < kBatch; ++i) {
      raw_[i] = manager.raw_event(Bytes(payload_), Key{keys_[i]}).with(SourceIdentity{1, i});
    }
  }

  /// Offers more events than the shards hold by all ways, then takes out what is there, by all ways.
  void round() {
    for (std::size_t i = 0; i < kBatch; ++i) {
      const Key by{keys_[i]};
      const SourceIdentity source{2, i};
      manager.ingest(payload_);
      manager.ingest(payload_, by);
      manager.ingest(payload_, source);
      manager.ingest(payload_, by, source);
      manager.ingest_raw(raw_[i]);
      producer_.ingest(payload_);
      producer_.ingest(payload_, by);
      producer_.ingest(payload_, source);
      producer_.ingest(payload_, by, source);
      producer_.ingest_raw(raw_[i]);
      static_cast<void>(shard_.try_push(payload_));
      static_cast<void>(shard_.try_push(payload_, by));
      static_cast<void>(shard_.try_push_raw(raw_[i]));
      offered += 13;
    }
    manager.ingest_batch(payloads_, outcomes_);
    manager.ingest_batch(payloads_);
    manager.ingest_raw_batch(raw_, outcomes_);
    producer_.ingest_batch(payloads_, outcomes_);
    offered += 4 * kBatch;
    manager.with_shard(ShardId{0}, [&](auto& locked) {
      static_cast<void>(locked.try_push(payload_));
      static_cast<void>(locked.try_push_raw(raw_[0]));
    });
    offered += 2;

    batch_.clear();
    while (shard_.try_pop(batch_) && batch_.size() < 3) {
    }
    manager.with_shard(ShardId{0}, [&](auto& locked) { locked.pop_batch_into(batch_, 5); });
    for (std::uint32_t id = 0; id < manager.num_shards(); ++id) {
      manager.shard(ShardId{id})->pop_batch_into(batch_);
    }
    popped += batch_.size();
    all_empty = all_empty && manager.all_shards_empty();
  }

  Manager manager;
  std::uint64_t offered = 0;
  std::uint64_t popped = 0;
  bool all_empty = true;

 private:
  static constexpr std::size_t kBatch = 300;

  typename Manager::Producer producer_;
  typename Manager::Shard shard_;
  std::string payload_;
  std::vector<Bytes> payloads_;
  std::vector<std::string> keys_;
  std::vector<RawEvent> raw_;
  std::vector<Outcome> outcomes_;
  shard::EventBatch batch_;
};

}  // namespace

TEST_CASE("the allocation counter counts", "[R-A9]") {
  const AllocationScope scope;
  const auto* volatile pointer = new std::string(100, 'x');
  const auto count = scope.count();
  delete pointer;
  CHECK(count == 2);
}

TEST_CASE("in steady state no way in or out allocates, in any mode and up to inline_max",
          "[R-A9]") {
  const auto mode = GENERATE(range(std::size_t{0}, kModes.size()));
  const auto size = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{64}, std::size_t{1024});
  INFO("mode " << to_string(kModes[mode].mode) << ", payload of " << size);
  Ways<shard::detail::SystemPlatform> ways(small_options(2, 64, kModes[mode]), size);
  ways.round();  // the thread caches its snapshot
  const AllocationScope scope;
  for (int i = 0; i < 3; ++i) ways.round();
  const auto count = scope.count();
  CHECK(count == 0);

  // The rounds did what they are for: they overflowed, in the way of the mode, and lost nothing unseen.
  const auto ledger = ways.manager.ledger();
  CHECK(ledger.offered() == ways.offered);
  CHECK(ledger.returned == ways.popped);
  CHECK(ledger.balanced());
  CHECK(ways.all_empty);
  CHECK(ledger.accepted < ways.offered + ledger.evicted);
  CHECK(ledger.rejected_invalid == 0);
}

TEST_CASE("a producer that changes its slot allocates nothing", "[R-A9]") {
  shard::Manager manager(small_options(2, 64, shard::Backpressure::drop_oldest()));
  auto producer = manager.producer({.change_slot_every = 3});
  producer.ingest("warm");
  const AllocationScope scope;
  for (int i = 0; i < 100; ++i) producer.ingest("payload");
  const auto count = scope.count();
  CHECK(count == 0);
  CHECK(manager.ledger().accepted == 101);
}

TEST_CASE("a buffer that the host moves in passes without an allocation, also when it is evicted",
          "[R-A9]") {
  shard_test::CountedBuffers counted;
  shard::Manager manager(small_options(1, 4, shard::Backpressure::drop_oldest()));
  const auto shard = *manager.shard(ShardId{0});
  const std::string bytes(2048, 'b');
  shard::EventBatch batch;
  manager.ingest(counted.make("warm"));
  shard.pop_batch_into(batch);
  batch.clear();

  std::vector<shard::Buffer> buffers;
  for (int i = 0; i < 10; ++i) buffers.push_back(counted.make(bytes));
  const AllocationScope scope;
  for (auto& buffer : buffers) manager.ingest(std::move(buffer), Key{"k"}, SourceIdentity{1, 2});
  shard.pop_batch_into(batch);
  const auto popped = batch.size();
  batch.clear();
  const auto count = scope.count();
  CHECK(count == 0);
  CHECK(popped == 1);  // two of these are above the byte budget
  CHECK(counted.released() == counted.made());
}

TEST_CASE("a payload above inline_max costs one allocation, and none if it is refused for its size",
          "[R-A9]") {
  shard::Manager manager(small_options(1, 4));
  auto producer = manager.producer();
  const std::string longer(1025, 'l');
  const std::string too_long(2049, 't');
  manager.ingest("warm");
  const auto cost = [](const auto& ingest) {
    const AllocationScope scope;
    ingest();
    return scope.count();
  };
  CHECK(cost([&] { manager.ingest(longer); }) == 1);
  CHECK(cost([&] { producer.ingest(longer, Key{"k"}); }) == 1);
  CHECK(cost([&] { manager.ingest(too_long); }) == 0);
  const std::array<Bytes, 3> batch{Bytes{"short"}, Bytes{too_long}, Bytes{"short"}};
  CHECK(cost([&] { manager.ingest_batch(batch); }) == 0);
  CHECK(manager.own_ledger().rejected_invalid == 2);
}

TEST_CASE("a copied buffer is one allocation", "[R-A9]") {
  const std::string text(100, 'x');
  const AllocationScope scope;
  const auto buffer = shard::Buffer::copy_of(text);
  const auto count = scope.count();
  CHECK(count == 1);
  CHECK(buffer.bytes().text() == text);
}

TEST_CASE("JSON costs what the JSON library itself allocates, also when it is refused", "[R-A9]") {
  struct Discard : std::streambuf {
    int_type overflow(int_type c) override { return traits_type::not_eof(c); }
    std::streamsize xsputn(const char*, std::streamsize size) override { return size; }
  };
  const nlohmann::json value{{"flight", "IB 3166"}, {"altitude", 10'972.8}, {"legs", {1, 2, 3}}};
  const nlohmann::json invalid{{"name", "\xFF is not UTF-8"}};
  shard::Manager manager(small_options(1, 64));
  Discard discard;
  std::ostream stream(&discard);
  const auto library = [&] {
    const AllocationScope scope;
    stream << value;
    return scope.count();
  };
  ingest_json(manager, value);  // the thread's storage grows
  library();
  const auto expected = library();
  const AllocationScope scope;
  ingest_json(manager, value);
  const auto count = scope.count();
  CHECK(count == expected);

  CHECK(ingest_json(manager, invalid) == Outcome::invalid_json);
  const AllocationScope after;
  ingest_json(manager, value);
  const auto count_after = after.count();
  CHECK(count_after == expected);
  CHECK(manager.ledger().accepted == 3);
  CHECK(manager.ledger().rejected_invalid == 1);
}

TEST_CASE("nothing is allocated while a lock is held, even at first", "[R-A8]") {
  const auto mode = GENERATE(range(std::size_t{0}, kModes.size()));
  const auto size = GENERATE(std::size_t{64}, std::size_t{1024}, std::size_t{2048});
  INFO("mode " << to_string(kModes[mode].mode) << ", payload of " << size);
  Ways<TrackingPlatform> ways(small_options(2, 64, kModes[mode]), size);
  shard::EventBatch batch;
  batch.reserve_more(64, std::size_t{64} << 10U);
  const AllocationScope scope;
  // A batch that has to grow does so between two holds of the lock.
  const auto shard = *ways.manager.shard(ShardId{0});
  static_cast<void>(shard.try_push("one"));
  static_cast<void>(shard.pop_batch());
  // Popping from within with_shard() is the exception: there the host holds the locks.
  ways.manager.with_shard(ShardId{0}, [&](auto& locked) {
    static_cast<void>(locked.try_push("two"));
    locked.pop_batch_into(batch, 1);
  });
  const auto cold = scope.under_lock();
  CHECK(cold == 0);
  ways.round();
  const AllocationScope steady;
  for (int i = 0; i < 3; ++i) ways.round();
  const auto under_lock = steady.under_lock();
  CHECK(under_lock == 0);
  CHECK(shard_test::t_locks_held == 0);
  CHECK(ways.manager.ledger().offered() == ways.offered + 2);
}

TEST_CASE("what is published after room was made for it allocates nothing", "[R-A8]") {
  struct Value {
    std::uint64_t version;
  };
  const auto value = [](std::uint64_t version) {
    return std::make_shared<const Value>(Value{version});
  };
  shard::detail::SnapshotCell<shard::detail::SystemPlatform, Value> cell(value(1));
  std::vector<std::shared_ptr<const Value>> used;  // so the cell keeps them, too
  for (std::uint64_t version = 2; version < 20; ++version) {
    used.push_back(cell.peek());
    auto next = value(version);
    cell.prepare_to_publish();
    const AllocationScope scope;
    cell.publish(std::move(next));
    const auto allocated = scope.count();
    REQUIRE(allocated == 0);
  }
  cell.prepare_to_publish();
  used.clear();
  auto last = value(20);
  const AllocationScope scope;
  cell.publish(std::move(last));
  CHECK(scope.count() == 0);
}

TEST_CASE("locks are noticed by the platform that watches them", "[R-A8]") {
  shard::BasicManager<TrackingPlatform> manager(small_options(1, 4));
  int held = 0;
  std::uint64_t under_lock = 0;
  manager.with_shard(ShardId{0}, [&](auto&) {
    const AllocationScope scope;
    held = shard_test::t_locks_held;
    const auto* volatile pointer = new std::string;  // volatile: or a compiler leaves it out
    delete pointer;
    under_lock = scope.under_lock();
  });
  CHECK(held == 2);
  CHECK(under_lock == 1);
  CHECK(shard_test::t_locks_held == 0);
}

TEST_CASE("a consumer wakes whom it made room for after it has given back its lock", "[R-A8]") {
  TrackingPlatform::wakes = 0;
  TrackingPlatform::system_calls_under_lock = 0;
  shard::BasicManager<TrackingPlatform> manager(
      small_options(1, 2, shard::Backpressure::block(std::chrono::nanoseconds{0})));
  CHECK(manager.ingest("fits") == Outcome::accepted);
  CHECK(manager.ingest("waits for nothing") == Outcome::rejected_timeout);  // but has announced it
  CHECK(manager.shard(ShardId{0})->pop_batch().size() == 1);
  CHECK(TrackingPlatform::wakes == 1);
  CHECK(TrackingPlatform::system_calls_under_lock == 0);
}

TEST_CASE("a host's release function runs with no lock held, and may call the manager", "[R-A8]") {
  struct Host {
    std::function<void()> ingest;
    int released = 0;
    int under_lock = 0;
    static void release(void* self) noexcept {
      auto& host = *static_cast<Host*>(self);
      ++host.released;
      host.under_lock += shard_test::t_locks_held > 0 ? 1 : 0;
      host.ingest();
    }
  };
  const auto mode = GENERATE(as<shard::Backpressure>{}, shard::Backpressure::drop_oldest(),
                             shard::Backpressure::sample(1));
  Host host;
  std::size_t offered = 0;
  {
    shard::BasicManager<TrackingPlatform> manager(small_options(1, 2, mode));
    host.ingest = [&] {
      ++offered;
      manager.ingest("from within");
    };
    const auto own = [&] { return shard::Buffer::adopt("owned", &Host::release, &host); };
    const auto offer = [&](shard::Buffer buffer) {
      ++offered;
      return manager.ingest(std::move(buffer));
    };
    const std::array<Bytes, 2> batch{Bytes{"a"}, Bytes{"b"}};

    REQUIRE(offer(own()) == Outcome::accepted);
    REQUIRE(offer(own()) == Outcome::accepted);  // evicts the first, whose release evicts it
    CHECK(host.released == 2);
    REQUIRE(offer(own()) == Outcome::accepted);  // evicts what the release function ingested
    CHECK(host.released == 2);
    offered += batch.size();
    CHECK(manager.ingest_batch(batch) == 2);
    CHECK(host.released == 3);
    REQUIRE(offer(own()) == Outcome::accepted);
    manager.with_shard(ShardId{0}, [&](auto& locked) {
      ++offered;
      CHECK(locked.try_push("locked") == Outcome::accepted);
      CHECK(host.released == 3);
    });
    CHECK(host.released == 4);
    REQUIRE(offer(own()) == Outcome::accepted);
    auto popped = manager.shard(ShardId{0})->pop_batch();
    CHECK(popped.size() == 1);
    popped.clear();
    CHECK(host.released == 5);
    REQUIRE(offer(own()) == Outcome::accepted);
    CHECK(manager.ledger().offered() == offered);
  }
  CHECK(host.released == 6);  // the last by the manager's end, refused from within
  CHECK(host.under_lock == 0);
}

namespace {

/// Fills a shard whenever a lock has been given back, for as long as it has events left.
struct KeepFull {
  static inline shard::BasicManager<TrackingPlatform>* manager = nullptr;
  static inline std::size_t left = 0;

  static void run() {
    shard_test::t_on_unlock = nullptr;  // it unlocks, too
    while (left != 0 && manager->ingest("more") == Outcome::accepted) --left;
    shard_test::t_on_unlock = &run;
  }
};

}  // namespace

TEST_CASE("a pop without limits ends although producers keep pace with it", "[R-A8]") {
  auto options = small_options(1, 1024);
  options.ring_bytes = std::size_t{64} << 10U;
  shard::BasicManager<TrackingPlatform> manager(options);
  const auto shard = *manager.shard(ShardId{0});
  KeepFull::manager = &manager;
  KeepFull::left = 10'000;
  KeepFull::run();
  const auto popped = shard.pop_batch().size();
  shard_test::t_on_unlock = nullptr;
  CHECK(popped == shard.usable_capacity());
  CHECK(shard.is_full());
  CHECK(KeepFull::left < 10'000 - popped);
}

TEST_CASE("a batch that cannot remember which slots it was refused by refuses all the rest",
          "[R-D3]") {
  using shard_test::BatchCall;
  BatchCall call;
  for (std::size_t i = 0; i < 3; ++i) call.set(i, BatchCall::kMoved);  // the third finds no room
  call.set(BatchCall::kChunk, BatchCall::kMoved);
  std::optional<shard_test::AllocationFailure> failure;
  call.run([&] {
    call.move(BatchCall::kMoved);
    failure.emplace(1);
  });
  CHECK(failure->happened());
  failure.reset();
  // The second chunk's events of the other shard were pushed before that was known.
  CHECK(call.accepted == 2 * BatchCall::kChunk - 2);
  CHECK(call.of(BatchCall::kChunk) == Outcome::rejected_full);
  CHECK(call.of(BatchCall::kChunk + 1) == Outcome::accepted);
  for (auto i = 2 * BatchCall::kChunk; i < BatchCall::kEvents; ++i) {
    REQUIRE(call.of(i) == Outcome::rejected_full);
  }
  CHECK(call.ledger(1).rejected_full == BatchCall::kChunk + 1);
}
