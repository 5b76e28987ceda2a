#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bell.hpp"
#include "input_file.hpp"
#include "options.hpp"
#include "rejects.hpp"
#include "shard/pipeline.hpp"

namespace ingest {

/// What has been read so far.
struct ReadCounts {
  std::uint64_t bytes = 0;
  std::uint64_t records = 0;
  std::uint64_t blank = 0;
  std::uint64_t rejected = 0;  ///< records that were no JSON, had no key, were too long, ...
  std::uint64_t unread =
      0;  ///< records that were read too late to be taken in; a later run finds them
  std::uint64_t gone = 0;  ///< the same from a pipe: nobody finds them
};

/// The threads that read: each takes one input after the other and brings its records to the pipeline. Inputs that are
/// followed are dealt out among them.
///
/// Threads: construction, request_stop() and join() by one; counts(), errors() and is_done() by any.
class Readers {
 public:
  /// Opens the inputs. Throws InputError, and shard::ConfigError if a file is named twice.
  /// \param on_error  called by the thread that cannot go on with an input
  Readers(const Options& options, Rejects& rejects,
          std::function<void(const std::string&)> on_error);
  ~Readers();

  /// Throws std::system_error if a thread cannot be started.
  /// \param on_done  called by the last thread
  void start(shard::Pipeline& pipeline, std::function<void()> on_done);
  /// Each ends with the block that it has in hand.
  void request_stop() noexcept;
  [[nodiscard]] bool is_done() const noexcept { return running_ == 0; }
  /// Waits for them. A thread whose record waits for room comes back when the pipeline is closed.
  void join();

  [[nodiscard]] ReadCounts counts() const noexcept;
  [[nodiscard]] std::size_t files() const noexcept { return files_; }
  /// Bytes to read in all; nothing where that is not known.
  [[nodiscard]] std::optional<std::uint64_t> total() const noexcept { return total_; }
  /// Was everything read to its end?
  [[nodiscard]] bool has_finished() const noexcept { return finished_ == inputs_.size(); }
  [[nodiscard]] std::vector<std::string> errors() const;

 private:
  class Worker;

  void open_inputs();
  void fail(const std::string& error);
  void run(Worker& worker, std::size_t index);

  const Options& options_;
  Rejects& rejects_;
  std::vector<std::unique_ptr<InputFile>> inputs_;
  std::size_t files_ = 0;
  std::optional<std::uint64_t> total_ = 0;

  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;
  std::function<void(const std::string&)> on_error_;
  std::function<void()> on_done_;
  std::atomic<std::size_t> next_input_{0};
  std::atomic<std::size_t> running_{0};
  std::atomic<std::size_t> finished_{0};  ///< inputs
  std::atomic<bool> stopping_{false};
  Bell stop_;  ///< rings when that is set, and stays so

  mutable std::mutex mutex_;
  std::vector<std::string> errors_;  // guarded by mutex_
};

}  // namespace ingest
