#include "jsonl_file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>

#include "jsonl_whole.hpp"

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
  // Only threads that read the same listing race, and nobody else has this one.
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  while (const auto* const entry = ::readdir(listing.get())) {
    visit(entry->d_name);
    errno = 0;
  }
  if (errno != 0) {
    throw_failure(path_, {errno, "readdir"});
  }
}

// ---------------------------------------------------------------------------------- file

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
