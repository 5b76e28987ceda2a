#pragma once

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "shard/ledger.hpp"
#include "shard/manager.hpp"
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

  Tally& operator+=(const Tally& other) {
    seen_ += other.seen_;
    return *this;
  }

 private:
  shard::Ledger seen_;
};

/// The first `count` of the payloads "<stem>0", "<stem>1", ... that the manager routes to that shard.
inline std::vector<std::string> payloads_for(const shard::Manager& manager, shard::ShardId shard,
                                             std::size_t count, const std::string& stem = "p") {
  std::vector<std::string> payloads;
  for (std::size_t i = 0; payloads.size() < count; ++i) {
    auto payload = stem + std::to_string(i);
    if (manager.select_shard_by_hash(manager.hash(payload)) == shard) {
      payloads.push_back(std::move(payload));
    }
  }
  return payloads;
}

inline std::vector<shard::Bytes> views_of(const std::vector<std::string>& payloads) {
  return {payloads.begin(), payloads.end()};
}

/// Pops everything of a shard; the payloads as text.
inline std::vector<std::string> drain(const shard::Shard& shard) {
  std::vector<std::string> texts;
  shard::EventBatch batch;
  while (shard.pop_batch_into(batch) != 0) {
    for (const auto event : batch) texts.emplace_back(event.text());
    batch.clear();
  }
  return texts;
}

}  // namespace shard_test

template <>
struct Catch::StringMaker<shard::Ledger> {
  static std::string convert(const shard::Ledger& ledger) { return to_string(ledger); }
};

template <>
struct Catch::StringMaker<shard::Outcome> {
  static std::string convert(shard::Outcome outcome) { return std::string(to_string(outcome)); }
};
