#include "jsonl_file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string_view>
#include <system_error>

namespace shard::detail {

namespace {

/// What the call returns, again and again while a signal interrupts it.
template <class Call>
auto uninterrupted(const Call& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) {
    result = call();
  }
  return result;
}

Failure outcome(int result, const char* call) {
  return result < 0 ? Failure{errno, call} : Failure{};
}

Failure cut_file(int file, std::uint64_t size) {
  return outcome(uninterrupted([&] { return ::ftruncate(file, static_cast<off_t>(size)); }),
                 "ftruncate");
}

/// All of it, from `offset` on (a device: where it stands); `written` tells how far it came.
Failure write_all(int file, bool device, std::uint64_t offset, std::span<const std::byte> bytes,
                  std::size_t& written) {
  written = 0;
  while (written != bytes.size()) {
    const auto rest = bytes.subspan(written);
    const auto step = uninterrupted([&] {
      return device
                 ? ::write(file, rest.data(), rest.size())
                 : ::pwrite(file, rest.data(), rest.size(), static_cast<off_t>(offset + written));
    });
    if (step <= 0) {
      return {step < 0 ? errno : EIO, "write"};
    }
    written += static_cast<std::size_t>(step);
  }
  return {};
}

/// Up to `into.size()` bytes at `offset`; how many there are, or -1.
ssize_t read_at(int file, std::uint64_t offset, std::span<unsigned char> into) {
  return uninterrupted(
      [&] { return ::pread(file, into.data(), into.size(), static_cast<off_t>(offset)); });
}

std::uint32_t little_endian(std::span<const unsigned char> bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    value |= static_cast<std::uint32_t>(bytes[i]) << (8 * i);
  }
  return value;
}

constexpr std::uint32_t kFrameMagic = 0xFD2FB528;
constexpr std::array<unsigned char, 4> kFrameStart{0x28, 0xB5, 0x2F, 0xFD};  // as it is in the file
constexpr std::uint32_t kSkippableMagic = 0x184D2A50;                        // and the 15 behind it

bool is_frame(std::uint32_t magic) {
  return magic == kFrameMagic || (magic & 0xFFFFFFF0) == kSkippableMagic;
}

/// What the file says of a frame.
enum class FrameKind : std::uint8_t { whole, torn, none, unreadable };

/// Looks at the frame that begins at `at` and, if it is whole, moves `at` behind it. Only headers are read (RFC 8878), so
/// that a frame may be of any size; its checksum is for whoever decompresses it.
FrameKind skip_frame(int file, std::uint64_t size, std::uint64_t& at) {
  std::array<unsigned char, 18> header{};
  const auto got = read_at(file, at, header);
  if (got < 0) return FrameKind::unreadable;
  const std::span all(header);
  if (got < 4) {
    const bool begun = std::equal(header.begin(), header.begin() + got, kFrameStart.begin());
    return begun ? FrameKind::torn : FrameKind::none;
  }
  const auto magic = little_endian(all.first(4));
  if (!is_frame(magic)) return FrameKind::none;
  if (got < 5) return FrameKind::torn;
  if (magic != kFrameMagic) {
    const auto end = at + 8 + little_endian(all.subspan(4, 4));
    if (got < 8 || end > size) return FrameKind::torn;
    at = end;
    return FrameKind::whole;
  }
  constexpr std::array<std::uint64_t, 4> kDictionarySize{0, 1, 2, 4};
  constexpr std::array<std::uint64_t, 4> kContentSize{0, 2, 4, 8};
  const unsigned descriptor = header[4];
  const bool single_segment = (descriptor & 0x20U) != 0;
  const bool has_checksum = (descriptor & 0x04U) != 0;
  auto end = at + 5 + kDictionarySize[descriptor & 3U] + kContentSize[descriptor >> 6U] +
             (single_segment ? (descriptor >> 6U == 0 ? 1 : 0) : 1);
  for (bool last = false; !last;) {
    std::array<unsigned char, 3> block{};
    const auto read = read_at(file, end, block);
    if (read < 0) return FrameKind::unreadable;
    if (read < 3) return FrameKind::torn;
    const auto fields = little_endian(block);
    const auto type = fields >> 1U & 3U;
    if (type == 3) return FrameKind::torn;  // reserved: no block
    last = (fields & 1U) != 0;
    end += 3 + (type == 1 ? 1 : fields >> 3U);  // 1: one byte, repeated
  }
  end += has_checksum ? 4 : 0;
  if (end > size) return FrameKind::torn;
  at = end;
  return FrameKind::whole;
}

std::optional<std::uint64_t> end_of_frames(int file, std::uint64_t size) {
  std::uint64_t at = 0;
  while (at < size) {
    const auto before = at;
    switch (skip_frame(file, size, at)) {
      case FrameKind::whole:
        break;
      case FrameKind::none:
        if (before == 0) {
          errno = EILSEQ;
          return std::nullopt;
        }
        return before;
      case FrameKind::torn:
        return before;
      case FrameKind::unreadable:
        return std::nullopt;
    }
  }
  return at;
}

std::optional<std::uint64_t> end_of_lines(int file, std::uint64_t size) {
  std::array<unsigned char, 16'384> block{};
  for (auto end = size; end != 0;) {
    const auto begin = end - std::min<std::uint64_t>(end, block.size());
    const auto wanted = static_cast<std::size_t>(end - begin);
    if (read_at(file, begin, std::span(block).first(wanted)) != static_cast<ssize_t>(wanted)) {
      return std::nullopt;
    }
    const auto found =
        std::string_view(reinterpret_cast<const char*>(block.data()), wanted).rfind('\n');
    if (found != std::string_view::npos) {
      return begin + found + 1;
    }
    end = begin;
  }
  return 0;
}

/// Opens and locks it. Between the two somebody may have given it another name, or removed it: then again.
Descriptor open_locked(const Folder& folder, const std::string& name, LineFile::Origin origin) {
  const int create = origin == LineFile::Origin::anew   ? O_CREAT | O_EXCL
                     : origin == LineFile::Origin::left ? O_CREAT
                                                        : 0;
  // O_NOFOLLOW: in a folder that others may write to, a link could lead anywhere.
  const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | create;
  for (;;) {
    Descriptor file(
        uninterrupted([&] { return ::openat(folder.number(), name.c_str(), flags, 0666); }));
    if (!file.is_open()) {
      if (errno == EEXIST && origin == LineFile::Origin::anew) {
        return file;
      }
      throw_failure(folder.path_of(name), {errno, "open"});
    }
    if (uninterrupted([&] { return ::flock(file.number(), LOCK_EX | LOCK_NB); }) < 0) {
      throw_failure(folder.path_of(name), errno == EWOULDBLOCK
                                              ? Failure{EBUSY, "another process writes it"}
                                              : Failure{errno, "flock"});
    }
    struct stat opened {};
    struct stat named {};
    if (::fstat(file.number(), &opened) < 0) {
      throw_failure(folder.path_of(name), {errno, "fstat"});
    }
    if (!S_ISREG(opened.st_mode)) {
      throw_failure(folder.path_of(name),
                    {S_ISDIR(opened.st_mode) ? EISDIR : EINVAL, "is no regular file"});
    }
    if (::fstatat(folder.number(), name.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
        opened.st_dev == named.st_dev && opened.st_ino == named.st_ino) {
      return file;
    }
  }
}

}  // namespace

std::string describe(const std::string& path, Failure failure) {
  return path + ": " + failure.call + ": " + std::generic_category().message(failure.code);
}

void throw_failure(const std::string& path, Failure failure) {
  throw std::system_error(failure.code, std::generic_category(), path + ": " + failure.call);
}

Descriptor::~Descriptor() {
  if (is_open()) {
    ::close(number_);
  }
}

// ---------------------------------------------------------------------------------- folder

Folder::Folder(std::string path)
    : path_(std::move(path)), folder_(uninterrupted([&] {
        return ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      })) {
  if (!folder_.is_open()) {
    throw_failure(path_, {errno, "open"});
  }
}

std::string Folder::path_of(const std::string& name) const {
  return path_ == "." ? name : path_.ends_with('/') ? path_ + name : path_ + "/" + name;
}

Failure Folder::rename_new(const std::string& from, const std::string& to) const {
#if defined(RENAME_NOREPLACE)
  if (::renameat2(number(), from.c_str(), number(), to.c_str(), RENAME_NOREPLACE) == 0) {
    return {};
  }
  if (errno != EINVAL && errno != ENOSYS) {
    return {errno, "rename"};
  }
#endif
  // Not every file system can do that. A crash in between leaves both names, see is_same().
  if (::linkat(number(), from.c_str(), number(), to.c_str(), 0) < 0) {
    return {errno, "link"};
  }
  const auto failure = remove(from);
  return failure.code == ENOENT ? Failure{} : failure;
}

Failure Folder::rename_over(const std::string& from, const std::string& to) const {
  return outcome(::renameat(number(), from.c_str(), number(), to.c_str()), "rename");
}

Failure Folder::remove(const std::string& name) const {
  return outcome(::unlinkat(number(), name.c_str(), 0), "unlink");
}

Failure Folder::sync() const {
  const auto failure = outcome(uninterrupted([&] { return ::fsync(number()); }), "fsync");
  // Not every file system has something to sync there.
  return failure.code == EINVAL ? Failure{} : failure;
}

bool Folder::has(const std::string& name) const {
  struct stat found {};
  return ::fstatat(number(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0;
}

bool Folder::is_same(const std::string& one, const std::string& other) const {
  struct stat a {};
  struct stat b {};
  return ::fstatat(number(), one.c_str(), &a, AT_SYMLINK_NOFOLLOW) == 0 &&
         ::fstatat(number(), other.c_str(), &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

void Folder::for_each_name(const std::function<void(const std::string&)>& visit) const {
  const auto copy = ::openat(number(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(copy < 0 ? nullptr : ::fdopendir(copy),
                                                    &::closedir);
  if (listing == nullptr) {
    const Descriptor closes(copy);
    throw_failure(path_, {errno, "opendir"});
  }
  errno = 0;
  while (const auto* const entry = ::readdir(listing.get())) {
    visit(entry->d_name);
    errno = 0;
  }
  if (errno != 0) {
    throw_failure(path_, {errno, "readdir"});
  }
}

// ---------------------------------------------------------------------------------- file

std::optional<std::uint64_t> end_of_whole(int file, std::uint64_t size, bool compressed) {
  return compressed ? end_of_frames(file, size) : end_of_lines(file, size);
}

std::optional<LineFile> LineFile::open(const Folder& folder, const std::string& name, Origin origin,
                                       bool compressed) {
  LineFile file(name, open_locked(folder, name, origin), false);
  if (!file.file_.is_open()) {
    return std::nullopt;
  }
  const auto path = folder.path_of(name);
  const auto number = file.file_.number();
  struct stat found {};
  if (::fstat(number, &found) < 0) {
    throw_failure(path, {errno, "fstat"});
  }
  file.size_ = static_cast<std::uint64_t>(found.st_size);
  const auto whole = end_of_whole(number, file.size_, compressed);
  if (!whole) {
    throw_failure(path,
                  errno == EILSEQ ? Failure{EILSEQ, "is no zstd file"} : Failure{errno, "read"});
  }
  if (*whole == file.size_) {
    return file;
  }
  if (origin != Origin::completed) {
    if (const auto failure = file.cut(*whole)) {
      throw_failure(path, failure);
    }
  } else if (compressed) {
    throw_failure(path, {EILSEQ, "does not end with a whole zstd frame"});
  } else {
    bool torn = false;
    if (const auto failure = file.append(std::as_bytes(std::span("\n", 1)), torn)) {
      throw_failure(path, failure);
    }
  }
  return file;
}

LineFile LineFile::open_device(const std::string& path) {
  LineFile file(path, Descriptor(uninterrupted([&] {
                  return ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
                })),
                true);
  if (!file.file_.is_open()) {
    throw_failure(path, {errno, "open"});
  }
  return file;
}

Failure LineFile::append(std::span<const std::byte> bytes, bool& torn) {
  torn = false;
  if (rest_) {
    if (const auto failure = cut(size_)) {
      return failure;
    }
  }
  std::size_t written = 0;
  if (const auto failure = write_all(file_.number(), device_, size_, bytes, written)) {
    if (device_) {
      torn = written != 0;
      size_ += written;
    } else {
      static_cast<void>(cut(size_));  // or next time
    }
    return failure;
  }
  size_ += bytes.size();
  return {};
}

Failure LineFile::cut(std::uint64_t size) {
  size_ = size;
  synced_ = std::min(synced_, size);
  const auto failure = cut_file(file_.number(), size);
  rest_ = static_cast<bool>(failure);
  return failure;
}

Failure LineFile::sync() {
  if (!device_ && synced_ != size_) {
    const auto file = file_.number();
#if defined(__linux__)
    const auto failure = outcome(uninterrupted([&] { return ::fdatasync(file); }), "fdatasync");
#else
    const auto failure = outcome(uninterrupted([&] { return ::fsync(file); }), "fsync");
#endif
    if (failure) {
      return failure;
    }
    synced_ = size_;
  }
  return {};
}

Failure LineFile::sync_with_name(const Folder& folder) {
  if (const auto failure = sync()) {
    return failure;
  }
  if (!device_ && !name_synced_) {
    if (const auto failure = folder.sync()) {
      return failure;
    }
    name_synced_ = true;
  }
  return {};
}

}  // namespace shard::detail
