#include "jsonl/system_faults.hpp"

#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>

namespace shard_test {

SystemFaults system_faults;

namespace {

template <class... Argument>
int fail_or_call(int code, long number, Argument... arguments) {
  if (code != 0) {
    errno = code;
    return -1;
  }
  return static_cast<int>(::syscall(number, arguments...));
}

}  // namespace
}  // namespace shard_test

using shard_test::fail_or_call;
using shard_test::system_faults;

extern "C" {

int fdatasync(int file) { return fail_or_call(system_faults.fdatasync, SYS_fdatasync, file); }

int ftruncate(int file, off_t size) noexcept {
  return fail_or_call(system_faults.ftruncate, SYS_ftruncate, file, size);
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to,
              unsigned flags) noexcept {
  return fail_or_call(system_faults.renameat2, SYS_renameat2, from_folder, from, to_folder, to,
                      flags);
}

int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) noexcept {
  return fail_or_call(system_faults.linkat, SYS_linkat, from_folder, from, to_folder, to, flags);
}

int openat(int folder, const char* name, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const auto mode = va_arg(arguments, mode_t);  // not looked at unless O_CREAT is among the flags
  va_end(arguments);
  return fail_or_call(system_faults.openat, SYS_openat, folder, name, flags, mode);
}
}
