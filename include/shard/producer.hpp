#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "shard/detail/manager_core.hpp"
#include "shard/shard.hpp"

namespace shard {

/// How a Producer chooses the shard of events that have no key.
struct ProducerOptions {
  /// Events after which it moves to another slot, where balance matters more than the order of its
  /// events; 0 keeps its slot, and then its events without a key stay in order.
  std::uint32_t change_slot_every = 0;
};

/// The fastest way in for a thread that ingests a lot: events without a key go to the producer's own
/// slot, so nothing is hashed and its shard's lock is hardly ever contended; for single events the routing table is
/// kept in the handle, so there is no thread-local access. Events with a key go where their key says.
///
/// Threads:  one at a time; make one per thread.
/// Lifetime: may outlive the manager and is then answered with rejected_closed.
template <class Platform>
class BasicProducer {
 public:
  /// As Manager::ingest().
  Outcome ingest(Bytes payload) noexcept {
    return admit(detail::Item{payload, {}, {}}, own_slot());
  }
  Outcome ingest(Bytes payload, Key key) noexcept {
    return ingest_raw(core_->raw_event(RawEvent::of(payload).with(key)));
  }
  Outcome ingest(Bytes payload, SourceIdentity source) noexcept {
    return admit(detail::item_of(RawEvent::of(payload).with(source)), own_slot());
  }
  Outcome ingest(Bytes payload, Key key, SourceIdentity source) noexcept {
    return ingest_raw(core_->raw_event(RawEvent::of(payload).with(key).with(source)));
  }

  /// As Manager::ingest(Buffer&&).
  Outcome ingest(Buffer&& payload) noexcept {
    return ingest_owned(payload, RawEvent::of(payload.bytes()));
  }
  Outcome ingest(Buffer&& payload, Key key) noexcept {
    return ingest_owned(payload, RawEvent::of(payload.bytes()).with(key));
  }
  Outcome ingest(Buffer&& payload, Key key, SourceIdentity source) noexcept {
    return ingest_owned(payload, RawEvent::of(payload.bytes()).with(key).with(source));
  }

  /// As Manager::ingest_raw(); without a key it goes to the producer's own slot.
  Outcome ingest_raw(const RawEvent& event) noexcept {
    return admit(detail::item_of(event),
                 event.has_key ? core_->slot_of(core_->hash_of(event)) : own_slot());
  }

  /// As Manager::ingest_batch(), all to the producer's own slot.
  std::size_t ingest_batch(std::span<const Bytes> payloads,
                           std::span<Outcome> outcomes = {}) noexcept {
    return core_->ingest_to_slot(payloads, own_slot(payloads.size()), outcomes);
  }

  /// Counts an event that could not even be made, with its reason (see is_invalid()); for ingest_json().
  Outcome reject(Outcome reason) noexcept { return core_->reject(reason); }

 private:
  friend class BasicManager<Platform>;
  using Core = detail::ManagerCore<Platform>;

  BasicProducer(std::shared_ptr<Core> core, ProducerOptions options)
      : core_(std::move(core)),
        table_(core_->topology.tables.peek()),
        slot_(core_->next_producer_slot()),
        options_(options) {}

  [[nodiscard]] SHARD_ALWAYS_INLINE Outcome admit(const detail::Item& item,
                                                  std::uint32_t slot) noexcept {
    detail::check_not_in_with_shard();
    if (table_->version != core_->topology.tables.version()) [[unlikely]] {
      table_ = core_->topology.tables.peek();
    }
    return core_->admit(item, slot, table_.get());
  }

  Outcome ingest_owned(Buffer& payload, const RawEvent& event) noexcept {
    return core_->admit_owned(
        payload, event, [this](const detail::Item& item, const RawEvent& routed) {
          return admit(item, routed.has_key ? core_->slot_of(core_->hash_of(routed)) : own_slot());
        });
  }

  [[nodiscard]] std::uint32_t own_slot(std::size_t events = 1) noexcept {
    if (options_.change_slot_every != 0) [[unlikely]] {
      used_ += events;
      if (used_ > options_.change_slot_every) {
        used_ = events;
        slot_ = core_->next_producer_slot();
      }
    }
    return slot_;
  }

  std::shared_ptr<Core> core_;
  std::shared_ptr<const detail::RoutingTable<Platform>> table_;
  std::uint32_t slot_;
  ProducerOptions options_;
  std::uint64_t used_ = 0;  ///< events that have gone to slot_; counted only if that matters
};

using Producer = BasicProducer<detail::SystemPlatform>;

}  // namespace shard
