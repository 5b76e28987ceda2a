// Whatever is asked of an elastic manager, in whatever order [R-C1] [R-D11] [R-E1] [R-E3] [R-E4]: nothing is lost or
// uncounted, no state is skipped, the budget holds, and with keyed routing the events of a key come out in order.
#include <fuzzer/FuzzedDataProvider.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "fuzz/require.hpp"
#include "shard/manager.hpp"
#include "support/manual_clock.hpp"
#include "support/options.hpp"

namespace {

constexpr std::uint8_t kKeys = 23;

class Machine {
 public:
  explicit Machine(FuzzedDataProvider& input)
      : input_(input), keyed_(input.ConsumeBool()), manager_(options()) {}

  void run() {
    for (int step = 0; step < 400 && input_.remaining_bytes() != 0; ++step) {
      clock_.advance(input_.ConsumeIntegral<std::uint32_t>());
      act();
      check();
    }
    // What is left comes out, or is counted as abandoned by nobody: popping by hand is all there is here.
    for (bool found = true; found;) {
      found = false;
      for (const auto id : manager_.shard_ids()) found = pop(id) || found;
    }
    check();
    REQUIRE_THAT(manager_.ledger().queued == 0);
  }

 private:
  shard::ManagerOptions options() {
    auto options = shard_test::small_options(2, 8, shard::Backpressure::fail_producer());
    options.time_source = &clock_;
    options.routing = keyed_ ? shard::Routing::keyed : shard::Routing::balanced;
    options.scaling.emplace();
    options.scaling->min_shards = 1;
    options.scaling->max_shards = 5;
    options.scaling->cooldown = std::chrono::nanoseconds{input_.ConsumeIntegral<std::uint32_t>()};
    return options;
  }

  /// Of one that was there some time, or never.
  shard::ShardId any_shard() { return {input_.ConsumeIntegralInRange<std::uint32_t>(0, 12)}; }

  void act() {
    switch (input_.ConsumeIntegralInRange(0, 9)) {
      case 0:
        static_cast<void>(manager_.add_shard());
        return;
      case 1:
        static_cast<void>(manager_.add_shard_force());
        return;
      case 2:
        static_cast<void>(manager_.activate_shard(any_shard()));
        return;
      case 3:
        static_cast<void>(manager_.drain_shard(any_shard()));
        return;
      case 4: {
        shard::EventBatch queued;
        if (manager_.remove_shard(any_shard(), queued)) take(queued);
        return;
      }
      case 5:
        static_cast<void>(manager_.run_scaling());
        return;
      case 6: {
        const auto ids = manager_.shard_ids();
        pop(ids[input_.ConsumeIntegralInRange<std::size_t>(0, ids.size() - 1)]);
        return;
      }
      default:
        ingest(input_.ConsumeIntegralInRange<std::size_t>(1, 12));
    }
  }

  /// Events that carry their key and their number among those that were accepted of it.
  void ingest(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto key = input_.ConsumeIntegralInRange<std::uint8_t>(0, kKeys - 1);
      std::array<std::byte, 9> payload{};
      payload[0] = std::byte{key};
      std::memcpy(&payload[1], &accepted_[key], sizeof accepted_[key]);
      const std::string name = "key " + std::to_string(key);
      const auto outcome = manager_.ingest(shard::Bytes{payload}, shard::Key{name});
      ++offered_;
      if (outcome == shard::Outcome::accepted) ++accepted_[key];
    }
  }

  bool pop(shard::ShardId id) {
    const auto shard = manager_.shard(id);
    shard::EventBatch batch;
    if (shard) shard->pop_batch_into(batch, 7);
    take(batch);
    return !batch.empty();
  }

  void take(const shard::EventBatch& batch) {
    for (const auto event : batch) {
      const auto key = static_cast<std::uint8_t>(event.payload.data()[0]);
      std::uint64_t number = 0;
      std::memcpy(&number, event.payload.data() + 1, sizeof number);
      REQUIRE_THAT(key < kKeys);
      REQUIRE_THAT(number < accepted_[key]);
      if (keyed_) REQUIRE_THAT(number == taken_[key]);  // in order, each once
      ++taken_[key];
    }
  }

  void check() {
    const auto ledger = manager_.ledger();
    REQUIRE_THAT(ledger.balanced());
    REQUIRE_THAT(ledger.offered() == offered_);
    std::uint64_t taken = 0;
    for (const auto count : taken_) taken += count;
    REQUIRE_THAT(ledger.returned == taken);

    std::size_t active = 0;
    std::size_t provisioning = 0;
    std::map<shard::ShardId, shard::ShardState> states;
    for (const auto id : manager_.shard_ids()) {
      const auto state = *manager_.shard_state(id);
      active += state == shard::ShardState::active ? 1U : 0U;
      provisioning += state == shard::ShardState::provisioning ? 1U : 0U;
      const auto before = states_.find(id);
      // Forwards only; what is new is provisioning, or active if a decision made it so at once.
      REQUIRE_THAT(before == states_.end() || state >= before->second);
      states.emplace(id, state);
    }
    REQUIRE_THAT(active >= 1);
    REQUIRE_THAT(active + provisioning <= 5);
    states_ = std::move(states);
  }

  FuzzedDataProvider& input_;
  shard_test::ManualClock clock_;
  const bool keyed_;
  shard::Manager manager_;
  std::array<std::uint64_t, kKeys> accepted_{};
  std::array<std::uint64_t, kKeys> taken_{};
  std::uint64_t offered_ = 0;
  std::map<shard::ShardId, shard::ShardState> states_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  Machine(input).run();
  return 0;
}
