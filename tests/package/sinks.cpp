// What whoever asked for the components must be able to build and run.
#include <chrono>
#include <cstdio>
#include <memory>
#include <utility>

#include "shard/jsonl.hpp"
#include "shard/pipeline.hpp"
#include "shard/sqlite.hpp"

namespace {

bool delivers(std::unique_ptr<shard::Adapter> adapter) {
  shard::Pipeline pipeline{shard::PipelineOptions{}, std::move(adapter)};
  pipeline.ingest("one");
  pipeline.ingest("two", shard::Key{"key"});
  const auto report = pipeline.close(std::chrono::seconds{10});
  std::fputs(to_string(report).c_str(), stdout);
  return report.complete && report.ledger.delivered == 2;
}

}  // namespace

int main() {
  shard::SqliteOptions sqlite;
  sqlite.database =
      "sinks.db";  // in memory nothing could be made durable, so close() would not be complete
  std::remove("sinks.db");
  shard::JsonlOptions jsonl;
  jsonl.path = "/dev/null";
  return delivers(std::make_unique<shard::SqliteAdapter>(sqlite)) &&
                 delivers(std::make_unique<shard::JsonlAdapter>(jsonl))
             ? 0
             : 1;
}
