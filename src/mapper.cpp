#include "shard/mapper.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

namespace shard {

namespace {

using std::chrono::nanoseconds;

/// A backlog that drains this much faster than it fills needs no help.
constexpr double kRecovering = 1.05;

/// A rate or a fill, bounded such that sums stay finite; what is no number counts as none.
double sane(double value) noexcept {
  return std::isfinite(value) && value > 0 ? std::min(value, 1e15) : 0;
}

/// 0 .. 1; what is no number counts as 1.
double part(double value) noexcept { return std::isnan(value) ? 1 : std::clamp(value, 0.0, 1.0); }

nanoseconds elapsed(Timestamp since, Timestamp now) noexcept {
  return now > since ? now.since_epoch() - since.since_epoch() : nanoseconds{0};
}

/// How many shards are needed for `work` if each does `per_shard`; just above a whole number is rounding.
std::size_t shards_for(double work, double per_shard) noexcept {
  const double shards = std::ceil(work / per_shard - 1e-9);
  constexpr double kMany = 1e6;  // beyond any budget, and converts to an integer
  return shards > 0 ? static_cast<std::size_t>(std::min(shards, kMany)) : 0;
}

/// Would more shards be drained no faster? `drained` is 0 also where a host pops and has stopped to.
bool is_saturated(const SinkState& sink, std::size_t delivering, double drained) noexcept {
  return sink.consecutive_failures > 0 || !(drained > 0) ||
         (sink.workers > 0 && std::max(sink.busy_workers, delivering) >= sink.workers);
}

/// Starts the delay if it does not run; is it over?
bool has_lasted(std::optional<Timestamp>& since, nanoseconds delay, Timestamp now) noexcept {
  since = since.value_or(now);
  return elapsed(*since, now) >= delay;
}

Grant grant(std::size_t wanted, std::size_t room, bool cools_down, ScalingError bound) noexcept {
  if (wanted == 0) return {};
  if (cools_down) return {.count = 0, .limit = ScalingError::cooldown};
  if (wanted > room) return {.count = room, .limit = bound};
  return {.count = wanted};
}

ScalingDecision decision(ScalingKind kind, ScalingReason reason, std::size_t wanted,
                         const Grant& granted) {
  return {.kind = granted.count == 0 ? ScalingKind::none : kind,
          .reason = reason,
          .wanted = wanted,
          .count = granted.count,
          .limit = granted.limit};
}

ScalingDecision nothing(ScalingReason reason) { return {.reason = reason}; }

}  // namespace

Mapper::Mapper(const ScalingPolicy& policy) : policy_(policy) { policy_.validate(); }

void Mapper::set_policy(const ScalingPolicy& policy) {
  policy.validate();
  policy_ = policy;
  forget_delays();
}

void Mapper::note_change(Timestamp now) noexcept {
  if (changed_ == now) return;
  changed_ = now;
  forget_delays();
}

void Mapper::note_rebalance(Timestamp now) noexcept {
  rebalanced_ = now;
  hot_since_.reset();
}

void Mapper::forget_delays() noexcept {
  overloaded_since_.reset();
  spare_since_.reset();
  hot_since_.reset();
}

bool Mapper::cools_down(Timestamp now) const noexcept {
  return changed_ && elapsed(*changed_, now) < policy_.cooldown;
}

Grant Mapper::grant_add(std::size_t wanted, ShardCount count, Timestamp now,
                        bool force) const noexcept {
  const auto used = count.active + count.provisioning;
  const auto room = policy_.max_shards > used ? policy_.max_shards - used : 0;
  return grant(wanted, room, !force && cools_down(now), ScalingError::at_max);
}

Grant Mapper::grant_remove(std::size_t wanted, ShardCount count, Timestamp now,
                           bool force) const noexcept {
  const auto room = count.active > policy_.min_shards ? count.active - policy_.min_shards : 0;
  return grant(wanted, room, !force && cools_down(now), ScalingError::at_min);
}

double Mapper::weight_of(const ShardMetrics& shard) const noexcept {
  double load = std::max(part(shard.fill_events), part(shard.fill_bytes));
  if (policy_.push_latency_threshold.count() > 0) {
    // One half at the threshold, and never quite 1: contention alone starves no shard.
    const auto latency = std::max<double>(0, static_cast<double>(shard.push_latency.count()));
    const auto threshold = static_cast<double>(policy_.push_latency_threshold.count());
    load = std::max(load, latency / (latency + threshold));
  }
  return 1 - (1 - kLeastWeight) * load;
}

bool Mapper::is_warm(const ShardMetrics& shard) const noexcept {
  return shard.state == ShardState::active && shard.in_state_for >= policy_.warm_up;
}

bool Mapper::is_overloaded(const ShardMetrics& shard) const noexcept {
  const auto exceeds = [](nanoseconds value, nanoseconds threshold) {
    return threshold.count() > 0 && value >= threshold;
  };
  return shard.fill() >= policy_.fill_threshold ||
         exceeds(shard.push_latency, policy_.push_latency_threshold) ||
         (exceeds(shard.flush_latency, policy_.flush_latency_threshold) &&
          shard.fill() > policy_.underutilised_threshold);
}

bool Mapper::is_idle(const ShardMetrics& shard) const noexcept {
  return is_warm(shard) && shard.fill() < policy_.underutilised_threshold && !is_overloaded(shard);
}

Mapper::Survey Mapper::survey(std::span<const ShardMetrics> shards) const noexcept {
  Survey seen;
  for (const auto& shard : shards) {
    seen.delivering += shard.delivering ? 1U : 0U;  // in any state: it occupies a worker
    seen.count.provisioning += shard.state == ShardState::provisioning ? 1U : 0U;
    if (shard.state != ShardState::active) continue;
    ++seen.count.active;
    seen.fill += std::min(sane(shard.fill()), 1.0);
    seen.offered += sane(shard.events_per_second);
    seen.drained += sane(shard.drained_per_second);
    if (!is_warm(shard)) continue;
    ++seen.warm;
    if (is_overloaded(shard)) {
      ++seen.overloaded;
      seen.shown += sane(shard.drained_per_second);
    }
    seen.idle += is_idle(shard) ? 1U : 0U;
  }
  return seen;
}

/// Smooths what is remembered, exponentially over ten windows.
void Mapper::observe(const Survey& seen, bool saturated, Timestamp now) noexcept {
  const auto span = std::chrono::duration<double>(10 * policy_.metrics_window).count();
  const auto age = observed_ ? std::chrono::duration<double>(elapsed(*observed_, now)).count()
                             : std::numeric_limits<double>::infinity();
  const auto newer = -std::expm1(-age / span);
  observed_ = now;
  offered_ += newer * (seen.offered - offered_);
  drained_ += newer * (seen.drained - drained_);
  if (is_overloaded(seen)) {
    const auto shown = seen.shown / static_cast<double>(seen.overloaded);
    if (!saturated) capacity_ += (capacity_ > 0 ? newer : 1) * (shown - capacity_);
  } else if (capacity_ > 0 && seen.count.active > 0) {
    capacity_ = std::max(capacity_, drained_ / static_cast<double>(seen.count.active));
  }
}

bool Mapper::is_overloaded(const Survey& seen) noexcept { return 2 * seen.overloaded > seen.warm; }

ScalingDecision Mapper::evaluate(std::span<const ShardMetrics> shards, const SinkState& sink,
                                 Timestamp now) {
  const auto seen = survey(shards);
  const bool saturated = is_saturated(sink, seen.delivering, seen.drained);
  observe(seen, saturated, now);
  if (!policy_.auto_scale) {
    forget_delays();
    return {.limit = ScalingError::scaling_disabled};
  }
  if (seen.overloaded == 0) {
    overloaded_since_.reset();
    if (sink.consecutive_failures == 0) return shrink(seen, shards, now);
    spare_since_.reset();  // what is left in a shard would hold up its removal
    return nothing(ScalingReason::settled);
  }
  spare_since_.reset();
  if (!is_overloaded(seen)) {
    overloaded_since_.reset();
    return nothing(ScalingReason::skewed);
  }
  if (saturated) {
    overloaded_since_.reset();
    return nothing(ScalingReason::sink_saturated);
  }
  if (drained_ > kRecovering * offered_) {
    overloaded_since_.reset();
    return nothing(ScalingReason::recovering);
  }
  if (!has_lasted(overloaded_since_, policy_.scale_up_delay, now)) {
    return nothing(ScalingReason::waiting);
  }
  return grow(seen, now);
}

ScalingDecision Mapper::grow(const Survey& seen, Timestamp now) {
  // What is refused at full shards, or waits outside, is not seen: these count as fully used.
  const auto by_count = shards_for(static_cast<double>(seen.overloaded), kUtilisation);
  const auto by_rate = capacity_ > 0 ? shards_for(offered_, kUtilisation * capacity_) : 0;
  const auto needed = std::max(by_count, by_rate);
  const auto coming = seen.count.active + seen.count.provisioning;
  if (needed <= coming) return nothing(ScalingReason::recovering);  // the others will do
  const auto wanted = std::min(needed - coming, policy_.max_step);
  return decision(ScalingKind::scale_up, ScalingReason::overloaded, wanted,
                  grant_add(wanted, seen.count, now, false));
}

/// How many shards could go now, such that the others are neither overloaded nor anywhere near it.
std::size_t Mapper::shards_to_spare(const Survey& seen) const noexcept {
  if (seen.warm < seen.count.active || seen.count.provisioning > 0) return 0;  // wait and see
  const auto by_fill = shards_for(seen.fill, policy_.fill_threshold / 2);
  // Before the first overload nobody knows what a shard can do: one at a time.
  const auto by_rate = capacity_ > 0 ? shards_for(offered_, kUtilisation * capacity_)
                                     : std::max<std::size_t>(seen.count.active, 1) - 1;
  const auto needed = std::max({by_fill, by_rate, policy_.min_shards});
  return needed < seen.count.active ? std::min(seen.count.active - needed, seen.idle) : 0;
}

ScalingDecision Mapper::shrink(const Survey& seen, std::span<const ShardMetrics> shards,
                               Timestamp now) {
  const auto spare = shards_to_spare(seen);
  if (spare == 0) {
    spare_since_.reset();
    return nothing(ScalingReason::settled);
  }
  spare_ = spare_since_ ? std::min(spare_, spare) : spare;
  if (!has_lasted(spare_since_, policy_.scale_down_delay, now)) {
    return nothing(ScalingReason::waiting);
  }
  const auto wanted = std::min(spare_, policy_.max_step);
  auto result = decision(ScalingKind::scale_down, ScalingReason::underutilised, wanted,
                         grant_remove(wanted, seen.count, now, false));
  if (result.count == 0) return result;

  // Those that are soonest empty, of the others those with the least traffic, then the newest.
  std::vector<const ShardMetrics*> idle;
  for (const auto& shard : shards) {
    if (is_idle(shard)) idle.push_back(&shard);
  }
  std::sort(idle.begin(), idle.end(), [](const ShardMetrics* left, const ShardMetrics* right) {
    return std::tuple(left->queued, sane(left->events_per_second), right->id) <
           std::tuple(right->queued, sane(right->events_per_second), left->id);
  });
  for (std::size_t i = 0; i < result.count; ++i) result.shards.push_back(idle[i]->id);
  return result;
}

std::optional<Rebalance> Mapper::rebalance(std::span<const ShardMetrics> shards,
                                           const SinkState& sink, Timestamp now) {
  const auto wait = [](const ShardMetrics& shard) {  // in seconds
    return shard.queued == 0 ? 0.0
                             : static_cast<double>(shard.queued) / sane(shard.drained_per_second);
  };
  const auto is_hot = [&](const ShardMetrics& shard) {
    // One that is not drained at all is not helped: its fences would hold up the other one too.
    const auto drained = sane(shard.drained_per_second);
    return is_warm(shard) && is_overloaded(shard) && drained > 0 &&
           drained <= kRecovering * sane(shard.events_per_second);
  };
  const auto is_cold = [&](const ShardMetrics& shard) {
    return is_warm(shard) && !is_overloaded(shard) && shard.fill() < policy_.fill_threshold / 2;
  };
  const ShardMetrics* from = nullptr;
  const ShardMetrics* to = nullptr;
  for (const auto& shard : shards) {
    if (is_hot(shard) && (from == nullptr || wait(shard) > wait(*from))) from = &shard;
    if (is_cold(shard) &&
        (to == nullptr || std::tuple(wait(shard), sane(shard.events_per_second)) <
                              std::tuple(wait(*to), sane(to->events_per_second)))) {
      to = &shard;
    }
  }
  const auto delivering = std::count_if(shards.begin(), shards.end(),
                                        [](const ShardMetrics& shard) { return shard.delivering; });
  if (from == nullptr || to == nullptr || 2 * wait(*to) >= wait(*from) ||
      sane(to->events_per_second) >= sane(from->events_per_second) ||
      is_saturated(sink, static_cast<std::size_t>(delivering), from->drained_per_second)) {
    hot_since_.reset();
    return std::nullopt;
  }
  if (hot_ != from->id) hot_since_.reset();
  hot_ = from->id;
  const bool rests = rebalanced_ && elapsed(*rebalanced_, now) < policy_.cooldown;
  if (!has_lasted(hot_since_, policy_.scale_up_delay, now) || rests || cools_down(now)) {
    return std::nullopt;
  }
  return Rebalance{.from = from->id, .to = to->id};
}

}  // namespace shard
