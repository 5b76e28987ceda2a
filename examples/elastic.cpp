// Load ramps up and down again, and the number of shards follows. Time is simulated, so a minute passes at once:
// the manager takes its timestamps, cooldowns and rates from the clock that it is given.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <string>

#include "shard/manager.hpp"

class SimulatedTime : public shard::TimeSource {
 public:
  [[nodiscard]] std::uint64_t nanoseconds() const noexcept override { return now_; }
  void pass(std::chrono::nanoseconds span) { now_ += static_cast<std::uint64_t>(span.count()); }

 private:
  std::uint64_t now_ = 0;
};

int main() {
  using namespace std::chrono_literals;
  constexpr double kMostPerSecond = 8'000;     // events offered at the top of the ramp
  constexpr std::size_t kDrainedPerTick = 10;  // by each shard's consumer: 1,000 a second
  constexpr auto kTick = 10ms;

  SimulatedTime time;
  shard::ScalingPolicy policy;
  policy.max_shards = 12;
  policy.scale_down_delay = 3s;
  shard::Manager manager{{.shards = 1,
                          .ring_capacity = 1'024,
                          .ring_bytes = std::size_t{64} << 10U,
                          .max_payload = 1'024,
                          .inline_max = 1'024,
                          .scaling = policy,
                          .routing = shard::Routing::keyed,
                          .time_source = &time}};

  std::cout << "second  offered/s  shards                fill\n";
  shard::EventBatch batch;
  std::uint64_t offered = 0;
  std::uint64_t popped = 0;
  double due = 0;
  for (int tick = 0; tick < 6'000; ++tick) {
    const double second = tick / 100.0;
    const double rate =
        kMostPerSecond * std::clamp(second < 30 ? second / 20 : (50 - second) / 20, 0.02, 1.0);
    for (due += rate / 100; due >= 1; --due, ++offered) {
      manager.ingest("an event", shard::Key{std::to_string(offered % 997)});
    }
    double fill = 0;
    for (const auto id : manager.shard_ids()) {
      const auto shard = manager.shard(id);
      fill = std::max(fill, shard->fill_ratio());
      batch.clear();
      popped += shard->pop_batch_into(batch, kDrainedPerTick);
      shard->record_batch_dispatch(batch.size(), 500us);
    }
    manager.run_scaling();
    time.pass(kTick);
    if (tick % 200 == 0) {
      const auto shards = manager.active_shard_ids().size();
      std::cout << std::setw(6) << second << std::setw(11) << static_cast<int>(rate) << "  "
                << std::left << std::setw(12) << std::string(shards, '#') << std::right
                << std::setw(4) << shards << "  " << std::setw(4) << static_cast<int>(100 * fill)
                << " % " << std::string(static_cast<std::size_t>(20 * fill), '=') << "\n";
    }
  }

  const auto ledger = manager.ledger();
  std::cout << to_string(ledger);
  const bool exact = ledger.balanced() && ledger.offered() == offered && ledger.returned == popped;
  std::cout << (exact ? "the books balance\n" : "THE BOOKS DO NOT BALANCE\n");
  return exact ? EXIT_SUCCESS : EXIT_FAILURE;
}
