#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "descriptor.hpp"
#include "record_reader.hpp"

namespace ingest {

/// An input cannot be opened or read; what() names it and says why.
class InputError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The records of a file, or of standard input, with the identity that a later run gives them again.
///
/// The identity of a regular file is made from its inode, the time at which that was made (where the file system knows it;
/// else its device) and its first line, so that it survives renaming and appending, and another file, or another content in
/// the same file, has another one. A file that is cut and begins with the same line again has another one as long as it is
/// followed; a later run cannot tell. Pipes get a random one, for what they bring is always new, and so does standard input
/// that does not stand at the start of its file, as its offsets count from there.
///
/// Threads: one at a time. Memory: as RecordReader, between the first read() and the end; a regular file is open no longer
/// than that unless it is followed, so that there may be any number of them.
class InputFile {
 public:
  struct Limits {
    std::size_t max_record;
    bool follow;    ///< what is appended belongs to it, and the file that takes its name after it
    int stop = -1;  ///< a descriptor: when it can be read, nobody waits for a pipe any more
    unsigned looks =
        0;  ///< at a file that was replaced, in a row and without finding more, before it is left
  };

  /// Looks whether it can be read.
  /// \param path  "-" is standard input
  /// Throws InputError.
  InputFile(std::string path, Limits limits);
  /// Only the records that begin in `[begin, end)`.
  InputFile(std::string path, Limits limits, std::uint64_t begin, std::uint64_t end);

  enum class Status : std::uint8_t {
    more,  ///< call again
    idle,  ///< nothing now; only where it is followed
    done,  ///< there is no more
  };

  /// Reads a block; `records` are valid until the next call. Throws InputError.
  [[nodiscard]] Status read(std::vector<Record>& records);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  /// Of the records of the last read(), if there were any.
  [[nodiscard]] std::uint64_t identity() const noexcept { return *identity_; }
  /// Is what it brings gone for good when it was read?
  [[nodiscard]] bool is_pipe() const noexcept { return !is_regular_; }
  /// Bytes to read, as far as that is known: nothing for a pipe.
  [[nodiscard]] std::optional<std::uint64_t> size() const noexcept { return size_; }
  /// Bytes read so far, of every file that had the name.
  [[nodiscard]] std::uint64_t bytes_read() const noexcept {
    return read_before_ + reader_.position() - begin_;
  }
  [[nodiscard]] std::uint64_t blank() const noexcept { return blank_before_ + reader_.blank(); }

  /// Are they the same file?
  [[nodiscard]] bool is_same_file(const InputFile& other) const noexcept {
    return device_ == other.device_ && inode_ == other.inode_;
  }

 private:
  /// False: no file of that name can be opened now, so the one that was open stays so.
  bool open();
  [[nodiscard]] std::uint64_t make_identity() const;
  /// Finds out the identity if these are the first records.
  void name(const std::vector<Record>& records);
  /// Waits until a pipe has something or has ended. True: it has not, because of a signal or because all is to stop.
  [[nodiscard]] bool must_wait() const;
  /// At the end of a followed file: has it been cut, or has another one taken its name?
  [[nodiscard]] Status look_around(std::vector<Record>& records);
  void start_again();
  [[noreturn]] void fail(std::string_view what) const;

  std::string path_;
  Limits limits_;
  std::uint64_t begin_ = 0;
  Descriptor descriptor_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  bool is_regular_ = false;
  std::optional<std::uint64_t> size_;
  std::optional<std::uint64_t> identity_;
  std::optional<std::uint64_t> last_identity_;  ///< of the content before the file was cut
  std::uint64_t salt_ = 0;  ///< tells contents apart that begin with the same line, while this runs
  RecordReader reader_;
  bool is_idle_ = false;      ///< the last read() found nothing
  bool is_replaced_ = false;  ///< another file has the name: this one is read to its end first
  unsigned looks_ = 0;        ///< since then, without finding more
  bool is_done_ = false;
  std::uint64_t read_before_ = 0;
  std::uint64_t blank_before_ = 0;
};

}  // namespace ingest
