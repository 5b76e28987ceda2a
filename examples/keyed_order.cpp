// Shards come and go, again and again, while two threads ingest and two workers deliver; the events of each key arrive
// in order, and none is lost.
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "shard/pipeline.hpp"

int main() {
  using namespace std::chrono_literals;
  constexpr std::size_t kKeys = 100;
  constexpr std::size_t kProducers = 2;
  constexpr int kRounds = 20;

  // A lock is not needed: with keyed routing the events of one key are never in two calls at once.
  std::array<std::uint64_t, kKeys> next{};
  std::atomic<std::uint64_t> out_of_order{0};
  const auto check_order = [&](const shard::Batch& batch) {
    for (const shard::Event event : batch) {
      const auto key = std::stoul(std::string(event.key->bytes.text()));
      const auto number = std::stoull(std::string(event.text()));
      if (number != next.at(key)) ++out_of_order;
      next.at(key) = number + 1;
    }
  };

  // By hand, so that much changes in a short time; auto_scale would let the load decide.
  const shard::ScalingPolicy policy{
      .min_shards = 1, .max_shards = 8, .auto_scale = false, .metrics_window = 2ms};
  shard::Pipeline pipeline{{.manager = {.shards = 2,
                                        .ring_capacity = 4'096,
                                        .backpressure = shard::Backpressure::block(10s),
                                        .scaling = policy,
                                        .routing = shard::Routing::keyed},
                            .batch = shard::BatchOptions::low_latency(),
                            .workers = 2},
                           check_order};

  std::atomic<bool> done{false};
  std::vector<std::jthread> producers;
  for (std::size_t p = 0; p < kProducers; ++p) {
    producers.emplace_back(
        [&, p] {  // each has keys of its own: their order is the order of its calls
          for (std::uint64_t number = 0; !done; ++number) {
            for (auto key = p; key < kKeys; key += kProducers) {
              pipeline.ingest(std::to_string(number), shard::Key{std::to_string(key)});
            }
          }
        });
  }

  std::size_t added = 0;
  std::size_t drained = 0;
  for (int round = 0; round < kRounds; ++round) {
    added += pipeline.scale_up(4).added.size();
    std::this_thread::sleep_for(5ms);
    drained += pipeline.scale_down(4).draining.size();
    std::this_thread::sleep_for(5ms);
  }
  done = true;
  producers.clear();  // joins them
  const auto report = pipeline.close(10s);

  const auto& ledger = report.ledger;
  std::cout << added << " shards added, " << drained << " drained, " << out_of_order
            << " events out of order\n"
            << to_string(report);
  const bool kept = out_of_order == 0 && added != 0 && drained != 0 && report.complete &&
                    ledger.balanced() && ledger.delivered == ledger.offered();
  std::cout << (kept ? "every key in order\n" : "A KEY IS OUT OF ORDER, OR EVENTS ARE MISSING\n");
  return kept ? EXIT_SUCCESS : EXIT_FAILURE;
}
