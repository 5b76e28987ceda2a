// shard-ingest as its users run it: a process.

#include <sqlite3.h>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "ingest/program.hpp"
#include "ingest/support.hpp"

namespace {

using Catch::Matchers::Contains;
using shard_test::append_file;
using shard_test::Ended;
using shard_test::Program;
using shard_test::read_file;
using shard_test::run_program;
using shard_test::TemporaryFolder;
using shard_test::write_file;

/// A look into a database.
class Database {
 public:
  explicit Database(const std::string& path) {
    sqlite3* handle = nullptr;
    const auto code = sqlite3_open(path.c_str(), &handle);
    handle_.reset(handle);
    REQUIRE(code == SQLITE_OK);
  }
  void run(const std::string& sql) const {
    INFO(sql << ": " << sqlite3_errmsg(handle_.get()));
    REQUIRE(sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK);
  }
  [[nodiscard]] std::vector<std::vector<std::string>> rows(const std::string& sql) const {
    std::vector<std::vector<std::string>> all;
    const auto row = [](void* rows, int count, char** values, char** /*names*/) {
      auto& added = static_cast<decltype(all)*>(rows)->emplace_back();
      for (int i = 0; i < count; ++i) added.emplace_back(values[i] == nullptr ? "" : values[i]);
      return 0;
    };
    REQUIRE(sqlite3_exec(handle_.get(), sql.c_str(), row, &all, nullptr) == SQLITE_OK);
    return all;
  }
  [[nodiscard]] std::uint64_t number(const std::string& sql) const {
    return std::stoull(rows(sql).at(0).at(0));
  }

 private:
  struct Close {
    void operator()(sqlite3* handle) const { sqlite3_close(handle); }
  };
  std::unique_ptr<sqlite3, Close> handle_;
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}
std::multiset<std::string> sorted(const std::vector<std::string>& lines) {
  return {lines.begin(), lines.end()};
}

/// `{"n":0,"k":"a"}`, `{"n":1,"k":"b"}`, ...
std::string numbered(std::size_t count, std::size_t first = 0) {
  std::string text;
  for (auto i = first; i < first + count; ++i) {
    text += R"({"n":)" + std::to_string(i) + R"(,"k":")" + static_cast<char>('a' + i % 7) + "\"}\n";
  }
  return text;
}

/// Starts the program 20 times, and kills it at a random moment within the first `most` microseconds. That is the moment of
/// a fault; nothing is waited for, and whatever was done by then, the test has to hold.
void kill_often(const std::vector<std::string>& arguments, std::uint32_t seed, std::uint32_t most) {
  std::mt19937 random(seed);
  for (int i = 0; i < 20; ++i) {
    Program program(arguments);
    ::usleep(static_cast<useconds_t>(random() % most));
    program.signal(SIGKILL);
    program.wait();
  }
}

nlohmann::json report_of(const std::string& path) { return nlohmann::json::parse(read_file(path)); }

/// Every record is in one count, and the status says what they say.
void check_books(const nlohmann::json& report, const Ended& ended) {
  INFO(report.dump(2));
  const auto& ledger = report["ledger"];
  CHECK(report["balanced"] == true);
  CHECK(ledger["queued"] == 0);
  CHECK(ledger["batched"] == 0);
  CHECK(ledger["offered"] == report["read"]["records"]);
  CHECK(report["exit_status"] == ended.status);
}

}  // namespace

TEST_CASE("flights in a database: each once, those of an airport in the order of the file",
          "[R-D9][R-G6]") {
  const TemporaryFolder folder;
  const auto database = folder / "events.db";
  const auto shards = GENERATE("4", "1..8");
  CAPTURE(shards);
  const auto ended = run_program({"--to", "sqlite:" + database, "--key", "/origin", "--shards",
                                  shards, "--report", folder / "report.json", FLIGHTS});
  INFO(ended.out << ended.error);
  REQUIRE(ended.status == 0);
  check_books(report_of(folder / "report.json"), ended);

  const auto flights = lines_of(read_file(FLIGHTS));
  const Database db(database);
  CHECK(db.number("SELECT count(*) FROM events") == flights.size());
  CHECK(db.number("SELECT count(*) FROM (SELECT DISTINCT source, position FROM events)") ==
        flights.size());
  CHECK(db.number("SELECT count(DISTINCT source) FROM events") == 1);
  // The time of acceptance orders the events of a shard, and keys that move keep their order.
  CHECK(db.number("SELECT count(*) FROM (SELECT position, lag(position) OVER (PARTITION BY key "
                  "ORDER BY rowid) AS before FROM events) WHERE before >= position") == 0);
  std::vector<std::string> payloads;
  for (auto& row : db.rows("SELECT payload FROM events ORDER BY position")) {
    payloads.push_back(std::move(row[0]));
  }
  CHECK((payloads == flights));
  CHECK(db.number("SELECT count(*) FROM events WHERE key <> json_extract(payload, '$.origin')") ==
        0);
}

TEST_CASE("a second run over the same files changes nothing, one over more adds the rest",
          "[R-G6]") {
  const TemporaryFolder folder;
  const auto input = folder / "in.ndjson";
  const std::vector<std::string> arguments{"--to", "sqlite:" + (folder / "events.db"), "--report",
                                           folder / "report.json", input};
  write_file(input, numbered(1'000));
  REQUIRE(run_program(arguments).status == 0);
  auto ended = run_program(arguments);
  CHECK(ended.status == 0);
  auto report = report_of(folder / "report.json");
  check_books(report, ended);
  CHECK(report["sink"]["rows inserted"] == 0);
  CHECK(report["sink"]["already there"] == 1'000);

  append_file(input, numbered(500, 1'000));
  std::filesystem::rename(input, folder / "renamed");
  ended = run_program({"--to", "sqlite:" + (folder / "events.db"), folder / "renamed"});
  CHECK(ended.status == 0);
  CHECK(Database(folder / "events.db").number("SELECT count(*) FROM events") == 1'500);
}

TEST_CASE("lines pass through to standard output, the report goes to standard error") {
  const TemporaryFolder folder;
  const std::string odd("with\0NUL\xff\rbytes\n", 16);
  write_file(folder / "a", numbered(3'000) + odd + "\r\n\n" + "crlf\r\n" + "no end");
  const auto ended = run_program({folder / "a"});
  CHECK(ended.status == 0);
  // Twice in brackets: that it is not so is enough to be told.
  CHECK(
      (sorted(lines_of(ended.out)) == sorted(lines_of(numbered(3'000) + odd + "crlf\nno end\n"))));
  CHECK_THAT(ended.error, Contains("3,003 records of 1 input to stdout:"));
  CHECK_THAT(ended.error, Contains("blank lines"));
}

TEST_CASE("many files at once, and standard input among them, are each read once") {
  const TemporaryFolder folder;
  std::vector<std::string> arguments{"--quiet", "--threads", "3", "-"};
  std::string all;
  for (std::size_t i = 0; i < 20; ++i) {
    const auto path = folder / ("in" + std::to_string(i));
    write_file(path, numbered(100, i * 100));
    arguments.push_back(path);
    all += numbered(100, i * 100);
  }
  Program program(arguments, {.has_input = true});
  program.give(numbered(100, 5'000));
  program.end_input();
  const auto ended = program.wait();
  CHECK(ended.status == 0);
  CHECK(ended.error.empty());
  CHECK((sorted(lines_of(ended.out)) == sorted(lines_of(all + numbered(100, 5'000)))));
}

TEST_CASE("several threads share a file with --split") {
  const TemporaryFolder folder;
  std::string text;  // of some parts: one is 4 MiB or more
  for (std::size_t i = 0; text.size() < (std::size_t{20} << 20U); ++i) {
    text += std::to_string(i) + std::string(997, 'x') + '\n';
  }
  write_file(folder / "large", text);
  const auto ended =
      run_program({"--split", "--threads", "4", "--to", "jsonl:" + (folder / "out.ndjson"),
                   "--report", folder / "report.json", folder / "large"});
  CHECK(ended.status == 0);
  check_books(report_of(folder / "report.json"), ended);
  CHECK((sorted(lines_of(read_file(folder / "out.ndjson"))) == sorted(lines_of(text))));
}

TEST_CASE("rejects are counted, and told with file, line and reason", "[R-C1]") {
  const TemporaryFolder folder;
  const auto input = folder / "in";
  write_file(input, numbered(10) + "no json\n" +
                        R"({"n":1})"
                        "\n" +
                        R"({"k":{"a":1}})"
                        "\n" +
                        R"({"k":")" + std::string(300, 'x') + "\"}\n" + std::string(5'000, 'y') +
                        "\n" + R"({"k":"last"})");
  const auto ended =
      run_program({"--key", "/k", "--max-record", "1KB", "--rejects", folder / "rejects",
                   "--report", folder / "report.json", "--to", "jsonl:" + (folder / "out"), input});
  INFO(ended.out);
  CHECK(ended.status == 3);
  const auto report = report_of(folder / "report.json");
  check_books(report, ended);
  CHECK(report["read"]["records"] == 16);
  CHECK(report["read"]["rejected"] == 5);
  CHECK(report["ledger"]["delivered"] == 11);
  CHECK(report["ledger"]["rejected_invalid"] == 5);
  std::map<std::uint64_t, std::string> reasons;
  for (const auto& line : lines_of(read_file(folder / "rejects"))) {
    const auto reject = nlohmann::json::parse(line);
    CHECK(reject["file"] == input);
    reasons[reject["line"]] = reject["reason"];
  }
  REQUIRE(reasons.size() == 5);
  CHECK_THAT(reasons[11], Contains("syntax error"));
  CHECK(reasons[12] == "nothing at /k");
  CHECK(reasons[13] == "an object or array at /k");
  CHECK(reasons[14] == "key_too_large");
  CHECK(reasons[15] == "5000 bytes, more than --max-record");
  CHECK_THAT(ended.out, Contains(input + ":11: "));
}

TEST_CASE("what is no JSON is rejected on request") {
  const TemporaryFolder folder;
  write_file(folder / "in", "{\"a\":1}\n{\"a\":\nnull\n\xff\n\"\xff\"\n");
  CHECK(run_program({"--to", "null:", folder / "in"}).status == 0);
  const auto ended =
      run_program({"--validate", "json", "--rejects", folder / "rejects", folder / "in"});
  CHECK(ended.status == 3);
  CHECK(sorted(lines_of(ended.out)) == sorted({R"({"a":1})", "null"}));
  CHECK(lines_of(read_file(folder / "rejects")).size() == 3);
}

TEST_CASE("a newline cannot be delivered as a line, and none ever comes") {
  // The reader splits at LF, so the only sink that would refuse one never gets it.
  const TemporaryFolder folder;
  write_file(folder / "in", "a\rb\r\r\nc\n");
  const auto ended = run_program({"--to", "jsonl:" + (folder / "out"), folder / "in"});
  CHECK(ended.status == 0);
  CHECK(sorted(lines_of(read_file(folder / "out"))) == sorted({"a\rb\r", "c"}));
}

TEST_CASE("a signal ends it gracefully: what was read is delivered", "[R-I1][R-I2]") {
  const auto number = GENERATE(SIGINT, SIGTERM);
  const TemporaryFolder folder;
  Program program({"--report", folder / "report.json"}, {.has_input = true, .is_read = true});
  program.give(numbered(100));
  std::vector<std::string> lines;
  while (lines.size() < 100) lines.push_back(program.read_line().value());
  program.signal(number);  // while it waits for more
  const auto ended = program.wait();
  CHECK(ended.status == 128 + number);
  CHECK(ended.out.empty());
  CHECK_THAT(ended.error, Contains("before the end of the input"));
  const auto report = report_of(folder / "report.json");
  check_books(report, ended);
  CHECK(report["signal"] == number);
  CHECK(report["ledger"]["delivered"] == 100);
}

TEST_CASE("a signal ends the wait for who writes into a FIFO") {
  const TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);
  write_file(folder / "in", numbered(1));
  Program program({"--threads", "2", folder / "fifo", folder / "in"}, {.is_read = true});
  REQUIRE(program.read_line());  // it is at work
  program.signal(SIGTERM);
  CHECK(program.wait().status == 128 + SIGTERM);
}

TEST_CASE("a closed standard input or output is an error") {
  const auto without_input = run_program({"--to", "null:"}, {.closed = STDIN_FILENO});
  CHECK(without_input.status == 1);
  CHECK_THAT(without_input.error, Contains("standard input cannot be read"));
  const auto without_output = run_program({FLIGHTS}, {.closed = STDOUT_FILENO});
  CHECK(without_output.status == 3);
  CHECK_THAT(without_output.error, Contains("Stopped: the sink failed: standard output"));
}

TEST_CASE("a signal while the sink is stuck ends it within the deadline, with the counts",
          "[R-I3]") {
  // Nobody reads standard output, so a batch stands in write() for ever.
  const TemporaryFolder folder;
  Program program({"--deadline", "100ms", "--report", folder / "report.json", FLIGHTS},
                  {.is_read = true});
  REQUIRE(program.read_line());  // the first batch is being written, and does not fit into a pipe
  program.signal(SIGTERM);
  const auto ended = program.wait(false);  // the batch cannot get on meanwhile
  CHECK(ended.status == 3);
  const auto written = report_of(folder / "report.json");
  check_books(written, ended);
  CHECK(written["ledger"]["possibly_delivered"] > 0);
}

TEST_CASE("a second signal ends it at once and says what is left") {
  Program program({"--deadline", "1h", FLIGHTS}, {.is_read = true});
  REQUIRE(program.read_line());
  program.signal(SIGINT);
  program.signal(SIGTERM);
  const auto ended = program.wait(false);  // nothing gets out of it meanwhile
  INFO(ended.error);
  CHECK(ended.status == 3);
  CHECK_THAT(ended.error, Contains("ended at once") && Contains("accepted and not delivered"));
}

TEST_CASE("a reader of standard output that goes away stops it", "[R-C3]") {
  const TemporaryFolder folder;
  Program program({"--report", folder / "report.json", FLIGHTS}, {.is_read = true});
  REQUIRE(program.read_line());
  program.stop_reading();
  const auto ended = program.wait();
  CHECK(ended.status == 3);
  CHECK_THAT(ended.error, Contains("nobody reads it any more"));
  check_books(report_of(folder / "report.json"), ended);
}

TEST_CASE("a followed file grows, is renamed and cut, and every line comes once") {
  const TemporaryFolder folder;
  const auto path = folder / "log";
  write_file(path, numbered(10));
  Program program({"--follow", path}, {.is_read = true});
  std::vector<std::string> seen;
  const auto wait_for = [&](std::size_t count) {
    while (seen.size() < count) seen.push_back(program.read_line().value());
  };
  wait_for(10);
  append_file(path, numbered(10, 10) + "half a ");
  wait_for(20);
  append_file(path, "line\n");
  wait_for(21);
  append_file(path, numbered(1, 20));
  std::filesystem::rename(path, folder / "log.1");
  append_file(folder / "log.1", numbered(1, 21));
  write_file(path, numbered(5, 30));
  wait_for(28);
  write_file(path, numbered(2, 40));  // cut, and shorter than before
  wait_for(30);
  program.signal(SIGTERM);
  const auto ended = program.wait();
  INFO(ended.error);
  CHECK(ended.status == 0);  // there is no other end
  CHECK(ended.out.empty());
  CHECK(sorted(seen) ==
        sorted(lines_of(numbered(22) + "half a line\n" + numbered(5, 30) + numbered(2, 40))));
}

TEST_CASE("whatever cannot be used is named, and the status says whose fault it is") {
  const TemporaryFolder folder;
  write_file(folder / "in", numbered(3));
  std::filesystem::create_directory(folder / "sub");
  write_file(folder / "garbage", std::string(5'000, 'g'));
  write_file(folder / "config", R"({"pipeline": {"workers": 1, "retry": {"max_atempts": 3}}})");
  write_file(folder / "no-json", "{");
  const auto in = folder / "in";
  struct Case {
    std::vector<std::string> arguments;
    int status;
    std::string says;
  };
  const std::vector<Case> cases{
      {{"--bogus"}, 2, "--bogus"},
      {{"--to", "mysql:x", in}, 2, "mysql:x"},
      {{"--threads", "0", in}, 2, "threads = 0: must be 1 .. 256"},
      {{"--shards", "4..2", in}, 2, "shards"},
      {{"--key", "origin", in}, 2, "must be a JSON pointer"},
      {{"--split", "--follow", in}, 2, "split"},
      {{"--config", folder / "missing", in}, 2, "missing"},
      {{"--config", folder / "no-json", in}, 2, "must be JSON"},
      {{"--config", folder / "config", in}, 2, "/pipeline/retry/max_atempts"},
      {{"--to", "sqlite:" + (folder / "x.db"), "--table", "a b", in}, 2, "table"},
      {{in, in}, 2, "inputs"},
      {{in, folder / "./in"}, 2, "another file than"},
      {{folder / "missing"}, 1, "missing cannot be opened: No such file or directory"},
      {{folder / "."}, 1, "Is a directory"},
      {{"--to", "sqlite:" + (folder / "no/x.db"), in}, 1, "no/x.db"},
      {{"--to", "sqlite:" + (folder / "."), in}, 1, "cannot use the database"},
      {{"--to", "sqlite:" + (folder / "garbage"), in}, 1, "no SQLite database"},
      {{"--to", "jsonl:" + (folder / "no/x"), in}, 1, "No such file or directory"},
      {{"--to", "jsonl:" + (folder / "."), in}, 2, "must be the name of a file"},
      {{"--to", "jsonl:" + (folder / "sub"), in}, 1, "Is a directory"},
      {{"--to", "jsonl:" + (folder / "garbage"), in}, 1, "--existing append"},
      {{"--to", "jsonl:" + in, in}, 2, "another file than an input"},
      {{"--to", "null:", "--rejects", in, in}, 2, "another file than an input"},
      {{"--to", "null:", "--report", folder / "./in", in}, 2, "another file than an input"},
      {{"--to", "sqlite:" + (folder / "x.db"), "--report", folder / "x.db", in},
       2,
       "another file than to"},
      {{"--to", "null:", "--report", folder / "x", "--rejects", folder / "./x", in},
       2,
       "another file than rejects"},
      {{"--to", "null:", "--rejects", folder / "no/x", in}, 1, "no/x cannot be written"},
      {{"--to", "null:", "--report", folder / "no/x", in}, 1, "no/x cannot be written"},
  };
  for (const auto& [arguments, status, says] : cases) {
    const auto ended = run_program(arguments);
    std::string command;
    for (const auto& argument : arguments) command += argument + " ";
    INFO(command << '\n' << ended.out << ended.error);
    CHECK(ended.status == status);
    CHECK_THAT(ended.error, Contains(says));
    CHECK(ended.out.empty());
  }
  CHECK(read_file(in) == numbered(3));
}

TEST_CASE("a database that may only be read is said to be so") {
  const TemporaryFolder folder;
  write_file(folder / "in", numbered(3));
  const auto database = folder / "x.db";
  REQUIRE(run_program({"--to", "sqlite:" + database, folder / "in"}).status == 0);
  const auto ended = run_program({"--to", "sqlite:file:" + database + "?mode=ro", folder / "in"});
  INFO(ended.error);
  CHECK(ended.status == 1);
  CHECK_THAT(ended.error, Contains("read-only") || Contains("readonly"));
}

TEST_CASE("a locked database is waited for; when it stays so, the program says so", "[R-G2]") {
  const TemporaryFolder folder;
  write_file(folder / "in", numbered(3));
  write_file(folder / "config", R"({"sqlite": {"busy_timeout_ns": 1000000}})");
  const auto database = folder / "x.db";
  const std::vector<std::string> arguments{"--config", folder / "config", "--to",
                                           "sqlite:" + database, folder / "in"};
  REQUIRE(run_program(arguments).status == 0);
  const Database lock(database);
  lock.run("BEGIN IMMEDIATE");
  const auto ended = run_program(arguments);
  INFO(ended.error);
  CHECK(ended.status == 1);
  CHECK_THAT(ended.error, Contains("locked"));
  lock.run("ROLLBACK");
  CHECK(run_program(arguments).status == 0);
}

TEST_CASE("a disk that is full while it runs: retried, then given up with the right count",
          "[R-C3][R-G4]") {
  const TemporaryFolder folder;
  const auto input = folder / "in";
  write_file(input, numbered(60'000));
  write_file(folder / "pages", R"({"sqlite": {"max_page_count": 40}})");
  struct Case {
    std::vector<std::string> arguments;
    rlim_t file_size;
    std::string says;
  };
  const std::vector<Case> cases{
      {{"--to", "jsonl:/dev/full"}, RLIM_INFINITY, "No space left on device"},
      {{"--to", "jsonl:" + (folder / "a.ndjson")}, 100'000, "File too large"},
      {{"--to", "sqlite:" + (folder / "a.db")}, 100'000, "a.db"},
      {{"--to", "sqlite:" + (folder / "b.db"), "--config", folder / "pages"},
       RLIM_INFINITY,
       "full"},
  };
  for (auto [arguments, file_size, says] : cases) {
    CAPTURE(arguments);
    arguments.insert(arguments.end(),
                     {"--retry-for", "50ms", "--report", folder / "report.json", input});
    // The report is small enough for the limit.
    const auto ended = run_program(arguments, {.file_size = file_size});
    INFO(ended.out << ended.error);
    CHECK(ended.status == 3);
    CHECK_THAT(ended.out, Contains("Stopped: the sink failed") && Contains(says));
    check_books(report_of(folder / "report.json"), ended);
  }
  // Whole lines only, and each once.
  const auto part = read_file(folder / "a.ndjson");
  const auto lines = lines_of(part);
  CHECK(part.ends_with('\n'));
  const auto whole = sorted(lines_of(numbered(60'000)));
  const auto there = sorted(lines);
  CHECK(std::includes(whole.begin(), whole.end(), there.begin(), there.end()));
}

TEST_CASE("killed at any moment and run again, every record is in the database once", "[R-G6]") {
  const TemporaryFolder folder;
  const auto database = folder / "events.db";
  const auto input = folder / "in.ndjson";
  constexpr std::size_t kRecords = 100'000;
  write_file(input, numbered(kRecords));
  const auto seed = Catch::rngSeed() != 0 ? Catch::rngSeed() : std::random_device{}();
  CAPTURE(seed);
  const std::vector<std::string> arguments{"--to", "sqlite:" + database, "--key", "/k", input};
  kill_often(arguments, seed, 300'000);
  const auto ended = run_program(arguments);
  INFO(ended.out << ended.error);
  REQUIRE(ended.status == 0);
  const Database db(database);
  CHECK(db.number("SELECT count(*) FROM events") == kRecords);
  CHECK(db.number("SELECT count(DISTINCT position) FROM events") == kRecords);
  CHECK(db.number("SELECT count(DISTINCT payload) FROM events") == kRecords);
  CHECK(db.rows("PRAGMA integrity_check").at(0).at(0) == "ok");
}

TEST_CASE("killed at any moment, no line is torn", "[R-I2]") {
  const TemporaryFolder folder;
  const std::string suffix = GENERATE(".ndjson", ".ndjson.zst");
  const auto output = folder / ("out" + suffix);
  const auto input = folder / "in.ndjson";
  constexpr std::size_t kRecords = 100'000;
  write_file(input, numbered(kRecords));
  const auto seed = Catch::rngSeed() != 0 ? Catch::rngSeed() : std::random_device{}();
  CAPTURE(seed);
  const std::vector<std::string> arguments{"--to", "jsonl:" + output, "--existing", "append",
                                           input};
  kill_often(arguments, seed, 60'000);
  const auto ended = run_program(arguments);
  INFO(ended.out << ended.error);
  REQUIRE(ended.status == 0);
  REQUIRE(std::filesystem::exists(output));
  if (suffix == ".ndjson") {  // the other one is read by the tests of the sink
    const auto lines = lines_of(read_file(output));
    const auto whole = lines_of(numbered(kRecords));
    const std::set<std::string> known(whole.begin(), whole.end());
    const std::set<std::string> there(lines.begin(), lines.end());
    CHECK((known == there));
  }
}

TEST_CASE("the configuration that it prints is read back the same", "[R-J3]") {
  const TemporaryFolder folder;
  const auto first =
      run_program({"--print-config", "--shards", "2..8", "--key", "/k", "--to", "sqlite:x.db",
                   "--rotate-size", "1MB", "--sync", "batch", "--deadline", "3s"});
  REQUIRE(first.status == 0);
  write_file(folder / "config", first.out);
  const auto second = run_program({"--print-config", "--config", folder / "config"});
  CHECK(second.status == 0);
  CHECK(second.out == first.out);
}

TEST_CASE("the manual and the completion know every option of the help") {
  const auto help = run_program({"--help"}).out;
  const auto manual = read_file(INGEST_SOURCES "/shard-ingest.1");
  const auto completion = read_file(INGEST_SOURCES "/shard-ingest.bash");
  std::size_t count = 0;
  for (std::size_t at = 0; (at = help.find("--", at)) != std::string::npos;) {
    const auto end = help.find_first_not_of("abcdefghijklmnopqrstuvwxyz-", at);
    const auto option = help.substr(at, end - at);
    at = end;
    auto escaped = option;
    for (std::size_t dash = 0; (dash = escaped.find('-', dash)) != std::string::npos; dash += 2) {
      escaped.replace(dash, 1, "\\-");
    }
    CAPTURE(option);
    CHECK_THAT(manual, Contains(escaped));
    CHECK_THAT(completion, Contains(option));
    ++count;
  }
  CHECK(count > 20);
}
