#include "shard/jsonl.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <exception>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "jsonl_file.hpp"
#include "jsonl_lines.hpp"
#include "jsonl_place.hpp"

namespace shard {

namespace {

using detail::Failure;
using detail::LineFile;
using detail::LockGuard;
using std::string;
using std::string_view;

/// Will it fail again whatever the operator does, short of a restart?
bool is_permanent(int code) {
  return code == EBADF || code == EPERM || code == EROFS || code == EPIPE;
}

/// The end of it, where the words of the system and the name of the file are.
Reason end_of(string_view text) {
  return text.substr(text.size() - std::min(text.size(), Reason::kMaxSize));
}

}  // namespace

/// The files of one adapter, one after the other.
class JsonlAdapter::Files {
 public:
  explicit Files(JsonlOptions options)
      : options_(checked(std::move(options))),
        clock_(options_.time_source),
        place_(options_),
        pool_(place_.is_compressed() ? options_.compression_level : 0) {
    const LockGuard lock(mutex_);
    std::vector<LineFile> left;
    file_.emplace(place_.open_first(left));
    for (auto& file : left) {
      const auto path = place_.path_of(file);
      if (const auto failure = complete(file)) {
        detail::throw_failure(path, failure);
      }
    }
    if (options_.sync != JsonlSync::never && file_->size() != 0) {
      // What was there before counts as synced from now on.
      if (const auto failure = file_->sync_with_name(place_.folder())) {
        detail::throw_failure(place_.path_of(*file_), failure);
      }
    }
    first_line_ = last_sync_ = clock_.now();
  }

  [[nodiscard]] Delivery deliver(const Batch& batch) SHARD_EXCLUDES(mutex_, error_mutex_) {
    if (is_forked()) {
      return Delivery::refuse("the file belongs to the parent process");
    }
    const auto lines = pool_.take();
    lines->fill(batch);
    if (lines->count() == 0) {
      return Delivery::refuse(kNoLine);
    }
    // Made before, since it allocates: once they are written nothing may throw, or they would be written again.
    auto answer = lines->refused().empty() ? Delivery::delivered()
                                           : Delivery::delivered_except(lines->refused(), kNoLine);
    if (auto failed = write(*lines)) {
      return *std::move(failed);
    }
    return answer;
  }

  [[nodiscard]] bool flush() SHARD_EXCLUDES(mutex_, error_mutex_) {
    if (is_forked()) {
      return false;
    }
    const LockGuard lock(mutex_);
    if (file_ && options_.sync != JsonlSync::never) {
      sync();
    }
    if (file_ && is_due(clock_.now())) {
      static_cast<void>(rotate());
    }
    return !sync_failed_;
  }

  void close() SHARD_EXCLUDES(mutex_, error_mutex_) {
    if (is_forked()) {
      return;
    }
    const LockGuard lock(mutex_);
    if (!file_) {
      return;
    }
    finish(*std::exchange(file_, std::nullopt));
    if (unfinished_) {
      detail::throw_failure(options_.path, unfinished_);
    }
  }

  [[nodiscard]] JsonlCounts counts() const noexcept {
    return {lines_.load(std::memory_order_relaxed), bytes_.load(std::memory_order_relaxed),
            completed_.load(std::memory_order_relaxed)};
  }

  [[nodiscard]] string last_error() const SHARD_EXCLUDES(error_mutex_) {
    const LockGuard lock(error_mutex_);
    return last_error_;
  }

 private:
  using Mutex = detail::BasicMutex<detail::SystemPlatform>;

  static constexpr const char* kNoLine = "a payload with a line feed in it is not one line";

  static JsonlOptions checked(JsonlOptions options) {
    options.validate();
    return options;
  }

  /// Nothing if they are in the file.
  std::optional<Delivery> write(const detail::Lines& lines) noexcept
      SHARD_EXCLUDES(mutex_, error_mutex_) {
    const LockGuard lock(mutex_);
    if (!file_) {
      return Delivery::refuse("the file is closed");
    }
    const auto now = clock_.now();
    if (is_due(now)) {
      static_cast<void>(rotate());
    }
    const auto before = file_->size();
    bool torn = false;
    if (const auto failure = file_->append(lines.bytes(), torn)) {
      const auto reason = note(*file_, failure);
      return torn                         ? Delivery::unknown(reason)
             : is_permanent(failure.code) ? Delivery::refuse(reason)
                                          : Delivery::retry(reason);
    }
    if (options_.sync == JsonlSync::batch) {
      if (const auto failure = file_->sync_with_name(place_.folder())) {
        // All that was there before is on the disk, so this batch is all that may be lost.
        static_cast<void>(file_->cut(before));
        return Delivery::retry(note(*file_, failure));
      }
    }
    if (before == 0) {
      first_line_ = now;
    }
    lines_.fetch_add(lines.count(), std::memory_order_relaxed);  // statistics
    bytes_.fetch_add(lines.bytes().size(), std::memory_order_relaxed);

    std::optional<Reason> lost;
    if (options_.sync == JsonlSync::interval && now >= last_sync_.after(options_.sync_interval)) {
      lost = sync();
    }
    if (is_due(now)) {
      const auto failed = rotate();
      lost = lost ? lost : failed;
    }
    return lost ? std::optional(Delivery::unknown(*lost)) : std::nullopt;
  }

  /// Is the file to be completed, and the next begun? Not before a failed write is cut off: what is left of it would be
  /// taken for lines by the next adapter, and be written again by a retry.
  [[nodiscard]] bool is_due(Timestamp now) const SHARD_REQUIRES(mutex_) {
    return file_->size() != 0 && !file_->has_rest() &&
           ((options_.rotate_bytes != 0 && file_->size() >= options_.rotate_bytes) ||
            (options_.rotate_after.count() != 0 &&
             now >= first_line_.after(options_.rotate_after)));
  }

  /// The reason if that failed.
  std::optional<Reason> sync() noexcept SHARD_REQUIRES(mutex_) {
    last_sync_ = clock_.now();
    if (const auto failure = file_->sync_with_name(place_.folder())) {
      file_->doubtful = true;
      sync_failed_ = true;
      return note(*file_, failure);
    }
    return std::nullopt;
  }

  /// Begins the next file and completes this one, in this order, so that there is always one that is locked. The reason
  /// if what was written to this one may be lost.
  std::optional<Reason> rotate() noexcept SHARD_REQUIRES(mutex_) {
    std::optional<LineFile> next;
    try {
      next.emplace(place_.open_next());
    } catch (const std::exception& error) {  // the next batch tries again
      note(error.what());
      return std::nullopt;
    }
    return finish(*std::exchange(file_, std::move(next)));
  }

  /// Completes it or, if that fails, remembers so. The reason if its sync failed just now.
  std::optional<Reason> finish(LineFile file) noexcept SHARD_REQUIRES(mutex_) {
    const bool doubtful = file.doubtful;
    Failure failure;
    try {
      failure = complete(file);
    } catch (const std::bad_alloc&) {
      failure = {ENOMEM, "rename"};
    }
    if (!failure) {
      return std::nullopt;
    }
    unfinished_ = failure;
    const auto reason = note(file, failure);
    return file.doubtful && !doubtful ? std::optional(reason) : std::nullopt;
  }

  /// Gives it its name, if all of it is there and, unless JsonlSync::never, on the disk.
  Failure complete(LineFile& file) SHARD_REQUIRES(mutex_) {
    if (file.is_device()) {
      return {};
    }
    if (file.has_rest()) {
      if (const auto failure = file.cut(file.size())) return failure;
    }
    if (file.size() == 0) {
      if (place_.is_rotating()) return place_.folder().remove(file.name());
      bool torn = false;
      if (place_.is_compressed()) {
        if (const auto failure = file.append(detail::empty_frame(), torn)) return failure;
      }
    }
    if (options_.sync != JsonlSync::never) {
      if (file.doubtful) return {EIO, "an earlier sync failed"};
      if (const auto failure = file.sync()) {
        file.doubtful = true;
        sync_failed_ = true;
        return failure;
      }
    }
    if (const auto failure = place_.give_name(file)) return failure;
    completed_.fetch_add(1, std::memory_order_relaxed);  // a statistic
    return options_.sync == JsonlSync::never ? Failure{} : place_.folder().sync();
  }

  Reason note(const LineFile& file, Failure failure) noexcept SHARD_REQUIRES(mutex_)
      SHARD_EXCLUDES(error_mutex_) {
    try {
      const auto text = detail::describe(place_.path_of(file), failure);
      note(text.c_str());
      return end_of(text);
    } catch (const std::bad_alloc&) {
      note(failure.call);
      return failure.call;
    }
  }
  void note(const char* text) noexcept SHARD_EXCLUDES(error_mutex_) {
    const LockGuard lock(error_mutex_);
    try {
      last_error_ = text;
    } catch (const std::bad_alloc&) {
      last_error_.clear();  // better than an old one
    }
  }

  [[nodiscard]] bool is_forked() const noexcept { return ::getpid() != owner_; }

  const pid_t owner_ = ::getpid();
  const JsonlOptions options_;
  const Clock clock_;
  detail::Place place_ SHARD_GUARDED_BY(mutex_);
  detail::LinesPool pool_;

  mutable Mutex error_mutex_;
  string last_error_ SHARD_GUARDED_BY(error_mutex_);

  Mutex mutex_ SHARD_ACQUIRED_BEFORE(error_mutex_);        ///< held while the system writes
  std::optional<LineFile> file_ SHARD_GUARDED_BY(mutex_);  ///< nothing after close()
  Timestamp first_line_ SHARD_GUARDED_BY(mutex_);          ///< of the file
  Timestamp last_sync_ SHARD_GUARDED_BY(mutex_);
  bool sync_failed_ SHARD_GUARDED_BY(mutex_) = false;
  Failure unfinished_ SHARD_GUARDED_BY(mutex_);  ///< why a file has not got its name

  std::atomic<std::uint64_t> lines_{0};
  std::atomic<std::uint64_t> bytes_{0};
  std::atomic<std::uint64_t> completed_{0};
};

JsonlAdapter::JsonlAdapter(JsonlOptions options)
    : files_(std::make_unique<Files>(std::move(options))) {}

JsonlAdapter::~JsonlAdapter() {
  try {
    files_->close();
  } catch (const std::exception&) {  // last_error() was to be asked before
    return;
  }
}

Delivery JsonlAdapter::deliver(const Batch& batch, const DeliveryContext& /*context*/) {
  return files_->deliver(batch);
}

bool JsonlAdapter::flush(const DeliveryContext& /*context*/) { return files_->flush(); }

void JsonlAdapter::close(const DeliveryContext& /*context*/) { files_->close(); }

string_view JsonlAdapter::name() const noexcept { return "jsonl"; }

JsonlCounts JsonlAdapter::counts() const noexcept { return files_->counts(); }

string JsonlAdapter::last_error() const { return files_->last_error(); }

}  // namespace shard
