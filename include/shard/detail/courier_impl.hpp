#pragma once

// The template's definitions; see shard_core_impl.hpp.

#include <algorithm>
#include <exception>
#include <limits>
#include <new>
#include <utility>

#include "shard/detail/courier.hpp"

namespace shard::detail {

/// Stops at the last number there is: one that began again would make a batch forget its backoff and max_elapsed.
[[nodiscard]] constexpr std::uint32_t next_attempt(std::uint32_t attempt) noexcept {
  return attempt + (attempt != std::numeric_limits<std::uint32_t>::max() ? 1U : 0U);
}

template <class Platform>
typename Courier<Platform>::Pass Courier<Platform>::run(AnyLane& lane, AnyAgent& agent,
                                                        Adapter& adapter) noexcept {
  Pass pass;
  const auto before = lane.core.watermark();
  if (lane.size != 0) {
    if (const auto now = clock_.now(); now < lane.retry_due) {
      // close() lets every batch try once more at once; otherwise somebody announced the shard meanwhile.
      if (lane.hurried || !closing_.load(std::memory_order_relaxed)) {
        pass.rest = Rest::later;
        pass.due = lane.retry_due;
        return pass;
      }
      lane.hurried = true;
    }
    deliver(lane, agent, adapter, pass);
  } else {
    const auto now = clock_.now();
    lane.batcher.observe(lane.core.positions().pushed, now);
    pass = plan(lane, now);
    if (pass.rest == Rest::again && take(lane, agent, pass)) {
      deliver(lane, agent, adapter, pass);
    }
  }
  if (pass.over) {
    return pass;
  }
  if (options_.listener) {
    note_losses(lane, agent);
  }
  if (lane.size == 0 && pass.rest == Rest::again) {
    const auto settled = pass.settled;
    pass = plan(lane, clock_.now());
    pass.settled = settled;
  }
  pass.moved = lane.core.watermark() != before;
  return pass;
}

// ---------------------------------------------------------------------------------- batching

template <class Platform>
typename Courier<Platform>::Pass Courier<Platform>::plan(AnyLane& lane, Timestamp now) noexcept {
  auto& core = lane.core;
  const auto& batching = options_.batch;
  const Pass due_now{.rest = Rest::again};
  const auto queued = core.length();
  if (queued == 0) {
    // A fence may be the last thing that flush() waits for.
    if (bool unclear = false; core.wants_flush() && core.is_fenced(unclear)) {
      return unclear ? look_again() : Pass{.rest = Rest::fenced};
    }
    if (polls(options_) && !queue_.has_sleepers()) {
      return {.rest = Rest::unwatched};  // the workers look by themselves
    }
    return core.watch_for(1, core.bytes_capacity()) == Rest::idle ? Pass{.rest = Rest::idle}
                                                                  : due_now;
  }
  if (batching.max_delay.count() == 0 || core.wants_flush()) {
    return due_now;
  }
  const auto enough = std::min(lane.batcher.target(now), lane.enough_events);
  if (queued >= enough || core.bytes_used() >= lane.enough_bytes) {
    return due_now;
  }
  const auto oldest = core.oldest();
  const auto due = oldest ? oldest->after(batching.max_delay) : now;
  if (due <= now || core.watch_for(enough, lane.enough_bytes) == Rest::again) {
    return due_now;
  }
  return {.rest = Rest::later, .due = due};
}

template <class Platform>
bool Courier<Platform>::take(AnyLane& lane, AnyAgent& agent, Pass& pass) noexcept {
  auto& core = lane.core;
  typename ShardCore<Platform>::Taken taken;
  try {
    if (lane.storage == nullptr) {
      lane.storage = agent.spare != nullptr ? std::move(agent.spare) : pool_.take();
    }
    taken = core.take(*lane.storage, options_.batch.max_events, options_.batch.max_bytes);
  } catch (const std::bad_alloc&) {
    // What was taken before is a batch, too.
    if (lane.storage == nullptr || lane.storage->empty()) {
      pass = look_again();
      return false;
    }
  }
  if (lane.storage->empty()) {
    end_batch(lane, agent);
    if (taken.unclear) {
      pass = look_again();
    } else if (taken.fenced) {
      pass.rest = Rest::fenced;
    }
    return false;  // else others have popped or evicted what was there
  }
  lane.first = 0;
  lane.taken = lane.storage->size();
  lane.attempt = 0;
  lane.hurried = false;
  lane.retry_due = {};
  hold_from(lane);
  return true;
}

template <class Platform>
void Courier<Platform>::go_on(AnyLane& lane, AnyAgent& agent) noexcept {
  if (lane.size == 0) {
    end_batch(lane, agent);
  } else {
    hold_from(lane);
  }
}

template <class Platform>
void Courier<Platform>::hold_from(AnyLane& lane) noexcept {
  lane.held_since.store(EventBatchAccess::timestamp(*lane.storage, lane.first) + 1,
                        std::memory_order_relaxed);  // a statistic
}

template <class Platform>
void Courier<Platform>::end_batch(AnyLane& lane, AnyAgent& agent) noexcept {
  lane.held_since.store(0, std::memory_order_relaxed);
  if (agent.spare == nullptr) {
    lane.storage->clear();
    agent.spare = std::move(lane.storage);
  } else {
    pool_.give_back(std::move(lane.storage));
  }
}

// ---------------------------------------------------------------------------------- delivery

template <class Platform>
void Courier<Platform>::deliver(AnyLane& lane, AnyAgent& agent, Adapter& adapter,
                                Pass& pass) noexcept {
  pass.rest = Rest::again;
  do {
    const auto answer = attempt(lane, agent, adapter);
    if (!answer) {
      pass.over = true;
      return;
    }
    const auto now = clock_.now();
    const auto& indices = answer->indices();
    const auto some = static_cast<std::size_t>(
        std::lower_bound(indices.begin(), indices.end(), lane.size) - indices.begin());
    expects(some == indices.size(), "an adapter refused an event that is not in its batch");
    const auto move_refused_back = [&] {
      return lane.core.with_pop_lock([&] {
        EventBatchAccess::move_back(*lane.storage, lane.first, lane.size,
                                    std::span(indices).first(some));
      });
    };
    const DeadLetter refused{DeadLetterCause::refused, lane.attempt, answer->reason()};
    bool in_time = true;
    switch (answer->kind()) {
      case Delivery::Kind::delivered:
        in_time = settle_delivered(lane, agent, lane.size, now, pass);
        break;
      case Delivery::Kind::delivered_prefix: {
        expects(answer->count() <= lane.size,
                "an adapter delivered more events than its batch has");
        const auto prefix = std::min(answer->count(), lane.size);
        if (prefix == 0) {
          in_time = fail(lane, agent, answer->reason(), now, pass);
          break;
        }
        in_time = settle_delivered(lane, agent, prefix, now, pass);
        if (in_time && lane.size != 0) {
          lane.attempt = 0;
          if (!answer->reason().empty()) {  // something is wrong, so not at once
            lane.attempt = 1;
            lane.first_tried = now;
            in_time = fail(lane, agent, answer->reason(), now, pass);
          }
        }
        break;
      }
      case Delivery::Kind::delivered_except:
        if (some == 0) {
          in_time = settle_delivered(lane, agent, lane.size, now, pass);
          break;
        }
        in_time = move_refused_back() && bury(lane, agent, some, refused, true, now, pass);
        break;
      case Delivery::Kind::refuse:
        in_time = bury(lane, agent, lane.size, refused, false, now, pass);
        break;
      case Delivery::Kind::refuse_some:
        if (some == 0) {  // refuses nothing and delivers nothing
          in_time = fail(lane, agent, answer->reason(), now, pass);
          break;
        }
        in_time = move_refused_back() && bury(lane, agent, some, refused, false, now, pass);
        lane.attempt = 0;
        break;
      case Delivery::Kind::retry:
        in_time = fail(lane, agent, answer->reason(), now, pass);
        break;
      case Delivery::Kind::unknown:
        monitor.note_failure(answer->reason());
        in_time = settle_unknown(lane, agent, pass);
        break;
    }
    pass.over = !in_time;
  } while (lane.size != 0 && !pass.over && pass.rest == Rest::again);
}

template <class Platform>
std::optional<Delivery> Courier<Platform>::attempt(AnyLane& lane, AnyAgent& agent,
                                                   Adapter& adapter) noexcept {
  const auto begin = [&lane] { lane.size += std::exchange(lane.taken, 0); };
  if (gate_.is_stopped()) {
    static_cast<void>(lane.core.with_pop_lock(begin));
    return std::nullopt;
  }
  if (!lane.core.begin_attempt(begin)) {
    return std::nullopt;
  }
  const auto started = clock_.now();
  if (lane.attempt == 0) {
    lane.first_tried = started;
  }
  lane.attempt = next_attempt(lane.attempt);
  monitor.note_attempt(lane.attempt > 1);
  agent.attempt_since.store(started.nanoseconds + 1, std::memory_order_relaxed);  // a statistic
  std::optional<Delivery> answer;
  const bool ran = gate_.run(agent, [&] {
    answer.emplace(call(lane.batch(identity_), context(agent, lane.attempt, started), adapter));
  });
  agent.attempt_since.store(0, std::memory_order_relaxed);
  if (ran) {
    lane.core.record_dispatch(lane.size, clock_.now().since_epoch() - started.since_epoch());
  } else {
    // It did not begin after all.
    static_cast<void>(lane.core.settle({}, false, [] {}));
  }
  return answer;
}

template <class Platform>
Delivery Courier<Platform>::call(const Batch& batch, const DeliveryContext& context,
                                 Adapter& adapter) const noexcept {
  try {
    return adapter.deliver(batch, context);
  } catch (const PermanentError& error) {
    return Delivery::refuse(error.what());
  } catch (const std::logic_error& error) {
    return Delivery::refuse(error.what());
  } catch (const std::exception& error) {
    return Delivery::retry(error.what());
  } catch (...) {
    return Delivery::retry("the adapter threw what is no std::exception");
  }
}

template <class Platform>
const DeliveryContext& Courier<Platform>::context(AnyAgent& agent, std::uint32_t attempt,
                                                  Timestamp now) const noexcept {
  using Time = std::chrono::steady_clock::time_point;
  auto& context = agent.context;
  context.attempt = attempt;
  context.deadline = Time{Time::duration{close_deadline_.load(std::memory_order_relaxed)}};
  if (attempt != 0 && options_.attempt_timeout != std::chrono::nanoseconds::max()) {
    // Virtual time says nothing about when that will be.
    const auto began = clock_.is_real() ? agent.steady.at(now) : std::chrono::steady_clock::now();
    context.deadline =  // no sum of a time and a long timeout
        began + std::min(context.deadline - began, Time::duration{options_.attempt_timeout});
  }
  return context;
}

// ---------------------------------------------------------------------------------- what became of it

template <class Platform>
bool Courier<Platform>::settle_delivered(AnyLane& lane, AnyAgent& agent, std::size_t prefix,
                                         Timestamp now, Pass& pass) noexcept {
  note_success(lane, agent, prefix, now);
  const bool all = prefix == lane.size;
  if (!lane.core.settle({.delivered = prefix}, all, [&] {
        lane.first += prefix;
        lane.size -= prefix;
      })) {
    return false;
  }
  pass.settled += prefix;
  go_on(lane, agent);
  return true;
}

template <class Platform>
bool Courier<Platform>::settle_unknown(AnyLane& lane, AnyAgent& agent, Pass& pass) noexcept {
  const auto events = lane.size;
  if (!lane.core.settle({.possibly_delivered = events}, true, [&] { lane.size = 0; })) {
    return false;
  }
  lane.failing = true;
  pass.settled += events;
  go_on(lane, agent);
  return true;
}

template <class Platform>
bool Courier<Platform>::bury(AnyLane& lane, AnyAgent& agent, std::size_t dead,
                             const DeadLetter& why, bool rest_delivered, Timestamp now,
                             Pass& pass) noexcept {
  const auto rest = lane.size - dead;
  const auto letters = lane.batch(identity_).part(rest, dead);
  const auto delivered = rest_delivered ? rest : 0;
  if (delivered != 0) {
    note_success(lane, agent, delivered, now);
  }
  monitor.note_failure(why.reason);
  lane.failing = true;
  // The attempt has been answered, whatever becomes of the dead letters.
  if (!lane.core.settle({.delivered = delivered}, false, [&] {
        lane.first += delivered;
        lane.size -= delivered;
      })) {
    return false;
  }
  pass.settled += delivered;
  // Those are counted when it is sure that the handler sees them, since time may be over before; and nobody gets past these
  // events before it has.
  bool counted = false;
  const auto count = [&] {
    counted = lane.core.settle({.dead_lettered = dead}, false, [&] { lane.size -= dead; });
  };
  bool ran = true;
  if (dead != 0 && options_.dead_letters) {
    ran = gate_.run(agent, [&] {
      count();
      try {
        if (counted) {
          options_.dead_letters(letters, why);
        }
      } catch (...) {  // counted already; see DeadLetterHandler
        return;
      }
    });
  } else {
    count();
  }
  if (!ran || !counted) {
    return false;
  }
  pass.settled += dead;
  notify(agent, NoticeKind::dead_lettered, lane.core.id(), dead, why.reason);
  if (lane.size == 0 && !lane.core.settle({}, true, [] {})) {
    return false;
  }
  go_on(lane, agent);
  return true;
}

template <class Platform>
bool Courier<Platform>::fail(AnyLane& lane, AnyAgent& agent, const Reason& reason, Timestamp now,
                             Pass& pass) noexcept {
  const auto& retry = options_.retry;
  const auto wait = backoff_before(next_attempt(lane.attempt), retry, agent.next_random());
  const auto due = now.after(wait);
  if (retry.max_attempts != 0 && lane.attempt >= retry.max_attempts) {
    return bury(lane, agent, lane.size, {DeadLetterCause::attempts_exhausted, lane.attempt, reason},
                false, now, pass);
  }
  if (retry.max_elapsed != std::chrono::nanoseconds::max() &&
      due > lane.first_tried.after(retry.max_elapsed)) {
    return bury(lane, agent, lane.size, {DeadLetterCause::time_exhausted, lane.attempt, reason},
                false, now, pass);
  }
  monitor.note_failure(reason);
  lane.failing = true;
  lane.retry_due = due;
  pass.rest = Rest::later;
  pass.due = due;
  if (!lane.core.settle({}, false, [] {})) {
    return false;
  }
  notify(agent, NoticeKind::retrying, lane.core.id(), lane.size, reason);
  return true;
}

// ---------------------------------------------------------------------------------- who is told

template <class Platform>
void Courier<Platform>::note_success(AnyLane& lane, AnyAgent& agent, std::size_t delivered,
                                     Timestamp now) noexcept {
  monitor.note_success(now);
  const auto accepted_at = [&](std::size_t i) {
    return EventBatchAccess::timestamp(*lane.storage, lane.first + i);
  };
  lane.latency.add_batch(now.nanoseconds, delivered, accepted_at);
  monitor.latency.add_batch(now.nanoseconds, delivered, accepted_at);
  if (std::exchange(lane.failing, false)) {
    notify(agent, NoticeKind::recovered, lane.core.id(), delivered, {});
  }
}

template <class Platform>
void Courier<Platform>::note_losses(AnyLane& lane, AnyAgent& agent) noexcept {
  const auto lost = lane.core.stats().events_dropped;
  if (lost != lane.lost_told) {
    notify(agent, NoticeKind::evicting, lane.core.id(), lost - lane.lost_told, {});
    lane.lost_told = lost;
  }
}

template <class Platform>
void Courier<Platform>::notify(AnyAgent& agent, NoticeKind kind, std::optional<ShardId> shard,
                               std::uint64_t events, const Reason& reason) noexcept {
  if (!options_.listener) {
    return;
  }
  const auto suppressed = monitor.admit(kind, clock_.now());
  if (!suppressed) {
    return;
  }
  static_cast<void>(gate_.run(agent, [&] {
    try {
      options_.listener(Notice{kind, shard, events, *suppressed, reason});
    } catch (...) {  // see Listener
      return;
    }
  }));
}

}  // namespace shard::detail
