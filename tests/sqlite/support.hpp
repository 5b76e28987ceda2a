#pragma once

#include <sqlite3.h>
#include <stdlib.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shard/batch.hpp"
#include "shard/event_batch.hpp"
#include "shard/manager.hpp"
#include "shard/sqlite.hpp"
#include "support/temporary_folder.hpp"

namespace shard_test {

/// Another connection to the database, which looks at it and locks it.
class Other {
 public:
  explicit Other(const std::string& database) {
    sqlite3* handle = nullptr;
    const int code = sqlite3_open_v2(database.c_str(), &handle,
                                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
    handle_.reset(handle);
    if (code != SQLITE_OK) throw std::runtime_error(sqlite3_errmsg(handle));
  }

  void run(const std::string& sql) {
    if (sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
      throw std::runtime_error(sql + ": " + sqlite3_errmsg(handle_.get()));
    }
  }

  /// The rows that a query gives, as lines with the values separated by '|' and NULL as "-".
  [[nodiscard]] std::vector<std::string> lines(const std::string& sql) {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(handle_.get(), sql.c_str(), -1, &statement, nullptr) != SQLITE_OK) {
      throw std::runtime_error(sql + ": " + sqlite3_errmsg(handle_.get()));
    }
    std::vector<std::string> lines;
    while (sqlite3_step(statement) == SQLITE_ROW) {
      std::string line;
      for (int i = 0; i < sqlite3_column_count(statement); ++i) {
        const auto* const bytes = static_cast<const char*>(sqlite3_column_blob(statement, i));
        const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement, i));
        const bool null = sqlite3_column_type(statement, i) == SQLITE_NULL;
        line += i == 0 ? "" : "|";
        line += null ? "-" : std::string(bytes == nullptr ? "" : bytes, size);
      }
      lines.push_back(line);
    }
    sqlite3_finalize(statement);
    return lines;
  }
  [[nodiscard]] std::string value(const std::string& sql) { return lines(sql).at(0); }
  [[nodiscard]] std::size_t rows() { return std::stoul(value("SELECT count(*) FROM events")); }

 private:
  struct Close {
    void operator()(sqlite3* handle) const noexcept { sqlite3_close(handle); }
  };
  std::unique_ptr<sqlite3, Close> handle_;
};

/// How many rows the table "events" of a database has.
[[nodiscard]] inline std::size_t rows_of(const std::string& database) {
  return Other(database).rows();
}

constexpr shard::Identity kIdentity{.producer = 7, .epoch = 8};

/// Events of one shard with sequence numbers 0, 1, 2, ... to be delivered without a pipeline.
class Events {
 public:
  explicit Events(shard::Identity identity = kIdentity)
      : identity_(identity),
        manager_(std::make_unique<shard::Manager>(
            shard::ManagerOptions{.shards = 1,
                                  .ring_bytes = std::size_t{8} << 20U,
                                  .max_payload = std::size_t{2} << 20U,
                                  .max_key = 1024})) {}

  /// So many, with payloads "0", "1", "2", ...; each is its own position in the source, if there is one.
  static Events numbered(std::size_t count, shard::Identity identity = kIdentity,
                         std::optional<std::uint64_t> source = std::nullopt) {
    Events events(identity);
    for (std::size_t i = 0; i < count; ++i) {
      const auto text = std::to_string(i);
      if (source) {
        events.add(text, shard::SourceIdentity{*source, i});
      } else {
        events.add(text);
      }
    }
    return events;
  }

  template <class... Event>
  void add(Event&&... event) {
    if (manager_->ingest(std::forward<Event>(event)...) != shard::Outcome::accepted) {
      throw std::runtime_error("not accepted");
    }
    manager_->shard({0})->pop_batch_into(batch_, 1);
  }

  [[nodiscard]] shard::Batch batch() const { return {batch_, identity_}; }
  [[nodiscard]] shard::Batch part(std::size_t first, std::size_t count) const {
    return batch().part(first, count);
  }
  [[nodiscard]] shard::DeliveryContext context() const { return {.epoch = manager_->epoch()}; }

  [[nodiscard]] shard::Delivery to(shard::Adapter& adapter) const {
    return adapter.deliver(batch(), context());
  }

 private:
  shard::Identity identity_;
  std::unique_ptr<shard::Manager> manager_;
  shard::EventBatch batch_;
};

[[nodiscard]] inline bool is_delivered(const shard::Delivery& answer) {
  return answer.kind() == shard::Delivery::Kind::delivered;
}
[[nodiscard]] inline bool is_retry(const shard::Delivery& answer) {
  return answer.kind() == shard::Delivery::Kind::retry;
}
/// Is a text in another one?
[[nodiscard]] inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace shard_test
