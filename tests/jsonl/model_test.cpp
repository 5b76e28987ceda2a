// Everything that may fail fails now and then, and what is in the files is what was answered.

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <system_error>

#include "jsonl/file_size_limit.hpp"
#include "jsonl/jsonl_support.hpp"
#include "jsonl/system_faults.hpp"
#include "support/manual_clock.hpp"

namespace {

using shard::Delivery;
using shard::JsonlAdapter;
using shard::JsonlExisting;
using shard::JsonlOptions;
using shard::JsonlSync;
using shard_test::Events;
using shard_test::lines_of;
using shard_test::noise;
using shard_test::Strings;
using shard_test::system_faults;
using shard_test::TemporaryFolder;

/// One file or a series, adapter after adapter.
class Run {
 public:
  explicit Run(std::uint64_t seed) : random_(seed) {
    options_.path = folder_ / (chance(2) ? "e.ndjson" : "e.ndjson.zst");
    options_.existing = JsonlExisting::append;
    options_.rotate_bytes = chance(2) ? 0 : 1 + random_() % 3'000;
    options_.rotate_after = std::chrono::seconds{chance(2) ? 0 : 60};
    options_.sync = static_cast<JsonlSync>(random_() % 4);
    options_.sync_interval = std::chrono::seconds{30};
    options_.compression_level = 1;
    options_.time_source = &clock_;
  }

  void go() {
    const shard_test::FaultsEnd end;
    for (int step = 0; step < 60; ++step) {
      if (adapter_ == nullptr) {
        system_faults = {};
        adapter_ = std::make_unique<JsonlAdapter>(options_);
        lost_ = false;
      }
      clock_.advance(random_() % 20'000'000'000);
      fail_now_and_then();
      const auto what = random_() % 20;
      if (what == 0) {
        close();
      } else if (what < 3) {
        const bool flushed = adapter_->flush({});
        REQUIRE_FALSE((flushed && lost_));  // it goes on telling
        REQUIRE((flushed || options_.sync != JsonlSync::never));
        lost_ = !flushed;
      } else {
        deliver();
      }
    }
    close();
    system_faults = {};
    { const JsonlAdapter last(options_); }
    check();
  }

 private:
  bool chance(std::uint64_t of) { return random_() % of == 0; }

  void fail_now_and_then() {
    const auto code = [this](std::uint64_t of) { return chance(of) ? EIO : 0; };
    system_faults = {.fdatasync = code(8),
                     .ftruncate = code(4),
                     .renameat2 = chance(8)   ? EACCES
                                  : chance(8) ? EINVAL
                                              : 0,
                     .linkat = code(16),
                     .openat = code(8)};
  }

  void deliver() {
    Strings lines;
    for (auto count = 1 + random_() % 8; count != 0; --count) {
      lines.push_back(std::to_string(next_++) + noise(random_() % 200, random_()));
    }
    const Events events(lines);
    std::optional<shard_test::FileSizeLimit> limit;
    if (chance(3)) limit.emplace(random_() % 3'000);
    const auto kind = adapter_->deliver(events.batch(), {}).kind();
    limit.reset();
    if (kind == Delivery::Kind::delivered || kind == Delivery::Kind::unknown) {
      there_.insert(there_.end(), lines.begin(), lines.end());
      lost_ = lost_ || kind == Delivery::Kind::unknown;
    } else {
      REQUIRE(kind == Delivery::Kind::retry);
    }
    REQUIRE((kind != Delivery::Kind::unknown || options_.sync == JsonlSync::on_close ||
             options_.sync == JsonlSync::interval));
  }

  void close() {
    if (adapter_ == nullptr) return;
    // What could not be cut off is lines of a batch that nobody was told of: let it be cut off here.
    system_faults.ftruncate = 0;
    try {
      adapter_->close({});
    } catch (const std::system_error&) {
      CHECK_FALSE(adapter_->last_error().empty());
    }
    adapter_.reset();
  }

  void check() {
    Strings lines;
    for (const auto& name : folder_.names()) {
      INFO(name);
      REQUIRE_FALSE(name.ends_with(".part"));
      const auto more = lines_of(folder_ / name);
      lines.insert(lines.end(), more.begin(), more.end());
    }
    REQUIRE(lines.size() == there_.size());
    REQUIRE((lines == there_));
  }

  std::mt19937_64 random_;
  const TemporaryFolder folder_;
  shard_test::ManualClock clock_;
  JsonlOptions options_;
  std::unique_ptr<JsonlAdapter> adapter_;
  std::uint64_t next_ = 0;
  Strings there_;
  bool lost_ = false;  ///< a sync has failed
};

TEST_CASE("whatever fails, the files have each line that was answered for, once and in order") {
  const auto* const given = std::getenv("SHARD_SEED");
  const std::uint64_t first = given != nullptr ? std::stoull(given) : std::random_device{}();
  const auto runs = given != nullptr ? 1U : 30U;
  for (auto seed = first; seed != first + runs; ++seed) {
    CAPTURE(seed);
    Run(seed).go();
  }
}

}  // namespace
