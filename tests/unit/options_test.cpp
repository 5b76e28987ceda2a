#include "shard/options.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "shard/manager.hpp"
#include "shard/outcome.hpp"

namespace {

using shard::Backpressure;
using shard::BackpressureMode;
using shard::ConfigError;
using shard::ManagerOptions;

constexpr std::uint64_t kHuge = std::numeric_limits<std::size_t>::max();

std::optional<ConfigError> error_of(const ManagerOptions& options) {
  try {
    options.validate();
  } catch (const ConfigError& error) {
    return error;
  }
  return std::nullopt;
}

/// A field with values on both sides of its bounds.
struct Field {
  std::string name;
  std::function<void(ManagerOptions&, std::uint64_t)> set;
  std::vector<std::uint64_t> good;
  std::vector<std::uint64_t> bad;
  std::string bound;
};

const std::vector<Field>& fields() {
  static const std::vector<Field> all{
      {"shards",
       [](ManagerOptions& options, std::uint64_t value) { options.shards = value; },
       {1, 2, 3, 1023, 1024},
       {0, 1025, kHuge},
       "1 .. 1024"},
      {"ring_capacity",
       [](ManagerOptions& options, std::uint64_t value) { options.ring_capacity = value; },
       {2, 4, 1U << 23U, 1U << 24U},
       {0, 1, 3, 5, 1000, (1U << 24U) - 1, (1U << 24U) + 1, 1U << 25U, kHuge},
       "a power of two, 2 .. 16777216"},
      {"ring_bytes",
       [](ManagerOptions& options, std::uint64_t value) {
         options.ring_bytes = value;
         options.max_payload = 1;
         options.inline_max = 0;
         options.max_key = 0;
       },
       {4096, 8192, 1U << 29U, 1U << 30U},
       {0, 1, 2048, 4095, 4097, 6000, (1U << 30U) + 1, 1U << 31U, kHuge},
       "a power of two, 4096 .. 1073741824"},
      {"max_payload",
       [](ManagerOptions& options, std::uint64_t value) { options.max_payload = value; },
       {1, 2, (1U << 19U) - 1, 1U << 19U},
       {0, (1U << 19U) + 1, kHuge},
       "1 .. 524288"},
      {"inline_max",
       [](ManagerOptions& options, std::uint64_t value) { options.inline_max = value; },
       {0, 1, 1U << 18U},
       {(1U << 18U) + 1, kHuge},
       "0 .. 262144"},
      {"max_key",
       [](ManagerOptions& options, std::uint64_t value) { options.max_key = value; },
       {0, 1, 65'535},
       {65'536, kHuge},
       "0 .. 65535"},
      {"backpressure.rate",
       [](ManagerOptions& options, std::uint64_t value) {
         options.backpressure = Backpressure::sample(static_cast<std::uint32_t>(value));
       },
       {1, 2, 4294967295},
       {0},
       "1 .. 4294967295"},
  };
  return all;
}

}  // namespace

TEST_CASE("the defaults are valid", "[R-J1]") { CHECK(!error_of(ManagerOptions{})); }

TEST_CASE("every option is taken up to its bounds and refused beyond them, by name", "[R-J1]") {
  for (const auto& field : fields()) {
    for (const auto value : field.good) {
      CAPTURE(field.name, value);
      ManagerOptions options;
      field.set(options, value);
      const auto error = error_of(options);
      CHECK(!error);
    }
    for (const auto value : field.bad) {
      CAPTURE(field.name, value);
      ManagerOptions options;
      field.set(options, value);
      const auto error = error_of(options);
      REQUIRE(error);
      CHECK(error->field() == field.name);
      CHECK(error->value() == std::to_string(value));
      CHECK(error->bound() == field.bound);
      CHECK(error->what() ==
            field.name + " = " + std::to_string(value) + ": must be " + field.bound);
    }
  }
}

TEST_CASE("a negative timeout is refused, the longest is taken", "[R-J1]") {
  const auto with = [](std::chrono::nanoseconds timeout) {
    return ManagerOptions{.backpressure = Backpressure::block(timeout)};
  };
  CHECK(!error_of(with(std::chrono::nanoseconds{0})));
  CHECK(!error_of(with(std::chrono::nanoseconds::max())));
  const auto error = error_of(with(std::chrono::nanoseconds{-1}));
  REQUIRE(error);
  CHECK(error->field() == "backpressure.timeout");
  CHECK(error->value() == "-1 ns");
  CHECK(error->bound() == ">= 0 ns");
  CHECK(error_of(with(std::chrono::nanoseconds::min())));
}

TEST_CASE("a mode that is none is refused", "[R-J1]") {
  const auto error = error_of({.backpressure = {.mode = static_cast<BackpressureMode>(5)}});
  REQUIRE(error);
  CHECK(error->field() == "backpressure.mode");
  CHECK(error->value() == "5");
  CHECK(to_string(static_cast<BackpressureMode>(5)) == "unknown");
}

TEST_CASE("a mode's parameter is checked also where the mode has no use for it", "[R-J1][R-J3]") {
  CHECK(error_of({.backpressure = {.mode = BackpressureMode::block, .rate = 0}}));
  CHECK(error_of({.backpressure = {.mode = BackpressureMode::drop_newest,
                                   .timeout = std::chrono::nanoseconds{-1}}}));
}

TEST_CASE("the limits of an event follow the bytes of a ring", "[R-J2]") {
  ManagerOptions options{
      .ring_bytes = 4096, .max_payload = 2048, .inline_max = 1024, .max_key = 512};
  CHECK(!error_of(options));
  options.max_payload = 2049;
  CHECK(error_of(options)->field() == "max_payload");
  CHECK(error_of(options)->bound() == "1 .. 2048");
  options.max_payload = 2048;
  options.inline_max = 1025;
  CHECK(error_of(options)->field() == "inline_max");
  CHECK(error_of(options)->bound() == "0 .. 1024");
  options.inline_max = 1024;
  options.max_key = 513;
  CHECK(error_of(options)->field() == "max_key");
  CHECK(error_of(options)->bound() == "0 .. 512");
}

TEST_CASE("an event of the largest sizes that the options allow fits into an empty shard",
          "[R-J2]") {
  const ManagerOptions options{.shards = 1,
                               .ring_capacity = 2,
                               .ring_bytes = 4096,
                               .max_payload = 2048,
                               .inline_max = 1024,
                               .max_key = 512,
                               .backpressure = Backpressure::fail_producer()};
  const std::string key(512, 'k');
  for (const std::size_t size : {1024U, 1025U, 2048U}) {
    CAPTURE(size);
    const std::string payload(size, 'p');
    shard::Manager manager(options);
    const auto shard = *manager.shard(shard::ShardId{0});
    // Odd steps, so that the blocks meet the end of the arena at many places.
    for (int round = 0; round < 100; ++round) {
      REQUIRE(manager.ingest(payload, shard::Key{key}, shard::SourceIdentity{1, 2}) ==
              shard::Outcome::accepted);
      REQUIRE(shard.pop_batch().size() == 1);
      REQUIRE(manager.ingest("step") == shard::Outcome::accepted);
      REQUIRE(shard.pop_batch().size() == 1);
    }
  }
}

TEST_CASE("a manager refuses bad options before it does anything else", "[R-J1]") {
  CHECK_THROWS_AS(shard::Manager({.shards = 0}), ConfigError);
  CHECK_THROWS_WITH(shard::Manager({.ring_capacity = 3}),
                    "ring_capacity = 3: must be a power of two, 2 .. 16777216");
  // Were it to allocate first, this would need 2^64 bytes.
  CHECK_THROWS_AS(shard::Manager({.ring_bytes = kHuge}), ConfigError);
}

TEST_CASE("a manager keeps the options that it was given", "[R-J1]") {
  const ManagerOptions options{.shards = 3,
                               .ring_capacity = 8,
                               .ring_bytes = 8192,
                               .max_payload = 100,
                               .inline_max = 50,
                               .max_key = 5,
                               .backpressure = Backpressure::sample(3),
                               .seed = 1};
  const shard::Manager manager(options);
  CHECK(manager.options() == options);
  CHECK(manager.backpressure_mode() == BackpressureMode::sample);
  CHECK(manager.num_shards() == 3);
  CHECK(manager.seed() == 1);
}
