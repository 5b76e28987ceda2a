#pragma once

#include <cstdint>
#include <string_view>

namespace shard {

/// What became of one event in one ingest call. Each event has exactly one, and each counts in
/// exactly one category of the Ledger.
enum class Outcome : std::uint8_t {
  accepted,          ///< in its shard's ring; drop_oldest may evict it later, which is counted too
  dropped_newest,    ///< the shard was full and the mode is drop_newest: the event is lost
  rejected_full,     ///< full, and waiting was not possible: the caller still has it and may retry
  rejected_timeout,  ///< block waited until its deadline: the caller still has it and may retry
  sampled_out,       ///< full, and sample{rate} did not choose it: the event is lost
  rejected_closed,   ///< the manager, or the shard of this handle, takes no more
  unrouted,          ///< no shard is active
  // What follows counts as rejected_invalid; nothing else is disturbed by it.
  payload_too_large,     ///< above ManagerOptions::max_payload
  key_too_large,         ///< above ManagerOptions::max_key
  invalid_json,          ///< ingest_json: not serialisable, for example bad UTF-8
  out_of_memory,         ///< a payload above inline_max could not be copied into a buffer
  timestamps_exhausted,  ///< the shard's clock has reached Timestamp::max()
};

/// Was the event refused or lost because its shard was full?
[[nodiscard]] constexpr bool is_backpressure(Outcome outcome) noexcept {
  return outcome >= Outcome::dropped_newest && outcome <= Outcome::sampled_out;
}

/// Does it count as Ledger::rejected_invalid?
[[nodiscard]] constexpr bool is_invalid(Outcome outcome) noexcept {
  return outcome >= Outcome::payload_too_large;
}

/// Its name as spelled above. Complexity: constant.
[[nodiscard]] constexpr std::string_view to_string(Outcome outcome) noexcept {
  switch (outcome) {
    case Outcome::accepted:
      return "accepted";
    case Outcome::dropped_newest:
      return "dropped_newest";
    case Outcome::rejected_full:
      return "rejected_full";
    case Outcome::rejected_timeout:
      return "rejected_timeout";
    case Outcome::sampled_out:
      return "sampled_out";
    case Outcome::rejected_closed:
      return "rejected_closed";
    case Outcome::unrouted:
      return "unrouted";
    case Outcome::payload_too_large:
      return "payload_too_large";
    case Outcome::key_too_large:
      return "key_too_large";
    case Outcome::invalid_json:
      return "invalid_json";
    case Outcome::out_of_memory:
      return "out_of_memory";
    case Outcome::timestamps_exhausted:
      return "timestamps_exhausted";
  }
  return "unknown";
}

}  // namespace shard
