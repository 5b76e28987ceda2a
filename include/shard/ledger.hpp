#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "shard/detail/export.hpp"

namespace shard {

/// The counts of a shard or of a whole manager. At quiescence (no ingest and no pop in progress)
///
///     offered()  = accepted + dropped_newest + rejected_full + rejected_timeout + sampled_out
///                  + rejected_closed + rejected_invalid + unrouted
///     accepted   = evicted + returned + abandoned_queued + queued
///
/// hold exactly, per shard and in total. While events move, a snapshot is taken without locks and
/// never shows more events out than in. `queued` is a gauge; all others never go down.
struct Ledger {
  std::uint64_t accepted = 0;          ///< pushed into a ring
  std::uint64_t dropped_newest = 0;    ///< lost: full, mode drop_newest
  std::uint64_t rejected_full = 0;     ///< refused: full, and not to be waited for
  std::uint64_t rejected_timeout = 0;  ///< refused: full until the deadline, mode block
  std::uint64_t sampled_out = 0;       ///< lost: full, not chosen, mode sample
  std::uint64_t rejected_closed = 0;   ///< refused: closed (counted at the manager)
  std::uint64_t rejected_invalid = 0;  ///< refused: see is_invalid() (counted at the manager)
  std::uint64_t unrouted = 0;          ///< no active shard (counted at the manager)

  std::uint64_t evicted = 0;           ///< lost: made room for newer ones
  std::uint64_t returned = 0;          ///< handed to whoever popped them
  std::uint64_t abandoned_queued = 0;  ///< still in the ring when the manager was destroyed
  std::uint64_t queued = 0;            ///< in the ring now

  /// Events that ingest calls have answered for.
  [[nodiscard]] constexpr std::uint64_t offered() const noexcept {
    return accepted + dropped_newest + rejected_full + rejected_timeout + sampled_out +
           rejected_closed + rejected_invalid + unrouted;
  }

  /// Events that are gone: taken in and never seen by a consumer, or lost at the door.
  [[nodiscard]] constexpr std::uint64_t lost() const noexcept {
    return dropped_newest + sampled_out + evicted + abandoned_queued;
  }

  /// Does accepted = evicted + returned + abandoned_queued + queued hold? Exact at quiescence only.
  [[nodiscard]] constexpr bool balanced() const noexcept {
    return accepted == evicted + returned + abandoned_queued + queued;
  }

  constexpr Ledger& operator+=(const Ledger& other) noexcept {
    accepted += other.accepted;
    dropped_newest += other.dropped_newest;
    rejected_full += other.rejected_full;
    rejected_timeout += other.rejected_timeout;
    sampled_out += other.sampled_out;
    rejected_closed += other.rejected_closed;
    rejected_invalid += other.rejected_invalid;
    unrouted += other.unrouted;
    evicted += other.evicted;
    returned += other.returned;
    abandoned_queued += other.abandoned_queued;
    queued += other.queued;
    return *this;
  }

  bool operator==(const Ledger&) const = default;
};

/// The ledger as text, a line per count that is not zero, for logs and examples.
/// Threads: any. Allocates.
[[nodiscard]] SHARD_EXPORT std::string to_string(const Ledger& ledger);

/// The three totals that a dashboard reads often, cheaper than a Ledger.
struct Stats {
  std::uint64_t events_ingested = 0;    ///< accepted
  std::uint64_t events_dropped = 0;     ///< dropped_newest + sampled_out + evicted
  std::uint64_t events_dispatched = 0;  ///< returned
};

/// Sums over the batches that a consumer has reported with Shard::record_batch_dispatch(), all of one
/// moment. The latencies add up to 292 years at most.
struct DispatchStats {
  std::uint64_t batches = 0;
  std::uint64_t events = 0;
  std::chrono::nanoseconds total_latency{0};

  /// 0 when there was no batch.
  [[nodiscard]] constexpr std::chrono::nanoseconds mean_latency() const noexcept {
    return batches == 0 ? std::chrono::nanoseconds{0}
                        : total_latency / static_cast<std::int64_t>(batches);
  }
};

}  // namespace shard
