#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "shard/jsonl.hpp"
#include "shard/pipeline_options.hpp"
#include "shard/sqlite.hpp"

namespace ingest {

/// What shard-ingest is asked to do.
struct Options {
  std::vector<std::string> inputs = {};  ///< paths; "-" is standard input. None: standard input
  std::string to = "stdout:";            ///< sqlite:DATABASE, jsonl:PATH, stdout: or null:

  std::size_t threads = 2;                         ///< that read; 1 .. 256
  bool follow = false;                             ///< waits for what is appended
  bool split = false;                              ///< several readers share a file
  std::size_t max_record = std::size_t{1} << 20U;  ///< bytes; 1 .. 64 MiB

  bool validate_json = false;
  std::string key = {};  ///< JSON pointer of the field that routes; empty: by content
  bool has_key = false;

  std::string rejects = {};  ///< path; empty: only counted
  std::string report = {};   ///< path; empty: none
  bool quiet = false;
  /// What a signal leaves for the rest. 0 .. 1 h.
  std::chrono::nanoseconds deadline = std::chrono::seconds{10};

  shard::SqliteOptions sqlite = {};  ///< without its database
  shard::JsonlOptions jsonl = {};    ///< without its path
  shard::PipelineOptions pipeline = default_pipeline();

  /// One that loses nothing: it waits for the sink, and gives it half a minute to come back.
  [[nodiscard]] static shard::PipelineOptions default_pipeline();

  /// Adapts the pipeline to the rest (longest payload, routing) and checks everything. Throws shard::ConfigError.
  void finish();
};

/// Reads what --config names; what is not there keeps its default. Throws shard::ConfigError, whose field() is the JSON
/// pointer of the place.
[[nodiscard]] Options options_from_json(nlohmann::json json);
/// Writes everything, so that reading it gives the same.
[[nodiscard]] nlohmann::json to_json(const Options& options);

/// What a command line came to: the options, or the exit status when there is nothing more to do.
using CommandLine = std::variant<Options, int>;

/// Flags, over the file of --config, over the defaults. Prints help, version and errors itself.
[[nodiscard]] CommandLine parse_command_line(int argc, char** argv);

}  // namespace ingest
