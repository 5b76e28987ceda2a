#include "options.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "shard/config_json.hpp"
#include "support.hpp"

namespace {

using namespace std::chrono_literals;
using ingest::Options;
using ingest::options_from_json;
using nlohmann::json;
using shard::ConfigError;
using shard_test::TemporaryFolder;
using shard_test::write_file;

constexpr auto kForever = std::chrono::nanoseconds::max();

/// Where a configuration is refused; "-" when it is not.
std::string place_of(const std::string& text) {
  try {
    static_cast<void>(options_from_json(json::parse(text)));
  } catch (const ConfigError& error) {
    CHECK_FALSE(error.value().empty());
    CHECK_FALSE(error.bound().empty());
    return error.field();
  }
  return "-";
}

/// What finish() refuses; "-" if nothing.
std::string refused_by_finish(Options options) {
  try {
    options.finish();
  } catch (const ConfigError& error) {
    return error.field();
  }
  return "-";
}

bool same(const Options& a, const Options& b) {
  return a.inputs == b.inputs && a.to == b.to && a.threads == b.threads && a.follow == b.follow &&
         a.split == b.split && a.max_record == b.max_record && a.validate_json == b.validate_json &&
         a.key == b.key && a.has_key == b.has_key && a.rejects == b.rejects &&
         a.report == b.report && a.quiet == b.quiet && a.deadline == b.deadline &&
         a.sqlite.table == b.sqlite.table && a.sqlite.synchronous == b.sqlite.synchronous &&
         a.sqlite.busy_timeout == b.sqlite.busy_timeout &&
         a.sqlite.max_page_count == b.sqlite.max_page_count &&
         a.jsonl.existing == b.jsonl.existing && a.jsonl.rotate_bytes == b.jsonl.rotate_bytes &&
         a.jsonl.rotate_after == b.jsonl.rotate_after && a.jsonl.sync == b.jsonl.sync &&
         a.jsonl.sync_interval == b.jsonl.sync_interval &&
         a.jsonl.compression_level == b.jsonl.compression_level &&
         a.pipeline.manager == b.pipeline.manager && json(a.pipeline) == json(b.pipeline);
}

/// Keeps what is written to a stream.
class Captured {
 public:
  explicit Captured(std::ostream& stream) : stream_(stream), before_(stream.rdbuf(text_.rdbuf())) {}
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;
  ~Captured() { stream_.rdbuf(before_); }
  [[nodiscard]] std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::ostream& stream_;
  std::streambuf* before_;
};

/// What a command line came to.
struct Parsed {
  std::optional<Options> options;
  int status = -1;
  std::string out;
  std::string err;
};

Parsed parse(std::vector<std::string> words) {
  words.insert(words.begin(), "shard-ingest");
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const Captured out(std::cout);
  const Captured err(std::cerr);
  auto command = ingest::parse_command_line(static_cast<int>(words.size()), argv.data());
  Parsed parsed;
  if (const auto* status = std::get_if<int>(&command)) {
    parsed.status = *status;
  } else {
    parsed.options = std::move(std::get<Options>(command));
  }
  parsed.out = out.text();
  parsed.err = err.text();
  return parsed;
}

/// Of a command line that is good.
Options options_of(const std::vector<std::string>& words) {
  auto parsed = parse(words);
  CAPTURE(words, parsed.err);
  REQUIRE(parsed.options);
  return *parsed.options;
}

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

TEST_CASE("nothing said means: lines of standard input to standard output, and none lost",
          "[ingest][R-J1]") {
  for (const auto& options : {options_from_json(json::object()), options_of({}), Options{}}) {
    CHECK(options.inputs.empty());
    CHECK(options.to == "stdout:");
    CHECK_FALSE(options.has_key);
    CHECK(options.pipeline.manager.routing == shard::Routing::balanced);
    CHECK(options.pipeline.manager.backpressure == shard::Backpressure::block(kForever));
    CHECK(options.pipeline.retry.max_attempts == 0);
    CHECK(options.pipeline.retry.max_elapsed == 30s);
  }
}

TEST_CASE("a file that names some of the pipeline leaves the rest as it is here",
          "[ingest][R-J3]") {
  for (const auto* text :
       {R"({"pipeline": {}})", R"({"pipeline": {"workers": 3}})",
        R"({"pipeline": {"manager": {}, "retry": {}}})",
        R"({"pipeline": {"manager": {"shards": 2}}})",
        R"({"pipeline": {"retry": {"jitter": 0.5}, "batch": {"max_events": 7000}}})",
        R"({"pipeline": {"manager": {"seed": null, "scaling": null}, "producer_id": null}})",
        R"({"pipeline": {"manager": {"backpressure": {}}}})"}) {
    CAPTURE(text);
    const auto options = options_from_json(json::parse(text));
    CHECK(options.pipeline.manager.backpressure == shard::Backpressure::block(kForever));
    CHECK(options.pipeline.retry.max_attempts == 0);
    CHECK(options.pipeline.retry.max_elapsed == 30s);
  }
  const auto options = options_from_json(json::parse(R"({"pipeline": {
    "manager": {"backpressure": {"mode": "drop_oldest"}, "scaling": {"max_shards": 9}},
    "retry": {"max_attempts": 5}}})"));
  CHECK(options.pipeline.manager.backpressure.mode == shard::BackpressureMode::drop_oldest);
  CHECK(options.pipeline.manager.scaling->max_shards == 9);
  CHECK(options.pipeline.retry.max_attempts == 5);
  CHECK(options.pipeline.retry.max_elapsed == 30s);
}

TEST_CASE("null does not take defaults away", "[ingest][R-J3]") {
  CHECK(place_of(R"({"pipeline": null})") == "/pipeline");
  CHECK(place_of(R"({"pipeline": {"manager": null}})") == "/pipeline/manager");
  CHECK(place_of(R"({"pipeline": {"manager": {"backpressure": null}}})") ==
        "/pipeline/manager/backpressure");
  CHECK(place_of(R"({"pipeline": {"manager": {"backpressure": {"timeout_ns": null}}}})") ==
        "/pipeline/manager/backpressure/timeout_ns");
  CHECK(place_of(R"({"pipeline": {"retry": {"max_attempts": null}}})") ==
        "/pipeline/retry/max_attempts");
  CHECK(place_of(R"({"pipeline": {"unknown": null}})") == "/pipeline/unknown");
  CHECK(place_of(R"({"threads": null})") == "/threads");
  CHECK(place_of(R"({"key": null})") == "-");  // none, as it is written
}

TEST_CASE("every option can be read from a file", "[ingest][R-J3]") {
  const auto options = options_from_json(json::parse(R"({
    "inputs": ["a", "-", "b"], "to": "jsonl:x", "threads": 7, "follow": true, "split": false,
    "max_record": 67108864, "validate_json": true, "key": "/a/b", "rejects": "r", "report": "s",
    "quiet": true, "deadline_ns": 3600000000000,
    "sqlite": {"table": "t", "synchronous": "full", "busy_timeout_ns": 5000000,
               "max_page_count": 6},
    "jsonl": {"existing": "append", "rotate_bytes": 7, "rotate_after_ns": 8000000000,
              "sync": "interval", "sync_interval_ns": 9000000, "compression_level": 10},
    "pipeline": {"workers": 11}})"));
  Options expected;
  expected.inputs = {"a", "-", "b"};
  expected.to = "jsonl:x";
  expected.threads = 7;
  expected.follow = true;
  expected.max_record = 67'108'864;
  expected.validate_json = true;
  expected.key = "/a/b";
  expected.has_key = true;
  expected.rejects = "r";
  expected.report = "s";
  expected.quiet = true;
  expected.deadline = 1h;
  expected.sqlite.table = "t";
  expected.sqlite.synchronous = shard::SqliteSynchronous::full;
  expected.sqlite.busy_timeout = 5ms;
  expected.sqlite.max_page_count = 6;
  expected.jsonl.existing = shard::JsonlExisting::append;
  expected.jsonl.rotate_bytes = 7;
  expected.jsonl.rotate_after = 8s;
  expected.jsonl.sync = shard::JsonlSync::interval;
  expected.jsonl.sync_interval = 9ms;
  expected.jsonl.compression_level = 10;
  expected.pipeline.workers = 11;
  CHECK(same(options, expected));
  CHECK_FALSE(same(options, Options{}));
}

TEST_CASE("unknown keys and bad values are refused at their place", "[ingest][R-J3]") {
  struct Case {
    const char* text;
    const char* place;
  };
  for (const auto& [text, place] : std::vector<Case>{
           {"[]", ""},
           {"null", ""},
           {R"({"x": 1})", "/x"},
           {R"({"a/b~c": 1})", "/a~1b~0c"},
           {R"({"database": "x"})", "/database"},
           {R"({"inputs": "a"})", "/inputs"},
           {R"({"inputs": ["a", 3]})", "/inputs/1"},
           {R"({"inputs": ["a", "b", "a"]})", "/inputs"},
           {R"({"to": 1})", "/to"},
           {R"({"to": "x:y"})", "/to"},
           {R"({"threads": "2"})", "/threads"},
           {R"({"threads": -1})", "/threads"},
           {R"({"threads": 0})", "/threads"},
           {R"({"threads": 257})", "/threads"},
           {R"({"threads": 1.0})", "/threads"},
           {R"({"follow": 1})", "/follow"},
           {R"({"split": "yes"})", "/split"},
           {R"({"split": true, "follow": true})", "/split"},
           {R"({"max_record": 0})", "/max_record"},
           {R"({"max_record": 67108865})", "/max_record"},
           {R"({"validate_json": "json"})", "/validate_json"},
           {R"({"key": 1})", "/key"},
           {R"({"key": "a"})", "/key"},
           {R"({"key": "/~"})", "/key"},
           {R"({"rejects": null})", "/rejects"},
           {R"({"report": []})", "/report"},
           {R"({"quiet": 0})", "/quiet"},
           {R"({"deadline_ns": -1})", "/deadline_ns"},
           {R"({"deadline_ns": 3600000000001})", "/deadline_ns"},
           {R"({"deadline": 1})", "/deadline"},
           {R"({"sqlite": []})", "/sqlite"},
           {R"({"sqlite": null})", "/sqlite"},
           {R"({"sqlite": {"database": "x"}})", "/sqlite/database"},
           {R"({"sqlite": {"table": 1}})", "/sqlite/table"},
           {R"({"sqlite": {"table": "a b"}})", "/sqlite/table"},
           {R"({"sqlite": {"table": ""}})", "/sqlite/table"},
           {R"({"sqlite": {"synchronous": "Full"}})", "/sqlite/synchronous"},
           {R"({"sqlite": {"busy_timeout_ns": 1}})", "/sqlite/busy_timeout_ns"},
           {R"({"sqlite": {"busy_timeout_ns": 3600001000000}})", "/sqlite/busy_timeout_ns"},
           {R"({"sqlite": {"busy_timeout": 1}})", "/sqlite/busy_timeout"},
           {R"({"sqlite": {"max_page_count": 4294967295}})", "/sqlite/max_page_count"},
           {R"({"jsonl": 1})", "/jsonl"},
           {R"({"jsonl": {"path": "x"}})", "/jsonl/path"},
           {R"({"jsonl": {"existing": "keep"}})", "/jsonl/existing"},
           {R"({"jsonl": {"rotate_bytes": -1}})", "/jsonl/rotate_bytes"},
           {R"({"jsonl": {"rotate_after_ns": 500000000}})", "/jsonl/rotate_after_ns"},
           {R"({"jsonl": {"rotate_after_ns": 9223372036000000000}})", "/jsonl/rotate_after_ns"},
           {R"({"jsonl": {"sync": 1}})", "/jsonl/sync"},
           {R"({"jsonl": {"sync_interval_ns": 0}})", "/jsonl/sync_interval_ns"},
           {R"({"jsonl": {"compression_level": 0}})", "/jsonl/compression_level"},
           {R"({"jsonl": {"compression_level": 20}})", "/jsonl/compression_level"},
           {R"({"pipeline": 1})", "/pipeline"},
           {R"({"pipeline": {"shards": 1}})", "/pipeline/shards"},
           {R"({"pipeline": {"workers": 0}})", "/pipeline/workers"},  // nobody would run it here
           {R"({"pipeline": {"workers": 257}})", "/pipeline/workers"},
           {R"({"pipeline": {"manager": {"shards": 0}}})", "/pipeline/manager/shards"},
           {R"({"pipeline": {"manager": {"x": {"y": 1}}}})", "/pipeline/manager/x"},
           {R"({"pipeline": {"manager": {"backpressure": {"mode": "no"}}}})",
            "/pipeline/manager/backpressure/mode"},
           {R"({"pipeline": {"batch": {"max_events": 0}}})", "/pipeline/batch/max_events"},
           {R"({"pipeline": {"retry": [1]}})", "/pipeline/retry"},
       }) {
    CAPTURE(text);
    CHECK(place_of(text) == place);
  }
}

TEST_CASE("a configuration that is nested a hundred thousand deep is refused without a crash",
          "[ingest][R-J3]") {
  const auto deep = [](const char* open, const char* shut) {
    std::string text;
    for (int i = 0; i < 100'000; ++i) text += open;
    text += "1";
    for (int i = 0; i < 100'000; ++i) text += shut;
    return text;
  };
  for (const auto& nested : {deep("[", "]"), deep(R"({"manager":)", "}")}) {
    CHECK(place_of(R"({"threads": )" + nested + "}") == "/threads");
    CHECK(place_of(R"({"sqlite": {"table": )" + nested + "}}") == "/sqlite/table");
    CHECK(place_of(R"({"pipeline": {"workers": )" + nested + "}}") == "/pipeline/workers");
    CHECK(place_of(R"({"pipeline": {"x": )" + nested + "}}") == "/pipeline/x");
  }
  CHECK(place_of(R"({"pipeline": )" + deep("[", "]") + "}") == "/pipeline");
  CHECK(place_of(R"({"pipeline": )" + deep(R"({"manager":)", "}") + "}") ==
        "/pipeline/manager/manager");
}

TEST_CASE("options that are written out read back the same", "[ingest][R-J3]") {
  const auto seed = GENERATE(take(3, random(0U, 4'000'000'000U)));
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto between = [&random](std::uint64_t low, std::uint64_t high) {
    return std::uniform_int_distribution<std::uint64_t>(low, high)(random);
  };
  const auto yes = [&] { return between(0, 1) == 1; };
  const auto text = [&] { return std::string(between(0, 5), static_cast<char>(between(0, 127))); };
  for (int i = 0; i < 200; ++i) {
    Options options;
    for (auto left = between(0, 3); left != 0; --left) {
      options.inputs.push_back(std::to_string(left) + text());
    }
    options.to = between(0, 1) == 0 ? "null:" : "jsonl:x" + text();
    options.threads = between(1, 256);
    options.follow = yes();
    options.split = !options.follow && yes();
    options.max_record = between(1, std::uint64_t{64} << 20U);
    options.validate_json = yes();
    options.has_key = yes();
    if (options.has_key && yes()) options.key = "/" + std::to_string(between(0, 9));
    options.rejects = text();
    options.report = text();
    options.quiet = yes();
    options.deadline = std::chrono::nanoseconds(between(0, 3'600'000'000'000));
    options.sqlite.table = "t" + std::to_string(between(0, 99));
    options.sqlite.synchronous = static_cast<shard::SqliteSynchronous>(between(0, 2));
    options.sqlite.busy_timeout = std::chrono::milliseconds(between(0, 3'600'000));
    options.sqlite.max_page_count = between(0, 4'294'967'294);
    options.jsonl.existing = static_cast<shard::JsonlExisting>(between(0, 2));
    options.jsonl.rotate_bytes = random();
    options.jsonl.rotate_after = std::chrono::seconds(between(0, 315'000'000));
    options.jsonl.sync = static_cast<shard::JsonlSync>(between(0, 3));
    options.jsonl.sync_interval = std::chrono::milliseconds(between(1, 3'600'000));
    options.jsonl.compression_level = static_cast<int>(between(1, 19));
    options.pipeline.workers = between(1, 256);
    options.pipeline.manager.shards = between(1, 8);
    if (yes()) options.pipeline.manager.scaling = shard::ScalingPolicy{.max_shards = 9};
    if (yes()) options.pipeline.manager.backpressure = {};
    if (yes()) options.pipeline.producer_id = random();
    if (yes()) options.pipeline.processors = {3, 1};
    options.pipeline.retry.max_attempts = static_cast<std::uint32_t>(between(0, 9));

    const auto written = to_json(options);
    CAPTURE(written.dump());
    REQUIRE(same(options_from_json(written), options));
    REQUIRE(same(options_from_json(json::parse(written.dump(2))), options));
  }
}

TEST_CASE("an empty key is a pointer to the whole record, and no key is null", "[ingest][R-J3]") {
  Options options;
  CHECK(to_json(options)["key"].is_null());
  options.has_key = true;
  CHECK(to_json(options)["key"] == "");
  CHECK(options_from_json(to_json(options)).has_key);
}

TEST_CASE("the pipeline takes records of any length up to the limit", "[ingest]") {
  for (const std::size_t max_record : {1U, 1'000'000U, 1U << 20U, 3'000'000U, 64U << 20U}) {
    CAPTURE(max_record);
    Options options;
    options.max_record = max_record;
    options.finish();
    CHECK(options.pipeline.manager.max_payload >= max_record);
    CHECK(options.pipeline.manager.ring_bytes >= 2 * max_record);
  }
  Options options;  // larger ones stay
  options.pipeline.manager.ring_bytes = std::size_t{1} << 30U;
  options.finish();
  CHECK(options.pipeline.manager.ring_bytes == std::size_t{1} << 30U);
}

TEST_CASE("with a key the pipeline keeps the order of each key", "[ingest]") {
  Options options;
  options.key = "/a";
  options.has_key = true;
  options.finish();
  CHECK(options.pipeline.manager.routing == shard::Routing::keyed);
  CHECK(options_of({"--key", "/a"}).pipeline.manager.routing == shard::Routing::keyed);
  CHECK(options_of({"--key", ""}).pipeline.manager.routing == shard::Routing::keyed);
  CHECK(options_of({}).pipeline.manager.routing == shard::Routing::balanced);
}

TEST_CASE("what is out of bounds is refused before anything is opened", "[ingest][R-J1]") {
  CHECK(refused_by_finish({}) == "-");
  CHECK(refused_by_finish({.inputs = {"a", "a"}}) == "inputs");
  CHECK(refused_by_finish({.to = "x:y"}) == "to");
  CHECK(refused_by_finish({.threads = 0}) == "threads");
  CHECK(refused_by_finish({.threads = 256}) == "-");
  CHECK(refused_by_finish({.threads = 257}) == "threads");
  CHECK(refused_by_finish({.follow = true, .split = true}) == "split");
  CHECK(refused_by_finish({.max_record = 0}) == "max_record");
  CHECK(refused_by_finish({.max_record = (64U << 20U) + 1}) == "max_record");
  CHECK(refused_by_finish({.key = "a", .has_key = true}) == "key");
  CHECK(refused_by_finish({.deadline = -1ns}) == "deadline");
  CHECK(refused_by_finish({.deadline = 0ns}) == "-");
  CHECK(refused_by_finish({.deadline = 1h + 1ns}) == "deadline");
  Options options;
  options.pipeline.workers = 0;
  CHECK(refused_by_finish(options) == "workers");
  options = {};
  options.sqlite.table = "1";
  CHECK(refused_by_finish(options) == "table");
  options = {};
  options.jsonl.compression_level = 20;
  CHECK(refused_by_finish(options) == "compression_level");
}

TEST_CASE("flags say what a file could", "[ingest]") {
  const auto options = options_of({"a",        "-t",
                                   "sqlite:x", "-j",
                                   "3",        "--max-record",
                                   "2KB",      "--validate",
                                   "json",     "--rejects",
                                   "r",        "-k",
                                   "/a",       "-w",
                                   "5",        "--retry-for",
                                   "500ms",    "--deadline",
                                   "2min",     "--table",
                                   "t",        "--synchronous",
                                   "off",      "--existing",
                                   "replace",  "--rotate-size",
                                   "3MB",      "--rotate-every",
                                   "1h",       "--sync",
                                   "batch",    "--level",
                                   "7",        "--report",
                                   "s",        "-q",
                                   "b"});
  CHECK(options.inputs == std::vector<std::string>{"a", "b"});
  CHECK(options.to == "sqlite:x");
  CHECK(options.threads == 3);
  CHECK(options.max_record == 2'048);
  CHECK(options.validate_json);
  CHECK(options.rejects == "r");
  CHECK(options.has_key);
  CHECK(options.key == "/a");
  CHECK(options.pipeline.workers == 5);
  CHECK(options.pipeline.retry.max_elapsed == 500ms);
  CHECK(options.deadline == 2min);
  CHECK(options.sqlite.table == "t");
  CHECK(options.sqlite.synchronous == shard::SqliteSynchronous::off);
  CHECK(options.jsonl.existing == shard::JsonlExisting::replace);
  CHECK(options.jsonl.rotate_bytes == 3U << 20U);
  CHECK(options.jsonl.rotate_after == 1h);
  CHECK(options.jsonl.sync == shard::JsonlSync::batch);
  CHECK(options.jsonl.compression_level == 7);
  CHECK(options.report == "s");
  CHECK(options.quiet);
  CHECK_FALSE(options.follow);
  CHECK_FALSE(options.split);
  CHECK(options_of({"-f"}).follow);
  CHECK(options_of({"--split"}).split);
  CHECK(options_of({"-", "--", "-x"}).inputs == std::vector<std::string>{"-", "-x"});
}

TEST_CASE("every name of a choice can be given", "[ingest]") {
  for (const auto value : {shard::SqliteSynchronous::off, shard::SqliteSynchronous::normal,
                           shard::SqliteSynchronous::full}) {
    CHECK(options_of({"--synchronous", std::string(to_string(value))}).sqlite.synchronous == value);
  }
  for (const auto value :
       {shard::JsonlExisting::fail, shard::JsonlExisting::append, shard::JsonlExisting::replace}) {
    CHECK(options_of({"--existing", std::string(to_string(value))}).jsonl.existing == value);
  }
  for (const auto value : {shard::JsonlSync::never, shard::JsonlSync::on_close,
                           shard::JsonlSync::interval, shard::JsonlSync::batch}) {
    CHECK(options_of({"--sync", std::string(to_string(value))}).jsonl.sync == value);
  }
}

TEST_CASE("shards are a number, or a range that the load moves in", "[ingest]") {
  const auto fixed = options_of({"--shards", "4"}).pipeline.manager;
  CHECK(fixed.shards == 4);
  CHECK_FALSE(fixed.scaling);
  const auto range = options_of({"-s", "2..8"}).pipeline.manager;
  CHECK(range.shards == 2);
  REQUIRE(range.scaling);
  CHECK(range.scaling->min_shards == 2);
  CHECK(range.scaling->max_shards == 8);
  CHECK(range.scaling->auto_scale);
  CHECK_FALSE(options_of({"-s", "3..3"}).pipeline.manager.scaling);
}

TEST_CASE("shards that are neither are refused", "[ingest]") {
  for (const auto* shards :
       {"x", "", "4x", "2..", "..8", "2..x", "2...8", "2.8", "2..8..9", "-1", " 4", "4 ", "8..2",
        "0", "0..4", "99999999999999999999", "1..1000000"}) {
    CAPTURE(shards);
    const auto parsed = parse({"--shards", shards});
    CHECK(parsed.status == 2);
    CHECK(has(parsed.err, "shards"));
    CHECK(parsed.out.empty());
  }
}

TEST_CASE("what a command line cannot mean ends with status 2 and says why", "[ingest]") {
  struct Case {
    std::vector<std::string> words;
    const char* said;
  };
  for (const auto& [words, said] : std::vector<Case>{
           {{"--unknown"}, "--unknown"},
           {{"--to"}, "--to"},
           {{"--threads", "x"}, "--threads"},
           {{"--threads", "-1"}, "threads"},
           {{"--threads", "0"}, "threads = 0: must be 1 .. 256"},
           {{"--threads", "1.5"}, "--threads"},
           {{"--max-record", "65MB"}, "max_record"},
           {{"--max-record", "1X"}, "--max-record"},
           {{"--validate", "xml"}, "--validate"},
           {{"--deadline", "10"}, "--deadline"},  // of what?
           {{"--deadline", "2h"}, "deadline"},
           {{"--deadline", "-1s"}, "deadline"},
           {{"--retry-for", "0s"}, "max_elapsed"},
           {{"--rotate-every", "500ms"}, "--rotate-every"},
           {{"--rotate-every", "-1s"}, "rotate_after"},
           {{"--synchronous", "FULL"}, "--synchronous"},
           {{"--existing", "x"}, "--existing"},
           {{"--sync", "x"}, "--sync"},
           {{"--level", "20"}, "compression_level"},
           {{"--table", "a b"}, "table"},
           {{"--key", "a"}, "key = a: must be a JSON pointer"},
           {{"--workers", "0"}, "workers"},
           {{"--workers", "257"}, "workers"},
           {{"--follow", "--split"}, "split"},
           {{"a", "b", "a"}, "inputs"},
           {{"--config", "/none/such"}, "/none/such"},
           {{"--config", "/"}, "--config"},
       }) {
    CAPTURE(words);
    const auto parsed = parse(words);
    CHECK(parsed.status == 2);
    CAPTURE(parsed.err);
    CHECK(has(parsed.err, said));
    CHECK(parsed.out.empty());
  }
}

TEST_CASE("flags override the file, and what they do not name stays as it says", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "c.json", R"({
    "inputs": ["a"], "to": "null:", "threads": 7, "follow": true, "quiet": true, "key": "/file",
    "validate_json": true, "deadline_ns": 5, "sqlite": {"table": "t"},
    "pipeline": {"workers": 3, "manager": {"shards": 6, "scaling": {"max_shards": 9, "max_step": 2}},
                 "retry": {"max_attempts": 4}}})");
  const auto config = folder / "c.json";
  const auto file = options_of({"--config", config});
  CHECK(file.inputs == std::vector<std::string>{"a"});
  CHECK(file.to == "null:");
  CHECK(file.threads == 7);
  CHECK(file.follow);
  CHECK(file.key == "/file");
  CHECK(file.pipeline.manager.routing == shard::Routing::keyed);

  const auto both =
      options_of({"b", "-c", config, "--threads", "2", "--key", "/flag", "--validate", "none",
                  "--shards", "2..4", "--deadline", "1s", "--retry-for", "1min"});
  CHECK(both.inputs == std::vector<std::string>{"b"});
  CHECK(both.to == "null:");
  CHECK(both.threads == 2);
  CHECK(both.follow);
  CHECK(both.quiet);
  CHECK(both.key == "/flag");
  CHECK_FALSE(both.validate_json);
  CHECK(both.deadline == 1s);
  CHECK(both.sqlite.table == "t");
  CHECK(both.pipeline.workers == 3);
  CHECK(both.pipeline.manager.shards == 2);
  CHECK(both.pipeline.manager.scaling->max_shards == 4);
  CHECK(both.pipeline.manager.scaling->max_step == 2);
  CHECK(both.pipeline.retry.max_attempts == 4);
  CHECK(both.pipeline.retry.max_elapsed == 1min);
  CHECK_FALSE(options_of({"-c", config, "-s", "5"}).pipeline.manager.scaling);
}

TEST_CASE("an error of the file is told with file and place, and ends with status 2", "[ingest]") {
  const TemporaryFolder folder;
  const auto config = folder / "c.json";
  struct Case {
    const char* text;
    const char* said;
  };
  for (const auto& [text, said] : std::vector<Case>{
           {R"({"threads": 0})", ": /threads = 0: must be 1 .. 256"},
           {R"({"thread": 1})", ": /thread = 1: must be absent"},
           {R"({"jsonl": {"sync": "x"}})", ": /jsonl/sync = \"x\": must be "},
           {R"({"pipeline": {"batch": {"x": 1}}})", ": /pipeline/batch/x = 1: must be absent"},
           {"[]", ": "},
           {"{", "JSON"},
           {"", "JSON"},
           {"{} x", "JSON"}}) {
    CAPTURE(text);
    write_file(config, text);
    const auto parsed = parse({"--config", config});
    CHECK(parsed.status == 2);
    CAPTURE(parsed.err);
    CHECK(has(parsed.err, config));
    CHECK(has(parsed.err, said));
  }
}

TEST_CASE("the configuration that is printed is one that means the same", "[ingest][R-J3]") {
  const TemporaryFolder folder;
  const std::vector<std::string> words{
      "a",   "--to",       "null:",  "--key",          "/k", "--shards",   "2..5", "--max-record",
      "5MB", "--existing", "append", "--rotate-every", "1d", "--deadline", "3s"};
  auto printing = words;
  printing.emplace_back("--print-config");
  const auto printed = parse(printing);
  CHECK(printed.status == 0);
  CHECK(printed.err.empty());
  write_file(folder / "c.json", printed.out);
  CHECK(same(options_of({"--config", folder / "c.json"}), options_of(words)));
  // What follows from other options is left out, so that it follows from those that override them.
  const auto json = json::parse(printed.out);
  CHECK(json["pipeline"]["manager"]["routing"] == "balanced");
  CHECK(json["pipeline"]["manager"]["max_payload"] ==
        Options::default_pipeline().manager.max_payload);

  CHECK(parse({"--print-config", "--threads", "0"}).status == 2);
}

TEST_CASE("a configuration that JSON cannot hold is not printed", "[ingest]") {
  const auto parsed = parse({"--print-config", "\xff"});
  CHECK(parsed.status == 2);
  CHECK(parsed.out.empty());
  CHECK(has(parsed.err, "UTF-8"));
  CHECK(options_of({"\xff"}).inputs == std::vector<std::string>{"\xff"});  // as a path it is good
}

TEST_CASE("help and version are no errors", "[ingest]") {
  for (const auto* flag : {"--help", "-h"}) {
    const auto help = parse({flag});
    CHECK(help.status == 0);
    CHECK(help.err.empty());
    for (const auto* part : {"--to", "--follow", "--split", "--print-config", "sqlite:DATABASE",
                             "Exit status", "off|normal|full"}) {
      CAPTURE(part);
      CHECK(has(help.out, part));
    }
  }
  const auto version = parse({"--version"});
  CHECK(version.status == 0);
  CHECK(version.out.starts_with("shard-ingest "));
}
