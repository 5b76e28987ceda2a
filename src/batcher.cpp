#include "shard/batcher.hpp"

#include <algorithm>
#include <cmath>

#include "bounds.hpp"

namespace shard {

namespace {

using detail::require_between;
using std::chrono::nanoseconds;

double seconds(std::uint64_t span) { return static_cast<double>(span) / 1e9; }

}  // namespace

BatchOptions BatchOptions::high_throughput() {
  return {.min_events = 5'000,
          .max_events = 50'000,
          .max_bytes = std::size_t{8} << 20U,
          .max_delay = std::chrono::milliseconds{50}};
}

BatchOptions BatchOptions::low_latency() {
  return {.min_events = 1, .max_events = 1'000, .max_delay = nanoseconds{0}};
}

void BatchOptions::validate() const {
  constexpr auto kMinute = std::chrono::minutes{1};
  require_between("batch.max_events", max_events, 1, 1'000'000);
  require_between("batch.min_events", min_events, 1, max_events);
  require_between("batch.max_bytes", max_bytes, 1, std::size_t{1} << 30U);
  require_between("batch.max_delay", max_delay, nanoseconds{0}, kMinute);
  require_between("batch.velocity_window", velocity_window, std::chrono::milliseconds{1}, kMinute);
}

AdaptiveBatcher::AdaptiveBatcher(const BatchOptions& options) : options_(options) {
  options_.validate();
}

void AdaptiveBatcher::keep(const Sample& sample) noexcept {
  samples_[next_] = sample;
  next_ = (next_ + 1) % kSamples;
  kept_ = std::min(kept_ + 1, kSamples);
}

void AdaptiveBatcher::observe(std::uint64_t accepted, Timestamp now) noexcept {
  const Sample told{std::max(now.nanoseconds, latest_.time), std::max(accepted, latest_.accepted)};
  const auto step = window() / kSteps;
  if (kept_ == 0) {
    keep(told);
    grown_ = told.time;
  } else {
    if (told.accepted > latest_.accepted) {
      grown_ = told.time;
    }
    // Nobody looked for a while: what was seen last must not be spread over that time.
    if (told.time - latest_.time >= step && latest_ != sample(0)) {
      keep(latest_);
    }
    if (told.time - sample(0).time >= step) {
      keep(told);
    }
  }
  latest_ = told;
}

double AdaptiveBatcher::events_per_second(Timestamp now) const noexcept {
  const auto end = std::max(now.nanoseconds, latest_.time);
  // Samples are a step apart, so they alone would see the last event leave the window too late.
  if (kept_ == 0 || end - grown_ >= window()) {
    return 0;
  }
  const auto& oldest = sample(kept_ - 1);
  if (end - oldest.time <= window()) {
    const auto span =
        std::max(end - oldest.time, static_cast<std::uint64_t>(kShortestSpan.count()));
    return static_cast<double>(latest_.accepted - oldest.accepted) / seconds(span);
  }
  const auto start = end - window();
  std::size_t age = 0;  // of the newest sample that is not in the window; the oldest one is not
  while (sample(age).time > start) {
    ++age;
  }
  const auto& before = sample(age);
  const auto& behind = age == 0 ? latest_ : sample(age - 1);
  // What came between the two came evenly, so only a part of it in the window. `behind` is later than `start`: if it is
  // latest_, the last event would otherwise have left the window.
  const auto part =
      static_cast<double>(start - before.time) / static_cast<double>(behind.time - before.time);
  const auto events = static_cast<double>(latest_.accepted - before.accepted) -
                      part * static_cast<double>(behind.accepted - before.accepted);
  return std::max(events, 0.0) / seconds(window());
}

std::size_t AdaptiveBatcher::target(Timestamp now) const noexcept {
  const auto wanted =
      events_per_second(now) * seconds(static_cast<std::uint64_t>(options_.max_delay.count()));
  // Rounded, so that a rate that is off in its last bit is the same target; compared before it is
  // cast, as it may be more than an integer holds.
  if (wanted >= static_cast<double>(options_.max_events)) {
    return options_.max_events;
  }
  return std::clamp(static_cast<std::size_t>(std::llround(wanted)), options_.min_events,
                    options_.max_events);
}

}  // namespace shard
