// What every way of embedding the library must be able to build and run.
#include <cstdio>
#include <string_view>

#include "shard/config_json.hpp"
#include "shard/json.hpp"
#include "shard/manager.hpp"
#include "shard/pipeline.hpp"

namespace {

/// With a worker thread, configured from JSON.
bool delivers() {
  std::size_t delivered = 0;
  shard::Pipeline pipeline{shard::parse_pipeline_options(R"({"workers": 1})"),
                           [&delivered](const shard::Batch& batch) { delivered += batch.size(); }};
  pipeline.ingest("one");
  pipeline.ingest("two", shard::Key{"key"});
  const auto report = pipeline.close(std::chrono::seconds{10});
  return report.complete && delivered == 2 && report.ledger.delivered == 2;
}

}  // namespace

int main() {
  shard::Manager manager{shard::parse_manager_options(R"({"shards": 2})")};
  manager.ingest("plain");
  shard::ingest_json(manager, {{"answer", 42}}, shard::Key{"key"});

  shard::EventBatch batch;
  for (const auto id : manager.shard_ids()) {
    manager.shard(id)->pop_batch_into(batch);
  }
  int answer = 0;
  for (const auto event : batch) {
    if (const auto json = event.parse()) {
      answer = json->at("answer").get<int>();
    }
  }
  const auto ledger = manager.ledger();
  std::fputs(to_string(ledger).c_str(), stdout);
  return batch.size() == 2 && answer == 42 && ledger.balanced() && ledger.returned == 2 &&
                 delivers()
             ? 0
             : 1;
}
