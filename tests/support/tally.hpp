#pragma once

#include <cstdint>
#include <span>

#include "shard/ledger.hpp"
#include "shard/outcome.hpp"

namespace shard_test {

/// The test's own count of what ingest calls answered, to compare the library's ledger with.
class Tally {
 public:
  shard::Outcome saw(shard::Outcome outcome) {
    switch (outcome) {
      case shard::Outcome::accepted:
        ++seen_.accepted;
        break;
      case shard::Outcome::dropped_newest:
        ++seen_.dropped_newest;
        break;
      case shard::Outcome::rejected_full:
        ++seen_.rejected_full;
        break;
      case shard::Outcome::rejected_timeout:
        ++seen_.rejected_timeout;
        break;
      case shard::Outcome::sampled_out:
        ++seen_.sampled_out;
        break;
      case shard::Outcome::rejected_closed:
        ++seen_.rejected_closed;
        break;
      case shard::Outcome::unrouted:
        ++seen_.unrouted;
        break;
      default:
        ++seen_.rejected_invalid;
        break;
    }
    return outcome;
  }
  void saw(std::span<const shard::Outcome> outcomes) {
    for (const auto outcome : outcomes) saw(outcome);
  }

  /// What the ledger must be when of the accepted events so many went each way.
  struct Gone {
    std::uint64_t evicted = 0;
    std::uint64_t returned = 0;
    std::uint64_t abandoned_queued = 0;
  };
  [[nodiscard]] shard::Ledger ledger(const Gone& gone) const {
    auto expected = seen_;
    expected.evicted = gone.evicted;
    expected.returned = gone.returned;
    expected.abandoned_queued = gone.abandoned_queued;
    expected.queued = seen_.accepted - gone.evicted - gone.returned - gone.abandoned_queued;
    return expected;
  }
  [[nodiscard]] shard::Ledger ledger() const { return ledger(Gone{}); }

  /// What was answered, and nothing of what became of the events later.
  [[nodiscard]] const shard::Ledger& answers() const noexcept { return seen_; }

  Tally& operator+=(const Tally& other) {
    seen_ += other.seen_;
    return *this;
  }

 private:
  shard::Ledger seen_;
};

}  // namespace shard_test
