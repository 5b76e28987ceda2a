#include "run.hpp"

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "bell.hpp"
#include "exit_status.hpp"
#include "input_file.hpp"
#include "readers.hpp"
#include "rejects.hpp"
#include "report.hpp"
#include "shard/pipeline.hpp"
#include "sink.hpp"
#include "terminal.hpp"

namespace ingest {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;

/// SIGINT, SIGTERM and SIGHUP as something to poll, but for those that whoever started the program had it ignore. Made before
/// any thread that does not block them itself, for they inherit what is blocked.
class Signals {
 public:
  Signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
      struct sigaction action {};
      ::sigaction(number, nullptr, &action);
      if (action.sa_handler != SIG_IGN) sigaddset(&set, number);
    }
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    descriptor_ = Descriptor(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (descriptor_.get() < 0) throw std::system_error(errno, std::generic_category(), "signalfd");
  }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_.get(); }
  /// The next one, or 0.
  [[nodiscard]] int take() const noexcept {
    signalfd_siginfo info{};
    return ::read(descriptor_.get(), &info, sizeof info) == sizeof info
               ? static_cast<int>(info.ssi_signo)
               : 0;
  }

 private:
  Descriptor descriptor_;
};

/// Two names of one file, or of one that is not there yet? What is no regular file may be written by several.
bool is_same_file(const std::string& a, const std::string& b) {
  struct stat of_a {};
  struct stat of_b {};
  if (::stat(a.c_str(), &of_a) == 0 && ::stat(b.c_str(), &of_b) == 0) {
    return S_ISREG(of_a.st_mode) && of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
  }
  std::error_code failed;
  return std::filesystem::weakly_canonical(a, failed) ==
         std::filesystem::weakly_canonical(b, failed);
}

/// One run, from opened inputs to the report.
class Run {
 public:
  explicit Run(const Options& options)
      : options_(options),
        terminal_(!options.quiet && !(options.to == "stdout:" && ::isatty(STDOUT_FILENO) == 1)),
        readers_(options, rejects_, [this](const std::string& error) { terminal_.say(error); }),
        watch_([this] { bell_.ring(); }),
        sink_(make_sink_beside_others()),
        pipeline_(pipeline_options(), std::move(sink_.adapter)) {}

  int operator()() {
    // Not before: until here a signal has nothing to wait for.
    const Signals signals;
    signals_ = &signals;
    note_shards();
    readers_.start(pipeline_, [this] { bell_.ring(); });
    while (!readers_.is_done()) {
      wait();
      if (should_stop()) break;
    }
    std::thread closer([this] {
      close();
      readers_.join();
      is_over_ = true;
      bell_.ring();
    });
    while (!is_over_ && !is_overdue()) wait();
    if (is_over_) closer.join();
    terminal_.end();
    const int status = report();
    if (!is_over_ || close_report_.abandoned_threads != 0) {
      std::cout.flush();
      std::_Exit(status);  // whoever did not come back refers to what would be destroyed here
    }
    return status;
  }

 private:
  static constexpr std::chrono::milliseconds kTick{100};

  /// Nothing that is written may be what is read, or what something else is written to. Then everything is opened: the
  /// inputs are already.
  Sink make_sink_beside_others() {
    std::vector<std::pair<std::string, std::string>> files;  // what for, path
    for (const auto& path : options_.inputs) {
      if (path != "-") files.emplace_back("an input", path);
    }
    const auto add = [&](const std::string& what, const std::string& path) {
      if (path.empty()) return;
      for (const auto& [other, its_path] : files) {
        if (is_same_file(path, its_path)) {
          throw shard::ConfigError(what, path, "another file than " + other);
        }
      }
      files.emplace_back(what, path);
    };
    add("to", sink_path(options_));
    add("rejects", options_.rejects);
    add("report", options_.report);

    rejects_.open(options_.rejects);
    if (!options_.report.empty()) {
      report_file_.open(options_.report);
      if (!report_file_) {
        throw std::runtime_error(options_.report +
                                 " cannot be written: " + std::generic_category().message(errno));
      }
    }
    return make_sink(options_, watch_);
  }

  shard::PipelineOptions pipeline_options() {
    auto made = options_.pipeline;
    made.dead_letters = [this](const shard::Batch& batch, const shard::DeadLetter& why) {
      const auto reason = std::string(to_string(why.cause)).append(": ").append(why.reason.text());
      for (const auto event : batch) {
        std::optional<Place> place;
        if (event.source) place = Place{event.source->source, event.source->position, 0};
        rejects_.add(place, reason, event.text());
      }
      // Refused event by event, the sink is as good as before; one that does not come back is not.
      if (why.cause != shard::DeadLetterCause::refused) watch_.fail(std::string(why.reason.text()));
    };
    made.listener = [this](const shard::Notice& notice) {
      if (options_.quiet || notice.kind == shard::NoticeKind::scaled_up ||
          notice.kind == shard::NoticeKind::scaled_down) {
        return;  // the report has those
      }
      std::string text(to_string(notice.kind));
      std::replace(text.begin(), text.end(), '_', ' ');
      if (!notice.reason.empty()) text.append(": ").append(notice.reason.text());
      terminal_.say(text);
    };
    return made;
  }

  /// Until something rings, a signal comes, or it is time to look again.
  void wait() {
    std::array<pollfd, 2> watched{
        {{signals_->descriptor(), POLLIN, 0}, {bell_.descriptor(), POLLIN, 0}}};
    ::poll(watched.data(), watched.size(), static_cast<int>(kTick.count()));
    bell_.hear();
    if (const int signal = signals_->take(); signal != 0) {
      if (signal_) end_at_once();
      signal_ = signal;
      stop_by_ = Clock::now() + options_.deadline;
      has_deadline_ = true;
      readers_.request_stop();
    }
    note_shards();
    if (terminal_.shows_progress()) terminal_.show(to_text(progress()));
  }

  [[nodiscard]] bool should_stop() {
    if (!watch_.has_failed()) return signal_.has_value();
    readers_.request_stop();
    return true;
  }

  /// On a thread of its own, so that a second signal is heard. Ends within the deadline once there is one.
  void close() {
    constexpr std::chrono::milliseconds kAtATime{200};
    if (!has_deadline_ && !watch_.has_failed()) {
      while (!has_deadline_ && !watch_.has_failed() &&
             pipeline_.flush(kAtATime).status == shard::FlushStatus::timed_out) {
      }
    } else {
      // What they have in hand gets in if the sink moves at all; half of the time for that.
      const auto patience = Clock::now() + options_.deadline / 2;
      while (!readers_.is_done() && !watch_.has_failed() && Clock::now() < patience) {
        std::this_thread::sleep_for(std::chrono::milliseconds{5});
      }
    }
    // Without a signal all that is left to do is what the sink does to close.
    const auto left = has_deadline_
                          ? std::max<nanoseconds>(stop_by_.load() - Clock::now(), nanoseconds{0})
                      : watch_.has_failed() ? options_.deadline
                                            : std::max<nanoseconds>(options_.deadline, kToClose);
    close_report_ = pipeline_.close(left);
    is_closed_ = true;
  }

  /// All is delivered or told, but a reader has not come back: from a file system that does not answer, or from writing to
  /// --rejects.
  [[nodiscard]] bool is_overdue() const {
    constexpr std::chrono::seconds kGrace{1};
    return has_deadline_ && is_closed_ && Clock::now() > stop_by_.load() + kGrace;
  }

  [[noreturn]] void end_at_once() {
    const auto ledger = pipeline_.ledger();
    terminal_.say_at_last("ended at once: " + grouped(ledger.delivered) + " delivered, " +
                          grouped(ledger.queued + ledger.batched) + " accepted and not delivered");
    std::_Exit(kLost);
  }

  int report() {
    Report report;
    report.to = options_.to;
    report.files = readers_.files();
    report.read = readers_.counts();
    report.stats = pipeline_.stats();
    // Not that of the report, if the readers have come back since: what they had in hand was refused.
    report.stats.ledger = is_over_ ? pipeline_.ledger() : close_report_.ledger;
    report.largest_batch = watch_.largest_batch();
    report.shards = shards_;
    if (sink_.counts) report.sink = sink_.counts();
    report.took = Clock::now() - started_;
    report.signal = signal_;

    bool is_lost = has_losses(report.read, report.stats.ledger);
    bool is_unusable = false;
    if (is_over_) {
      report.first_rejects = rejects_.first();
      report.problems = readers_.errors();
      is_unusable = !report.problems.empty();
      if (!rejects_.close()) {
        report.problems.push_back(options_.rejects + " could not be written to its end");
        is_unusable = true;
      }
    } else {
      report.problems.emplace_back("A thread that reads has not come back");
    }
    if (watch_.has_failed()) {
      report.problems.push_back("Stopped: the sink failed: " + watch_.why());
      is_lost = true;
    } else if (!is_lost && !close_report_.complete) {
      report.problems.emplace_back("The sink was not closed in time, or not without an error");
      is_lost = true;
    }
    const bool is_interrupted =
        signal_ && (report.read.unread != 0 || (!options_.follow && !readers_.has_finished()));
    if (is_interrupted) {
      report.problems.emplace_back("Stopped by a signal before the end of the input");
    }
    // The worst is what is told.
    report.status = is_lost          ? kLost
                    : is_unusable    ? kUnusable
                    : is_interrupted ? 128 + *signal_
                                     : kDelivered;
    if (report_file_.is_open()) {
      report_file_ << to_json(report).dump(2, ' ', false,
                                           nlohmann::ordered_json::error_handler_t::replace)
                   << '\n';
      report_file_.close();
      if (!report_file_) {
        report.problems.push_back(options_.report + " could not be written");
        if (!is_lost) report.status = kUnusable;
      }
    }
    if (options_.quiet) {
      for (const auto& problem : report.problems) terminal_.say(problem);
      return report.status;
    }
    auto& terminal = sink_.is_standard_output ? std::cerr : std::cout;
    terminal << to_text(report) << std::flush;
    return terminal || is_lost ? report.status : kUnusable;
  }

  void note_shards() {
    const auto shards = pipeline_.manager().num_shards();
    if (shards_.empty() || shards_.back().second != shards) {
      shards_.emplace_back(Clock::now() - started_, shards);
    }
  }

  [[nodiscard]] Progress progress() const {
    Progress progress;
    progress.read = readers_.counts();
    progress.ledger = pipeline_.ledger();
    progress.total = readers_.total();
    progress.shards = shards_.back().second;
    const auto room = progress.shards * options_.pipeline.manager.ring_capacity;
    progress.fill = static_cast<double>(progress.ledger.queued) /
                    static_cast<double>(std::max<std::size_t>(room, 1));
    progress.since_start = Clock::now() - started_;
    return progress;
  }

  static constexpr std::chrono::minutes kToClose{1};

  const Options& options_;
  const Clock::time_point started_ = Clock::now();
  Bell bell_;
  Terminal terminal_;
  Rejects rejects_;
  Readers readers_;
  std::ofstream report_file_;
  SinkWatch watch_;
  Sink sink_;
  shard::Pipeline pipeline_;
  const Signals* signals_ = nullptr;
  ShardHistory shards_;
  std::optional<int> signal_;

  // By the main thread for the one that closes, and the other way round.
  std::atomic<Clock::time_point> stop_by_{Clock::time_point::max()};
  std::atomic<bool> has_deadline_{false};
  shard::CloseReport close_report_;  ///< when is_closed_
  std::atomic<bool> is_closed_{false};
  std::atomic<bool> is_over_{false};  ///< and the readers have come back
};

}  // namespace

int run(const Options& options) {
  // As errors of write() they can be told and counted.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    Run run(options);
    return run();
  } catch (const shard::ConfigError& error) {
    std::cerr << "shard-ingest: " << error.what() << '\n';
    return kUsage;
  } catch (const std::exception& error) {
    std::cerr << "shard-ingest: " << error.what() << '\n';
    return kUnusable;
  }
}

}  // namespace ingest
