#include "shard/pipeline_options.hpp"

#include <string>

#include "bounds.hpp"

namespace shard {

namespace {

using detail::require_between;
using std::chrono::nanoseconds;

constexpr nanoseconds kHour = std::chrono::hours{1};

}  // namespace

std::string_view to_string(WaitStrategy strategy) noexcept {
  switch (strategy) {
    case WaitStrategy::park:
      return "park";
    case WaitStrategy::spin_then_park:
      return "spin_then_park";
    case WaitStrategy::spin:
      return "spin";
  }
  return "unknown";
}

std::string_view to_string(DeadLetterCause cause) noexcept {
  switch (cause) {
    case DeadLetterCause::refused:
      return "refused";
    case DeadLetterCause::attempts_exhausted:
      return "attempts_exhausted";
    case DeadLetterCause::time_exhausted:
      return "time_exhausted";
  }
  return "unknown";
}

std::string_view to_string(NoticeKind kind) noexcept {
  switch (kind) {
    case NoticeKind::scaled_up:
      return "scaled_up";
    case NoticeKind::scaled_down:
      return "scaled_down";
    case NoticeKind::retrying:
      return "retrying";
    case NoticeKind::dead_lettered:
      return "dead_lettered";
    case NoticeKind::recovered:
      return "recovered";
    case NoticeKind::evicting:
      return "evicting";
  }
  return "unknown";
}

void PipelineOptions::validate() const {
  try {
    manager.validate();
  } catch (const ConfigError& error) {
    throw ConfigError("manager." + error.field(), error.value(), error.bound());
  }
  batch.validate();
  retry.validate();
  require_between("workers", workers, 0, kMaxWorkers);
  if (wait > WaitStrategy::spin) {
    throw ConfigError("wait", std::to_string(static_cast<unsigned>(wait)),
                      "one of the wait strategies");
  }
  require_between("spin_for", spin_for, nanoseconds{0}, std::chrono::seconds{1});
  for (std::size_t i = 0; i < processors.size(); ++i) {
    require_between("processors[" + std::to_string(i) + "]", processors[i], 0, kMaxProcessors - 1);
  }
  if (attempt_timeout <= nanoseconds{0}) {
    throw ConfigError("attempt_timeout", detail::text_of(attempt_timeout), "above 0 ns");
  }
  require_between("close_timeout", close_timeout, nanoseconds{0}, kHour);
  require_between("notice_interval", notice_interval, nanoseconds{0}, kHour);
}

}  // namespace shard
