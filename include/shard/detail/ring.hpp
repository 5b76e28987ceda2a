#pragma once

#include <atomic>
#include <boost/lockfree/spsc_queue.hpp>
#include <cstddef>
#include <cstdint>
#include <span>

#include "shard/detail/annotations.hpp"
#include "shard/detail/cache.hpp"
#include "shard/detail/check.hpp"
#include "shard/detail/record.hpp"

namespace shard::detail {

/// The ring of one shard: a bounded single-producer single-consumer queue of records.
///
/// Threads:  one at a time pushes, one at a time pops (the shard's locks see to it). Who moves an index
///           holds its Turn, which in debug builds catches two turns that overlap; turns of different
///           threads one after the other are fine.
/// Ordering: what the producer did before push() is visible to whoever pops the record (Boost stores
///           its write index with release and loads it with acquire).
/// Memory:   never allocates after construction.
class Ring {
 public:
  /// \param capacity  a power of two >= 2; capacity - 1 records fit.
  explicit Ring(std::size_t capacity) : records_(capacity - 1), last_slot_(capacity - 1) {
    records_.push(Record{});
    slots_ = reinterpret_cast<std::uintptr_t>(&records_.front());
    records_.reset();
  }

  /// Holds one end of the ring for a scope; released on every way out of it.
  class Turn {
   public:
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() {
      if constexpr (kDebugChecks) {
        busy_.store(false, std::memory_order_relaxed);  // a check, not a lock: orders nothing
      }
    }

   private:
    friend class Ring;
    Turn(std::atomic<bool>& busy, const char* what) : busy_(busy) {
      if constexpr (kDebugChecks) {
        expects(!busy_.exchange(true, std::memory_order_relaxed), what);
      }
    }
    std::atomic<bool>& busy_;
  };

  [[nodiscard]] Turn write_turn() {
    return {writing_, "two threads move the write index of a ring"};
  }
  [[nodiscard]] Turn read_turn() { return {reading_, "two threads move the read index of a ring"}; }

  /// Appends all of `records`; the caller has made sure that they fit.
  void push(const Turn&, std::span<const Record> records) noexcept {
    const auto pushed = records_.push(records.data(), records.size());
    expects(pushed == records.size(), "a ring was pushed beyond its capacity");
  }
  void push(const Turn&, const Record& record) noexcept {
    [[maybe_unused]] const bool pushed = records_.push(record);
    expects(pushed, "a ring was pushed beyond its capacity");
  }

  /// Asks for the line of the record that will be pushed a few after number `position`, counted from 0 for the first of
  /// this ring: the consumer's core has it. Without that a producer waits for it when it takes the next lock, as a
  /// locked instruction waits until all that was written before has left the core.
  SHARD_ALWAYS_INLINE void prefetch_after(std::uint64_t position) const noexcept {
    const auto slot = (static_cast<std::size_t>(position) + kAhead) & last_slot_;
    prefetch_for_writing(slots_ + slot * sizeof(Record));
  }

  /// Asks for the record of that number, to be read: the producer's core has it.
  void prefetch_at(std::uint64_t position) const noexcept {
    const auto slot = static_cast<std::size_t>(position) & last_slot_;
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address to ask for, that is all
    const auto* record = reinterpret_cast<const std::byte*>(slots_) + slot * sizeof(Record);
    prefetch(record);
    prefetch(record + sizeof(Record) - 1);
  }

  /// Takes up to `out.size()` of the oldest records; returns how many.
  [[nodiscard]] std::size_t pop(const Turn&, std::span<Record> out) noexcept {
    return records_.pop(out.data(), out.size());
  }

 private:
  static constexpr std::size_t kAhead = 16;

  boost::lockfree::spsc_queue<Record> records_;
  std::size_t last_slot_;
  std::uintptr_t slots_;  ///< where Boost keeps the records
  std::atomic<bool> writing_{false};
  std::atomic<bool> reading_{false};
};

}  // namespace shard::detail
