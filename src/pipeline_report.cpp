#include "shard/pipeline_report.hpp"

#include <algorithm>

namespace shard {

namespace {

constexpr std::size_t kRangesShown = 20;

/// "12.045 ms": a duration to read, cut to microseconds.
std::string milliseconds_of(std::chrono::nanoseconds time) {
  const auto microseconds = std::max<std::int64_t>(0, time.count() / 1'000);
  const auto fraction = std::to_string(microseconds % 1'000);
  return std::to_string(microseconds / 1'000) + "." + std::string(3 - fraction.size(), '0') +
         fraction + " ms";
}

std::string line_of(const UndeliveredRange& range) {
  std::string text = "shard " + std::to_string(range.shard.value) + ": ";
  text.append(std::to_string(range.first.value));
  if (range.last != range.first) {
    text.append(" .. ").append(std::to_string(range.last.value));
  }
  return text.append(" ").append(to_string(range.why)).append("\n");
}

}  // namespace

std::string_view to_string(FlushStatus status) noexcept {
  switch (status) {
    case FlushStatus::flushed:
      return "flushed";
    case FlushStatus::timed_out:
      return "timed_out";
    case FlushStatus::would_deadlock:
      return "would_deadlock";
    case FlushStatus::closed:
      return "closed";
    case FlushStatus::adapter_failed:
      return "adapter_failed";
  }
  return "unknown";
}

std::string_view to_string(Undelivered why) noexcept {
  switch (why) {
    case Undelivered::abandoned_queued:
      return "abandoned_queued";
    case Undelivered::abandoned_batched:
      return "abandoned_batched";
    case Undelivered::possibly_delivered:
      return "possibly_delivered";
  }
  return "unknown";
}

std::string_view to_string(HealthState state) noexcept {
  switch (state) {
    case HealthState::healthy:
      return "healthy";
    case HealthState::retrying:
      return "retrying";
    case HealthState::stuck:
      return "stuck";
    case HealthState::closed:
      return "closed";
  }
  return "unknown";
}

std::string to_string(const CloseReport& report) {
  if (report.would_deadlock) {
    return "not closed: would_deadlock\n";
  }
  std::string text = report.complete ? "closed, complete, in " : "closed, not complete, in ";
  text.append(milliseconds_of(report.took)).append("\n").append(to_string(report.ledger));
  if (report.abandoned_threads != 0) {
    text.append("abandoned_threads ").append(std::to_string(report.abandoned_threads)).append("\n");
  }
  if (!report.undelivered.empty()) {
    text.append("undelivered:\n");
    const auto shown = std::min(report.undelivered.size(), kRangesShown);
    for (std::size_t i = 0; i < shown; ++i) {
      text.append("  ").append(line_of(report.undelivered[i]));
    }
    if (const auto more = report.undelivered.size() - shown; more != 0) {
      text.append("  and ").append(std::to_string(more)).append(" more\n");
    }
  }
  return text;
}

}  // namespace shard
