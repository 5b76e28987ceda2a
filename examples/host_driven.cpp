// A game loop that owns its only thread: the pipeline starts none, and delivers when the loop calls run_once(). Time is
// simulated here, as a game does anyway that can be paused or replayed.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>

#include "shard/pipeline.hpp"

class GameTime : public shard::TimeSource {
 public:
  [[nodiscard]] std::uint64_t nanoseconds() const noexcept override { return now_; }
  void advance_to(std::uint64_t time) { now_ = std::max(now_, time); }

 private:
  std::uint64_t now_ = 0;
};

int main() {
  using namespace std::chrono_literals;
  constexpr std::chrono::nanoseconds kFrame = 16ms;
  constexpr std::chrono::nanoseconds kMaxDelay = 40ms;  // how long an event may wait for company
  constexpr std::uint64_t kFrames = 600;
  constexpr int kActions = 5;  // in a frame

  GameTime time;
  std::uint64_t delivered = 0;
  std::uint64_t longest_wait = 0;
  shard::Pipeline pipeline{{.manager = {.shards = 2, .time_source = &time},
                            .batch = {.min_events = 100, .max_delay = kMaxDelay},
                            .workers = 0},
                           [&](const shard::Batch& batch) {
                             delivered += batch.size();
                             longest_wait = std::max(
                                 longest_wait, time.nanoseconds() - batch[0].timestamp.nanoseconds);
                           }};

  std::uint64_t calls = 0;
  for (std::uint64_t frame = 0; frame < kFrames; ++frame) {
    for (int action = 0; action < kActions; ++action) {
      pipeline.ingest("player " + std::to_string(action) + " jumps in " + std::to_string(frame));
    }
    // What is left of the frame. A call delivers a batch of each shard or so, and a loop may stop between two calls.
    const auto next_frame = (frame + 1) * static_cast<std::uint64_t>(kFrame.count());
    while (pipeline.next_due().nanoseconds < next_frame) {
      time.advance_to(pipeline.next_due().nanoseconds);  // a real loop sleeps until then
      pipeline.run_once();
      ++calls;
    }
    time.advance_to(next_frame);
  }

  const auto stats = pipeline.stats();
  const auto report = pipeline.close(1s);  // runs what is left on this thread
  std::cout << kFrames << " frames, " << calls << " calls, " << stats.batches
            << " batches, longest wait " << longest_wait / 1'000 << " us\n"
            << to_string(report);
  const bool kept = report.complete && report.ledger.balanced() &&
                    delivered == kFrames * kActions && report.ledger.delivered == delivered &&
                    longest_wait <= static_cast<std::uint64_t>(kMaxDelay.count());
  std::cout << (kept ? "nothing is lost, nothing waited too long\n" : "NOT AS PROMISED\n");
  return kept ? EXIT_SUCCESS : EXIT_FAILURE;
}
