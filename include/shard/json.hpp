#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "shard/bytes.hpp"
#include "shard/detail/export.hpp"
#include "shard/event.hpp"
#include "shard/ledger.hpp"
#include "shard/outcome.hpp"
#include "shard/result.hpp"

namespace shard {

/// Why a payload is not JSON.
struct JsonError {
  std::string message;
  std::size_t byte = 0;  ///< where in the payload, from 1; 0 when that is not known
};

/// Parses a payload. Threads: any. Allocates as nlohmann::json does; throws std::bad_alloc only.
[[nodiscard]] SHARD_EXPORT Result<nlohmann::json, JsonError> parse_json(Bytes payload);

namespace detail {

template <>
struct JsonParser<DefaultJson> {
  [[nodiscard]] static Result<nlohmann::json, JsonError> parse(const Event& event) {
    return parse_json(event.payload);
  }
};

/// Serialises into storage that the calling thread reuses: the view is valid until its next call. The
/// reason when there is no text. Nothing else is thrown.
class SHARD_EXPORT JsonText {
 public:
  explicit JsonText(const nlohmann::json& value) noexcept;
  JsonText(const JsonText&) = delete;
  JsonText& operator=(const JsonText&) = delete;

  [[nodiscard]] Outcome reason() const noexcept {
    return reason_;
  }  ///< accepted when there is a text
  [[nodiscard]] std::string_view text() const noexcept { return text_; }

 private:
  Outcome reason_ = Outcome::accepted;
  std::string_view text_;
  std::string fallback_;  ///< used when the thread's storage has been destroyed already
};

}  // namespace detail

/// Ingests a JSON value as compact text, by way of anything that has ingest(Bytes, ...) and reject(): a
/// Manager or a Producer. Serialised once, into storage that the calling thread reuses, so that only what
/// the JSON library itself needs is allocated. A value that has no JSON text (a string that is not UTF-8)
/// is answered with invalid_json and counted as rejected_invalid.
///
///     shard::ingest_json(manager, {{"temperature", 21.5}}, shard::Key{"sensor-7"});
///
/// \param more  what else ingest() takes: a Key, a SourceIdentity, or both
/// Threads: as the target's ingest().
template <class Target, class... More>
Outcome ingest_json(Target& target, const nlohmann::json& value, More... more) noexcept {
  const detail::JsonText json(value);
  if (json.reason() != Outcome::accepted) {
    return target.reject(json.reason());
  }
  return target.ingest(Bytes{json.text()}, more...);
}

/// The counts by name, with "offered". For nlohmann::json's conversions.
SHARD_EXPORT void to_json(nlohmann::json& json, const Ledger& ledger);

}  // namespace shard
