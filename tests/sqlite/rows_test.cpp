#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "shard/options.hpp"
#include "shard/sqlite.hpp"
#include "sqlite/support.hpp"

using namespace shard_test;
using namespace std::string_literals;
using shard::Delivery;
using shard::Key;
using shard::SourceIdentity;
using shard::SqliteAdapter;

namespace {

constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();

/// Is it UTF-8 without NUL bytes? As another library sees it.
bool is_text_elsewhere(const std::string& bytes) {
  try {
    static_cast<void>(nlohmann::json(bytes).dump());
    return bytes.find('\0') == std::string::npos;
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
}

}  // namespace

TEST_CASE("an event becomes a row with all that is known of it", "[R-A12]") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  Events events({.producer = kHuge, .epoch = std::uint64_t{1} << 63U});
  events.add("plain");
  events.add("with key", Key("k"));
  events.add("with source", SourceIdentity{kHuge - 1, 5});
  events.add("with both", Key(""), SourceIdentity{3, kHuge});
  REQUIRE(is_delivered(events.to(adapter)));

  Other other(folder / "e.db");
  const auto expected = [&](std::size_t i, const std::string& rest) {
    const auto time = events.context().wall_time(events.batch()[i].timestamp).time_since_epoch();
    return "-1|-9223372036854775808|0|" + std::to_string(i) + "|" +
           std::to_string(std::chrono::nanoseconds(time).count()) + "|" + rest;
  };
  CHECK(other.lines("SELECT * FROM events ORDER BY sequence") ==
        std::vector{expected(0, "-|-|-|plain"), expected(1, "-|-|k|with key"),
                    expected(2, "-2|5|-|with source"), expected(3, "3|-1||with both")});
  CHECK(adapter.counts().inserted == 4);
  CHECK(adapter.counts().duplicates == 0);
  CHECK(adapter.name() == "sqlite");
}

TEST_CASE("payloads and keys come out as the bytes that went in", "[R-A12]") {
  const auto byte_string = [](std::size_t size) {
    std::string bytes;
    for (std::size_t i = 0; i < size; ++i) bytes += static_cast<char>(i * 7);
    return bytes;
  };
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", "text"},
      {"{\"city\":\"Zürich\",\"sign\":\"€\",\"face\":\"😀\"}", "text"},
      {"\0"s, "blob"},
      {"a text with a NUL\0 byte"s, "blob"},
      {"\xFF", "blob"},
      {"12", "text"},  // no number
      {byte_string(1000), "blob"},
      {std::string(std::size_t{1} << 20U, 'x'), "text"},
      {byte_string(std::size_t{1} << 20U), "blob"}};
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  Events events;
  for (const auto& [bytes, type] : cases) {
    events.add(bytes, Key(bytes.substr(0, 1000)));
  }
  REQUIRE(is_delivered(events.to(adapter)));

  Other other(folder / "e.db");
  const auto payloads = other.lines("SELECT payload FROM events ORDER BY sequence");
  const auto keys = other.lines("SELECT key FROM events ORDER BY sequence");
  const auto types = other.lines("SELECT typeof(payload) FROM events ORDER BY sequence");
  REQUIRE(payloads.size() == cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) {
    INFO(i);
    CHECK(payloads[i] == cases[i].first);
    CHECK(keys[i] == cases[i].first.substr(0, 1000));
    CHECK(types[i] == cases[i].second);
  }
}

TEST_CASE("an empty payload is not NULL, also where a batch holds nothing else", "[R-A12]") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  Events events;
  events.add("");
  REQUIRE(is_delivered(events.to(adapter)));
  CHECK(Other(folder / "e.db").value("SELECT typeof(payload), payload FROM events") == "text|");
}

TEST_CASE("JSON in a payload can be queried") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  Events events;
  events.add(R"({"temperature": 21.5})");
  REQUIRE(is_delivered(events.to(adapter)));
  CHECK(Other(folder / "e.db").value("SELECT json_extract(payload, '$.temperature') FROM events") ==
        "21.5");
}

TEST_CASE("what is text is what UTF-8 is, wherever in the payload", "[R-A12]") {
  // Every lead byte, with what may follow at the edges of what is allowed, within a word of ASCII and at its end.
  std::vector<std::string> cases;
  const std::vector<std::string> tails{"",
                                       "\x7F",
                                       "\x80",
                                       "\x8F",
                                       "\x90",
                                       "\x9F",
                                       "\xA0",
                                       "\xBF",
                                       "\xC0",
                                       "\x80\x80",
                                       "\x9F\xBF",
                                       "\xA0\x80",
                                       "\xBF\xBF",
                                       "\x80\x80\x80",
                                       "\x8F\xBF\xBF",
                                       "\x90\x80\x80",
                                       "\xBF\xBF\xBF",
                                       "\xBF\xBF\x7F",
                                       "\xBF\x7F\xBF"};
  for (unsigned lead = 0; lead < 256; ++lead) {
    for (const auto& tail : tails) {
      cases.push_back(std::string(1, static_cast<char>(lead)) + tail);
      cases.push_back("1234567" + cases.back() + "a further text");
    }
  }
  std::mt19937 random(7);
  const std::vector<std::string> pieces{"a", "12345678", "ü", "€", "😀", "\xF0\x9F", "\x80", "\0"s};
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (unsigned k = random() % 8; k > 0; --k) {
      text += pieces[random() % (random() % 4 == 0 ? pieces.size() : 5)];
    }
    cases.push_back(text);
  }
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  Events events;
  for (const auto& text : cases) events.add(text);
  REQUIRE(is_delivered(events.to(adapter)));

  Other other(folder / "e.db");
  const auto rows = other.lines("SELECT typeof(payload), payload FROM events ORDER BY sequence");
  REQUIRE(rows.size() == cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const auto expected = (is_text_elsewhere(cases[i]) ? "text|" : "blob|") + cases[i];
    if (rows[i] != expected) {
      FAIL("case " << i << ": " << nlohmann::json::binary({cases[i].begin(), cases[i].end()}));
    }
  }
}

TEST_CASE("a batch that is delivered again changes nothing", "[R-G6]") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  const auto events = Events::numbered(100);
  REQUIRE(is_delivered(events.to(adapter)));
  const auto before = Other(folder / "e.db").lines("SELECT * FROM events");
  REQUIRE(is_delivered(events.to(adapter)));
  CHECK(Other(folder / "e.db").lines("SELECT * FROM events") == before);
  CHECK(adapter.counts().inserted == 100);
  CHECK(adapter.counts().duplicates == 100);
}

TEST_CASE("of a batch that is there in part the rest is added, and counted apart", "[R-G6]") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  const auto events = Events::numbered(100);
  const auto [first, count] = GENERATE(std::pair<std::size_t, std::size_t>{0, 37},
                                       std::pair<std::size_t, std::size_t>{50, 50},
                                       std::pair<std::size_t, std::size_t>{33, 1});
  REQUIRE(is_delivered(adapter.deliver(events.part(first, count), events.context())));
  REQUIRE(is_delivered(events.to(adapter)));
  CHECK(adapter.counts().inserted == 100);
  CHECK(adapter.counts().duplicates == count);
  CHECK(Other(folder / "e.db").value("SELECT count(*), sum(payload) FROM events") == "100|4950");
}

TEST_CASE("the same sources in another pipeline's life change nothing", "[R-G6]") {
  const TemporaryFolder folder;
  {
    SqliteAdapter adapter({.database = folder / "e.db"});
    REQUIRE(is_delivered(Events::numbered(50, {.producer = 1, .epoch = 1}, 99).to(adapter)));
  }
  SqliteAdapter adapter({.database = folder / "e.db"});
  REQUIRE(is_delivered(Events::numbered(60, {.producer = 1, .epoch = 2}, 99).to(adapter)));
  CHECK(adapter.counts().inserted == 10);
  CHECK(adapter.counts().duplicates == 50);
  CHECK(rows_of(folder / "e.db") == 60);
}

TEST_CASE("events without a source are told apart by their identity alone", "[R-G6]") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  for (std::uint64_t epoch = 1; epoch <= 3; ++epoch) {
    REQUIRE(is_delivered(Events::numbered(20, {.producer = 1, .epoch = epoch}).to(adapter)));
  }
  CHECK(adapter.counts().inserted == 60);
}

TEST_CASE("tables have the names that they are given, also those of keywords") {
  const TemporaryFolder folder;
  SqliteAdapter one({.database = folder / "e.db", .table = "select"});
  SqliteAdapter two({.database = folder / "e.db", .table = "_Other_2"});
  const auto events = Events::numbered(20);
  REQUIRE(is_delivered(events.to(one)));
  REQUIRE(is_delivered(events.to(two)));
  Other other(folder / "e.db");
  CHECK(other.value("SELECT count(*) FROM \"select\"") == "20");
  CHECK(other.value("SELECT count(*) FROM _other_2") == "20");
}

TEST_CASE("options out of bounds are named", "[R-J1]") {
  using Options = shard::SqliteOptions;
  using shard::SqliteSynchronous;
  const std::vector<std::pair<std::string, Options>> cases{
      {"database", {}},
      {"database", {.database = "a\0b"s}},
      {"table", {.database = "e.db", .table = ""}},
      {"table", {.database = "e.db", .table = "1st"}},
      {"table", {.database = "e.db", .table = "a-b"}},
      {"table", {.database = "e.db", .table = "a\"; DROP TABLE b; --"}},
      {"table", {.database = "e.db", .table = "SQLite_events"}},
      {"table", {.database = "e.db", .table = std::string(65, 'a')}},
      {"synchronous", {.database = "e.db", .synchronous = static_cast<SqliteSynchronous>(3)}},
      {"busy_timeout", {.database = "e.db", .busy_timeout = std::chrono::milliseconds{-1}}},
      {"busy_timeout", {.database = "e.db", .busy_timeout = std::chrono::milliseconds{3'600'001}}},
      {"max_page_count", {.database = "e.db", .max_page_count = 0xFFFF'FFFF}}};
  for (const auto& [field, options] : cases) {
    INFO(field << " " << options.table);
    try {
      options.validate();
      FAIL("accepted");
    } catch (const shard::ConfigError& error) {
      CHECK(error.field() == field);
    }
    CHECK_THROWS_AS(SqliteAdapter(options), shard::ConfigError);
  }
  CHECK_NOTHROW(Options{.database = "e.db",
                        .table = std::string(64, 'a'),
                        .busy_timeout = std::chrono::hours{1},
                        .max_page_count = 0xFFFF'FFFE}
                    .validate());
}

TEST_CASE("every kind of synchronous has its name") {
  using shard::SqliteSynchronous;
  CHECK(to_string(SqliteSynchronous::off) == "off");
  CHECK(to_string(SqliteSynchronous::normal) == "normal");
  CHECK(to_string(SqliteSynchronous::full) == "full");
  CHECK(to_string(static_cast<SqliteSynchronous>(9)) == "unknown");
}
