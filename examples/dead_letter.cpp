// A sink that takes a batch as a whole or not at all, and some events that it can never take: they become dead
// letters, and the others of their batch are delivered as if they had never been there.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "shard/pipeline.hpp"

/// A table of integers. Threads: one at a time.
class Table {
 public:
  /// All rows of a transaction or, if there is one that is no integer, none and the indices of those.
  std::vector<std::size_t> insert(const shard::Batch& batch) {
    std::vector<std::size_t> bad;
    std::vector<int> added;
    for (std::size_t i = 0; i < batch.size(); ++i) {
      try {
        added.push_back(std::stoi(std::string(batch[i].text())));
      } catch (const std::invalid_argument&) {
        bad.push_back(i);
      }
    }
    if (bad.empty()) rows.insert(rows.end(), added.begin(), added.end());
    return bad;
  }

  std::vector<int> rows;
};

int main() {
  using namespace std::chrono_literals;
  constexpr int kEvents = 1'000;
  Table table;
  std::size_t letters = 0;

  shard::PipelineOptions options;
  options.manager.shards = 1;
  options.batch.min_events = 250;
  options.batch.max_events = 250;
  options.dead_letters = [&](const shard::Batch& batch, const shard::DeadLetter& why) {
    for (const shard::Event event : batch) {
      std::cout << "dead letter: \"" << event.text() << "\", sequence " << event.sequence.value
                << ", " << to_string(why.cause) << ": " << why.reason.text() << "\n";
      ++letters;
    }
  };
  shard::Pipeline pipeline{options, [&](const shard::Batch& batch) {
                             const auto bad = table.insert(batch);
                             // Nothing of it was inserted, so all but those is tried again, at once.
                             return bad.empty() ? shard::Delivery::delivered()
                                                : shard::Delivery::refuse(bad, "no integer");
                           }};

  std::vector<int> expected;
  for (int i = 0; i < kEvents; ++i) {
    const bool poisoned = i % 300 == 100;
    pipeline.ingest(poisoned ? "poison " + std::to_string(i) : std::to_string(i));
    if (!poisoned) expected.push_back(i);
  }
  const auto report = pipeline.close(10s);

  std::cout << to_string(report);
  const auto& ledger = report.ledger;
  const bool right = report.complete && ledger.balanced() && letters == 3 &&
                     ledger.dead_lettered == letters && ledger.delivered == expected.size() &&
                     table.rows == expected;
  std::cout << (right ? "all others are in the table, once and in order\n"
                      : "THE TABLE IS NOT AS IT SHOULD BE\n");
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
