#include "shard/ledger.hpp"

namespace shard {

std::string to_string(const Ledger& ledger) {
  std::string text;
  const auto line = [&text](const char* name, std::uint64_t count) {
    if (count != 0) {
      text.append(name).append(" ").append(std::to_string(count)).append("\n");
    }
  };
  line("accepted", ledger.accepted);
  line("dropped_newest", ledger.dropped_newest);
  line("rejected_full", ledger.rejected_full);
  line("rejected_timeout", ledger.rejected_timeout);
  line("sampled_out", ledger.sampled_out);
  line("rejected_closed", ledger.rejected_closed);
  line("rejected_invalid", ledger.rejected_invalid);
  line("unrouted", ledger.unrouted);
  line("evicted", ledger.evicted);
  line("returned", ledger.returned);
  line("abandoned_queued", ledger.abandoned_queued);
  line("queued", ledger.queued);
  return text;
}

}  // namespace shard
