// Many simulated worlds, one for each seed, until an invariant fails in one of them; see simulation/world.hpp.

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "simulation/world.hpp"

namespace {

using shard_test::Simulation;
using shard_test::SimulationTotals;

struct Settings {
  std::uint64_t seed = std::random_device{}();  // of the first world; the next ones count up
  std::uint64_t seeds = 1;
  std::uint64_t steps = 100;
  std::uint64_t jobs = 1;
};

[[noreturn]] void end_with_usage(int status) {
  std::fprintf(status == 0 ? stdout : stderr,
               "Usage: shard_simulate [--seed N] [--seeds COUNT] [--steps M] [--jobs J]\n\n"
               "Simulates COUNT worlds (1) of M steps (100), with the seeds N (random), N + 1, "
               "..., in J threads (1).\n"
               "Stops at the first whose invariants fail and prints what went before, and how to "
               "repeat it.\n");
  std::exit(status);
}

Settings parse(int count, char** arguments) {
  Settings settings;
  for (int i = 1; i < count; ++i) {
    const std::string_view name = arguments[i];
    if (name == "-h" || name == "--help") end_with_usage(0);
    std::uint64_t* const value = name == "--seed"    ? &settings.seed
                                 : name == "--seeds" ? &settings.seeds
                                 : name == "--steps" ? &settings.steps
                                 : name == "--jobs"  ? &settings.jobs
                                                     : nullptr;
    if (value == nullptr || ++i == count) end_with_usage(2);
    const auto* const end = arguments[i] + std::strlen(arguments[i]);
    const auto read = std::from_chars(arguments[i], end, *value);
    if (read.ec != std::errc() || read.ptr != end) end_with_usage(2);
  }
  settings.jobs = std::clamp<std::uint64_t>(settings.jobs, 1, 256);
  return settings;
}

/// Of the worlds that failed before all threads had stopped, the one with the lowest seed.
class First {
 public:
  void failed(std::uint64_t offset) {
    auto before = offset_.load();
    while (offset < before && !offset_.compare_exchange_weak(before, offset)) {
    }
  }
  [[nodiscard]] bool has_failed() const { return offset_.load() != kNone; }
  [[nodiscard]] std::uint64_t offset() const { return offset_.load(); }

 private:
  static constexpr auto kNone = ~std::uint64_t{0};
  std::atomic<std::uint64_t> offset_{kNone};
};

/// Simulates it again, and prints its end.
void show(const Settings& settings, std::uint64_t seed) {
  SimulationTotals totals;
  const auto failure =
      shard_test::simulate({.seed = seed, .steps = settings.steps, .traced = true}, totals);
  if (!failure) {
    std::printf("seed %llu did not fail when it was repeated\n",
                static_cast<unsigned long long>(seed));
    return;
  }
  for (const auto& line : failure->trace) std::printf("%s\n", line.c_str());
  std::printf(
      "FAILED seed %llu in step %zu: %s\nrepeat it with: tests/simulate --seed %llu --steps %llu\n",
      static_cast<unsigned long long>(seed), failure->step, failure->what.c_str(),
      static_cast<unsigned long long>(seed), static_cast<unsigned long long>(settings.steps));
}

}  // namespace

int main(int count, char** arguments) {
  const auto settings = parse(count, arguments);
  std::printf("%llu worlds of %llu steps, seeds from %llu\n",
              static_cast<unsigned long long>(settings.seeds),
              static_cast<unsigned long long>(settings.steps),
              static_cast<unsigned long long>(settings.seed));
  std::fflush(stdout);
  const auto began = std::chrono::steady_clock::now();
  First first;
  std::atomic<std::uint64_t> next{0};
  std::mutex mutex;
  SimulationTotals totals;
  const auto work = [&] {
    SimulationTotals mine;
    while (!first.has_failed()) {
      const auto offset = next.fetch_add(1);
      if (offset >= settings.seeds) break;
      if (shard_test::simulate({.seed = settings.seed + offset, .steps = settings.steps}, mine)) {
        first.failed(offset);
      }
    }
    const std::scoped_lock lock(mutex);
    totals += mine;
  };
  std::vector<std::thread> threads;
  for (std::uint64_t i = 1; i < settings.jobs; ++i) threads.emplace_back(work);
  work();
  for (auto& thread : threads) thread.join();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;

  if (first.has_failed()) {
    show(settings, settings.seed + first.offset());
    std::printf("found after %llu seeds\n", static_cast<unsigned long long>(first.offset() + 1));
    return 1;
  }
  std::printf("%s\nno invariant failed; %.1f s, %.0f seeds per second\n", to_string(totals).c_str(),
              took.count(), static_cast<double>(settings.seeds) / took.count());
  return 0;
}
