#pragma once

// SHARD_SHARED is defined for the library and for whoever links it when it is built shared,
// SHARD_BUILDING only while it is built. Everything else is hidden.
#if defined(SHARD_SHARED) && defined(__GNUC__)
#define SHARD_EXPORT __attribute__((visibility("default")))
#else
#define SHARD_EXPORT
#endif
