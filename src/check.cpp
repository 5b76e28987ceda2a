#include "shard/detail/check.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace shard {

namespace {

void report_and_abort(const char* what) {
  std::fprintf(stderr, "shard: misuse: %s\n", what);
  std::abort();
}

std::atomic<MisuseHandler> g_handler{&report_and_abort};

}  // namespace

MisuseHandler set_misuse_handler(MisuseHandler handler) noexcept {
  return g_handler.exchange(handler == nullptr ? &report_and_abort : handler);
}

namespace detail {

constinit thread_local bool t_in_with_shard = false;
constinit thread_local const void* t_worker_of = nullptr;

void misuse(const char* what) { g_handler.load()(what); }

}  // namespace detail
}  // namespace shard
