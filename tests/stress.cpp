// Many events from many threads, in each backpressure mode; then every one must be accounted for.
//
// An event carries its producer, its number and a checksum, so that loss, duplication, reordering and corruption
// are told apart. Memory is bounded: what is kept is the last number per producer and shard. That nothing is lost
// follows from counts that must agree exactly - what the producers were told, what the ledger says, what was
// popped, and the gaps in each shard's sequence, which must be the evictions.

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "shard/manager.hpp"

namespace {

using shard::Outcome;

constexpr std::array kModes{shard::BackpressureMode::drop_newest,
                            shard::BackpressureMode::drop_oldest,
                            shard::BackpressureMode::fail_producer, shard::BackpressureMode::sample,
                            shard::BackpressureMode::block};
constexpr std::size_t kOutcomes = 12;

struct Settings {
  std::uint64_t events = 1'000'000;  // in all, for each mode
  std::uint64_t producers = 4;
  std::uint64_t consumers = 2;
  std::uint64_t shards = 4;
  std::uint64_t batch = 256;
  std::uint64_t ring_capacity = 4'096;
  std::uint64_t ring_bytes = 262'144;
  std::uint64_t seed = std::random_device{}();
  std::optional<shard::BackpressureMode> mode;  // all of them without
};

std::uint64_t mix(std::uint64_t value) {  // splitmix64, by Sebastiano Vigna; public domain
  value += 0x9E3779B97F4A7C15U;
  value = (value ^ (value >> 30U)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27U)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31U);
}

/// The payload: these, and up to 40 bytes more that follow from them.
struct Head {
  std::uint64_t producer;
  std::uint64_t number;
  std::uint64_t checksum;
};

constexpr std::size_t kLongest = sizeof(Head) + 40;

std::uint64_t checksum_of(std::uint64_t producer, std::uint64_t number, std::uint64_t seed) {
  return mix(mix(producer + seed) + number);
}
std::size_t size_of(std::uint64_t checksum) { return sizeof(Head) + checksum % 41; }
std::byte filling_of(std::uint64_t checksum) { return static_cast<std::byte>(checksum >> 56U); }

std::size_t write_event(std::byte* at, std::uint64_t producer, std::uint64_t number,
                        std::uint64_t seed) {
  const Head head{producer, number, checksum_of(producer, number, seed)};
  const auto size = size_of(head.checksum);
  std::memcpy(at, &head, sizeof head);
  std::memset(at + sizeof head, static_cast<int>(filling_of(head.checksum)), size - sizeof head);
  return size;
}

/// What went wrong first in one thread.
class Violation {
 public:
  void found(const std::string& what) {
    if (count_++ == 0) {
      first_ = what;
    }
  }
  void equal(const char* what, std::uint64_t is, std::uint64_t must_be) {
    if (is != must_be) {
      found(std::string(what) + ": " + std::to_string(is) + " instead of " +
            std::to_string(must_be));
    }
  }
  [[nodiscard]] std::uint64_t print() const {
    if (count_ != 0) {
      std::printf("  VIOLATION %s (%llu in all)\n", first_.c_str(),
                  static_cast<unsigned long long>(count_));
    }
    return count_;
  }

 private:
  std::string first_;
  std::uint64_t count_ = 0;
};

struct alignas(64) Producer {
  std::array<std::uint64_t, kOutcomes> told{};
  std::uint64_t fingerprint = 0;  ///< sum of the checksums of what was accepted

  void count(Outcome outcome, const std::byte* payload) {
    ++told[static_cast<std::size_t>(outcome)];
    if (outcome == Outcome::accepted) {
      Head head;
      std::memcpy(&head, payload, sizeof head);
      fingerprint += head.checksum;
    }
  }

  /// Takes the ways in by turns, a batch each.
  void run(shard::Manager& manager, const Settings& settings, std::uint64_t producer,
           std::uint64_t events) {
    auto handle = manager.producer();
    std::vector<std::byte> bytes(settings.batch * kLongest);
    std::vector<shard::Bytes> payloads(settings.batch);
    std::vector<shard::RawEvent> raw(settings.batch);
    std::vector<Outcome> outcomes(settings.batch);
    const std::string key = "producer " + std::to_string(producer);
    const auto one_by_one = [&](std::size_t n, const auto& ingest) {
      for (std::size_t i = 0; i < n; ++i) {
        outcomes[i] = ingest(i);
      }
    };
    std::uint64_t number = 0;
    for (std::uint64_t turn = producer; number < events; ++turn) {
      const auto n = static_cast<std::size_t>(std::min(settings.batch, events - number));
      for (std::size_t i = 0; i < n; ++i) {
        auto* at = bytes.data() + i * kLongest;
        payloads[i] = shard::Bytes(at, write_event(at, producer, number++, settings.seed));
      }
      const auto some = std::span<const shard::Bytes>(payloads).first(n);
      switch (turn % 6) {
        case 0:
          one_by_one(n, [&](std::size_t i) { return manager.ingest(payloads[i]); });
          break;
        case 1:
          manager.ingest_batch(some, outcomes);
          break;
        case 2:
          one_by_one(n, [&](std::size_t i) { return handle.ingest(payloads[i]); });
          break;
        case 3:
          handle.ingest_batch(some, outcomes);
          break;
        case 4:
          one_by_one(n,
                     [&](std::size_t i) { return manager.ingest(payloads[i], shard::Key{key}); });
          break;
        default:
          for (std::size_t i = 0; i < n; ++i) {
            raw[i] = manager.raw_event(payloads[i]);
          }
          manager.ingest_raw_batch(std::span<const shard::RawEvent>(raw).first(n), outcomes);
          break;
      }
      for (std::size_t i = 0; i < n; ++i) {
        count(outcomes[i], payloads[i].data());
      }
    }
  }
};

/// Pops the shards that are its own, so that order can be checked.
struct alignas(64) Consumer {
  struct PerShard {
    explicit PerShard(shard::Shard its, std::uint64_t producers)
        : shard(std::move(its)), next_number(producers, 0) {}
    shard::Shard shard;
    std::vector<std::uint64_t> next_number;  ///< per producer, at least
    std::uint64_t popped = 0;
    std::uint64_t gaps = 0;
    std::uint64_t next_sequence = 0;
    shard::Timestamp last{};
  };
  std::vector<PerShard> shards;
  std::uint64_t fingerprint = 0;
  Violation violation;

  void check(PerShard& at, const shard::Event& event, std::uint64_t seed) {
    Head head{};
    if (event.payload.size() >= sizeof head) {
      std::memcpy(&head, event.payload.data(), sizeof head);
    }
    const auto rest = event.payload.span().subspan(std::min(sizeof head, event.payload.size()));
    if (head.producer >= at.next_number.size() ||
        head.checksum != checksum_of(head.producer, head.number, seed) ||
        event.payload.size() != size_of(head.checksum) ||
        std::any_of(rest.begin(), rest.end(),
                    [&](std::byte byte) { return byte != filling_of(head.checksum); })) {
      violation.found("corrupt content in shard " + std::to_string(event.shard.value));
      return;
    }
    auto& next = at.next_number[static_cast<std::size_t>(head.producer)];
    if (head.number < next) {
      violation.found("event " + std::to_string(head.number) + " of producer " +
                      std::to_string(head.producer) + " is late or comes twice");
    }
    next = head.number + 1;
    if (event.sequence.value < at.next_sequence) {
      violation.found("the sequence steps back");
    } else {
      at.gaps += event.sequence.value - at.next_sequence;
    }
    at.next_sequence = event.sequence.value + 1;
    if (at.popped != 0 && event.timestamp <= at.last) {
      violation.found("the time stands still or steps back");
    }
    at.last = event.timestamp;
    fingerprint += head.checksum;
    ++at.popped;
  }

  void run(const Settings& settings, const std::atomic<std::uint64_t>& running) {
    shard::EventBatch batch;
    std::uint64_t passes = 0;
    for (bool done = false; !done;) {
      done = running.load() ==
             0;  // looked at first: a pass after it that finds nothing has missed nothing
      bool idle = true;
      for (auto& at : shards) {
        batch.clear();
        if (at.shard.pop_batch_into(batch, 4'096) != 0) {
          idle = false;
        }
        for (const auto event : batch) {
          check(at, event, settings.seed);
        }
        if (++passes % 64 == 0) {
          const auto ledger = at.shard.ledger();
          if (ledger.returned + ledger.evicted > ledger.accepted) {
            violation.found("a ledger in motion shows more out than in");
          }
        }
      }
      done = done && idle;
      if (idle && !done) {
        std::this_thread::yield();
      }
    }
  }
};

shard::Backpressure backpressure_of(shard::BackpressureMode mode) {
  switch (mode) {
    case shard::BackpressureMode::drop_oldest:
      return shard::Backpressure::drop_oldest();
    case shard::BackpressureMode::fail_producer:
      return shard::Backpressure::fail_producer();
    case shard::BackpressureMode::sample:
      return shard::Backpressure::sample(10);
    case shard::BackpressureMode::block:
      return shard::Backpressure::block(std::chrono::minutes{10});
    case shard::BackpressureMode::drop_newest:
      break;
  }
  return shard::Backpressure::drop_newest();
}

/// Returns the number of violations.
std::uint64_t run(const Settings& settings, shard::BackpressureMode mode) {
  shard::ManagerOptions options;
  options.shards = settings.shards;
  options.ring_capacity = settings.ring_capacity;
  options.ring_bytes = settings.ring_bytes;
  options.max_payload = std::min<std::size_t>(options.max_payload, settings.ring_bytes / 2);
  options.inline_max = std::min<std::size_t>(options.inline_max, settings.ring_bytes / 4);
  options.backpressure = backpressure_of(mode);
  options.seed = settings.seed;
  shard::Manager manager(options);

  std::vector<Producer> producers(settings.producers);
  std::vector<Consumer> consumers(settings.consumers);
  for (const auto id : manager.shard_ids()) {
    consumers[id.value % settings.consumers].shards.emplace_back(*manager.shard(id),
                                                                 settings.producers);
  }

  const auto start = std::chrono::steady_clock::now();
  {
    std::atomic<std::uint64_t> running{settings.producers};
    std::vector<std::jthread> threads;
    for (auto& consumer : consumers) {
      threads.emplace_back([&] { consumer.run(settings, running); });
    }
    for (std::uint64_t p = 0; p < settings.producers; ++p) {
      const auto events =
          settings.events / settings.producers + (p < settings.events % settings.producers ? 1 : 0);
      threads.emplace_back([&, p, events] {
        producers[p].run(manager, settings, p, events);
        --running;
      });
    }
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;

  // Everything is quiet: from here on all must be exact.
  Violation violation;
  std::array<std::uint64_t, kOutcomes> told{};
  std::uint64_t fingerprint = 0;
  for (const auto& producer : producers) {
    for (std::size_t i = 0; i < kOutcomes; ++i) {
      told[i] += producer.told[i];
    }
    fingerprint += producer.fingerprint;
  }
  const auto ledger = manager.ledger();
  const auto expect = [&](const char* what, std::uint64_t is, Outcome outcome) {
    violation.equal(what, is, told[static_cast<std::size_t>(outcome)]);
  };
  violation.equal("offered", ledger.offered(), settings.events);
  expect("accepted", ledger.accepted, Outcome::accepted);
  expect("dropped_newest", ledger.dropped_newest, Outcome::dropped_newest);
  expect("rejected_full", ledger.rejected_full, Outcome::rejected_full);
  expect("rejected_timeout", ledger.rejected_timeout, Outcome::rejected_timeout);
  expect("sampled_out", ledger.sampled_out, Outcome::sampled_out);
  expect("rejected_closed", ledger.rejected_closed, Outcome::rejected_closed);
  violation.equal("rejected_invalid", ledger.rejected_invalid, 0);
  violation.equal("queued at the end", ledger.queued, 0);

  auto total = manager.own_ledger();
  std::uint64_t popped_fingerprint = 0;
  for (const auto& consumer : consumers) {
    for (const auto& at : consumer.shards) {
      const auto of_shard = at.shard.ledger();
      total += of_shard;
      violation.equal("returned of a shard", of_shard.returned, at.popped);
      violation.equal("evicted of a shard", of_shard.evicted, at.gaps);
      violation.equal("accepted of a shard", of_shard.accepted, at.next_sequence);
      if (!of_shard.balanced()) {
        violation.found("a shard is not balanced");
      }
    }
    popped_fingerprint += consumer.fingerprint;
  }
  if (!(total == ledger)) {
    violation.found("the total is not the sum over the shards and the manager");
  }
  if (ledger.evicted == 0) {  // then what was popped is exactly what was accepted
    violation.equal("the sum of the checksums", popped_fingerprint, fingerprint);
  }
  if (mode == shard::BackpressureMode::block) {
    violation.equal("accepted with time to wait", ledger.accepted, settings.events);
  }
  if (mode != shard::BackpressureMode::drop_oldest && mode != shard::BackpressureMode::sample) {
    violation.equal("evicted in a mode that evicts nothing", ledger.evicted, 0);
  }

  auto counts = to_string(ledger);
  std::replace(counts.begin(), counts.end(), '\n', ',');
  std::printf("%-13s %llu events in %.2f s, %.2f million/s, seed %llu: %s\n",
              std::string(to_string(mode)).c_str(),
              static_cast<unsigned long long>(settings.events), took.count(),
              static_cast<double>(settings.events) / took.count() / 1e6,
              static_cast<unsigned long long>(settings.seed), counts.c_str());
  std::uint64_t violations = violation.print();
  for (const auto& consumer : consumers) {
    violations += consumer.violation.print();
  }
  std::fflush(stdout);
  return violations;
}

[[noreturn]] void usage() {
  std::fputs(
      "usage: shard_stress [--events N] [--producers N] [--consumers N] [--shards N] [--batch N]\n"
      "                    [--ring-capacity N] [--ring-bytes N] [--seed N] [--mode MODE|all]\n"
      "MODE: drop_newest drop_oldest fail_producer sample block\n",
      stderr);
  std::exit(2);
}

Settings parse(int argc, char** argv) {
  Settings settings;
  const std::array<std::pair<std::string_view, std::uint64_t*>, 8> numbers{{
      {"--events", &settings.events},
      {"--producers", &settings.producers},
      {"--consumers", &settings.consumers},
      {"--shards", &settings.shards},
      {"--batch", &settings.batch},
      {"--ring-capacity", &settings.ring_capacity},
      {"--ring-bytes", &settings.ring_bytes},
      {"--seed", &settings.seed},
  }};
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::string_view value = i + 1 < argc ? argv[i + 1] : "";
    const auto number = std::find_if(numbers.begin(), numbers.end(),
                                     [&](const auto& each) { return each.first == name; });
    if (number != numbers.end()) {
      const auto [end, error] =
          std::from_chars(value.data(), value.data() + value.size(), *number->second);
      if (error != std::errc{} || end != value.data() + value.size() ||
          (*number->second == 0 && name != "--seed")) {
        usage();
      }
    } else if (name == "--mode" && value != "all") {
      const auto* mode = std::find_if(kModes.begin(), kModes.end(),
                                      [&](auto each) { return to_string(each) == value; });
      if (mode == kModes.end()) {
        usage();
      }
      settings.mode = *mode;
    } else if (name != "--mode") {
      usage();
    }
  }
  return settings;
}

}  // namespace

int main(int argc, char** argv) {
  const auto settings = parse(argc, argv);
  std::uint64_t violations = 0;
  try {
    for (const auto mode : kModes) {
      if (!settings.mode || *settings.mode == mode) {
        violations += run(settings, mode);
      }
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "shard_stress: %s\n", error.what());
    return 2;
  }
  return violations == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
