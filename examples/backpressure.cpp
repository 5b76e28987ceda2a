// Offers more than a slow adapter takes, once in each mode, and shows what became of the events. What is accepted and
// not evicted is delivered in every mode; they differ in which events that are, and in who waits.
#include <chrono>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <string>
#include <thread>

#include "shard/pipeline.hpp"

using namespace std::chrono_literals;
using shard::Backpressure;

constexpr int kEvents = 2'000;

/// Offers the numbers 0, 1, 2, ... and prints a line of the table; was it as promised?
bool show(const Backpressure& mode) {
  std::string first;  // what the adapter got first and last
  std::string last;
  shard::Pipeline pipeline{{.manager = {.shards = 1, .ring_capacity = 64, .backpressure = mode},
                            .batch = {.min_events = 1, .max_events = 32}},
                           [&](const shard::Batch& batch) {
                             std::this_thread::sleep_for(1ms);
                             if (first.empty()) first = batch[0].text();
                             last = batch[batch.size() - 1].text();
                           }};

  const auto start = std::chrono::steady_clock::now();
  int accepted = 0;
  for (int i = 0; i < kEvents; ++i) {
    // Who is refused (rejected_full, rejected_timeout) still has the event and could try again; here nobody does.
    accepted += pipeline.ingest(std::to_string(i)) == shard::Outcome::accepted ? 1 : 0;
  }
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  const auto report = pipeline.close(10s);

  const auto& ledger = report.ledger;
  std::cout << std::left << std::setw(15) << to_string(mode.mode) << std::right << std::setw(9)
            << ledger.accepted << std::setw(9) << ledger.dropped_newest + ledger.sampled_out
            << std::setw(9) << ledger.rejected_full + ledger.rejected_timeout << std::setw(9)
            << ledger.evicted << std::setw(11) << ledger.delivered << std::setw(7) << first
            << std::setw(7) << last << std::setw(9) << std::fixed << std::setprecision(1)
            << took.count() << "\n";

  using Mode = shard::BackpressureMode;
  const bool keeps_first = mode.mode == Mode::drop_newest || mode.mode == Mode::fail_producer;
  const bool keeps_all = mode.mode == Mode::block;
  const bool keeps_last = mode.mode == Mode::drop_oldest || keeps_all;
  return report.complete && ledger.balanced() && ledger.offered() == kEvents &&
         ledger.accepted == static_cast<std::uint64_t>(accepted) &&
         ledger.delivered == ledger.accepted - ledger.evicted &&
         (!(keeps_first || keeps_all) || first == "0") &&
         (!keeps_last || last == std::to_string(kEvents - 1)) &&
         (!keeps_all || ledger.delivered == kEvents);
}

int main() {
  std::cout
      << "mode            accepted     lost  refused  evicted  delivered  first   last       ms\n";
  bool kept = true;
  for (const auto& mode :
       {Backpressure::drop_newest(), Backpressure::drop_oldest(), Backpressure::fail_producer(),
        Backpressure::sample(10), Backpressure::block(10s)}) {
    kept = show(mode) && kept;
  }
  std::cout << (kept ? "as promised\n" : "NOT AS PROMISED\n");
  return kept ? EXIT_SUCCESS : EXIT_FAILURE;
}
