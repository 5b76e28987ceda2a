#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "descriptor.hpp"

namespace shard_test {

/// How a program ended and what it said.
struct Ended {
  int status = 0;  ///< its exit status; 128 + n if signal n killed it
  std::string out = {};
  std::string error = {};
};

/// shard-ingest as a process.
class Program {
 public:
  struct Setup {
    bool has_input = false;  ///< standard input is a pipe: see give(); else it is empty
    bool is_read = false;    ///< standard output is a pipe: see read_line(); else it is in Ended
    rlim_t file_size = RLIM_INFINITY;  ///< of the files that it writes
    int closed = -1;                   ///< a descriptor that it does not get
  };

  explicit Program(std::vector<std::string> arguments) : Program(std::move(arguments), Setup{}) {}
  Program(std::vector<std::string> arguments, Setup setup)
      : error_(::memfd_create("stderr", MFD_CLOEXEC)) {
    arguments.insert(arguments.begin(), SHARD_INGEST);
    std::vector<char*> argv;
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);

    ingest::Descriptor input(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    ingest::Descriptor output(::memfd_create("stdout", MFD_CLOEXEC));
    if (setup.has_input) std::tie(input, in_) = pipe();
    if (setup.is_read) {
      std::tie(out_, output) = pipe();
    } else {
      out_ = ingest::Descriptor(::fcntl(output.get(), F_DUPFD_CLOEXEC, 0));
    }
    is_read_ = setup.is_read;

    child_ = ::fork();
    if (child_ < 0) throw std::runtime_error("fork failed");
    if (child_ == 0) {
      const rlimit limit{setup.file_size, setup.file_size};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      ::dup2(input.get(), STDIN_FILENO);
      ::dup2(output.get(), STDOUT_FILENO);
      ::dup2(error_.get(), STDERR_FILENO);
      if (setup.closed >= 0) ::close(setup.closed);
      ::execv(argv[0], argv.data());
      ::_exit(126);
    }
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
  }

  void give(std::string_view text) const {
    while (!text.empty()) {
      const auto wrote = ::write(in_.get(), text.data(), text.size());
      if (wrote < 0) throw std::runtime_error("the program does not read its input");
      text.remove_prefix(static_cast<std::size_t>(wrote));
    }
  }
  void end_input() { in_ = ingest::Descriptor(); }

  /// The next line of standard output, waited for; nothing at the end.
  std::optional<std::string> read_line() {
    for (;;) {
      if (const auto end = read_.find('\n'); end != std::string::npos) {
        auto line = read_.substr(0, end);
        read_.erase(0, end + 1);
        return line;
      }
      std::array<char, 4'096> bytes{};
      const auto got = ::read(out_.get(), bytes.data(), bytes.size());
      if (got <= 0) return std::nullopt;
      read_.append(bytes.data(), static_cast<std::size_t>(got));
    }
  }
  /// Nobody reads standard output any more.
  void stop_reading() { out_ = ingest::Descriptor(); }

  void signal(int number) const { ::kill(child_, number); }

  /// Reads what it still says, unless it is to end without that, and waits for its end.
  Ended wait(bool reads = true) {
    Ended ended;
    if (reads && is_read_ && out_.get() >= 0) {
      while (const auto line = read_line()) ended.out += *line + "\n";
    }
    int state = 0;
    while (::waitpid(child_, &state, 0) < 0 && errno == EINTR) {
    }
    child_ = -1;
    ended.status = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    if (!is_read_) ended.out = content(out_.get());
    ended.error = content(error_.get());
    return ended;
  }

 private:
  static std::pair<ingest::Descriptor, ingest::Descriptor> pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
    return {ingest::Descriptor(ends[0]), ingest::Descriptor(ends[1])};
  }
  static std::string content(int file) {
    std::string text(static_cast<std::size_t>(::lseek(file, 0, SEEK_END)), '\0');
    const auto got = ::pread(file, text.data(), text.size(), 0);
    if (got != static_cast<ssize_t>(text.size())) throw std::runtime_error("cannot read");
    return text;
  }

  pid_t child_ = -1;
  ingest::Descriptor in_;
  ingest::Descriptor out_;
  ingest::Descriptor error_;
  bool is_read_ = false;
  std::string read_;
};

/// Runs it to its end.
inline Ended run_program(std::vector<std::string> arguments, Program::Setup setup = {}) {
  return Program(std::move(arguments), setup).wait();
}

}  // namespace shard_test
