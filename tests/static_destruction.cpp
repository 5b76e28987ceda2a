// A manager is used until the very end of its process: by main(), by the destructor of a thread-local of
// the main thread, and by destructors of statics, which run after that. Exits with 0 only if the last of
// them finds the books exact.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "shard/json.hpp"
#include "shard/manager.hpp"

namespace {

constexpr std::uint64_t kExpected = 8;

void ingest_twice(shard::Manager& manager) {
  // Both thread-local storages of the library: the cached table and the text of JSON values.
  static_cast<void>(manager.ingest("bytes"));
  static_cast<void>(shard::ingest_json(manager, "json"));
}

/// The first static, so the last to be destroyed.
struct Host {
  Host() : manager(std::make_unique<shard::Manager>(shard::ManagerOptions{.shards = 2})) {}
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  ~Host() {
    ingest_twice(*manager);
    const auto handle = *manager->shard(shard::ShardId{0});
    auto producer = manager->producer();
    const auto ledger = manager->ledger();
    manager.reset();
    const bool closed = handle.try_push("x") == shard::Outcome::rejected_closed &&
                        producer.ingest("x") == shard::Outcome::rejected_closed;
    if (ledger != shard::Ledger{.accepted = kExpected, .queued = kExpected} || !closed) {
      std::fputs(to_string(ledger).c_str(), stderr);
      std::_Exit(EXIT_FAILURE);
    }
  }
  std::unique_ptr<shard::Manager> manager;
};
Host host;

struct LateStatic {
  LateStatic() = default;
  LateStatic(const LateStatic&) = delete;
  LateStatic& operator=(const LateStatic&) = delete;
  ~LateStatic() { ingest_twice(*host.manager); }
};
LateStatic late_static;

struct LateThreadLocal {
  LateThreadLocal() = default;
  LateThreadLocal(const LateThreadLocal&) = delete;
  LateThreadLocal& operator=(const LateThreadLocal&) = delete;
  ~LateThreadLocal() { ingest_twice(*host.manager); }
  bool used = false;
};
thread_local LateThreadLocal late_thread_local;

}  // namespace

int main() {
  late_thread_local.used = true;  // before the library's thread-locals, so destroyed after them
  ingest_twice(*host.manager);
  return EXIT_SUCCESS;
}
