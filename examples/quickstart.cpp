// Four threads ingest the lines of a file, and a pipeline brings them to an adapter in batches; then the books must
// balance.
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "shard/pipeline.hpp"

int main(int argc, char** argv) {
  using namespace std::chrono_literals;
  std::ifstream file(argc > 1 ? argv[1] : "data/flights.ndjson");
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  if (lines.empty()) {
    std::cerr << "usage: quickstart FILE (of one event a line)\n";
    return EXIT_FAILURE;
  }

  constexpr std::size_t kProducers = 4;
  constexpr std::size_t kRounds = 50;  // the file is small, so it is ingested this many times
  std::size_t events = 0;  // no lock is needed: there is one worker, and main looks after close()
  std::size_t bytes = 0;
  shard::Pipeline pipeline{{.manager = {.backpressure = shard::Backpressure::block(10s)}},
                           [&](const shard::Batch& batch) {
                             events += batch.size();
                             bytes += batch.payload_bytes();
                             return shard::Delivery::delivered();
                           }};

  const auto start = std::chrono::steady_clock::now();
  std::vector<std::jthread> producers;
  for (std::size_t p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] {
      for (std::size_t round = 0; round < kRounds; ++round) {
        for (std::size_t i = p; i < lines.size(); i += kProducers) pipeline.ingest(lines[i]);
      }
    });
  }
  producers.clear();  // joins them

  const bool flushed = static_cast<bool>(pipeline.flush(10s));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  const auto stats = pipeline.stats();
  const auto report = pipeline.close(10s);

  std::cout << events << " events, " << bytes / 1'000'000 << " MB, " << stats.batches
            << " batches in " << took.count()
            << " s: " << static_cast<double>(events) / took.count() / 1e6 << " million a second\n"
            << to_string(report);
  const auto& ledger = report.ledger;
  const bool exact = flushed && report.complete && ledger.balanced() &&
                     ledger.offered() == kRounds * lines.size() &&
                     ledger.delivered == ledger.offered() && ledger.delivered == events;
  std::cout << (exact ? "the books balance\n" : "THE BOOKS DO NOT BALANCE\n");
  return exact ? EXIT_SUCCESS : EXIT_FAILURE;
}
