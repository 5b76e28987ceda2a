#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "options.hpp"
#include "shard/adapter.hpp"

namespace ingest {

/// Sizes of batches, and whether the sink is of any use still.
///
/// Threads: any.
class SinkWatch {
 public:
  /// \param on_failure  called once, by the thread that notices
  explicit SinkWatch(std::function<void()> on_failure) : on_failure_(std::move(on_failure)) {}

  void delivered(std::uint64_t events) noexcept;
  /// It will take nothing more.
  void fail(const std::string& why);

  [[nodiscard]] bool has_failed() const noexcept { return failed_; }
  [[nodiscard]] std::string why() const;
  [[nodiscard]] std::uint64_t largest_batch() const noexcept { return largest_; }

 private:
  std::function<void()> on_failure_;
  std::atomic<std::uint64_t> largest_{0};
  std::atomic<bool> failed_{false};
  mutable std::mutex mutex_;
  std::string why_;  // guarded by mutex_
};

/// What `--to` names.
struct Sink {
  std::unique_ptr<shard::Adapter> adapter;
  std::function<nlohmann::ordered_json()> counts;  ///< its own; while the adapter lives
  bool is_standard_output = false;
};

/// The file that `--to` names; empty if it names none.
[[nodiscard]] std::string sink_path(const Options& options);

/// \param options  as Options::finish() left them
/// Throws shard::ConfigError for bad options of the sink, others for one that cannot be used.
[[nodiscard]] Sink make_sink(const Options& options, SinkWatch& watch);

}  // namespace ingest
