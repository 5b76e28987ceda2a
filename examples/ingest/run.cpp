#include "run.hpp"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <exception>
#include <fstream>
#include <iostream>
#include <system_error>
#include <thread>

#include "bell.hpp"
#include "exit_status.hpp"
#include "input_file.hpp"
#include "readers.hpp"
#include "rejects.hpp"
#include "report.hpp"
#include "shard/pipeline.hpp"
#include "sink.hpp"

namespace ingest {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;

/// SIGINT and SIGTERM as something to poll. Made before any thread, for they inherit what is blocked.
class Signals {
 public:
  Signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    descriptor_ = Descriptor(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (descriptor_.get() < 0) throw std::system_error(errno, std::generic_category(), "signalfd");
    // As errors of write() they can be told and counted.
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ, SIG_IGN);
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

/// One run, from opened inputs to the report.
class Run {
 public:
  Run(const Options& options, const Signals& signals)
      : options_(options),
        signals_(signals),
        rejects_(options.rejects),
        readers_(options, rejects_),
        watch_([this] { bell_.ring(); }),
        sink_(make_sink(options, watch_)),
        pipeline_(pipeline_options(), std::move(sink_.adapter)),
        shows_progress_(!options.quiet && ::isatty(STDERR_FILENO) == 1) {
    if (!options.report.empty()) {
      report_file_.open(options.report);
      if (!report_file_) {
        throw std::runtime_error(options.report +
                                 " cannot be written: " + std::generic_category().message(errno));
      }
    }
  }

  int operator()() {
    note_shards();
    readers_.start(pipeline_, [this] { bell_.ring(); });
    while (!readers_.is_done()) {
      wait();
      if (should_stop()) break;
    }
    std::thread closer([this] { close(); });
    while (!is_closed_) wait();
    closer.join();
    readers_.join();
    erase_progress();
    return report();
  }

 private:
  static constexpr std::chrono::milliseconds kTick{100};

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
      std::string text = "shard-ingest: " + std::string(to_string(notice.kind));
      if (!notice.reason.empty()) text.append(": ").append(notice.reason.text());
      const std::lock_guard lock(terminal_);
      erase_progress();
      std::cerr << text << std::endl;
    };
    return made;
  }

  /// Until something rings, a signal comes, or it is time to look again.
  void wait() {
    std::array<pollfd, 2> watched{
        {{signals_.descriptor(), POLLIN, 0}, {bell_.descriptor(), POLLIN, 0}}};
    ::poll(watched.data(), watched.size(), static_cast<int>(kTick.count()));
    bell_.hear();
    if (const int signal = signals_.take(); signal != 0) {
      if (signal_) end_at_once();
      signal_ = signal;
      stop_by_ = Clock::now() + options_.deadline;
      has_deadline_ = true;
      readers_.request_stop();
    }
    note_shards();
    show_progress();
  }

  [[nodiscard]] bool should_stop() {
    if (!watch_.has_failed()) return signal_.has_value();
    readers_.request_stop();
    return true;
  }

  /// On a thread of its own, so that a second signal is heard. Ends within the deadline once there is one.
  void close() {
    constexpr std::chrono::milliseconds kAtATime{200};
    if (!signal_ && !watch_.has_failed()) {
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
    const auto now = Clock::now();
    const auto left =
        has_deadline_ ? std::max(stop_by_.load() - now, nanoseconds{0}) : options_.deadline;
    close_report_ = pipeline_.close(left);
    is_closed_ = true;
    bell_.ring();
  }

  [[noreturn]] void end_at_once() {
    const auto ledger = pipeline_.ledger();
    const std::lock_guard lock(terminal_);
    erase_progress();
    std::cerr << "shard-ingest: ended at once: " << grouped(ledger.delivered) << " delivered, "
              << grouped(ledger.queued + ledger.batched) << " accepted and not delivered\n";
    ::_exit(kLost);
  }

  int report() {
    Report report;
    report.to = options_.to;
    report.files = readers_.files();
    report.read = readers_.counts();
    report.stats = pipeline_.stats();
    report.stats.ledger = close_report_.ledger;
    report.largest_batch = watch_.largest_batch();
    report.shards = shards_;
    if (sink_.counts) report.sink = sink_.counts();
    report.took = Clock::now() - started_;
    report.signal = signal_;
    report.first_rejects = rejects_.first();
    report.problems = readers_.errors();
    report.status = readers_.errors().empty() ? kDelivered : kUnusable;

    const auto add = [&](int status, std::string problem) {
      report.problems.push_back(std::move(problem));
      report.status = std::max(report.status, status);
    };
    if (watch_.has_failed()) add(kLost, "Stopped: the sink failed: " + watch_.why());
    if (!rejects_.close()) add(kUnusable, options_.rejects + " could not be written to its end");
    if (signal_ && !options_.follow && !readers_.has_finished()) {
      add(128 + *signal_, "Stopped by a signal before the end of the input");
    }
    if (has_losses(report.read, close_report_.ledger)) {
      report.status = kLost;
    } else if (!close_report_.complete) {
      add(kLost, "The sink was not closed in time");
    }
    if (report_file_.is_open()) {
      report_file_ << to_json(report).dump(2, ' ', false,
                                           nlohmann::ordered_json::error_handler_t::replace)
                   << '\n';
      report_file_.close();
      if (!report_file_) add(kUnusable, options_.report + " could not be written");
    }
    auto& terminal = sink_.is_standard_output ? std::cerr : std::cout;
    if (!options_.quiet) {
      terminal << to_text(report);
    } else {
      for (const auto& problem : report.problems) std::cerr << "shard-ingest: " << problem << '\n';
    }
    return report.status;
  }

  void note_shards() {
    const auto shards = pipeline_.manager().num_shards();
    if (shards_.empty() || shards_.back().second != shards) {
      shards_.emplace_back(Clock::now() - started_, shards);
    }
  }

  void show_progress() {
    if (!shows_progress_) return;
    Progress progress;
    progress.read = readers_.counts();
    progress.ledger = pipeline_.ledger();
    progress.total = readers_.total();
    progress.shards = shards_.back().second;
    const auto room = progress.shards * options_.pipeline.manager.ring_capacity;
    progress.fill = static_cast<double>(progress.ledger.queued) /
                    static_cast<double>(std::max<std::size_t>(room, 1));
    progress.since_start = Clock::now() - started_;
    const std::lock_guard lock(terminal_);
    std::cerr << '\r' << to_text(progress) << "\x1b[K" << std::flush;
    is_progress_shown_ = true;
  }
  void erase_progress() {
    if (is_progress_shown_) std::cerr << "\r\x1b[K";
    is_progress_shown_ = false;
  }

  const Options& options_;
  const Signals& signals_;
  const Clock::time_point started_ = Clock::now();
  Bell bell_;
  std::mutex terminal_;             // one line at a time
  bool is_progress_shown_ = false;  // guarded by terminal_
  Rejects rejects_;
  Readers readers_;
  SinkWatch watch_;
  Sink sink_;
  shard::Pipeline pipeline_;
  const bool shows_progress_;
  std::ofstream report_file_;
  ShardHistory shards_;

  std::optional<int> signal_;
  std::atomic<Clock::time_point> stop_by_{Clock::time_point::max()};
  std::atomic<bool> has_deadline_{false};
  shard::CloseReport close_report_;
  std::atomic<bool> is_closed_{false};
};

}  // namespace

int run(const Options& options) {
  try {
    const Signals signals;
    Run run(options, signals);
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
