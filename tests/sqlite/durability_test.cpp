#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "shard/sqlite.hpp"
#include "sqlite/disk.hpp"
#include "sqlite/support.hpp"

using namespace shard_test;
using shard::Delivery;
using shard::SqliteAdapter;
using shard::SqliteSynchronous;

namespace {

/// The rows that are there when the power comes back.
std::size_t rows_after_power_failure(Disk& disk, const TemporaryFolder& folder) {
  const TemporaryFolder later;
  for (const auto& [path, content] : disk.after_power_failure()) {
    const auto name = std::filesystem::path(path).filename().string();
    std::ofstream(later / name, std::ios::binary) << content;
  }
  REQUIRE(std::filesystem::exists(folder / "e.db"));
  Other other(later / "e.db");
  CHECK(other.value("PRAGMA integrity_check") == "ok");
  return other.rows();
}

}  // namespace

TEST_CASE("what flush() has answered true for outlasts a power failure") {
  const auto synchronous = GENERATE(SqliteSynchronous::off, SqliteSynchronous::normal);
  const TemporaryFolder folder;
  Disk disk("disk");
  SqliteAdapter adapter({.database = disk.uri(folder / "e.db"), .synchronous = synchronous});
  REQUIRE(adapter.flush({}));
  REQUIRE(rows_after_power_failure(disk, folder) == 0);
  REQUIRE(is_delivered(Events::numbered(100).to(adapter)));
  CHECK(rows_after_power_failure(disk, folder) == 0);
  CHECK(adapter.flush({}));
  CHECK(rows_after_power_failure(disk, folder) == 100);
}

TEST_CASE("flush() makes durable also while a reader keeps the log from being copied") {
  const TemporaryFolder folder;
  Disk disk("disk");
  SqliteAdapter adapter({.database = disk.uri(folder / "e.db")});
  Other reader(folder / "e.db");
  reader.run("PRAGMA wal_checkpoint");  // so that the reader needs nothing of the log
  reader.run("BEGIN");
  REQUIRE(reader.rows() == 0);
  REQUIRE(is_delivered(Events::numbered(100).to(adapter)));
  CHECK(adapter.flush({}));
  CHECK(rows_after_power_failure(disk, folder) == 100);
  CHECK(reader.rows() == 0);
}

TEST_CASE("with full synchronisation a batch that was delivered outlasts a power failure") {
  const TemporaryFolder folder;
  Disk disk("disk");
  SqliteAdapter adapter(
      {.database = disk.uri(folder / "e.db"), .synchronous = SqliteSynchronous::full});
  REQUIRE(is_delivered(Events::numbered(100).to(adapter)));
  CHECK(rows_after_power_failure(disk, folder) == 100);
}

TEST_CASE("what was delivered before close() outlasts a power failure") {
  const auto synchronous =
      GENERATE(SqliteSynchronous::off, SqliteSynchronous::normal, SqliteSynchronous::full);
  const bool with_reader = GENERATE(false, true);
  const TemporaryFolder folder;
  Disk disk("disk");
  SqliteAdapter adapter({.database = disk.uri(folder / "e.db"),
                         .synchronous = synchronous,
                         .busy_timeout = std::chrono::milliseconds{0}});
  Other reader(folder / "e.db");
  if (with_reader) {
    reader.run("BEGIN");
    REQUIRE(reader.rows() == 0);
  }
  REQUIRE(is_delivered(Events::numbered(100).to(adapter)));
  adapter.close({});
  CHECK(rows_after_power_failure(disk, folder) == 100);
}

TEST_CASE("flush() and close() say so when the disk cannot be synced") {
  const TemporaryFolder folder;
  Disk disk("disk");
  SqliteAdapter adapter({.database = disk.uri(folder / "e.db")});
  const auto events = Events::numbered(100);
  REQUIRE(is_delivered(events.to(adapter)));
  disk.sync_answer = SQLITE_IOERR_FSYNC;
  CHECK_FALSE(adapter.flush({}));
  const bool back = GENERATE(false, true);
  if (back) {
    disk.sync_answer = SQLITE_OK;
    CHECK(adapter.flush({}));
    CHECK_NOTHROW(adapter.close({}));
  } else {
    CHECK_THROWS_AS(adapter.close({}), std::runtime_error);
  }
  CHECK_FALSE(adapter.flush({}));  // closed
  CHECK_FALSE(is_delivered(events.to(adapter)));
  CHECK(rows_of(folder / "e.db") == 100);
}

TEST_CASE("a database in memory works and is not durable") {
  SqliteAdapter adapter({.database = ":memory:"});
  REQUIRE(is_delivered(Events::numbered(100).to(adapter)));
  CHECK(adapter.counts().inserted == 100);
  CHECK_FALSE(adapter.flush({}));
  CHECK_NOTHROW(adapter.close({}));
}

TEST_CASE("a database that cannot have a write-ahead log does without") {
  // Without shared memory, as on a network's file system, there is none.
  const auto [synchronous, flushed] =
      GENERATE(std::pair{SqliteSynchronous::off, false}, std::pair{SqliteSynchronous::normal, true},
               std::pair{SqliteSynchronous::full, true});
  const TemporaryFolder folder;
  const auto uri = "file:" + folder / "e.db";
  SqliteAdapter adapter({.database = uri + "?vfs=unix-dotfile", .synchronous = synchronous});
  REQUIRE(is_delivered(Events::numbered(100).to(adapter)));
  CHECK_FALSE(std::filesystem::exists(folder / "e.db-wal"));
  CHECK(adapter.flush({}) == flushed);
  adapter.close({});
  CHECK(rows_of(folder / "e.db") == 100);
}

TEST_CASE("close() leaves one file, the database") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  REQUIRE(is_delivered(Events::numbered(100).to(adapter)));
  REQUIRE(std::filesystem::exists(folder / "e.db-wal"));
  adapter.close({});
  CHECK_FALSE(std::filesystem::exists(folder / "e.db-wal"));
  CHECK_FALSE(std::filesystem::exists(folder / "e.db-shm"));
  CHECK(rows_of(folder / "e.db") == 100);
  CHECK(adapter.counts().inserted == 100);  // can still be asked
}

TEST_CASE("close() empties the log also while somebody else has the database open") {
  const TemporaryFolder folder;
  SqliteAdapter adapter({.database = folder / "e.db"});
  Other other(folder / "e.db");
  REQUIRE(is_delivered(Events::numbered(100).to(adapter)));
  CHECK(other.rows() == 100);
  REQUIRE(std::filesystem::file_size(folder / "e.db-wal") > 0);
  adapter.close({});
  CHECK(std::filesystem::file_size(folder / "e.db-wal") == 0);
  CHECK(other.rows() == 100);
}

TEST_CASE("an adapter that is destroyed without close() loses nothing") {
  const TemporaryFolder folder;
  {
    SqliteAdapter adapter({.database = folder / "e.db"});
    REQUIRE(is_delivered(Events::numbered(100).to(adapter)));
  }
  CHECK_FALSE(std::filesystem::exists(folder / "e.db-wal"));
  CHECK(rows_of(folder / "e.db") == 100);
}

TEST_CASE("a process that dies in the middle of a write leaves whole batches only", "[R-G6]") {
  constexpr std::size_t kBatches = 3;
  constexpr std::size_t kSize = 100;
  const auto events = Events::numbered(kBatches * kSize);
  bool died = true;
  std::size_t write = 1;
  for (; died; write += 3) {
    INFO("write " << write);
    const TemporaryFolder folder;
    const auto child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {  // which ends in here, whatever happens
      try {
        Disk disk("disk");
        disk.exit_at_write = static_cast<long>(write);
        SqliteAdapter adapter({.database = disk.uri(folder / "e.db")});
        for (std::size_t i = 0; i < kBatches; ++i) {
          const auto answer = adapter.deliver(events.part(i * kSize, kSize), events.context());
          if (!is_delivered(answer)) ::_exit(3);
        }
        adapter.close({});
        ::_exit(2);
      } catch (...) {
        ::_exit(4);
      }
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    died = WEXITSTATUS(status) == EXIT_SUCCESS;
    REQUIRE((died || WEXITSTATUS(status) == 2));

    SqliteAdapter adapter({.database = folder / "e.db"});
    CHECK(Other(folder / "e.db").value("PRAGMA integrity_check") == "ok");
    const auto rows = rows_of(folder / "e.db");
    CHECK(rows % kSize == 0);
    REQUIRE(is_delivered(events.to(adapter)));
    CHECK(adapter.counts().duplicates == rows);
    CHECK(rows_of(folder / "e.db") == kBatches * kSize);
  }
  CHECK(write > 20);  // it did die
}

TEST_CASE("a child process cannot harm the connection of its parent", "[R-I6]") {
  const TemporaryFolder folder;
  auto adapter = std::make_unique<SqliteAdapter>(shard::SqliteOptions{.database = folder / "e.db"});
  const auto events = Events::numbered(100);
  REQUIRE(is_delivered(adapter->deliver(events.part(0, 50), events.context())));
  const auto child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const bool refused = is_retry(events.to(*adapter)) && !adapter->flush({});
    adapter->close({});
    adapter.reset();
    ::_exit(refused ? EXIT_SUCCESS : EXIT_FAILURE);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(is_delivered(events.to(*adapter)));
  CHECK(adapter->flush({}));
  adapter->close({});
  CHECK(rows_of(folder / "e.db") == 100);
  CHECK_FALSE(std::filesystem::exists(folder / "e.db-wal"));
}
