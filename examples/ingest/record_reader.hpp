#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string_view>
#include <vector>

namespace ingest {

/// A record as it stands in its input: a line without its end.
struct Record {
  std::string_view text;     ///< of one that is too long its beginning; valid until the next read()
  std::uint64_t offset = 0;  ///< of its first byte in the input
  std::uint64_t line = 0;    ///< from 1; 0 where the reader began in the middle of the input
  std::uint64_t size = 0;    ///< in the input; more than text.size() if it is too long
  bool too_long = false;
};

/// Splits what a file descriptor gives into records, in bounded memory.
///
/// A record ends with LF or with CR LF, the last one also with the input. Lines without any byte are no records; blank()
/// counts them. Every other byte belongs to the record, NUL and a lone CR among them. A line that is longer than the limit
/// becomes a record that says so and holds its beginning only.
///
/// Threads: one at a time. Memory: none before the first read(), then 128 KiB, and more, up to that and the longest
/// allowed line, as lines need it.
class RecordReader {
 public:
  static constexpr std::size_t kBlock = std::size_t{128} << 10U;
  static constexpr std::uint64_t kToTheEnd = std::numeric_limits<std::uint64_t>::max();

  /// Reads from where the descriptor stands, which is the start of the input.
  /// \param max_size  of a record, in bytes
  explicit RecordReader(std::size_t max_size) noexcept : max_size_(max_size) {}

  /// Reads those records only that begin in `[begin, end)`, so that several readers share one file. They have no line
  /// numbers unless `begin` is 0. The descriptor must stand at start_of_part(begin).
  RecordReader(std::size_t max_size, std::uint64_t begin, std::uint64_t end) noexcept;
  /// A part looks at the byte before it: a line begins there only if that is LF.
  [[nodiscard]] static std::uint64_t start_of_part(std::uint64_t begin) noexcept {
    return begin == 0 ? 0 : begin - 1;
  }

  enum class Status : std::uint8_t {
    more,   ///< records, or nothing yet: call again
    end,    ///< of the input, which may have more later if it grows, or of the part
    error,  ///< errno says what
  };

  /// Reads once from the descriptor and puts the records that are complete into `records`, which it clears first.
  [[nodiscard]] Status read(int descriptor, std::vector<Record>& records);

  /// At the end of the input: what stands there without a line end becomes a record of `records`, which it clears first.
  void finish(std::vector<Record>& records);

  /// Frees the memory, and with it the last records. After finish().
  void release() noexcept;

  /// Where the next read() begins.
  [[nodiscard]] std::uint64_t position() const noexcept {
    return line_start_ + (is_over() ? 0 : pending());
  }
  [[nodiscard]] std::uint64_t blank() const noexcept { return blank_; }

 private:
  /// The next line begins in the next part.
  [[nodiscard]] bool is_over() const noexcept { return line_start_ >= end_; }
  /// Bytes of the line that has no end yet.
  [[nodiscard]] std::uint64_t pending() const noexcept { return skipped_ + (filled_ - begin_); }
  /// The beginning of a line that is too long is kept, to be shown.
  static constexpr std::size_t kShown = 1'024;

  void make_room();
  void split(std::vector<Record>& records);
  /// A line of `size` bytes, of which `text` is all or the beginning.
  void emit(std::string_view text, std::uint64_t size, std::vector<Record>& records);

  std::size_t max_size_;
  std::size_t capacity_ = kBlock;
  std::unique_ptr<char[]> buffer_;
  std::size_t begin_ = 0;      ///< of the line that has no end yet, in the buffer
  std::size_t scanned_ = 0;    ///< no LF between begin_ and here
  std::size_t filled_ = 0;     ///< end of what the buffer holds
  std::uint64_t skipped_ = 0;  ///< bytes of that line that are no longer in the buffer

  std::uint64_t line_start_ = 0;  ///< its offset in the input
  std::uint64_t line_ = 1;        ///< its number; 0: not known
  std::uint64_t end_ = kToTheEnd;
  bool foreign_ = false;  ///< that line belongs to the part before
  std::uint64_t blank_ = 0;
};

}  // namespace ingest
