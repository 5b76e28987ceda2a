#include "shard/config_json.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using nlohmann::json;
using shard::Backpressure;
using shard::BackpressureMode;
using shard::ConfigError;
using shard::ManagerOptions;
using shard::PipelineOptions;

std::optional<ConfigError> error_of(std::string_view text) {
  try {
    static_cast<void>(shard::parse_manager_options(text));
  } catch (const ConfigError& error) {
    return error;
  }
  return std::nullopt;
}

/// Where the text is refused; "-" when it is not.
std::string place_of(std::string_view text) {
  const auto error = error_of(text);
  return error ? error->field() : "-";
}

std::string pipeline_place_of(std::string_view text) {
  try {
    static_cast<void>(shard::parse_pipeline_options(text));
  } catch (const ConfigError& error) {
    CHECK_FALSE(error.value().empty());
    CHECK_FALSE(error.bound().empty());
    return error.field();
  }
  return "-";
}

/// All that has a JSON form. There is no operator==, as handlers do not compare.
bool same(const PipelineOptions& a, const PipelineOptions& b) {
  return a.manager == b.manager && a.batch == b.batch && a.retry == b.retry &&
         a.workers == b.workers && a.wait == b.wait && a.spin_for == b.spin_for &&
         a.processors == b.processors && a.thread_name == b.thread_name &&
         a.serialise_adapter == b.serialise_adapter && a.attempt_timeout == b.attempt_timeout &&
         a.close_timeout == b.close_timeout && a.producer_id == b.producer_id &&
         a.notice_interval == b.notice_interval;
}

std::string nested(std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

}  // namespace

TEST_CASE("an empty object gives the defaults", "[R-J3]") {
  CHECK(shard::parse_manager_options("{}") == ManagerOptions{});
  CHECK(shard::parse_manager_options(R"({"backpressure": {}})") == ManagerOptions{});
}

TEST_CASE("every option can be read from JSON", "[R-J3]") {
  const auto options = shard::parse_manager_options(R"({
    "shards": 8, "ring_capacity": 32768, "ring_bytes": 2097152, "max_payload": 65535,
    "inline_max": 16383, "max_key": 255, "seed": 18446744073709551615,
    "backpressure": {"mode": "block", "rate": 7, "timeout_ns": 9223372036854775807},
    "scaling": {"min_shards": 2, "max_shards": 8, "cooldown_ns": 5}, "routing": "keyed"})");
  CHECK(options ==
        ManagerOptions{.shards = 8,
                       .ring_capacity = 32768,
                       .ring_bytes = 2097152,
                       .max_payload = 65535,
                       .inline_max = 16383,
                       .max_key = 255,
                       .backpressure = {.mode = BackpressureMode::block,
                                        .rate = 7,
                                        .timeout = std::chrono::nanoseconds::max()},
                       .scaling = shard::ScalingPolicy{.min_shards = 2,
                                                       .max_shards = 8,
                                                       .cooldown = std::chrono::nanoseconds{5}},
                       .routing = shard::Routing::keyed,
                       .seed = std::numeric_limits<std::uint64_t>::max()});
  CHECK(shard::parse_manager_options(R"({"seed": null})").seed == std::nullopt);
}

TEST_CASE("options can be read from JSON that was made in C++, from signed literals", "[R-J3]") {
  const json made{{"shards", 2}, {"seed", 5}, {"backpressure", {{"timeout_ns", 10}}}};
  const auto options = shard::manager_options_from_json(made);
  CHECK(options.shards == 2);
  CHECK(options.seed == 5U);
  CHECK(options.backpressure.timeout == std::chrono::nanoseconds{10});
  CHECK_THROWS_AS(shard::manager_options_from_json(json{{"shards", -2}}), ConfigError);
}

TEST_CASE("an unknown key is refused at its place", "[R-J3]") {
  const auto error = error_of(R"({"shards": 2, "shard": 3})");
  REQUIRE(error);
  CHECK(error->field() == "/shard");
  CHECK(error->value() == "3");
  CHECK(error->bound().find("ring_capacity") != std::string::npos);  // it says what is known
  CHECK(place_of(R"({"backpressure": {"mode": "block", "timeout": 3}})") ==
        "/backpressure/timeout");
  CHECK(place_of(R"({"time_source": null})") == "/time_source");
}

TEST_CASE("the place of an error is a JSON pointer, so ~ and / in a key are escaped", "[R-J3]") {
  CHECK(place_of(R"({"a/b~c": 1})") == "/a~1b~0c");
  CHECK(place_of(R"({"": 1})") == "/");
  CHECK(place_of(R"({"backpressure": {"~/": 1}})") == "/backpressure/~0~1");
}

TEST_CASE("a value of a wrong type is refused at its place", "[R-J3]") {
  for (const auto* name :
       {"shards", "ring_capacity", "ring_bytes", "max_payload", "inline_max", "max_key", "seed"}) {
    for (const auto* value :
         {R"("4")", "4.0", "4e2", "true", "[4]", "{}", "-1", "18446744073709551616", "1e999999"}) {
      CAPTURE(name, value);
      const auto error = error_of(std::string("{\"") + name + "\": " + value + "}");
      REQUIRE(error);
      // 1e999999 is no number for the JSON library, so then the whole text is refused.
      CHECK(error->field() ==
            (value == std::string_view("1e999999") ? "" : std::string("/") + name));
    }
  }
  CHECK(place_of(R"({"shards": null})") == "/shards");
  CHECK(place_of(R"({"backpressure": "block"})") == "/backpressure");
  CHECK(place_of(R"({"backpressure": null})") == "/backpressure");
  CHECK(place_of(R"({"backpressure": {"mode": 3}})") == "/backpressure/mode");
  CHECK(place_of(R"({"backpressure": {"mode": "Block"}})") == "/backpressure/mode");
  CHECK(place_of(R"({"backpressure": {"mode": null}})") == "/backpressure/mode");
  CHECK(place_of(R"({"backpressure": {"rate": 4294967296}})") == "/backpressure/rate");
  CHECK(place_of(R"({"backpressure": {"timeout_ns": 9223372036854775808}})") ==
        "/backpressure/timeout_ns");
  CHECK(place_of(R"({"backpressure": {"timeout_ns": 1.5}})") == "/backpressure/timeout_ns");
}

TEST_CASE("a value out of bounds is refused at its place, with value and bound", "[R-J3][R-J1]") {
  const auto error = error_of(R"({"ring_capacity": 1000})");
  REQUIRE(error);
  CHECK(error->field() == "/ring_capacity");
  CHECK(error->value() == "1000");
  CHECK(error->bound() == "a power of two, 2 .. 16777216");
  CHECK(place_of(R"({"shards": 0})") == "/shards");
  CHECK(place_of(R"({"backpressure": {"mode": "sample", "rate": 0}})") == "/backpressure/rate");
  CHECK(place_of(R"({"backpressure": {"mode": "block", "timeout_ns": -1}})") ==
        "/backpressure/timeout_ns");
}

TEST_CASE("text that is not JSON is a configuration error of the whole", "[R-J3]") {
  for (const std::string text :
       {"", "{", "{\"shards\": 4,}", "{\"shards\": 4} x", "{\"shards\": NaN}",
        "{\"shards\": Infinity}", "{\"a\xff\": 1}", "\xef\xbb\xbf", "nul", "{}x"}) {
    CAPTURE(text);
    const auto error = error_of(text);
    REQUIRE(error);
    CHECK(error->field().empty());
    CHECK(error->bound() == "valid JSON");
  }
}

TEST_CASE("nothing hides behind a NUL byte", "[R-J3]") {
  using namespace std::string_view_literals;
  CHECK(error_of("{}\0{"sv)->bound() == "valid JSON");
}

TEST_CASE("JSON that is no object is a configuration error of the whole", "[R-J3]") {
  for (const auto* text : {"[]", "4", "null", "\"{}\""}) {
    CAPTURE(text);
    const auto error = error_of(text);
    REQUIRE(error);
    CHECK(error->field().empty());
    CHECK(error->bound() == "an object");
  }
}

TEST_CASE("a key that is given twice is still checked", "[R-J3]") {
  CHECK(place_of(R"({"shards": 2, "shards": 0})") == "/shards");
  CHECK(place_of(R"({"x": 1, "shards": 2, "x": 1})") == "/x");
}

TEST_CASE("huge and deep input gives an error of a bounded length", "[R-J3]") {
  const auto huge = error_of("{\"shards\": \"" + std::string(1'000'000, 'x') + "\"}");
  REQUIRE(huge);
  CHECK(huge->field() == "/shards");
  CHECK(huge->value().size() <= 80);

  // Deep enough to exhaust the stack of whoever walks it recursively.
  const auto deep = nested(100'000);
  CHECK(place_of(deep).empty());
  CHECK(place_of("{\"shards\": " + deep + "}") == "/shards");
  CHECK(place_of("{\"backpressure\": " + deep + "}") == "/backpressure");
  CHECK(place_of("{\"backpressure\": {\"mode\": " + deep + "}}") == "/backpressure/mode");
  CHECK(place_of("{\"unknown\": " + deep + "}") == "/unknown");
  const auto error = error_of("{\"unknown\": " + deep + "}");
  CHECK(error->value().size() <= 80);
}

TEST_CASE("bad UTF-8 in JSON that was made in C++ is named without a crash", "[R-J3]") {
  const json made{{"shards", "\xff\xfe"}};
  try {
    static_cast<void>(shard::manager_options_from_json(made));
    FAIL("was taken");
  } catch (const ConfigError& error) {
    CHECK(error.field() == "/shards");
  }
  CHECK_THROWS_AS(shard::manager_options_from_json(json{{"\xff", 1}}), ConfigError);
}

TEST_CASE("options that are written out read back the same", "[R-J3]") {
  const auto seed = GENERATE(take(3, random(0U, 4'000'000'000U)));
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto between = [&random](std::uint64_t low, std::uint64_t high) {
    return std::uniform_int_distribution<std::uint64_t>(low, high)(random);
  };
  for (int i = 0; i < 300; ++i) {
    ManagerOptions options;
    options.shards = between(1, ManagerOptions::kMaxShards);
    options.ring_capacity = std::size_t{1} << between(1, 24);
    options.ring_bytes = std::size_t{1} << between(12, 30);
    options.max_payload = between(1, options.ring_bytes / 2);
    options.inline_max = between(0, options.ring_bytes / 4);
    options.max_key = between(0, std::min<std::uint64_t>(65'535, options.ring_bytes / 8));
    options.backpressure.mode = static_cast<BackpressureMode>(between(0, 4));
    options.backpressure.rate =
        static_cast<std::uint32_t>(between(1, std::numeric_limits<std::uint32_t>::max()));
    options.backpressure.timeout = std::chrono::nanoseconds{
        static_cast<std::int64_t>(between(0, std::numeric_limits<std::int64_t>::max()))};
    if (between(0, 1) == 1) options.seed = random();
    if (between(0, 1) == 1) {
      options.scaling = shard::ScalingPolicy{
          .min_shards = between(1, options.shards),
          .max_shards = between(options.shards, ManagerOptions::kMaxShards),
          .fill_threshold = std::uniform_real_distribution<double>{0.2, 1}(random),
          .cooldown = std::chrono::nanoseconds{static_cast<std::int64_t>(between(0, 1'000))}};
    }
    if (between(0, 1) == 1) options.routing = shard::Routing::keyed;
    const json written = options;
    CAPTURE(written.dump());
    REQUIRE(shard::manager_options_from_json(written) == options);
    REQUIRE(shard::parse_manager_options(written.dump()) == options);
  }
}

TEST_CASE("a manager's scaling policy is read and checked with it, null is none", "[R-J3]") {
  CHECK(shard::parse_manager_options(R"({"scaling": null})").scaling == std::nullopt);
  CHECK(shard::parse_manager_options(R"({"scaling": {}})").scaling == shard::ScalingPolicy{});
  CHECK(shard::parse_manager_options(R"({"routing": "balanced"})") == ManagerOptions{});
  CHECK(place_of(R"({"scaling": []})") == "/scaling");
  CHECK(place_of(R"({"scaling": {"cooldown": 1}})") == "/scaling/cooldown");
  CHECK(place_of(R"({"scaling": {"cooldown_ns": 86400000000001}})") == "/scaling/cooldown_ns");
  CHECK(place_of(R"({"routing": "Keyed"})") == "/routing");
  CHECK(place_of(R"({"routing": 1})") == "/routing");
  CHECK(place_of(R"({"routing": null})") == "/routing");
}

TEST_CASE("in JSON too, the number of shards has to lie within the policy", "[R-J2][R-J3]") {
  const auto with = [](int shards) {
    return "{\"shards\": " + std::to_string(shards) +
           ", \"scaling\": {\"min_shards\": 2, \"max_shards\": 6}}";
  };
  CHECK(place_of(with(1)) == "/shards");
  CHECK(place_of(with(2)) == "-");
  CHECK(place_of(with(6)) == "-");
  CHECK(place_of(with(7)) == "/shards");
  CHECK(pipeline_place_of("{\"manager\": " + with(7) + "}") == "/manager/shards");
}

TEST_CASE("options of a manager know where in the document they stand", "[R-J3]") {
  const auto place = [](const json& made) -> std::string {
    try {
      static_cast<void>(shard::manager_options_from_json(made, "/a/b"));
    } catch (const ConfigError& error) {
      return error.field();
    }
    return "-";
  };
  CHECK(place(json::array()) == "/a/b");
  CHECK(place({{"shards", 0}}) == "/a/b/shards");
  CHECK(place({{"x/y", 0}}) == "/a/b/x~1y");
  CHECK(place({{"backpressure", {{"rate", 0}}}}) == "/a/b/backpressure/rate");
  CHECK(place({{"backpressure", {{"rat", 0}}}}) == "/a/b/backpressure/rat");
  CHECK(place({{"backpressure", {{"timeout_ns", -1}}}}) == "/a/b/backpressure/timeout_ns");
  CHECK(place({{"scaling", {{"warm_up_ns", -1}}}}) == "/a/b/scaling/warm_up_ns");
  CHECK(place({{"shards", 1}}) == "-");
}

TEST_CASE("an empty object gives the default pipeline", "[R-J3]") {
  CHECK(same(shard::parse_pipeline_options("{}"), PipelineOptions{}));
  CHECK(same(shard::parse_pipeline_options(R"({"manager": {}, "batch": {}, "retry": {}})"),
             PipelineOptions{}));
  CHECK(shard::batch_options_from_json(json::object()) == shard::BatchOptions{});
  CHECK(shard::retry_options_from_json(json::object()) == shard::RetryOptions{});
}

TEST_CASE("every option of a pipeline can be read from JSON", "[R-J3]") {
  const auto options = shard::parse_pipeline_options(R"({
    "manager": {"shards": 2, "scaling": {"min_shards": 2, "warm_up_ns": 7}, "routing": "keyed"},
    "batch": {"min_events": 2, "max_events": 3, "max_bytes": 4, "max_delay_ns": 5,
              "velocity_window_ns": 6000000},
    "retry": {"initial_backoff_ns": 7, "max_backoff_ns": 8, "multiplier": 9, "jitter": 0.5,
              "max_attempts": 4294967295, "max_elapsed_ns": 9223372036854775807},
    "workers": 12, "wait": "spin", "spin_for_ns": 13, "processors": [1, 0, 1023, 1],
    "thread_name": "w\u00f6rk/\u0000er", "serialise_adapter": true,
    "attempt_timeout_ns": 9223372036854775807, "close_timeout_ns": 14,
    "producer_id": 18446744073709551615, "notice_interval_ns": 15})");
  using std::chrono::nanoseconds;
  PipelineOptions expected;
  expected.manager.shards = 2;
  expected.manager.scaling = shard::ScalingPolicy{.min_shards = 2, .warm_up = nanoseconds{7}};
  expected.manager.routing = shard::Routing::keyed;
  expected.batch = {.min_events = 2,
                    .max_events = 3,
                    .max_bytes = 4,
                    .max_delay = nanoseconds{5},
                    .velocity_window = std::chrono::milliseconds{6}};
  expected.retry = {.initial_backoff = nanoseconds{7},
                    .max_backoff = nanoseconds{8},
                    .multiplier = 9,
                    .jitter = 0.5,
                    .max_attempts = 4294967295,
                    .max_elapsed = nanoseconds::max()};
  expected.workers = 12;
  expected.wait = shard::WaitStrategy::spin;
  expected.spin_for = nanoseconds{13};
  expected.processors = {1, 0, 1023, 1};
  expected.thread_name = std::string("w\xc3\xb6rk/\0er", 9);
  expected.serialise_adapter = true;
  expected.attempt_timeout = nanoseconds::max();
  expected.close_timeout = nanoseconds{14};
  expected.producer_id = std::numeric_limits<std::uint64_t>::max();
  expected.notice_interval = nanoseconds{15};
  CHECK(same(options, expected));
  CHECK_FALSE(same(options, PipelineOptions{}));
  CHECK(shard::parse_pipeline_options(R"({"producer_id": null})").producer_id == std::nullopt);
  // From C++ integers are signed.
  const json made{{"processors", {0, 3}}, {"workers", 3}, {"producer_id", 4}};
  CHECK(shard::pipeline_options_from_json(made).processors == std::vector<unsigned>{0, 3});
}

TEST_CASE("an option of a pipeline that is wrong is refused at its place", "[R-J3][R-J1]") {
  struct Case {
    const char* text;
    const char* place;
  };
  for (const auto& [text, place] : std::vector<Case>{
           {"[]", ""},
           {"{", ""},
           {"{}x", ""},
           {R"({"shards": 4})", "/shards"},  // belongs into "manager"
           {R"({"dead_letters": null})", "/dead_letters"},
           {R"({"listener": null})", "/listener"},
           {R"({"manager": null})", "/manager"},
           {R"({"manager": {"workers": 1}})", "/manager/workers"},
           {R"({"manager": {"shards": "4"}})", "/manager/shards"},
           {R"({"manager": {"ring_capacity": 3}})", "/manager/ring_capacity"},
           {R"({"manager": {"time_source": null}})", "/manager/time_source"},
           {R"({"manager": {"backpressure": {"mode": "none"}}})", "/manager/backpressure/mode"},
           {R"({"manager": {"scaling": {"cooldown_ns": -1}}})", "/manager/scaling/cooldown_ns"},
           {R"({"manager": {"scaling": {"max_step": 0}}})", "/manager/scaling/max_step"},
           {R"({"manager": {"scaling": {"x": 0}}})", "/manager/scaling/x"},
           {R"({"manager": {"routing": "x"}})", "/manager/routing"},
           {R"({"batch": 3})", "/batch"},
           {R"({"batch": {"max_delay": 1}})", "/batch/max_delay"},
           {R"({"batch": {"max_delay_ns": 60000000001}})", "/batch/max_delay_ns"},
           {R"({"batch": {"max_delay_ns": 0.5}})", "/batch/max_delay_ns"},
           {R"({"batch": {"velocity_window_ns": 0}})", "/batch/velocity_window_ns"},
           {R"({"batch": {"max_events": 0}})", "/batch/max_events"},
           {R"({"batch": {"min_events": 10001}})", "/batch/min_events"},
           {R"({"batch": {"max_bytes": 0}})", "/batch/max_bytes"},
           {R"({"retry": []})", "/retry"},
           {R"({"retry": {"": 1}})", "/retry/"},
           {R"({"retry": {"jitter": 1.5}})", "/retry/jitter"},
           {R"({"retry": {"jitter": null}})", "/retry/jitter"},
           {R"({"retry": {"multiplier": "2"}})", "/retry/multiplier"},
           {R"({"retry": {"multiplier": 0}})", "/retry/multiplier"},
           {R"({"retry": {"max_attempts": 4294967296}})", "/retry/max_attempts"},
           {R"({"retry": {"initial_backoff_ns": 3600000000001}})", "/retry/initial_backoff_ns"},
           {R"({"retry": {"max_backoff_ns": 1}})", "/retry/max_backoff_ns"},
           {R"({"retry": {"max_elapsed_ns": 0}})", "/retry/max_elapsed_ns"},
           {R"({"workers": 257})", "/workers"},
           {R"({"workers": -1})", "/workers"},
           {R"({"workers": 1.0})", "/workers"},
           {R"({"wait": "Park"})", "/wait"},
           {R"({"wait": 0})", "/wait"},
           {R"({"spin_for_ns": 1000000001})", "/spin_for_ns"},
           {R"({"spin_for": 1})", "/spin_for"},
           {R"({"processors": 1})", "/processors"},
           {R"({"processors": {}})", "/processors"},
           {R"({"processors": [0, 1024]})", "/processors/1"},
           {R"({"processors": [0, 1, -1]})", "/processors/2"},
           {R"({"processors": ["0"]})", "/processors/0"},
           {R"({"processors": [1.0]})", "/processors/0"},
           {R"({"processors": [18446744073709551615]})", "/processors/0"},
           {R"({"processors": [null]})", "/processors/0"},
           {R"({"thread_name": null})", "/thread_name"},
           {R"({"thread_name": 3})", "/thread_name"},
           {R"({"serialise_adapter": 1})", "/serialise_adapter"},
           {R"({"attempt_timeout_ns": 0})", "/attempt_timeout_ns"},
           {R"({"attempt_timeout_ns": null})", "/attempt_timeout_ns"},
           {R"({"close_timeout_ns": 3600000000001})", "/close_timeout_ns"},
           {R"({"producer_id": -1})", "/producer_id"},
           {R"({"producer_id": "1"})", "/producer_id"},
           {R"({"notice_interval_ns": 3600000000001})", "/notice_interval_ns"},
           {R"({"a/b": {}})", "/a~1b"},
       }) {
    CAPTURE(text);
    CHECK(pipeline_place_of(text) == place);
  }
  CHECK(pipeline_place_of("{\"processors\": " + nested(100'000) + "}") == "/processors/0");
  CHECK(pipeline_place_of("{\"thread_name\": " + nested(100'000) + "}") == "/thread_name");
  CHECK_THROWS_AS(shard::batch_options_from_json(json{{"max_events", -1}}), ConfigError);
  try {
    static_cast<void>(shard::retry_options_from_json(json{{"max_elapsed_ns", 0}}, "/sinks/0"));
    FAIL("was taken");
  } catch (const ConfigError& error) {
    CHECK(error.field() == "/sinks/0/max_elapsed_ns");
    CHECK(error.value() == "0 ns");
    CHECK(error.bound() == "above 0 ns");
  }
}

TEST_CASE("the options of a pipeline that are written out read back the same", "[R-J3]") {
  const auto seed = GENERATE(take(3, random(0U, 4'000'000'000U)));
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto between = [&random](std::uint64_t low, std::uint64_t high) {
    return std::uniform_int_distribution<std::uint64_t>(low, high)(random);
  };
  const auto time = [&between](std::uint64_t low, std::uint64_t high) {
    return std::chrono::nanoseconds{static_cast<std::int64_t>(between(low, high))};
  };
  constexpr std::uint64_t kSecond = 1'000'000'000;
  constexpr auto kLongest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  for (int i = 0; i < 300; ++i) {
    PipelineOptions options;
    options.manager.shards = between(1, 16);
    if (between(0, 1) == 1) {
      options.manager.scaling = shard::ScalingPolicy{.cooldown = time(0, kSecond)};
    }
    options.batch.max_events = between(1, 1'000'000);
    options.batch.min_events = between(1, options.batch.max_events);
    options.batch.max_bytes = between(1, std::uint64_t{1} << 30U);
    options.batch.max_delay = time(0, 60 * kSecond);
    options.batch.velocity_window = time(1'000'000, 60 * kSecond);
    options.retry.initial_backoff = time(0, 3'600 * kSecond);
    options.retry.max_backoff = options.retry.initial_backoff + time(0, 3'600 * kSecond);
    options.retry.multiplier = std::uniform_real_distribution<double>{1, 10}(random);
    options.retry.jitter = std::uniform_real_distribution<double>{0, 1}(random);
    options.retry.max_attempts = static_cast<std::uint32_t>(between(0, 4'294'967'295));
    options.retry.max_elapsed = time(1, kLongest);
    options.workers = between(0, 256);
    options.wait = static_cast<shard::WaitStrategy>(between(0, 2));
    options.spin_for = time(0, kSecond);
    options.processors.resize(between(0, 5));
    for (auto& processor : options.processors) {
      processor = static_cast<unsigned>(between(0, 1023));
    }
    options.thread_name = std::string(between(0, 20), static_cast<char>(between(0, 127)));
    options.serialise_adapter = between(0, 1) == 1;
    options.attempt_timeout =
        between(0, 3) == 0 ? std::chrono::nanoseconds::max() : time(1, kLongest);
    options.close_timeout = time(0, 3'600 * kSecond);
    if (between(0, 1) == 1) options.producer_id = random();
    options.notice_interval = time(0, 3'600 * kSecond);
    options.validate();
    const json written = options;
    CAPTURE(written.dump());
    REQUIRE(same(shard::pipeline_options_from_json(written), options));
    REQUIRE(same(shard::parse_pipeline_options(written.dump()), options));
    REQUIRE(shard::batch_options_from_json(json(options.batch)) == options.batch);
    REQUIRE(shard::retry_options_from_json(json(options.retry)) == options.retry);
  }
}
