// The adapter at the end of a pipeline.

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "jsonl/jsonl_support.hpp"
#include "jsonl/system_faults.hpp"
#include "shard/pipeline.hpp"
#include "support/failures.hpp"

namespace {

using shard::JsonlAdapter;
using shard::JsonlExisting;
using shard::JsonlOptions;
using shard::JsonlSync;
using shard::Outcome;
using shard::Pipeline;
using shard::PipelineOptions;
using shard_test::lines_of;
using shard_test::Strings;
using shard_test::TemporaryFolder;
using shard_test::operator+;

constexpr std::chrono::minutes kLong{2};

PipelineOptions options_with(std::size_t workers) {
  PipelineOptions options;
  options.manager.shards = 4;
  options.manager.ring_capacity = 1'024;
  options.manager.backpressure = shard::Backpressure::block(kLong);
  options.workers = workers;
  options.batch.min_events = 1;
  options.batch.max_events = 64;
  return options;
}

TEST_CASE("several workers write every line once and those of a key in order") {
  const TemporaryFolder folder;
  const std::string name = GENERATE("e.ndjson", "e.ndjson.zst");
  const auto rotate_bytes = GENERATE(std::uint64_t{0}, std::uint64_t{10'000});
  constexpr std::size_t kProducers = 2;
  constexpr std::size_t kKeys = 16;
  constexpr std::size_t kEvents = 3'000;  // of each producer
  auto adapter = std::make_unique<JsonlAdapter>(
      JsonlOptions{.path = folder / name, .rotate_bytes = rotate_bytes, .sync = JsonlSync::never});
  Pipeline pipeline(options_with(3), std::move(adapter));
  shard_test::Failures failures;
  std::vector<std::thread> producers;
  for (std::size_t p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] {
      for (std::size_t i = 0; i < kEvents; ++i) {
        const auto key = std::to_string(p) + "/" + std::to_string(i % kKeys);
        const auto text = key + " " + std::to_string(i);
        failures.check(pipeline.ingest(text, shard::Key{key}) == Outcome::accepted, "not accepted");
        if (i == kEvents / 2) {
          failures.check(pipeline.flush(kLong).status == shard::FlushStatus::flushed, "no flush");
        }
      }
    });
  }
  for (auto& producer : producers) producer.join();
  CHECK(failures.text().empty());
  const auto report = pipeline.close(kLong);
  CHECK(report.complete);
  CHECK(report.ledger.delivered == kProducers * kEvents);

  std::map<std::string, std::size_t> next;
  std::size_t lines = 0;
  for (const auto& file : folder.names()) {
    REQUIRE_FALSE(file.ends_with(".part"));
    for (const auto& line : lines_of(folder / file)) {
      const auto space = line.find(' ');
      const auto key = line.substr(0, space);
      const auto first = std::stoull(key.substr(2));
      const auto expected = next.emplace(key, first).first;
      failures.check(std::stoull(line.substr(space + 1)) == expected->second, "out of order");
      expected->second += kKeys;
      ++lines;
    }
  }
  CHECK(failures.text().empty());
  CHECK(lines == kProducers * kEvents);
  CHECK((folder.names().size() > 1) == (rotate_bytes != 0));
}

TEST_CASE("one poisoned event of a pipeline is a dead letter and the others are lines", "[R-G9]") {
  const TemporaryFolder folder;
  auto options = options_with(1);
  options.manager.shards = 1;
  Strings letters;
  options.dead_letters = [&letters](const shard::Batch& batch, const shard::DeadLetter& why) {
    for (const auto event : batch) {
      letters.push_back(std::string(event.text()) + ": " + std::string(why.reason.text()));
    }
  };
  Pipeline pipeline(options, std::make_unique<JsonlAdapter>(JsonlOptions{.path = folder / "e"}));
  for (const auto* const text : {"a", "b\nc", "d"}) {
    CHECK(pipeline.ingest(text) == Outcome::accepted);
  }
  const auto report = pipeline.close(kLong);
  CHECK(report.complete);
  CHECK(report.ledger.delivered == 2);
  CHECK(report.ledger.dead_lettered == 1);
  CHECK(letters == Strings{"b\nc: a payload with a line feed in it is not one line"});
  CHECK(lines_of(folder / "e") == Strings{"a", "d"});
}

TEST_CASE("a file that cannot be completed makes closing incomplete", "[R-I1]") {
  const TemporaryFolder folder;
  const shard_test::FaultsEnd end;
  auto options = options_with(0);  // the calls that fail are this thread's
  Pipeline pipeline(options, std::make_unique<JsonlAdapter>(JsonlOptions{.path = folder / "e"}));
  CHECK(pipeline.ingest("a") == Outcome::accepted);
  CHECK(pipeline.flush(kLong).status == shard::FlushStatus::flushed);
  CHECK(pipeline.ingest("b") == Outcome::accepted);
  SECTION("because its sync fails, which flush tells, too") {
    shard_test::system_faults.fdatasync = EIO;
    CHECK(pipeline.flush(kLong).status == shard::FlushStatus::adapter_failed);
  }
  SECTION("because it cannot be renamed") {
    shard_test::system_faults.renameat2 = EACCES;
    CHECK(pipeline.flush(kLong).status == shard::FlushStatus::flushed);
  }
  const auto report = pipeline.close(kLong);
  CHECK_FALSE(report.complete);
  CHECK(report.ledger.delivered == 2);
  CHECK(folder.names() == Strings{"e.part"});
  shard_test::system_faults = {};
  { const JsonlAdapter next({.path = folder / "e"}); }
  CHECK(lines_of(folder / "e") == Strings{"a", "b"});
}

}  // namespace
