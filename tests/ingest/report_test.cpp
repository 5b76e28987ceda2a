#include "report.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace {

using namespace std::chrono_literals;
using ingest::grouped;
using ingest::has_losses;
using ingest::Progress;
using ingest::ReadCounts;
using ingest::Report;
using ingest::short_time;
using shard::Ledger;

/// A run in which all went well.
Report good_report() {
  Report report;
  report.to = "sqlite:events.db";
  report.files = 2;
  report.read.records = 1'234'567;
  report.read.bytes = 250'000'000;
  report.stats.ledger.accepted = report.read.records;
  report.stats.ledger.taken = report.read.records;
  report.stats.ledger.delivered = report.read.records;
  report.stats.batches = 1'000;
  report.stats.attempts = 1'002;
  report.stats.retries = 2;
  report.stats.latency.counts[shard::LatencyHistogram::bucket_of(1'000'000)] = 100;
  report.largest_batch = 10'000;
  report.shards = {{0ns, 4}};
  report.took = 2s;
  return report;
}

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// What stands behind the name of a row; "" if there is no such row.
std::string row(const std::string& text, const std::string& name) {
  const auto begin = text.find("\n  " + name + " ");
  if (begin == std::string::npos) return {};
  const auto line = text.substr(begin + 1, text.find('\n', begin + 1) - begin - 1);
  return line.substr(line.find_first_not_of(' ', 2 + name.size()));
}

}  // namespace

TEST_CASE("numbers are grouped by thousands", "[ingest]") {
  CHECK(grouped(0) == "0");
  CHECK(grouped(999) == "999");
  CHECK(grouped(1'000) == "1,000");
  CHECK(grouped(12'345) == "12,345");
  CHECK(grouped(123'456) == "123,456");
  CHECK(grouped(1'234'567) == "1,234,567");
  CHECK(grouped(std::numeric_limits<std::uint64_t>::max()) == "18,446,744,073,709,551,615");
}

TEST_CASE("times have two or three digits and a unit", "[ingest]") {
  CHECK(short_time(0ns) == "0.0 ns");
  CHECK(short_time(7ns) == "7.0 ns");
  CHECK(short_time(12ns) == "12 ns");
  CHECK(short_time(999ns) == "999 ns");
  CHECK(short_time(1us) == "1.0 us");
  CHECK(short_time(9'940ns) == "9.9 us");
  CHECK(short_time(9'960ns) == "10 us");
  CHECK(short_time(12'345us) == "12 ms");
  CHECK(short_time(3'400ms) == "3.4 s");
  CHECK(short_time(90s) == "90 s");
  CHECK(short_time(1h) == "3600 s");
}

TEST_CASE("a time that is rounded up gets the next unit", "[ingest]") {
  CHECK(short_time(999'400us) == "999 ms");
  CHECK(short_time(999'600us) == "1.0 s");
  CHECK(short_time(999'999'999ns) == "1.0 s");
  CHECK(short_time(999'999ns) == "1.0 ms");
  CHECK(short_time(999'600ns) == "1.0 ms");
}

TEST_CASE("the report says first how much came from where, and how fast", "[ingest]") {
  const auto text = to_text(good_report());
  CHECK(text.substr(0, text.find('\n')) ==
        "1,234,567 records of 2 inputs to sqlite:events.db in 2.0 s: 617,283/s, 125.0 MB/s");
  Report one;
  one.to = "null:";
  one.files = 1;
  one.read.records = 1;
  CHECK(to_text(one).starts_with("1 record of 1 input to null: in 0.0 ns: 0/s, 0.0 MB/s\n"));
}

TEST_CASE("the report of a good run has no row of losses", "[ingest]") {
  auto report = good_report();
  report.sink = {{"rows inserted", 1'234'000}, {"already there", 567}};
  const auto text = to_text(report);
  CHECK(row(text, "read") == "1,234,567");
  CHECK(row(text, "delivered") == "1,234,567");
  CHECK(row(text, "rows inserted") == "1,234,000");
  CHECK(row(text, "already there") == "567");
  CHECK(row(text, "batches") == "1,000");
  CHECK(row(text, "  mean size") == "1,234");
  CHECK(row(text, "  largest") == "10,000");
  CHECK(row(text, "retries") == "2");
  CHECK(row(text, "latency p50") == "1.0 ms");
  CHECK(row(text, "latency max") == "1.0 ms");
  CHECK(row(text, "shards") == "4");
  for (const auto* name :
       {"rejected", "dropped when full", "refused when full", "unrouted", "given up by the sink",
        "possibly delivered", "not delivered", "not taken in", "blank lines"}) {
    CAPTURE(name);
    CHECK(row(text, name).empty());
  }
  CHECK_FALSE(has(text, "First of those"));
}

TEST_CASE("every loss has its row, and makes the run one with losses", "[ingest]") {
  struct Loss {
    const char* row;
    std::uint64_t Ledger::*count;
  };
  CHECK_FALSE(has_losses(good_report().read, good_report().stats.ledger));
  for (const auto& loss :
       {Loss{"dropped when full", &Ledger::dropped_newest},
        Loss{"dropped when full", &Ledger::sampled_out},
        Loss{"dropped when full", &Ledger::evicted},
        Loss{"refused when full", &Ledger::rejected_full},
        Loss{"refused when full", &Ledger::rejected_timeout}, Loss{"unrouted", &Ledger::unrouted},
        Loss{"given up by the sink", &Ledger::dead_lettered},
        Loss{"possibly delivered", &Ledger::possibly_delivered},
        Loss{"not delivered", &Ledger::abandoned_queued},
        Loss{"not delivered", &Ledger::abandoned_batched}, Loss{"not delivered", &Ledger::queued},
        Loss{"not delivered", &Ledger::batched}}) {
    auto report = good_report();
    report.stats.ledger.*loss.count = 4'321;
    CAPTURE(loss.row);
    CHECK(has_losses(report.read, report.stats.ledger));
    CHECK(row(to_text(report), loss.row) == "4,321");
  }
  auto report = good_report();
  report.read.rejected = 1'500;
  CHECK(has_losses(report.read, report.stats.ledger));
  CHECK(row(to_text(report), "rejected") == "1,500");
}

TEST_CASE("blank lines and what was read too late are shown and are no losses", "[ingest]") {
  auto report = good_report();
  report.read.blank = 12;
  report.read.unread = 34;
  report.stats.ledger.rejected_closed = 34;
  CHECK_FALSE(has_losses(report.read, report.stats.ledger));
  const auto text = to_text(report);
  CHECK(row(text, "blank lines") == "12");
  CHECK(row(text, "not taken in") == "34");
}

TEST_CASE("a report without batches says nothing of their size", "[ingest]") {
  auto report = good_report();
  report.stats.batches = 0;
  const auto text = to_text(report);
  CHECK(row(text, "batches") == "0");
  CHECK_FALSE(has(text, "mean size"));
  CHECK_FALSE(has(text, "latency"));
  CHECK(to_json(report)["batches"]["mean"] == 0);
}

TEST_CASE("shards that came and went are shown over time", "[ingest]") {
  auto report = good_report();
  report.shards = {{0ns, 2}, {1'500ms, 8}, {20s, 3}};
  const auto text = to_text(report);
  CHECK(row(text, "shards over time") == "2 at 0.0 ns, 8 at 1.5 s, 3 at 20 s");
  CHECK(row(text, "shards").substr(0, 4) == "over");  // no row with one number
  CHECK(to_json(report)["shards"] == nlohmann::ordered_json::parse(R"([{"since_ns": 0, "shards": 2},
          {"since_ns": 1500000000, "shards": 8}, {"since_ns": 20000000000, "shards": 3}])"));
}

TEST_CASE("the report ends with examples of what was rejected and with the problems", "[ingest]") {
  auto report = good_report();
  report.first_rejects = {"a:1: no JSON", "a:7: too long"};
  report.problems = {"b cannot be read", "Stopped by a signal"};
  CHECK(to_text(report).ends_with(
      "\nFirst of those rejected or refused:\n  a:1: no JSON\n  a:7: too long\n"
      "\nb cannot be read\n\nStopped by a signal\n"));
}

TEST_CASE("the report as JSON has every count, times in nanoseconds, and the exit status",
          "[ingest]") {
  auto report = good_report();
  report.read.blank = 3;
  report.read.rejected = 4;
  report.read.unread = 5;
  report.sink = {{"lines", 17}};
  report.problems = {"why"};
  report.signal = 15;
  report.status = 143;
  const auto json = to_json(report);
  CHECK(json["to"] == "sqlite:events.db");
  CHECK(json["inputs"] == 2);
  CHECK(json["took_ns"] == 2'000'000'000);
  CHECK(json["read"] == nlohmann::ordered_json::parse(R"({"records": 1234567, "bytes": 250000000,
          "blank": 3, "rejected": 4, "not_taken_in": 5})"));
  CHECK(json["records_per_second"] == 1'234'567 / 2.0);
  CHECK(json["ledger"]["delivered"] == 1'234'567);
  CHECK(json["ledger"].size() == shard::detail::kLedgerCounts.size() + 1);  // and offered
  CHECK(json["balanced"] == true);
  CHECK(json["sink"]["lines"] == 17);
  CHECK(json["batches"] == nlohmann::ordered_json::parse(R"({"count": 1000, "mean": 1234,
          "largest": 10000, "attempts": 1002, "retries": 2})"));
  CHECK(json["latency"]["p50_ns"] >= 1'000'000);
  CHECK(json["latency"]["p99_ns"] >= json["latency"]["p50_ns"]);
  CHECK(json["latency"]["max_ns"] >= json["latency"]["p99_ns"]);
  CHECK(json["shards"].size() == 1);
  CHECK(json["signal"] == 15);
  CHECK(json["problems"] == nlohmann::ordered_json{"why"});
  CHECK(json["exit_status"] == 143);
}

TEST_CASE("the report as JSON of a run of nothing is whole, too", "[ingest]") {
  const auto json = to_json(Report{});
  CHECK(json["signal"].is_null());
  CHECK(json["sink"].is_null());
  CHECK(json["shards"] == nlohmann::ordered_json::array());
  CHECK(json["problems"] == nlohmann::ordered_json::array());
  CHECK(json["records_per_second"] == 0);
  CHECK(json["exit_status"] == 0);
  CHECK(nlohmann::ordered_json::parse(json.dump()) == json);
}

TEST_CASE("progress is one line, with how much is left where that is known", "[ingest]") {
  Progress progress;
  progress.read.bytes = 250;
  progress.total = 1'000;
  progress.ledger.delivered = 12'345;
  progress.shards = 4;
  progress.fill = 0.125;
  progress.since_start = 10s;
  CHECK(to_text(progress) == " 25 %  ETA 30 s  12,345 delivered  1,234/s  fill 12 %  4 shards");
  progress.total.reset();
  progress.shards = 1;
  progress.read.rejected = 2'000;
  progress.ledger.evicted = 1;
  progress.ledger.queued = 500;  // not lost: on its way
  CHECK(to_text(progress) ==
        "12,345 delivered  1,234/s  fill 12 %  1 shard  2,001 lost or rejected");
}

TEST_CASE("progress never exceeds the whole, and does not divide by nothing", "[ingest]") {
  Progress progress;
  progress.total = 1'000;
  CHECK(to_text(progress).starts_with("  0 %  ETA 0.0 ns  0 delivered  0/s"));
  progress.read.bytes = 1'500;  // the file has grown
  progress.since_start = 1s;
  CHECK(to_text(progress).starts_with("100 %  ETA 0.0 ns"));
  progress.total = 0;
  CHECK(to_text(progress).starts_with("0 delivered"));
}
