#include "rejects.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support.hpp"

namespace {

using namespace std::string_literals;
using ingest::Place;
using ingest::Rejects;
using nlohmann::json;
using shard_test::read_file;
using shard_test::TemporaryFolder;

/// The lines of a file, each parsed.
std::vector<json> entries_of(const std::string& path) {
  const auto text = read_file(path);
  CHECK((text.empty() || text.back() == '\n'));
  std::vector<json> entries;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) entries.push_back(json::parse(line));
  return entries;
}

}  // namespace

TEST_CASE("a reject is a JSON line with its place, the reason and the record", "[ingest]") {
  const TemporaryFolder folder;
  Rejects rejects;
  rejects.open(folder / "rejects");
  rejects.name(7, "a.ndjson");
  rejects.name(8, "b.ndjson");
  rejects.add(Place{7, 100, 17}, "no JSON", "{\"a\"");
  rejects.add(Place{8, 0, 1}, "nothing at /key", "{}");
  rejects.add(Place{7, 200, 0}, "no JSON", "x");  // read in parts: the line is not known
  rejects.add(std::nullopt, "refused", "y");
  CHECK(rejects.close());
  CHECK(entries_of(folder / "rejects") ==
        std::vector<json>{
            {{"file", "a.ndjson"},
             {"line", 17},
             {"offset", 100},
             {"reason", "no JSON"},
             {"record", "{\"a\""}},
            {{"file", "b.ndjson"},
             {"line", 1},
             {"offset", 0},
             {"reason", "nothing at /key"},
             {"record", "{}"}},
            {{"file", "a.ndjson"}, {"offset", 200}, {"reason", "no JSON"}, {"record", "x"}},
            {{"reason", "refused"}, {"record", "y"}}});
}

TEST_CASE("the members of a reject come in the order in which they are read", "[ingest]") {
  const TemporaryFolder folder;
  Rejects rejects;
  rejects.open(folder / "rejects");
  rejects.name(1, "a");
  rejects.add(Place{1, 2, 3}, "why", "what");
  CHECK(rejects.close());
  CHECK(read_file(folder / "rejects") ==
        "{\"file\":\"a\",\"line\":3,\"offset\":2,\"reason\":\"why\",\"record\":\"what\"}\n");
}

TEST_CASE("rejects are JSON lines whatever bytes the record has", "[ingest]") {
  const TemporaryFolder folder;
  Rejects rejects;
  rejects.open(folder / "rejects");
  rejects.name(1, "bad \xff name");
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  rejects.add(Place{1, 0, 1}, "reason with \xc3\x28", all);
  rejects.add(Place{1, 256, 2}, "", "\0\n\r\"\\"s);
  rejects.add(Place{1, 300, 3}, "cut", "\xe2\x82");  // within a character
  CHECK(rejects.close());
  const auto entries = entries_of(folder / "rejects");
  REQUIRE(entries.size() == 3);
  const auto record = entries[0]["record"].get<std::string>();
  CHECK(record.substr(0, 128) == all.substr(0, 128));
  CHECK(entries[0]["file"] == "bad \xef\xbf\xbd name");
  CHECK(entries[0]["reason"] == "reason with \xef\xbf\xbd(");
  CHECK(entries[1]["record"] == "\0\n\r\"\\"s);
  CHECK(entries[2]["record"] == "\xef\xbf\xbd");
}

TEST_CASE("the first rejects are kept to be shown, with or without a file", "[ingest]") {
  const TemporaryFolder folder;
  for (const auto& path : {""s, folder / "rejects"}) {
    Rejects rejects;
    rejects.open(path);
    CHECK(rejects.first().empty());
    rejects.name(1, "a.ndjson");
    rejects.name(2, "-");
    rejects.add(Place{1, 100, 17}, "no JSON", "x");
    rejects.add(Place{2, 5, 0}, "too long", "y");
    rejects.add(std::nullopt, "refused", "z");
    rejects.add(Place{1, 200, 18}, "one too many", "x");
    CHECK(rejects.first() == std::vector<std::string>{"a.ndjson:17: no JSON",
                                                      "standard input at byte 5: too long",
                                                      ": refused"});
    CHECK(rejects.close());
  }
}

TEST_CASE("a source has the name that it was given last", "[ingest]") {
  Rejects rejects;
  rejects.open("");
  rejects.name(1, "a");
  rejects.add(Place{1, 0, 1}, "x", "");
  rejects.name(1, "b");
  rejects.add(Place{1, 0, 2}, "x", "");
  CHECK(rejects.first() == std::vector<std::string>{"a:1: x", "b:2: x"});
}

TEST_CASE("a file of rejects is begun anew", "[ingest]") {
  const TemporaryFolder folder;
  shard_test::write_file(folder / "rejects", "of an earlier run\n");
  Rejects rejects;
  rejects.open(folder / "rejects");
  CHECK(rejects.close());
  CHECK(read_file(folder / "rejects").empty());
}

TEST_CASE("a file of rejects that cannot be written is an error at once", "[ingest]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(Rejects().open(folder / "none/rejects"),
                    (folder / "none/rejects") + " cannot be written: No such file or directory");
  CHECK_THROWS_AS(Rejects().open(folder / ""), std::runtime_error);
}

TEST_CASE("a disk that is full is noticed when the rejects are closed", "[ingest]") {
  for (const int entries : {1, 10'000}) {  // in the buffer, and long before
    CAPTURE(entries);
    Rejects rejects;
    rejects.open("/dev/full");
    for (int i = 0; i < entries; ++i) rejects.add(std::nullopt, "why", "what");
    CHECK_FALSE(rejects.close());
  }
}

TEST_CASE("rejects of several threads do not mix", "[ingest]") {
  const TemporaryFolder folder;
  Rejects rejects;
  rejects.open(folder / "rejects");
  constexpr int kEach = 500;
  std::vector<std::thread> threads;
  for (std::uint64_t source = 0; source < 4; ++source) {
    threads.emplace_back([&rejects, source] {
      rejects.name(source, std::to_string(source));
      for (std::uint64_t i = 1; i <= kEach; ++i) {
        rejects.add(Place{source, i, i}, "why", std::string(i, static_cast<char>('a' + source)));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(rejects.first().size() == Rejects::kShown);
  REQUIRE(rejects.close());
  std::vector<std::uint64_t> next(4, 1);
  for (const auto& entry : entries_of(folder / "rejects")) {
    const auto source = std::stoul(entry["file"].get<std::string>());
    REQUIRE(source < next.size());
    REQUIRE(entry["line"] == next[source]);
    REQUIRE(entry["record"] ==
            std::string(next[source], static_cast<char>('a' + static_cast<int>(source))));
    ++next[source];
  }
  CHECK(next == std::vector<std::uint64_t>(4, kEach + 1));
}
