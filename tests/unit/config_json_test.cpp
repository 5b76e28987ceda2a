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

namespace {

using nlohmann::json;
using shard::Backpressure;
using shard::BackpressureMode;
using shard::ConfigError;
using shard::ManagerOptions;

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
    "backpressure": {"mode": "block", "rate": 7, "timeout_ns": 9223372036854775807}})");
  CHECK(options == ManagerOptions{.shards = 8,
                                  .ring_capacity = 32768,
                                  .ring_bytes = 2097152,
                                  .max_payload = 65535,
                                  .inline_max = 16383,
                                  .max_key = 255,
                                  .backpressure = {.mode = BackpressureMode::block,
                                                   .rate = 7,
                                                   .timeout = std::chrono::nanoseconds::max()},
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
    const json written = options;
    CAPTURE(written.dump());
    REQUIRE(shard::manager_options_from_json(written) == options);
    REQUIRE(shard::parse_manager_options(written.dump()) == options);
  }
}
