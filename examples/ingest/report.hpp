#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "readers.hpp"
#include "shard/pipeline_report.hpp"

namespace ingest {

/// How many shards there were, from when on.
using ShardHistory = std::vector<std::pair<std::chrono::nanoseconds, std::size_t>>;

/// What became of everything.
struct Report {
  std::string to = {};
  std::size_t files = 0;
  ReadCounts read = {};
  shard::PipelineStats stats = {};
  std::uint64_t largest_batch = 0;
  ShardHistory shards = {};
  nlohmann::ordered_json sink = {};  ///< its own counts
  std::chrono::nanoseconds took{0};
  std::optional<int> signal = std::nullopt;
  std::vector<std::string> problems = {};  ///< in words
  std::vector<std::string> first_rejects = {};
  int status = 0;  ///< the exit status
};

/// Was anything lost or refused?
[[nodiscard]] bool has_losses(const ReadCounts& read, const shard::Ledger& ledger) noexcept;

/// The table that ends a run.
[[nodiscard]] std::string to_text(const Report& report);

/// The same for programs: times in fields that end in _ns.
[[nodiscard]] nlohmann::ordered_json to_json(const Report& report);

/// 1234567 as "1,234,567".
[[nodiscard]] std::string grouped(std::uint64_t number);

/// "12 us", "3.4 s": three digits and a unit.
[[nodiscard]] std::string short_time(std::chrono::nanoseconds time);

/// One line for a terminal: how far it is.
struct Progress {
  ReadCounts read = {};
  shard::Ledger ledger = {};
  std::optional<std::uint64_t> total = std::nullopt;  ///< bytes
  std::size_t shards = 0;
  double fill = 0;  ///< of the rings
  std::chrono::nanoseconds since_start{0};
};
[[nodiscard]] std::string to_text(const Progress& progress);

}  // namespace ingest
