// A pipeline that cannot have all of its threads: the constructor throws and leaves none behind. The pthread_create() of
// this program fails when it is told to.

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>

#include "shard/pipeline.hpp"
#include "support/elastic.hpp"

namespace {

std::atomic<std::uint64_t> g_created{0};    // since the last reset
std::atomic<std::uint64_t> g_fail_from{0};  // the first that fails, from 1; 0: none does
std::atomic<std::uint64_t> g_alive{
    0};  // threads that were created and have not been joined or detached

using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
using Join = int (*)(pthread_t, void**);
using Detach = int (*)(pthread_t);

template <class Function>
Function next_of(const char* name) noexcept {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

/// From the n-th thread on none can be created while it lives.
class ThreadFailure {
 public:
  explicit ThreadFailure(std::uint64_t n) noexcept {
    g_created = 0;
    g_fail_from = n;
  }
  ThreadFailure(const ThreadFailure&) = delete;
  ThreadFailure& operator=(const ThreadFailure&) = delete;
  ~ThreadFailure() { g_fail_from = 0; }
};

struct Seen {
  std::atomic<std::uint64_t> delivered{0};
  std::uint64_t destroyed = 0;
};

class Sink final : public shard::Adapter {
 public:
  explicit Sink(Seen& seen) : seen_(seen) {}
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;
  ~Sink() override { ++seen_.destroyed; }
  shard::Delivery deliver(const shard::Batch& batch,
                          const shard::DeliveryContext& /*context*/) override {
    seen_.delivered += batch.size();
    return shard::Delivery::delivered();
  }

 private:
  Seen& seen_;
};

shard::PipelineOptions options_with(std::size_t workers, bool elastic) {
  shard::PipelineOptions options;
  options.manager = elastic ? shard_test::elastic_options(shard::Routing::keyed, 2, 1, 4)
                            : shard_test::small_options(2, 256);
  options.workers = workers;
  return options;
}

}  // namespace

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*run)(void*), void* argument) {
  static const auto create = next_of<Create>("pthread_create");
  const auto number = ++g_created;
  if (const auto from = g_fail_from.load(); from != 0 && number >= from) return EAGAIN;
  const auto status = create(thread, attributes, run, argument);
  g_alive += status == 0 ? 1U : 0U;
  return status;
}
extern "C" int pthread_join(pthread_t thread, void** result) {
  static const auto join = next_of<Join>("pthread_join");
  const auto status = join(thread, result);
  g_alive -= status == 0 ? 1U : 0U;
  return status;
}
extern "C" int pthread_detach(pthread_t thread) {
  static const auto detach = next_of<Detach>("pthread_detach");
  return detach(thread);  // stays among those alive: nobody waits for it
}

TEST_CASE("a pipeline that cannot start one of its threads throws and leaves none behind",
          "[R-G8][R-I5]") {
  const bool elastic = GENERATE(false, true);
  constexpr std::size_t kWorkers = 4;
  const std::uint64_t threads = kWorkers + (elastic ? 1U : 0U);
  for (std::uint64_t n = 1; n <= threads + 1; ++n) {
    CAPTURE(elastic, n);
    const auto before = g_alive.load();
    Seen seen;
    const ThreadFailure failure(n);
    if (n > threads) {  // all could be started
      shard::Pipeline pipeline(options_with(kWorkers, elastic), std::make_unique<Sink>(seen));
      CHECK(g_alive.load() - before == threads);
      CHECK(pipeline.ingest("event") == shard::Outcome::accepted);
      CHECK(pipeline.close(std::chrono::minutes{2}).complete);
      CHECK(seen.delivered.load() == 1);
    } else {
      CHECK_THROWS_AS(
          shard::Pipeline(options_with(kWorkers, elastic), std::make_unique<Sink>(seen)),
          std::system_error);
      CHECK(g_created.load() == n);
      CHECK(seen.destroyed == 1);
      CHECK(seen.delivered.load() == 0);
    }
    CHECK(g_alive.load() == before);
  }
}

TEST_CASE("adapters of a factory are destroyed when the threads for them cannot be started",
          "[R-G8]") {
  for (std::uint64_t n = 1; n <= 3; ++n) {
    CAPTURE(n);
    const auto before = g_alive.load();
    Seen seen;
    const ThreadFailure failure(n);
    const shard::AdapterFactory factory = [&](std::size_t /*worker*/) {
      return std::make_unique<Sink>(seen);
    };
    CHECK_THROWS_AS(shard::Pipeline(options_with(3, false), factory), std::system_error);
    CHECK(seen.destroyed == 3);
    CHECK(g_alive.load() == before);
  }
}

TEST_CASE("a factory that throws ends the construction before any thread is started", "[R-G8]") {
  for (std::size_t n = 0; n < 3; ++n) {
    CAPTURE(n);
    Seen seen;
    const ThreadFailure none(0);
    const shard::AdapterFactory factory =
        [&](std::size_t worker) -> std::unique_ptr<shard::Adapter> {
      if (worker == n) throw std::runtime_error("no connection");
      return std::make_unique<Sink>(seen);
    };
    CHECK_THROWS_AS(shard::Pipeline(options_with(3, true), factory), std::runtime_error);
    CHECK(seen.destroyed == n);
    CHECK(g_created.load() == 0);
  }
}
