#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "shard/pipeline.hpp"
#include "shard/sqlite.hpp"
#include "sqlite/support.hpp"
#include "support/failures.hpp"

using namespace shard_test;
using namespace std::chrono_literals;
using shard::SqliteAdapter;

namespace {

/// An adapter that its test can ask for its counts while, or after, the pipeline owns it.
class Shared final : public shard::Adapter {
 public:
  explicit Shared(std::shared_ptr<SqliteAdapter> adapter) : adapter_(std::move(adapter)) {}
  shard::Delivery deliver(const shard::Batch& batch,
                          const shard::DeliveryContext& context) override {
    return adapter_->deliver(batch, context);
  }
  bool flush(const shard::DeliveryContext& context) override { return adapter_->flush(context); }
  void close(const shard::DeliveryContext& context) override { adapter_->close(context); }

 private:
  std::shared_ptr<SqliteAdapter> adapter_;
};

shard::PipelineOptions with_workers(std::size_t workers) {
  shard::PipelineOptions options;
  options.manager.shards = 4;
  options.manager.backpressure = shard::Backpressure::block(1h);
  options.batch.min_events = 100;
  options.batch.max_events = 700;
  options.workers = workers;
  return options;
}

/// Ingests the numbers of [0, count) from several threads, each with its position in the source.
void ingest_all(shard::Pipeline& pipeline, std::uint64_t source, std::size_t count) {
  constexpr std::size_t kThreads = 3;
  Failures failures;
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (std::size_t i = thread; i < count; i += kThreads) {
        const auto outcome = pipeline.ingest(std::to_string(i), shard::Key(std::to_string(i % 10)),
                                             shard::SourceIdentity{source, i});
        failures.check(outcome == shard::Outcome::accepted, "accepted");
      }
    });
  }
  for (auto& thread : threads) thread.join();
  REQUIRE(failures.text().empty());
}

std::string all_numbers(std::size_t count) {
  return std::to_string(count) + "|" + std::to_string(count) + "|" +
         std::to_string(count * (count - 1) / 2);
}
constexpr const char* kAllNumbers =
    "SELECT count(*), count(DISTINCT payload), sum(payload) FROM events";

}  // namespace

TEST_CASE("a pipeline with several workers brings every event into the table once", "[R-G6]") {
  constexpr std::size_t kCount = 20'000;
  const TemporaryFolder folder;
  auto adapter = std::make_shared<SqliteAdapter>(shard::SqliteOptions{.database = folder / "e.db"});
  shard::Pipeline pipeline{with_workers(3), std::make_unique<Shared>(adapter)};
  ingest_all(pipeline, 1, kCount);
  REQUIRE(pipeline.flush(1h));
  CHECK(Other(folder / "e.db").value(kAllNumbers) == all_numbers(kCount));
  const auto report = pipeline.close(1h);
  CHECK(report.complete);
  CHECK(report.ledger.delivered == kCount);
  CHECK(adapter->counts().inserted == kCount);
  CHECK(adapter->counts().duplicates == 0);
  CHECK_FALSE(std::filesystem::exists(folder / "e.db-wal"));
  // The events of a shard are there in order, and so are those of a key.
  CHECK(Other(folder / "e.db")
            .value("SELECT count(*) FROM (SELECT sequence,"
                   " lag(sequence) OVER (PARTITION BY shard ORDER BY rowid) AS before FROM events)"
                   " WHERE sequence <= before") == "0");
}

TEST_CASE("a program that runs again over the same sources adds only what is missing", "[R-G6]") {
  constexpr std::size_t kCount = 5'000;
  const TemporaryFolder folder;
  for (const std::size_t count : {kCount / 2, kCount, kCount}) {
    shard::Pipeline pipeline{
        with_workers(2),
        std::make_unique<SqliteAdapter>(shard::SqliteOptions{.database = folder / "e.db"})};
    ingest_all(pipeline, 1, count);
    REQUIRE(pipeline.close(1h).complete);
    CHECK(Other(folder / "e.db").value(kAllNumbers) == all_numbers(count));
  }
}

TEST_CASE("a pipeline closes in time while another connection keeps the lock", "[R-I3]") {
  constexpr std::size_t kCount = 1'000;
  const TemporaryFolder folder;
  auto options = with_workers(2);
  options.retry.max_elapsed = 1h;
  shard::Pipeline pipeline{options, std::make_unique<SqliteAdapter>(shard::SqliteOptions{
                                        .database = folder / "e.db", .busy_timeout = 1h})};
  Other other(folder / "e.db");
  other.run("BEGIN IMMEDIATE");
  ingest_all(pipeline, 1, kCount);
  const auto report = pipeline.close(1s);
  CHECK_FALSE(report.complete);
  CHECK(report.ledger.delivered == 0);
  CHECK(report.ledger.possibly_delivered == 0);  // the adapter answered in time
  CHECK(report.ledger.abandoned_batched + report.ledger.abandoned_queued == kCount);
  CHECK(report.abandoned_threads == 0);
  other.run("COMMIT");
  CHECK(other.rows() == 0);
}

TEST_CASE("threads may deliver, flush and count at once") {
  constexpr std::size_t kThreads = 4;
  constexpr std::size_t kBatches = 20;
  constexpr std::size_t kSize = 50;
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  Failures failures;
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      const auto events = Events::numbered(kBatches * kSize, {.producer = thread, .epoch = 1});
      for (std::size_t i = 0; i < kBatches; ++i) {
        failures.check(
            is_delivered(adapter.deliver(events.part(i * kSize, kSize), events.context())),
            "delivered");
        failures.check(adapter.counts().inserted >= (i + 1) * kSize, "counted");
        if (i % 8 == 0) failures.check(adapter.flush({}), "flushed");
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(failures.text().empty());
  CHECK(adapter.counts().inserted == kThreads * kBatches * kSize);
  CHECK(rows_of(folder / "e.db") == kThreads * kBatches * kSize);
}

TEST_CASE("several adapters may make the same database at once, and write into it") {
  constexpr std::size_t kThreads = 4;
  const TemporaryFolder folder;
  Failures failures;
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      try {
        SqliteAdapter adapter({.database = folder / "e.db", .busy_timeout = 1h});
        const auto events = Events::numbered(200, {.producer = thread, .epoch = 1});
        failures.check(is_delivered(events.to(adapter)), "delivered");
      } catch (const std::exception&) {
        failures.check(false, "it threw");
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(failures.text() == "");  // shown if it is not
  CHECK(rows_of(folder / "e.db") == kThreads * 200);
}
