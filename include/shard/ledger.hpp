#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>

#include "shard/detail/export.hpp"

namespace shard {

/// The counts of a shard, of a manager or of a pipeline. At quiescence (no ingest, no pop, no delivery in progress)
///
///     offered()  = accepted + dropped_newest + rejected_full + rejected_timeout + sampled_out
///                  + rejected_closed + rejected_invalid + unrouted
///     accepted   = taken + evicted + returned + abandoned_queued + queued
///     taken      = delivered + dead_lettered + abandoned_batched + possibly_delivered + batched
///
/// hold exactly, per shard and in total. While events move, a snapshot is taken without locks and
/// never shows more events out than in. `queued` and `batched` are gauges; all others never
/// go down. Without a pipeline nothing is ever taken.
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
  std::uint64_t returned = 0;          ///< handed to whoever popped them or removed the shard
  std::uint64_t abandoned_queued = 0;  ///< still in the ring at the end
  std::uint64_t queued = 0;            ///< in the ring now

  std::uint64_t taken = 0;          ///< moved from the ring into a batch, by a pipeline
  std::uint64_t delivered = 0;      ///< the adapter says so
  std::uint64_t dead_lettered = 0;  ///< given up: refused, or tried often or long enough
  std::uint64_t abandoned_batched =
      0;  ///< in a batch at the end of close(), every attempt answered
  std::uint64_t possibly_delivered =
      0;                      ///< an attempt was under way then, or the adapter does not know
  std::uint64_t batched = 0;  ///< in a batch now

  /// Events that ingest calls have answered for.
  [[nodiscard]] constexpr std::uint64_t offered() const noexcept {
    return accepted + dropped_newest + rejected_full + rejected_timeout + sampled_out +
           rejected_closed + rejected_invalid + unrouted;
  }

  /// Events that are gone for good: lost at the door, or taken in and neither delivered nor handed to anyone. Dead
  /// letters and what was possibly delivered are not among them.
  [[nodiscard]] constexpr std::uint64_t lost() const noexcept {
    return dropped_newest + sampled_out + evicted + abandoned_queued + abandoned_batched;
  }

  /// Do the two laws above hold? Exact at quiescence only.
  [[nodiscard]] constexpr bool balanced() const noexcept {
    return accepted == taken + evicted + returned + abandoned_queued + queued &&
           taken == delivered + dead_lettered + abandoned_batched + possibly_delivered + batched;
  }

  constexpr Ledger& operator+=(const Ledger& other) noexcept;

  bool operator==(const Ledger&) const = default;
};

namespace detail {

struct LedgerCount {
  const char* name;
  std::uint64_t Ledger::*count;
};
/// Every count, in the order in which it is shown.
inline constexpr std::array kLedgerCounts{
    LedgerCount{"accepted", &Ledger::accepted},
    LedgerCount{"dropped_newest", &Ledger::dropped_newest},
    LedgerCount{"rejected_full", &Ledger::rejected_full},
    LedgerCount{"rejected_timeout", &Ledger::rejected_timeout},
    LedgerCount{"sampled_out", &Ledger::sampled_out},
    LedgerCount{"rejected_closed", &Ledger::rejected_closed},
    LedgerCount{"rejected_invalid", &Ledger::rejected_invalid},
    LedgerCount{"unrouted", &Ledger::unrouted},
    LedgerCount{"evicted", &Ledger::evicted},
    LedgerCount{"returned", &Ledger::returned},
    LedgerCount{"abandoned_queued", &Ledger::abandoned_queued},
    LedgerCount{"queued", &Ledger::queued},
    LedgerCount{"taken", &Ledger::taken},
    LedgerCount{"delivered", &Ledger::delivered},
    LedgerCount{"dead_lettered", &Ledger::dead_lettered},
    LedgerCount{"abandoned_batched", &Ledger::abandoned_batched},
    LedgerCount{"possibly_delivered", &Ledger::possibly_delivered},
    LedgerCount{"batched", &Ledger::batched},
};
static_assert(sizeof(Ledger) == kLedgerCounts.size() * sizeof(std::uint64_t), "none is forgotten");

}  // namespace detail

constexpr Ledger& Ledger::operator+=(const Ledger& other) noexcept {
  for (const auto& [name, count] : detail::kLedgerCounts) {
    this->*count += other.*count;
  }
  return *this;
}

/// The ledger as text, a line per count that is not zero, for logs and examples.
/// Threads: any. Allocates.
[[nodiscard]] SHARD_EXPORT std::string to_string(const Ledger& ledger);

/// The three totals that a dashboard reads often, cheaper than a Ledger.
struct Stats {
  std::uint64_t events_ingested = 0;    ///< accepted
  std::uint64_t events_dropped = 0;     ///< dropped_newest + sampled_out + evicted
  std::uint64_t events_dispatched = 0;  ///< returned + delivered
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
