#include "shard/sqlite.hpp"

#include <sqlite3.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "shard/detail/annotations.hpp"
#include "shard/detail/fork.hpp"
#include "shard/detail/mutex.hpp"
#include "shard/detail/platform.hpp"
#include "shard/options.hpp"

namespace shard {

namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

constexpr std::string_view kColumns =
    "producer, epoch, shard, sequence, timestamp, source, position, key, payload";
constexpr std::string_view kTypedColumns =
    "producer INTEGER, epoch INTEGER, shard INTEGER, sequence INTEGER, timestamp INTEGER, "
    "source INTEGER, position INTEGER, key, payload";

/// Rows of one INSERT. One statement for many rows saves a third of the time per row; more than this saves nothing.
constexpr std::size_t kRows = 16;

/// The page cache. Rows come in the order of all indices, so a larger one gains nothing.
constexpr int kCacheKibibytes = 8'000;

/// The size of the write-ahead log at which SQLite copies it into the database: four times SQLite's own choice, because
/// the last pages of an index are written with each batch, and copied only once.
constexpr std::int64_t kLogBytes = std::int64_t{16} << 20U;

/// The longest sleep between two looks at another connection's lock, and so what a stop waits for.
constexpr std::chrono::milliseconds kLook{10};

// ------------------------------------------------------------------------------------- text

/// How many of the bytes at `at`, of which there are `left`, are one character in UTF-8 of more than one byte (Table
/// 3-7 of the Unicode standard); 0 if none is.
std::size_t character_size(const unsigned char* at, std::size_t left) noexcept {
  const auto continues = [&](std::size_t i, unsigned low, unsigned high) {
    return i < left && at[i] >= low && at[i] <= high;
  };
  const unsigned lead = at[0];
  if (lead >= 0xC2 && lead <= 0xDF) {
    return continues(1, 0x80, 0xBF) ? 2 : 0;
  }
  if (lead >= 0xE0 && lead <= 0xEF) {  // not longer than it need be, no surrogates
    const bool second = continues(1, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF);
    return second && continues(2, 0x80, 0xBF) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {  // the same, up to U+10FFFF
    const bool second = continues(1, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF);
    return second && continues(2, 0x80, 0xBF) && continues(3, 0x80, 0xBF) ? 4 : 0;
  }
  return 0;
}

/// Is it UTF-8 without NUL bytes?
bool is_text(Bytes bytes) noexcept {
  constexpr std::uint64_t kOnes = 0x0101010101010101;
  constexpr std::uint64_t kHighs = 0x8080808080808080;
  const auto* at = reinterpret_cast<const unsigned char*>(bytes.data());
  const auto* const end = at + bytes.size();
  while (at != end) {
    if (end - at >= 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, at, sizeof word);
      // No byte from 0x80 on, and none that one can be taken from only by borrowing.
      if (((word | (word - kOnes)) & kHighs) == 0) {
        at += 8;
        continue;
      }
    }
    if (*at != 0 && *at < 0x80) {
      ++at;
      continue;
    }
    const auto size = character_size(at, static_cast<std::size_t>(end - at));
    if (size == 0) {
      return false;
    }
    at += size;
  }
  return true;
}

// ------------------------------------------------------------------------------------- failures

/// What SQLite answered, in its own words.
class Failure : public std::runtime_error {
 public:
  Failure(int code, const std::string& message) : std::runtime_error(message), code_(code) {}

  /// One of SQLite's primary result codes.
  [[nodiscard]] int code() const noexcept { return code_ & 0xFF; }

  /// Something is wrong with what a row holds, not with the database.
  [[nodiscard]] bool is_of_row() const noexcept {
    return code() == SQLITE_TOOBIG || code() == SQLITE_MISMATCH || code() == SQLITE_CONSTRAINT;
  }

  /// Whatever happens to the database, it will be the same the next time.
  [[nodiscard]] bool is_final() const noexcept {
    switch (code()) {
      case SQLITE_READONLY:
      case SQLITE_CORRUPT:
      case SQLITE_NOTADB:
      case SQLITE_PERM:
      case SQLITE_AUTH:
        return true;
      default:
        return is_of_row();
    }
  }

  /// May a program that cannot even begin try it again?
  [[nodiscard]] bool is_passing() const noexcept {
    switch (code()) {
      case SQLITE_BUSY:
      case SQLITE_LOCKED:
      case SQLITE_FULL:
      case SQLITE_IOERR:
      case SQLITE_NOMEM:
      case SQLITE_PROTOCOL:
      case SQLITE_INTERRUPT:
      case SQLITE_SCHEMA:
        return true;
      default:
        return false;
    }
  }

 private:
  int code_;
};

/// The database as messages name it: without the parameters of a URI, which may be secrets (the key of a cipher).
std::string shown_name(const std::string& database) {
  return database.rfind("file:", 0) == 0 ? database.substr(0, database.find_first_of("?#"))
                                         : database;
}

/// For a person whose database cannot be used from the start.
std::string explanation(const Failure& failure, const std::string& name) {
  const auto text = [&]() -> std::string {
    switch (failure.code()) {
      case SQLITE_BUSY:
      case SQLITE_LOCKED:
        return "another connection keeps it locked";
      case SQLITE_READONLY:
        return "it is read-only";
      case SQLITE_NOTADB:
        return "the file is no SQLite database";
      case SQLITE_CORRUPT:
        return "the file is damaged";
      default:
        return failure.what();
    }
  }();
  return "cannot use the database \"" + name + "\": " + text;
}

// ------------------------------------------------------------------------------------- database

struct Close {
  void operator()(sqlite3* handle) const noexcept { sqlite3_close(handle); }
  void operator()(sqlite3_stmt* statement) const noexcept { sqlite3_finalize(statement); }
};
using Handle = std::unique_ptr<sqlite3, Close>;
using Statement = std::unique_ptr<sqlite3_stmt, Close>;

/// How long the call that is under way may take.
struct Patience {
  std::stop_token stop;
  SteadyTime deadline = SteadyTime::max();
  SteadyTime lock_deadline = SteadyTime::max();  ///< for another connection's lock

  Patience() = default;
  Patience(const DeliveryContext& context, std::chrono::milliseconds busy_timeout)
      : stop(context.stop),
        deadline(context.deadline),
        lock_deadline(std::min(context.deadline, std::chrono::steady_clock::now() + busy_timeout)) {
  }

  /// Throws Failure when it is over.
  void check() const {
    if (stop.stop_requested()) {
      throw Failure(SQLITE_INTERRUPT, "stopped");
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      throw Failure(SQLITE_INTERRUPT, "the deadline has passed");
    }
  }

  /// SQLite's busy handler: waits a little, or answers 0 to give up.
  static int wait_for_lock(void* self, int tries) noexcept {
    const auto& patience = *static_cast<const Patience*>(self);
    const auto left = patience.lock_deadline - std::chrono::steady_clock::now();
    if (patience.stop.stop_requested() || left.count() <= 0) {
      return 0;
    }
    std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(
        left, std::min(kLook, std::chrono::milliseconds{1 + tries})));
    return 1;
  }
};

/// A connection to a database with the table in it.
/// Threads: one at a time.
class Database {
 public:
  /// Throws Failure, PermanentError.
  Database(const SqliteOptions& options, const std::string& name) : options_(options), name_(name) {
    open();
    if (sqlite3_db_readonly(handle_.get(), "main") == 1) {
      throw Failure(SQLITE_READONLY, "attempt to write a readonly database");
    }
    configure();
    begin_ = prepare("BEGIN IMMEDIATE");
    commit_ = prepare("COMMIT");
    rollback_ = prepare("ROLLBACK");
    Transaction transaction(*this);
    make_table();
    transaction.commit();
    one_ = prepare(insert_sql(1));
    many_ = prepare(insert_sql(kRows));
    patience_ = {};
  }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  /// Writes a batch. `counts` grows by what became of its rows.
  Delivery deliver(const Batch& batch, const DeliveryContext& context, SqliteCounts& counts) {
    patience_ = Patience(context, options_.busy_timeout);
    try {
      return write(batch, context, counts);
    } catch (const Failure& failure) {
      // The words first: a long name may be cut off.
      const Reason reason(std::string(failure.what()) + ": " + name_);
      return failure.is_final() ? Delivery::refuse(reason) : Delivery::retry(reason);
    }
  }

  /// Brings what was committed to the disk; false if that cannot be done or promised.
  ///
  /// In WAL mode a commit is a run of frames in the log. SQLite syncs that before it copies them into the database, and
  /// with synchronous = full after each commit. To sync the log is enough: a checkpoint would do it, too, but not
  /// while a reader is in the way (then SQLITE_CHECKPOINT_PASSIVE answers OK and has not synced). The log comes
  /// first: what another connection has copied before is in the database, which comes second.
  bool make_durable() noexcept {
    if (!wal_) {
      return on_disk_ && options_.synchronous != SqliteSynchronous::off;
    }
    return sync(SQLITE_FCNTL_JOURNAL_POINTER) && sync(SQLITE_FCNTL_FILE_POINTER);
  }

  /// Copies the log into the database and cuts it off, if no other connection is in the way until time is over. What
  /// cannot be copied stays in the log, where the next connection finds it. False if that may not last.
  bool finish(const DeliveryContext& context) {
    patience_ = Patience(context, options_.busy_timeout);
    sqlite3_wal_checkpoint_v2(handle_.get(), "main", SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
    return !wal_ || make_durable();
  }

 private:
  /// Rolls back what was not committed.
  class Transaction {
   public:
    explicit Transaction(Database& database) : database_(database) {
      database_.roll_back();  // if that failed the last time
      database_.run(database_.begin_.get());
    }
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    ~Transaction() { database_.roll_back(); }

    void commit() { database_.run(database_.commit_.get()); }

   private:
    Database& database_;
  };

  /// Whatever happened, a statement can be run again.
  struct Reset {
    sqlite3_stmt* statement;
    ~Reset() { sqlite3_reset(statement); }
  };

  /// The batch's memory is not SQLite's to look at when it is over.
  struct Unbind {
    Database& database;
    ~Unbind() {
      sqlite3_clear_bindings(database.one_.get());
      sqlite3_clear_bindings(database.many_.get());
    }
  };

  void open() {
    sqlite3* handle = nullptr;
    const int code = sqlite3_open_v2(options_.database.c_str(), &handle,
                                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI |
                                         SQLITE_OPEN_NOMUTEX,  // whoever calls has a mutex
                                     nullptr);
    handle_.reset(handle);
    check(code);
    sqlite3_extended_result_codes(handle, 1);
    patience_ = Patience({}, options_.busy_timeout);
    sqlite3_busy_handler(handle_.get(), &Patience::wait_for_lock, &patience_);
  }

  void configure() {
    const auto mode = enter_wal();
    wal_ = mode == "wal";
    on_disk_ = mode != "memory" && mode != "off";
    // Without WAL a power failure after a commit may bring back the journal, whose removal was not synced. EXTRA syncs
    // that; with WAL it is FULL.
    const bool off = options_.synchronous == SqliteSynchronous::off;
    const bool normal = options_.synchronous == SqliteSynchronous::normal && wal_;
    run(std::string("PRAGMA main.synchronous = ") + (off ? "OFF" : normal ? "NORMAL" : "EXTRA"));
    run("PRAGMA main.cache_size = -" + std::to_string(kCacheKibibytes));
    const auto page_size = std::stoll(text_of("PRAGMA main.page_size"));
    run("PRAGMA wal_autocheckpoint = " + std::to_string(kLogBytes / page_size));
    if (options_.max_page_count != 0) {
      run("PRAGMA main.max_page_count = " + std::to_string(options_.max_page_count));
    }
  }

  /// Another connection may have the database open for the same purpose. To wait for it SQLite does not ask the busy
  /// handler: both hold a shared lock that the other one wants to be given up. Having failed, this one holds none.
  std::string enter_wal() {
    for (int tries = 0;; ++tries) {
      try {
        return text_of("PRAGMA main.journal_mode = WAL");
      } catch (const Failure& failure) {
        if (failure.code() != SQLITE_BUSY || Patience::wait_for_lock(&patience_, tries) == 0) throw;
      }
    }
  }

  void make_table() {
    const auto table = "\"" + options_.table + "\"";
    run("CREATE TABLE IF NOT EXISTS main." + table +
        " (producer INTEGER NOT NULL, epoch INTEGER NOT NULL, shard INTEGER NOT NULL,"
        " sequence INTEGER NOT NULL, timestamp INTEGER NOT NULL, source INTEGER, position INTEGER,"
        " key, payload NOT NULL, UNIQUE (producer, epoch, shard, sequence))");
    const auto columns = text_of(
        "SELECT group_concat(trim(lower(name) || ' ' || upper(type)), ', ')"
        " FROM pragma_table_info('" +
        options_.table + "', 'main')");
    if (columns != kTypedColumns) {
      throw PermanentError("the table \"" + options_.table + "\" of the database \"" + name_ +
                           "\" has other columns: " + columns + " instead of " +
                           std::string(kTypedColumns));
    }
    // Partial, so that events without a source cost nothing here.
    run("CREATE UNIQUE INDEX IF NOT EXISTS main.\"" + options_.table + "_source\" ON " + table +
        " (source, position) WHERE source IS NOT NULL");
    // The table may be somebody else's. SQLite finds no constraint to name if there is none.
    require_unique("(producer, epoch, shard, sequence)");
    require_unique("(source, position) WHERE source IS NOT NULL");
  }

  void require_unique(const std::string& columns) {
    try {
      static_cast<void>(prepare(insert_sql(1, columns)));
    } catch (const Failure& failure) {
      if (failure.code() != SQLITE_ERROR) {
        throw;
      }
      throw PermanentError("the table \"" + options_.table + "\" of the database \"" + name_ +
                           "\" has no unique constraint on " + columns + ": " + failure.what());
    }
  }

  /// \param conflict  the columns of the one constraint that may keep a row out; empty for any
  [[nodiscard]] std::string insert_sql(std::size_t rows, const std::string& conflict = "") const {
    auto sql =
        "INSERT INTO main.\"" + options_.table + "\" (" + std::string(kColumns) + ") VALUES ";
    for (std::size_t row = 0; row < rows; ++row) {
      sql += row == 0 ? "(?,?,?,?,?,?,?,?,?)" : ",(?,?,?,?,?,?,?,?,?)";
    }
    return sql + " ON CONFLICT " + conflict + " DO NOTHING";
  }

  Delivery write(const Batch& batch, const DeliveryContext& context, SqliteCounts& counts) {
    patience_.check();
    std::vector<std::size_t> refused;
    Reason why;
    std::uint64_t inserted = 0;
    Transaction transaction(*this);
    const Unbind unbind{*this};
    std::size_t one_by_one = 0;  // up to there, to find the row at fault
    for (std::size_t i = 0; i < batch.size();) {
      const std::size_t rows = i >= one_by_one && batch.size() - i >= kRows ? kRows : 1;
      try {
        insert(rows == 1 ? one_.get() : many_.get(), batch.part(i, rows), context);
        inserted += static_cast<std::uint64_t>(sqlite3_changes(handle_.get()));
        i += rows;
      } catch (const Failure& failure) {
        // A constraint may have been told to end the transaction.
        if (!failure.is_of_row() || sqlite3_get_autocommit(handle_.get()) != 0) {
          throw;
        }
        if (rows > 1) {
          one_by_one = i + rows;
        } else {
          why = Reason(std::string(failure.what()) + ": " + name_);
          refused.push_back(i++);
        }
      }
      patience_.check();
    }
    transaction.commit();
    counts.inserted += inserted;
    counts.duplicates += batch.size() - refused.size() - inserted;
    return refused.empty() ? Delivery::delivered() : Delivery::delivered_except(refused, why);
  }

  void insert(sqlite3_stmt* statement, const Batch& rows, const DeliveryContext& context) {
    const auto identity = rows.identity();
    int parameter = 0;
    const auto bind_number = [&](std::uint64_t number) {
      check(sqlite3_bind_int64(statement, ++parameter, std::bit_cast<std::int64_t>(number)));
    };
    const auto bind_bytes = [&](Bytes bytes) {
      const auto* const data = bytes.empty() ? "" : bytes.text().data();  // nullptr would be NULL
      // Nothing is copied (nullptr is SQLITE_STATIC): the batch outlives the statement's use of it.
      check(is_text(bytes)
                ? sqlite3_bind_text64(statement, ++parameter, data, bytes.size(), nullptr,
                                      SQLITE_UTF8)
                : sqlite3_bind_blob64(statement, ++parameter, data, bytes.size(), nullptr));
    };
    const auto bind_null = [&] { check(sqlite3_bind_null(statement, ++parameter)); };
    for (const Event event : rows) {
      bind_number(identity.producer);
      bind_number(identity.epoch);
      bind_number(event.shard.value);
      bind_number(event.sequence.value);
      const auto time = context.wall_time(event.timestamp).time_since_epoch();
      bind_number(static_cast<std::uint64_t>(std::chrono::nanoseconds(time).count()));
      if (event.source) {
        bind_number(event.source->source);
        bind_number(event.source->position);
      } else {
        bind_null();
        bind_null();
      }
      if (event.key) {
        bind_bytes(event.key->bytes);
      } else {
        bind_null();
      }
      bind_bytes(event.payload);
    }
    run(statement);
  }

  /// Runs a statement that gives no rows.
  void run(sqlite3_stmt* statement) {
    const Reset reset{statement};
    const int code = sqlite3_step(statement);
    if (code != SQLITE_DONE) [[unlikely]] {
      throw failed(code);
    }
  }
  void run(const std::string& sql) {
    check(sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr));
  }

  /// Ends the transaction if there is one: SQLite has ended it itself after some errors. The statement was prepared, so
  /// that it needs no memory.
  void roll_back() noexcept {
    if (sqlite3_get_autocommit(handle_.get()) == 0) {
      const Reset reset{rollback_.get()};
      sqlite3_step(rollback_.get());
    }
  }

  [[nodiscard]] Statement prepare(const std::string& sql) {
    sqlite3_stmt* statement = nullptr;
    check(sqlite3_prepare_v3(handle_.get(), sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &statement,
                             nullptr));
    return Statement(statement);
  }

  /// The first value that a statement gives.
  [[nodiscard]] std::string text_of(const std::string& sql) {
    const auto statement = prepare(sql);
    const int code = sqlite3_step(statement.get());
    if (code != SQLITE_ROW) {
      throw failed(code);
    }
    const auto* const text = sqlite3_column_text(statement.get(), 0);
    return text == nullptr ? "" : reinterpret_cast<const char*>(text);
  }

  /// Whatever is SQLITE_OK or throws.
  void check(int code) const {
    if (code != SQLITE_OK) [[unlikely]] {
      throw failed(code);
    }
  }
  [[nodiscard]] Failure failed(int code) const {
    std::string message = handle_ == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(handle_.get());
    // What else is known: whether a read, a write, a sync, ... failed, or why the system opens no file. (Of a write
    // SQLite does not always keep the system's error.)
    if ((code & 0xFF) == SQLITE_IOERR) {
      message += " (SQLite error " + std::to_string(code) + ")";
    } else if ((code & 0xFF) == SQLITE_CANTOPEN && handle_ != nullptr &&
               sqlite3_system_errno(handle_.get()) != 0) {
      message += " (" + std::generic_category().message(sqlite3_system_errno(handle_.get())) + ")";
    }
    return {code, message};
  }

  /// Syncs one of SQLite's files, as its own layer for the system does.
  [[nodiscard]] bool sync(int which) noexcept {
    sqlite3_file* file = nullptr;
    return sqlite3_file_control(handle_.get(), "main", which, &file) == SQLITE_OK &&
           file != nullptr && file->pMethods != nullptr &&
           file->pMethods->xSync(file, SQLITE_SYNC_FULL) == SQLITE_OK;
  }

  const SqliteOptions options_;
  const std::string name_;
  Patience patience_;  // outlives the handle, which refers to it
  Handle handle_;
  Statement begin_;
  Statement commit_;
  Statement rollback_;
  Statement one_;
  Statement many_;
  bool wal_ = false;
  bool on_disk_ = false;
};

}  // namespace

// ------------------------------------------------------------------------------------- adapter

/// The one connection, for one call at a time.
class SqliteAdapter::Connection {
 public:
  explicit Connection(const SqliteOptions& options) : name_(shown_name(options.database)) {
    options.validate();
    try {
      database_.emplace(options, name_);
    } catch (const Failure& failure) {
      if (failure.is_passing()) {
        throw RetryableError(explanation(failure, name_));
      }
      throw PermanentError(explanation(failure, name_));
    }
    *here_ = true;
  }

  [[nodiscard]] Delivery deliver(const Batch& batch, const DeliveryContext& context) {
    if (is_forked()) {
      return Delivery::retry("the connection belongs to the parent process: " + name_);
    }
    const detail::LockGuard lock(mutex_);
    if (!database_) {
      return Delivery::retry("closed: " + name_);
    }
    SqliteCounts counts;
    auto answer = database_->deliver(batch, context, counts);
    // Counters that nothing hangs on.
    inserted_.fetch_add(counts.inserted, std::memory_order_relaxed);
    duplicates_.fetch_add(counts.duplicates, std::memory_order_relaxed);
    return answer;
  }

  [[nodiscard]] bool flush() {
    if (is_forked()) {
      return false;
    }
    const detail::LockGuard lock(mutex_);
    return database_ && database_->make_durable();
  }

  void close(const DeliveryContext& context) {
    if (is_forked()) {
      return;
    }
    const detail::LockGuard lock(mutex_);
    if (!database_) {
      return;
    }
    const bool durable = database_->finish(context);
    database_.reset();
    if (!durable) {
      throw RetryableError("what was written may not outlast a power failure: " + name_);
    }
  }

  [[nodiscard]] SqliteCounts counts() const noexcept {
    return {inserted_.load(std::memory_order_relaxed), duplicates_.load(std::memory_order_relaxed)};
  }

  /// A child process has a copy of the connection, whose use would break the locks of its parent.
  [[nodiscard]] bool is_forked() const noexcept { return !*here_; }

 private:
  const std::string name_;
  const detail::WipedOnFork page_;
  bool* const here_ =
      static_cast<bool*>(page_.memory());             ///< written by the constructor and by fork()
  detail::BasicMutex<detail::SystemPlatform> mutex_;  ///< never held with another lock
  std::optional<Database> database_ SHARD_GUARDED_BY(mutex_);  ///< empty after close()
  std::atomic<std::uint64_t> inserted_{0};
  std::atomic<std::uint64_t> duplicates_{0};
};

SqliteAdapter::SqliteAdapter(const SqliteOptions& options)
    : connection_(std::make_unique<Connection>(options)) {}

SqliteAdapter::~SqliteAdapter() {
  if (connection_->is_forked()) {
    static_cast<void>(connection_.release());  // closing it would close the parent's
  }
}

Delivery SqliteAdapter::deliver(const Batch& batch, const DeliveryContext& context) {
  return connection_->deliver(batch, context);
}

bool SqliteAdapter::flush(const DeliveryContext& /*context*/) { return connection_->flush(); }

void SqliteAdapter::close(const DeliveryContext& context) { connection_->close(context); }

std::string_view SqliteAdapter::name() const noexcept { return "sqlite"; }

SqliteCounts SqliteAdapter::counts() const noexcept { return connection_->counts(); }

// ------------------------------------------------------------------------------------- options

std::string_view to_string(SqliteSynchronous synchronous) noexcept {
  switch (synchronous) {
    case SqliteSynchronous::off:
      return "off";
    case SqliteSynchronous::normal:
      return "normal";
    case SqliteSynchronous::full:
      return "full";
  }
  return "unknown";
}

void SqliteOptions::validate() const {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
  constexpr std::string_view kDigits = "0123456789";
  constexpr std::uint64_t kMostPages = (std::uint64_t{1} << 32U) - 2;
  if (database.empty() || database.find('\0') != std::string::npos) {
    throw ConfigError("database", "\"" + std::string(shown_name(database).c_str()) + "\"",
                      "a path or a URI, not empty, without NUL bytes");
  }
  const auto is_name_character = [&](char c) {
    return kLetters.find(c) != std::string_view::npos || kDigits.find(c) != std::string_view::npos;
  };
  if (table.empty() || table.size() > 64 || kDigits.find(table[0]) != std::string_view::npos ||
      !std::all_of(table.begin(), table.end(), is_name_character) ||
      sqlite3_strnicmp(table.c_str(), "sqlite_", 7) == 0) {
    throw ConfigError("table", "\"" + table + "\"",
                      "1 .. 64 letters, digits and underscores, not beginning with a digit or with "
                      "sqlite_");
  }
  if (synchronous > SqliteSynchronous::full) {
    throw ConfigError("synchronous", std::to_string(static_cast<unsigned>(synchronous)),
                      "off, normal or full");
  }
  if (busy_timeout < std::chrono::milliseconds{0} || busy_timeout > std::chrono::hours{1}) {
    throw ConfigError("busy_timeout", std::to_string(busy_timeout.count()) + " ms",
                      "0 .. 3600000 ms");
  }
  if (max_page_count > kMostPages) {
    throw ConfigError("max_page_count", std::to_string(max_page_count),
                      "0 .. " + std::to_string(kMostPages));
  }
}

}  // namespace shard
