#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "support/core.hpp"

/// How subjects and peers are compared: all in one program, in turn, round after round, so that a machine
/// that changes its speed changes it for all of them. Ratios of medians are what counts.
namespace bench {

using Nanoseconds = double;

/// The q-quantile of what was measured; `values` is not empty.
inline double quantile_of(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1))];
}

/// Time for one cache line to go to another core and back, halved: half a ping-pong's period. Machines are
/// found in states that differ by a factor of three here; compare only results of one state.
/// The median of some spells, as the two threads may share a core at first, or for a while.
inline Nanoseconds line_transfer() {
  constexpr std::uint32_t kTrips = 2'000;  // of a spell
  constexpr std::uint32_t kSpells = 15;
  alignas(64) std::atomic<std::uint32_t> line{0};
  std::jthread other([&line] {
    run_anywhere();
    for (std::uint32_t trip = 0; trip < kSpells * kTrips; ++trip) {
      while (line.load(std::memory_order_acquire) != 2 * trip + 1) {
      }
      line.store(2 * trip + 2, std::memory_order_release);
    }
  });
  std::vector<Nanoseconds> spells;
  for (std::uint32_t spell = 0; spell < kSpells; ++spell) {
    const auto start = std::chrono::steady_clock::now();
    for (std::uint32_t trip = spell * kTrips; trip < (spell + 1) * kTrips; ++trip) {
      line.store(2 * trip + 1, std::memory_order_release);
      while (line.load(std::memory_order_acquire) != 2 * trip + 2) {
      }
    }
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    spells.push_back(took.count() / kTrips / 2);
  }
  return quantile_of(spells, 0.5);
}

struct Subject {
  std::string name;
  std::function<Nanoseconds()> measure;  ///< nanoseconds per event of one round
  std::vector<Nanoseconds> rounds = {};

  [[nodiscard]] Nanoseconds quantile(double q) const { return quantile_of(rounds, q); }
  [[nodiscard]] Nanoseconds median() const { return quantile(0.5); }
};

/// Calls `measure(subject, round)` for all subjects in turn, round after round. Round -1 is there
/// to warm up and does not count. Returns the line transfers, as measured before each of the
/// others.
template <class Subjects, class Measure>
std::vector<Nanoseconds> interleave(Subjects& subjects, int rounds, Measure measure) {
  std::vector<Nanoseconds> transfers;
  for (int round = -1; round < rounds; ++round) {
    if (round >= 0) {
      transfers.push_back(line_transfer());
    }
    for (std::size_t i = 0; i < subjects.size(); ++i) {
      // Each round starts with another subject, so that none always runs behind the same one.
      measure(subjects[(i + static_cast<std::size_t>(round + 1)) % subjects.size()], round);
    }
  }
  return transfers;
}

inline void print_transfers(const std::vector<Nanoseconds>& transfers) {
  std::printf("line transfer %.0f ns (%.0f .. %.0f)\n", quantile_of(transfers, 0.5),
              quantile_of(transfers, 0), quantile_of(transfers, 1));
  std::fflush(stdout);
}

/// Measures all subjects `rounds` times in turn; the line transfers beside them.
inline std::vector<Nanoseconds> measure_rounds(std::vector<Subject>& subjects, int rounds) {
  return interleave(subjects, rounds, [](Subject& subject, int round) {
    const auto took = subject.measure();
    if (round >= 0) {
      subject.rounds.push_back(took);
    }
  });
}

/// A column of ratios: of each median to that of `to`.
struct Ratio {
  std::string title;
  const Subject* to;
};

/// A line for each subject, and below it what the ratios are to and the line transfers.
inline void print_rounds(const std::vector<Subject>& subjects, const std::vector<Ratio>& ratios,
                         const std::vector<Nanoseconds>& transfers) {
  std::printf("%-44s %8s %8s %8s", "ns per event", "median", "min", "max");
  for (const auto& ratio : ratios) {
    std::printf(" %8s", ratio.title.c_str());
  }
  std::printf("\n");
  for (const auto& subject : subjects) {
    std::printf("%-44s %8.2f %8.2f %8.2f", subject.name.c_str(), subject.median(),
                subject.quantile(0), subject.quantile(1));
    for (const auto& ratio : ratios) {
      std::printf(" %8.2f", subject.median() / ratio.to->median());
    }
    std::printf("\n");
  }
  std::printf("%zu rounds; ", transfers.size());
  for (const auto& ratio : ratios) {
    std::printf("%s to %s; ", ratio.title.c_str(), ratio.to->name.c_str());
  }
  print_transfers(transfers);
}

/// Runs all subjects `rounds` times in turn (after one round that does not count) and prints a
/// table with the ratio of each median to that of the subject named `baseline`. Returns the line
/// transfers.
inline std::vector<Nanoseconds> run_rounds(std::vector<Subject>& subjects, int rounds,
                                           const std::string& baseline) {
  const auto transfers = measure_rounds(subjects, rounds);
  const auto base = std::find_if(subjects.begin(), subjects.end(),
                                 [&](const Subject& subject) { return subject.name == baseline; });
  print_rounds(subjects, {{"ratio", &*base}}, transfers);
  return transfers;
}

/// Keeps the compiler from seeing through a value.
template <class T>
inline void keep(const T& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

}  // namespace bench
