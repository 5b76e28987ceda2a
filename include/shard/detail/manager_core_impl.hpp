#pragma once

// The parts of ManagerCore that are not on the hot path of a single event; see shard_core_impl.hpp.

#include <utility>
#include <vector>

#include "shard/detail/manager_core.hpp"
#include "shard/detail/shard_core_impl.hpp"

namespace shard::detail {

template <class Platform>
ManagerCore<Platform>::ManagerCore(const ManagerOptions& given)
    : options((given.validate(), given)),
      clock(options.time_source),
      hasher(options.seed ? *options.seed : random_seed()),
      slot_shift(64U - static_cast<unsigned>(std::countr_zero(Table::slots_for(options.shards)))),
      inline_limit(std::min(options.inline_max, options.max_payload)),
      tables(first_table(options, clock)) {}

template <class Platform>
std::shared_ptr<const RoutingTable<Platform>> ManagerCore<Platform>::first_table(
    const ManagerOptions& options, const Clock& clock) {
  std::vector<std::shared_ptr<Core>> members;
  members.reserve(options.shards);
  for (std::uint32_t id = 0; id < options.shards; ++id) {
    members.push_back(std::make_shared<Core>(ShardId{id}, options, clock));
  }
  return std::make_shared<const Table>(1, std::move(members), Table::slots_for(options.shards));
}

template <class Platform>
Outcome ManagerCore<Platform>::admit_slowly(const Item& given, std::uint32_t slot) noexcept {
  if (const auto checked = check_limits(given); checked != Outcome::accepted) {
    return count(checked);
  }
  Item item = given;
  LongPayload copy;
  if (!fits_limits(item) && !copy.move_out(item)) {
    return count(Outcome::out_of_memory);
  }
  Waiting waiting;
  for (;;) {
    if (is_closed()) {
      return count(Outcome::rejected_closed);
    }
    const auto table = tables.current();  // kept while this thread waits for one of its members
    Core* core = table->member_of(slot);
    if (core == nullptr) {
      return count(Outcome::unrouted);
    }
    const auto verdict = core->push(table->version, item, clock.now(), waiting);
    if (is_final(verdict)) {
      if (verdict == Verdict::accepted) {
        copy.taken();
      }
      return count(outcome(verdict));
    }
    if (verdict == Verdict::must_wait) {
      start_waiting(waiting);
      waiting.expired = !core->wait_for_room(waiting);
    }
    // stale: a newer table was published, or the manager closed, before the shard refused this one.
  }
}

template <class Platform>
Outcome ManagerCore<Platform>::admit_to(Core& core, const Item& given) noexcept {
  if (const auto checked = check_limits(given); checked != Outcome::accepted) {
    return count(checked);
  }
  Item item = given;
  LongPayload copy;
  if (!fits_limits(item) && !copy.move_out(item)) {
    return count(Outcome::out_of_memory);
  }
  Waiting none{.allowed = false};
  const auto verdict = core.push(Core::kAnyVersion, item, clock.now(), none);
  if (verdict == Verdict::accepted) {
    copy.taken();
  }
  return count(is_final(verdict) ? outcome(verdict) : Outcome::rejected_closed);
}

template <class Platform>
template <class Items>
std::size_t ManagerCore<Platform>::admit_batch(const Items& items, std::size_t count,
                                               Outcome* outcomes) noexcept {
  constexpr auto kChunk = Core::kEventsPerHold;
  BatchCall call;
  std::size_t accepted = 0;
  for (std::size_t base = 0; base < count; base += kChunk) {
    accepted += admit_chunk(items, base, std::min(kChunk, count - base), call,
                            outcomes == nullptr ? nullptr : outcomes + base);
  }
  return accepted;
}

template <class Platform>
template <class Items>
std::size_t ManagerCore<Platform>::admit_chunk(const Items& items, std::size_t base,
                                               std::size_t size, BatchCall& call,
                                               Outcome* caller_outcomes) noexcept {
  constexpr auto kChunk = Core::kEventsPerHold;
  using Index = std::uint16_t;  // of an event in this chunk

  // Payloads that were too long to be copied under the lock; most chunks have none.
  std::unique_ptr<LongPayload[]> copies;
  struct ChunkItems {
    const Items& items;
    std::size_t base;
    const std::unique_ptr<LongPayload[]>& copies;
    [[nodiscard]] Item operator[](Index i) const noexcept {
      Item item = items[base + i];
      if (copies != nullptr && copies[i].node() != nullptr) {
        copies[i].attach_to(item);
      }
      return item;
    }
  };
  const ChunkItems chunk{items, base, copies};

  std::array<Outcome, kChunk> outcomes;
  std::array<std::uint16_t, kChunk> slots;
  std::array<Index, kChunk> pending;
  std::size_t pending_count = 0;
  for (Index i = 0; i < size; ++i) {
    Item item = items[base + i];
    slots[i] = static_cast<std::uint16_t>(items.slot(base + i));
    if (!fits_limits(item)) [[unlikely]] {
      outcomes[i] = check_limits(item);
      if (outcomes[i] == Outcome::accepted) {
        if (copies == nullptr) {
          copies.reset(new (std::nothrow) LongPayload[size]);
        }
        if (copies == nullptr || !copies[i].move_out(item)) {
          outcomes[i] = Outcome::out_of_memory;
        }
      }
      if (outcomes[i] != Outcome::accepted) {
        count(outcomes[i]);
        continue;
      }
    }
    pending[pending_count++] = i;
  }

  std::size_t accepted = 0;
  const Table* table = tables.cached();
  std::shared_ptr<const Table> kept;
  std::array<Index, kChunk> grouped;
  std::array<std::uint16_t, kChunk> touched;
  std::array<std::uint16_t, ManagerOptions::kMaxShards> place;
  while (pending_count != 0) {
    if (is_closed()) {
      for (std::size_t p = 0; p < pending_count; ++p) {
        outcomes[pending[p]] = count(Outcome::rejected_closed);
      }
      break;
    }
    if (table == nullptr) {
      kept = tables.current();
      table = kept.get();
    }

    // A counting sort by member: sizes, then places, then the indices, which keeps their order.
    std::fill_n(place.begin(), table->members.size(), std::uint16_t{0});
    std::size_t touched_count = 0;
    std::size_t routed = 0;
    for (std::size_t p = 0; p < pending_count; ++p) {
      const auto member = table->slots[slots[pending[p]]];
      if (member == Table::kNoMember) [[unlikely]] {
        outcomes[pending[p]] = count(Outcome::unrouted);
        continue;
      }
      pending[routed++] = pending[p];
      if (place[member]++ == 0) {
        touched[touched_count++] = member;
      }
    }
    std::uint16_t begin = 0;
    for (std::size_t t = 0; t < touched_count; ++t) {
      begin = static_cast<std::uint16_t>(begin + std::exchange(place[touched[t]], begin));
    }
    for (std::size_t p = 0; p < routed; ++p) {
      grouped[place[table->slots[slots[pending[p]]]]++] = pending[p];
    }

    // A group per shard. What a shard does not take now is pending for the next round, by the then
    // current table.
    const auto now = clock.now();
    Core* full = nullptr;
    std::uint32_t ticket = 0;
    bool stale = false;
    pending_count = 0;
    begin = 0;
    for (std::size_t t = 0; t < touched_count; ++t) {
      const auto member = touched[t];
      const auto end = place[member];
      const std::span<const Index> group(grouped.data() + begin, std::size_t{end} - begin);
      begin = end;
      BufferAccess::Chain evicted;  // released after the shard's lock is
      const auto result =
          table->members[member]->push_group(table->version, chunk, group, now, call.waiting,
                                             call.refused.test(member), outcomes.data(), evicted);
      accepted += result.accepted;
      if (result.invalid != 0) {
        rejected_invalid.fetch_add(result.invalid, std::memory_order_relaxed);
      }
      if (result.refused) {
        call.refused.set(member);
      }
      for (const auto left : group.subspan(result.done)) {
        pending[pending_count++] = left;
      }
      stale = stale || result.verdict == Verdict::stale;
      if (result.verdict == Verdict::must_wait && full == nullptr) {
        full = table->members[member].get();
        ticket = call.waiting.ticket;
      }
      if (copies != nullptr) {
        for (const auto done : group.first(result.done)) {
          if (outcomes[done] == Outcome::accepted) {
            copies[done].taken();
          }
        }
      }
    }
    if (full != nullptr) {
      start_waiting(call.waiting);
      call.waiting.ticket = ticket;
      call.waiting.expired = !full->wait_for_room(call.waiting);
    }
    if (stale || full != nullptr) {
      table = nullptr;  // route again by the newest
    }
  }
  if (caller_outcomes != nullptr) {
    std::copy_n(outcomes.begin(), size, caller_outcomes);
  }
  return accepted;
}

/// What admit_batch() takes: payloads, each to the slot of its hash.
struct HashedPayloads {
  std::span<const Bytes> payloads;
  const Hasher& hasher;
  unsigned shift;
  [[nodiscard]] Item operator[](std::size_t i) const noexcept { return {payloads[i], {}, {}}; }
  [[nodiscard]] std::uint64_t slot(std::size_t i) const noexcept {
    return hasher(payloads[i]) >> shift;
  }
};

/// Payloads that all go to one slot.
struct SlottedPayloads {
  std::span<const Bytes> payloads;
  std::uint32_t one_slot;
  [[nodiscard]] Item operator[](std::size_t i) const noexcept { return {payloads[i], {}, {}}; }
  [[nodiscard]] std::uint64_t slot(std::size_t) const noexcept { return one_slot; }
};

template <class Platform>
std::size_t ManagerCore<Platform>::ingest_batch(std::span<const Bytes> payloads,
                                                std::span<Outcome> outcomes) noexcept {
  return admit_batch(HashedPayloads{payloads, hasher, slot_shift}, payloads.size(),
                     checked(outcomes, payloads.size()));
}

template <class Platform>
std::size_t ManagerCore<Platform>::ingest_to_slot(std::span<const Bytes> payloads,
                                                  std::uint32_t slot,
                                                  std::span<Outcome> outcomes) noexcept {
  return admit_batch(SlottedPayloads{payloads, slot}, payloads.size(),
                     checked(outcomes, payloads.size()));
}

template <class Platform>
std::size_t ManagerCore<Platform>::ingest_raw_batch(std::span<const RawEvent> events,
                                                    std::span<Outcome> outcomes) noexcept {
  struct RawEvents {
    std::span<const RawEvent> events;
    const ManagerCore& core;
    [[nodiscard]] Item operator[](std::size_t i) const noexcept { return item_of(events[i]); }
    [[nodiscard]] std::uint64_t slot(std::size_t i) const noexcept {
      return core.slot_of(core.hash_of(events[i]));
    }
  };
  return admit_batch(RawEvents{events, *this}, events.size(), checked(outcomes, events.size()));
}

template <class Platform>
void ManagerCore<Platform>::close() noexcept {
  const LockGuard lock(topology);
  closed_.store(true, std::memory_order_release);  // [manager.closed] -> is_closed()
  for (const auto& member : tables.peek()->members) {
    member->raise_min_version(Core::kClosed);
  }
}

template <class Platform>
void ManagerCore<Platform>::retire() noexcept {
  close();
  for (const auto& member : tables.peek()->members) {
    member->retire();
  }
}

}  // namespace shard::detail
