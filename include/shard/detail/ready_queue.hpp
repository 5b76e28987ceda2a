#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

#include "shard/clock.hpp"
#include "shard/detail/annotations.hpp"
#include "shard/detail/check.hpp"
#include "shard/detail/event_count.hpp"
#include "shard/detail/mutex.hpp"
#include "shard/detail/platform.hpp"
#include "shard/ids.hpp"

namespace shard::detail {

/// What a ready queue knows of one shard. Linked into at most one of its lists.
class ReadyNode {
 public:
  ReadyNode() = default;
  ReadyNode(const ReadyNode&) = delete;
  ReadyNode& operator=(const ReadyNode&) = delete;
  virtual ~ReadyNode() = default;

 private:
  template <class Platform>
  friend class ReadyQueue;

  enum class Place : std::uint8_t { idle, ready, waiting, fenced, claimed, gone };

  // All guarded by the queue's mutex.
  ReadyNode* next_ = nullptr;
  ReadyNode* previous_ = nullptr;
  Timestamp due_{};
  std::uint64_t moves_seen_ = 0;
  bool again_ = false;      ///< announced while it was claimed
  bool unwatched_ = false;  ///< idle, and nobody announces it: see Rest::unwatched
  std::uint32_t times_unwatched_ = 0;
  std::atomic<Place> place_{Place::idle};  ///< written under the mutex; a hint without it
};

/// What becomes of a node at the end of a pass.
enum class Rest : std::uint8_t {
  idle,       ///< nothing to do until it is announced
  unwatched,  ///< nothing to do now, and nobody will announce it: whoever spins has to look at its shard
  later,   ///< to be looked at again when it is due
  again,   ///< there is more to do: behind all others
  fenced,  ///< when another shard has moved on
};

/// Which shards have something to do, when, and who sleeps until there is something.
///
/// A node is in one place at a time: idle, ready (first in, first out), waiting (for its due time), fenced (until any shard
/// moves on), or claimed by one thread, which is the right to take from its shard and to deliver. A node that is announced
/// while it is claimed becomes ready at the end of that pass, so no announcement is lost.
///
/// Who spins instead of sleeping polls: it looks at the shards of unwatched nodes by itself, so that pushing to them costs
/// nothing more than otherwise. Nobody parks while a node is unwatched (arm it first), and none becomes so while
/// somebody is parked.
///
/// Threads:  any. All state is under one mutex, which is a leaf: no other lock is taken and no user code runs under it.
/// Sleeping: wake_ changes, under the mutex, whenever a sleeper is to be woken; who was about to park by an older value
///           returns at once. One sleeper at most is woken for each node that becomes ready, none while one spins. The
///           earliest due time is watched by one sleeper.
/// Memory:   never allocates.
template <class Platform>
class ReadyQueue {
 public:
  static constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

  /// \param max_claims  at most so many nodes are claimed at a time
  explicit ReadyQueue(const Clock& clock, std::size_t max_claims = kNoLimit) noexcept
      : clock_(clock), max_claims_(max_claims) {}

  /// The node has something to do. No lock of a shard is held.
  void announce(ReadyNode& node) noexcept SHARD_EXCLUDES(mutex_) {
    auto wake = Wake::nobody;
    bool unattended = false;
    {
      const LockGuard lock(mutex_);
      const auto before = place(node);
      if (before == Place::claimed) {
        node.again_ = true;
        return;
      }
      if (before == Place::ready || before == Place::gone) {
        return;
      }
      take_out(node);
      make_ready(node);
      wake = wake_for_work();
      unattended = sleeping_ == 0 && spinning_ == 0;
    }
    unpark(wake);
    if (unattended) {
      progress.notify_all();  // who drives the pipeline may sleep until something is due
    }
  }

  /// A shard may have got past a position that others wait for.
  void moved() noexcept SHARD_EXCLUDES(mutex_) {
    auto wake = Wake::nobody;
    {
      const LockGuard lock(mutex_);
      note_move();
      wake = wake_for_work();
    }
    unpark(wake);
    progress.notify_all();  // likewise
  }

  struct Claim {
    ReadyNode* node = nullptr;  ///< with something to do; nullptr if there is none now
    std::uint32_t ticket = 0;   ///< for sleep(), if there is none
  };
  /// Claims the first node that is ready.
  [[nodiscard]] Claim claim(Timestamp now) noexcept SHARD_EXCLUDES(mutex_) {
    auto wake = Wake::nobody;
    ReadyNode* node = nullptr;
    {
      const LockGuard lock(mutex_);
      while (waiting_.first != nullptr && waiting_.first->due_ <= now) {
        auto& due = *waiting_.first;
        waiting_.unlink(due);
        make_ready(due);
      }
      if (claimed_ == max_claims_ || ready_.first == nullptr) {
        return {nullptr, interrupts_};
      }
      node = ready_.first;
      ready_.unlink(*node);
      claim_locked(*node);
      wake = wake_for_work();  // who goes on to work leaves the rest, and the due times, to another
    }
    unpark(wake);
    return {node, 0};
  }

  /// Is it idle, so that whoever polls should look at its shard? A hint.
  [[nodiscard]] static bool is_idle(const ReadyNode& node) noexcept {
    return node.place_.load(std::memory_order_relaxed) == Place::idle;
  }
  /// Claims a node that the caller has found to have something to do; false if it is not idle.
  [[nodiscard]] bool try_claim(ReadyNode& node) noexcept SHARD_EXCLUDES(mutex_) {
    auto wake = Wake::nobody;
    {
      const LockGuard lock(mutex_);
      if (!is_idle(node) || claimed_ == max_claims_) {
        return false;
      }
      watch(node);
      claim_locked(node);
      wake =
          wake_for_work();  // as in claim(): the caller may have made another node ready when it ended its last pass
    }
    unpark(wake);
    return true;
  }
  /// Before whoever wants to park gives the shard of an unwatched node a watch: a number for note_watched(). Nothing: it
  /// needs none.
  [[nodiscard]] std::optional<std::uint32_t> unwatched(const ReadyNode& node) const noexcept
      SHARD_EXCLUDES(mutex_) {
    const LockGuard lock(mutex_);
    return node.unwatched_ ? std::optional(node.times_unwatched_) : std::nullopt;
  }
  /// It has one now, unless the node was claimed and left unwatched again in between, when nobody knows.
  void note_watched(ReadyNode& node, std::uint32_t number) noexcept SHARD_EXCLUDES(mutex_) {
    const LockGuard lock(mutex_);
    if (node.times_unwatched_ == number) {
      watch(node);
    }
  }
  /// Is anybody parked, or about to? Then idle nodes need a watch. A hint: release() has the last word.
  [[nodiscard]] bool has_sleepers() const noexcept {
    return sleepers_seen_.load(std::memory_order_relaxed) != 0;
  }

  /// Counts as a claim of no node in particular until leave(); false if there are too many.
  [[nodiscard]] bool enter() noexcept SHARD_EXCLUDES(mutex_) {
    auto wake = Wake::nobody;
    {
      const LockGuard lock(mutex_);
      if (claimed_ == max_claims_) {
        return false;
      }
      ++claimed_;
      wake = wake_for_work();  // likewise
    }
    unpark(wake);
    return true;
  }
  /// Wakes nobody: the caller claims or sleeps next.
  void leave() noexcept SHARD_EXCLUDES(mutex_) {
    const LockGuard lock(mutex_);
    --claimed_;
  }

  /// Ends a claim. Wakes nobody: the caller claims or sleeps next.
  /// \param moved  has the shard got past a position that others may wait for?
  /// \param due    of Rest::later
  void release(ReadyNode& node, Rest rest, bool moved, Timestamp due = {}) noexcept
      SHARD_EXCLUDES(mutex_) {
    const LockGuard lock(mutex_);
    expects(place(node) == Place::claimed, "a node was released that was not claimed");
    --claimed_;
    if (rest == Rest::fenced && node.moves_seen_ != moves_) {
      rest = Rest::again;  // somebody moved on since it was claimed: look once more
    }
    if (rest == Rest::unwatched && sleeping_ != 0) {
      rest = Rest::again;  // somebody parked since the caller looked
    }
    if (node.again_) {
      node.again_ = false;
      rest = Rest::again;
    }
    if (moved) {
      note_move();
    }
    switch (rest) {
      case Rest::unwatched:
        node.unwatched_ = true;
        ++node.times_unwatched_;
        ++unwatched_;
        [[fallthrough]];
      case Rest::idle:
        set_place(node, Place::idle);
        break;
      case Rest::later:
        node.due_ = due;
        set_place(node, Place::waiting);
        waiting_.insert_by_due(node);
        if (spinning_ != 0) {
          wake_.fetch_add(1, std::memory_order_relaxed);  // it has to know of the new due time
        }
        break;
      case Rest::again:
        make_ready(node);
        break;
      case Rest::fenced:
        set_place(node, Place::fenced);
        fenced_.push_back(node);
        break;
    }
  }

  /// Takes the node out for good, unless it is claimed: then false. Its shard has let everything go, which nobody may have
  /// told who waits for that.
  [[nodiscard]] bool retire(ReadyNode& node) noexcept SHARD_EXCLUDES(mutex_) {
    {
      const LockGuard lock(mutex_);
      if (place(node) == Place::claimed) {
        return false;
      }
      take_out(node);
      set_place(node, Place::gone);
    }
    progress.notify_all();
    return true;
  }

  /// Notified after each pass, when a shard has moved or shards have changed, and whenever an agent leaves: flush(), close() and
  /// the scaling look whether it was what they wait for.
  EventCount<Platform> progress;

  /// When the first of the waiting nodes is due; nothing is ready if it is in the future.
  [[nodiscard]] Timestamp next_due() const noexcept SHARD_EXCLUDES(mutex_) {
    const LockGuard lock(mutex_);
    return ready_.first != nullptr && claimed_ != max_claims_ ? Timestamp{}
           : waiting_.first != nullptr                        ? waiting_.first->due_
                                                              : Timestamp::max();
  }

  /// Returns when there may be something to claim, or after interrupt(); perhaps sooner.
  /// \param ticket  of a claim() that found nothing, after which the caller has looked for other reasons not to sleep
  void sleep(std::uint32_t ticket) noexcept SHARD_EXCLUDES(mutex_) {
    std::uint32_t expected = 0;
    Timestamp deadline = Timestamp::max();
    {
      const LockGuard lock(mutex_);
      if (!may_sleep(ticket) || unwatched_ != 0) {
        return;
      }
      if (waiting_.first != nullptr && waiting_.first->due_ < watched_) {
        deadline = watched_ = waiting_.first->due_;
      }
      expected = wake_.load(std::memory_order_relaxed);  // written under mutex_
      set_sleeping(sleeping_ + 1);
    }
    if (deadline == Timestamp::max()) {
      Platform::park(wake_, expected);
    } else {
      static_cast<void>(Platform::park_until(wake_, expected, clock_, deadline));
    }
    const LockGuard lock(mutex_);
    set_sleeping(sleeping_ - 1);
    woken_ -= woken_ != 0 ? 1U : 0U;
    if (deadline != Timestamp::max() && watched_ == deadline) {
      watched_ = Timestamp::max();
    }
  }

  /// Spins until there may be something to claim, `look()` says that there is, or `until`. True if it should be looked
  /// for now. While somebody spins nobody is woken.
  /// \param look  called over and over, without a lock
  template <class Look>
  [[nodiscard]] bool spin(std::uint32_t ticket, Timestamp until, const Look& look) noexcept
      SHARD_EXCLUDES(mutex_) {
    std::uint32_t before = 0;
    {
      const LockGuard lock(mutex_);
      if (!may_sleep(ticket)) {
        return true;
      }
      ++spinning_;
      before = wake_.load(std::memory_order_relaxed);  // written under mutex_
      if (waiting_.first != nullptr && waiting_.first->due_ < until) {
        until = waiting_.first->due_;  // then there is something to claim
      }
    }
    bool found = false;
    for (unsigned turn = 1;; ++turn) {
      found = look() || wake_.load(std::memory_order_relaxed) != before;  // the mutex orders it
      if (found || (turn % kTurnsPerReading == 0 && clock_.now() >= until)) {
        break;
      }
      Platform::relax();
    }
    const LockGuard lock(mutex_);
    --spinning_;
    // Whoever saw a spinner woke nobody: the last one that ends must not leave work behind.
    return found || ready_.first != nullptr ||
           (waiting_.first != nullptr && waiting_.first->due_ <= until);
  }

  /// Every sleeper returns, and so does every sleep() with an older ticket.
  void interrupt() noexcept SHARD_EXCLUDES(mutex_) {
    {
      const LockGuard lock(mutex_);
      ++interrupts_;
      wake_.fetch_add(1, std::memory_order_relaxed);
    }
    Platform::unpark_all(wake_);
  }

 private:
  using Place = ReadyNode::Place;

  /// An intrusive list.
  struct List {
    ReadyNode* first = nullptr;
    ReadyNode* last = nullptr;

    void insert_after(ReadyNode* place, ReadyNode& node) noexcept {
      node.previous_ = place;
      node.next_ = place == nullptr ? first : place->next_;
      (node.next_ == nullptr ? last : node.next_->previous_) = &node;
      (place == nullptr ? first : place->next_) = &node;
    }
    void push_back(ReadyNode& node) noexcept { insert_after(last, node); }
    /// Due times come nearly in order, so the place is near the end.
    void insert_by_due(ReadyNode& node) noexcept {
      ReadyNode* place = last;
      while (place != nullptr && node.due_ < place->due_) {
        place = place->previous_;
      }
      insert_after(place, node);
    }
    void unlink(ReadyNode& node) noexcept {
      (node.previous_ == nullptr ? first : node.previous_->next_) = node.next_;
      (node.next_ == nullptr ? last : node.next_->previous_) = node.previous_;
      node.next_ = node.previous_ = nullptr;
    }
  };

  static constexpr unsigned kTurnsPerReading =
      16;  ///< of spin(): the clock is not looked at more often

  enum class Wake : std::uint8_t { nobody, one };

  [[nodiscard]] static Place place(const ReadyNode& node) noexcept {
    return node.place_.load(std::memory_order_relaxed);  // written under mutex_
  }
  static void set_place(ReadyNode& node, Place place) noexcept {
    node.place_.store(place, std::memory_order_relaxed);  // read without mutex_ as a hint only
  }
  void claim_locked(ReadyNode& node) noexcept SHARD_REQUIRES(mutex_) {
    set_place(node, Place::claimed);
    node.moves_seen_ = moves_;
    ++claimed_;
  }
  void watch(ReadyNode& node) noexcept SHARD_REQUIRES(mutex_) {
    if (node.unwatched_) {
      node.unwatched_ = false;
      --unwatched_;
    }
  }

  /// Out of the list that it is in, if any; the caller says where it goes.
  void take_out(ReadyNode& node) noexcept SHARD_REQUIRES(mutex_) {
    switch (place(node)) {
      case Place::ready:
        ready_.unlink(node);
        break;
      case Place::waiting:
        waiting_.unlink(node);
        break;
      case Place::fenced:
        fenced_.unlink(node);
        break;
      case Place::idle:
        watch(node);
        break;
      case Place::claimed:
      case Place::gone:
        break;
    }
  }

  void make_ready(ReadyNode& node) noexcept SHARD_REQUIRES(mutex_) {
    set_place(node, Place::ready);
    ready_.push_back(node);
  }

  void note_move() noexcept SHARD_REQUIRES(mutex_) {
    ++moves_;
    while (fenced_.first != nullptr) {
      auto& node = *fenced_.first;
      fenced_.unlink(node);
      make_ready(node);
    }
  }

  void set_sleeping(std::uint32_t sleeping) noexcept SHARD_REQUIRES(mutex_) {
    sleeping_ = sleeping;
    sleepers_seen_.store(sleeping, std::memory_order_relaxed);
  }

  [[nodiscard]] bool may_sleep(std::uint32_t ticket) const noexcept SHARD_REQUIRES(mutex_) {
    return ticket == interrupts_ && (ready_.first == nullptr || claimed_ == max_claims_);
  }

  /// Somebody has to be awake if there is work, or a due time that no sleeper watches.
  [[nodiscard]] Wake wake_for_work() noexcept SHARD_REQUIRES(mutex_) {
    const bool work = ready_.first != nullptr && claimed_ != max_claims_;
    if (spinning_ != 0) {
      if (work) {
        wake_.fetch_add(1, std::memory_order_relaxed);
      }
      return Wake::nobody;
    }
    const bool unwatched = waiting_.first != nullptr && waiting_.first->due_ < watched_;
    if ((!work && !unwatched) || sleeping_ == woken_) {
      return Wake::nobody;
    }
    ++woken_;
    wake_.fetch_add(1, std::memory_order_relaxed);
    return Wake::one;
  }
  void unpark(Wake wake) noexcept {
    if (wake == Wake::one) {
      Platform::unpark_one(wake_);
    }
  }

  const Clock& clock_;
  const std::size_t max_claims_;
  mutable BasicMutex<Platform> mutex_;
  List ready_ SHARD_GUARDED_BY(mutex_);
  List waiting_ SHARD_GUARDED_BY(mutex_);  ///< by due time
  List fenced_ SHARD_GUARDED_BY(mutex_);
  std::size_t claimed_ SHARD_GUARDED_BY(mutex_) = 0;
  std::uint64_t moves_ SHARD_GUARDED_BY(mutex_) = 0;
  std::uint32_t interrupts_ SHARD_GUARDED_BY(mutex_) = 0;
  std::uint32_t sleeping_ SHARD_GUARDED_BY(mutex_) = 0;  ///< parked, or about to
  std::uint32_t woken_ SHARD_GUARDED_BY(mutex_) = 0;     ///< of those, on their way back; see below
  std::uint32_t spinning_ SHARD_GUARDED_BY(mutex_) = 0;
  std::size_t unwatched_ SHARD_GUARDED_BY(mutex_) = 0;
  std::atomic<std::uint32_t> sleepers_seen_{0};                    ///< copy of sleeping_
  Timestamp watched_ SHARD_GUARDED_BY(mutex_) = Timestamp::max();  ///< until when a sleeper sleeps
  // Of the `sleeping_`, at least `woken_` return without being woken again. A sleeper that returns for another reason may
  // take the credit of one that was woken, so woken_ can be too small, which costs a wake-up in vain, but never too large.
  typename Platform::template Atomic<std::uint32_t> wake_{0};  ///< written under mutex_
};

}  // namespace shard::detail
