#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/payloads.hpp"
#include "support/peers.hpp"
#include "support/queues.hpp"
#include "support/rounds.hpp"
#include "support/sink.hpp"
#include "support/team.hpp"

namespace bench {

/// How events come in, and how often.
struct Load {
  std::size_t producers = 1;
  std::size_t batch = 1;   ///< events of one call; 1: single events
  bool own_place = false;  ///< each producer has one of its own; else the payload's hash decides
  std::size_t shards = 4;
  std::size_t passes = 1;  ///< how often each producer hands in all of the payloads in one round
  const Payloads* payloads = nullptr;

  [[nodiscard]] std::uint64_t events() const {
    return std::uint64_t{passes} * producers * payloads->views.size();
  }
  [[nodiscard]] std::uint64_t sum() const {
    std::uint64_t sum = 0;
    for (const auto view : payloads->views) {
      std::uint64_t word = 0;
      std::memcpy(&word, view.data(), sizeof word);
      sum += word;
    }
    return sum * passes * producers;
  }

  /// What one producer does in a round.
  /// \param single  takes one payload in
  /// \param many    takes a span of them in
  template <class Single, class Many>
  void hand_in(Single single, Many many) const {
    const std::span<const shard::Bytes> views(payloads->views);
    for (std::size_t pass = 0; pass < passes; ++pass) {
      if (batch == 1) {
        for (const auto view : views) {
          single(view);
        }
      } else {
        for (std::size_t i = 0; i < views.size(); i += batch) {
          many(views.subspan(i, std::min(batch, views.size() - i)));
        }
      }
    }
  }
};

/// Queues, and a thread that brings what is in them to a sink. Made once; does the same in each
/// round.
class Flow {
 public:
  Flow() = default;
  Flow(const Flow&) = delete;
  Flow& operator=(const Flow&) = delete;
  virtual ~Flow() = default;

  virtual void resume() {}  ///< a round begins: the consumer is to be at work when this returns
  virtual void pause() {}   ///< the round is over: the consumer is to leave the cores to others
  virtual void produce(std::size_t producer) = 0;  ///< on the producer's own thread
  virtual void flush() {}                          ///< called once by the last producer to end

  Sink sink;
};

/// One round: nanoseconds per event, from the first event's going in to the last one's coming out.
/// \param load  a Load, or what has the same members
template <class AnyLoad>
Nanoseconds run_flow(const std::string& name, Flow& flow, Team& team, const AnyLoad& load) {
  std::vector<Sink::Clock::time_point> starts(team.size());
  std::atomic<std::size_t> busy = team.size();
  flow.sink.expect(load.events(), load.sum());
  flow.resume();
  team.run([&](std::size_t producer) {
    starts[producer] = Sink::Clock::now();
    flow.produce(producer);
    if (busy.fetch_sub(1) == 1) {
      flow.flush();
    }
  });
  const std::chrono::duration<double, std::nano> took =
      flow.sink.wait_for_last(name) - *std::min_element(starts.begin(), starts.end());
  flow.pause();
  flow.sink.verify(name);
  return took.count() / static_cast<double>(load.events());
}

/// The hand-made pipeline around a queue: producers hash, choose the instance and wait while it is
/// full; one thread takes batches out of the instances in turn.
template <class Queue, class AnyLoad = Load>
class QueueFlow final : public Flow {
 public:
  /// \param rest  how long the consumer leaves the queues alone when it found few events; it then
  ///              finds more of them at a time, and disturbs the producers less
  QueueFlow(const AnyLoad& load, std::size_t instances, std::size_t capacity,
            std::chrono::nanoseconds rest = std::chrono::nanoseconds{0})
      : load_(load),
        queue_(instances, capacity, load.producers),
        rest_(rest),
        consumer_([this] { consume(); }) {
    for (std::size_t i = 0; i < load.producers; ++i) {
      producers_.push_back(std::make_unique<Producer>());
      producers_.back()->groups.resize(instances);
    }
  }
  ~QueueFlow() override { set(State::ended); }

  void resume() override {
    set(State::running);
    at_work_.wait(false);
  }
  void pause() override {
    set(State::paused);
    at_work_.wait(true);
  }

  void produce(std::size_t index) override {
    auto& producer = *producers_[index];
    const auto own = static_cast<std::uint32_t>(index % load_.shards);
    const auto place_of = [&](shard::Bytes payload) {
      return load_.own_place
                 ? own
                 : static_cast<std::uint32_t>(
                       (XXH3_64bits(payload.data(), payload.size()) >> 32U) * load_.shards >> 32U);
    };
    load_.hand_in(
        [&](shard::Bytes payload) {
          const Routed event{payload, place_of(payload)};
          const auto now = ticks();
          for (Backoff backoff; !queue_.push(index, event, now);) {
            backoff.wait();
          }
        },
        [&](std::span<const shard::Bytes> payloads) {
          for (const auto payload : payloads) {
            const auto place = place_of(payload);
            producer.groups[place % queue_.instances()].push_back({payload, place});
          }
          const auto now = ticks();
          for (std::size_t i = 0; i < producer.groups.size(); ++i) {
            std::span<const Routed> rest(producer.groups[i]);
            for (Backoff backoff; !rest.empty();) {
              const auto pushed = queue_.push_some(index, i, rest, now);
              rest = rest.subspan(pushed);
              if (!rest.empty()) {
                backoff.wait();
              }
            }
            producer.groups[i].clear();
          }
        });
  }

 private:
  enum class State : int { paused, running, ended };

  struct alignas(64) Producer {
    std::vector<std::vector<Routed>> groups;  ///< a batch, by instance
  };

  void set(State state) {
    state_.store(state);
    state_.notify_all();
  }
  void tell_at_work(bool at_work) {
    at_work_.store(at_work);
    at_work_.notify_all();
  }

  void consume() {
    for (;;) {
      state_.wait(State::paused);
      if (state_.load() == State::ended) {
        return;
      }
      tell_at_work(true);
      Backoff backoff;
      while (state_.load(std::memory_order_relaxed) == State::running) {
        std::size_t found = 0;
        for (std::size_t i = 0; i < queue_.instances(); ++i) {
          found += queue_.take(i, [this](const auto& batch) {
            sink.take(batch, [](const auto& event) { return event.payload(); });
          });
        }
        if (found != 0) {
          backoff.reset();
        }
        if (found < kTakeMax && rest_.count() != 0) {
          for (const auto until = Sink::Clock::now() + rest_; Sink::Clock::now() < until;) {
            backoff.wait();
          }
        } else if (found == 0) {
          backoff.wait();
        }
      }
      tell_at_work(false);
    }
  }

  const AnyLoad load_;
  Queue queue_;
  const std::chrono::nanoseconds rest_;
  std::vector<std::unique_ptr<Producer>> producers_;
  std::atomic<State> state_{State::paused};
  std::atomic<bool> at_work_{false};
  std::jthread consumer_;  // the last member: it uses all the others, and is joined first
};

}  // namespace bench
