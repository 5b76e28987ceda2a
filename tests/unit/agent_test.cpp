// What each thread of a pipeline has for itself.

#include "shard/detail/agent.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

using shard::Timestamp;
using shard::detail::SteadyReading;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace {

constexpr Timestamp kStart{1'000'000'000'000};

/// Whether the clock is read for this: then the answer lies between two readings of ours.
bool reads(SteadyReading& reading, Timestamp now) {
  const auto before = steady_clock::now();
  const auto answer = reading.at(now);
  return before <= answer && answer <= steady_clock::now();
}

}  // namespace

TEST_CASE("a time is turned into one of the steady clock, which is read once in a second") {
  SteadyReading reading;
  REQUIRE(reads(reading, kStart));
  const auto first = reading.at(kStart);
  CHECK(reading.at(kStart) == first);
  CHECK(reading.at(kStart.after(1ns)) - first == 1ns);
  CHECK(reading.at(kStart.after(999ms)) - first == 999ms);
  CHECK(reading.at(kStart.after(10ms)) - first == 10ms);
  CHECK(reading.at(kStart.after(1s)) - first == 1s);

  const auto next = kStart.after(1s + 1ns);
  REQUIRE(reads(reading, next));
  const auto second = reading.at(next);
  CHECK(second < first + 1s);  // the virtual second took less
  CHECK(reading.at(next.after(1s)) - second == 1s);
}

TEST_CASE("a time that goes back is turned into one of the steady clock by reading that again") {
  SteadyReading reading;
  REQUIRE(reads(reading, kStart.after(5s)));
  const auto back = kStart.after(5s - 1ns);
  REQUIRE(reads(reading, back));
  const auto first = reading.at(back);
  CHECK(reading.at(back.after(1ns)) - first == 1ns);
}

TEST_CASE("the bits of the jitter are those of splitmix64") {
  // The first outputs for the seeds 0 and 1234567, as other implementations have them.
  shard::detail::Agent<shard::detail::SystemPlatform> agent;
  const auto next = [&](std::uint64_t seed) {
    agent.random = seed;
    const auto first = agent.next_random();
    const auto second = agent.next_random();
    return std::vector{first, second, agent.next_random()};
  };
  CHECK(next(0) ==
        std::vector<std::uint64_t>{0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F});
  CHECK(next(1234567) == std::vector<std::uint64_t>{6457827717110365317U, 3203168211198807973U,
                                                    9817491932198370423U});
}
