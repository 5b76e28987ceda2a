// Producers at full speed while shards are added, activated, drained and removed at random; then every event must be
// accounted for, and with keyed routing every key must have kept its order.
//
// An event carries its producer, its key and its number within both. What is popped, and what remove_shard() hands
// back, is looked at under one mutex, so that the order in which events are looked at is the order in which they were
// popped, whichever thread did it.

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "shard/manager.hpp"

namespace {

using shard::Outcome;
using shard::ShardState;

struct Settings {
  std::uint64_t seconds = 2;
  std::uint64_t producers = 4;
  std::uint64_t keys = 64;         // of each producer
  std::uint64_t min_changes = 20;  // fewer is a failure: then nothing was tortured
  std::uint64_t seed = std::random_device{}();
  shard::Routing routing = shard::Routing::keyed;
  shard::BackpressureMode mode = shard::BackpressureMode::block;
};

struct Payload {
  std::uint64_t producer;
  std::uint64_t key;
  std::uint64_t number;  // of this producer's accepted events with this key
};

/// What has come out, and whether it was right.
class Checker {
 public:
  Checker(const Settings& settings)
      : settings_(settings), next_(settings.producers * settings.keys, 0) {}

  /// Looks at a batch and empties it. The caller has popped it under mutex().
  void look_at(shard::EventBatch& batch) {
    for (const auto event : batch) {
      Payload payload;
      std::memcpy(&payload, event.payload.data(), sizeof payload);
      auto& next = next_[payload.producer * settings_.keys + payload.key];
      const bool may_skip = settings_.mode == shard::BackpressureMode::drop_oldest;
      if (payload.number < next) {
        ++before_;
      } else if (payload.number > next && !may_skip) {
        ++after_;
      }
      next = std::max(next, payload.number + 1);
      ++seen_;
    }
    batch.clear();
  }
  std::mutex& mutex() { return mutex_; }
  [[nodiscard]] std::uint64_t seen() const { return seen_; }
  [[nodiscard]] std::uint64_t violations() const {
    return settings_.routing == shard::Routing::keyed ? before_ + after_ : 0;
  }

 private:
  const Settings& settings_;
  std::mutex mutex_;
  std::vector<std::uint64_t> next_;
  std::uint64_t seen_ = 0;
  std::uint64_t before_ = 0;  // events that came behind a younger one: reordered or twice
  std::uint64_t after_ = 0;   // events that came ahead of an older one: reordered or lost
};

struct Told {
  std::uint64_t offered = 0;
  std::uint64_t accepted = 0;
};

Told produce(shard::Manager& manager, const Settings& settings, std::uint64_t producer,
             const std::atomic<bool>& stop) {
  constexpr std::size_t kBatch = 32;
  std::mt19937_64 random(settings.seed * 31 + producer);
  std::vector<std::uint64_t> number(settings.keys, 0);
  std::vector<Payload> payloads(kBatch);
  std::vector<std::string> keys;
  for (std::uint64_t key = 0; key < settings.keys; ++key) {
    keys.push_back(std::to_string(producer) + "/" + std::to_string(key));
  }
  const auto bytes_of = [](const Payload& payload) {
    return shard::Bytes(reinterpret_cast<const std::byte*>(&payload), sizeof payload);
  };
  auto handle = manager.producer();
  std::vector<shard::RawEvent> events(kBatch);
  std::vector<Outcome> outcomes(kBatch);
  Told told;
  while (!stop) {
    const auto way = random() % 3;
    if (way == 2) {
      // A refused event stays where it is in its key's order only if those behind it are refused too, which
      // the batch promises; the numbers given to refused ones are given again.
      const auto before = number;
      for (std::size_t i = 0; i < kBatch; ++i) {
        const auto key = random() % settings.keys;
        payloads[i] = {producer, key, number[key]++};
        events[i] = manager.raw_event(bytes_of(payloads[i]), shard::Key{keys[key]});
      }
      told.accepted += manager.ingest_raw_batch(events, outcomes);
      told.offered += kBatch;
      number = before;
      for (std::size_t i = 0; i < kBatch; ++i) {
        number[payloads[i].key] += outcomes[i] == Outcome::accepted ? 1U : 0U;
      }
    } else {
      const auto key = random() % settings.keys;
      const Payload payload{producer, key, number[key]};
      const auto outcome = way == 0 ? manager.ingest(bytes_of(payload), shard::Key{keys[key]})
                                    : handle.ingest(bytes_of(payload), shard::Key{keys[key]});
      ++told.offered;
      if (outcome == Outcome::accepted) {
        ++told.accepted;
        ++number[key];
      }
    }
  }
  return told;
}

std::uint64_t operate(shard::Manager& manager, const Settings& settings, Checker& checker,
                      const std::atomic<bool>& stop) {
  std::mt19937_64 random(settings.seed);
  std::uint64_t changes = 0;
  shard::EventBatch queued;
  while (!stop) {
    const auto ids = manager.shard_ids();
    const auto id = ids[random() % ids.size()];
    switch (random() % 6) {
      case 0:
        changes += manager.add_shard_force() ? 1U : 0U;
        break;
      case 1:
      case 2:
        for (const auto candidate : ids) {
          if (manager.shard_state(candidate) == ShardState::provisioning &&
              manager.activate_shard(candidate)) {
            ++changes;
            break;
          }
        }
        break;
      case 3:
        changes += manager.drain_shard(id) ? 1U : 0U;
        break;
      case 4: {
        const std::lock_guard lock(checker.mutex());
        changes += manager.remove_shard(id, queued) ? 1U : 0U;
        checker.look_at(queued);
        break;
      }
      default:
        manager.finalize_draining();
        manager.remove_stopped_shards();
        break;
    }
    std::this_thread::yield();
  }
  return changes;
}

int run(const Settings& settings) {
  shard::ScalingPolicy policy;
  policy.min_shards = 2;
  policy.max_shards = 8;
  auto backpressure = shard::Backpressure::block(std::chrono::hours{1});
  backpressure.mode = settings.mode;
  shard::Manager manager{{.shards = 4,
                          .ring_capacity = 1'024,
                          .ring_bytes = std::size_t{64} << 10U,
                          .max_payload = 1'024,
                          .inline_max = 1'024,
                          .max_key = 64,
                          .backpressure = backpressure,
                          .scaling = policy,
                          .routing = settings.routing}};
  Checker checker(settings);
  std::atomic<bool> stop{false};
  std::vector<Told> told(settings.producers);
  std::vector<std::thread> producers;
  for (std::uint64_t p = 0; p < settings.producers; ++p) {
    producers.emplace_back([&, p] { told[p] = produce(manager, settings, p, stop); });
  }
  std::uint64_t changes = 0;
  std::thread operator_thread([&] { changes = operate(manager, settings, checker, stop); });

  shard::EventBatch batch;
  const auto pop_all = [&] {
    std::size_t popped = 0;
    for (const auto id : manager.shard_ids()) {
      if (const auto shard = manager.shard(id)) {
        const std::lock_guard lock(checker.mutex());
        popped += shard->pop_batch_into(batch, 512);
        checker.look_at(batch);
      }
    }
    return popped;
  };
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(settings.seconds);
  while (std::chrono::steady_clock::now() < end) {
    pop_all();
  }
  stop = true;
  std::atomic<bool> joined{false};
  std::thread joiner([&] {  // producers may be blocked until more is popped
    for (auto& producer : producers) {
      producer.join();
    }
    joined = true;
  });
  for (bool done = false; !done;) {
    done = joined;
    if (pop_all() != 0) {
      done = false;
    }
  }
  joiner.join();
  operator_thread.join();
  while (pop_all() != 0) {
  }

  Told all;
  for (const auto& each : told) {
    all.offered += each.offered;
    all.accepted += each.accepted;
  }
  const auto ledger = manager.ledger();
  bool ok = true;
  const auto require = [&ok](bool holds, const char* what) {
    if (!holds) {
      std::printf("  VIOLATION: %s\n", what);
      ok = false;
    }
  };
  require(ledger.balanced(), "accepted = evicted + returned + abandoned + queued");
  require(ledger.offered() == all.offered, "offered is what the producers offered");
  require(ledger.accepted == all.accepted, "accepted is what the producers were told");
  require(ledger.returned == checker.seen(), "returned is what was popped");
  require(ledger.queued == 0 && ledger.abandoned_queued == 0, "nothing is left");
  require(ledger.unrouted == 0, "nothing is unrouted");
  require(settings.mode != shard::BackpressureMode::block || ledger.returned == all.offered,
          "in block mode nothing is lost");
  require(checker.violations() == 0, "every key keeps its order");
  require(changes >= settings.min_changes, "there were enough changes");
  std::printf(
      "%s %s: %llu events, %llu changes, %llu evicted, %llu order violations in %llu s, seed %llu: "
      "%s\n",
      std::string(to_string(settings.routing)).c_str(),
      std::string(to_string(settings.mode)).c_str(), static_cast<unsigned long long>(all.offered),
      static_cast<unsigned long long>(changes), static_cast<unsigned long long>(ledger.evicted),
      static_cast<unsigned long long>(checker.violations()),
      static_cast<unsigned long long>(settings.seconds),
      static_cast<unsigned long long>(settings.seed), ok ? "ok" : "FAILED");
  return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::string_view text = argv[i + 1];
    std::uint64_t value = 0;
    const bool number = std::from_chars(text.begin(), text.end(), value).ptr == text.end();
    if (name == "--seconds" && number) {
      settings.seconds = value;
    } else if (name == "--min-changes" && number) {
      settings.min_changes = value;
    } else if (name == "--seed" && number) {
      settings.seed = value;
    } else if (name == "--routing" && (text == "keyed" || text == "balanced")) {
      settings.routing = text == "keyed" ? shard::Routing::keyed : shard::Routing::balanced;
    } else if (name == "--mode" &&
               (text == "block" || text == "drop_oldest" || text == "fail_producer")) {
      settings.mode = text == "block"         ? shard::BackpressureMode::block
                      : text == "drop_oldest" ? shard::BackpressureMode::drop_oldest
                                              : shard::BackpressureMode::fail_producer;
    } else {
      std::fprintf(stderr,
                   "usage: shard_torture [--seconds N] [--min-changes N] [--seed N] [--routing "
                   "keyed|balanced]\n"
                   "                     [--mode block|drop_oldest|fail_producer]\n");
      return 2;
    }
  }
  return run(settings);
}
