#include "shard/pipeline_report.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace {

using shard::CloseReport;
using shard::FlushResult;
using shard::FlushStatus;
using shard::Sequence;
using shard::ShardId;
using shard::Undelivered;

shard::UndeliveredRange range(std::uint32_t shard, std::uint64_t first, std::uint64_t last,
                              Undelivered why) {
  return {ShardId{shard}, Sequence{first}, Sequence{last}, why};
}

}  // namespace

TEST_CASE("what nobody has filled in says that there is nothing") {
  using std::chrono::nanoseconds;
  CHECK(FlushResult{}.outstanding == 0);
  const CloseReport report;
  CHECK_FALSE((report.would_deadlock || report.complete));
  CHECK(report.ledger == shard::Ledger{});
  CHECK(report.abandoned_threads == 0);
  CHECK(report.took == nanoseconds{0});
  const shard::Health health;
  CHECK(health.state == shard::HealthState::healthy);
  CHECK(health.consecutive_failures == 0);
  CHECK(health.failures == 0);
  CHECK(health.busy_workers == 0);
  const shard::PipelineStats stats;
  CHECK(stats.ledger == shard::Ledger{});
  CHECK(stats.batches == 0);
  CHECK(stats.attempts == 0);
  CHECK(stats.retries == 0);
  CHECK(stats.shards == 0);
  CHECK(stats.active_shards == 0);
  CHECK(stats.oldest == nanoseconds{0});
}

TEST_CASE("a flush has succeeded only when everything is flushed") {
  CHECK(FlushResult{});
  for (const auto status : {FlushStatus::timed_out, FlushStatus::would_deadlock,
                            FlushStatus::closed, FlushStatus::adapter_failed}) {
    CHECK_FALSE(FlushResult{.status = status});
  }
}

TEST_CASE("a report on a complete close is its ledger and how long it took") {
  const CloseReport report{.complete = true,
                           .ledger = {.accepted = 3, .evicted = 1},
                           .took = std::chrono::nanoseconds{12'045'999}};
  CHECK(to_string(report) == "closed, complete, in 12.045 ms\naccepted 3\nevicted 1\n");
}

TEST_CASE("a report names what is undelivered, a line for each range, and what threads are left") {
  CloseReport report{.ledger = {.accepted = 9}, .abandoned_threads = 2};
  report.undelivered = {range(3, 17, 20, Undelivered::abandoned_queued),
                        range(4, 5, 5, Undelivered::possibly_delivered)};
  CHECK(to_string(report) ==
        "closed, not complete, in 0.000 ms\n"
        "accepted 9\n"
        "abandoned_threads 2\n"
        "undelivered:\n"
        "  shard 3: 17 .. 20 abandoned_queued\n"
        "  shard 4: 5 possibly_delivered\n");
}

TEST_CASE("a report shows twenty ranges and how many more there are") {
  CloseReport report;
  const auto lines = [&report] {
    const auto text = to_string(report);
    return std::count(text.begin(), text.end(), '\n');
  };
  for (std::uint64_t i = 0; i < 20; ++i) {
    report.undelivered.push_back(range(1, 10 * i, 10 * i + 1, Undelivered::abandoned_batched));
  }
  CHECK(lines() == 22);
  CHECK(to_string(report).find("more") == std::string::npos);
  report.undelivered.push_back(range(1, 900, 901, Undelivered::abandoned_batched));
  CHECK(lines() == 23);
  CHECK(to_string(report).find("shard 1: 190 .. 191 abandoned_batched\n  and 1 more\n") !=
        std::string::npos);
  CHECK(to_string(report).find("900") == std::string::npos);
  report.undelivered.resize(1'020, report.undelivered.back());
  CHECK(lines() == 23);
  CHECK(to_string(report).find("and 1000 more\n") != std::string::npos);
}

TEST_CASE("a report of a close that could not be says so") {
  CHECK(to_string(CloseReport{.would_deadlock = true}) == "not closed: would_deadlock\n");
}
