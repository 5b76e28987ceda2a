#include "shard/jsonl.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <new>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "jsonl_file.hpp"
#include "jsonl_lines.hpp"
#include "shard/options.hpp"

namespace shard {

namespace {

using detail::Failure;
using detail::Folder;
using detail::LineFile;
using detail::LockGuard;
using std::string;
using std::string_view;

constexpr string_view kPart = ".part";
constexpr string_view kCompressed = ".zst";
constexpr std::size_t kDigits = 6;

/// Numbers go before the extension: "events." and ".ndjson.zst".
struct Numbered {
  string before;
  string behind;

  explicit Numbered(string_view name) {
    auto end = name.size();
    const auto drop = [&](string_view extension) {
      const auto rest = name.substr(0, end);
      const bool has = rest.size() > extension.size() && rest.ends_with(extension);
      end -= has ? extension.size() : 0;
      return has;
    };
    drop(kCompressed);
    static_cast<void>(drop(".ndjson") || drop(".jsonl") || drop(".json"));
    before = string(name.substr(0, end)) + ".";
    behind = name.substr(end);
  }

  [[nodiscard]] string name(std::uint64_t number) const {
    const auto digits = std::to_string(number);
    return before + string(kDigits - std::min(kDigits, digits.size()), '0') + digits + behind;
  }

  /// Nothing if it is no such name.
  [[nodiscard]] std::optional<std::uint64_t> number_of(string_view name) const {
    constexpr std::size_t kMostDigits = 18;  // far from the end of the numbers
    if (name.size() <= before.size() + behind.size() || !name.starts_with(before) ||
        !name.ends_with(behind)) {
      return std::nullopt;
    }
    const auto digits = name.substr(before.size(), name.size() - before.size() - behind.size());
    if (digits.size() > kMostDigits ||
        !std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      return std::nullopt;
    }
    return std::stoull(string(digits));
  }
};

/// Will it fail again whatever the operator does, short of a restart?
bool is_permanent(int code) {
  return code == EBADF || code == EPERM || code == EROFS || code == EPIPE;
}

/// The end of it, where the words of the system and the name of the file are.
Reason end_of(string_view text) {
  return text.substr(text.size() - std::min(text.size(), Reason::kMaxSize));
}

}  // namespace

string_view to_string(JsonlSync sync) noexcept {
  switch (sync) {
    case JsonlSync::never:
      return "never";
    case JsonlSync::on_close:
      return "on_close";
    case JsonlSync::interval:
      return "interval";
    case JsonlSync::batch:
      return "batch";
  }
  return "unknown";
}

string_view to_string(JsonlExisting existing) noexcept {
  switch (existing) {
    case JsonlExisting::fail:
      return "fail";
    case JsonlExisting::append:
      return "append";
    case JsonlExisting::replace:
      return "replace";
  }
  return "unknown";
}

void JsonlOptions::validate() const {
  using std::chrono::hours;
  using std::chrono::milliseconds;
  using std::chrono::seconds;
  const auto name = string_view(path).substr(path.rfind('/') + 1);
  if (name.empty() || name == "." || name == ".." || path.find('\0') != string::npos) {
    throw ConfigError("path", '"' + path + '"', "the name of a file");
  }
  if (existing > JsonlExisting::replace) {
    throw ConfigError("existing", std::to_string(static_cast<unsigned>(existing)),
                      "fail, append or replace");
  }
  constexpr seconds kTenYears = hours{24 * 3653};
  if (rotate_after != seconds{0} && (rotate_after < seconds{1} || rotate_after > kTenYears)) {
    throw ConfigError("rotate_after", std::to_string(rotate_after.count()) + " s",
                      "0, or 1 .. " + std::to_string(kTenYears.count()) + " s");
  }
  if (sync > JsonlSync::batch) {
    throw ConfigError("sync", std::to_string(static_cast<unsigned>(sync)),
                      "never, on_close, interval or batch");
  }
  if (sync_interval <= milliseconds{0} || sync_interval > hours{1}) {
    throw ConfigError("sync_interval", std::to_string(sync_interval.count()) + " ms",
                      "1 .. 3600000 ms");
  }
  if (compression_level < 1 || compression_level > 19) {
    throw ConfigError("compression_level", std::to_string(compression_level), "1 .. 19");
  }
}

/// The files of one adapter, one after the other.
class JsonlAdapter::Files {
 public:
  explicit Files(JsonlOptions options)
      : options_(checked(std::move(options))),
        clock_(options_.time_source),
        folder_(folder_of(options_.path)),
        single_(options_.path.substr(options_.path.rfind('/') + 1)),
        numbered_(single_),
        pool_(is_compressed() ? options_.compression_level : 0) {
    const LockGuard lock(mutex_);
    file_.emplace(open_first());
    if (options_.sync != JsonlSync::never && file_->size() != 0) {
      // What was there before counts as synced from now on.
      if (const auto failure = file_->sync_with_name(folder_)) {
        detail::throw_failure(path_of(*file_), failure);
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

  // -------------------------------------------------------------------------------- made

  static JsonlOptions checked(JsonlOptions options) {
    options.validate();
    // A link is followed here, so that what is renamed is the file and not the link.
    struct stat found {};
    if (!is_rotating(options) && ::lstat(options.path.c_str(), &found) == 0 &&
        S_ISLNK(found.st_mode) && ::stat(options.path.c_str(), &found) == 0 && !is_device(found)) {
      const std::unique_ptr<char, decltype(&std::free)> real(
          ::realpath(options.path.c_str(), nullptr), &std::free);
      if (real != nullptr) {
        options.path = real.get();
      }
    }
    return options;
  }

  static string folder_of(const string& path) {
    const auto slash = path.rfind('/');
    return slash == string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
  }

  [[nodiscard]] static bool is_rotating(const JsonlOptions& options) {
    return options.rotate_bytes != 0 || options.rotate_after.count() != 0;
  }
  [[nodiscard]] static bool is_device(const struct stat& found) {
    return !S_ISREG(found.st_mode) && !S_ISDIR(found.st_mode);
  }
  [[nodiscard]] bool is_compressed() const { return options_.path.ends_with(kCompressed); }

  LineFile open_first() SHARD_REQUIRES(mutex_) {
    struct stat found {};
    if (::stat(options_.path.c_str(), &found) == 0) {
      if (S_ISDIR(found.st_mode)) {
        detail::throw_failure(options_.path, {EISDIR, "open"});
      }
      if (is_device(found)) {
        if (is_rotating(options_)) {
          detail::throw_failure(options_.path, {EINVAL, "is no file that can be rotated"});
        }
        return LineFile::open_device(options_.path);
      }
    }
    return is_rotating(options_) ? open_series() : open_single();
  }

  LineFile open_single() const {
    const auto part = single_ + string(kPart);
    drop_second_name(single_, part);
    if (folder_.has(single_)) {
      const auto path = folder_.path_of(single_);
      if (options_.existing == JsonlExisting::fail) {
        detail::throw_failure(path, {EEXIST,
                                     "JsonlExisting::append would write it on, "
                                     "JsonlExisting::replace would replace it"});
      }
      if (options_.existing == JsonlExisting::append) {
        auto file = LineFile::open(folder_, single_, LineFile::Origin::completed, is_compressed());
        if (const auto failure = folder_.rename_new(single_, part)) {
          detail::throw_failure(path, failure.code == EEXIST
                                          ? Failure{EEXIST, "there is a .part of it, too"}
                                          : failure);
        }
        file->set_name(part);
        return *std::move(file);
      }
    }
    return *LineFile::open(folder_, part, LineFile::Origin::left, is_compressed());
  }

  LineFile open_series() SHARD_REQUIRES(mutex_) {
    std::set<std::uint64_t> parts;
    std::uint64_t highest = 0;
    folder_.for_each_name([&](string_view name) {
      const bool part = name.ends_with(kPart);
      name.remove_suffix(part ? kPart.size() : 0);
      if (const auto number = numbered_.number_of(name)) {
        if (part) {
          parts.insert(*number);
        } else {
          highest = std::max(highest, *number);
        }
      }
    });
    number_ = highest;
    // What a crash, or a file that could not be completed, has left. The last one is written on, unless there are later
    // lines in a file that is complete.
    for (const auto number : parts) {
      const auto part = numbered_.name(number) + string(kPart);
      if (drop_second_name(numbered_.name(number), part)) {
        continue;
      }
      auto file = LineFile::open(folder_, part, LineFile::Origin::left, is_compressed());
      if (number == *parts.rbegin() && number > number_) {
        number_ = number;
        return *std::move(file);
      }
      const auto path = path_of(*file);
      if (const auto failure = complete(*file)) {
        detail::throw_failure(path, failure);
      }
    }
    return open_next();
  }

  /// See Folder::rename_new().
  bool drop_second_name(const string& name, const string& part) const {
    const bool same = folder_.is_same(name, part);
    return same && !folder_.remove(part);
  }

  LineFile open_next() SHARD_REQUIRES(mutex_) {
    for (auto number = number_ + 1;; ++number) {
      const auto name = numbered_.name(number);
      if (folder_.has(name)) {
        continue;
      }
      if (auto file = LineFile::open(folder_, name + string(kPart), LineFile::Origin::anew,
                                     is_compressed())) {
        number_ = number;
        return *std::move(file);
      }
    }
  }

  // -------------------------------------------------------------------------------- written

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
      if (const auto failure = file_->sync_with_name(folder_)) {
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

  /// Is the file to be completed, and the next begun?
  [[nodiscard]] bool is_due(Timestamp now) const SHARD_REQUIRES(mutex_) {
    return file_->size() != 0 &&
           ((options_.rotate_bytes != 0 && file_->size() >= options_.rotate_bytes) ||
            (options_.rotate_after.count() != 0 &&
             now >= first_line_.after(options_.rotate_after)));
  }

  /// The reason if that failed.
  std::optional<Reason> sync() noexcept SHARD_REQUIRES(mutex_) {
    last_sync_ = clock_.now();
    if (const auto failure = file_->sync_with_name(folder_)) {
      file_->doubtful = true;
      sync_failed_ = true;
      return note(*file_, failure);
    }
    return std::nullopt;
  }

  /// Begins the next file and completes this one, in this order, so that there is always one that is locked. The reason if
  /// what was written to this one may be lost.
  std::optional<Reason> rotate() noexcept SHARD_REQUIRES(mutex_) {
    std::optional<LineFile> next;
    try {
      next.emplace(open_next());
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
      if (is_rotating(options_)) return folder_.remove(file.name());
      bool torn = false;
      if (is_compressed()) {
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
    if (const auto failure = give_name(file)) return failure;
    completed_.fetch_add(1, std::memory_order_relaxed);  // a statistic
    return options_.sync == JsonlSync::never ? Failure{} : folder_.sync();
  }

  Failure give_name(const LineFile& file) const {
    auto name = file.name().substr(0, file.name().size() - kPart.size());
    if (!is_rotating(options_)) {
      return options_.existing == JsonlExisting::replace ? folder_.rename_over(file.name(), name)
                                                         : folder_.rename_new(file.name(), name);
    }
    auto failure = folder_.rename_new(file.name(), name);
    // Somebody else has taken the number since.
    for (auto number = numbered_.number_of(name); number && failure.code == EEXIST;) {
      failure = folder_.rename_new(file.name(), numbered_.name(++*number));
    }
    return failure;
  }

  // -------------------------------------------------------------------------------- what failed

  [[nodiscard]] string path_of(const LineFile& file) const {
    return file.is_device() ? file.name() : folder_.path_of(file.name());
  }

  Reason note(const LineFile& file, Failure failure) noexcept SHARD_EXCLUDES(error_mutex_) {
    try {
      const auto text = detail::describe(path_of(file), failure);
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
  const Folder folder_;
  const string single_;  ///< the last part of the path
  const Numbered numbered_;
  detail::LinesPool pool_;

  mutable Mutex error_mutex_;
  string last_error_ SHARD_GUARDED_BY(error_mutex_);

  Mutex mutex_ SHARD_ACQUIRED_BEFORE(error_mutex_);        ///< held while the system writes
  std::optional<LineFile> file_ SHARD_GUARDED_BY(mutex_);  ///< nothing after close()
  std::uint64_t number_ SHARD_GUARDED_BY(mutex_) = 0;      ///< of the file, with rotation
  Timestamp first_line_ SHARD_GUARDED_BY(mutex_);          ///< of the file
  Timestamp last_sync_ SHARD_GUARDED_BY(mutex_);
  bool sync_failed_ SHARD_GUARDED_BY(mutex_) = false;
  Failure unfinished_
      SHARD_GUARDED_BY(mutex_);  ///< why the last file that has not got its name has not

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
