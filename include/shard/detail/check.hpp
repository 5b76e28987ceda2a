#pragma once

#include "shard/detail/export.hpp"

namespace shard {

/// Called with a description when a debug-build check finds that the library is misused (two
/// threads at the same end of a ring, a manager called from within with_shard()).
using MisuseHandler = void (*)(const char* what);

/// Replaces the handler, for tests and for hosts with an assertion facility of their own; nullptr
/// restores the default, which writes one line to stderr and aborts, as assert() does.
/// Threads: any. Returns the handler that was in place.
SHARD_EXPORT MisuseHandler set_misuse_handler(MisuseHandler handler) noexcept;

namespace detail {

// Checks follow the NDEBUG of the code that they are compiled into. They read and write state that
// every build has, so no type changes its layout with them.
#if defined(NDEBUG)
inline constexpr bool kDebugChecks = false;
#else
inline constexpr bool kDebugChecks = true;
#endif

SHARD_EXPORT void misuse(const char* what);

inline void expects(bool condition, const char* what) {
  if constexpr (kDebugChecks) {
    if (!condition) {
      misuse(what);
    }
  } else {
    (void)condition;
    (void)what;
  }
}

/// Whether this thread runs the closure of a with_shard(). Kept in every build, looked at in debug builds.
SHARD_EXPORT extern constinit thread_local bool t_in_with_shard;

class InWithShard {
 public:
  InWithShard() noexcept { t_in_with_shard = true; }
  InWithShard(const InWithShard&) = delete;
  InWithShard& operator=(const InWithShard&) = delete;
  ~InWithShard() { t_in_with_shard = false; }
};

/// Locks are held there, so a call into any manager could wait for itself or for another such thread.
inline void check_not_in_with_shard() {
  if constexpr (kDebugChecks) {
    expects(!t_in_with_shard, "a manager was called from within with_shard()");
  }
}

/// The manager whose events this thread delivers, while it does: it must not wait for itself.
SHARD_EXPORT extern constinit thread_local const void* t_worker_of;

[[nodiscard]] inline bool is_worker_of(const void* manager) noexcept {
  return t_worker_of == manager;
}

class WorkerScope {
 public:
  explicit WorkerScope(const void* manager) noexcept : outer_(t_worker_of) {
    t_worker_of = manager;
  }
  WorkerScope(const WorkerScope&) = delete;
  WorkerScope& operator=(const WorkerScope&) = delete;
  ~WorkerScope() { t_worker_of = outer_; }

 private:
  const void* const outer_;  // a host may drive one pipeline from within the adapter of another
};

}  // namespace detail
}  // namespace shard
