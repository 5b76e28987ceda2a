#pragma once

#include <atomic>
#include <boost/lockfree/spsc_queue.hpp>
#include <cstdint>
#include <cstring>
#include <deque>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "shard/bytes.hpp"
#include "shard/clock.hpp"

/// What a user would put together instead: the same job (hash, route over instances, stamp, copy the bytes,
/// bounded, nothing lost) and no more of it. No counts, no keys, no modes, payloads of one size at most.
namespace bench {

class SpinLock {
 public:
  void lock() noexcept {
    while (held_.exchange(true, std::memory_order_acquire)) {
      while (held_.load(std::memory_order_relaxed)) {
        __builtin_ia32_pause();
      }
    }
  }
  void unlock() noexcept { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_{false};
};

/// Ticks are left as they come: a hand-made queue converts them when it reads, if ever.
inline std::uint64_t ticks() { return __builtin_ia32_rdtsc(); }

/// boost::lockfree::spsc_queue, its producer side behind a lock, the payload in the record.
template <class Lock, std::size_t kMaxPayload>
class HandMade {
 public:
  struct Record {
    std::uint64_t ticks;
    std::uint32_t size;
    std::byte bytes[kMaxPayload];
  };

  HandMade(std::size_t instances, std::size_t capacity) {
    for (std::size_t i = 0; i < instances; ++i) {
      instances_.push_back(std::make_unique<Instance>(capacity));
    }
  }

  bool ingest(shard::Bytes payload) {
    const auto hash = XXH3_64bits(payload.data(), payload.size());
    auto& instance = *instances_[(hash >> 32U) * instances_.size() >> 32U];
    const auto now = ticks();
    const std::lock_guard lock(instance.lock);
    return instance.push(payload, now);
  }

  /// A batch: one pass to group by instance, then a lock and a reading of the clock for each group.
  std::size_t ingest_batch(std::span<const shard::Bytes> payloads) {
    groups_.resize(instances_.size());
    for (auto& group : groups_) {
      group.clear();
    }
    for (std::uint32_t i = 0; i < payloads.size(); ++i) {
      const auto hash = XXH3_64bits(payloads[i].data(), payloads[i].size());
      groups_[(hash >> 32U) * instances_.size() >> 32U].push_back(i);
    }
    std::size_t accepted = 0;
    const auto now = ticks();
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const std::lock_guard lock(instances_[g]->lock);
      for (const auto i : groups_[g]) {
        accepted += instances_[g]->push(payloads[i], now) ? 1U : 0U;
      }
    }
    return accepted;
  }

  void drain() {
    for (auto& instance : instances_) {
      instance->ring.consume_all([](const Record&) {});
    }
  }

 private:
  struct Instance {
    explicit Instance(std::size_t capacity) : ring(capacity) {}

    bool push(shard::Bytes payload, std::uint64_t now) {
      Record record;
      record.ticks = std::max(now, last + 1);
      record.size = static_cast<std::uint32_t>(payload.size());
      std::memcpy(record.bytes, payload.data(), payload.size());
      last = record.ticks;
      return ring.push(record);
    }

    alignas(64) Lock lock;
    std::uint64_t last = 0;
    boost::lockfree::spsc_queue<Record> ring;
  };
  std::vector<std::unique_ptr<Instance>> instances_;
  std::vector<std::vector<std::uint32_t>> groups_;
};

/// std::mutex and std::deque, what most programs start with.
class MutexDeque {
 public:
  MutexDeque(std::size_t instances, std::size_t capacity)
      : instances_(instances), capacity_(capacity) {}

  bool ingest(shard::Bytes payload) {
    const auto hash = XXH3_64bits(payload.data(), payload.size());
    auto& instance = instances_[(hash >> 32U) * instances_.size() >> 32U];
    const auto now = ticks();
    std::string copy(payload.text());
    const std::lock_guard lock(instance.mutex);
    if (instance.queue.size() >= capacity_) {
      return false;
    }
    instance.last = std::max(now, instance.last + 1);
    instance.queue.push_back({instance.last, std::move(copy)});
    return true;
  }

  std::size_t ingest_batch(std::span<const shard::Bytes> payloads) {
    std::size_t accepted = 0;
    for (const auto payload : payloads) {
      accepted += ingest(payload) ? 1U : 0U;
    }
    return accepted;
  }

  void drain() {
    for (auto& instance : instances_) {
      instance.queue.clear();
    }
  }

 private:
  struct Record {
    std::uint64_t ticks;
    std::string payload;
  };
  struct alignas(64) Instance {
    std::mutex mutex;
    std::uint64_t last = 0;
    std::deque<Record> queue;
  };
  std::deque<Instance> instances_;
  std::size_t capacity_;
};

}  // namespace bench
