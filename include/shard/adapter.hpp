#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string_view>
#include <type_traits>
#include <utility>

#include "shard/batch.hpp"
#include "shard/delivery.hpp"
#include "shard/detail/export.hpp"

namespace shard {

/// What an adapter may want to know of a call.
struct DeliveryContext {
  std::uint32_t attempt = 1;  ///< of this batch, from 1; starts again when a part of it was settled

  /// The adapter should have answered by then: PipelineOptions::attempt_timeout, or the end of close().
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();

  /// Requested when close() runs out of time. Who answers retry() then has its batch reported as not delivered; who
  /// does not answer in time has it reported as possibly delivered. A std::stop_callback runs in the thread that closes,
  /// which goes on when it has returned: it must not wait for a call of the adapter.
  std::stop_token stop = {};

  /// The wall-clock time of timestamp 0, as Manager::epoch().
  std::chrono::system_clock::time_point epoch = {};

  /// When an event was accepted, on the wall clock.
  [[nodiscard]] std::chrono::system_clock::time_point wall_time(Timestamp accepted) const noexcept {
    return epoch +
           std::chrono::duration_cast<std::chrono::system_clock::duration>(accepted.since_epoch());
  }
};

/// Where the batches go: a file, a database, a broker.
///
/// Threads:  deliver() is called from the workers, at once for different shards, never at once for one shard, and in
///           order within a shard. PipelineOptions::serialise_adapter makes it one call at a time; an AdapterFactory
///           makes one adapter for each worker, which then has a thread of its own.
/// Ordering: what one call for a shard has written is visible to the next one for it, on whatever thread (with
///           Routing::keyed, likewise for the calls that get events of one key), and to whoever has seen flush() or close()
///           return for those events.
/// Failure:  exceptions are answers for the whole batch: PermanentError and std::logic_error are refuse(), all others are
///           retry(). std::stoi() and vector::at() throw logic errors: catch what one event may cause, and refuse that
///           event by its index, or its whole batch becomes dead letters.
/// Lifetime: owned by the pipeline, destroyed when its last worker has ended. An adapter that is still in deliver() when
///           close() runs out of time goes on in a thread that nobody waits for: what it refers to must outlive that.
///           With workers = 0 it runs on the host's own thread, and then nothing can be done about one that hangs.
/// flush() and close() of the same pipeline answer would_deadlock when they are called from here.
class SHARD_EXPORT Adapter {
 public:
  Adapter() = default;
  Adapter(const Adapter&) = delete;
  Adapter& operator=(const Adapter&) = delete;
  virtual ~Adapter();

  [[nodiscard]] virtual Delivery deliver(const Batch& batch, const DeliveryContext& context) = 0;

  /// Makes what was delivered durable: called by Pipeline::flush() and close() after everything was delivered. False:
  /// it could not. By a worker, while no other call of this adapter is under way on that worker.
  virtual bool flush(const DeliveryContext& context);

  /// The last call, once, by close().
  virtual void close(const DeliveryContext& context);

  /// For Health::adapter; a literal or a member.
  [[nodiscard]] virtual std::string_view name() const noexcept;
};

/// Makes the adapter of one worker, 0 .. workers - 1, on the thread that makes the pipeline. Must not return nullptr.
using AdapterFactory = std::function<std::unique_ptr<Adapter>(std::size_t worker)>;

namespace detail {

/// Can it be called with these, and is what it returns an answer?
template <class F, class... Args>
concept Answers = std::invocable<F, Args...> &&
    (std::is_void_v<std::invoke_result_t<F, Args...>> ||
     std::convertible_to<std::invoke_result_t<F, Args...>, Delivery>);

}  // namespace detail

/// What can be an adapter without being a class of its own: a move-only callable is enough. One that returns nothing
/// has delivered unless it throws.
template <class F>
concept DeliverCallable =
    !std::derived_from<std::remove_cvref_t<F>, Adapter> &&
    (detail::Answers<std::remove_cvref_t<F>&, const Batch&> ||
     detail::Answers<std::remove_cvref_t<F>&, const Batch&, const DeliveryContext&>);

namespace detail {

template <class F>
class CallableAdapter final : public Adapter {
 public:
  explicit CallableAdapter(F deliver) : deliver_(std::move(deliver)) {}

  Delivery deliver(const Batch& batch, const DeliveryContext& context) override {
    const auto call = [&]() -> decltype(auto) {
      if constexpr (std::invocable<F&, const Batch&, const DeliveryContext&>) {
        return deliver_(batch, context);
      } else {
        return deliver_(batch);
      }
    };
    if constexpr (std::is_void_v<decltype(call())>) {
      call();
      return Delivery::delivered();
    } else {
      return call();
    }
  }

 private:
  F deliver_;
};

}  // namespace detail

/// Wraps a callable. Throws std::bad_alloc.
template <DeliverCallable F>
[[nodiscard]] std::unique_ptr<Adapter> make_adapter(F&& deliver) {
  return std::make_unique<detail::CallableAdapter<std::remove_cvref_t<F>>>(
      std::forward<F>(deliver));
}

}  // namespace shard
