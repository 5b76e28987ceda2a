#include <sqlite3.h>
#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "shard/delivery.hpp"
#include "shard/sqlite.hpp"
#include "sqlite/disk.hpp"
#include "sqlite/support.hpp"
#include "support/failures.hpp"

using namespace shard_test;
using namespace std::chrono_literals;
using shard::Delivery;
using shard::SqliteAdapter;
using Kind = Delivery::Kind;

namespace {

/// What the constructor says of a database with which it cannot begin.
template <class Error>
std::string complaint(const shard::SqliteOptions& options) {
  try {
    const SqliteAdapter adapter(options);
  } catch (const Error& error) {
    return error.what();
  } catch (const std::exception& error) {
    FAIL("another exception: " << error.what());
  }
  FAIL("no exception");
  return "";
}

/// While it lives, no file can be larger, and who tries gets an error instead of a signal.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    auto limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

/// While it lives, every connection that is opened takes no value longer than this.
class LengthLimit {
 public:
  static constexpr int kBytes = 10'000;
  LengthLimit() { sqlite3_auto_extension(entry()); }
  LengthLimit(const LengthLimit&) = delete;
  LengthLimit& operator=(const LengthLimit&) = delete;
  ~LengthLimit() { sqlite3_cancel_auto_extension(entry()); }

 private:
  using Entry = void (*)();
  static int limit(sqlite3* handle, char** /*error*/, const void* /*api*/) {
    sqlite3_limit(handle, SQLITE_LIMIT_LENGTH, kBytes);
    return SQLITE_OK;
  }
  static Entry entry() { return reinterpret_cast<Entry>(&limit); }
};

constexpr const char* kSameColumns =
    "CREATE TABLE events (producer INTEGER, epoch INTEGER, shard INTEGER, sequence INTEGER,"
    " timestamp INTEGER, source INTEGER, position INTEGER, key, payload";

}  // namespace

TEST_CASE("a database that is locked is tried again, and then it works", "[R-G2]") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db", .busy_timeout = 0ms});
  const auto events = Events::numbered(100);
  Other other(folder / "e.db");
  other.run("BEGIN IMMEDIATE");
  const auto answer = events.to(adapter);
  CHECK(is_retry(answer));
  CHECK(answer.reason().text() == "database is locked: " + folder / "e.db");
  CHECK(other.rows() == 0);
  other.run("COMMIT");
  CHECK(is_delivered(events.to(adapter)));
  CHECK(other.rows() == 100);
  CHECK(adapter.counts().duplicates == 0);
}

TEST_CASE("an attempt waits for another connection's lock") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db", .busy_timeout = 1h});
  const auto events = Events::numbered(100);
  Other other(folder / "e.db");
  other.run("BEGIN IMMEDIATE");
  Failures failures;
  std::thread worker(
      [&] { failures.check(is_delivered(events.to(adapter)), "the lock was released"); });
  other.run("COMMIT");
  worker.join();
  CHECK(failures.text().empty());
  CHECK(other.rows() == 100);
}

TEST_CASE("a stop ends the wait for a lock", "[R-I3]") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db", .busy_timeout = 1h});
  const auto events = Events::numbered(100);
  Other other(folder / "e.db");
  other.run("BEGIN IMMEDIATE");
  std::stop_source stop;
  Failures failures;
  std::thread worker([&] {
    auto context = events.context();
    context.stop = stop.get_token();
    failures.check(is_retry(adapter.deliver(events.batch(), context)), "stopped");
  });
  stop.request_stop();
  worker.join();
  CHECK(failures.text().empty());
  other.run("COMMIT");
  CHECK(other.rows() == 0);
  CHECK(is_delivered(events.to(adapter)));
}

TEST_CASE("the deadline ends the wait for a lock, and forbids to begin", "[R-I3]") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db", .busy_timeout = 1h});
  const auto events = Events::numbered(100);
  Other other(folder / "e.db");
  other.run("BEGIN IMMEDIATE");
  auto context = events.context();
  context.deadline = std::chrono::steady_clock::now() + 20ms;
  CHECK(is_retry(adapter.deliver(events.batch(), context)));
  other.run("COMMIT");
  const auto answer = adapter.deliver(events.batch(), context);
  CHECK(is_retry(answer));
  CHECK(contains(answer.reason().text(), "deadline"));
  CHECK(other.rows() == 0);
}

TEST_CASE("close() does not wait for others longer than it may", "[R-I3]") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db", .busy_timeout = 1h});
  REQUIRE(is_delivered(Events::numbered(100).to(adapter)));
  Other other(folder / "e.db");
  other.run("BEGIN IMMEDIATE");
  std::stop_source stop;
  stop.request_stop();
  const bool by_stop = GENERATE(false, true);
  shard::DeliveryContext context;
  if (by_stop) {
    context.stop = stop.get_token();
  } else {
    context.deadline = std::chrono::steady_clock::now();
  }
  adapter.close(context);
  other.run("COMMIT");
  CHECK(other.rows() == 100);
}

TEST_CASE("readers stop no batch, and see whole ones") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db", .busy_timeout = 0ms});
  const auto events = Events::numbered(100);
  REQUIRE(is_delivered(adapter.deliver(events.part(0, 50), events.context())));
  Other reader(folder / "e.db");
  reader.run("BEGIN");
  CHECK(reader.rows() == 50);
  CHECK(is_delivered(events.to(adapter)));
  CHECK(reader.rows() == 50);
  reader.run("COMMIT");
  CHECK(reader.rows() == 100);
}

TEST_CASE("at max_page_count nothing is half written, and it goes on with more", "[R-G2]") {
  const TemporaryFolder folder;
  constexpr std::size_t kBatches = 30;
  constexpr std::size_t kSize = 100;
  const auto events = Events::numbered(kBatches * kSize);
  std::size_t delivered = 0;
  {
    SqliteAdapter adapter({.database = folder / "e.db", .max_page_count = 20});
    Delivery answer = Delivery::delivered();
    for (; is_delivered(answer); ++delivered) {
      answer = adapter.deliver(events.part(delivered * kSize, kSize), events.context());
    }
    --delivered;
    CHECK(is_retry(answer));
    CHECK(contains(answer.reason().text(), "full"));
    CHECK(contains(answer.reason().text(), folder / "e.db"));
    CHECK(adapter.counts().inserted == delivered * kSize);
    CHECK(rows_of(folder / "e.db") == delivered * kSize);

    // Room that others make is used.
    Other(folder / "e.db").run("DELETE FROM events");
    CHECK(is_delivered(adapter.deliver(events.part(delivered * kSize, kSize), events.context())));
  }
  SqliteAdapter adapter({.database = folder / "e.db", .max_page_count = 2000});
  CHECK(is_delivered(events.to(adapter)));
  CHECK(rows_of(folder / "e.db") == kBatches * kSize);
}

TEST_CASE("at a limit of the file's size nothing is half written, and it goes on after it",
          "[R-G2]") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  const auto events = Events::numbered(10'000);
  {
    const FileSizeLimit limit(100'000);
    const auto answer = events.to(adapter);
    CHECK(is_retry(answer));
    CHECK(answer.reason().text() == "disk I/O error (SQLite error 778): " + folder / "e.db");
  }
  CHECK(rows_of(folder / "e.db") == 0);
  CHECK(is_delivered(events.to(adapter)));
  CHECK(Other(folder / "e.db").value("PRAGMA integrity_check") == "ok");
  CHECK(rows_of(folder / "e.db") == 10'000);
}

TEST_CASE("what a disk answers decides whether a batch is tried again or refused", "[R-G2][R-G4]") {
  struct Case {
    int code;
    Kind answer;
  };
  const auto given =
      GENERATE(Case{SQLITE_BUSY, Kind::retry}, Case{SQLITE_LOCKED, Kind::retry},
               Case{SQLITE_FULL, Kind::retry}, Case{SQLITE_IOERR_WRITE, Kind::retry},
               Case{SQLITE_NOMEM, Kind::retry}, Case{SQLITE_PROTOCOL, Kind::retry},
               Case{SQLITE_INTERRUPT, Kind::retry}, Case{SQLITE_CANTOPEN, Kind::retry},
               Case{SQLITE_READONLY, Kind::refuse}, Case{SQLITE_CORRUPT, Kind::refuse},
               Case{SQLITE_NOTADB, Kind::refuse}, Case{SQLITE_PERM, Kind::refuse},
               Case{SQLITE_AUTH, Kind::refuse});
  INFO(sqlite3_errstr(given.code));
  const TemporaryFolder folder;
  Disk disk("disk");
  SqliteAdapter adapter({.database = disk.uri(folder / "e.db")});
  const auto events = Events::numbered(100);
  disk.write_answer = given.code;
  for (int i = 0; i < 2; ++i) {
    const auto answer = events.to(adapter);
    CHECK(answer.kind() == given.answer);
    CHECK(answer.reason().text().find(sqlite3_errstr(given.code)) == 0);
    CHECK(contains(answer.reason().text(), ": file:" + folder / "e.db"));
  }
  disk.write_answer = SQLITE_OK;
  CHECK(rows_of(folder / "e.db") == 0);
  CHECK(is_delivered(events.to(adapter)));  // nothing is left of it
  CHECK(rows_of(folder / "e.db") == 100);
  CHECK(adapter.counts().duplicates == 0);
}

TEST_CASE("an event that is too long is refused alone", "[R-G9]") {
  const TemporaryFolder folder;
  const LengthLimit limit;
  SqliteAdapter adapter({.database = folder / "e.db"});
  Events events;
  std::vector<std::size_t> too_long;
  for (std::size_t i = 0; i < 50; ++i) {
    // Just above the limit for a value, or just below it, but above it for the row.
    const std::size_t size = i == 3 || i == 40    ? LengthLimit::kBytes + 1
                             : i == 20 || i == 49 ? LengthLimit::kBytes - 1
                                                  : 10;
    if (size > 10) too_long.push_back(i);
    events.add(std::string(size, 'x'));
  }
  const auto answer = events.to(adapter);
  CHECK(answer.kind() == Kind::delivered_except);
  CHECK(answer.indices() == too_long);
  CHECK(contains(answer.reason().text(), "too big"));
  CHECK(rows_of(folder / "e.db") == 46);
  CHECK(adapter.counts().inserted == 46);
  CHECK(adapter.counts().duplicates == 0);
}

TEST_CASE("events that a constraint keeps out are refused alone", "[R-G9]") {
  const TemporaryFolder folder;
  Other(folder / "e.db")
      .run(std::string(kSameColumns) +
           " CHECK (payload NOT IN ('5', '60')), UNIQUE (producer, epoch, shard, sequence))");
  SqliteAdapter adapter({.database = folder / "e.db"});
  const auto answer = Events::numbered(100).to(adapter);
  CHECK(answer.kind() == Kind::delivered_except);
  CHECK(answer.indices() == std::vector<std::size_t>{5, 60});
  CHECK(contains(answer.reason().text(), "CHECK"));
  CHECK(rows_of(folder / "e.db") == 98);
}

TEST_CASE("a trigger that ends the transaction has its batch refused as a whole", "[R-G9]") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  Other other(folder / "e.db");
  other.run(
      "CREATE TRIGGER no_five BEFORE INSERT ON events WHEN new.payload = '50'"
      " BEGIN SELECT raise(ROLLBACK, 'not fifty'); END");
  const auto answer = Events::numbered(100).to(adapter);
  CHECK(answer.kind() == Kind::refuse);
  CHECK(contains(answer.reason().text(), "not fifty"));
  CHECK(other.rows() == 0);
  CHECK(is_delivered(Events::numbered(50).to(adapter)));
}

TEST_CASE("a table that is gone is waited for") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  const auto events = Events::numbered(100);
  REQUIRE(is_delivered(adapter.deliver(events.part(0, 10), events.context())));
  Other other(folder / "e.db");
  other.run("ALTER TABLE events RENAME TO moved");
  const auto answer = events.to(adapter);
  CHECK(is_retry(answer));
  CHECK(contains(answer.reason().text(), "no such table"));
  other.run("ALTER TABLE moved RENAME TO events");
  CHECK(is_delivered(events.to(adapter)));
  CHECK(other.rows() == 100);
}

TEST_CASE("a long reason is cut off in the database's name, not in what is wrong") {
  const TemporaryFolder folder;
  const auto name = folder / std::string(200, 'x');
  SqliteAdapter adapter({.database = name, .busy_timeout = 0ms});
  Other other(name);
  other.run("BEGIN IMMEDIATE");
  const auto answer = Events::numbered(1).to(adapter);
  CHECK(answer.reason().text() ==
        ("database is locked: " + name).substr(0, shard::Reason::kMaxSize));
}

TEST_CASE("with what is no database nothing begins, and it is said why", "[R-J5]") {
  const TemporaryFolder folder;
  using shard::PermanentError;

  const auto missing = folder / "no/such/e.db";
  auto what = complaint<PermanentError>({.database = missing});
  CHECK(contains(what, missing));
  CHECK(contains(what, "No such file or directory"));

  what = complaint<PermanentError>({.database = folder / ""});
  CHECK(contains(what, folder / ""));
  CHECK(contains(what, "Is a directory"));

  what = complaint<PermanentError>({.database = "file:" + folder / "none.db?mode=rw&key=secret"});
  CHECK(contains(what, folder / "none.db"));
  CHECK_FALSE(contains(what, "secret"));
  CHECK_FALSE(std::filesystem::exists(folder / "none.db"));

  std::ofstream(folder / "garbage") << std::string(10'000, 'x');
  what = complaint<PermanentError>({.database = folder / "garbage"});
  CHECK(contains(what, folder / "garbage"));
  CHECK(contains(what, "no SQLite database"));
  CHECK(std::filesystem::file_size(folder / "garbage") == 10'000);
}

TEST_CASE("a database that can only be read is found out at once") {
  const TemporaryFolder folder;
  { const SqliteAdapter made({.database = folder / "e.db"}); }
  const std::string parameters = GENERATE("?mode=ro", "?immutable=1");
  const auto what =
      complaint<shard::PermanentError>({.database = "file:" + folder / "e.db" + parameters});
  CHECK(contains(what, folder / "e.db"));
  CHECK(contains(what, "read-only"));
}

TEST_CASE("a database that is locked or full from the start may work later") {
  const TemporaryFolder folder;
  using shard::RetryableError;
  Other other(folder / "e.db");
  const bool wal = GENERATE(false, true);
  if (wal) other.run("PRAGMA journal_mode = WAL");
  other.run("CREATE TABLE t (x)");
  other.run("BEGIN IMMEDIATE");
  const auto what = complaint<RetryableError>({.database = folder / "e.db", .busy_timeout = 20ms});
  CHECK(contains(what, folder / "e.db"));
  CHECK(contains(what, "locked"));
  other.run("COMMIT");
  CHECK(contains(complaint<RetryableError>({.database = folder / "e.db", .max_page_count = 2}),
                 "full"));
  CHECK_NOTHROW(SqliteAdapter({.database = folder / "e.db"}));
}

TEST_CASE("a table of the same name is used if it is the same, and else refused") {
  const TemporaryFolder folder;
  using shard::PermanentError;
  const shard::SqliteOptions options{.database = folder / "e.db"};
  Other other(folder / "e.db");
  const auto refused = [&](const std::string& sql) {
    other.run("DROP TABLE IF EXISTS events");
    other.run(sql);
    const auto what = complaint<PermanentError>(options);
    CHECK(contains(what, folder / "e.db"));
    CHECK(contains(what, "\"events\""));
    return what;
  };
  CHECK(contains(refused("CREATE TABLE events (a TEXT, b)"), "a TEXT, b instead of producer"));
  CHECK(contains(refused(std::string(kSameColumns) +
                         ", more TEXT, UNIQUE (producer, epoch, shard, sequence))"),
                 "more TEXT"));
  CHECK(contains(refused(std::string(kSameColumns) + ")"), "unique constraint on (producer"));
  CHECK(
      contains(refused(std::string(kSameColumns) + ", UNIQUE (producer, epoch, shard, sequence));"
                                                   "CREATE INDEX events_source ON events (source)"),
               "unique constraint on (source"));

  other.run("DROP TABLE events");
  other.run(std::string(kSameColumns) + ", UNIQUE (sequence, shard, epoch, producer))");
  SqliteAdapter adapter(options);
  CHECK(is_delivered(Events::numbered(100, kIdentity, 5).to(adapter)));
  CHECK(is_delivered(Events::numbered(100, {.producer = 1, .epoch = 1}, 5).to(adapter)));
  CHECK(other.rows() == 100);
}

TEST_CASE("a view of the table's name is refused") {
  const TemporaryFolder folder;
  Other other(folder / "e.db");
  other.run(std::string(kSameColumns) + ")");
  other.run("ALTER TABLE events RENAME TO real; CREATE VIEW events AS SELECT * FROM real");
  CHECK(contains(complaint<shard::PermanentError>({.database = folder / "e.db"}), "view"));
}
