#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <vector>

#include "shard/pipeline.hpp"
#include "support/flow.hpp"

namespace bench {

/// Producers that wait while a shard is full, `shards` of them, and one worker.
inline shard::PipelineOptions waiting_pipeline(std::size_t shards) {
  shard::PipelineOptions options;
  options.manager.shards = shards;
  options.manager.backpressure = shard::Backpressure::block(std::chrono::seconds{10});
  options.workers = 1;
  return options;
}

/// This library: by content or, where the load has a place for each producer, by Producer handles.
template <class AnyLoad = Load>
class PipelineFlow final : public Flow {
 public:
  PipelineFlow(const AnyLoad& load, const shard::PipelineOptions& options)
      : load_(load), pipeline_(options, [this](const shard::Batch& batch) {
          sink.take(batch, [](const shard::Event& event) { return event.payload; });
          return shard::Delivery::delivered();
        }) {
    for (std::size_t i = 0; i < load.producers; ++i) {
      producers_.push_back(pipeline_.producer());
    }
  }

  void produce(std::size_t producer) override {
    if (load_.own_place) {
      hand_in_to(producers_[producer]);
    } else {
      hand_in_to(pipeline_);
    }
  }

  /// Else the last events would wait for company, which is the pipeline's business but not that of
  /// this benchmark.
  void flush() override {
    if (!pipeline_.flush(std::chrono::seconds{10})) {
      std::fprintf(stderr, "the pipeline could not be flushed\n");
      std::_Exit(EXIT_FAILURE);
    }
  }

 private:
  template <class Target>
  void hand_in_to(Target& target) {
    std::uint64_t accepted = 0;
    load_.hand_in(
        [&](shard::Bytes payload) {
          accepted += target.ingest(payload) == shard::Outcome::accepted ? 1U : 0U;
        },
        [&](std::span<const shard::Bytes> payloads) { accepted += target.ingest_batch(payloads); });
    if (accepted != load_.events() / load_.producers) {
      std::fprintf(stderr, "the pipeline refused events\n");
      std::_Exit(EXIT_FAILURE);
    }
  }

  const AnyLoad load_;
  shard::Pipeline pipeline_;
  std::vector<shard::Producer> producers_;
};

}  // namespace bench
