#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <iostream>
#include <mutex>
#include <string>
#include <string_view>

namespace ingest {

/// Standard error: messages, and on a terminal a last line that changes.
///
/// Threads: any.
class Terminal {
 public:
  explicit Terminal(bool shows_progress)
      : shows_progress_(shows_progress && ::isatty(STDERR_FILENO) == 1) {}

  [[nodiscard]] bool shows_progress() const noexcept { return shows_progress_; }

  void say(std::string_view message) {
    const std::lock_guard lock(mutex_);
    erase();
    std::cerr << "shard-ingest: " << message << std::endl;
  }

  /// Cut to the width: a line that wraps could not be taken back.
  void show(std::string line) {
    winsize size{};
    if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 &&
        line.size() >= size.ws_col) {
      line.resize(size.ws_col - 1U);
    }
    const std::lock_guard lock(mutex_);
    std::cerr << '\r' << line << "\x1b[K" << std::flush;
    is_shown_ = true;
  }
  void end() {
    const std::lock_guard lock(mutex_);
    erase();
  }

  /// The last words: whoever holds the lock may hold it for ever, as standard error may be stuck.
  void say_at_last(const std::string& message) {
    const std::unique_lock tried(mutex_, std::try_to_lock);
    const auto text = "\nshard-ingest: " + message + "\n";
    [[maybe_unused]] const auto wrote = ::write(STDERR_FILENO, text.data(), text.size());
  }

 private:
  void erase() {
    if (is_shown_) std::cerr << "\r\x1b[K" << std::flush;
    is_shown_ = false;
  }

  const bool shows_progress_;
  std::mutex mutex_;
  bool is_shown_ = false;  // guarded by mutex_
};

}  // namespace ingest
