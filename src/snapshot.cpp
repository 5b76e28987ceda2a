#include "shard/detail/snapshot.hpp"

#include <atomic>

namespace shard::detail {

constinit thread_local std::array<SnapshotSlot, kSnapshotSlots> t_snapshots{};

namespace {

constinit thread_local bool t_owners_gone = false;

/// Shares in what the slots of this thread point to. It has a destructor, so it may be gone while other
/// thread-locals, or statics, are still being destroyed and ingest; the slots are empty from then on.
struct Owners {
  Owners() = default;
  Owners(const Owners&) = delete;
  Owners& operator=(const Owners&) = delete;
  ~Owners() {
    t_owners_gone = true;
    t_snapshots = {};
  }
  std::array<std::shared_ptr<const void>, kSnapshotSlots> of_slot;
};

thread_local Owners t_owners;

}  // namespace

void remember_snapshot(const SnapshotSlot& slot, std::shared_ptr<const void> owner) noexcept {
  if (t_owners_gone) {
    return;
  }
  const auto index = snapshot_slot_of(slot.instance);
  t_snapshots[index] = slot;
  t_owners.of_slot[index].swap(owner);
}

std::uint64_t next_snapshot_instance() noexcept {
  static constinit std::atomic<std::uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);  // unique is enough
}

}  // namespace shard::detail
