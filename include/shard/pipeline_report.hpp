#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shard/delivery.hpp"
#include "shard/detail/export.hpp"
#include "shard/ids.hpp"
#include "shard/latency.hpp"
#include "shard/ledger.hpp"
#include "shard/scaling.hpp"

namespace shard {

enum class FlushStatus : std::uint8_t {
  flushed,  ///< every event that was accepted before the call is terminal: the ledger says how it ended
  timed_out,       ///< not in time; with 0 outstanding only Adapter::flush() has not answered yet
  would_deadlock,  ///< called from a worker: it would wait for itself
  closed,          ///< the pipeline is closed
  adapter_failed,  ///< all delivered, but Adapter::flush() answered false or threw
};

[[nodiscard]] SHARD_EXPORT std::string_view to_string(FlushStatus status) noexcept;

struct FlushResult {
  FlushStatus status = FlushStatus::flushed;
  std::uint64_t outstanding = 0;  ///< timed_out: accepted before the call and not terminal yet

  [[nodiscard]] explicit operator bool() const noexcept { return status == FlushStatus::flushed; }
};

/// Why events were not delivered, in a CloseReport.
enum class Undelivered : std::uint8_t {
  abandoned_queued,    ///< never left their ring
  abandoned_batched,   ///< in a batch, and every attempt had been answered
  possibly_delivered,  ///< an attempt was under way when time ran out
};

[[nodiscard]] SHARD_EXPORT std::string_view to_string(Undelivered why) noexcept;

/// Events of one shard with successive sequence numbers that close() could not get delivered.
struct UndeliveredRange {
  ShardId shard{};
  Sequence first{};
  Sequence last{};  ///< inclusive
  Undelivered why{};

  bool operator==(const UndeliveredRange&) const = default;
};

struct ShardReport {
  ShardId shard{};
  Ledger ledger = {};
};

/// What close() leaves. Dead letters have gone to their handler, so they are in the ledger only.
struct CloseReport {
  bool would_deadlock = false;  ///< called from a worker; nothing was done
  bool complete =
      false;           ///< nothing is undelivered, and the adapter was flushed and closed in time
  Ledger ledger = {};  ///< of all shards that ever were, and the manager's own counts
  std::vector<ShardReport> shards = {};            ///< those that were there at the end
  std::vector<UndeliveredRange> undelivered = {};  ///< by shard and sequence
  /// Workers that did not come back from the adapter; they go on alone.
  std::size_t abandoned_threads = 0;
  std::chrono::nanoseconds took{0};
};

/// The report as text, for logs and examples: how it ended, the counts that are not zero, and the first 20 ranges that
/// were not delivered. Allocates.
[[nodiscard]] SHARD_EXPORT std::string to_string(const CloseReport& report);

enum class HealthState : std::uint8_t {
  healthy,
  retrying,  ///< the last delivery of some shard failed and is retried, or a dead letter was the last answer
  stuck,  ///< an attempt has taken longer than PipelineOptions::attempt_timeout
  closed,
};

[[nodiscard]] SHARD_EXPORT std::string_view to_string(HealthState state) noexcept;

struct Health {
  HealthState state = HealthState::healthy;
  std::string_view adapter = {};           ///< Adapter::name(), of the first if there are several
  std::uint32_t consecutive_failures = 0;  ///< of any shard, since the last delivery that succeeded
  std::uint64_t failures = 0;              ///< attempts that failed, ever
  std::size_t busy_workers = 0;            ///< in the adapter now
  Reason last_error = {};                  ///< the last failure's
  std::optional<Timestamp> last_success = std::nullopt;
};

/// What is known of a pipeline at one moment.
struct PipelineStats {
  Ledger ledger = {};
  std::uint64_t batches = 0;   ///< delivered, wholly or in part
  std::uint64_t attempts = 0;  ///< calls of the adapter
  std::uint64_t retries = 0;   ///< of those, not the first of their batch
  std::size_t shards = 0;
  std::size_t active_shards = 0;
  LatencyHistogram latency = {};  ///< from acceptance to the adapter's answer, of delivered events
  std::chrono::nanoseconds oldest{
      0};  ///< how long the oldest event that is not terminal has waited
};

}  // namespace shard
