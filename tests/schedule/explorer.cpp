// The explorer behind support/schedule.hpp.

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <optional>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <utility>

#include "shard/detail/check.hpp"
#include "shard/detail/snapshot.hpp"
#include "support/schedule.hpp"

namespace shard::test {

namespace {

/// Lets one thread go on. Parks at once: std::atomic's wait() yields several times before, and on one processor each of
/// these is a switch to a thread that has nothing to do.
class Baton {
 public:
  void give() noexcept {
    given_.store(1, std::memory_order_release);
    shard::detail::SystemPlatform::unpark_one(given_);
  }
  void take() noexcept {
    while (given_.exchange(0, std::memory_order_acquire) == 0) {
      shard::detail::SystemPlatform::park(given_, 0);
    }
  }

 private:
  shard::detail::SystemPlatform::Word given_{0};
};

/// Keeps a thread, and those that it starts meanwhile, on the processor where it is. They only take turns, and to wake a
/// thread on another processor takes several times as long. (Of two explorations at a time on one processor, each takes
/// twice as long.)
class OneProcessor {
 public:
  OneProcessor() noexcept {
#if defined(__linux__)
    cpu_set_t here;
    CPU_ZERO(&here);
    const auto processor = sched_getcpu();
    if (processor >= 0 && processor < CPU_SETSIZE &&
        pthread_getaffinity_np(pthread_self(), sizeof before_, &before_) == 0) {
      CPU_SET(static_cast<std::size_t>(processor), &here);
      moved_ = pthread_setaffinity_np(pthread_self(), sizeof here, &here) == 0;
    }
#endif
  }
  OneProcessor(const OneProcessor&) = delete;
  OneProcessor& operator=(const OneProcessor&) = delete;
  ~OneProcessor() {
#if defined(__linux__)
    if (moved_) pthread_setaffinity_np(pthread_self(), sizeof before_, &before_);
#endif
  }

 private:
#if defined(__linux__)
  cpu_set_t before_{};
  bool moved_ = false;
#endif
};

/// Thrown outside of the threads of a scenario, where throwing is possible.
struct Failed {
  std::string what;
};

/// A snapshot that stays in the cache of a worker would be destroyed in the middle of the next execution.
void forget_snapshots() noexcept {
  for (std::uint64_t slot = 0; slot < shard::detail::kSnapshotSlots; ++slot) {
    shard::detail::remember_snapshot({.instance = ~std::uint64_t{3} + slot}, nullptr);
  }
}

}  // namespace

class Explorer {
 public:
  Explorer(const Bounds& bounds, const std::function<void(Execution&)>& scenario)
      : bounds_(bounds), scenario_(scenario) {}

  Exploration run();

  void step(detail::Step kind, const void* word) noexcept;
  [[nodiscard]] bool delay_store(const detail::Store& store) noexcept;
  [[nodiscard]] const detail::Store* own_store(const void* word) const noexcept;
  void traced(std::uint64_t value) noexcept { trace_.back().value = value; }
  void relax() noexcept;
  void give_way() noexcept;
  bool park(const void* word, const std::function<bool()>& holds, const Clock* clock,
            Timestamp deadline) noexcept;
  void unpark(const void* word, bool all) noexcept;
  [[noreturn]] void fail(std::string what) noexcept;

  [[nodiscard]] std::uint64_t now() const noexcept { return now_; }
  [[nodiscard]] bool has_process_barriers() const noexcept { return bounds_.process_barriers; }

 private:
  enum class State : std::uint8_t { ready, parked, ended };
  struct Thread {
    Baton baton;
    std::thread worker;
    std::function<void()> body;
    State state = State::ended;
    const void* word = nullptr;        ///< where it is parked
    std::optional<std::uint64_t> due;  ///< until when
    bool started = false;              ///< has done a step
    bool spinning = false;
    unsigned spins = 0;
    bool quit = false;
    std::deque<detail::Store> stores;  ///< done, and not visible to others yet
  };
  struct Option {
    enum class Kind : std::uint8_t { run, time_out, show_store } kind;
    Thread* thread;
  };
  struct Choice {
    std::size_t chosen;
    std::size_t count;  ///< 0 for any, in a replay
  };
  struct Traced {
    std::size_t thread;
    const char* what;
    const void* word;
    std::uint64_t value;
  };
  enum class Switch : std::uint8_t { preemption, free, forced };

  void work(Thread& self, std::size_t index) noexcept;
  void run_once();
  [[nodiscard]] bool next_schedule();
  [[nodiscard]] std::size_t choose(std::size_t count) noexcept;
  void reschedule(Thread* self, Switch kind) noexcept;
  void end_execution() noexcept;
  void show_oldest_store(Thread& thread) noexcept;
  void show_all_stores(Thread& thread) noexcept;
  void wake(Thread& thread) noexcept {
    thread.state = State::ready;
    thread.due.reset();
  }
  void count_step(const char* what, const void* word) noexcept;
  [[nodiscard]] std::size_t index_of(const Thread& thread) const noexcept;
  [[nodiscard]] std::string schedule() const;
  void read_replay();
  [[nodiscard]] std::string trace() const;

  const Bounds bounds_;
  const std::function<void(Execution&)> scenario_;
  std::vector<std::unique_ptr<Thread>> threads_;
  Baton main_;
  std::unique_ptr<Execution> execution_;

  std::vector<Option> options_;
  std::vector<Choice> path_;
  std::size_t position_ = 0;
  unsigned preemptions_ = 0;
  unsigned timeouts_ = 0;
  unsigned delayed_ = 0;
  std::size_t steps_ = 0;
  std::uint64_t now_ = 0;
  std::vector<Traced> trace_;
  std::string failure_;
};

namespace {

constinit thread_local Explorer* t_explorer = nullptr;
constinit thread_local std::size_t t_index = 0;
/// One exploration runs at a time.
std::atomic<Explorer*> g_explorer{nullptr};

std::string name_of(std::size_t thread) {
  return {static_cast<char>('A' + static_cast<char>(thread))};
}

void fail_on_misuse(const char* what) {
  if (t_explorer != nullptr) {
    t_explorer->fail(what);
  }
  throw Failed{what};
}

}  // namespace

std::size_t Explorer::index_of(const Thread& thread) const noexcept {
  const auto found = std::find_if(threads_.begin(), threads_.end(),
                                  [&](const auto& each) { return each.get() == &thread; });
  return static_cast<std::size_t>(found - threads_.begin());
}

void Explorer::work(Thread& self, std::size_t index) noexcept {
  for (;;) {
    self.baton.take();
    if (self.quit) {
      return;
    }
    t_explorer = this;
    t_index = index;
    self.body();
    t_explorer = nullptr;
    forget_snapshots();
    self.state = State::ended;
    reschedule(&self, Switch::forced);
  }
}

std::size_t Explorer::choose(std::size_t count) noexcept {
  if (count == 1) {
    return 0;
  }
  if (position_ == path_.size()) {
    path_.push_back({0, count});
  }
  auto& choice = path_[position_++];
  if (choice.count == 0) {
    choice.count = count;
  }
  if (choice.count != count || choice.chosen >= count) {
    failure_ = "the scenario does not do the same when it is run again";
    choice.count = std::max(choice.chosen + 1, count);
    return std::min(choice.chosen, count - 1);
  }
  return choice.chosen;
}

void Explorer::show_oldest_store(Thread& thread) noexcept {
  const auto& store = thread.stores.front();
  trace_.push_back({index_of(thread), "store is visible", store.word, store.value});
  store.apply(store.word, store.value);
  thread.stores.pop_front();
}

void Explorer::show_all_stores(Thread& thread) noexcept {
  while (!thread.stores.empty()) {
    show_oldest_store(thread);
  }
}

/// Decides who goes on. `self` is the thread that runs; it comes back from here when it is its turn again, or
/// at once if it has ended.
void Explorer::reschedule(Thread* self, Switch kind) noexcept {
  auto& options = options_;
  // Looked at first: whoever is given a baton may change it.
  const bool comes_back = self != nullptr && self->state != State::ended;
  const bool can_go_on = self != nullptr && self->state == State::ready;
  for (;;) {
    options.clear();
    if (can_go_on && kind != Switch::forced) {
      options.push_back({Option::Kind::run, self});
    }
    const bool may_switch =
        !can_go_on || kind != Switch::preemption || preemptions_ < bounds_.preemptions;
    Thread* next_due = nullptr;
    for (const auto& thread : threads_) {
      if (thread.get() != self && thread->state == State::ready && may_switch) {
        options.push_back({Option::Kind::run, thread.get()});
      }
      if (thread->state == State::parked && thread->due &&
          (next_due == nullptr || *thread->due < *next_due->due)) {
        next_due = thread.get();
      }
    }
    if (options.empty() && can_go_on) {
      return;  // it should make way, but there is nobody
    }
    const bool stuck = options.empty();
    if (next_due != nullptr && (stuck || timeouts_ < bounds_.timeouts)) {
      options.push_back({Option::Kind::time_out, next_due});
    }
    for (const auto& thread : threads_) {
      if (!stuck && !thread->stores.empty()) {
        options.push_back({Option::Kind::show_store, thread.get()});
      }
    }
    if (options.empty()) {
      end_execution();
      if (comes_back) {
        Baton{}.take();  // for ever
      }
      return;
    }

    const auto [what, next] = options[choose(options.size())];
    if (what == Option::Kind::show_store) {
      show_oldest_store(*next);
      continue;
    }
    if (what == Option::Kind::time_out) {
      now_ = std::max(now_, *next->due);
      timeouts_ += stuck ? 0 : 1;
      trace_.push_back({index_of(*next), "timeout", next->word, 0});
      wake(*next);
    } else if (next != self && can_go_on && kind == Switch::preemption) {
      ++preemptions_;
    }
    if (next != self) {
      next->baton.give();
      if (comes_back) {
        self->baton.take();
      }
    }
    return;
  }
}

/// Nobody can go on: either all have ended, or what is left is parked for ever.
void Explorer::end_execution() noexcept {
  std::string parked;
  std::size_t count = 0;
  for (const auto& thread : threads_) {
    show_all_stores(*thread);
    if (thread->state == State::parked) {
      parked += count++ == 0 ? "" : " and ";
      parked += name_of(index_of(*thread));
    }
  }
  if (count != 0) {
    failure_ = "deadlock: " + parked + (count == 1 ? " is" : " are") + " never woken";
  }
  main_.give();
}

void Explorer::count_step(const char* what, const void* word) noexcept {
  // A thread that spins sees the same again and again: once is enough to tell.
  const bool again = threads_[t_index]->spinning && !trace_.empty() &&
                     trace_.back().thread == t_index && trace_.back().word == word;
  if (again) {
    return;
  }
  trace_.push_back({t_index, what, word, 0});
  if (++steps_ > bounds_.steps) {
    fail("no end after " + std::to_string(bounds_.steps) + " steps: a thread spins");
  }
}

void Explorer::step(detail::Step kind, const void* word) noexcept {
  static constexpr std::array<const char*, 7> kNames{"load", "store",  "ordered store", "modify",
                                                     "park", "unpark", "barrier"};
  auto& self = *threads_[t_index];
  if (kind != detail::Step::load) {
    self.spinning = false;
  }
  if (std::exchange(self.started, true) && !self.spinning) {
    reschedule(&self, Switch::preemption);
  }
  if (kind != detail::Step::load && kind != detail::Step::store) {
    show_all_stores(self);
  }
  if (kind == detail::Step::barrier) {
    for (const auto& thread : threads_) {
      show_all_stores(*thread);
    }
  }
  count_step(kNames[static_cast<std::size_t>(kind)], word);
}

bool Explorer::delay_store(const detail::Store& store) noexcept {
  auto& self = *threads_[t_index];
  if (self.stores.empty()) {
    if (delayed_ == bounds_.delayed_stores || choose(2) == 0) {
      return false;
    }
    ++delayed_;
  }
  self.stores.push_back(store);  // what comes after a delayed store is not visible before it
  trace_.back().what = "delayed store";
  return true;
}

const detail::Store* Explorer::own_store(const void* word) const noexcept {
  const auto& stores = threads_[t_index]->stores;
  const auto newest = std::find_if(stores.rbegin(), stores.rend(),
                                   [word](const auto& store) { return store.word == word; });
  return newest == stores.rend() ? nullptr : &*newest;
}

void Explorer::relax() noexcept {
  constexpr unsigned kSpins = 1'000;
  auto& self = *threads_[t_index];
  if (!self.spinning) {
    self.spinning = true;
    self.spins = 0;
    reschedule(&self, Switch::free);
  } else if (++self.spins == kSpins) {
    give_way();  // it waits for somebody, however long
  }
}

void Explorer::give_way() noexcept {
  auto& self = *threads_[t_index];
  self.spinning = false;
  reschedule(&self, Switch::forced);
  count_step("give way", nullptr);
}

bool Explorer::park(const void* word, const std::function<bool()>& holds, const Clock* clock,
                    Timestamp deadline) noexcept {
  step(detail::Step::park, word);
  if (clock != nullptr && clock->now() >= deadline) {
    return false;
  }
  if (holds()) {
    auto& self = *threads_[t_index];
    self.word = word;
    self.state = State::parked;
    if (clock != nullptr && deadline != Timestamp::max()) {
      self.due = now_ + (deadline.nanoseconds - clock->now().nanoseconds);
    }
    reschedule(&self, Switch::forced);
  }
  return clock == nullptr || clock->now() < deadline;
}

void Explorer::unpark(const void* word, bool all) noexcept {
  step(detail::Step::unpark, word);
  std::vector<Thread*> parked;
  for (const auto& thread : threads_) {
    if (thread->state == State::parked && thread->word == word) {
      parked.push_back(thread.get());
    }
  }
  if (parked.empty()) {
    return;
  }
  if (all) {
    for (auto* thread : parked) {
      wake(*thread);
    }
  } else {
    wake(*parked[choose(parked.size())]);
  }
}

void Explorer::fail(std::string what) noexcept {
  failure_ = std::move(what);
  main_.give();
  Baton{}.take();  // for ever: nothing can be thrown through the library
  std::abort();
}

void Explorer::run_once() {
  position_ = 0;
  preemptions_ = 0;
  timeouts_ = 0;
  delayed_ = 0;
  steps_ = 0;
  now_ = 0;
  trace_.clear();
  try {
    execution_ = std::make_unique<Execution>();
    scenario_(*execution_);
    const auto count = execution_->bodies_.size();
    while (threads_.size() < count) {
      const auto index = threads_.size();
      auto& thread = *threads_.emplace_back(std::make_unique<Thread>());
      thread.worker = std::thread([this, &thread, index] { work(thread, index); });
    }
    for (std::size_t i = 0; i < count; ++i) {
      threads_[i]->body = std::move(execution_->bodies_[i]);
      threads_[i]->state = State::ready;
      threads_[i]->started = false;
      threads_[i]->spinning = false;
    }
    reschedule(nullptr, Switch::forced);
    main_.take();
    if (failure_.empty() && execution_->check_) {
      execution_->check_();
    }
    if (failure_.empty()) {
      for (const auto& thread : threads_) {
        thread->body = nullptr;  // may own what the execution has made
      }
      execution_.reset();
    }
  } catch (const Failed& failed) {
    failure_ = failed.what;
  }
}

/// The next one in depth-first order; false when all have been tried.
bool Explorer::next_schedule() {
  while (!path_.empty() && path_.back().chosen + 1 >= path_.back().count) {
    path_.pop_back();
  }
  if (path_.empty()) {
    return false;
  }
  ++path_.back().chosen;
  return true;
}

Exploration Explorer::run() {
  const auto handler = set_misuse_handler(&fail_on_misuse);
  const OneProcessor here;
  Exploration result;
  read_replay();
  do {
    run_once();
    ++result.executions;
    result.steps = std::max(result.steps, steps_);
    if (!failure_.empty()) {
      result.failure = failure_;
      result.schedule = schedule();
      result.trace = trace();
      break;
    }
    if (!bounds_.replay.empty() || !next_schedule()) {
      result.complete = true;
      break;
    }
  } while (result.executions < bounds_.executions);
  set_misuse_handler(handler);
  for (const auto& thread : threads_) {
    if (thread->state == State::ended) {
      thread->quit = true;
      thread->baton.give();
      thread->worker.join();
    } else {
      thread->worker.detach();
    }
  }
  return result;
}

std::string Explorer::schedule() const {
  std::string text;
  for (std::size_t i = 0; i < std::min(position_, path_.size()); ++i) {
    if (path_[i].chosen != 0) {
      text += text.empty() ? "" : " ";
      text += std::to_string(i);
      text += ':';
      text += std::to_string(path_[i].chosen);
    }
  }
  return text.empty() ? "0:0" : text;
}

void Explorer::read_replay() {
  std::istringstream text(bounds_.replay);
  std::size_t at = 0;
  char colon = 0;
  std::size_t chosen = 0;
  while (text >> at >> colon >> chosen) {
    while (path_.size() <= at) {
      path_.push_back({0, 0});
    }
    path_[at].chosen = chosen;
  }
}

std::string Explorer::trace() const {
  constexpr std::size_t kShown = 60;
  std::vector<const void*> words;  // numbered in the order in which they appear
  std::ostringstream text;
  for (std::size_t i = 0; i < trace_.size(); ++i) {
    const auto& entry = trace_[i];
    auto word = std::find(words.begin(), words.end(), entry.word);
    if (word == words.end()) {
      word = words.insert(words.end(), entry.word);
    }
    if (i + kShown >= trace_.size()) {
      text << name_of(entry.thread) << ' ' << entry.what << " w" << word - words.begin() << " = "
           << entry.value << '\n';
    }
  }
  return text.str();
}

std::ostream& operator<<(std::ostream& out, const Exploration& exploration) {
  out << exploration.executions << " executions of up to " << exploration.steps << " steps"
      << (exploration.complete ? ", all within the bounds" : "");
  if (!exploration.failure.empty()) {
    out << "\n"
        << exploration.failure << "\nschedule: " << exploration.schedule << "\n"
        << exploration.trace;
  }
  return out;
}

Exploration explore(const Bounds& bounds, const std::function<void(Execution&)>& scenario) {
  auto explorer = std::make_unique<Explorer>(bounds, scenario);
  g_explorer = explorer.get();
  auto result = explorer->run();
  g_explorer = nullptr;
  if (!result.failure.empty()) {
    // Its threads stand still somewhere in the scenario, for as long as the process lives.
    static auto* stopped = new std::vector<std::unique_ptr<Explorer>>;
    stopped->push_back(std::move(explorer));
  }
  return result;
}

void require(bool condition, std::string_view what) {
  if (!condition) {
    if (t_explorer != nullptr) {
      t_explorer->fail(std::string(what));
    }
    throw Failed{std::string(what)};
  }
}

void give_way() noexcept {
  if (t_explorer != nullptr) {
    t_explorer->give_way();
  }
}

int current_thread() noexcept { return t_explorer == nullptr ? -1 : static_cast<int>(t_index); }

const TimeSource& scheduled_time() noexcept {
  struct Time final : TimeSource {
    [[nodiscard]] std::uint64_t nanoseconds() const noexcept override {
      const auto* explorer = g_explorer.load();
      return 1'000 + (explorer == nullptr ? 0 : explorer->now());
    }
  };
  static const Time time;
  return time;
}

bool ScheduledPlatform::enable_process_barrier() noexcept {
  const auto* explorer = g_explorer.load();
  return explorer == nullptr || explorer->has_process_barriers();
}

namespace detail {

void step(Step kind, const void* word) noexcept {
  if (t_explorer != nullptr) {
    t_explorer->step(kind, word);
  }
}
bool delay_store(const Store& store) noexcept {
  return t_explorer != nullptr && t_explorer->delay_store(store);
}
const Store* own_store(const void* word) noexcept {
  return t_explorer == nullptr ? nullptr : t_explorer->own_store(word);
}
void traced(std::uint64_t value) noexcept {
  if (t_explorer != nullptr) {
    t_explorer->traced(value);
  }
}
void relax() noexcept {
  if (t_explorer != nullptr) {
    t_explorer->relax();
  }
}
bool park(const void* word, const std::function<bool()>& holds, const Clock* clock,
          Timestamp deadline) noexcept {
  if (t_explorer != nullptr) {
    return t_explorer->park(word, holds, clock, deadline);
  }
  if (holds()) {
    std::fputs("parked for ever outside of the threads of a scenario\n", stderr);
    std::abort();
  }
  return true;
}
void unpark(const void* word, bool all) noexcept {
  if (t_explorer != nullptr) {
    t_explorer->unpark(word, all);
  }
}

}  // namespace detail
}  // namespace shard::test
