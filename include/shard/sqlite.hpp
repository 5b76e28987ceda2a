#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "shard/adapter.hpp"
#include "shard/detail/export.hpp"

namespace shard {

/// What a commit waits for, as SQLite's pragma of that name. flush() and close() bring the rest to the disk.
enum class SqliteSynchronous : std::uint8_t {
  off,     ///< nothing: a power failure may damage the database, a crash of the process does not
  normal,  ///< a power failure may take back the last commits, and damages nothing
  full,    ///< every commit is on the disk; without WAL normal is as good, and as slow
};

[[nodiscard]] SHARD_EXPORT std::string_view to_string(SqliteSynchronous synchronous) noexcept;

struct SqliteOptions {
  /// A path, or a URI like "file:events.db?mode=rw". Made if it is not there, unless the URI's mode forbids it.
  std::string database;

  /// Letters, digits and underscores, not beginning with a digit or with "sqlite_"; at most 64.
  std::string table = "events";

  SqliteSynchronous synchronous = SqliteSynchronous::normal;

  /// How long one attempt waits for another connection's lock; after that it is retried as the pipeline is told to.
  /// 0 .. 1 h.
  std::chrono::milliseconds busy_timeout{1'000};

  /// The largest size of the database in pages; at it the disk is full. Pages are of 4 KiB unless the database, or the
  /// SQLite in use, has another size. Zero: SQLite's own limit. 0 .. 2^32 - 2.
  std::uint64_t max_page_count = 0;

  /// Throws ConfigError for the first field that is out of bounds.
  SHARD_EXPORT void validate() const;
};

/// What became of the rows of delivered events.
struct SqliteCounts {
  std::uint64_t inserted = 0;
  std::uint64_t duplicates =
      0;  ///< were there already, or so a unique constraint of the table says
};

/// Writes events into a table of an SQLite database, a row each, a batch in one transaction:
///
///     producer, epoch, shard, sequence   which event it is                    INTEGER, unique together
///     timestamp                          when it was accepted, wall clock     INTEGER, nanoseconds since 1970
///     source, position                   its SourceIdentity, or NULL          INTEGER, unique together
///     key                                or NULL                              TEXT where it is UTF-8, else BLOB
///     payload                                                                 TEXT where it is UTF-8, else BLOB
///
/// Unsigned numbers of 64 bits are stored as the INTEGER of the same bits, so those from 2^63 on read as negative.
/// Bytes with a NUL among them are a BLOB, too: SQL would take the text to end there.
///
/// Duplicates:  a row that is there is left as it is, so a batch may be delivered any number of times, and a rerun over
///              the same sources adds only what is missing.
/// Threads:     any, at once; they take turns, with one connection. An adapter for each worker would gain nothing:
///              SQLite has one writer at a time.
/// Durability:  a batch is in the database as a whole or not at all, also after a crash of the process; after a power
///              failure as SqliteSynchronous says. flush() brings everything to the disk, and answers false if it could
///              not, or cannot promise it: a database in memory has no disk, and with `off` only WAL can be caught up.
///              close() empties the write-ahead log into the database, so that no -wal file stays, unless others use
///              the database at that time.
/// Failure:     retry, nothing of the batch written: the database is locked for longer than busy_timeout, the context's
///              stop or deadline came first (BUSY, LOCKED, INTERRUPT), the disk or max_page_count is full (FULL),
///              IOERR, NOMEM, CANTOPEN, PROTOCOL, SCHEMA and whatever is not named here, as a table that is gone.
///              refuse, nothing of the batch written: READONLY, CORRUPT, NOTADB, PERM, AUTH.
///              refuse of single events, the others written: one longer than SQLite can store (TOOBIG), or that a
///              constraint or trigger which the table was given keeps out (CONSTRAINT, MISMATCH).
///              Waiting for a lock ends at once (10 ms) when stop is requested; a write to a slow disk cannot be ended.
///              close() throws RetryableError if the disk cannot be synced. After it: retry.
/// Memory:      a page cache of 8 MB and what a transaction needs; nothing per event.
/// fork():      in the child every call fails (retry, false, nothing), and the destructor leaves the connection alone.
///
/// Others may read the database at any time, and write to it between batches. WAL is used where the database can do it.
class SHARD_EXPORT SqliteAdapter final : public Adapter {
 public:
  /// Opens the database, and makes the table if it is not there. Throws ConfigError for the options, RetryableError if
  /// it may work later (locked for longer than busy_timeout, full, I/O error), and PermanentError if not (no such
  /// directory, not a database, read-only, the table has other columns or lacks a unique constraint). Messages name the
  /// database, without the parameters of a URI.
  explicit SqliteAdapter(const SqliteOptions& options);
  /// Closes the connection if close() did not.
  ~SqliteAdapter() override;

  Delivery deliver(const Batch& batch, const DeliveryContext& context) override;
  bool flush(const DeliveryContext& context) override;
  void close(const DeliveryContext& context) override;
  [[nodiscard]] std::string_view name() const noexcept override;

  /// Threads: any, at any time.
  [[nodiscard]] SqliteCounts counts() const noexcept;

 private:
  class Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace shard
