#include "shard/detail/slot_plan.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <queue>
#include <utility>

namespace shard::detail::slot_plan {

namespace {

/// An entry for every member up to the highest, and for kNowhere.
template <class T>
class PerMember {
 public:
  explicit PerMember(std::size_t size, T value = T{}) : entries_(size, value) {}

  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
  T& operator[](Member member) { return entries_[index(member)]; }
  const T& operator[](Member member) const { return entries_[index(member)]; }

  /// The place of kNowhere is the first: it is 0xFFFF, to which adding one wraps.
  [[nodiscard]] static constexpr std::size_t index(Member member) noexcept {
    return static_cast<Member>(member + 1U);
  }

 private:
  std::vector<T> entries_;
};

/// Of a PerMember for these slots, these members and one more.
std::size_t size_for(std::span<const Member> slots, std::span<const Member> list, Member one) {
  Member highest = 0;
  const auto note = [&highest](Member member) {
    highest = std::max(highest, static_cast<Member>(member + 1U));
  };
  for (const auto member : slots) note(member);
  for (const auto member : list) note(member);
  note(one);
  return std::size_t{highest} + 1;
}

/// How many slots lead to each. Neighbours often lead to the same one, and a counter that has just
/// been written is slow to read: four tables take turns.
PerMember<std::uint32_t> count(std::span<const Member> slots, std::span<const Member> list,
                               Member one) {
  PerMember<std::array<std::uint32_t, 4>> counts(size_for(slots, list, one));
  for (std::size_t slot = 0; slot < slots.size(); ++slot) ++counts[slots[slot]][slot % 4];
  PerMember<std::uint32_t> sums(counts.size());
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto member = static_cast<Member>(i - 1);
    for (const auto part : counts[member]) sums[member] += part;
  }
  return sums;
}

double sane(double load) { return std::isfinite(load) && load > 0 ? load : 0; }

}  // namespace

Slots even(std::size_t slot_count, std::span<const Member> members) {
  Slots slots(slot_count, kNowhere);
  if (members.empty()) return slots;
  const auto bits = std::countr_zero(slot_count);  // a power of two: no division for each slot
  for (std::size_t slot = 0; slot < slot_count; ++slot) {
    slots[slot] = members[slot * members.size() >> static_cast<unsigned>(bits)];
  }
  return slots;
}

Slots join(Slots slots, std::span<const Member> donors, Member newcomer) {
  const auto have = count(slots, donors, newcomer);
  std::size_t total = 0;
  for (const auto donor : donors) total += have[donor];
  const auto fair = slots.size() / (donors.size() + 1);
  const auto present = std::size_t{have[newcomer]} + have[kNowhere];
  const auto want = std::min(fair > present ? fair - present : 0, total);

  PerMember<std::uint32_t> give(have.size());
  give[kNowhere] = have[kNowhere];
  if (want > 0) {
    auto left = want;
    for (const auto donor : donors) {
      give[donor] = static_cast<std::uint32_t>(want * have[donor] / total);
      left -= give[donor];
    }
    // What rounding left over comes from those that keep most, one slot from each.
    std::vector<Member> by_rest(donors.begin(), donors.end());
    std::stable_sort(by_rest.begin(), by_rest.end(),
                     [&](Member a, Member b) { return have[a] - give[a] > have[b] - give[b]; });
    for (std::size_t i = 0; i < left; ++i) ++give[by_rest[i]];
  }
  for (auto& slot : slots) {
    if (give[slot] != 0) {
      --give[slot];
      slot = newcomer;
    }
  }
  return slots;
}

Slots leave(Slots slots, Member leaver, std::span<const Member> others) {
  const auto have = count(slots, others, leaver);
  std::vector<Member> by_slots(others.begin(), others.end());
  std::stable_sort(by_slots.begin(), by_slots.end(),
                   [&have](Member a, Member b) { return have[a] < have[b]; });

  // The first `receivers` of them are raised to one level, which is not above that of the next.
  std::size_t receivers = 0;
  std::size_t sum = have[leaver];  // of what is to be shared and what the receivers have
  while (receivers < by_slots.size() && have[by_slots[receivers]] * receivers <= sum) {
    sum += have[by_slots[receivers]];
    ++receivers;
  }

  auto slot = slots.begin();
  const auto hand_over = [&](std::size_t slots_due, Member receiver) {
    for (; slots_due > 0; --slots_due) {
      slot = std::find(slot, slots.end(), leaver);
      *slot = receiver;
    }
  };
  for (std::size_t i = 0; i < receivers; ++i) {
    const auto level = sum / receivers + (i < sum % receivers ? 1U : 0U);
    hand_over(level - have[by_slots[i]], by_slots[i]);
  }
  if (receivers == 0) hand_over(have[leaver], kNowhere);
  return slots;
}

namespace {

/// What balance() knows about a member of the list.
struct Account {
  double weight = 0;
  double held = 0;          ///< slots
  double load = 0;          ///< of these slots
  double average = 0;       ///< of one of them
  double excess = 0;        ///< of load: above what is enough, or for its weight
  double most = 0;          ///< the target is not above it
  double target = 0;        ///< slots
  std::size_t give = 0;     ///< slots
  std::size_t hottest = 0;  ///< the slot with the highest load
};

/// Shares `slots` out in proportion to the weights, at least one to everybody, to nobody more than `most`;
/// what nobody may have goes to all in proportion to `most`.
void set_targets(std::vector<Account>& accounts, double slots) {
  std::vector<Account*> order;
  order.reserve(accounts.size());
  for (auto& account : accounts) order.push_back(&account);
  // From the one that would reach its bound last. Then those that do reach it are at the end, and
  // what is left for the others is in proportion to their weights.
  std::sort(order.begin(), order.end(), [](const Account* a, const Account* b) {
    return (a->most - 1) * b->weight > (b->most - 1) * a->weight;
  });
  std::vector<double> weights;  // of this one and all before it
  weights.reserve(order.size());
  double sum = 0;
  for (const auto* account : order) weights.push_back(sum += account->weight);

  double rest = slots - static_cast<double>(accounts.size());
  for (std::size_t i = order.size(); i-- > 0;) {
    const auto extra = std::min(rest * order[i]->weight / weights[i], order[i]->most - 1);
    order[i]->target = 1 + extra;
    rest -= extra;
  }
  double bounds = 0;
  for (const auto& account : accounts) bounds += account.most;
  for (auto& account : accounts) account.target += rest * account.most / bounds;
}

}  // namespace

Slots balance(Slots slots, std::span<const Member> members, std::span<const double> weights,
              std::size_t max_moves, std::span<const double> slot_load) {
  if (members.empty()) return even(slots.size(), {});
  constexpr std::size_t kNone = ~std::size_t{0};
  PerMember<std::size_t> place(size_for(slots, members, kNowhere), kNone);
  std::vector<Account> accounts(members.size());
  for (std::size_t i = 0; i < members.size(); ++i) {
    constexpr double kLeast = 1e-6;  // so that there is always something to share out by
    place[members[i]] = i;
    accounts[i].weight = weights[i] > kLeast ? std::min(weights[i], 1.0) : kLeast;
    accounts[i].hottest = kNone;
  }

  double total_load = 0;
  std::vector<std::size_t> lost;  // slots of nobody in the list
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    const auto i = place[slots[slot]];
    if (i == kNone) {
      lost.push_back(slot);
      continue;
    }
    auto& account = accounts[i];
    account.held += 1;
    if (slot_load.empty()) continue;
    const auto load = sane(slot_load[slot]);
    account.load += load;
    total_load += load;
    if (account.hottest == kNone || load > sane(slot_load[account.hottest])) account.hottest = slot;
  }

  const auto all = static_cast<double>(slots.size());
  const auto size = static_cast<double>(accounts.size());
  double mean_weight = 0;
  for (const auto& account : accounts) mean_weight += account.weight / size;
  for (auto& account : accounts) {
    account.average = account.held > 0 ? account.load / account.held : 0;
    account.excess = std::max(account.load - kEnoughLoad * total_load / size,
                              account.load * (1 - account.weight / mean_weight));
    account.most = std::min(all, kMostSlots * all / size);
    if (!(total_load > 0)) continue;
    const auto fair_shares = account.load * size / total_load;
    double bound = account.held;
    if (fair_shares > kMostLoad) {
      // Rounded down, so that it comes to an end with nothing but the hottest slot.
      bound = std::floor(bound * kMostLoad / fair_shares);
    } else if (fair_shares < kEnoughLoad) {
      bound += (kEnoughLoad - fair_shares) * all / size;  // slots of average load
    }
    account.most = std::clamp(bound, 1.0, account.most);
  }
  set_targets(accounts, all);

  // Whoever lacks most gets the next slot.
  using Entry = std::pair<double, std::size_t>;  // slots too few or too many, index of the account
  std::priority_queue<Entry> lacking;
  for (std::size_t i = 0; i < accounts.size(); ++i) {
    lacking.emplace(accounts[i].target - accounts[i].held, i);
  }
  const auto next_receiver = [&] {
    const auto [lack, i] = lacking.top();
    lacking.pop();
    lacking.emplace(lack - 1, i);
    accounts[i].held += 1;
    return members[i];
  };
  std::vector<Member> finders;
  for (std::size_t i = 0; i < lost.size(); ++i) finders.push_back(next_receiver());

  // Who gives how many, and who gets them. A move from surplus s to lack l changes the sum of squared
  // distances by 2 * (1 - s - l).
  std::priority_queue<Entry> exceeding;
  for (std::size_t i = 0; i < accounts.size(); ++i) {
    exceeding.emplace(accounts[i].held - accounts[i].target, i);
  }
  std::vector<Member> receivers;
  while (receivers.size() < max_moves) {
    const auto [surplus, i] = exceeding.top();
    const auto lack = lacking.top().first;
    if (surplus <= 0 || lack <= 0 || surplus + lack <= 1 + 1e-9) break;
    exceeding.pop();
    exceeding.emplace(surplus - 1, i);
    ++accounts[i].give;
    receivers.push_back(next_receiver());
  }

  // At first slots above the average of their member only as far as it has too much load, or too little weight: moves
  // that even out the numbers of slots must not carry the load to the next one and back.
  auto receiver = receivers.begin();
  for (const bool any : {false, true}) {
    for (std::size_t slot = 0; slot < slots.size() && receiver != receivers.end(); ++slot) {
      const auto i = place[slots[slot]];
      if (i == kNone || accounts[i].give == 0 || slot == accounts[i].hottest) continue;
      auto& account = accounts[i];
      const auto load = slot_load.empty() ? 0.0 : sane(slot_load[slot]);
      if (!any && load > account.average) {
        if (load > account.excess) continue;
        account.excess -= load;
      }
      --account.give;
      slots[slot] = *receiver++;
    }
  }
  for (std::size_t i = 0; i < lost.size(); ++i) slots[lost[i]] = finders[i];
  return slots;
}

std::vector<std::uint16_t> hot_moves(std::span<const Member> slots,
                                     std::span<const double> slot_load, Member from, Member to,
                                     std::size_t max_moves) {
  double difference = 0;
  std::vector<std::uint16_t> movable;
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    const auto load = sane(slot_load[slot]);
    if (slots[slot] == to) difference -= load;
    if (slots[slot] == from) {
      difference += load;
      if (load > 0) movable.push_back(static_cast<std::uint16_t>(slot));
    }
  }
  std::stable_sort(movable.begin(), movable.end(),
                   [&](std::uint16_t a, std::uint16_t b) { return slot_load[a] > slot_load[b]; });
  std::vector<std::uint16_t> moves;
  auto room = difference / 2;
  for (const auto slot : movable) {
    if (moves.size() == max_moves) break;
    if (slot_load[slot] > room) continue;
    moves.push_back(slot);
    room -= slot_load[slot];
  }
  return moves;
}

}  // namespace shard::detail::slot_plan
