# Finds the header xxhash.h and nothing else: shard inlines the hash (XXH_INLINE_ALL) and links no xxHash.
# Defines xxHash::header. Set xxHash_INCLUDE_DIR to use a copy outside the usual places.
find_path(xxHash_INCLUDE_DIR xxhash.h)
mark_as_advanced(xxHash_INCLUDE_DIR)

if(xxHash_INCLUDE_DIR)
  foreach(part IN ITEMS MAJOR MINOR RELEASE)
    file(STRINGS ${xxHash_INCLUDE_DIR}/xxhash.h line REGEX "^#define XXH_VERSION_${part} +[0-9]+")
    string(REGEX MATCH "[0-9]+" xxHash_VERSION_${part} "${line}")
  endforeach()
  set(xxHash_VERSION ${xxHash_VERSION_MAJOR}.${xxHash_VERSION_MINOR}.${xxHash_VERSION_RELEASE})
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(xxHash
  REQUIRED_VARS xxHash_INCLUDE_DIR
  VERSION_VAR xxHash_VERSION)

if(xxHash_FOUND AND NOT TARGET xxHash::header)
  add_library(xxHash::header INTERFACE IMPORTED)
  target_include_directories(xxHash::header INTERFACE ${xxHash_INCLUDE_DIR})
endif()
