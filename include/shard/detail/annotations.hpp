#pragma once

// Names for Clang's thread safety analysis (-Wthread-safety); nothing for other compilers.
// https://clang.llvm.org/docs/ThreadSafetyAnalysis.html
#if defined(__clang__)
#define SHARD_TSA(x) __attribute__((x))
#else
#define SHARD_TSA(x)
#endif

#define SHARD_CAPABILITY(name) SHARD_TSA(capability(name))
#define SHARD_SCOPED_CAPABILITY SHARD_TSA(scoped_lockable)
#define SHARD_GUARDED_BY(lock) SHARD_TSA(guarded_by(lock))
#define SHARD_ACQUIRED_BEFORE(...) SHARD_TSA(acquired_before(__VA_ARGS__))
#define SHARD_REQUIRES(...) SHARD_TSA(requires_capability(__VA_ARGS__))
#define SHARD_ACQUIRE(...) SHARD_TSA(acquire_capability(__VA_ARGS__))
#define SHARD_TRY_ACQUIRE(...) SHARD_TSA(try_acquire_capability(__VA_ARGS__))
#define SHARD_RELEASE(...) SHARD_TSA(release_capability(__VA_ARGS__))
#define SHARD_EXCLUDES(...) SHARD_TSA(locks_excluded(__VA_ARGS__))
#define SHARD_NO_THREAD_SAFETY_ANALYSIS SHARD_TSA(no_thread_safety_analysis)

// Hot and cold paths, where the compiler cannot know.
#if defined(__GNUC__)
#define SHARD_NOINLINE __attribute__((noinline, cold))
#define SHARD_ALWAYS_INLINE inline __attribute__((always_inline))
#define SHARD_FLATTEN __attribute__((flatten))  // all that it calls is inlined, as far as it may be
#else
#define SHARD_NOINLINE
#define SHARD_ALWAYS_INLINE inline
#define SHARD_FLATTEN
#endif
