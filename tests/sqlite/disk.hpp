#pragma once

#include <sqlite3.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

namespace shard_test {

/// A layer between SQLite and the system (a VFS), where a disk can fail and lose its power, for databases that are
/// opened with its uri().
/// Threads: any; made and destroyed while no database is open on it.
class Disk {
 public:
  explicit Disk(const char* name) : name_(name), real_(sqlite3_vfs_find(nullptr)), vfs_(*real_) {
    vfs_.pNext = nullptr;
    vfs_.zName = name;
    vfs_.pAppData = this;
    vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_->szOsFile;
    vfs_.xOpen = &Disk::open;
    vfs_.xDelete = &Disk::remove;
    if (sqlite3_vfs_register(&vfs_, 0) != SQLITE_OK) throw std::runtime_error("vfs_register");
  }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;
  ~Disk() { sqlite3_vfs_unregister(&vfs_); }

  /// The name of a database on it.
  [[nodiscard]] std::string uri(const std::string& path) const {
    return "file:" + path + "?vfs=" + name_;
  }

  std::atomic<int> write_answer{
      SQLITE_OK};  ///< what each write answers, doing nothing, if it is an error
  std::atomic<int> sync_answer{SQLITE_OK};
  /// The process ends in the middle of the write of this number, counted from 1.
  std::atomic<long> exit_at_write{0};

  /// What a power failure would leave of each file: what was synced.
  [[nodiscard]] std::map<std::string, std::string> after_power_failure() {
    const std::lock_guard lock(mutex_);
    return synced_;
  }

 private:
  /// SQLite reserves room for the real file behind it.
  struct File {
    sqlite3_file base;
    Disk* disk;
    const char* path;  // nullptr for a temporary file
  };

  static Disk& disk_of(sqlite3_vfs* vfs) noexcept { return *static_cast<Disk*>(vfs->pAppData); }
  static File* own(sqlite3_file* file) noexcept { return reinterpret_cast<File*>(file); }
  static sqlite3_file* real(sqlite3_file* file) noexcept {
    return reinterpret_cast<sqlite3_file*>(own(file) + 1);
  }
  static const sqlite3_io_methods& real_methods(sqlite3_file* file) noexcept {
    return *real(file)->pMethods;
  }

  static int open(sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags,
                  int* out_flags) {
    auto& disk = disk_of(vfs);
    own(file)->base.pMethods = nullptr;
    own(file)->disk = &disk;
    own(file)->path = path;
    const int code = disk.real_->xOpen(disk.real_, path, real(file), flags, out_flags);
    if (code == SQLITE_OK) {
      own(file)->base.pMethods = methods();
    }
    return code;
  }

  static int remove(sqlite3_vfs* vfs, const char* path, int sync) {
    auto& disk = disk_of(vfs);
    {
      const std::lock_guard lock(disk.mutex_);
      disk.synced_.erase(path);
    }
    return disk.real_->xDelete(disk.real_, path, sync);
  }

  static int write(sqlite3_file* file, const void* bytes, int size, sqlite3_int64 offset) {
    auto& disk = *own(file)->disk;
    if (const int answer = disk.write_answer; answer != SQLITE_OK) return answer;
    if (disk.exit_at_write != 0 && --disk.exit_at_write == 0) {
      real_methods(file).xWrite(real(file), bytes, size / 2, offset);
      ::_exit(EXIT_SUCCESS);
    }
    return real_methods(file).xWrite(real(file), bytes, size, offset);
  }

  static int sync(sqlite3_file* file, int flags) {
    auto& disk = *own(file)->disk;
    if (const int answer = disk.sync_answer; answer != SQLITE_OK) return answer;
    const int code = real_methods(file).xSync(real(file), flags);
    if (code != SQLITE_OK || own(file)->path == nullptr) return code;
    sqlite3_int64 size = 0;
    real_methods(file).xFileSize(real(file), &size);
    std::string content(static_cast<std::size_t>(size), '\0');
    real_methods(file).xRead(real(file), content.data(), static_cast<int>(size), 0);
    const std::lock_guard lock(disk.mutex_);
    disk.synced_[own(file)->path] = content;
    return code;
  }

  static const sqlite3_io_methods* methods() {
    static const sqlite3_io_methods methods = [] {
      sqlite3_io_methods m{};
      m.iVersion = 2;  // with shared memory, which WAL needs
      m.xClose = [](sqlite3_file* f) { return real_methods(f).xClose(real(f)); };
      m.xRead = [](sqlite3_file* f, void* to, int size, sqlite3_int64 offset) {
        return real_methods(f).xRead(real(f), to, size, offset);
      };
      m.xWrite = &Disk::write;
      m.xTruncate = [](sqlite3_file* f, sqlite3_int64 size) {
        return real_methods(f).xTruncate(real(f), size);
      };
      m.xSync = &Disk::sync;
      m.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) {
        return real_methods(f).xFileSize(real(f), size);
      };
      m.xLock = [](sqlite3_file* f, int lock) { return real_methods(f).xLock(real(f), lock); };
      m.xUnlock = [](sqlite3_file* f, int lock) { return real_methods(f).xUnlock(real(f), lock); };
      m.xCheckReservedLock = [](sqlite3_file* f, int* out) {
        return real_methods(f).xCheckReservedLock(real(f), out);
      };
      m.xFileControl = [](sqlite3_file* f, int which, void* argument) {
        return real_methods(f).xFileControl(real(f), which, argument);
      };
      m.xSectorSize = [](sqlite3_file* f) { return real_methods(f).xSectorSize(real(f)); };
      m.xDeviceCharacteristics = [](sqlite3_file* f) {
        return real_methods(f).xDeviceCharacteristics(real(f));
      };
      m.xShmMap = [](sqlite3_file* f, int page, int size, int extend, void volatile** out) {
        return real_methods(f).xShmMap(real(f), page, size, extend, out);
      };
      m.xShmLock = [](sqlite3_file* f, int offset, int count, int flags) {
        return real_methods(f).xShmLock(real(f), offset, count, flags);
      };
      m.xShmBarrier = [](sqlite3_file* f) { real_methods(f).xShmBarrier(real(f)); };
      m.xShmUnmap = [](sqlite3_file* f, int remove_it) {
        return real_methods(f).xShmUnmap(real(f), remove_it);
      };
      return m;
    }();
    return &methods;
  }

  const std::string name_;
  sqlite3_vfs* real_;
  sqlite3_vfs vfs_;
  std::mutex mutex_;
  std::map<std::string, std::string> synced_;  ///< the content of each file at its last sync
};

}  // namespace shard_test
