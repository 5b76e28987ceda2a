#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace shard::detail {

/// A system call that failed, or none.
struct [[nodiscard]] Failure {
  int code = 0;  ///< errno
  const char* call = "";

  explicit operator bool() const noexcept { return code != 0; }
};

/// "PATH: write: No space left on device".
[[nodiscard]] std::string describe(const std::string& path, Failure failure);

/// std::system_error that says the same.
[[noreturn]] void throw_failure(const std::string& path, Failure failure);

/// An open file, closed with it.
class Descriptor {
 public:
  Descriptor() noexcept = default;
  explicit Descriptor(int number) noexcept : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor();

  [[nodiscard]] int number() const noexcept { return number_; }
  [[nodiscard]] bool is_open() const noexcept { return number_ >= 0; }

 private:
  int number_ = -1;
};

/// A folder, held open: names are looked up in it, wherever the host's working directory is by then.
class Folder {
 public:
  /// Throws std::system_error.
  explicit Folder(std::string path);

  [[nodiscard]] std::string path_of(const std::string& name) const;
  [[nodiscard]] int number() const noexcept { return folder_.number(); }

  /// Never overwrites: EEXIST.
  Failure rename_new(const std::string& from, const std::string& to) const;
  Failure rename_over(const std::string& from, const std::string& to) const;
  Failure remove(const std::string& name) const;
  /// Brings the names to the disk.
  Failure sync() const;

  [[nodiscard]] bool has(const std::string& name) const;
  /// Are both there, and the same file?
  [[nodiscard]] bool is_same(const std::string& one, const std::string& other) const;

  /// Throws std::system_error.
  void for_each_name(const std::function<void(const std::string&)>& visit) const;

 private:
  std::string path_;
  Descriptor folder_;
};

/// A file of lines under way: locked, and whole up to size(); or a device, which takes what it takes.
/// Threads: one at a time.
class LineFile {
 public:
  enum class Origin : std::uint8_t {
    anew,       ///< must not be there; nothing if it is
    left,       ///< was left by a crash, or is made: cut behind its last whole line or frame
    completed,  ///< was complete: nothing is cut off, an unfinished last line is ended
  };

  /// Throws std::system_error: also if somebody else holds the lock, if it is no regular file, if it cannot be cut.
  static std::optional<LineFile> open(const Folder& folder, const std::string& name, Origin origin,
                                      bool compressed);
  /// A device or a FIFO, written to as it is. Throws std::system_error.
  static LineFile open_device(const std::string& path);

  /// Another name for the same file.
  void set_name(std::string name) { name_ = std::move(name); }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] bool is_device() const noexcept { return device_; }

  /// All of it, or as if nothing had been written; but a device may have taken some: `torn` tells.
  Failure append(std::span<const std::byte> bytes, bool& torn);
  /// Back to what was there when it was this long. If that fails the next append() begins with it.
  Failure cut(std::uint64_t size);
  /// Is there something behind size() that could not be cut off yet?
  [[nodiscard]] bool has_rest() const noexcept { return rest_; }

  /// Brings it to the disk; nothing to do if that is done. After it has failed no later call can be believed, unless
  /// what was not synced is cut off.
  Failure sync();
  /// And its name: after a power failure a file without one is none.
  Failure sync_with_name(const Folder& folder);

  /// Set when it may lack something that was delivered.
  bool doubtful = false;

 private:
  LineFile(std::string name, Descriptor file, bool device)
      : name_(std::move(name)), file_(std::move(file)), device_(device) {}

  std::string name_;
  Descriptor file_;
  bool device_;
  bool rest_ = false;
  bool name_synced_ = false;
  std::uint64_t size_ = 0;
  std::uint64_t synced_ = 0;
};

}  // namespace shard::detail
