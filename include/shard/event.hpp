#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "shard/bytes.hpp"
#include "shard/ids.hpp"

namespace shard {

/// Where an event comes from, in a way that a restart repeats: for example the identity of a file
/// and the offset in it. Sinks remove duplicates across restarts by it.
struct SourceIdentity {
  std::uint64_t source = 0;
  std::uint64_t position = 0;

  auto operator<=>(const SourceIdentity&) const = default;
};

/// An event on its way in: views of its bytes and the hash that routes it. The bytes must stay valid
/// until the ingest call returns.
///
/// Made by Manager::raw_event(), or by a host that hashes ahead of time with the manager's seed. A
/// manager that finds another seed than its own in it hashes again, so routing is always right.
struct RawEvent {
  Bytes payload;
  Bytes key;
  SourceIdentity source;
  std::uint64_t hash = 0;  ///< of the key if there is one, else of the payload; see Manager::hash()
  std::uint64_t seed = 0;  ///< the seed of that hash
  bool has_hash = false;   ///< without one a manager makes it
  bool has_key = false;
  bool has_source = false;

  /// An event that was not hashed yet.
  [[nodiscard]] static RawEvent of(Bytes payload) noexcept {
    RawEvent event;
    event.payload = payload;
    return event;
  }

  /// \param hash  as Manager::hash() makes it, of the key if one is added, else of the payload
  [[nodiscard]] static RawEvent with_hash(Bytes payload, std::uint64_t hash,
                                          std::uint64_t seed) noexcept {
    auto event = of(payload);
    event.hash = hash;
    event.seed = seed;
    event.has_hash = true;
    return event;
  }

  /// The same event with a key; a hash that it has must be of that key.
  RawEvent& with(Key with_key) noexcept {
    key = with_key.bytes;
    has_key = true;
    return *this;
  }
  RawEvent& with(SourceIdentity identity) noexcept {
    source = identity;
    has_source = true;
    return *this;
  }

  /// The bytes that decide where it goes.
  [[nodiscard]] Bytes routing_bytes() const noexcept { return has_key ? key : payload; }
};

namespace detail {
struct DefaultJson;
template <class Json>
struct JsonParser;  // completed by shard/json.hpp
}  // namespace detail

/// An event as popped: a view into the EventBatch that holds it, valid until that batch is cleared,
/// appended to or destroyed.
struct Event {
  Bytes payload;
  std::optional<Key> key;
  std::optional<SourceIdentity> source;
  Timestamp timestamp;
  ShardId shard;
  Sequence sequence;

  /// The payload as text; nothing is checked.
  [[nodiscard]] std::string_view text() const noexcept { return payload.text(); }

  /// The payload as JSON: Result<nlohmann::json, JsonError>. Include shard/json.hpp to use it.
  template <class Json = detail::DefaultJson>
  [[nodiscard]] auto parse() const {
    return detail::JsonParser<Json>::parse(*this);
  }
};

}  // namespace shard
