#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "shard/detail/annotations.hpp"
#include "shard/detail/fence.hpp"
#include "shard/detail/routing_table.hpp"
#include "shard/detail/snapshot.hpp"
#include "shard/event_batch.hpp"
#include "shard/options.hpp"
#include "shard/result.hpp"
#include "shard/scaling.hpp"

namespace shard::detail {

/// Changes which shards there are and which slots lead to them, while producers and consumers go on.
///
/// A shard is provisioning (made, takes nothing), active (has slots), draining (takes nothing, is being emptied),
/// stopped (empty for good), and then gone. A change publishes a new table; a shard that must not be reached by an
/// older one is closed under its producer lock, so that no producer, however late, can push by it. In keyed routing
/// each shard that gains slots gets a fence for each shard that loses them:
///
///   1. in every destination place an unresolved fence;        (all that can fail has happened before)
///   2. publish the new table;
///   3. in every source raise min_version, take its tail position p, wake waiters, and resolve the fences with p.
///
/// A producer that a source refuses after 3 finds the table of 2 at once. What it pushes to the destination is behind
/// the fence, and the fence is passed when all before p has left the source. In one change no shard both loses and
/// gains slots; a fence then waits only for positions that lie behind fences of earlier changes, so there is no circle.
/// (Refusing before publishing makes producers spin; publishing without fences reorders; fences without a position
/// of their own reorder when slots move twice.)
///
/// Threads:  any. Changes are serialised by mutex_, which comes before every shard's locks.
/// Failure:  bad_alloc passes, and then nothing has changed.
/// fork():   in a child changes answer as if it were closed, and what only asks answers nothing; no lock is taken.
template <class Platform>
class Topology {
 public:
  using Core = ShardCore<Platform>;
  using Table = RoutingTable<Platform>;
  using Done = Result<ShardId, ScalingError>;

  /// \param consumer  nullptr: none. It must outlive this.
  Topology(const ManagerOptions& options, const Clock& clock, const Consumer<Platform>* consumer);

  /// The current table; readers use it directly.
  SnapshotCell<Platform, Table> tables;

  /// A new provisioning shard, if the budget has room. Unless `force`, not within the cooldown.
  [[nodiscard]] Done add(bool force) SHARD_EXCLUDES(mutex_);
  /// provisioning -> active. An active one stays so.
  [[nodiscard]] Done activate(ShardId id) SHARD_EXCLUDES(mutex_);
  /// active -> draining.
  [[nodiscard]] Done drain(ShardId id) SHARD_EXCLUDES(mutex_);
  /// draining -> stopped for each that is empty; how many.
  std::size_t finalize_draining() SHARD_EXCLUDES(mutex_);
  /// Takes a shard out, whatever its state, after appending what it still had to `queued`. With `fenced` what lies
  /// before the fence has been appended, the shard is draining, and the call can be repeated; likewise with bad_alloc,
  /// which passes only here with something changed.
  /// \param rollback  only if it is still provisioning, else wrong_state
  [[nodiscard]] Done remove(ShardId id, EventBatch& queued, bool rollback = false)
      SHARD_EXCLUDES(mutex_);

  /// Balanced routing: moves up to `max_moves` slots towards shares in proportion to the weights; how many moved.
  /// The members and slots are those of table `version`; if there is another by now nothing changes.
  std::size_t balance(std::uint64_t version, std::span<const std::uint16_t> members,
                      std::span<const double> weights, std::size_t max_moves,
                      std::span<const double> slot_load) SHARD_EXCLUDES(mutex_);
  /// Keyed routing: moves hot slots from one active shard to another, fenced, see slot_plan::hot_moves().
  [[nodiscard]] Done move_hot(ShardId from, ShardId to, std::span<const double> slot_load,
                              std::size_t max_moves) SHARD_EXCLUDES(mutex_);

  [[nodiscard]] std::optional<ScalingPolicy> policy() const SHARD_EXCLUDES(mutex_);
  /// Throws ConfigError. scaling_disabled for a manager that was made without a policy; at_max or at_min when there
  /// are more or fewer shards than it permits.
  [[nodiscard]] std::optional<ScalingError> set_policy(const ScalingPolicy& policy)
      SHARD_EXCLUDES(mutex_);
  /// When a shard was last added, activated, drained or removed; nothing if never.
  [[nodiscard]] std::optional<Timestamp> last_change() const SHARD_EXCLUDES(mutex_);

  [[nodiscard]] Routing routing() const noexcept { return options_.routing; }

  /// Closes every shard, for good; later changes are refused.
  void close() noexcept SHARD_EXCLUDES(mutex_);
  /// The same, and frees the rings.
  void retire() noexcept SHARD_EXCLUDES(mutex_);

 private:
  friend struct TopologyTestAccess;

  [[nodiscard]] static std::shared_ptr<const Table> first_table(const ManagerOptions& options,
                                                                const Clock& clock,
                                                                const Consumer<Platform>* consumer);
  /// Why nothing can be changed now, if so.
  [[nodiscard]] std::optional<ScalingError> refusal() const noexcept SHARD_REQUIRES(mutex_);
  /// The index of a shard that is there, if anything can be changed now; else why not.
  [[nodiscard]] Result<std::uint16_t, ScalingError> changeable(const Table& table,
                                                               ShardId id) const noexcept
      SHARD_REQUIRES(mutex_);
  /// A copy to be changed and published.
  [[nodiscard]] std::shared_ptr<Table> next_of(const Table& table) const;
  void publish(std::shared_ptr<Table> next) SHARD_REQUIRES(mutex_);
  /// Whoever waits for something of a pipeline: look again.
  void tell() const noexcept;
  /// Publishes `next`, whose slots differ from those of `table`; the order of keys is kept if routing is keyed.
  void publish_moved(const Table& table, std::shared_ptr<Table> next) SHARD_REQUIRES(mutex_);
  [[nodiscard]] Done drain_locked(const Table& table, std::uint16_t index) SHARD_REQUIRES(mutex_);
  /// Publishes the table without a member that takes and holds nothing any more.
  void drop_member(const Table& table, std::uint16_t index) SHARD_REQUIRES(mutex_);

  const ManagerOptions& options_;
  const Clock& clock_;
  const Consumer<Platform>* const consumer_;
  mutable BasicMutex<Platform> mutex_;
  std::optional<ScalingPolicy> policy_ SHARD_GUARDED_BY(mutex_);
  std::uint64_t next_id_ SHARD_GUARDED_BY(mutex_) =
      0;  ///< wider than an id, so that the end is seen
  std::optional<Timestamp> last_change_ SHARD_GUARDED_BY(mutex_);
  bool closed_ SHARD_GUARDED_BY(mutex_) = false;
};

}  // namespace shard::detail
