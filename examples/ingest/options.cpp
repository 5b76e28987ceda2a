#include "options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>

#include "exit_status.hpp"
#include "json_field.hpp"
#include "object_reader.hpp"
#include "shard/config_json.hpp"
#include "shard/json.hpp"
#include "shard/version.hpp"

namespace ingest {

namespace {

using nlohmann::json;
using shard::ConfigError;
using shard::JsonlExisting;
using shard::JsonlSync;
using shard::SqliteSynchronous;
using shard::detail::ObjectReader;
using std::chrono::nanoseconds;

constexpr std::array kSynchronous{SqliteSynchronous::off, SqliteSynchronous::normal,
                                  SqliteSynchronous::full};
constexpr std::array kSyncs{JsonlSync::never, JsonlSync::on_close, JsonlSync::interval,
                            JsonlSync::batch};
constexpr std::array kExisting{JsonlExisting::fail, JsonlExisting::append, JsonlExisting::replace};

/// Runs `work` and moves the place of its errors below `pointer`.
template <class Work>
auto at(const std::string& pointer, const Work& work) {
  try {
    return work();
  } catch (const ConfigError& error) {
    throw ConfigError(pointer + error.field(), error.value(), error.bound());
  }
}

/// Checks bounds at the place where the values stand in the file.
template <class Check>
void check_at(const std::string& pointer, Check check) {
  try {
    check();
  } catch (const ConfigError& error) {
    const auto& field = error.field();
    const bool is_time = field == "busy_timeout" || field == "rotate_after" ||
                         field == "sync_interval" || field == "deadline";
    throw ConfigError(
        pointer + (field == "workers" ? "/pipeline/" : "/") + field + (is_time ? "_ns" : ""),
        error.value(), error.bound());
  }
}

/// The database and the path come with Options::to, so they are not checked.
void validate(shard::SqliteOptions options) {
  options.database = "-";
  options.validate();
}
void validate(shard::JsonlOptions options) {
  options.path = "-";
  options.validate();
}

/// Times of another unit are written in nanoseconds, too.
template <class Duration>
void read_time(ObjectReader& reader, const std::string& name, Duration& into) {
  nanoseconds time = into;
  reader.read(name, time);
  // It would be cut, perhaps to 0, which means another thing.
  if (time % Duration{1} != nanoseconds{0}) {
    throw ConfigError(reader.place(name), std::to_string(time.count()),
                      "a multiple of " + std::to_string(nanoseconds(Duration{1}).count()));
  }
  into = std::chrono::duration_cast<Duration>(time);
}

template <class Duration>
std::int64_t written(Duration time) {
  return nanoseconds(time).count();
}

void read_sqlite(const json& value, const std::string& pointer, shard::SqliteOptions& options) {
  ObjectReader reader(value, pointer);
  reader.read("table", options.table);
  reader.read("synchronous", options.synchronous, kSynchronous);
  read_time(reader, "busy_timeout_ns", options.busy_timeout);
  reader.read("max_page_count", options.max_page_count);
  reader.finish();
  check_at(pointer, [&] { validate(options); });
}

void read_jsonl(const json& value, const std::string& pointer, shard::JsonlOptions& options) {
  ObjectReader reader(value, pointer);
  reader.read("existing", options.existing, kExisting);
  reader.read("rotate_bytes", options.rotate_bytes);
  read_time(reader, "rotate_after_ns", options.rotate_after);
  reader.read("sync", options.sync, kSyncs);
  read_time(reader, "sync_interval_ns", options.sync_interval);
  reader.read("compression_level", options.compression_level);
  reader.finish();
  check_at(pointer, [&] { validate(options); });
}

std::vector<std::string> read_inputs(const json& value, const std::string& place) {
  std::vector<std::string> inputs;
  if (!value.is_array()) throw ConfigError(place, shard::detail::shown(value), "an array of paths");
  for (const auto& path : value) {
    if (!path.is_string()) {
      throw ConfigError(place + "/" + std::to_string(inputs.size()), shard::detail::shown(path),
                        "a path");
    }
    inputs.push_back(path);
  }
  return inputs;
}

/// Puts what the file says over what is there, objects member by member. (A merge patch would take null for "remove it".)
void put_over(json& base, json&& said) {
  if (!base.is_object() || !said.is_object()) {
    base = std::move(said);
    return;
  }
  for (auto member = said.begin(); member != said.end(); ++member) {
    put_over(base[member.key()], std::move(member.value()));
  }
}

/// "8" or "2..16".
struct ShardRange {
  std::size_t low = 0;
  std::size_t high = 0;

  [[nodiscard]] static std::optional<ShardRange> parse(std::string_view text) {
    ShardRange range;
    const auto* const end = text.data() + text.size();
    auto [next, error] = std::from_chars(text.data(), end, range.low);
    if (error != std::errc{}) return std::nullopt;
    range.high = range.low;
    if (next != end) {
      const std::string_view rest(next, static_cast<std::size_t>(end - next));
      if (!rest.starts_with("..")) return std::nullopt;
      const auto upper = std::from_chars(next + 2, end, range.high);
      if (upper.ec != std::errc{} || upper.ptr != end || range.high < range.low) {
        return std::nullopt;
      }
    }
    return range;
  }
};

void set_shards(const ShardRange& range, shard::ManagerOptions& manager) {
  manager.shards = range.low;
  if (range.low == range.high) {
    manager.scaling.reset();
    return;
  }
  if (!manager.scaling) manager.scaling.emplace();
  manager.scaling->min_shards = range.low;
  manager.scaling->max_shards = range.high;
}

/// What flags say; nothing where they are silent, so that the file's value stays.
struct Flags {
  std::vector<std::string> inputs;
  std::optional<std::string> to, key, rejects, report, shards, validate;
  std::optional<std::size_t> threads, workers, max_record;
  std::optional<std::int64_t> deadline, retry_for;
  bool follow = false, split = false, quiet = false;
  std::optional<std::string> table;
  std::optional<SqliteSynchronous> synchronous;
  std::optional<JsonlExisting> existing;
  std::optional<JsonlSync> sync;
  std::optional<std::uint64_t> rotate_size;
  std::optional<std::int64_t> rotate_every;
  std::optional<int> level;

  void apply(Options& options) const {
    const auto set = [](auto& into, const auto& flag) {
      if (flag) into = *flag;
    };
    if (!inputs.empty()) options.inputs = inputs;
    set(options.to, to);
    set(options.rejects, rejects);
    set(options.report, report);
    set(options.threads, threads);
    set(options.max_record, max_record);
    set(options.pipeline.workers, workers);
    if (key) {
      options.key = *key;
      options.has_key = true;
    }
    if (validate) options.validate_json = *validate == "json";
    if (deadline) options.deadline = nanoseconds{*deadline};
    if (retry_for) options.pipeline.retry.max_elapsed = nanoseconds{*retry_for};
    if (shards) set_shards(*ShardRange::parse(*shards), options.pipeline.manager);
    options.follow |= follow;
    options.split |= split;
    options.quiet |= quiet;
    set(options.sqlite.table, table);
    set(options.sqlite.synchronous, synchronous);
    set(options.jsonl.existing, existing);
    set(options.jsonl.sync, sync);
    set(options.jsonl.rotate_bytes, rotate_size);
    set(options.jsonl.compression_level, level);
    if (rotate_every) {
      if (nanoseconds{*rotate_every} % std::chrono::seconds{1} != nanoseconds{0}) {
        throw ConfigError("--rotate-every", std::to_string(*rotate_every) + " ns", "whole seconds");
      }
      options.jsonl.rotate_after =
          std::chrono::duration_cast<std::chrono::seconds>(nanoseconds{*rotate_every});
    }
  }
};

/// The help shows type names, without what CLI11 would add about the check.
template <class Check>
Check unnamed(Check check) {
  check.description("");
  return check;
}

/// "100MB" into bytes.
CLI::Validator size() { return unnamed(CLI::AsSizeValue(false)); }

/// "10s" into nanoseconds.
CLI::Validator duration() {
  const std::map<std::string, std::int64_t> units{{"ms", 1'000'000},
                                                  {"s", 1'000'000'000},
                                                  {"min", 60'000'000'000},
                                                  {"h", 3'600'000'000'000},
                                                  {"d", 86'400'000'000'000}};
  return unnamed(CLI::AsNumberWithUnit(units, CLI::AsNumberWithUnit::UNIT_REQUIRED, "TIME"));
}

template <class Enum, std::size_t kCount>
std::string names_of(const std::array<Enum, kCount>& all) {
  std::string names;
  for (const auto value : all) names.append(names.empty() ? "" : "|").append(to_string(value));
  return names;
}

/// The value of that name. CLI11 reads the number.
template <class Enum, std::size_t kCount>
CLI::Validator name_of(const std::array<Enum, kCount>& all) {
  return unnamed(CLI::Validator(
      [all](std::string& text) {
        const auto found = std::find_if(all.begin(), all.end(),
                                        [&](Enum value) { return to_string(value) == text; });
        if (found == all.end()) return "must be " + names_of(all) + ", is " + text;
        text = std::to_string(static_cast<int>(*found));
        return std::string();
      },
      ""));
}

std::string version() {
  std::ostringstream text;
  text << "shard-ingest " << SHARD_VERSION_MAJOR << '.' << SHARD_VERSION_MINOR << '.'
       << SHARD_VERSION_PATCH;
  return text.str();
}

Options read_config(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (file.peek() != std::ifstream::traits_type::eof()) text << file.rdbuf();
  if (!file.is_open() || file.bad() || !text) {
    throw ConfigError("--config", path, "a file that can be read");
  }
  auto parsed = shard::parse_json(text.str());
  if (!parsed) throw ConfigError(path, parsed.error().message, "JSON");
  return at(path + ": ", [&] { return options_from_json(std::move(*parsed)); });
}

}  // namespace

shard::PipelineOptions Options::default_pipeline() {
  shard::PipelineOptions pipeline;
  pipeline.manager.backpressure = shard::Backpressure::block(nanoseconds::max());
  pipeline.retry.max_attempts = 0;
  pipeline.retry.max_elapsed = std::chrono::seconds{30};
  return pipeline;
}

void Options::finish() {
  const auto require = [](bool good, std::string_view field, const std::string& value,
                          std::string_view bound) {
    if (!good) throw ConfigError(field, value, bound);
  };
  require(to.starts_with("sqlite:") || to.starts_with("jsonl:") || to == "stdout:" || to == "null:",
          "to", to, "sqlite:DATABASE, jsonl:PATH, stdout: or null:");
  require(threads >= 1 && threads <= 256, "threads", std::to_string(threads), "1 .. 256");
  require(max_record >= 1 && max_record <= std::size_t{64} << 20U, "max_record",
          std::to_string(max_record), "1 .. 67108864");
  require(deadline >= nanoseconds{0} && deadline <= std::chrono::hours{1}, "deadline",
          std::to_string(deadline.count()), "0 .. 3600000000000 ns");
  require(!(split && follow), "split", "true", "false where a file is followed");
  const std::set<std::string> distinct(inputs.begin(), inputs.end());
  require(distinct.size() == inputs.size(), "inputs", "a path twice", "each path once");
  try {
    if (has_key) JsonField field(key);
  } catch (const json::exception&) {
    throw ConfigError("key", key, "a JSON pointer, like /origin");
  }

  auto& manager = pipeline.manager;
  require(pipeline.workers >= 1, "workers", "0", "1 or more");
  manager.max_payload = std::max(manager.max_payload, max_record);
  // Twice the longest payload fits: see ManagerOptions::max_payload.
  manager.ring_bytes = std::max(manager.ring_bytes, std::bit_ceil(2 * manager.max_payload));
  if (has_key) manager.routing = shard::Routing::keyed;
  pipeline.validate();
  validate(sqlite);
  validate(jsonl);
}

Options options_from_json(json value) {
  Options options;
  ObjectReader reader(value, "");
  if (const auto* inputs = reader.find("inputs")) {
    options.inputs = read_inputs(*inputs, reader.place("inputs"));
  }
  reader.read("to", options.to);
  reader.read("threads", options.threads);
  reader.read("follow", options.follow);
  reader.read("split", options.split);
  reader.read("max_record", options.max_record);
  reader.read("validate_json", options.validate_json);
  if (const auto* key = reader.find("key"); key != nullptr && !key->is_null()) {
    reader.read("key", options.key);
    options.has_key = true;
  }
  reader.read("rejects", options.rejects);
  reader.read("report", options.report);
  reader.read("quiet", options.quiet);
  reader.read("deadline_ns", options.deadline);
  if (const auto* sqlite = reader.find("sqlite")) {
    read_sqlite(*sqlite, reader.place("sqlite"), options.sqlite);
  }
  if (const auto* jsonl = reader.find("jsonl")) {
    read_jsonl(*jsonl, reader.place("jsonl"), options.jsonl);
  }
  if (reader.find("pipeline") != nullptr) {
    // Over this program's defaults, not over the library's: those would lose events behind a slow sink. Moved, as copying
    // recurses, and it may be nested deeper than there is stack.
    json merged = options.pipeline;
    put_over(merged, std::move(value["pipeline"]));
    options.pipeline = shard::pipeline_options_from_json(merged, reader.place("pipeline"));
  }
  reader.finish();
  // Flags may change what is checked here, but only here its place is known.
  check_at("", [checked = options]() mutable { checked.finish(); });
  return options;
}

json to_json(const Options& options) {
  return {
      {"inputs", options.inputs},
      {"to", options.to},
      {"threads", options.threads},
      {"follow", options.follow},
      {"split", options.split},
      {"max_record", options.max_record},
      {"validate_json", options.validate_json},
      {"key", options.has_key ? json(options.key) : json()},
      {"rejects", options.rejects},
      {"report", options.report},
      {"quiet", options.quiet},
      {"deadline_ns", options.deadline.count()},
      {"sqlite",
       {{"table", options.sqlite.table},
        {"synchronous", to_string(options.sqlite.synchronous)},
        {"busy_timeout_ns", written(options.sqlite.busy_timeout)},
        {"max_page_count", options.sqlite.max_page_count}}},
      {"jsonl",
       {{"existing", to_string(options.jsonl.existing)},
        {"rotate_bytes", options.jsonl.rotate_bytes},
        {"rotate_after_ns", written(options.jsonl.rotate_after)},
        {"sync", to_string(options.jsonl.sync)},
        {"sync_interval_ns", written(options.jsonl.sync_interval)},
        {"compression_level", options.jsonl.compression_level}}},
      {"pipeline", options.pipeline},
  };
}

CommandLine parse_command_line(int argc, char** argv) {
  CLI::App app(
      "Reads lines from files or from standard input and brings them to a database or to a file, "
      "each line one\n"
      "event. Everything that was read is in exactly one count of the report.",
      "shard-ingest");
  app.footer(
      "Sinks:\n"
      "  sqlite:DATABASE   rows of a table; a line that is there already (same file, same place) "
      "changes nothing.\n"
      "                    DATABASE is a path or a URI like file:events.db?mode=rw\n"
      "  jsonl:PATH        lines; compressed if PATH ends in .zst; complete files only get their "
      "names\n"
      "  stdout:           standard output\n"
      "  null:             nowhere: for measuring\n"
      "\n"
      "Exit status: 0 all delivered; 1 the sink or an input cannot be used; 2 the command line or "
      "the configuration\n"
      "is wrong; 3 something was lost or refused, the report says what; 128 + n ended by signal n "
      "before the end of\n"
      "the input, nothing lost.\n"
      "\n"
      "SIGINT, SIGTERM and SIGHUP end gracefully: what was read is delivered within --deadline. A "
      "second "
      "one ends at once.\n"
      "\n"
      "Examples:\n"
      "  shard-ingest --to sqlite:events.db --key /origin flights.ndjson\n"
      "  zcat old.gz | shard-ingest --validate json --rejects bad.ndjson --to "
      "jsonl:good.ndjson.zst\n"
      "  shard-ingest --follow --shards 1..8 --to jsonl:all.ndjson --rotate-size 100MB "
      "/var/log/app.ndjson");
  app.failure_message([](const CLI::App* program, const CLI::Error& error) {
    return "shard-ingest: " + CLI::FailureMessage::simple(program, error);
  });
  app.set_version_flag("--version", version());

  Flags flags;
  std::string config;
  bool print_config = false;

  app.add_option("FILE", flags.inputs, "What to read; - is standard input, and so is none");
  app.add_option("-t,--to", flags.to, "Where to: see Sinks below [stdout:]")->type_name("SINK");

  app.add_option("-j,--threads", flags.threads, "Threads that read, each a file at a time [2]")
      ->type_name("N")
      ->group("Input");
  app.add_flag("-f,--follow", flags.follow,
               "Wait for what is appended, also after a file was replaced or cut; ends by a signal")
      ->group("Input");
  app.add_flag("--split", flags.split,
               "Several threads share one file; its order, and line numbers, are given up")
      ->group("Input");
  app.add_option("--max-record", flags.max_record, "Longer lines are rejected [1MB]")
      ->type_name("SIZE")
      ->transform(size())
      ->group("Input");
  app.add_option("--validate", flags.validate, "json: reject lines that are no JSON [none]")
      ->type_name("none|json")
      ->check(unnamed(CLI::IsMember({"none", "json"})))
      ->group("Input");
  app.add_option("--rejects", flags.rejects,
                 "Write there what was rejected or refused, with file, line and reason")
      ->type_name("FILE")
      ->group("Input");

  app.add_option("-k,--key", flags.key,
                 "Lines with the same value there stay in order; those without one are rejected")
      ->type_name("/POINTER")
      ->group("Delivery");
  app.add_option("-s,--shards", flags.shards, "How many queues, or from .. to: by load [4]")
      ->type_name("N|N..M")
      ->check([](const std::string& text) {
        return ShardRange::parse(text) ? std::string() : "not N or N..M: " + text;
      })
      ->group("Delivery");
  app.add_option("-w,--workers", flags.workers, "Threads that deliver [1]")
      ->type_name("N")
      ->group("Delivery");
  app.add_option("--retry-for", flags.retry_for,
                 "How long a batch is tried before it is given up and the program ends [30s]")
      ->type_name("TIME")
      ->transform(duration())
      ->group("Delivery");
  app.add_option("--deadline", flags.deadline, "What a signal leaves for the rest [10s]")
      ->type_name("TIME")
      ->transform(duration())
      ->group("Delivery");

  app.add_option("--table", flags.table, "Its name [events]")
      ->type_name("NAME")
      ->group("For sqlite");
  app.add_option("--synchronous", flags.synchronous, "What a commit waits for [normal]")
      ->type_name(names_of(kSynchronous))
      ->transform(name_of(kSynchronous))
      ->group("For sqlite");

  app.add_option("--existing", flags.existing, "If there is a file of that name [fail]")
      ->type_name(names_of(kExisting))
      ->transform(name_of(kExisting))
      ->group("For jsonl");
  app.add_option("--rotate-size", flags.rotate_size, "Begin a new file at that size")
      ->type_name("SIZE")
      ->transform(size())
      ->group("For jsonl");
  app.add_option("--rotate-every", flags.rotate_every, "Begin a new file at that age")
      ->type_name("TIME")
      ->transform(duration())
      ->group("For jsonl");
  app.add_option("--sync", flags.sync, "When lines are brought to the disk [on_close]")
      ->type_name(names_of(kSyncs))
      ->transform(name_of(kSyncs))
      ->group("For jsonl");
  app.add_option("--level", flags.level, "Of the compression, 1 .. 19 [3]")
      ->type_name("N")
      ->group("For jsonl");

  app.add_option("-c,--config", config, "Read options from a JSON file; flags override it")
      ->type_name("FILE")
      ->group("Program");
  app.add_flag("--print-config", print_config, "Print the options as such a file and exit")
      ->group("Program");
  app.add_option("--report", flags.report, "Write the report as JSON")
      ->type_name("FILE")
      ->group("Program");
  app.add_flag("-q,--quiet", flags.quiet, "No progress, no report on the terminal")
      ->group("Program");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDelivered : kUsage;
  }
  try {
    auto options = config.empty() ? Options{} : read_config(config);
    flags.apply(options);
    auto checked = options;
    checked.finish();
    if (print_config) {
      // As it was said, without what follows from it.
      std::cout << to_json(options).dump(2) << '\n';
      return kDelivered;
    }
    return checked;
  } catch (const ConfigError& error) {
    std::cerr << "shard-ingest: " << error.what() << '\n';
    return kUsage;
  } catch (const json::type_error&) {
    std::cerr << "shard-ingest: --print-config: a text is no UTF-8, so JSON cannot hold it\n";
    return kUsage;
  }
}

}  // namespace ingest
