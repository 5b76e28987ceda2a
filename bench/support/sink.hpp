#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

#include "shard/bytes.hpp"
#include "support/open_loop.hpp"

namespace bench {

/// What the callback does with its batches: reads each payload, counts, and notes when the last has
/// come. A round whose events are not all there, each once, ends the program.
///
/// Threads: take() by one at a time, as a queue with one consumer calls it; all else by the thread
/// that runs the round.
class Sink {
 public:
  using Clock = std::chrono::steady_clock;

  /// Before a round, while nothing is under way.
  /// \param sum  of the first eight bytes of all payloads that will come
  void expect(std::uint64_t events, std::uint64_t sum) {
    const std::lock_guard lock(mutex_);
    expected_ = events;
    expected_sum_ = sum;
    count_ = sum_ = 0;
    complete_ = false;
  }

  /// Between two rounds: whom to tell of each batch, before all else; nullptr for nobody.
  void report_to(Arrivals* arrivals) { arrivals_ = arrivals; }

  /// \param payload_of  gives the payload of what is in the batch
  template <class Batch, class PayloadOf>
  void take(const Batch& batch, PayloadOf payload_of) {
    if (arrivals_ != nullptr) {
      arrivals_->take(batch, payload_of);
    }
    std::uint64_t count = 0;
    std::uint64_t sum = 0;
    for (auto&& event : batch) {
      std::uint64_t word = 0;
      std::memcpy(&word, payload_of(event).data(), sizeof word);
      sum += word;
      ++count;
    }
    sum_ += sum;
    count_ += count;
    if (count_ >= expected_) {
      const auto now = Clock::now();
      const std::lock_guard lock(mutex_);
      end_ = now;
      complete_ = true;
      changed_.notify_one();
    }
  }

  /// When the last event came. Ends the program if that takes too long: then an event was lost.
  [[nodiscard]] Clock::time_point wait_for_last(const std::string& subject) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds{30}, [this] { return complete_; })) {
      std::fprintf(stderr, "%s lost events\n", subject.c_str());
      std::_Exit(EXIT_FAILURE);  // its threads are still at work
    }
    return end_;
  }

  /// After a round, when nothing is under way any more.
  void verify(const std::string& subject) const {
    if (count_ != expected_ || sum_ != expected_sum_) {
      std::fprintf(stderr, "%s: %llu events instead of %llu, or not the same\n", subject.c_str(),
                   static_cast<unsigned long long>(count_),
                   static_cast<unsigned long long>(expected_));
      std::_Exit(EXIT_FAILURE);
    }
  }

 private:
  Arrivals* arrivals_ = nullptr;
  std::uint64_t expected_ = 0;
  std::uint64_t expected_sum_ = 0;
  std::uint64_t count_ = 0;
  std::uint64_t sum_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool complete_ = false;
  Clock::time_point end_;
};

}  // namespace bench
