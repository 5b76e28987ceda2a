#include "shard/detail/thread.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <new>
#endif

namespace shard::detail {

SignalsBlocked::SignalsBlocked() noexcept : before_{} {
#if defined(__linux__)
  static_assert(sizeof(sigset_t) <= sizeof before_);
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, new (before_.data()) sigset_t);
#endif
}

SignalsBlocked::~SignalsBlocked() {
#if defined(__linux__)
  pthread_sigmask(SIG_SETMASK, std::launder(reinterpret_cast<sigset_t*>(before_.data())), nullptr);
#endif
}

void name_this_thread([[maybe_unused]] std::string_view name,
                      [[maybe_unused]] std::size_t number) noexcept {
#if defined(__linux__)
  std::array<char, 24> digits{};
  const auto written = std::snprintf(digits.data(), digits.size(), "-%zu", number);
  const auto suffix = static_cast<std::size_t>(std::max(written, 0));
  std::array<char, 16> text{};  // the system's limit, with the end
  const auto keep = std::min(name.size(), text.size() - 1 - std::min(suffix, text.size() - 1));
  auto* const end = std::copy_n(name.begin(), keep, text.begin());
  std::copy_n(digits.begin(), std::min(suffix, text.size() - 1 - keep), end);
  pthread_setname_np(pthread_self(), text.data());
#endif
}

void bind_this_thread([[maybe_unused]] unsigned processor) noexcept {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
#endif
}

const unsigned* find_forbidden([[maybe_unused]] std::span<const unsigned> processors) noexcept {
#if defined(__linux__)
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    for (const auto& processor : processors) {
      if (processor >= CPU_SETSIZE || !CPU_ISSET(processor, &allowed)) {
        return &processor;
      }
    }
  }
#endif
  return nullptr;
}

}  // namespace shard::detail
