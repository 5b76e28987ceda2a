#include "input_file.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <system_error>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace ingest {

namespace {

std::string in_words(int error) { return std::generic_category().message(error); }

std::uint64_t random_number() {
  std::random_device random;
  return (std::uint64_t{random()} << 32U) ^ random();
}

}  // namespace

InputFile::InputFile(std::string path, Limits limits)
    : path_(std::move(path)), limits_(limits), reader_(limits.max_record) {
  open();
  // Until it is read. One that is followed stays open: it may lose its name before.
  if (is_regular_ && path_ != "-" && !limits_.follow) descriptor_ = Descriptor();
}

InputFile::InputFile(std::string path, Limits limits, std::uint64_t begin, std::uint64_t end)
    : path_(std::move(path)),
      limits_(limits),
      begin_(RecordReader::start_of_part(begin)),
      reader_(limits.max_record, begin, end) {}

void InputFile::fail(std::string_view what) const {
  const auto error = in_words(errno);
  std::string text = path_ == "-" ? "standard input" : path_;
  throw InputError(text.append(" ").append(what).append(": ").append(error));
}

bool InputFile::open() {
  const bool is_standard = path_ == "-";
  const bool is_first = descriptor_.get() < 0;
  // Without O_NONBLOCK this would wait for who writes into a FIFO, deaf to everything. Files do not care.
  Descriptor opened(is_standard ? ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0)
                                : ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat state {};
  if (opened.get() < 0 || ::fstat(opened.get(), &state) != 0) {
    if (!is_first) return false;
    fail("cannot be opened");
  }
  if (!is_first && !S_ISREG(state.st_mode)) return false;
  if (S_ISDIR(state.st_mode)) {
    errno = EISDIR;
    fail("cannot be read");
  }
  descriptor_ = std::move(opened);
  device_ = state.st_dev;
  inode_ = state.st_ino;
  // Offsets count from where it stands: standard input that is not at its start is as good as a pipe.
  is_regular_ =
      S_ISREG(state.st_mode) && (!is_standard || ::lseek(descriptor_.get(), 0, SEEK_CUR) == 0);
  size_.reset();
  if (is_regular_) {
    size_ = static_cast<std::uint64_t>(state.st_size);
    ::posix_fadvise(descriptor_.get(), 0, 0, POSIX_FADV_SEQUENTIAL);  // a hint
  }
  identity_.reset();
  last_identity_.reset();
  salt_ = 0;
  return true;
}

std::uint64_t InputFile::make_identity() const {
  if (!is_regular_) {
    return random_number();
  }
  std::array<std::uint64_t, 3> made{};
  struct statx state {};
  if (::statx(descriptor_.get(), "", AT_EMPTY_PATH, STATX_BTIME, &state) == 0 &&
      (state.stx_mask & STATX_BTIME) != 0) {
    made = {inode_, static_cast<std::uint64_t>(state.stx_btime.tv_sec), state.stx_btime.tv_nsec};
  } else {
    made = {inode_, device_, ~std::uint64_t{0}};
  }
  // The first line, or what of it is enough to tell it from others.
  std::array<char, 4'096> start{};
  const auto got = ::pread(descriptor_.get(), start.data(), start.size(), 0);
  if (got < 0) fail("cannot be read");
  auto size = static_cast<std::size_t>(got);
  if (const void* end = std::memchr(start.data(), '\n', size)) {
    size = static_cast<std::size_t>(static_cast<const char*>(end) - start.data());
  }
  return XXH3_64bits_withSeed(start.data(), size,
                              XXH3_64bits(made.data(), made.size() * sizeof made[0]) ^ salt_);
}

void InputFile::name(const std::vector<Record>& records) {
  if (records.empty() || identity_) return;
  identity_ = make_identity();
  if (identity_ == last_identity_) {  // cut, and it begins with the same line again
    salt_ = random_number();
    identity_ = make_identity();
  }
}

InputFile::Status InputFile::read(std::vector<Record>& records) {
  records.clear();
  if (is_done_) {
    descriptor_ = Descriptor();
    reader_.release();
    return Status::done;
  }
  if (descriptor_.get() < 0) {
    open();
    if (begin_ != 0 && ::lseek(descriptor_.get(), static_cast<off_t>(begin_), SEEK_SET) < 0) {
      fail("cannot be read from the middle");
    }
  }
  if (!is_regular_ && must_wait()) return Status::more;
  switch (reader_.read(descriptor_.get(), records)) {
    case RecordReader::Status::error:
      fail("cannot be read");
    case RecordReader::Status::more:
      if (std::exchange(is_idle_, false) && identity_ && *identity_ != make_identity()) {
        records.clear();  // they are of another content: it was cut, and is longer now than it was
        start_again();
      }
      looks_ = 0;
      name(records);
      return Status::more;
    case RecordReader::Status::end:
      break;
  }
  if (limits_.follow && is_regular_) return look_around(records);
  reader_.finish(records);
  name(records);
  is_done_ = true;
  return Status::more;
}

bool InputFile::must_wait() const {
  std::array<pollfd, 2> watched{{{descriptor_.get(), POLLIN, 0}, {limits_.stop, POLLIN, 0}}};
  return ::poll(watched.data(), watched.size(), -1) < 0 || watched[1].revents != 0;
}

InputFile::Status InputFile::look_around(std::vector<Record>& records) {
  if (is_replaced_) {  // and still nothing more in the old one
    if (looks_ < limits_.looks) {
      ++looks_;
      is_idle_ = true;
      return Status::idle;
    }
    reader_.finish(records);
    name(records);
    if (!records.empty()) return Status::more;
    if (!open()) return Status::idle;
    is_replaced_ = false;
    start_again();
    return Status::more;
  }
  struct stat state {};
  if (::fstat(descriptor_.get(), &state) != 0) fail("cannot be read");
  if (static_cast<std::uint64_t>(state.st_size) < reader_.position()) {
    start_again();
    return Status::more;
  }
  // Without a file of that name one will come, or not; the old one may still grow.
  if (path_ != "-" && ::stat(path_.c_str(), &state) == 0 &&
      (state.st_dev != device_ || state.st_ino != inode_)) {
    is_replaced_ = true;
    looks_ = 0;
    return Status::more;  // it may have grown before it was replaced
  }
  is_idle_ = true;
  return Status::idle;
}

void InputFile::start_again() {
  if (::lseek(descriptor_.get(), 0, SEEK_SET) < 0) fail("cannot be read again");
  read_before_ += reader_.position();
  blank_before_ += reader_.blank();
  reader_ = RecordReader(limits_.max_record);
  if (identity_) last_identity_ = std::exchange(identity_, std::nullopt);
}

}  // namespace ingest
