// What an ingest call costs its caller when its shard is full: because the worker is stuck in the
// adapter, so that nothing ever leaves, or because the adapter is slow, so that now and then a
// thousand events do.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "shard/pipeline.hpp"
#include "support/payloads.hpp"
#include "support/queues.hpp"
#include "support/rounds.hpp"
#include "support/team.hpp"
#include "system/sections.hpp"

namespace bench::system {
namespace {

constexpr std::size_t kPayload = kRecordPayload;
constexpr std::size_t kShards = 4;
constexpr std::size_t kCapacity = 1'024;
constexpr std::size_t kDistinct = 8'192;
constexpr auto kSlow = std::chrono::milliseconds{1};  ///< one call of the slow adapter

enum class Adapter { stuck, slow };

/// Ends the program.
[[noreturn]] void fail(const std::string& name, const char* what) {
  std::fprintf(stderr, "%s: %s\n", name.c_str(), what);
  std::_Exit(EXIT_FAILURE);
}

/// Takes events in while it is full.
class Full {
 public:
  Full() = default;
  Full(const Full&) = delete;
  Full& operator=(const Full&) = delete;
  virtual ~Full() = default;

  /// Before the first round: makes it full.
  virtual void fill(const Payloads& payloads) { ingest_all(payloads, 2); }
  /// How many were accepted. From any thread.
  virtual std::uint64_t ingest_all(const Payloads& payloads, std::size_t passes) = 0;
  /// After a round of `calls` of which so many were accepted.
  virtual void verify(const std::string& /*name*/, std::uint64_t /*calls*/,
                      std::uint64_t /*accepted*/) {}
  /// At the end.
  virtual void finish(const std::string& /*name*/) {}

 protected:
  template <class Ingest>
  static std::uint64_t each(const Payloads& payloads, std::size_t passes, Ingest ingest) {
    std::uint64_t accepted = 0;
    for (std::size_t pass = 0; pass < passes; ++pass) {
      for (const auto payload : payloads.views) {
        accepted += ingest(payload) ? 1U : 0U;
      }
    }
    return accepted;
  }
};

class FullPipeline final : public Full {
 public:
  FullPipeline(const shard::Backpressure& backpressure, Adapter adapter)
      : adapter_(adapter), pipeline_(options(backpressure), [this](const shard::Batch& batch) {
          if (adapter_ == Adapter::stuck) {
            arrived_.store(true);
            released_.wait(false);
          } else if (!released_.load()) {
            std::this_thread::sleep_for(kSlow);
          }
          delivered_ += batch.size();
          return shard::Delivery::delivered();
        }) {}

  /// The worker has to be stuck first, as it takes a batch with it.
  void fill(const Payloads& payloads) override {
    do {
      ingest_all(payloads, 1);
    } while (adapter_ == Adapter::stuck &&
             (!arrived_.load() ||
              pipeline_.manager().total_pending_in_rings() != kShards * (kCapacity - 1)));
    before_ = pipeline_.ledger();
  }

  std::uint64_t ingest_all(const Payloads& payloads, std::size_t passes) override {
    return each(payloads, passes, [this](shard::Bytes payload) {
      return pipeline_.ingest(payload) == shard::Outcome::accepted;
    });
  }

  void verify(const std::string& name, std::uint64_t calls, std::uint64_t accepted) override {
    const auto now = pipeline_.ledger();
    if (now.offered() - before_.offered() != calls || now.accepted - before_.accepted != accepted) {
      fail(name, "the ledger does not count what the calls answered");
    }
    if (adapter_ == Adapter::stuck) {
      verify_stuck(name, calls, accepted, now.evicted - before_.evicted);
    }
    before_ = now;
  }

  void finish(const std::string& name) override {
    released_.store(true);
    released_.notify_all();
    const bool complete = pipeline_.close(std::chrono::seconds{10}).complete;
    const auto ledger = pipeline_.ledger();
    if (!complete || !ledger.balanced() || ledger.delivered != delivered_ ||
        ledger.accepted != ledger.delivered + ledger.evicted) {
      fail(name, "events were lost that nobody counted");
    }
  }

 private:
  static shard::PipelineOptions options(const shard::Backpressure& backpressure) {
    shard::PipelineOptions options;
    options.manager.shards = kShards;
    options.manager.ring_capacity = kCapacity;
    options.manager.backpressure = backpressure;
    options.batch = shard::BatchOptions::low_latency();
    options.workers = 1;
    return options;
  }

  /// Nothing leaves but by eviction: each mode does exactly what it promises.
  void verify_stuck(const std::string& name, std::uint64_t calls, std::uint64_t accepted,
                    std::uint64_t evicted) const {
    using shard::BackpressureMode;
    const auto& backpressure = pipeline_.options().manager.backpressure;
    std::uint64_t least = 0;
    std::uint64_t most = 0;
    if (backpressure.mode == BackpressureMode::drop_oldest) {
      least = most = calls;
    } else if (backpressure.mode == BackpressureMode::sample) {
      // Each shard counts for itself.
      least = calls / backpressure.rate - kShards;
      most = calls / backpressure.rate + kShards;
    }
    if (accepted < least || accepted > most || evicted != accepted) {
      fail(name, "its shards were not full, or it did not do what its mode says");
    }
  }

  const Adapter adapter_;
  std::atomic<bool> arrived_{false};  ///< an event at the adapter
  std::atomic<bool> released_{false};
  std::uint64_t delivered_ = 0;  ///< by the worker, until it has ended
  shard::Ledger before_;
  shard::Pipeline pipeline_;
};

/// Queues that are full: an event that finds no room is lost, and nobody counts it. Where the adapter
/// is slow a thread takes from one instance after the other.
template <class Queue>
class FullQueues final : public Full {
 public:
  explicit FullQueues(Adapter adapter) : queue_(kShards, kCapacity, 1) {
    if (adapter == Adapter::slow) {
      consumer_ = std::jthread([this](const std::stop_token& stop) {
        for (std::size_t i = 0; !stop.stop_requested(); i = (i + 1) % kShards) {
          queue_.take(i, [](const auto&) {});
          // Even if there was nothing: between its own rounds it must not disturb those of others.
          std::this_thread::sleep_for(kSlow);
        }
      });
    }
  }

  std::uint64_t ingest_all(const Payloads& payloads, std::size_t passes) override {
    return each(payloads, passes, [this](shard::Bytes payload) {
      const auto hash = XXH3_64bits(payload.data(), payload.size());
      const auto place = static_cast<std::uint32_t>((hash >> 32U) * kShards >> 32U);
      return queue_.push(0, {payload, place}, ticks());
    });
  }

  void finish(const std::string& /*name*/) override { consumer_ = {}; }

 private:
  Queue queue_;
  std::jthread consumer_;
};

/// A ring behind a lock in which the newest event takes the place of the oldest. With the functions
/// of the queues in support/queues.hpp that are needed here.
template <class Lock>
class OverwritingRings {
 public:
  OverwritingRings(std::size_t instances, std::size_t capacity, std::size_t /*producers*/) {
    for (std::size_t i = 0; i < instances; ++i) {
      instances_.push_back(std::make_unique<Instance>(capacity));
    }
  }

  bool push(std::size_t /*producer*/, const Routed& event, std::uint64_t now) {
    auto& instance = *instances_[event.place];
    const std::lock_guard lock(instance.lock);
    instance.last = std::max(now, instance.last + 1);
    instance.at(instance.tail++) = Record(event, instance.last);
    if (instance.tail - instance.head > instance.records.size()) {
      ++instance.head;
      ++instance.evicted;
    }
    return true;
  }

  template <class Use>
  std::size_t take(std::size_t place, Use use) {
    auto& instance = *instances_[place];
    taken_.clear();
    {
      const std::lock_guard lock(instance.lock);
      for (; instance.head != instance.tail; ++instance.head) {
        taken_.push_back(instance.at(instance.head));
      }
    }
    if (!taken_.empty()) {
      use(taken_);
    }
    return taken_.size();
  }

 private:
  struct Instance {
    /// \param capacity  a power of two
    explicit Instance(std::size_t capacity) : records(capacity) {}

    Record& at(std::uint64_t index) { return records[index & (records.size() - 1)]; }

    alignas(64) Lock lock;
    std::uint64_t last = 0;
    std::uint64_t head = 0;
    std::uint64_t tail = 0;
    std::uint64_t evicted = 0;
    std::vector<Record> records;
  };
  std::vector<std::unique_ptr<Instance>> instances_;
  std::vector<Record> taken_;
};

class OverflowCase {
 public:
  OverflowCase(const Settings& settings, std::size_t producers, Adapter adapter)
      : settings_(settings),
        adapter_(adapter),
        passes_(settings.quick ? 4 : 100),
        team_(producers) {}

  void add(const std::string& name, Role role, std::unique_ptr<Full> full) {
    full->fill(payloads_);
    fulls_.push_back(std::move(full));
    roles_.push_back(role);
    subjects_.push_back({name, [this, name, &full = *fulls_.back()] { return run(name, full); }});
  }
  void add_shard(const std::string& mode, const shard::Backpressure& backpressure) {
    add("shard/" + mode, Role::subject, std::make_unique<FullPipeline>(backpressure, adapter_));
  }
  template <class Queue>
  void add_queue(const std::string& name, Role role) {
    add(name, role, std::make_unique<FullQueues<Queue>>(adapter_));
  }

  void run(const std::string& overflow) {
    const std::string adapter = adapter_ == Adapter::stuck ? "stuck" : "slow";
    const auto title = "overflow: " + overflow + ", adapter " + adapter + ", " +
                       std::to_string(team_.size()) + " producer" + (team_.size() > 1 ? "s" : "");
    std::printf("\n%s\n", title.c_str());
    const auto transfers = measure_rounds(subjects_, settings_.rounds());
    const auto peer = std::find(roles_.begin(), roles_.end(), Role::peer) - roles_.begin();
    print_rounds(subjects_, {{"ratio", &subjects_[static_cast<std::size_t>(peer)]}}, transfers);
    for (std::size_t i = 0; i < fulls_.size(); ++i) {
      fulls_[i]->finish(subjects_[i].name);
    }
    settings_.results->add(case_of(title, subjects_, roles_, transfers,
                                   {{"producers", team_.size()},
                                    {"shards", kShards},
                                    {"batch", 1},
                                    {"payload", kPayload},
                                    {"routing", "static"},
                                    {"overflow", overflow},
                                    {"adapter", adapter}},
                                   "ns per call"));
  }

 private:
  /// Of one producer: with several, what they wait for each other is in it.
  Nanoseconds run(const std::string& name, Full& full) {
    std::atomic<std::uint64_t> accepted{0};
    std::atomic<double> took{0};
    team_.run([&](std::size_t) {
      const auto start = std::chrono::steady_clock::now();
      accepted += full.ingest_all(payloads_, passes_);
      const std::chrono::duration<double, std::nano> mine =
          std::chrono::steady_clock::now() - start;
      took += mine.count() / static_cast<double>(team_.size());
    });
    full.verify(name, passes_ * kDistinct * team_.size(), accepted);
    return took / static_cast<double>(passes_ * kDistinct);
  }

  const Settings settings_;
  const Adapter adapter_;
  const std::size_t passes_;
  const Payloads payloads_{kPayload, kDistinct};
  Team team_;
  std::vector<std::unique_ptr<Full>> fulls_;
  std::vector<Subject> subjects_;
  std::vector<Role> roles_;
};

void refuse(const Settings& settings, std::size_t producers, Adapter adapter) {
  using shard::Backpressure;
  OverflowCase rows(settings, producers, adapter);
  rows.add_shard("drop_newest", Backpressure::drop_newest());
  rows.add_shard("fail_producer", Backpressure::fail_producer());
  rows.add_shard("block_0", Backpressure::block(std::chrono::nanoseconds{0}));
  rows.add_queue<LockedRings<YieldingSpinLock>>("boost_ring+spin_lock, drops", Role::peer);
  rows.add_queue<LockedRings<std::mutex>>("boost_ring+std_mutex, drops", Role::peer);
  rows.add_queue<MutexDeques>("std_mutex+std_deque, drops", Role::peer);
  rows.run("the new event is refused");
}

void evict(const Settings& settings, std::size_t producers, Adapter adapter) {
  using shard::Backpressure;
  OverflowCase rows(settings, producers, adapter);
  rows.add_shard("drop_oldest", Backpressure::drop_oldest());
  rows.add_shard("sample_10", Backpressure::sample(10));
  rows.add_queue<OverwritingRings<YieldingSpinLock>>("ring+spin_lock, overwrites", Role::peer);
  rows.add_queue<OverwritingRings<std::mutex>>("ring+std_mutex, overwrites", Role::peer);
  // It does less: nothing is copied and nothing moves.
  rows.add_queue<LockedRings<YieldingSpinLock>>("floor: boost_ring+spin_lock, drops", Role::floor);
  rows.run("old events make room");
}

}  // namespace

void overflow(const Settings& settings) {
  for (const auto adapter : {Adapter::stuck, Adapter::slow}) {
    for (const std::size_t producers : {1U, 2U}) {
      refuse(settings, producers, adapter);
      evict(settings, producers, adapter);
    }
  }
}

}  // namespace bench::system
