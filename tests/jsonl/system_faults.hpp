#pragma once

namespace shard_test {

/// System calls that fail in this program when a test says so: it has functions of these names that come before the C
/// library's. Errno for the calls from now on, 0: none fails.
/// Threads: one.
struct SystemFaults {
  int fdatasync = 0;
  int ftruncate = 0;
  int renameat2 = 0;
  int linkat = 0;
  int openat = 0;
};

extern SystemFaults system_faults;

/// None fails any more when the test is over.
struct FaultsEnd {
  FaultsEnd() = default;
  FaultsEnd(const FaultsEnd&) = delete;
  FaultsEnd& operator=(const FaultsEnd&) = delete;
  ~FaultsEnd() { system_faults = {}; }
};

}  // namespace shard_test
