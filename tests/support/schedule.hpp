#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "shard/clock.hpp"
#include "shard/detail/platform.hpp"
#include "shard/ids.hpp"

/// A deterministic schedule explorer over the library's platform seam.
///
///     const auto found = explore({.preemptions = 2}, [](Execution& run) {
///       auto& mutex = run.make<BasicMutex<ScheduledPlatform>>();
///       run.thread([&] { mutex.lock(); mutex.unlock(); });
///       run.thread([&] { mutex.lock(); mutex.unlock(); });
///       run.afterwards([&] { require(mutex.try_lock(), "the mutex is free in the end"); });
///     });
///     INFO(found);
///     CHECK(found.passed());
///
/// The scenario is run again and again, each time with another schedule, until all have been tried: depth first
/// over the recorded choices. One thread runs at a time. Before each access to a ScheduledAtomic, and before
/// each parker call, another may go on instead. Taking the processor from a thread that could go on is a
/// preemption; their number in one execution is bounded, and everything else that is left open by the
/// platform (who goes on when a thread parks or ends, whom unpark_one() wakes) is tried without a bound.
///
/// Memory is sequentially consistent, unless Bounds::delayed_stores allows for the one thing that x86 does beyond
/// it: a store that is not sequentially consistent may become visible to others late, in the order of the stores.
/// (What is no ScheduledAtomic is never late, so that is for protocols without a ring.) Weaker orders than that are
/// the part of ThreadSanitizer and of the arguments beside each access. Accesses to anything but ScheduledAtomic
/// belong to the step before them.
///
/// A thread that calls relax() spins: others may go on freely there, and then its loads run without
/// interruption until it does anything else. Reading the same again changes nothing, so no behaviour
/// is lost by that, and a spin of bounded length ends.
///
/// Logical threads are real ones that hand a baton over, so thread-locals are theirs. A failure leaves them where they
/// are, since nothing can be thrown through noexcept code: a failed exploration leaks its threads.
namespace shard::test {

struct Bounds {
  unsigned preemptions = 2;
  /// How often in one execution a parked thread's deadline may pass while others could go on. When none
  /// can, time always passes.
  unsigned timeouts = 0;
  /// How often in one execution a store may be delayed while later loads of its thread go ahead; the stores
  /// that follow it are delayed with it. It becomes visible at any time, and at the latest when its thread does
  /// a read-modify-write or a system call, or another one process_barrier().
  unsigned delayed_stores = 0;
  /// What ScheduledPlatform::enable_process_barrier() says.
  bool process_barriers = true;
  /// An execution that takes more steps never ends: somebody spins.
  std::size_t steps = 10'000;
  /// Gives up after so many, and then the exploration does not pass.
  std::size_t executions = 2'000'000;
  /// A schedule from Exploration::schedule, to run only that one.
  std::string replay = {};
};

struct Exploration {
  std::size_t executions = 0;
  std::size_t steps = 0;  ///< of the longest execution
  bool complete = false;  ///< all schedules within the bounds were run
  std::string failure;    ///< what went wrong; empty if nothing did
  std::string
      schedule;  ///< of the failure: the choices that are not the first one, for Bounds::replay
  std::string trace;  ///< of the failure: the last steps

  [[nodiscard]] bool passed() const noexcept { return complete && failure.empty(); }
};
std::ostream& operator<<(std::ostream& out, const Exploration& exploration);

/// What a scenario is made of. Objects live until the execution is over.
class Execution {
 public:
  template <class T, class... Args>
  T& make(Args&&... args) {
    auto object = std::make_shared<T>(std::forward<Args>(args)...);
    T& reference = *object;
    objects_.push_back(std::move(object));
    return reference;
  }
  /// Threads are named A, B, C, ... in this order.
  void thread(std::function<void()> body) { bodies_.push_back(std::move(body)); }
  /// Called when all threads have ended.
  void afterwards(std::function<void()> check) { check_ = std::move(check); }

  Execution() = default;
  Execution(const Execution&) = delete;
  Execution& operator=(const Execution&) = delete;
  ~Execution() {
    while (!objects_.empty()) {
      objects_.pop_back();  // the newest first, as members are
    }
  }

 private:
  friend class Explorer;
  std::vector<std::shared_ptr<void>> objects_;
  std::vector<std::function<void()>> bodies_;
  std::function<void()> check_;
};

[[nodiscard]] Exploration explore(const Bounds& bounds,
                                  const std::function<void(Execution&)>& scenario);

/// Ends the exploration with this failure unless `condition` holds. In a thread it does not return then.
void require(bool condition, std::string_view what);

/// Lets another thread go on, if one can: for a thread of a scenario that polls.
void give_way() noexcept;

/// One preemption less where a sanitizer makes each execution several times slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr unsigned kFewer = 1;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr unsigned kFewer = 1;
#else
inline constexpr unsigned kFewer = 0;
#endif
#else
inline constexpr unsigned kFewer = 0;
#endif

/// The logical thread that runs, from 0; -1 outside of the threads of a scenario.
[[nodiscard]] int current_thread() noexcept;

/// Time as the explorer sees it: it passes only when a deadline does.
[[nodiscard]] const TimeSource& scheduled_time() noexcept;

namespace detail {

enum class Step : std::uint8_t { load, store, ordered_store, modify, park, unpark, barrier };

/// A store that may be delayed.
struct Store {
  void* word;
  std::uint64_t value;
  void (*apply)(void* word, std::uint64_t value) noexcept;
};

/// A place where another thread may go on. Nothing outside of the threads of a scenario.
void step(Step kind, const void* word) noexcept;
/// Whether the explorer keeps the store for later.
[[nodiscard]] bool delay_store(const Store& store) noexcept;
/// The newest store of the running thread to this word that was delayed, or nullptr.
[[nodiscard]] const Store* own_store(const void* word) noexcept;
/// Adds to the trace what the step has found or left.
void traced(std::uint64_t value) noexcept;

void relax() noexcept;
/// False when the deadline has passed. The word is looked at and the thread parked in one step.
bool park(const void* word, const std::function<bool()>& holds, const Clock* clock,
          Timestamp deadline) noexcept;
void unpark(const void* word, bool all) noexcept;

}  // namespace detail

/// std::atomic as far as the library uses it, with a step before each access.
template <class T>
class ScheduledAtomic {
 public:
  constexpr ScheduledAtomic() noexcept = default;
  constexpr ScheduledAtomic(T value) noexcept : value_(value) {}
  ScheduledAtomic(const ScheduledAtomic&) = delete;
  ScheduledAtomic& operator=(const ScheduledAtomic&) = delete;

  [[nodiscard]] T load(std::memory_order = std::memory_order_seq_cst) const noexcept {
    detail::step(detail::Step::load, this);
    const auto* own = detail::own_store(this);
    return seen(own == nullptr ? value_ : static_cast<T>(own->value));
  }
  void store(T value, std::memory_order order = std::memory_order_seq_cst) noexcept {
    const bool ordered = order == std::memory_order_seq_cst;
    detail::step(ordered ? detail::Step::ordered_store : detail::Step::store, this);
    seen(value);
    const detail::Store store{
        this, static_cast<std::uint64_t>(value), [](void* word, std::uint64_t stored) noexcept {
          static_cast<ScheduledAtomic*>(word)->value_ = static_cast<T>(stored);
        }};
    if (ordered || !detail::delay_store(store)) {
      value_ = value;
    }
  }
  T exchange(T value, std::memory_order = std::memory_order_seq_cst) noexcept {
    return modify([value](T) { return value; });
  }
  bool compare_exchange_strong(T& expected, T desired, std::memory_order,
                               std::memory_order) noexcept {
    const T before = modify([=](T old) { return old == expected ? desired : old; });
    const bool exchanged = before == expected;
    expected = before;
    return exchanged;
  }
  T fetch_add(T n, std::memory_order = std::memory_order_seq_cst) noexcept {
    return modify([n](T old) { return static_cast<T>(old + n); });
  }
  T fetch_sub(T n, std::memory_order = std::memory_order_seq_cst) noexcept {
    return modify([n](T old) { return static_cast<T>(old - n); });
  }
  T fetch_or(T bits, std::memory_order = std::memory_order_seq_cst) noexcept {
    return modify([bits](T old) { return static_cast<T>(old | bits); });
  }
  T fetch_and(T bits, std::memory_order = std::memory_order_seq_cst) noexcept {
    return modify([bits](T old) { return static_cast<T>(old & bits); });
  }

  /// The value without a step, for the explorer and for checks.
  [[nodiscard]] T peek() const noexcept { return value_; }

 private:
  static T seen(T value) noexcept {
    detail::traced(static_cast<std::uint64_t>(value));
    return value;
  }
  template <class Change>
  T modify(const Change& change) noexcept {
    detail::step(detail::Step::modify, this);
    const T before = value_;
    value_ = seen(change(before));
    return before;
  }

  T value_{};
};

/// Put in place of shard::detail::SystemPlatform.
struct ScheduledPlatform {
  template <class T>
  using Atomic = ScheduledAtomic<T>;
  using Word = Atomic<std::uint32_t>;

  static void relax() noexcept { detail::relax(); }
  /// Each look is a step to explore; more of them show nothing new.
  static constexpr int kSpins = 2;
  static void yield() noexcept { detail::relax(); }
  static constexpr int kYields = 0;
  static void park(const Word& word, std::uint32_t expected) noexcept {
    detail::park(&word, [&] { return word.peek() == expected; }, nullptr, {});
  }
  static bool park_until(const Word& word, std::uint32_t expected, const Clock& clock,
                         Timestamp deadline) noexcept {
    return detail::park(
        &word, [&] { return word.peek() == expected; }, &clock, deadline);
  }
  static void unpark_one(const Word& word) noexcept { detail::unpark(&word, false); }
  static void unpark_all(const Word& word) noexcept { detail::unpark(&word, true); }

  static bool enable_process_barrier() noexcept;
  static bool process_barrier() noexcept {
    detail::step(detail::Step::barrier, nullptr);
    return true;
  }
};

}  // namespace shard::test
