#include "shard/ledger.hpp"

namespace shard {

std::string to_string(const Ledger& ledger) {
  std::string text;
  for (const auto& [name, count] : detail::kLedgerCounts) {
    if (ledger.*count != 0) {
      text.append(name).append(" ").append(std::to_string(ledger.*count)).append("\n");
    }
  }
  return text;
}

}  // namespace shard
