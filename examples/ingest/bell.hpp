#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <system_error>

#include "descriptor.hpp"

namespace ingest {

/// Something that threads can wait for together with other descriptors.
///
/// Threads: any.
class Bell {
 public:
  /// Throws std::system_error.
  Bell() : descriptor_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (descriptor_.get() < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  }
  /// Can be read after ring().
  [[nodiscard]] int descriptor() const noexcept { return descriptor_.get(); }

  void ring() const noexcept {
    const std::uint64_t one = 1;
    // Fails only if it has rung 2^64 times without being heard.
    [[maybe_unused]] const auto wrote = ::write(descriptor_.get(), &one, sizeof one);
  }
  /// Silences it.
  void hear() const noexcept {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(descriptor_.get(), &count, sizeof count);
  }
  void wait_for(std::chrono::milliseconds time) const noexcept {
    pollfd watched{descriptor_.get(), POLLIN, 0};
    ::poll(&watched, 1, static_cast<int>(time.count()));
  }

 private:
  Descriptor descriptor_;
};

}  // namespace ingest
