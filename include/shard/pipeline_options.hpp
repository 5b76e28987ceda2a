#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shard/batch.hpp"
#include "shard/batcher.hpp"
#include "shard/delivery.hpp"
#include "shard/detail/export.hpp"
#include "shard/options.hpp"
#include "shard/retry.hpp"

namespace shard {

/// What a worker does while there is nothing to do.
enum class WaitStrategy : std::uint8_t {
  park,  ///< sleeps; a wake-up takes some microseconds, and costs whoever ingests a system call
  spin_then_park,  ///< looks for a while first
  spin,            ///< keeps a core busy; the fastest hand-over
};

[[nodiscard]] SHARD_EXPORT std::string_view to_string(WaitStrategy strategy) noexcept;

/// Why events became dead letters.
enum class DeadLetterCause : std::uint8_t {
  refused,             ///< the adapter refused them for good
  attempts_exhausted,  ///< RetryOptions::max_attempts
  time_exhausted,      ///< RetryOptions::max_elapsed
};

[[nodiscard]] SHARD_EXPORT std::string_view to_string(DeadLetterCause cause) noexcept;

struct DeadLetter {
  DeadLetterCause cause{};
  std::uint32_t attempts = 0;  ///< how often they were tried
  Reason reason;               ///< the adapter's last
};

/// Gets what finally failed; they are counted as dead_lettered whatever it does. Called by a worker, at once for different
/// shards. What it throws is ignored.
using DeadLetterHandler = std::function<void(const Batch& batch, const DeadLetter& why)>;

enum class NoticeKind : std::uint8_t {
  scaled_up,
  scaled_down,
  retrying,  ///< a batch failed and will be tried again
  dead_lettered,
  recovered,  ///< a delivery succeeded after failures
  evicting,   ///< events are evicted or dropped because their shard is full
};

[[nodiscard]] SHARD_EXPORT std::string_view to_string(NoticeKind kind) noexcept;

/// Whether a pipeline changes the number of its shards by itself.
enum class ScalingMode : std::uint8_t {
  automatic,  ///< as the policy says
  paused,     ///< decides nothing; shards that drain are still taken out
  dry_run,    ///< decides and does not act: see Pipeline::last_decision()
};

/// Something that an operator may want to know.
struct Notice {
  NoticeKind kind{};
  std::optional<ShardId> shard;  ///< nothing where it concerns the whole pipeline
  std::uint64_t events = 0;      ///< how many it concerns, or shards for scaled_*
  std::uint64_t suppressed = 0;  ///< notices of this kind that were left out since the last one
  Reason reason;
};

/// Called by a worker or by the scaling thread, never on the way of ingest(); at most once per
/// PipelineOptions::notice_interval and kind. What it throws is ignored.
using Listener = std::function<void(const Notice& notice)>;

/// How a pipeline is made.
struct PipelineOptions {
  static constexpr std::size_t kMaxWorkers = 256;
  static constexpr unsigned kMaxProcessors = 1024;

  /// Its scaling policy, if there is one, is checked here too, and that `shards` lies within it.
  ManagerOptions manager = {};
  BatchOptions batch = {};
  RetryOptions retry = {};

  /// Threads that deliver. 0 .. 256. Zero: the host calls run_once().
  std::size_t workers = 1;

  WaitStrategy wait = WaitStrategy::park;

  /// How long spin_then_park looks before it parks. 0 .. 1 s.
  std::chrono::nanoseconds spin_for = std::chrono::microseconds{20};

  /// Processors that the workers are bound to, worker i to the i-th, round and round. Empty: to none. Each 0 .. 1023; one
  /// that the system does not let them use is a ConfigError of the pipeline's constructor.
  std::vector<unsigned> processors = {};

  /// Threads are named so, with a number behind it; the system may cut it to 15 characters. Empty: no names.
  std::string thread_name = "shard";

  /// One call of deliver() at a time, whatever the number of workers. Not together with an AdapterFactory.
  bool serialise_adapter = false;

  /// What DeliveryContext::deadline allows one attempt. Above 0; max(): no limit. It is told, not enforced.
  std::chrono::nanoseconds attempt_timeout = std::chrono::seconds{30};

  /// What the destructor gives close(). 0 .. 1 h.
  std::chrono::nanoseconds close_timeout = std::chrono::seconds{5};

  /// Identity::producer: the same after a restart if the host has one; nullopt for a random one.
  std::optional<std::uint64_t> producer_id = std::nullopt;

  DeadLetterHandler dead_letters = {};
  Listener listener = {};
  /// 0 .. 1 h.
  std::chrono::nanoseconds notice_interval = std::chrono::seconds{1};

  /// Throws ConfigError, with field() like "manager.ring_capacity", "workers" or "processors[2]", for the first field out
  /// of bounds.
  SHARD_EXPORT void validate() const;
};

}  // namespace shard
