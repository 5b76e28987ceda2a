#include "record_reader.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace ingest {

RecordReader::RecordReader(std::size_t max_size, std::uint64_t begin, std::uint64_t end) noexcept
    : RecordReader(max_size) {
  line_start_ = start_of_part(begin);
  line_ = begin == 0 ? 1 : 0;
  end_ = end;
  foreign_ = begin != 0;
}

RecordReader::Status RecordReader::read(int descriptor, std::vector<Record>& records) {
  records.clear();
  if (is_over()) return Status::end;
  make_room();
  const auto got = ::read(descriptor, buffer_.get() + filled_, capacity_ - filled_);
  if (got < 0) return errno == EINTR || errno == EAGAIN ? Status::more : Status::error;
  if (got == 0) return Status::end;
  filled_ += static_cast<std::size_t>(got);
  split(records);
  return Status::more;
}

void RecordReader::finish(std::vector<Record>& records) {
  records.clear();
  if (pending() == 0 || is_over()) return;
  const std::string_view text(buffer_.get() + begin_, filled_ - begin_);
  const auto size = pending();
  begin_ = scanned_ = filled_;
  skipped_ = 0;
  if (!foreign_) emit(text, size, records);
  line_start_ += size;
}

void RecordReader::release() noexcept {
  buffer_.reset();
  begin_ = scanned_ = filled_ = 0;
}

void RecordReader::make_room() {
  if (buffer_ == nullptr) buffer_ = std::make_unique_for_overwrite<char[]>(capacity_);
  if (begin_ != 0) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, filled_ - begin_);
    scanned_ -= begin_;
    filled_ -= begin_;
    begin_ = 0;
  }
  if (filled_ > std::max(max_size_, kShown) + 1) {
    // Too long wherever it ends, even with a CR. Behind its beginning its last byte stays, which may be that CR.
    buffer_[kShown] = buffer_[filled_ - 1];
    skipped_ += filled_ - (kShown + 1);
    filled_ = scanned_ = kShown + 1;
  } else if (filled_ == capacity_) {
    capacity_ = std::min(capacity_ * 2, max_size_ + 2 + kBlock);
    auto larger = std::make_unique_for_overwrite<char[]>(capacity_);
    std::memcpy(larger.get(), buffer_.get(), filled_);
    buffer_ = std::move(larger);
  }
}

void RecordReader::split(std::vector<Record>& records) {
  const char* const bytes = buffer_.get();
  while (scanned_ != filled_) {
    const auto* found =
        static_cast<const char*>(std::memchr(bytes + scanned_, '\n', filled_ - scanned_));
    if (found == nullptr) {
      scanned_ = filled_;
      return;
    }
    const auto at = static_cast<std::size_t>(found - bytes);
    std::string_view text(bytes + begin_, at - begin_);
    const auto size = skipped_ + text.size();
    begin_ = scanned_ = at + 1;
    skipped_ = 0;
    if (!foreign_) {
      const std::size_t ends_with_cr = text.ends_with('\r') ? 1 : 0;
      text.remove_suffix(ends_with_cr);
      emit(text, size - ends_with_cr, records);
    }
    foreign_ = false;
    line_start_ += size + 1;
    line_ += line_ == 0 ? 0U : 1U;
    if (is_over()) return;
  }
}

void RecordReader::emit(std::string_view text, std::uint64_t size, std::vector<Record>& records) {
  if (size == 0) {
    ++blank_;
    return;
  }
  const bool too_long = size > max_size_;
  if (too_long) text = text.substr(0, kShown);
  records.push_back({text, line_start_, line_, size, too_long});
}

}  // namespace ingest
