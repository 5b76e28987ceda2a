// Four threads ingest the lines of a file, one pops them in batches; then the books must balance.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "shard/manager.hpp"

int main(int argc, char** argv) {
  std::ifstream file(argc > 1 ? argv[1] : "data/flights.ndjson");
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  if (lines.empty()) {
    std::cerr << "usage: quickstart FILE (of one event a line)\n";
    return EXIT_FAILURE;
  }

  constexpr std::size_t kProducers = 4;
  constexpr std::size_t kRounds = 50;  // the file is small, so it is ingested this many times
  shard::Manager manager{
      {.shards = 4, .backpressure = shard::Backpressure::block(std::chrono::seconds{10})}};

  const auto start = std::chrono::steady_clock::now();
  std::atomic<std::size_t> running{kProducers};
  std::vector<std::jthread> producers;
  for (std::size_t p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] {
      for (std::size_t round = 0; round < kRounds; ++round) {
        for (std::size_t i = p; i < lines.size(); i += kProducers) manager.ingest(lines[i]);
      }
      --running;
    });
  }

  std::size_t popped = 0;
  shard::EventBatch batch;  // its storage is reused
  for (bool done = false; !done;) {
    done = running == 0;  // looked at first: then a pass that finds nothing has missed nothing
    for (const auto id : manager.shard_ids()) {
      batch.clear();
      if (manager.shard(id)->pop_batch_into(batch, 10'000) != 0) done = false;
      popped += batch.size();
    }
  }

  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  const auto ledger = manager.ledger();
  std::cout << popped << " events in " << took.count()
            << " s: " << static_cast<double>(popped) / took.count() / 1e6 << " million a second\n"
            << to_string(ledger);
  const bool exact = ledger.balanced() && ledger.offered() == kRounds * lines.size() &&
                     ledger.returned == popped && ledger.queued == 0;
  std::cout << (exact ? "the books balance\n" : "THE BOOKS DO NOT BALANCE\n");
  return exact ? EXIT_SUCCESS : EXIT_FAILURE;
}
