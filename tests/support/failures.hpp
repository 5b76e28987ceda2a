#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace shard_test {

/// Checks for threads, whose failures the test looks at after it has joined them: Catch2's own are for one
/// thread.
/// Threads: any.
class Failures {
 public:
  /// \param what  a literal
  bool check(bool condition, const char* what) noexcept {
    if (!condition) {
      const char* none = nullptr;
      first_.compare_exchange_strong(none, what);
      ++count_;
    }
    return condition;
  }

  /// Empty when every check held.
  [[nodiscard]] std::string text() const {
    const char* first = first_.load();
    return first == nullptr
               ? std::string()
               : std::string(first) + " (" + std::to_string(count_.load()) + " failures in all)";
  }

 private:
  std::atomic<const char*> first_{nullptr};
  std::atomic<std::uint64_t> count_{0};
};

}  // namespace shard_test
