#pragma once

#include <signal.h>
#include <sys/resource.h>

namespace shard_test {

/// While it lives, what a signal would say is an error of the call instead.
class SignalIgnored {
 public:
  explicit SignalIgnored(int signal) : signal_(signal), before_(::signal(signal, SIG_IGN)) {}
  SignalIgnored(const SignalIgnored&) = delete;
  SignalIgnored& operator=(const SignalIgnored&) = delete;
  ~SignalIgnored() { ::signal(signal_, before_); }

 private:
  int signal_;
  void (*before_)(int);
};

/// While it lives, no file of this process grows beyond a size: a disk that is full in the middle of a write.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t size) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{size, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  SignalIgnored ignored_{SIGXFSZ};
  rlimit before_{};
};

}  // namespace shard_test
