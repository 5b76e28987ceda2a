#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "shard/adapter.hpp"
#include "shard/clock.hpp"
#include "shard/detail/export.hpp"

namespace shard {

/// When what was written is brought to the disk (fdatasync).
enum class JsonlSync : std::uint8_t {
  never,     ///< the system decides
  on_close,  ///< when a file is complete, before it gets its name, and by flush()
  interval,  ///< that, and with the first batch after sync_interval has passed
  batch,     ///< that, and before a batch counts as delivered
};

[[nodiscard]] SHARD_EXPORT std::string_view to_string(JsonlSync sync) noexcept;

/// What happens if there is a file of that name already. It never does with rotation, which takes the next number.
enum class JsonlExisting : std::uint8_t {
  fail,  ///< the constructor throws
  append,  ///< its lines are kept and it is written on; until it is complete again it is called "NAME.part"
  replace,  ///< it is replaced when the new one is complete
};

[[nodiscard]] SHARD_EXPORT std::string_view to_string(JsonlExisting existing) noexcept;

struct JsonlOptions {
  /// Where the lines go: "events.ndjson"; a name that ends in ".zst" is compressed. A symbolic link is followed. Its
  /// folder must be there. A device or a FIFO is written to as it is; opening a FIFO waits for its reader.
  std::string path = {};

  JsonlExisting existing = JsonlExisting::fail;

  /// Bytes of a file, as written, at which the next is begun, after the batch that reaches it. Zero: no limit. With a
  /// limit (or rotate_after) files are numbered: "events.000001.ndjson".
  std::uint64_t rotate_bytes = 0;

  /// Age of a file, from its first line, at which the next is begun, with the next batch or flush(). Zero: no limit.
  /// 0 or 1 s .. 10 years.
  std::chrono::seconds rotate_after{0};

  JsonlSync sync = JsonlSync::on_close;
  /// Above 0, up to 1 h.
  std::chrono::milliseconds sync_interval{1'000};

  /// zstd's; 1 .. 19.
  int compression_level = 3;

  /// The time that rotate_after and sync_interval follow; nullptr for the machine's. Must outlive the adapter.
  const TimeSource* time_source = nullptr;

  /// Throws ConfigError for the first field that is out of bounds.
  SHARD_EXPORT void validate() const;
};

struct JsonlCounts {
  std::uint64_t lines = 0;
  std::uint64_t bytes = 0;  ///< as written: compressed, if they are
  std::uint64_t files = 0;  ///< completed
};

/// Writes events into a file, the payload of each a line; a new file by size or age.
///
///     shard::Pipeline pipeline{options, std::make_unique<shard::JsonlAdapter>(
///         shard::JsonlOptions{.path = "events.ndjson.zst", .rotate_bytes = 256U << 20U})};
///
/// Lines:    the payload, byte for byte, and a line feed. A payload that has a line feed in it cannot be one line: it
///           is refused, the others of its batch are delivered. An empty payload is an empty line. JSON is not checked.
/// Names:    a file is called "NAME.part" while it is written and gets its name by a rename when it is complete: by
///           close() (or the destructor), or when the next is begun. So a file without ".part" is whole. Without
///           rotation NAME is the path; it is there after close() even if nothing came, then it has no line. With
///           rotation a number stands before the extension (.ndjson, .jsonl, .json, each perhaps with .zst behind it,
///           or .zst alone) or at the end of a name that has none of these: one above the highest that exists, from
///           000001 on. A file without a line is removed. No file is ever overwritten, but by JsonlExisting::replace.
///           Folders are not made.
/// Writers:  one at a time. "NAME.part" is locked (flock), and the constructor throws if another process or another
///           adapter holds the lock, so an AdapterFactory must give each worker a path of its own.
/// Crash:    "NAME.part" stays. Everything that was delivered is in it, and at its end perhaps the first part of one
///           batch that was not, of which whole lines stay; after a power failure, what JsonlSync says. The next
///           adapter of that path cuts it behind its last whole line (compressed: behind the last whole frame; each
///           batch is one, with its size and checksum) and writes on. If its first bytes are no zstd at all, the
///           constructor throws and leaves it alone. It looks at the end only, so what a power failure has garbled
///           before that stays. JsonlExisting::append changes nothing of what is in the file: a last line without an
///           end gets one, compressed frames that are not whole are an error.
/// Order:    batches are written one after the other, each by one write of the whole, so that the lines of a batch
///           stand together. Those of a shard are in order.
/// Threads:  deliver(), flush() and close() from any thread, at once. Lines are put together, and compressed, outside
///           of the lock; it is held while the system writes, syncs or renames.
/// Memory:   one buffer for each call of deliver() that is under way at once, as large as its largest batch
///           (compressed: twice that, and zstd's own); they are reused, so in steady state nothing is allocated.
/// Failure:  the constructor throws ConfigError for options out of bounds and std::system_error, with the path in it,
///           for everything else. deliver() takes a write that failed back (ftruncate) and answers
///             retry    a full disk, a quota, a size limit (ENOSPC, EDQUOT, EFBIG), EIO and what else may pass; no line
///                      is torn or there twice afterwards. If the file could not be cut either, the next call begins
///                      with that.
///             refuse   what does not pass: EBADF, EPERM, EROFS, EPIPE; and after close()
///             unknown  a device or FIFO took some of the batch; or the sync with this batch failed, see below
///           A failed sync: the system may have dropped what it could not write, and says so only once. With
///           JsonlSync::batch the batch is cut off again and answered with retry, so what counts as delivered is on the
///           disk. With the others, batches that were delivered before may be lost if the power fails. So the batch
///           with which it comes out is unknown, flush() is false from then on, and the file keeps the name
///           "NAME.part"; with rotation the next is begun when it is due, as ever. A file that cannot be renamed stays
///           "NAME.part", too; the next adapter of that path completes it. close() throws std::system_error if any file
///           has not got its name, which a pipeline reports as not complete.
/// Signals:  SIGXFSZ and SIGPIPE are the host's: unless it ignores them they end the process before an error is seen.
///           The threads of a pipeline block them, which is as good.
/// fork():   in the child deliver() refuses, flush() is false, and neither close() nor the destructor touches a file.
///           The lock is held until the child has ended or has called exec, too.
class SHARD_EXPORT JsonlAdapter final : public Adapter {
 public:
  explicit JsonlAdapter(JsonlOptions options);
  /// Does what close() does, if nobody has called that; never throws.
  ~JsonlAdapter() override;

  Delivery deliver(const Batch& batch, const DeliveryContext& context) override;

  /// Syncs, unless JsonlSync::never. False if that failed, now or before.
  bool flush(const DeliveryContext& context) override;

  /// Completes the file. After that deliver() refuses. Throws std::system_error, see above; the second call does
  /// nothing.
  void close(const DeliveryContext& context) override;

  [[nodiscard]] std::string_view name() const noexcept override;

  /// Threads: any, at any time. Never waits.
  [[nodiscard]] JsonlCounts counts() const noexcept;

  /// What failed last, with the path and the system's words; empty if nothing has. Also what no answer could tell: a
  /// file that could not be begun, synced or renamed.
  /// Threads: any, at any time; does not wait for the disk. Throws std::bad_alloc.
  [[nodiscard]] std::string last_error() const;

 private:
  class Files;
  std::unique_ptr<Files> files_;
};

}  // namespace shard
