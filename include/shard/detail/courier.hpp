#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "shard/adapter.hpp"
#include "shard/detail/agent.hpp"
#include "shard/detail/annotations.hpp"
#include "shard/detail/lane.hpp"
#include "shard/detail/monitor.hpp"
#include "shard/pipeline_options.hpp"

namespace shard::detail {

/// Storage for batches, reused.
/// Threads: any.
template <class Platform>
class StoragePool {
 public:
  /// Throws std::bad_alloc.
  [[nodiscard]] std::unique_ptr<EventBatch> take() SHARD_EXCLUDES(mutex_) {
    {
      const LockGuard lock(mutex_);
      if (!spare_.empty()) {
        auto storage = std::move(spare_.back());
        spare_.pop_back();
        return storage;
      }
      spare_.reserve(++made_);  // so that it can come back whatever happens
    }
    return std::make_unique<EventBatch>();
  }
  /// Releases the buffers of its events, which runs the host's code.
  void give_back(std::unique_ptr<EventBatch> storage) noexcept SHARD_EXCLUDES(mutex_) {
    storage->clear();
    const LockGuard lock(mutex_);
    spare_.push_back(std::move(storage));
  }

 private:
  BasicMutex<Platform> mutex_;
  std::vector<std::unique_ptr<EventBatch>> spare_ SHARD_GUARDED_BY(mutex_);
  std::size_t made_ SHARD_GUARDED_BY(mutex_) = 0;
};

/// How soon to look again at a shard where another thread was in the way, or when there is no memory.
inline constexpr std::chrono::nanoseconds kLookAgain = std::chrono::microseconds{50};

/// Do the workers look at idle shards by themselves, while none is parked? Not where only one may deliver at a time: the
/// others would look at what they may not take.
[[nodiscard]] inline bool polls(const PipelineOptions& options) noexcept {
  return options.wait != WaitStrategy::park &&
         (options.workers == 1 || (options.workers != 0 && !options.serialise_adapter));
}

/// Takes batches from claimed shards and brings them to an adapter, one pass at a time. A pass decides whether a batch is
/// due, takes it, calls the adapter once, settles what it answered, and says when the shard should be looked at again.
/// Nothing waits inside, but for the host's code.
///
/// Threads: any number at once, each with an agent of its own and with a lane whose node it has claimed.
template <class Platform>
class Courier {
 public:
  using AnyLane = Lane<Platform>;
  using AnyAgent = Agent<Platform>;

  Courier(const PipelineOptions& options, Identity identity, const Clock& clock,
          const ReadyQueue<Platform>& queue, Gate<Platform>& gate) noexcept
      : options_(options),
        identity_(identity),
        clock_(clock),
        queue_(queue),
        gate_(gate),
        monitor(options.notice_interval) {}

  /// How a pass ended.
  struct Pass {
    Rest rest = Rest::again;
    Timestamp due = {};  ///< of Rest::later
    bool over =
        false;  ///< time is over: the claim is not given back, nothing of the lane may be touched
    bool moved = false;       ///< the shard got past a position
    std::size_t settled = 0;  ///< events that are terminal now
  };
  [[nodiscard]] Pass run(AnyLane& lane, AnyAgent& agent, Adapter& adapter) noexcept;

  /// What adapters are told of a call that begins now; `attempt` 0 where it is none to deliver.
  [[nodiscard]] const DeliveryContext& context(AnyAgent& agent, std::uint32_t attempt,
                                               Timestamp now) const noexcept;
  /// close() ends then.
  void set_close_deadline(std::chrono::steady_clock::time_point deadline) noexcept {
    close_deadline_.store(deadline.time_since_epoch().count(), std::memory_order_relaxed);
    closing_.store(true, std::memory_order_relaxed);  // hints for the adapter and for waits
  }

  /// Tells the listener, if there is one and it is not told too often.
  void notify(AnyAgent& agent, NoticeKind kind, std::optional<ShardId> shard, std::uint64_t events,
              const Reason& reason) noexcept;

 private:
  const PipelineOptions& options_;
  const Identity identity_;
  const Clock& clock_;
  const ReadyQueue<Platform>& queue_;
  Gate<Platform>& gate_;
  std::atomic<std::chrono::steady_clock::rep> close_deadline_{
      std::chrono::steady_clock::time_point::max().time_since_epoch().count()};
  std::atomic<bool> closing_{false};
  StoragePool<Platform> pool_;

 public:
  Monitor<Platform> monitor;

 private:
  /// A pass that could not see, or could not do, what it wanted to.
  [[nodiscard]] Pass look_again() const noexcept {
    return {.rest = Rest::later, .due = clock_.now().after(kLookAgain)};
  }
  /// Is a batch due? Rest::again: yes. Else how the pass ends; the shard's watch is set then.
  [[nodiscard]] Pass plan(AnyLane& lane, Timestamp now) noexcept;
  /// Takes what is due. False: nothing after all, and `pass` says how to go on.
  [[nodiscard]] bool take(AnyLane& lane, AnyAgent& agent, Pass& pass) noexcept;
  /// Tries the batch until it is terminal or has to wait.
  void deliver(AnyLane& lane, AnyAgent& agent, Adapter& adapter, Pass& pass) noexcept;
  /// One call of the adapter; whatever it throws becomes an answer. Nothing: time is over.
  [[nodiscard]] std::optional<Delivery> attempt(AnyLane& lane, AnyAgent& agent,
                                                Adapter& adapter) noexcept;
  [[nodiscard]] Delivery call(const Batch& batch, const DeliveryContext& context,
                              Adapter& adapter) const noexcept;

  /// What became of the batch. Each is true if time is not over.
  [[nodiscard]] bool settle_delivered(AnyLane& lane, AnyAgent& agent, std::size_t prefix,
                                      Timestamp now, Pass& pass) noexcept;
  [[nodiscard]] bool settle_unknown(AnyLane& lane, AnyAgent& agent, Pass& pass) noexcept;
  /// The last `dead` events become dead letters; with `rest_delivered` the others were delivered.
  [[nodiscard]] bool bury(AnyLane& lane, AnyAgent& agent, std::size_t dead, const DeadLetter& why,
                          bool rest_delivered, Timestamp now, Pass& pass) noexcept;
  /// An attempt failed: the batch waits for the next, or is given up.
  [[nodiscard]] bool fail(AnyLane& lane, AnyAgent& agent, const Reason& reason, Timestamp now,
                          Pass& pass) noexcept;

  void note_success(AnyLane& lane, AnyAgent& agent, std::size_t delivered, Timestamp now) noexcept;
  void note_losses(AnyLane& lane, AnyAgent& agent) noexcept;
  /// After some of the batch was settled: goes on with the rest, or gives the storage back.
  void go_on(AnyLane& lane, AnyAgent& agent) noexcept;
  static void hold_from(AnyLane& lane) noexcept;
  void end_batch(AnyLane& lane, AnyAgent& agent) noexcept;
};

}  // namespace shard::detail
