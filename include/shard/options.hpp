#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "shard/clock.hpp"
#include "shard/detail/export.hpp"
#include "shard/scaling.hpp"

namespace shard {

/// A value in an option struct is out of bounds. Thrown when the struct is used, before anything
/// else happens.
class SHARD_EXPORT ConfigError : public std::invalid_argument {
 public:
  /// \param field  as written in C++ or as a JSON pointer, for example "ring_capacity"
  /// \param value  the offending value, as text
  /// \param bound  what it must be, for example "a power of two, 2 .. 16777216"
  ConfigError(std::string_view field, std::string_view value, std::string_view bound);
  ~ConfigError() override;

  [[nodiscard]] const std::string& field() const noexcept { return field_; }
  [[nodiscard]] const std::string& value() const noexcept { return value_; }
  [[nodiscard]] const std::string& bound() const noexcept { return bound_; }

 private:
  std::string field_;
  std::string value_;
  std::string bound_;
};

/// What happens to an event whose shard is full, in events or in bytes.
enum class BackpressureMode : std::uint8_t {
  drop_newest,    ///< the new event is lost and counted; the caller never waits
  drop_oldest,    ///< the oldest events in the ring are evicted and counted until the new one fits
  fail_producer,  ///< the new event is refused and counted; the caller still has it
  sample,  ///< every rate-th overflow of the shard is let in as drop_oldest does, the others lost
  block,   ///< the caller waits for room, at most for the timeout
};

/// Its name as spelled above.
[[nodiscard]] SHARD_EXPORT std::string_view to_string(BackpressureMode mode) noexcept;

/// A mode and its parameter; made by the functions named like the modes.
struct Backpressure {
  BackpressureMode mode = BackpressureMode::drop_newest;
  std::uint32_t rate = 10;  ///< used by sample: >= 1; 1 lets every overflow in
  std::chrono::nanoseconds timeout =
      std::chrono::seconds{1};  ///< block only: >= 0; max(): no limit

  [[nodiscard]] static Backpressure drop_newest() { return {}; }
  [[nodiscard]] static Backpressure drop_oldest() {
    return {.mode = BackpressureMode::drop_oldest};
  }
  [[nodiscard]] static Backpressure fail_producer() {
    return {.mode = BackpressureMode::fail_producer};
  }
  [[nodiscard]] static Backpressure sample(std::uint32_t rate) {
    return {.mode = BackpressureMode::sample, .rate = rate};
  }
  [[nodiscard]] static Backpressure block(std::chrono::nanoseconds timeout) {
    return {.mode = BackpressureMode::block, .timeout = timeout};
  }

  bool operator==(const Backpressure&) const = default;
};

/// How a manager is made. Memory per shard: 24 * ring_capacity + ring_bytes, plus about 8 KiB.
struct ManagerOptions {
  static constexpr std::size_t kMaxShards = 1024;

  /// Number of shards. 1 .. 1024.
  std::size_t shards = 4;

  /// Records in the ring of one shard; one less can be in use. A power of two, 2 .. 2^24.
  std::size_t ring_capacity = 16'384;

  /// Bytes that the events of one shard may hold: payloads, keys and source identities, each event
  /// rounded up to 16. Reaching it is "full", as reaching ring_capacity is. A power of two,
  /// 4 KiB .. 1 GiB.
  std::size_t ring_bytes = std::size_t{1} << 20U;

  /// The longest payload; a longer one is refused (Outcome::payload_too_large). 1 .. ring_bytes / 2.
  std::size_t max_payload = std::size_t{64} << 10U;

  /// Payloads up to this are copied into the ring under the shard's lock; longer ones travel in a
  /// buffer of their own, which the host moves in (see Buffer) or which ingest allocates before it
  /// takes the lock. 0 .. ring_bytes / 4.
  std::size_t inline_max = std::size_t{16} << 10U;

  /// The longest key; a longer one is refused (Outcome::key_too_large). 0 .. min(65535,
  /// ring_bytes / 8).
  std::size_t max_key = 256;

  Backpressure backpressure = {};

  /// How the number of shards may change; nullopt: it never does ("static"), and every call that would change it
  /// answers scaling_disabled. shards must then lie within its min_shards .. max_shards.
  std::optional<ScalingPolicy> scaling = std::nullopt;

  /// With a scaling policy: whether a change may send events of a key to another shard ahead of older ones of
  /// that key (balanced), or keeps their order (keyed). Without one, keys never move.
  Routing routing = Routing::balanced;

  /// Seed of the routing hash; nullopt for a random one, which is what makes it hard for outsiders to
  /// steer their events onto one shard.
  std::optional<std::uint64_t> seed = std::nullopt;

  /// The time that the timestamps follow; nullptr for the machine's. Must outlive the manager and
  /// every handle in use.
  const TimeSource* time_source = nullptr;

  /// Throws ConfigError for the first field that is out of bounds.
  SHARD_EXPORT void validate() const;

  bool operator==(const ManagerOptions&) const = default;
};

}  // namespace shard
