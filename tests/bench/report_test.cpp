#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "report/compare.hpp"
#include "report/page.hpp"
#include "report/suite.hpp"
#include "report/table.hpp"
#include "report/text.hpp"

using namespace bench::report;

namespace {

Row row(const std::string& name, const std::string& role, double median) {
  return {.name = name, .role = role, .median = median, .min = median, .max = median};
}

Case case_of(std::vector<Row> rows, double transfer = 40,
             const std::string& unit = "ns per event") {
  return {.program = "bench_x",
          .title = "one",
          .unit = unit,
          .parameters = {{"producers", 1}},
          .rows = std::move(rows),
          .transfers = {transfer}};
}

Suite suite_of(Case one) {
  Suite suite;
  suite.cases.push_back(std::move(one));
  return suite;
}

Suite with_peer(double ours, double peer, double transfer = 40) {
  return suite_of(case_of({row("shard", "subject", ours), row("ring", "peer", peer)}, transfer));
}

Suite alone(double ours, double transfer = 40, const std::string& unit = "ns per event") {
  return suite_of(case_of({row("shard", "subject", ours)}, transfer, unit));
}

}  // namespace

TEST_CASE("a machine that got slower for subject and peer alike is no change") {
  const auto result = compare(with_peer(10, 20), with_peer(30, 60, 120));
  REQUIRE(result.changes.size() == 1);
  CHECK(result.changes[0].factor() == Approx(1));
  CHECK_FALSE(result.is_slower(1.10));
}

TEST_CASE("a subject is slower if its ratio to the peer is, even if its time is not") {
  const auto result = compare(with_peer(10, 20), with_peer(10, 10));
  CHECK(result.is_slower(1.10));
  CHECK(result.slower(1.10).at(0).factor() == Approx(2));
  CHECK(compare(with_peer(10, 10), with_peer(10, 20)).faster(1.10).size() == 1);
}

TEST_CASE("the threshold itself is not slower yet") {
  CHECK_FALSE(compare(alone(100), alone(110)).is_slower(1.2));
  CHECK(compare(alone(100), alone(121)).is_slower(1.2));
}

TEST_CASE("a peer that only one of the runs has is not compared with") {
  const auto before = with_peer(10, 20);
  const auto after = suite_of(case_of(
      {row("shard", "subject", 10), row("ring", "peer", 20), row("new and fast", "peer", 1)}));
  CHECK_FALSE(compare(before, after).is_slower(1.10));
}

TEST_CASE("a floor is no peer") {
  const auto suite = [](double floor) {
    return suite_of(case_of(
        {row("shard", "subject", 10), row("ring", "peer", 20), row("bare", "floor", floor)}));
  };
  CHECK_FALSE(compare(suite(10), suite(1)).is_slower(1.10));
}

TEST_CASE("times without a peer are not compared across states of the machine") {
  const auto result = compare(alone(10, 40), alone(30, 120));
  CHECK(result.changes.empty());
  CHECK(result.refused.size() == 1);
  CHECK(to_text(result, 1.10).find("another state") != std::string::npos);

  CHECK(compare(alone(10, 40), alone(30, 50)).is_slower(1.10));
}

TEST_CASE("bytes and instructions do not depend on the state of the machine") {
  CHECK(
      compare(alone(10, 40, "bytes per shard"), alone(20, 120, "bytes per shard")).is_slower(1.10));
  CHECK(compare(alone(10, 40, "instructions per event"), alone(20, 120, "instructions per event"))
            .is_slower(1.10));
  CHECK(compare(alone(10, 40, "per second"), alone(20, 40, "per second")).changes.empty());
}

TEST_CASE("the median of latencies decides, their far end is only told") {
  const auto suite = [](double p50, double p99) {
    auto one = case_of({});
    one.rows.push_back({.name = "shard", .quantiles = {{"p50", p50}, {"p99", p99}}});
    return suite_of(one);
  };
  const auto far = compare(suite(10, 100), suite(10, 900));
  CHECK(far.slower(1.10).size() == 1);
  CHECK_FALSE(far.is_slower(1.10));
  CHECK(compare(suite(10, 100), suite(20, 100)).is_slower(1.10));
}

TEST_CASE("what only the older run has is named") {
  auto other = with_peer(10, 20);
  other.cases[0].parameters["producers"] = 2;
  const auto result = compare(with_peer(10, 20), other);
  CHECK(result.changes.empty());
  CHECK(result.gone.size() == 1);
}

TEST_CASE("what is no result of the suite is refused with a reason") {
  CHECK_THROWS_AS(suite_from(Json::parse(R"([1, 2])")), BadInput);
  CHECK_THROWS_AS(suite_from(Json::parse(R"({"format": 2, "about": {}, "programs": []})")),
                  BadInput);
  CHECK_THROWS_AS(suite_from(Json::parse(R"({"format": 1, "about": {}})")), BadInput);
  CHECK_THROWS_AS(
      suite_from(Json::parse(R"({"format": 1, "about": {}, "programs": [{"cases": [{}]}]})")),
      BadInput);
  CHECK_THROWS_AS(suite_from(Json::parse(R"({"format": 1, "about": {}, "programs": [1]})")),
                  BadInput);
  CHECK_THROWS_AS(read_suite("/does/not/exist.json"), BadInput);
}

TEST_CASE(
    "Google Benchmark's repetitions become the rounds of a row, its aggregates are left alone") {
  const auto suite =
      suite_from(Json::parse(R"({"format": 1, "about": {}, "programs": [{"program": "bench_micro",
    "google_benchmark": {"context": {"line_transfer_ns": "41.5"}, "benchmarks": [
      {"name": "a/1", "run_name": "a/1", "run_type": "iteration", "real_time": 3, "time_unit": "us"},
      {"name": "a/1", "run_name": "a/1", "run_type": "iteration", "real_time": 1, "time_unit": "us"},
      {"name": "a/1", "run_name": "a/1", "run_type": "iteration", "real_time": 2, "time_unit": "us"},
      {"name": "a/1_mean", "run_name": "a/1", "run_type": "aggregate", "real_time": 9, "time_unit": "us"}]}}]})"));
  REQUIRE(suite.cases.size() == 1);
  REQUIRE(suite.cases[0].rows.size() == 1);
  const auto& only = suite.cases[0].rows[0];
  CHECK(only.median == 2000.0);
  CHECK(only.min == 1000.0);
  CHECK(only.max == 3000.0);
  CHECK(suite.transfers() == std::vector{41.5});
}

TEST_CASE("names cannot break out of the page, of its attributes, or of a Markdown table") {
  CHECK(escape(R"(<a href="x">&'</a>)") == "&lt;a href=&quot;x&quot;&gt;&amp;&#39;&lt;/a&gt;");
  CHECK(escape_markdown("a|b\nc") == "a\\|b c");

  auto suite = with_peer(10, 20);
  suite.about["cpu"] = "<script>alert(1)</script>";
  suite.cases[0].title = "\"><script>alert(2)</script>";
  suite.cases[0].rows[0].name = "</svg><script>alert(3)</script>";
  const auto page = page_of(suite);
  CHECK(page.find("<script") == std::string::npos);
  CHECK(page.find("alert(1)") != std::string::npos);
  CHECK(page.find("alert(2)") != std::string::npos);
  CHECK(page.find("alert(3)") != std::string::npos);
}

TEST_CASE("the page needs nothing from elsewhere and names what is missing") {
  const auto page = page_of(with_peer(10, 20));
  CHECK(page.find("http") == std::string::npos);
  CHECK(page.find("src=") == std::string::npos);
  CHECK(page.find("Left out") != std::string::npos);
  CHECK(page.find("Cost per stage") != std::string::npos);
  CHECK(page.find("nan") == std::string::npos);
}

TEST_CASE("a page of nothing, and of figures that are not there, can be drawn") {
  CHECK_FALSE(page_of(Suite{}).empty());
  auto suite = with_peer(0, 0);
  suite.cases[0].rows.push_back({.name = "not measured"});
  CHECK_FALSE(page_of(suite).empty());
  CHECK_FALSE(summary_in_markdown(suite).empty());
}

TEST_CASE("figures have three digits that count") {
  CHECK(figure(0) == "0");
  CHECK(figure(0.1234) == "0.123");
  CHECK(figure(1.234) == "1.23");
  CHECK(figure(12.34) == "12.3");
  CHECK(figure(123.4) == "123");
  CHECK(figure(1234567) == "1,234,567");
  CHECK(figure(NAN) == "?");
  CHECK(trimmed("25.0 ns") == "25 ns");
  CHECK(trimmed("2.50 ns") == "2.5 ns");
  CHECK(trimmed("100 ns") == "100 ns");
  CHECK(trimmed("p99.9") == "p99.9");
  CHECK(nanoseconds(1500) == "1.50 us");
  CHECK(bytes(2048) == "2.00 KiB");
}
