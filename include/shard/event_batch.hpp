#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <utility>

#include "shard/buffer.hpp"
#include "shard/detail/cache.hpp"
#include "shard/detail/record.hpp"
#include "shard/event.hpp"
#include "shard/ids.hpp"

namespace shard {

/// Storage for popped events: one block of bytes and a list of the events in it, both reused from one
/// pop to the next, so that popping into it allocates nothing once it has grown to its working size.
///
/// Threads: one at a time.
class EventBatch {
 public:
  class Iterator;

  EventBatch() noexcept = default;
  EventBatch(EventBatch&& other) noexcept { swap(other); }
  EventBatch& operator=(EventBatch&& other) noexcept {
    EventBatch taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~EventBatch() { clear(); }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }

  /// The sum of the payload sizes.
  [[nodiscard]] std::size_t payload_bytes() const noexcept { return payload_bytes_; }

  /// The event at `index` < size(), in the order of popping. Constant time.
  [[nodiscard]] Event operator[](std::size_t index) const noexcept;

  [[nodiscard]] Iterator begin() const noexcept;
  [[nodiscard]] Iterator end() const noexcept;

  /// Forgets the events and keeps the storage; releases the buffers that hosts moved in.
  void clear() noexcept;

  /// Makes room for so many more events and bytes. Throws std::bad_alloc, and then changes nothing.
  void reserve_more(std::size_t events, std::size_t bytes);

  void swap(EventBatch& other) noexcept;

 private:
  friend struct EventBatchAccess;

  struct Entry {
    std::uint64_t timestamp;
    std::uint64_t sequence;
    std::size_t offset;  ///< of the block in bytes_; laid out as Record says
    std::uint32_t size;
    std::uint32_t shard;
    std::uint16_t key_size;
    std::uint16_t flags;
  };

  [[nodiscard]] BufferAccess::Node* node(const Entry& entry) const noexcept {
    BufferAccess::Node* node = nullptr;
    const auto skip = (entry.flags & detail::Record::kHasSource) != 0 ? sizeof(SourceIdentity) : 0U;
    std::memcpy(&node, bytes_.get() + entry.offset + skip, sizeof node);
    return node;
  }

  std::unique_ptr<Entry[]> entries_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t bytes_used_ = 0;
  std::size_t bytes_capacity_ = 0;
  std::size_t payload_bytes_ = 0;
  std::size_t owned_ = 0;  ///< entries that own a buffer
};

/// Iterates over the events of a batch, by value.
class EventBatch::Iterator {
 public:
  using value_type = Event;
  using difference_type = std::ptrdiff_t;
  using reference = Event;
  using pointer = void;
  using iterator_category = std::input_iterator_tag;

  Iterator() noexcept = default;
  Iterator(const EventBatch* batch, std::size_t index) noexcept : batch_(batch), index_(index) {}

  [[nodiscard]] Event operator*() const noexcept { return (*batch_)[index_]; }
  Iterator& operator++() noexcept {
    ++index_;
    return *this;
  }
  Iterator operator++(int) noexcept {
    auto before = *this;
    ++index_;
    return before;
  }
  bool operator==(const Iterator&) const noexcept = default;

 private:
  const EventBatch* batch_ = nullptr;
  std::size_t index_ = 0;
};

inline EventBatch::Iterator EventBatch::begin() const noexcept { return {this, 0}; }
inline EventBatch::Iterator EventBatch::end() const noexcept { return {this, size_}; }

inline Event EventBatch::operator[](std::size_t index) const noexcept {
  const Entry& entry = entries_[index];
  Event event{};
  event.timestamp = {entry.timestamp};
  event.shard = {entry.shard};
  event.sequence = {entry.sequence};
  const std::byte* at = bytes_.get() + entry.offset;
  if ((entry.flags & detail::Record::kHasSource) != 0) {
    SourceIdentity source;
    std::memcpy(&source, at, sizeof source);
    event.source = source;
    at += sizeof source;
  }
  const bool owned = (entry.flags & detail::Record::kOwned) != 0;
  at += owned ? sizeof(BufferAccess::Node*) : 0;
  if ((entry.flags & detail::Record::kHasKey) != 0) {
    event.key = Key{Bytes{at, entry.key_size}};
  }
  event.payload = owned ? node(entry)->bytes : Bytes{at + entry.key_size, entry.size};
  return event;
}

inline void EventBatch::clear() noexcept {
  for (std::size_t i = 0; owned_ != 0; ++i) {
    if ((entries_[i].flags & detail::Record::kOwned) != 0) {
      const Buffer released = BufferAccess::adopt(node(entries_[i]));
      --owned_;
    }
  }
  size_ = 0;
  bytes_used_ = 0;
  payload_bytes_ = 0;
}

inline void EventBatch::reserve_more(std::size_t events, std::size_t bytes) {
  // Both new blocks first: a throw leaves the batch as it was.
  const auto grow = [](auto& block, std::size_t used, std::size_t capacity, std::size_t more) {
    using Element = std::remove_reference_t<decltype(block[0])>;
    std::unique_ptr<Element[]> next;
    if (more > std::numeric_limits<std::size_t>::max() / sizeof(Element) - used) {
      throw std::bad_alloc();  // the sum below, or its bytes, would wrap and make too little room
    }
    if (capacity - used < more) {
      next = std::make_unique_for_overwrite<Element[]>(std::max(used + more, capacity * 2));
    }
    return next;
  };
  auto entries = grow(entries_, size_, capacity_, events);
  auto block = grow(bytes_, bytes_used_, bytes_capacity_, bytes);
  if (entries != nullptr) {
    std::copy_n(entries_.get(), size_, entries.get());
    entries_ = std::move(entries);
    capacity_ = std::max(size_ + events, capacity_ * 2);
  }
  if (block != nullptr) {
    if (bytes_used_ != 0) {
      std::memcpy(block.get(), bytes_.get(), bytes_used_);
    }
    bytes_ = std::move(block);
    bytes_capacity_ = std::max(bytes_used_ + bytes, bytes_capacity_ * 2);
  }
}

inline void EventBatch::swap(EventBatch& other) noexcept {
  std::swap(entries_, other.entries_);
  std::swap(size_, other.size_);
  std::swap(capacity_, other.capacity_);
  std::swap(bytes_, other.bytes_);
  std::swap(bytes_used_, other.bytes_used_);
  std::swap(bytes_capacity_, other.bytes_capacity_);
  std::swap(payload_bytes_, other.payload_bytes_);
  std::swap(owned_, other.owned_);
}

/// For the library: fills a batch from a shard's ring.
struct EventBatchAccess {
  [[nodiscard]] static std::size_t event_room(const EventBatch& batch) noexcept {
    return batch.capacity_ - batch.size_;
  }
  [[nodiscard]] static std::size_t byte_room(const EventBatch& batch) noexcept {
    return batch.bytes_capacity_ - batch.bytes_used_;
  }

  /// Appends events to a batch that has room for them. The events first: the batch has them only after commit(). Their
  /// bytes in runs, in the same order, without gaps.
  class Appender {
   public:
    Appender(EventBatch& batch, ShardId shard, std::uint64_t first_sequence) noexcept
        : batch_(batch),
          entry_(batch.entries_.get() + batch.size_),
          offset_(batch.bytes_used_),
          sequence_(first_sequence),
          shard_(shard.value) {}

    /// \param block  of the record, which has it: worked out once
    SHARD_ALWAYS_INLINE void event(const detail::Record& record, std::uint32_t block) noexcept {
      *entry_++ = {record.timestamp(), sequence_++,   offset_, record.size(), shard_,
                   record.key_size(),  record.flags()};
      offset_ += block;
      payload_bytes_ += record.size();
      owned_ += record.has(detail::Record::kOwned) ? 1U : 0U;
    }
    [[nodiscard]] std::uint64_t payload_bytes() const noexcept { return payload_bytes_; }

    /// In pieces: for long runs memcpy() changes to `rep movsb`, which on some virtual machines takes twice as long for
    /// bytes that come from another core. The prefetches have several lines on their way at a time.
    void run(const std::byte* from, std::size_t size) noexcept {
      constexpr std::size_t kPiece = 512;
      constexpr std::size_t kAhead = 1'024;
      auto* to = batch_.bytes_.get() + batch_.bytes_used_;
      batch_.bytes_used_ += size;
      while (size > kPiece) {
        for (std::size_t line = 0; line < kPiece && kAhead + line < size;
             line += detail::kCacheLine) {
          detail::prefetch(from + kAhead + line);
        }
        std::memcpy(to, from, kPiece);
        to += kPiece;
        from += kPiece;
        size -= kPiece;
      }
      if (size != 0) {
        std::memcpy(to, from, size);
      }
    }

    void commit() noexcept {
      batch_.size_ = static_cast<std::size_t>(entry_ - batch_.entries_.get());
      batch_.payload_bytes_ += payload_bytes_;
      batch_.owned_ += owned_;
    }

   private:
    EventBatch& batch_;
    EventBatch::Entry* entry_;
    std::size_t offset_;
    std::uint64_t sequence_;
    std::uint64_t payload_bytes_ = 0;
    std::size_t owned_ = 0;
    std::uint32_t shard_;
  };

  [[nodiscard]] static std::uint64_t timestamp(const EventBatch& batch,
                                               std::size_t index) noexcept {
    return batch.entries_[index].timestamp;
  }
  [[nodiscard]] static std::uint64_t sequence(const EventBatch& batch, std::size_t index) noexcept {
    return batch.entries_[index].sequence;
  }

  /// Of the events `[first, first + size)`, moves those at `indices` (ascending, counted from `first`) behind the others;
  /// both keep their order, no payload moves, nothing is allocated.
  static void move_back(EventBatch& batch, std::size_t first, std::size_t size,
                        std::span<const std::size_t> indices) noexcept {
    auto* const entries = batch.entries_.get() + first;
    std::size_t kept = 0;
    auto next = indices.begin();
    for (std::size_t i = 0; i < size; ++i) {
      if (next != indices.end() && *next == i) {
        ++next;
      } else {
        std::swap(entries[kept++], entries[i]);
      }
    }
    // Those that were swapped back are in disorder; their sequence numbers tell what it was.
    std::sort(entries + kept, entries + size,
              [](const auto& a, const auto& b) { return a.sequence < b.sequence; });
  }
};

}  // namespace shard
