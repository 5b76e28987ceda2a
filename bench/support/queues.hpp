#pragma once

#include <algorithm>
#include <atomic>
#include <boost/lockfree/queue.hpp>
#include <boost/lockfree/spsc_queue.hpp>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <iterator>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "shard/bytes.hpp"
#include "support/peers.hpp"
#include "support/team.hpp"

// Set by bench/CMakeLists.txt to 1 where the peer's package is installed.
#ifndef BENCH_HAS_MOODYCAMEL
#define BENCH_HAS_MOODYCAMEL 0
#endif
#ifndef BENCH_HAS_TBB
#define BENCH_HAS_TBB 0
#endif
#ifndef BENCH_HAS_ATOMIC_QUEUE
#define BENCH_HAS_ATOMIC_QUEUE 0
#endif

#if BENCH_HAS_MOODYCAMEL
#include <concurrentqueue.h>
#endif
#if BENCH_HAS_TBB
#include <tbb/concurrent_queue.h>
#endif
#if BENCH_HAS_ATOMIC_QUEUE
#include <atomic_queue/atomic_queue.h>
#endif

/// Bounded queues that many threads fill and one empties in batches, all with the same four
/// functions:
///
///     Queue(instances, capacity, producers)        capacity: events of each instance
///     bool push(producer, event, now)              into instance event.place; false: no room
///     size_t push_some(producer, place, events, now)   how many of the first found room
///     size_t take(place, use)                      calls use(batch) if there is one; its size
///
/// They stamp and copy. What is hashed, and what happens when there is no room, is the business of
/// who uses them.
namespace bench {

inline constexpr std::size_t kRecordPayload = 64;
/// The most that is taken out at a time; large enough that the cost of a visit does not count.
inline constexpr std::size_t kTakeMax = 1'024;

/// An event on its way in.
struct Routed {
  shard::Bytes payload;
  std::uint32_t place;  ///< the instance that it goes to
};

/// An event in a queue: with its payload inside, so that nothing is allocated.
/// \tparam kPayload  the longest payload; all of it is copied wherever the record goes
template <std::size_t kPayload>
struct BasicRecord {
  std::uint64_t ticks = 0;
  std::uint32_t size = 0;
  std::uint32_t place = 0;
  std::byte bytes[kPayload];

  BasicRecord() noexcept = default;
  BasicRecord(const Routed& event, std::uint64_t now) noexcept
      : ticks(now), size(static_cast<std::uint32_t>(event.payload.size())), place(event.place) {
    std::memcpy(bytes, event.payload.data(), event.payload.size());
  }

  [[nodiscard]] shard::Bytes payload() const noexcept { return {bytes, size}; }
};
using Record = BasicRecord<kRecordPayload>;

/// Makes the records of a batch where the queue wants them, so that a bulk operation copies a
/// payload once.
template <class Record>
class RecordIterator {
 public:
  using iterator_category = std::random_access_iterator_tag;
  using value_type = Record;
  using difference_type = std::ptrdiff_t;
  using pointer = void;
  using reference = Record;

  RecordIterator(const Routed* event, std::uint64_t ticks) noexcept
      : event_(event), ticks_(ticks) {}

  [[nodiscard]] Record operator*() const noexcept { return {*event_, ticks_}; }
  RecordIterator& operator++() noexcept { return *this += 1; }
  RecordIterator operator++(int) noexcept {
    const auto before = *this;
    ++*this;
    return before;
  }
  RecordIterator& operator+=(difference_type n) noexcept {
    event_ += n;
    ticks_ += static_cast<std::uint64_t>(n);  // stamps of one instance are strictly increasing
    return *this;
  }
  friend RecordIterator operator+(RecordIterator from, difference_type n) noexcept {
    return from += n;
  }
  friend difference_type operator-(const RecordIterator& a, const RecordIterator& b) noexcept {
    return a.event_ - b.event_;
  }
  friend bool operator==(const RecordIterator& a, const RecordIterator& b) noexcept {
    return a.event_ == b.event_;
  }

 private:
  const Routed* event_;
  std::uint64_t ticks_;
};

/// As SpinLock, but who waits does not keep the core from a holder that has lost its own.
class YieldingSpinLock {
 public:
  void lock() noexcept {
    Backoff backoff;
    while (held_.exchange(true, std::memory_order_acquire)) {
      while (held_.load(std::memory_order_relaxed)) {
        backoff.wait();
      }
    }
  }
  void unlock() noexcept { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_{false};
};

/// For an instance that has one producer only.
struct NoLock {
  void lock() noexcept {}
  void unlock() noexcept {}
};

/// boost::lockfree::spsc_queue, its producer side behind a lock.
template <class Lock, std::size_t kPayload = kRecordPayload>
class LockedRings {
 public:
  using Record = BasicRecord<kPayload>;

  LockedRings(std::size_t instances, std::size_t capacity, std::size_t /*producers*/) {
    for (std::size_t i = 0; i < instances; ++i) {
      instances_.push_back(std::make_unique<Instance>(capacity));
    }
  }

  [[nodiscard]] std::size_t instances() const { return instances_.size(); }

  bool push(std::size_t /*producer*/, const Routed& event, std::uint64_t now) {
    auto& instance = *instances_[event.place];
    const std::lock_guard lock(instance.lock);
    const auto stamp = std::max(now, instance.last + 1);
    if (!instance.ring.push(Record(event, stamp))) {
      return false;
    }
    instance.last = stamp;
    return true;
  }

  std::size_t push_some(std::size_t /*producer*/, std::size_t place, std::span<const Routed> events,
                        std::uint64_t now) {
    auto& instance = *instances_[place];
    const std::lock_guard lock(instance.lock);
    const auto stamp = std::max(now, instance.last + 1);
    const RecordIterator<Record> first(events.data(), stamp);
    const auto last = instance.ring.push(first, first + std::ssize(events));
    const auto pushed = static_cast<std::size_t>(last - first);
    if (pushed != 0) {
      instance.last = stamp + pushed - 1;
    }
    return pushed;
  }

  template <class Use>
  std::size_t take(std::size_t place, Use use) {
    const auto size = instances_[place]->ring.pop(taken_.data(), taken_.size());
    if (size != 0) {
      use(std::span<const Record>(taken_.data(), size));
    }
    return size;
  }

 private:
  struct Instance {
    explicit Instance(std::size_t capacity) : ring(capacity) {}

    alignas(64) Lock lock;
    std::uint64_t last = 0;
    boost::lockfree::spsc_queue<Record> ring;
  };
  std::vector<std::unique_ptr<Instance>> instances_;
  std::vector<Record> taken_ = std::vector<Record>(kTakeMax);
};

/// std::mutex and std::deque, what most programs start with; the consumer takes all there is by a
/// swap.
class MutexDeques {
 public:
  MutexDeques(std::size_t instances, std::size_t capacity, std::size_t /*producers*/)
      : instances_(instances), capacity_(capacity) {}

  [[nodiscard]] std::size_t instances() const { return instances_.size(); }

  bool push(std::size_t /*producer*/, const Routed& event, std::uint64_t now) {
    auto& instance = instances_[event.place];
    std::string copy(event.payload.text());
    const std::lock_guard lock(instance.mutex);
    return instance.push(std::move(copy), now, capacity_);
  }

  std::size_t push_some(std::size_t /*producer*/, std::size_t place, std::span<const Routed> events,
                        std::uint64_t now) {
    auto& instance = instances_[place];
    const std::lock_guard lock(instance.mutex);
    std::size_t pushed = 0;
    while (pushed < events.size() &&
           instance.push(std::string(events[pushed].payload.text()), now, capacity_)) {
      ++pushed;
    }
    return pushed;
  }

  template <class Use>
  std::size_t take(std::size_t place, Use use) {
    taken_.clear();
    {
      const std::lock_guard lock(instances_[place].mutex);
      taken_.swap(instances_[place].queue);
    }
    if (!taken_.empty()) {
      use(taken_);
    }
    return taken_.size();
  }

 private:
  struct Owned {
    std::uint64_t ticks;
    std::string bytes;
    [[nodiscard]] shard::Bytes payload() const noexcept { return bytes; }
  };
  struct alignas(64) Instance {
    bool push(std::string bytes, std::uint64_t now, std::size_t capacity) {
      if (queue.size() >= capacity) {
        return false;
      }
      last = std::max(now, last + 1);
      queue.push_back({last, std::move(bytes)});
      return true;
    }

    std::mutex mutex;
    std::uint64_t last = 0;
    std::deque<Owned> queue;
  };
  std::deque<Instance> instances_;
  std::size_t capacity_;
  std::deque<Owned> taken_;
};

/// One std::mutex and std::deque for all producers, and a condition variable on which the consumer
/// sleeps while there is nothing: what a program starts with whose consumer is not to poll.
class WaitingDeque {
 public:
  /// \param capacity  of what stands for one instance elsewhere; it has room for all of them
  WaitingDeque(std::size_t instances, std::size_t capacity, std::size_t /*producers*/)
      : capacity_(instances * capacity) {}

  [[nodiscard]] static std::size_t instances() { return 1; }

  bool push(std::size_t /*producer*/, const Routed& event, std::uint64_t now) {
    Owned owned{now, event.place, std::string(event.payload.text())};
    {
      const std::lock_guard lock(mutex_);
      if (queue_.size() >= capacity_) {
        return false;
      }
      last_ = std::max(now, last_ + 1);
      owned.ticks = last_;
      queue_.push_back(std::move(owned));
    }
    changed_.notify_one();
    return true;
  }

  std::size_t push_some(std::size_t producer, std::size_t /*place*/, std::span<const Routed> events,
                        std::uint64_t now) {
    std::size_t pushed = 0;
    while (pushed < events.size() && push(producer, events[pushed], now + pushed)) {
      ++pushed;
    }
    return pushed;
  }

  /// Waits for events, but not for ever, as who calls it wants to end some time.
  template <class Use>
  std::size_t take(std::size_t /*place*/, Use use) {
    taken_.clear();
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, kWait, [this] { return !queue_.empty(); });
      taken_.swap(queue_);
    }
    if (!taken_.empty()) {
      use(taken_);
    }
    return taken_.size();
  }

 private:
  static constexpr auto kWait = std::chrono::milliseconds{10};

  struct Owned {
    std::uint64_t ticks;
    std::uint32_t place;
    std::string bytes;
    [[nodiscard]] shard::Bytes payload() const noexcept { return bytes; }
  };
  const std::size_t capacity_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t last_ = 0;
  std::deque<Owned> queue_;
  std::deque<Owned> taken_;
};

// The queues below have no lock under which a stamp could be made to follow the one before it:
// theirs are the clock's.

#if BENCH_HAS_MOODYCAMEL
/// moodycamel::ConcurrentQueue with a token for each producer and for the consumer, and bulk
/// operations. Bounded by what it allocates in advance: try_enqueue() never allocates. (A count of
/// what is in flight would cost another shared line.) That is one pool for all producers, and none
/// ever gives a block back: one of them could take them all and leave the others without any, for
/// ever. So each has its part.
template <std::size_t kBlock, std::size_t kCapacityOfProducer,
          std::size_t kPayload = kRecordPayload>
class MoodycamelQueues {
 public:
  using Record = BasicRecord<kPayload>;

  MoodycamelQueues(std::size_t instances, std::size_t /*capacity*/, std::size_t producers) {
    for (std::size_t i = 0; i < instances; ++i) {
      instances_.push_back(std::make_unique<Instance>(producers));
    }
  }

  [[nodiscard]] std::size_t instances() const { return instances_.size(); }

  bool push(std::size_t producer, const Routed& event, std::uint64_t now) {
    auto& instance = *instances_[event.place % instances_.size()];
    return instance.queue.try_enqueue(instance.tokens[producer], Record(event, now));
  }

  /// All or none, as the queue has it.
  std::size_t push_some(std::size_t producer, std::size_t place, std::span<const Routed> events,
                        std::uint64_t now) {
    auto& instance = *instances_[place];
    const RecordIterator<Record> first(events.data(), now);
    return instance.queue.try_enqueue_bulk(instance.tokens[producer], first, events.size())
               ? events.size()
               : 0;
  }

  template <class Use>
  std::size_t take(std::size_t place, Use use) {
    auto& instance = *instances_[place];
    const auto size =
        instance.queue.try_dequeue_bulk(instance.consumer, taken_.data(), taken_.size());
    if (size != 0) {
      use(std::span<const Record>(taken_.data(), size));
    }
    return size;
  }

 private:
  struct Traits : moodycamel::ConcurrentQueueDefaultTraits {
    static constexpr std::size_t BLOCK_SIZE = kBlock;
    static constexpr std::size_t MAX_SUBQUEUE_SIZE = kCapacityOfProducer;
  };
  using Queue = moodycamel::ConcurrentQueue<Record, Traits>;

  struct Instance {
    explicit Instance(std::size_t producers)
        : queue(producers * (kCapacityOfProducer + kBlock)), consumer(queue) {
      for (std::size_t i = 0; i < producers; ++i) {
        tokens.emplace_back(queue);
      }
    }
    Queue queue;
    moodycamel::ConsumerToken consumer;
    std::vector<moodycamel::ProducerToken> tokens;
  };
  std::vector<std::unique_ptr<Instance>> instances_;
  std::vector<Record> taken_ = std::vector<Record>(kTakeMax);
};
#endif

/// A queue that knows single events only, with try_push() and try_pop().
template <class Record, class Queue, class MakeQueue>
class SingleEventQueues {
 public:
  SingleEventQueues(std::size_t instances, std::size_t capacity, std::size_t /*producers*/) {
    for (std::size_t i = 0; i < instances; ++i) {
      instances_.push_back(MakeQueue{}(capacity));
    }
  }

  [[nodiscard]] std::size_t instances() const { return instances_.size(); }

  bool push(std::size_t /*producer*/, const Routed& event, std::uint64_t now) {
    return instances_[event.place]->try_push(Record(event, now));
  }

  std::size_t push_some(std::size_t producer, std::size_t /*place*/, std::span<const Routed> events,
                        std::uint64_t now) {
    std::size_t pushed = 0;
    while (pushed < events.size() && push(producer, events[pushed], now + pushed)) {
      ++pushed;
    }
    return pushed;
  }

  template <class Use>
  std::size_t take(std::size_t place, Use use) {
    std::size_t size = 0;
    while (size < taken_.size() && instances_[place]->try_pop(taken_[size])) {
      ++size;
    }
    if (size != 0) {
      use(std::span<const Record>(taken_.data(), size));
    }
    return size;
  }

 private:
  std::vector<std::unique_ptr<Queue>> instances_;
  std::vector<Record> taken_ = std::vector<Record>(kTakeMax);
};

/// boost::lockfree::queue, bounded: its nodes come from an array, are numbered by 16 bits, and each
/// begins on a cache line of its own.
template <class Record>
class BoostQueue {
 public:
  static constexpr std::size_t kMaxCapacity = 65'534;

  explicit BoostQueue(std::size_t capacity) : queue_(std::min(capacity, kMaxCapacity)) {}
  bool try_push(const Record& record) { return queue_.push(record); }
  bool try_pop(Record& record) { return queue_.pop(record); }

 private:
  boost::lockfree::queue<Record, boost::lockfree::fixed_sized<true>> queue_;
};
template <class Record>
struct MakeBoostQueue {
  std::unique_ptr<BoostQueue<Record>> operator()(std::size_t capacity) const {
    return std::make_unique<BoostQueue<Record>>(capacity);
  }
};
template <std::size_t kPayload>
using BoostQueues = SingleEventQueues<BasicRecord<kPayload>, BoostQueue<BasicRecord<kPayload>>,
                                      MakeBoostQueue<BasicRecord<kPayload>>>;

#if BENCH_HAS_TBB
template <class Record>
struct MakeTbbQueue {
  using Queue = tbb::concurrent_bounded_queue<Record>;
  std::unique_ptr<Queue> operator()(std::size_t capacity) const {
    auto queue = std::make_unique<Queue>();
    queue->set_capacity(static_cast<typename Queue::size_type>(capacity));
    return queue;
  }
};
template <std::size_t kPayload>
using BasicTbbQueues =
    SingleEventQueues<BasicRecord<kPayload>, tbb::concurrent_bounded_queue<BasicRecord<kPayload>>,
                      MakeTbbQueue<BasicRecord<kPayload>>>;
using TbbQueues = BasicTbbQueues<kRecordPayload>;
#endif

#if BENCH_HAS_ATOMIC_QUEUE
template <class Record>
struct MakeAtomicQueue {
  using Queue = atomic_queue::AtomicQueueB2<Record>;
  std::unique_ptr<Queue> operator()(std::size_t capacity) const {
    return std::make_unique<Queue>(static_cast<unsigned>(capacity));
  }
};
template <std::size_t kPayload>
using BasicAtomicQueues =
    SingleEventQueues<BasicRecord<kPayload>, atomic_queue::AtomicQueueB2<BasicRecord<kPayload>>,
                      MakeAtomicQueue<BasicRecord<kPayload>>>;
using AtomicQueues = BasicAtomicQueues<kRecordPayload>;
#endif

}  // namespace bench
