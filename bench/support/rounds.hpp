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

/// How subjects and peers are compared: all in one program, in turn, round after round, so that a machine
/// that changes its speed changes it for all of them. Ratios of medians are what counts.
namespace bench {

using Nanoseconds = double;

/// Time for one cache line to go to another core and back, halved: half a ping-pong's period. Machines are
/// found in states that differ by a factor of three here; compare only results of one state.
inline Nanoseconds line_transfer() {
  constexpr std::uint32_t kTrips = 20'000;
  alignas(64) std::atomic<std::uint32_t> line{0};
  std::jthread other([&line] {
    for (std::uint32_t trip = 0; trip < kTrips; ++trip) {
      while (line.load(std::memory_order_acquire) != 2 * trip + 1) {
      }
      line.store(2 * trip + 2, std::memory_order_release);
    }
  });
  while (line.load() != 0) {
  }
  const auto start = std::chrono::steady_clock::now();
  for (std::uint32_t trip = 0; trip < kTrips; ++trip) {
    line.store(2 * trip + 1, std::memory_order_release);
    while (line.load(std::memory_order_acquire) != 2 * trip + 2) {
    }
  }
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
  return took.count() / kTrips / 2;
}

struct Subject {
  std::string name;
  std::function<Nanoseconds()> measure;  ///< nanoseconds per event of one round
  std::vector<Nanoseconds> rounds = {};

  [[nodiscard]] Nanoseconds quantile(double q) const {
    auto sorted = rounds;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<std::size_t>(q * static_cast<double>(sorted.size() - 1))];
  }
  [[nodiscard]] Nanoseconds median() const { return quantile(0.5); }
};

/// Runs all subjects `rounds` times in turn (after one round that does not count) and prints a table with
/// the ratio of each median to that of the subject named `baseline`.
inline void run_rounds(std::vector<Subject>& subjects, int rounds, const std::string& baseline) {
  std::vector<Nanoseconds> transfers;
  for (int round = -1; round < rounds; ++round) {
    transfers.push_back(line_transfer());
    for (std::size_t i = 0; i < subjects.size(); ++i) {
      // Each round starts with another subject, so that none always runs behind the same one.
      auto& subject = subjects[(i + static_cast<std::size_t>(round + 1)) % subjects.size()];
      const auto took = subject.measure();
      if (round >= 0) {
        subject.rounds.push_back(took);
      }
    }
  }
  const auto base = std::find_if(subjects.begin(), subjects.end(),
                                 [&](const Subject& subject) { return subject.name == baseline; });
  std::printf("%-44s %8s %8s %8s %8s\n", "ns per event", "median", "min", "max", "ratio");
  for (const auto& subject : subjects) {
    std::printf("%-44s %8.2f %8.2f %8.2f %8.2f\n", subject.name.c_str(), subject.median(),
                subject.quantile(0), subject.quantile(1), subject.median() / base->median());
  }
  std::sort(transfers.begin(), transfers.end());
  std::printf("%d rounds; ratio to %s; line transfer %.0f ns (%.0f .. %.0f)\n", rounds,
              baseline.c_str(), transfers[transfers.size() / 2], transfers.front(),
              transfers.back());
}

/// Keeps the compiler from seeing through a value.
template <class T>
inline void keep(const T& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

}  // namespace bench
