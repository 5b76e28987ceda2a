#pragma once

#include "support/results.hpp"

/// The parts of bench_system. Each prints its tables as it goes and adds its cases to the results.
namespace bench::system {

struct Settings {
  bool quick = false;  ///< too short to mean anything, long enough to see that all of it works
  Results* results = nullptr;

  [[nodiscard]] int rounds() const { return quick ? 1 : 7; }
};

void throughput(const Settings& settings);
void latency(const Settings& settings);
void overflow(const Settings& settings);
void scale(const Settings& settings);

}  // namespace bench::system
