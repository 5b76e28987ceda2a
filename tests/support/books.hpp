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
#include "support/tally.hpp"

namespace shard_test {

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

inline std::vector<std::string> texts_of(const shard::EventBatch& batch) {
  std::vector<std::string> texts;
  for (const auto event : batch) texts.emplace_back(event.text());
  return texts;
}

/// Pops everything of a shard; the payloads as text.
inline std::vector<std::string> drain(const shard::Shard& shard) {
  shard::EventBatch batch;
  while (shard.pop_batch_into(batch) != 0) {
  }
  return texts_of(batch);
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
