#pragma once

/// \file
/// The version of the headers. CMake reads it from here, so that there is one place to change.

#define SHARD_VERSION_MAJOR 0
#define SHARD_VERSION_MINOR 1
#define SHARD_VERSION_PATCH 0
