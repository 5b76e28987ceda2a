#pragma once

// The parts of ShardCore that are not on the hot path of a single event. Included where the template
// is instantiated: by the library for SystemPlatform, by tests for theirs.

#include "shard/detail/shard_core.hpp"

namespace shard::detail {

template <class Platform>
ShardCore<Platform>::ShardCore(ShardId id, const ManagerOptions& options, const Clock& clock,
                               const Consumer<Platform>* consumer, bool closed)
    : id_(id),
      usable_(static_cast<std::uint32_t>(options.ring_capacity - 1)),
      backpressure_(options.backpressure),
      clock_(clock),
      consumer_(consumer),
      ring_(std::in_place, options.ring_capacity),
      min_version_(closed ? kClosed : 0),
      room_(usable_),
      arena_(options.ring_bytes),
      stage_(std::make_unique<Stage>()) {
  look_for_room();
  for (auto& slot : sampled_slots_) {
    slot.store(static_cast<std::uint16_t>(kNoSlot), std::memory_order_relaxed);
  }
  if (consumer_ != nullptr) {
    node_ = consumer_->attach(*this);
    static_cast<void>(watch_for(1, options.ring_bytes));
  }
}

template <class Platform>
void ShardCore<Platform>::sample(Timestamp before, Measured measured, std::uint32_t slot) noexcept {
  // Virtual time says nothing about what a push costs. Statistics order nothing: relaxed.
  const auto now = clock_.is_real() ? clock_.now() : before;
  const auto took = now > before ? now.nanoseconds - before.nanoseconds : 0;
  if (measured == Measured::waited) {
    waited_ns_.fetch_add(took, std::memory_order_relaxed);
  } else {
    sampled_.fetch_add(1, std::memory_order_relaxed);
    sampled_ns_.fetch_add(took, std::memory_order_relaxed);
  }
  const auto place = slots_sampled_.fetch_add(1, std::memory_order_relaxed) % kSlotSamples;
  sampled_slots_[place].store(static_cast<std::uint16_t>(slot), std::memory_order_relaxed);
}

// ---------------------------------------------------------------------------------- overflow

template <class Platform>
void ShardCore<Platform>::count_refusal(Outcome refusal, std::uint64_t events) noexcept {
  switch (refusal) {
    case Outcome::dropped_newest:
    case Outcome::sampled_out:
      add(lost_at_door_, events);
      break;
    case Outcome::rejected_full:
      add(rejected_full_, events);
      break;
    case Outcome::rejected_timeout:
      add(rejected_timeout_, events);
      break;
    default:
      break;  // invalid ones count at the manager
  }
}

template <class Platform>
Verdict ShardCore<Platform>::decide_overflow(std::uint64_t cost, Waiting& waiting) noexcept {
  const auto refuse = [&](Outcome refusal) SHARD_NO_THREAD_SAFETY_ANALYSIS {
    count_refusal(refusal, 1);
    return verdict(refusal);
  };
  // It is full, which bytes skipped at the end of the circle can make it long before the consumer would say that there is
  // enough for a batch: what is there is not to wait for more.
  flush_to_.store(tail(), std::memory_order_relaxed);  // watch_for() or announce() hands it over
  switch (backpressure_.mode) {
    case BackpressureMode::drop_newest:
      return refuse(Outcome::dropped_newest);
    case BackpressureMode::fail_producer:
      return refuse(Outcome::rejected_full);
    case BackpressureMode::drop_oldest:
      return Verdict::accepted;
    case BackpressureMode::sample:
      return ++overflows_ % backpressure_.rate == 0 ? Verdict::accepted
                                                    : refuse(Outcome::sampled_out);
    case BackpressureMode::block:
      break;
  }
  if (!waiting.allowed) {
    return refuse(Outcome::rejected_full);
  }
  if (waiting.expired) {
    return refuse(Outcome::rejected_timeout);
  }
  // The consumer gives room back and then notifies; we announce ourselves and then look again. One of
  // the two sees the other (EventCount says why).
  waiting.ticket = space_.prepare();
  return has_room(cost, pushed()) ? Verdict::accepted : Verdict::must_wait;
}

template <class Platform>
void ShardCore<Platform>::evict_for(std::uint64_t cost, BufferAccess::Chain& evicted,
                                    News& news) noexcept {
  // Whoever waits for what is evicted here has to be told: this shard may itself be behind a fence, so that no worker
  // moves it on.
  news.moved = news.moved || watermark() < waited_for_;
  // A consumer may have made room before we got its lock: look again before each eviction.
  while (!has_room(cost, pushed())) {
    const auto turn = ring_->read_turn();
    const auto oldest = staged(turn);
    expects(!oldest.empty(), "an event does not fit into an empty shard");
    if (oldest.empty()) {
      return;
    }
    chain_if_owned(oldest.front(), evicted);
    ++stage_begin_;
    add(evicted_, 1);
    release_records(1, oldest.front().cost());
  }
}

template <class Platform>
Verdict ShardCore<Platform>::push(std::uint64_t version, const Item& item, std::uint32_t slot,
                                  Timestamp now, Waiting& waiting) noexcept {
  BufferAccess::Chain evicted;  // outlives the locks: releasing a buffer runs the host's code
  News news;
  auto verdict_of_push = Verdict::accepted;
  Measured measured = Measured::no;
  {
    const LockGuard lock(producer_);
    if (version < min_version_) {
      return Verdict::stale;
    }
    if (next_timestamp_ > Timestamp::max().nanoseconds) {
      return verdict(Outcome::timestamps_exhausted);  // before anything is evicted for it
    }
    const auto room = measure(item);
    if (!has_room(room.cost, pushed()) && !has_room_after_all(room.cost, pushed(), news)) {
      verdict_of_push = decide_overflow(room.cost, waiting);
      if (verdict_of_push == Verdict::accepted) {
        const LockGuard consumer(pop_);
        evict_for(room.cost, evicted, news);
      }
    }
    if (verdict_of_push == Verdict::accepted) {
      verdict_of_push = push_fitting(item, room, now, pushed());
      measured = to_measure(lock.contended(), pushed(), 1);
    }
  }
  pass_on(news);
  if (measured != Measured::no) {
    sample(now, measured, slot);
  }
  return verdict_of_push;
}

template <class Platform>
Verdict ShardCore<Platform>::push_locked(const Item& item, Timestamp now,
                                         BufferAccess::Chain& evicted, News& news) noexcept {
  if (min_version_ > kAnyVersion) {
    return Verdict::stale;
  }
  if (next_timestamp_ > Timestamp::max().nanoseconds) {
    return verdict(Outcome::timestamps_exhausted);
  }
  const auto room = measure(item);
  if (!has_room(room.cost, pushed()) && !has_room_after_all(room.cost, pushed(), news)) {
    Waiting none{.allowed = false};
    const auto decision = decide_overflow(room.cost, none);
    if (decision != Verdict::accepted) {
      return decision;
    }
    evict_for(room.cost, evicted, news);
  }
  return push_fitting(item, room, now, pushed());
}

template <class Platform>
template <class Items>
typename ShardCore<Platform>::GroupResult ShardCore<Platform>::push_group_unannounced(
    std::uint64_t version, const Items& items, Group group, Timestamp now, Waiting& waiting,
    bool refuse, Outcome* outcomes, BufferAccess::Chain& evicted) noexcept {
  const LockGuard lock(producer_);
  GroupResult result;
  auto at = group.first;
  if (version < min_version_) {
    result.verdict = Verdict::stale;
    result.rest = at;
    return result;
  }

  // Put together here, then pushed at once. Not zeroed: 6 KiB in each hold of the lock, and only what was built is read.
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init)
  std::array<Record, kEventsPerHold> records;
  std::size_t built = 0;
  const auto publish = [&]() SHARD_NO_THREAD_SAFETY_ANALYSIS {
    if (built != 0) {
      const auto turn = ring_->write_turn();
      pushed_.store(pushed() + built, std::memory_order_relaxed);  // before the push, as for one
      ring_->push(turn, std::span(records).first(built));
      built = 0;
    }
  };
  const auto refuse_rest = [&](Outcome refusal) SHARD_NO_THREAD_SAFETY_ANALYSIS {
    std::uint16_t refused = 0;
    for (; at != kGroupEnd; at = group.next[at]) {
      outcomes[at] = refusal;
      ++refused;
    }
    count_refusal(refusal, refused);
    result.invalid = is_invalid(refusal) ? refused : std::uint16_t{0};
    result.refused = true;
  };

  if (refuse) {
    refuse_rest(backpressure_.mode == BackpressureMode::drop_newest ? Outcome::dropped_newest
                : backpressure_.mode == BackpressureMode::block && waiting.allowed
                    ? Outcome::rejected_timeout
                    : Outcome::rejected_full);
    return result;
  }

  std::uint64_t copied = 0;
  for (; at != kGroupEnd; at = group.next[at]) {
    if (copied > kBytesPerHold) [[unlikely]] {
      result.verdict = Verdict::again;
      break;
    }
    if (next_timestamp_ > Timestamp::max().nanoseconds) [[unlikely]] {
      refuse_rest(Outcome::timestamps_exhausted);
      result.refused = false;  // the rest of the call gets this answer too, not the mode's
      break;
    }
    const Item item = items[at];
    const auto room = measure(item);
    if (!has_room(room.cost, pushed() + built) &&
        !has_room_after_all(room.cost, pushed() + built, result.news)) [[unlikely]] {
      publish();  // an eviction must find all that is older
      const auto decision = decide_overflow(room.cost, waiting);
      if (decision == verdict(Outcome::sampled_out)) {
        outcomes[at] =
            Outcome::sampled_out;  // this mode chooses single events: the next has its own chance
        continue;
      }
      if (!is_final(decision)) {
        result.verdict = decision;
        break;
      }
      if (decision != Verdict::accepted) {
        outcomes[at] = outcome(decision);  // decide_overflow() has counted this one
        at = group.next[at];
        refuse_rest(outcome(decision));
        break;
      }
      const LockGuard consumer(pop_);
      evict_for(room.cost, evicted, result.news);
    }
    arena_.prefetch_after(room.place);
    records[built++] = store(item, room, now);
    copied += room.place.held;
    outcomes[at] = Outcome::accepted;
    ++result.accepted;
  }
  publish();
  result.measured = to_measure(lock.contended(), pushed(), result.accepted);
  result.rest = at;
  return result;
}

// ---------------------------------------------------------------------------------- popping

template <class Platform>
std::span<const Record> ShardCore<Platform>::staged(const Ring::Turn& turn) noexcept {
  if (stage_begin_ == stage_end_) {
    stage_begin_ = 0;
    stage_end_ = static_cast<std::uint32_t>(ring_->pop(turn, *stage_));
  }
  return std::span<const Record>(*stage_).subspan(stage_begin_, stage_end_ - stage_begin_);
}

template <class Platform>
void ShardCore<Platform>::release_records(std::size_t events, std::uint64_t cost) noexcept {
  arena_.free(cost);
  head_.store(head_.load(std::memory_order_relaxed) + events,
              std::memory_order_release);  // [shard.head] -> has_room(), length(), ledger()
  publish_watermark();
}

template <class Platform>
void ShardCore<Platform>::chain_if_owned(const Record& record,
                                         BufferAccess::Chain& chain) const noexcept {
  if (record.has(Record::kOwned)) {
    BufferAccess::Node* node = nullptr;
    std::memcpy(&node, arena_.at(record.offset()) + record.prefix() - sizeof node, sizeof node);
    chain.add(node);
  }
}

template <class Platform>
typename ShardCore<Platform>::Hold ShardCore<Platform>::pop_hold(
    EventBatch& out, std::size_t max_events, std::uint64_t max_bytes, std::uint64_t before_fence,
    bool first, Count& count) noexcept {
  Hold hold;
  if (!ring_ || before_fence == 0) {
    return hold;
  }
  const auto turn = ring_->read_turn();
  // What an earlier pop or eviction has left staged says nothing of what the ring holds behind it.
  const bool leftover = stage_begin_ != stage_end_;
  const auto records = staged(turn);
  const auto room_bytes = EventBatchAccess::byte_room(out);
  const auto limit = std::min({max_events, records.size(), EventBatchAccess::event_room(out),
                               static_cast<std::size_t>(before_fence)});

  EventBatchAccess::Appender appender(out, id_, head_.load(std::memory_order_relaxed));
  // Blocks that lie one after the other are copied as one run; there are two when the circle wraps.
  std::uint32_t run_begin = 0;
  std::uint32_t run_end = 0;
  std::size_t room_used = 0;
  std::uint64_t cost = 0;
  for (; hold.events < limit; ++hold.events) {
    const auto& record = records[hold.events];
    const auto block = record.block();
    if (appender.payload_bytes() + record.size() > max_bytes && !(first && hold.events == 0)) {
      break;
    }
    if (room_used + block > room_bytes) {
      hold.room_needed = hold.events == 0 ? block : 0;
      break;
    }
    if (room_used > kBytesPerHold) {
      break;
    }
    if (record.offset() != run_end) {
      appender.run(arena_.at(run_begin), run_end - run_begin);
      run_begin = run_end = record.offset();
    }
    run_end += block;
    room_used += block;
    cost += record.cost();
    appender.event(record, block);
  }
  hold.payload_bytes = appender.payload_bytes();
  hold.more = leftover || hold.events < records.size() || records.size() == kEventsPerHold;
  if (hold.events == 0) {
    return hold;
  }
  appender.run(arena_.at(run_begin), run_end - run_begin);
  appender.commit();
  stage_begin_ += static_cast<std::uint32_t>(hold.events);
  next_block_.store(run_end, std::memory_order_relaxed);
  add(count, hold.events);
  release_records(hold.events, cost);
  return hold;
}

template <class Platform>
template <class PopHold>
void ShardCore<Platform>::pop_in_holds(EventBatch& out, std::size_t max_events,
                                       std::size_t max_bytes, std::size_t& popped,
                                       const PopHold& hold_once) {
  // All that is queued now is no more than what fits. Without this bound a call would go on for as long as
  // producers keep pace with it.
  max_events = std::min<std::size_t>(max_events, usable_);
  // Wakes who waits for room, once per pass; also when `out` cannot grow after a hold has made some.
  struct Notify {
    ShardCore& shard;
    const std::size_t& popped;
    ~Notify() {
      if (popped != 0 && shard.backpressure_.mode == BackpressureMode::block) {
        shard.space_.notify_all();
      }
    }
  };
  const Notify notify{*this, popped};
  std::uint64_t bytes = 0;
  std::size_t room = kBytesPerHold;
  while (popped < max_events) {
    const auto want = std::min(max_events - popped, kEventsPerHold);
    out.reserve_more(want, room);  // before the lock is taken
    const Hold hold = hold_once(out, want, max_bytes - bytes, popped == 0);
    popped += hold.events;
    bytes += hold.payload_bytes;
    if (hold.events == 0 && hold.room_needed == 0) {
      break;
    }
    room = std::max(kBytesPerHold, hold.room_needed);
    if (!hold.more || bytes > max_bytes) {
      break;
    }
  }
}

template <class Platform>
std::size_t ShardCore<Platform>::pop(EventBatch& out, std::size_t max_events,
                                     std::size_t max_bytes) {
  // Another shard of a pipeline may wait for what the host has popped, also when `out` could not grow for the rest.
  struct Popped {
    ShardCore& shard;
    std::size_t events = 0;
    ~Popped() {
      if (events != 0) {
        shard.announce_move();
      }
    }
  } popped{*this};
  pop_in_holds(out, max_events, max_bytes, popped.events,
               [this](EventBatch& batch, std::size_t events, std::uint64_t bytes, bool first) {
                 const LockGuard lock(pop_);
                 return pop_hold(batch, events, bytes, pass_fences(), first, returned_);
               });
  return popped.events;
}

template <class Platform>
typename ShardCore<Platform>::Taken ShardCore<Platform>::take(EventBatch& out,
                                                              std::size_t max_events,
                                                              std::size_t max_bytes) {
  Taken taken;
  pop_in_holds(
      out, max_events, max_bytes, taken.events,
      [this, &taken](EventBatch& batch, std::size_t events, std::uint64_t bytes, bool first) {
        const LockGuard lock(pop_);
        if (expired_) {
          return Hold{};
        }
        const auto head = head_.load(std::memory_order_relaxed);  // written under pop_
        // Looked at once: a fence that opens between two looks would let out events that hold nothing back.
        const auto before_fence = pass_fences();
        const bool fenced = before_fence == 0;
        if (fenced && first) {
          taken.fenced = true;
          taken.unclear = fence_unclear_;
        }
        const auto position = head + fences_passed_;
        // Before the head moves, so that the watermark does not get past what is in the batch.
        const bool begins = !fenced && held_from_ == kNothingHeld;
        if (begins) {
          held_from_ = position;
        }
        const auto hold = pop_hold(batch, events, bytes, before_fence, first, taken_);
        if (begins && hold.events == 0) {
          held_from_ = kNothingHeld;
          publish_watermark();
        }
        return hold;
      });
  return taken;
}

template <class Platform>
std::size_t ShardCore<Platform>::pop_locked(EventBatch& out, std::size_t max_events,
                                            std::size_t max_bytes) {
  std::size_t popped = 0;
  pop_in_holds(out, max_events, max_bytes, popped,
               [this](EventBatch& batch, std::size_t events, std::uint64_t bytes, bool first)
                   SHARD_NO_THREAD_SAFETY_ANALYSIS {
                     return pop_hold(batch, events, bytes, pass_fences(), first, returned_);
                   });
  return popped;
}

// ---------------------------------------------------------------------------------- closing, counts

template <class Platform>
std::uint64_t ShardCore<Platform>::raise_min_version(std::uint64_t version) noexcept {
  std::uint64_t tail = 0;
  {
    const LockGuard lock(producer_);
    min_version_ = std::max(min_version_, version);
    tail = waited_for_ = this->tail();
  }
  space_.notify_all();  // whoever waits for room here has to look for another shard
  return tail;
}

template <class Platform>
Rest ShardCore<Platform>::watch_for(std::size_t events, std::size_t bytes) noexcept {
  const LockGuard lock(producer_);
  const auto queued = pushed() - look_for_room();
  if (queued >= events || (queued != 0 && (arena_used() >= bytes || wants_flush()))) {
    return Rest::again;
  }
  watched_ = true;
  // So that the push that makes it `events`, or `bytes`, takes the slow way.
  limit_room(std::min<std::size_t>(events - 1, usable_));
  arena_.limit(bytes - 1);
  return queued == 0 ? Rest::idle : Rest::later;
}

template <class Platform>
typename ShardCore<Platform>::Mark ShardCore<Platform>::request_flush() noexcept {
  Mark mark;
  {
    const LockGuard lock(producer_);
    mark = {tail(), pushed()};
    flush_to_.store(mark.position, std::memory_order_relaxed);  // announce() hands it over
    unwatch();
  }
  announce();
  return mark;
}

template <class Platform>
void ShardCore<Platform>::open() noexcept {
  const LockGuard lock(producer_);
  min_version_ = 0;
}

// ---------------------------------------------------------------------------------- fences

template <class Platform>
void ShardCore<Platform>::place_fence(std::unique_ptr<Fence<Platform>> fence) noexcept {
  const LockGuard producer(producer_);  // nothing is pushed meanwhile, so the place is the end
  const LockGuard consumer(pop_);
  fence->event = pushed();
  fence->position = pushed() + fences_placed_;
  ++fences_placed_;
  auto* const placed = fence.get();
  (last_fence_ == nullptr ? first_fence_ : last_fence_->next) = std::move(fence);
  last_fence_ = placed;
}

template <class Platform>
std::uint64_t ShardCore<Platform>::pass_fences() noexcept {
  const auto head = head_.load(std::memory_order_relaxed);  // written under pop_
  fence_unclear_ = false;
  while (first_fence_ != nullptr) {
    if (first_fence_->event > head) {
      return first_fence_->event - head;
    }
    // [fence.until] <- Topology::move_slots(): unresolved is larger than any watermark but that of a stopped
    // shard, which no change takes slots from.
    const auto until = first_fence_->until.load(std::memory_order_acquire);
    if (until == Fence<Platform>::kUnresolved) {
      return 0;
    }
    asked_by_.store(this_thread(), std::memory_order_relaxed);  // read by this thread itself
    const bool past = first_fence_->source->is_past(until, fence_unclear_);
    asked_by_.store(nullptr, std::memory_order_relaxed);
    if (!past) {
      return 0;
    }
    first_fence_ = std::move(first_fence_->next);
    if (first_fence_ == nullptr) {
      last_fence_ = nullptr;
    }
    ++fences_passed_;
    publish_watermark();
  }
  return std::numeric_limits<std::uint64_t>::max();
}

template <class Platform>
void ShardCore<Platform>::publish_watermark() noexcept {
  // An eviction may move the head past a fence; the fence still counts from where it stands. What is in a batch has
  // not left yet.
  auto lowest = std::min(head_.load(std::memory_order_relaxed) + fences_passed_, held_from_);
  if (first_fence_ != nullptr) {
    lowest = std::min(lowest, first_fence_->position);
  }
  watermark_.store(lowest, std::memory_order_release);  // [shard.watermark] -> watermark()
}

template <class Platform>
bool ShardCore<Platform>::is_drained() noexcept {
  const LockGuard producer(producer_);
  const LockGuard consumer(pop_);
  return min_version_ == kClosed && is_empty();
}

template <class Platform>
bool ShardCore<Platform>::is_empty() noexcept {
  return pushed() == head_.load(std::memory_order_relaxed) && pass_fences() != 0 &&
         first_fence_ == nullptr && held_from_ == kNothingHeld;
}

template <class Platform>
bool ShardCore<Platform>::is_fenced(bool& unclear) noexcept {
  const LockGuard lock(pop_);
  const bool fenced = pass_fences() == 0;
  unclear = fence_unclear_;
  return fenced;
}

template <class Platform>
void ShardCore<Platform>::retire() noexcept {
  raise_min_version(kClosed);
  BufferAccess::Chain abandoned;
  const LockGuard producer(producer_);
  const LockGuard consumer(pop_);
  if (!ring_) {
    return;
  }
  // Only a shard that has let everything go lets pass what waits for it. What is abandoned here never leaves, or
  // another shard could hand out younger events of a key, until its own turn to be retired.
  const bool drained = is_empty();
  {
    const auto turn = ring_->read_turn();
    for (auto records = staged(turn); !records.empty(); records = staged(turn)) {
      std::uint64_t cost = 0;
      for (const auto& record : records) {
        chain_if_owned(record, abandoned);
        cost += record.cost();
      }
      stage_begin_ = stage_end_;
      add(abandoned_, records.size());
      arena_.free(cost);
      head_.store(head_.load(std::memory_order_relaxed) + records.size(),
                  std::memory_order_release);  // [shard.head] -> length(), ledger(); no watermark
    }
  }
  while (first_fence_ != nullptr) {  // what this one waited for does not matter any more
    first_fence_ = std::move(first_fence_->next);
  }
  last_fence_ = nullptr;
  if (drained) {
    watermark_.store(std::numeric_limits<std::uint64_t>::max(),
                     std::memory_order_release);  // [shard.watermark] -> watermark()
  }
  ring_.reset();
  stage_.reset();
  arena_.release();
}

template <class Platform>
void ShardCore<Platform>::add_to(Ledger& total) const noexcept {
  // What left before what came, so that a snapshot in motion never shows more out than in: a consumer
  // counts an event after it saw the push, and head_ after the category. [shard.out] [shard.head]
  const auto head = head_.load(std::memory_order_acquire);
  const auto delivered = delivered_.load(std::memory_order_acquire);
  const auto dead_lettered = dead_lettered_.load(std::memory_order_acquire);
  const auto abandoned_batched = abandoned_batched_.load(std::memory_order_acquire);
  const auto possibly_delivered = possibly_delivered_.load(std::memory_order_acquire);
  const auto taken = taken_.load(std::memory_order_acquire);
  total.delivered += delivered;
  total.dead_lettered += dead_lettered;
  total.abandoned_batched += abandoned_batched;
  total.possibly_delivered += possibly_delivered;
  total.taken += taken;
  total.batched += taken - delivered - dead_lettered - abandoned_batched - possibly_delivered;
  total.returned += returned_.load(std::memory_order_acquire);
  total.evicted += evicted_.load(std::memory_order_acquire);
  total.abandoned_queued += abandoned_.load(std::memory_order_acquire);
  (backpressure_.mode == BackpressureMode::sample ? total.sampled_out : total.dropped_newest) +=
      lost_at_door_.load(std::memory_order_relaxed);
  total.rejected_full += rejected_full_.load(std::memory_order_relaxed);
  total.rejected_timeout += rejected_timeout_.load(std::memory_order_relaxed);
  const auto accepted = pushed_.load(std::memory_order_relaxed);
  total.accepted += accepted;
  total.queued += std::min<std::uint64_t>(accepted - head, usable_);
}

template <class Platform>
std::optional<Timestamp> ShardCore<Platform>::oldest() noexcept {
  const LockGuard lock(pop_);
  if (!ring_) {
    return std::nullopt;
  }
  const auto turn = ring_->read_turn();
  const auto records = staged(turn);
  return records.empty() ? std::nullopt : std::optional(Timestamp{records.front().timestamp()});
}

template <class Platform>
void ShardCore<Platform>::record_dispatch(std::size_t events,
                                          std::chrono::nanoseconds latency) noexcept {
  const LockGuard lock(pop_);
  const auto version = dispatch_version_.load(std::memory_order_relaxed);
  dispatch_version_.store(version + 1, std::memory_order_relaxed);
  // [shard.dispatch] Each value is stored with release after the version turned odd, and read with
  // acquire before the version is read again: who reads a new value sees the odd version, or a later one.
  add(dispatch_[0], 1);
  add(dispatch_[1], events);
  // Up to what std::chrono can hold: where a clock leaps, one latency may fill it.
  const auto total = dispatch_[2].load(std::memory_order_relaxed);
  const auto more = static_cast<std::uint64_t>(std::max<std::int64_t>(latency.count(), 0));
  add(dispatch_[2], std::min(more, Timestamp::max().nanoseconds - total));
  dispatch_version_.store(version + 2, std::memory_order_release);
}

template <class Platform>
DispatchStats ShardCore<Platform>::dispatch_stats() const noexcept {
  for (;;) {
    const auto before = dispatch_version_.load(std::memory_order_acquire);  // [shard.dispatch]
    DispatchStats stats;
    stats.batches = dispatch_[0].load(std::memory_order_acquire);
    stats.events = dispatch_[1].load(std::memory_order_acquire);
    stats.total_latency = std::chrono::nanoseconds{
        static_cast<std::int64_t>(dispatch_[2].load(std::memory_order_acquire))};
    if (before % 2 == 0 && dispatch_version_.load(std::memory_order_relaxed) == before) {
      return stats;
    }
    Platform::relax();
  }
}

}  // namespace shard::detail
