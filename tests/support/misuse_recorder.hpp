#pragma once

#include <atomic>
#include <cstddef>
#include <string>

#include "shard/detail/check.hpp"

namespace shard_test {

/// While it lives, misuse that debug-build checks find is counted instead of aborting. One at a time.
/// Threads: any may misuse; made, read and destroyed by the test.
class MisuseRecorder {
 public:
  MisuseRecorder() {
    count_ = 0;
    last_ = "";
    before_ = shard::set_misuse_handler(&record);
  }
  MisuseRecorder(const MisuseRecorder&) = delete;
  MisuseRecorder& operator=(const MisuseRecorder&) = delete;
  ~MisuseRecorder() { shard::set_misuse_handler(before_); }

  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  [[nodiscard]] std::string last() const { return last_.load(); }

 private:
  static void record(const char* what) {
    last_ = what;
    ++count_;
  }

  static inline std::atomic<std::size_t> count_{0};
  static inline std::atomic<const char*> last_{""};  // the checks pass literals
  shard::MisuseHandler before_ = nullptr;
};

}  // namespace shard_test
