// Ingests a number of 64-byte events in one way and ends. For bench/instructions, which runs it with two numbers and
// takes the difference, so that what happens once does not count.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

#include "shard/manager.hpp"
#include "support/payloads.hpp"
#include "support/peers.hpp"

namespace {

/// What is counted: the ingest calls and the loop around them.
[[gnu::noinline]] std::size_t measured(const std::function<std::size_t()>& ingest_all) {
  return ingest_all();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string way = argc > 1 ? argv[1] : "single";
  const std::size_t events = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 8'192;
  constexpr std::size_t kBatch = 256;
  const bench::Payloads payloads(64, events);
  const std::span<const shard::Bytes> views(payloads.views);

  shard::ManagerOptions options{.shards = 4, .seed = 1};
  if (way == "drop_oldest_full") {
    options.ring_capacity = 64;
    options.backpressure = shard::Backpressure::drop_oldest();
  }
  if (way == "single_balanced" || way == "single_keyed") {
    options.scaling.emplace();
    options.routing = way == "single_keyed" ? shard::Routing::keyed : shard::Routing::balanced;
  }
  shard::Manager manager{options};
  auto producer = manager.producer();
  bench::HandMade<bench::SpinLock, 64> hand_made(4, options.ring_capacity);

  std::function<std::size_t()> ingest_all;
  const auto each = [&](auto ingest) {
    ingest_all = [&views, ingest] {
      std::size_t accepted = 0;
      for (const auto view : views) {
        accepted += ingest(view) ? 1U : 0U;
      }
      return accepted;
    };
  };
  const auto in_batches = [&](auto ingest) {
    ingest_all = [&views, ingest] {
      std::size_t accepted = 0;
      for (std::size_t i = 0; i < views.size(); i += kBatch) {
        accepted += ingest(views.subspan(i, kBatch));
      }
      return accepted;
    };
  };
  const auto ok = [](shard::Outcome outcome) { return outcome == shard::Outcome::accepted; };
  if (way.starts_with("single") || way == "drop_oldest_full") {
    each([&manager, ok](shard::Bytes view) { return ok(manager.ingest(view)); });
  } else if (way == "producer_handle") {
    each([&](shard::Bytes view) { return ok(producer.ingest(view)); });
  } else if (way == "hand_made") {
    each([&](shard::Bytes view) { return hand_made.ingest(view); });
  } else if (way == "batch_256") {
    in_batches([&](auto batch) { return manager.ingest_batch(batch); });
  } else if (way == "producer_handle_batch_256") {
    in_batches([&](auto batch) { return producer.ingest_batch(batch); });
  } else if (way == "hand_made_batch_256") {
    in_batches([&](auto batch) { return hand_made.ingest_batch(batch); });
  } else {
    std::fprintf(stderr, "unknown way %s\n", way.c_str());
    return EXIT_FAILURE;
  }
  return measured(ingest_all) == events ? EXIT_SUCCESS : EXIT_FAILURE;
}
