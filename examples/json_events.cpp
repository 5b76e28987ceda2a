// Flights go in as JSON values, keyed by their airport, and are parsed again by the adapter, which adds them up for
// each airport; one event is no JSON and is left out.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "shard/json.hpp"
#include "shard/pipeline.hpp"

struct Airport {
  std::int64_t flights = 0;
  std::int64_t delay = 0;  // minutes, all flights together

  void add(const nlohmann::json& flight) {
    ++flights;
    delay += flight.at("delay").get<std::int64_t>();
  }
  bool operator==(const Airport&) const = default;
};

int main(int argc, char** argv) {
  using namespace std::chrono_literals;
  std::map<std::string, Airport> airports;  // by one worker, then by main: no lock
  const auto add_up = [&](const shard::Batch& batch) {
    std::vector<std::size_t> broken;
    std::string reason;
    for (std::size_t i = 0; i < batch.size(); ++i) {
      if (const auto flight = batch[i].parse()) {
        airports[flight->at("origin").get<std::string>()].add(*flight);
      } else {
        broken.push_back(i);
        reason = flight.error().message;
      }
    }
    return shard::Delivery::delivered_except(broken, reason);  // none: everything is delivered
  };
  shard::Pipeline pipeline{{.manager = {.backpressure = shard::Backpressure::block(10s)}}, add_up};

  std::map<std::string, Airport> expected;
  std::ifstream file(argc > 1 ? argv[1] : "data/flights.ndjson");
  std::uint64_t flights = 0;
  for (std::string line; flights != 10'000 && std::getline(file, line); ++flights) {
    const auto flight = nlohmann::json::parse(line);
    const auto& origin = flight.at("origin").get_ref<const std::string&>();
    shard::ingest_json(pipeline, flight, shard::Key{origin});
    expected[origin].add(flight);
  }
  pipeline.ingest(R"({"origin": "DTW", "delay": )");  // bytes are not looked at
  const auto refused = shard::ingest_json(pipeline, {{"origin", "\xff"}});  // no JSON text for it
  const auto report = pipeline.close(10s);

  std::vector<std::pair<std::string, Airport>> top(airports.begin(), airports.end());
  std::sort(top.begin(), top.end(), [](const auto& left, const auto& right) {
    return left.second.flights > right.second.flights;
  });
  top.resize(std::min<std::size_t>(top.size(), 5));
  std::cout << "airport  flights  mean delay\n";
  for (const auto& [name, sums] : top) {
    std::cout << std::setw(7) << name << std::setw(9) << sums.flights << std::setw(8) << std::fixed
              << std::setprecision(1)
              << static_cast<double>(sums.delay) / static_cast<double>(sums.flights) << " min\n";
  }
  std::cout << to_string(report);
  const auto& ledger = report.ledger;
  const bool right = flights != 0 && airports == expected && report.complete && ledger.balanced() &&
                     ledger.delivered == flights && ledger.dead_lettered == 1 &&
                     ledger.rejected_invalid == 1 && refused == shard::Outcome::invalid_json;
  std::cout << (right ? "the sums are right\n" : "THE SUMS ARE WRONG\n");
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
