#pragma once

// The parts of ManagerCore that are not on the hot path of a single event; see shard_core_impl.hpp.

#include <utility>
#include <vector>

#include "shard/detail/manager_core.hpp"
#include "shard/detail/scaler_impl.hpp"
#include "shard/detail/shard_core_impl.hpp"
#include "shard/detail/topology_impl.hpp"

namespace shard::detail {

template <class Platform>
ManagerCore<Platform>::ManagerCore(const ManagerOptions& given, const Consumption* consumption)
    : options((given.validate(), given)),
      clock(options.time_source),
      hasher(options.seed ? *options.seed : random_seed()),
      slot_shift(64U - static_cast<unsigned>(std::countr_zero(Table::slots_for(options)))),
      inline_limit(std::min(options.inline_max, options.max_payload)),
      ready(),
      consumer{
          consumption == nullptr ? nullptr : &ready.emplace(clock, consumption->max_claims),
          consumption == nullptr ? decltype(Consumer<Platform>::attach){} : consumption->attach},
      topology(options, clock, consumption == nullptr ? nullptr : &consumer),
      scaler(topology, options, clock) {}

template <class Platform>
Outcome ManagerCore<Platform>::admit_slowly(const Item& given, std::uint32_t slot,
                                            Timestamp now) noexcept {
  if (const auto checked = check_limits(given); checked != Outcome::accepted) {
    return count(checked);
  }
  Item item = given;
  LongPayload copy;
  if (!fits_limits(item)) {
    if (!copy.move_out(item)) {
      return count(Outcome::out_of_memory);
    }
    now = clock.now();
  }
  Waiting waiting{.allowed = !is_worker_of(this)};
  for (;;) {
    if (is_closed()) {
      return count(Outcome::rejected_closed);
    }
    // Valid until this thread reads a newer one, also if it waits. When a shard has refused a push as stale, the lock under
    // which it did shows that there is a newer one.
    const auto table = topology.tables.read();
    Core* core = table->member_of(slot);
    if (core == nullptr) {
      return count(Outcome::unrouted);
    }
    const auto verdict = core->push(table->version, item, slot, now, waiting);
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
    // Else it was stale: a newer table was published, or the manager closed, before this one was refused.
    now = clock.now();
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
  const auto verdict = is_forked()
                           ? Verdict::stale
                           : core.push(Core::kAnyVersion, item, Core::kNoSlot, clock.now(), none);
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
  call.waiting.allowed = !is_worker_of(this);
  std::size_t accepted = 0;
  for (std::size_t base = 0; base < count; base += kChunk) {
    accepted += admit_chunk(items, base, std::min(kChunk, count - base), call,
                            outcomes == nullptr ? nullptr : outcomes + base);
  }
  return accepted;
}

template <class Platform>
void ManagerCore<Platform>::route_by_newest(BatchCall& call) const noexcept {
  if (call.refused.any()) {
    const auto& slots = call.table->slots;
    try {
      if (call.refused_slots == nullptr) {
        call.refused_slots = std::make_unique<std::vector<bool>>(slots.size());
      }
      for (std::size_t slot = 0; slot < slots.size(); ++slot) {
        if (slots[slot] != Table::kNoMember && call.refused.test(slots[slot])) {
          (*call.refused_slots)[slot] = true;
        }
      }
    } catch (const std::bad_alloc&) {
      call.refuse_all = true;
    }
    call.refused.reset();
  }
  call.table = topology.tables.cached();
  if (call.table == nullptr) {
    call.kept = topology.tables.current();
    call.table = call.kept.get();
  }
}

template <class Platform>
template <class Items>
std::size_t ManagerCore<Platform>::admit_chunk(const Items& items, std::size_t base,
                                               std::size_t size, BatchCall& call,
                                               Outcome* caller_outcomes) noexcept {
  constexpr auto kChunk = Core::kEventsPerHold;
  using Index = GroupIndex;

  // Payloads that are too long to be copied under the lock; most chunks have none.
  std::unique_ptr<LongPayload[]> copies;
  struct ChunkItems {
    const Items& items;
    std::size_t base;
    const std::unique_ptr<LongPayload[]>& copies;
    [[nodiscard]] Item operator[](Index i) const noexcept {
      Item item = items[base + i];
      if (copies != nullptr && copies[i].node() != nullptr) [[unlikely]] {
        copies[i].attach_to(item);
      }
      return item;
    }
  };
  const ChunkItems chunk{items, base, copies};
  const auto move_out = [&](Index i, Item& item) {
    if (copies == nullptr) {
      copies.reset(new (std::nothrow) LongPayload[size]);
    }
    return copies != nullptr && copies[i].move_out(item) ? Outcome::accepted
                                                         : Outcome::out_of_memory;
  };

  // No array here is zeroed, which would be kilobytes on the way of every batch: each is written before it is read.
  // NOLINTBEGIN(cppcoreguidelines-pro-type-member-init)
  std::array<Outcome, kChunk> own_outcomes;
  Outcome* const outcomes = caller_outcomes != nullptr ? caller_outcomes : own_outcomes.data();

  if (call.table == nullptr) {
    route_by_newest(call);
  }

  // The events of each member as a list, in one pass: first[m] and last[m] are its ends, next[i] follows i.
  std::array<std::uint16_t, kChunk> slots;
  std::array<Index, kChunk> next;
  std::array<Index, Table::kMaxMembers> first;
  std::array<Index, Table::kMaxMembers> last;
  std::array<std::uint16_t, kChunk> touched;  // members that have a list
  std::size_t touched_count = 0;
  const Table* table = call.table;
  const auto clear_lists = [&] {
    touched_count = 0;
    std::fill_n(last.begin(), table->members.size(), kGroupEnd);
  };
  const auto append = [&](Index i) {
    const auto member = table->slots[slots[i]];
    if (member == Table::kNoMember) [[unlikely]] {
      outcomes[i] = count(is_closed() ? Outcome::rejected_closed : Outcome::unrouted);
      return;
    }
    next[i] = kGroupEnd;
    const auto before = std::exchange(last[member], i);
    if (before == kGroupEnd) {
      touched[touched_count++] = member;
      first[member] = i;
    } else {
      next[before] = i;
    }
  };
  // An event behind one that was refused, when the table has changed in between; false if this table is stale too.
  const auto refuse_like_before = [&](Index i) {
    const auto member = table->slots[slots[i]];
    if (!call.refuses(slots[i]) || member == Table::kNoMember) {
      return false;
    }
    next[i] = kGroupEnd;
    return table->members[member]
               .core
               ->push_group(table->version, chunk, {i, next.data()}, Timestamp{}, call.waiting,
                            true, outcomes, call.evicted)
               .rest == kGroupEnd;
  };

  items.find_slots(base, std::span(slots).first(size));
  clear_lists();
  for (Index i = 0; i < static_cast<Index>(size); ++i) {  // a chunk at most
    Item item = items[base + i];
    if (!fits_limits(item)) [[unlikely]] {
      outcomes[i] = check_limits(item);
      if (outcomes[i] == Outcome::accepted) {
        outcomes[i] = move_out(i, item);
      }
      if (outcomes[i] != Outcome::accepted) {
        count(outcomes[i]);
        continue;
      }
    }
    if (call.has_refused_slots() && refuse_like_before(i)) [[unlikely]] {
      continue;
    }
    append(i);
  }

  // What a shard does not take now is routed again, by the then current table.
  std::array<Index, kChunk> pending;
  // NOLINTEND(cppcoreguidelines-pro-type-member-init)
  std::size_t accepted = 0;
  for (;;) {
    const auto now = clock.now();
    std::size_t pending_count = 0;
    Core* full = nullptr;
    std::uint32_t ticket = 0;
    bool stale = false;
    for (std::size_t t = 0; t < touched_count; ++t) {
      const auto member = touched[t];
      const auto result = table->members[member].core->push_group(
          table->version, chunk, {first[member], next.data()}, now, call.waiting,
          call.refused.test(member), outcomes, call.evicted);
      accepted += result.accepted;
      if (result.measured != Core::Measured::no) [[unlikely]] {
        table->members[member].core->sample(now, result.measured, slots[first[member]]);
      }
      if (result.invalid != 0) {
        rejected_invalid.fetch_add(result.invalid, std::memory_order_relaxed);
      }
      if (result.refused) {
        call.refused.set(member);
      }
      if (copies != nullptr) {
        for (auto i = first[member]; i != result.rest; i = next[i]) {
          if (outcomes[i] == Outcome::accepted) {
            copies[i].taken();
          }
        }
      }
      for (auto i = result.rest; i != kGroupEnd; i = next[i]) {
        pending[pending_count++] = i;
      }
      stale = stale || result.verdict == Verdict::stale;
      if (result.verdict == Verdict::must_wait && full == nullptr) {
        full = table->members[member].core.get();
        ticket = call.waiting.ticket;
      }
    }
    if (pending_count == 0) {
      return accepted;
    }
    if (is_closed()) {
      for (std::size_t p = 0; p < pending_count; ++p) {
        outcomes[pending[p]] = count(Outcome::rejected_closed);
      }
      return accepted;
    }
    if (full != nullptr) {
      start_waiting(call.waiting);
      call.waiting.ticket = ticket;
      call.waiting.expired = !full->wait_for_room(call.waiting);
    }
    if (stale || full != nullptr) {
      route_by_newest(call);
      table = call.table;
    }
    clear_lists();
    for (std::size_t p = 0; p < pending_count; ++p) {
      if (!call.has_refused_slots() || !refuse_like_before(pending[p])) {
        append(pending[p]);
      }
    }
  }
}

// What admit_batch() takes: items by index, and the slots of a run of them.

/// Payloads, each to the slot of its hash.
struct HashedPayloads {
  std::span<const Bytes> payloads;
  const Hasher& hasher;
  unsigned shift;
  [[nodiscard]] Item operator[](std::size_t i) const noexcept { return {payloads[i], {}, {}}; }
  void find_slots(std::size_t base, std::span<std::uint16_t> slots) const noexcept {
    // A chunk at most. Not zeroed, as above: many() writes what is read.
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init)
    std::array<std::uint64_t, 256> hashes;
    hasher.many(payloads.subspan(base, slots.size()), hashes.data());
    for (std::size_t i = 0; i < slots.size(); ++i) {
      slots[i] = static_cast<std::uint16_t>(hashes[i] >> shift);
    }
  }
};

/// Payloads that all go to one slot.
struct SlottedPayloads {
  std::span<const Bytes> payloads;
  std::uint32_t one_slot;
  [[nodiscard]] Item operator[](std::size_t i) const noexcept { return {payloads[i], {}, {}}; }
  void find_slots(std::size_t, std::span<std::uint16_t> slots) const noexcept {
    std::fill(slots.begin(), slots.end(), static_cast<std::uint16_t>(one_slot));
  }
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
    void find_slots(std::size_t base, std::span<std::uint16_t> slots) const noexcept {
      for (std::size_t i = 0; i < slots.size(); ++i) {
        slots[i] = static_cast<std::uint16_t>(core.slot_of(core.hash_of(events[base + i])));
      }
    }
  };
  return admit_batch(RawEvents{events, *this}, events.size(), checked(outcomes, events.size()));
}

template <class Platform>
void ManagerCore<Platform>::close() noexcept {
  if (is_forked()) {
    return;
  }
  closed_.store(true, std::memory_order_release);  // [manager.closed] -> is_closed()
  topology.close();
}

template <class Platform>
void ManagerCore<Platform>::retire() noexcept {
  if (is_forked()) {
    return;
  }
  closed_.store(true, std::memory_order_release);  // [manager.closed] -> is_closed()
  topology.retire();
}

}  // namespace shard::detail
