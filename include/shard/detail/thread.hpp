#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string_view>

#include "shard/detail/export.hpp"

namespace shard::detail {

/// While it lives the calling thread, and the threads that it starts, get no signals.
class SHARD_EXPORT SignalsBlocked {
 public:
  SignalsBlocked() noexcept;
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked();

 private:
  alignas(std::max_align_t) std::array<std::byte, 128> before_;  ///< a sigset_t
};

/// Names the calling thread `name-number`, cut to what the system allows. Nothing where it has no such names.
SHARD_EXPORT void name_this_thread(std::string_view name, std::size_t number) noexcept;

/// Binds the calling thread to one processor, where the system can.
SHARD_EXPORT void bind_this_thread(unsigned processor) noexcept;

/// The first of `processors` that this process may not use, or nullptr.
[[nodiscard]] SHARD_EXPORT const unsigned* find_forbidden(
    std::span<const unsigned> processors) noexcept;

}  // namespace shard::detail
