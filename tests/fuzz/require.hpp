#pragma once

#include <cstdio>
#include <cstdlib>

/// What a fuzzer checks: libFuzzer keeps the input of a process that ends so.
#define REQUIRE_THAT(condition)                                                    \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                \
    }                                                                              \
  } while (false)
