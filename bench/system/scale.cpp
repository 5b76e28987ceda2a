// What stays flat: the cost of an event against the number of shards and against the backlog, and the
// memory of a shard. (Against the number of producers: see the throughput.)
#include <malloc.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "shard/manager.hpp"
#include "shard/pipeline.hpp"
#include "support/core.hpp"
#include "support/flow_case.hpp"
#include "support/payloads.hpp"
#include "support/peers.hpp"
#include "support/pipeline_flow.hpp"
#include "support/rounds.hpp"
#include "system/sections.hpp"

namespace bench::system {
namespace {

constexpr std::size_t kPayload = kRecordPayload;
/// Records of all shards together: that memory stays the same, so that caches are no reason for a
/// difference.
constexpr std::size_t kRecords = std::size_t{1} << 17U;
/// Events between two drains, all different: even of 1,024 shards none gets full.
constexpr std::size_t kFill = std::size_t{1} << 15U;

using Nanos = std::chrono::duration<double, std::nano>;

/// Ends the program.
[[noreturn]] void fail(const std::string& name, const char* what) {
  std::fprintf(stderr, "%s: %s\n", name.c_str(), what);
  std::_Exit(EXIT_FAILURE);
}

shard::ManagerOptions small_shards(std::size_t shards) {
  const auto capacity = kRecords / shards;
  return {.shards = shards,
          .ring_capacity = capacity,
          .ring_bytes = capacity * kPayload,
          .max_payload = 1'024,
          .inline_max = 1'024};
}

nlohmann::ordered_json parameters(std::size_t shards) {
  return {{"producers", 1},
          {"shards", shards},
          {"batch", 1},
          {"payload", kPayload},
          {"routing", "static"}};
}

/// For cases without threads: prints and records.
void run_case(const Settings& settings, const std::string& title, std::vector<Subject>& subjects,
              nlohmann::ordered_json given) {
  std::printf("\n%s\n", title.c_str());
  run_rounds(*settings.results, title, subjects, settings.rounds(), "boost_ring+spin_lock",
             std::move(given));
}

/// Nanoseconds per event of ingesting, with untimed drains.
template <class Ingest, class Drain>
Nanoseconds fill(const std::string& name, const Payloads& payloads, int fills, Ingest ingest,
                 Drain drain) {
  Nanos total{0};
  for (int i = 0; i < fills; ++i) {
    std::size_t accepted = 0;
    const auto start = std::chrono::steady_clock::now();
    for (const auto payload : payloads.views) {
      accepted += ingest(payload) ? 1U : 0U;
    }
    total += std::chrono::steady_clock::now() - start;
    if (accepted != payloads.views.size()) {
      fail(name, "refused events although there was room");
    }
    drain();
  }
  return total.count() / fills / static_cast<double>(payloads.views.size());
}

template <class Peer>
Subject filled_peer(const std::string& name, std::size_t shards, const Payloads& payloads,
                    int fills) {
  auto peer = std::make_shared<Peer>(shards, kRecords / shards);
  return {name, [=, &payloads] {
            return fill(
                name, payloads, fills, [&](shard::Bytes payload) { return peer->ingest(payload); },
                [&] { peer->drain(); });
          }};
}

void callers_side(const Settings& settings, std::size_t shards, const Payloads& payloads) {
  const int fills = settings.quick ? 2 : 40;
  const std::string name = "shard";
  auto manager = std::make_shared<shard::Manager>(small_shards(shards));
  const auto drain = [&payloads, manager, name, batch = std::make_shared<shard::EventBatch>()] {
    std::size_t popped = 0;
    for (const auto id : manager->shard_ids()) {
      batch->clear();
      popped += manager->shard(id)->pop_batch_into(*batch);
    }
    if (popped != payloads.views.size()) {
      fail(name, "lost events");
    }
  };
  std::vector<Subject> subjects;
  subjects.push_back({name, [=, &payloads] {
                        return fill(
                            name, payloads, fills,
                            [&](shard::Bytes payload) {
                              return manager->ingest(payload) == shard::Outcome::accepted;
                            },
                            drain);
                      }});
  subjects.push_back(
      filled_peer<HandMade<SpinLock, kPayload>>("boost_ring+spin_lock", shards, payloads, fills));
  subjects.push_back(
      filled_peer<HandMade<std::mutex, kPayload>>("boost_ring+std_mutex", shards, payloads, fills));
  const OnFastestCore core;
  run_case(settings, "scale: caller's side, shards: " + std::to_string(shards), subjects,
           parameters(shards));
}

void end_to_end(const Settings& settings, std::size_t shards, const Payloads& payloads) {
  const Load load{.producers = 1,
                  .shards = shards,
                  .passes = settings.quick ? std::size_t{2} : std::size_t{60},
                  .payloads = &payloads};
  auto options = waiting_pipeline(shards);
  const auto backpressure = options.manager.backpressure;
  options.manager = small_shards(shards);
  options.manager.backpressure = backpressure;
  FlowCase rows(load);
  rows.add<PipelineFlow<>>("shard", Role::subject, options);
  rows.add_peer<LockedRings<YieldingSpinLock>>("boost_ring+spin_lock", shards, kRecords / shards);
  rows.add_peer<LockedRings<std::mutex>>("boost_ring+std_mutex", shards, kRecords / shards);
  rows.run(*settings.results, "scale: end to end, shards: " + std::to_string(shards),
           settings.rounds(), parameters(shards));
}

/// One shard, so that its backlog is known: puts in a step and takes out a step, over and over, with
/// `backlog` events that stay in front of them. Nanoseconds per event, in and out.
class Backlog {
 public:
  static constexpr std::size_t kStep = kTakeMax;
  static constexpr std::size_t kCapacity = 16'384;

  template <class Put, class Take>
  static Nanoseconds measure(const std::string& name, const Payloads& payloads, int passes, Put put,
                             Take take) {
    const auto start = std::chrono::steady_clock::now();
    std::size_t accepted = 0;
    std::size_t taken = 0;
    for (int pass = 0; pass < passes; ++pass) {
      for (std::size_t i = 0; i < payloads.views.size(); i += kStep) {
        for (std::size_t j = i; j < i + kStep; ++j) {
          accepted += put(payloads.views[j]) ? 1U : 0U;
        }
        taken += take();
      }
    }
    const Nanos took = std::chrono::steady_clock::now() - start;
    const auto events = static_cast<std::size_t>(passes) * payloads.views.size();
    if (accepted != events || taken != events) {
      fail(name, "lost events");
    }
    return took.count() / static_cast<double>(events);
  }
};

void backlog(const Settings& settings, std::size_t backlog, const std::string& title,
             const Payloads& payloads) {
  const int passes = settings.quick ? 2 : 40;
  const std::string name = "shard";
  auto manager = std::make_shared<shard::Manager>(
      shard::ManagerOptions{.shards = 1, .ring_capacity = Backlog::kCapacity});
  const auto put = [manager](shard::Bytes payload) {
    return manager->ingest(payload) == shard::Outcome::accepted;
  };
  const auto take = [shard = *manager->shard(manager->shard_ids().front()),
                     batch = std::make_shared<shard::EventBatch>()] {
    batch->clear();
    return shard.pop_batch_into(*batch, Backlog::kStep);
  };
  std::vector<Subject> subjects;
  subjects.push_back(
      {name, [=, &payloads] { return Backlog::measure(name, payloads, passes, put, take); }});

  const std::string peer = "boost_ring+spin_lock";
  auto ring = std::make_shared<LockedRings<YieldingSpinLock>>(1, Backlog::kCapacity, 1);
  const auto put_in_ring = [ring](shard::Bytes payload) {
    const auto hash = XXH3_64bits(payload.data(), payload.size());
    keep(hash);  // with one ring only it decides nothing, but is to be made all the same
    return ring->push(0, {payload, 0}, ticks());
  };
  const auto take_from_ring = [ring] { return ring->take(0, [](const auto&) {}); };
  subjects.push_back({peer, [=, &payloads] {
                        return Backlog::measure(peer, payloads, passes, put_in_ring,
                                                take_from_ring);
                      }});
  for (std::size_t i = 0; i < backlog; ++i) {
    if (!put(payloads.views[i]) || !put_in_ring(payloads.views[i])) {
      fail(name, "the backlog does not fit");
    }
  }
  auto given = parameters(1);
  given["backlog"] = backlog;
  given["capacity"] = Backlog::kCapacity;
  run_case(settings, title, subjects, std::move(given));
  if (manager->total_pending_in_rings() != backlog) {
    fail(name, "the backlog has changed");
  }
}

/// Bytes that `make(n)` allocates more for each of n. A host's allocator may take more from the system,
/// or less as long as a page has not been touched.
template <class Make>
double bytes_of_each(Make make) {
  constexpr std::size_t kMany = 65;
  std::array<double, 2> bytes{};
  for (const auto& [i, n] :
       {std::pair{std::size_t{0}, std::size_t{1}}, std::pair{std::size_t{1}, kMany}}) {
    const auto in_use = [] {
      const auto info = mallinfo2();
      return static_cast<double>(info.uordblks) + static_cast<double>(info.hblkhd);
    };
    const auto before = in_use();
    const auto made = make(n);
    bytes[i] = in_use() - before;
  }
  return (bytes[1] - bytes[0]) / static_cast<double>(kMany - 1);
}

/// \param room  the rings of the manager's shards
void memory(const Settings& settings, const std::string& title, const shard::ManagerOptions& room) {
  std::vector<Subject> subjects;
  std::vector<Role> roles;
  const auto add = [&](const char* name, Role role, auto make) {
    subjects.push_back({.name = name, .measure = {}, .rounds = {bytes_of_each(make)}});
    roles.push_back(role);
  };
  auto options = waiting_pipeline(1);
  options.manager = room;
  add("shard/manager", Role::subject, [&](std::size_t shards) {
    options.manager.shards = shards;
    return std::make_unique<shard::Manager>(options.manager);
  });
  add("shard/pipeline", Role::subject, [&](std::size_t shards) {
    options.manager.shards = shards;
    return std::make_unique<shard::Pipeline>(
        options, [](const shard::Batch&) { return shard::Delivery::delivered(); });
  });
  // Each of its records has the place for 64 bytes inside.
  add("boost_ring+spin_lock", Role::peer, [&](std::size_t shards) {
    return std::make_unique<LockedRings<SpinLock>>(shards, room.ring_capacity, 1);
  });
  std::printf("\n%s\n%-44s %12s\n", title.c_str(), "bytes allocated at construction", "per shard");
  for (const auto& subject : subjects) {
    std::printf("%-44s %12.0f\n", subject.name.c_str(), subject.median());
  }
  settings.results->add(case_of(title, subjects, roles, {},
                                {{"payload", kPayload},
                                 {"ring_capacity", room.ring_capacity},
                                 {"ring_bytes", room.ring_bytes}},
                                "bytes per shard"));
}

}  // namespace

void scale(const Settings& settings) {
  const Payloads payloads(kPayload, kFill);
  for (const std::size_t shards : {1U, 4U, 16U, 64U, 256U, 1'024U}) {
    callers_side(settings, shards, payloads);
  }
  for (const std::size_t shards : {1U, 4U, 16U, 64U, 256U, 1'024U}) {
    end_to_end(settings, shards, payloads);
  }
  backlog(settings, 0, "scale: in and out, ring nearly empty", payloads);
  backlog(settings, Backlog::kCapacity / 2, "scale: in and out, ring half full", payloads);
  memory(settings, "scale: memory of a shard, 16,384 records and 1 MiB", {});
  memory(settings, "scale: memory of a shard, 256 records and 16 KiB",
         {.ring_capacity = 256,
          .ring_bytes = std::size_t{16} << 10U,
          .max_payload = 1'024,
          .inline_max = 1'024});
}

}  // namespace bench::system
