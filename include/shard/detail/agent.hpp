#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>

#include "shard/adapter.hpp"
#include "shard/detail/platform.hpp"
#include "shard/event_batch.hpp"
#include "shard/ids.hpp"

namespace shard::detail {

/// Turns timestamps into times of std::chrono::steady_clock, which costs more to read. Both clocks are read together once
/// in a second, so that what the calibration is off (see Clock) does not add up.
///
/// Threads: one at a time.
class SteadyReading {
 public:
  [[nodiscard]] std::chrono::steady_clock::time_point at(Timestamp now) noexcept {
    if (!read_ || now < read_at_ || now > read_at_.after(std::chrono::seconds{1})) {
      read_ = true;
      read_at_ = now;
      steady_ = std::chrono::steady_clock::now();
    }
    return steady_ + (now.since_epoch() - read_at_.since_epoch());
  }

 private:
  bool read_ = false;
  Timestamp read_at_{};
  std::chrono::steady_clock::time_point steady_;
};

/// One of the threads of a pipeline, or whoever calls run_once().
///
/// Threads: the agent itself; `state` and `attempt_since` are read by all.
template <class Platform>
struct Agent {
  enum class State : std::uint8_t {
    outside,  ///< does not touch the pipeline
    inside,   ///< in the library's code, which takes no longer than it takes
    away,     ///< in the host's code, which may never come back
  };

  std::size_t index = 0;
  std::thread thread;
  typename Platform::template Atomic<State> state{State::outside};
  std::atomic<std::uint64_t> attempt_since{
      0};                    ///< since when it is in deliver(), ns + 1; 0: it is not
  std::uint64_t random = 0;  ///< state of next_random()

  std::unique_ptr<EventBatch>
      spare;                ///< storage for its next batch, so that it need not ask for it
  DeliveryContext context;  ///< of its calls; made once, since a stop_token is not free to copy
  SteadyReading steady;

  /// 64 bits for the jitter of retries: splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
  /// generators").
  [[nodiscard]] std::uint64_t next_random() noexcept {
    std::uint64_t z = (random += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
  }
};

/// Where agents leave the library for code of the host, and what keeps those that come back too late from doing harm.
///
/// An agent says that it goes away and then looks whether it still may; close() says that it may not and then looks who is
/// away. Both do so with sequentially consistent accesses, so one of them sees the other: after expire(), an agent that
/// is `inside` comes to its end by itself, and one that is `away` will find everything that it held taken from it. [gate.away]
template <class Platform>
class Gate {
 public:
  using AnyAgent = Agent<Platform>;
  using State = typename AnyAgent::State;

  /// No attempt to deliver is begun from here on. Idempotent.
  void stop() noexcept { stopped_.store(true, std::memory_order_release); }
  [[nodiscard]] bool is_stopped() const noexcept {
    return stopped_.load(std::memory_order_acquire);  // a hint: who sees it late does a little more
  }

  /// No code of the host is run from here on, but what runs already.
  void expire() noexcept { expired_.store(true, std::memory_order_seq_cst); }  // [gate.away]
  [[nodiscard]] bool is_expired() const noexcept {
    return expired_.load(std::memory_order_seq_cst);
  }

  /// Runs code of the host, which must not throw. False if it was not run, since time is over.
  template <class Code>
  [[nodiscard]] bool run(AnyAgent& agent, const Code& code) noexcept {
    agent.state.store(State::away, std::memory_order_seq_cst);  // [gate.away]
    const bool may = !is_expired();
    if (may) {
      code();
    }
    agent.state.store(State::inside, std::memory_order_release);
    return may;
  }

  /// Is it in the library's code?
  [[nodiscard]] static bool is_inside(const AnyAgent& agent) noexcept {
    return agent.state.load(std::memory_order_seq_cst) == State::inside;  // [gate.away]
  }
  [[nodiscard]] static bool is_outside(const AnyAgent& agent) noexcept {
    return agent.state.load(std::memory_order_seq_cst) == State::outside;
  }

 private:
  typename Platform::template Atomic<bool> stopped_{false};
  typename Platform::template Atomic<bool> expired_{false};
};

}  // namespace shard::detail
