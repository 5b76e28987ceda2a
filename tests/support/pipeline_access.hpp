#pragma once

#include <cstddef>
#include <cstdint>

#include "shard/detail/pipeline_core_impl.hpp"
#include "shard/pipeline.hpp"

namespace shard::detail {

/// For what a pipeline shows only to its own threads, or after longer than a test can wait.
struct PipelineTestAccess {
  using Platform = SystemPlatform;

  static ShardCore<Platform>& shard(Pipeline& pipeline, ShardId id) {
    return *pipeline.core_->core_->find(id);
  }
  static void set_attempt(Pipeline& pipeline, ShardId id, std::uint32_t attempt) {
    Lane<Platform>::of(shard(pipeline, id)).attempt = attempt;
  }
  static void set_consecutive_failures(Pipeline& pipeline, std::uint64_t failures) {
    pipeline.core_->courier_.monitor.consecutive_ = failures;
  }
  /// How often those who wait for progress were told to look.
  static std::uint32_t notified(Pipeline& pipeline) {
    return pipeline.core_->core_->ready->progress.prepare() / 2;
  }

  /// What the controller's thread does at the end of a window; true when it has nothing to do until events come.
  static bool tick(Pipeline& pipeline) {
    auto& core = *pipeline.core_;
    auto& agent = *core.workers_.front();
    const bool in = core.get_in(agent);
    const bool settled = core.tick(agent);
    core.get_out(agent);
    return in && settled;
  }
  /// Whether it has nothing more to do after a tick with this report.
  static bool is_settled(Pipeline& pipeline, const ScalingReport& report) {
    return pipeline.core_->is_settled(report);
  }

  /// What a flush that begins now waits for, for outstanding().
  static auto request_flush(Pipeline& pipeline) { return pipeline.core_->request_flush(); }
  template <class Goals>
  static std::uint64_t outstanding(const Goals& goals) {
    return PipelineCore<Platform>::outstanding(goals);
  }
};

}  // namespace shard::detail
