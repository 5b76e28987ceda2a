#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace ingest {

/// Finds one value of a JSON text, and whether the text is JSON at all, without building the document.
///
/// Threads: one at a time.
class JsonField {
 public:
  /// \param pointer  RFC 6901, for example "/properties/net"; throws nlohmann::json::parse_error if it is none
  explicit JsonField(const std::string& pointer);

  enum class Found : std::uint8_t {
    value,      ///< text() is what it holds
    nothing,    ///< there is no such value, or it is null
    structure,  ///< it is an object or an array
    no_json,    ///< error() says why
  };

  /// With the same name twice in an object, the last one counts. Complexity: linear.
  [[nodiscard]] Found find(std::string_view json);

  /// Of a string its content, of a number or a boolean how it is written.
  [[nodiscard]] const std::string& text() const noexcept { return text_; }
  [[nodiscard]] const std::string& error() const noexcept { return error_; }

 private:
  class Events;

  /// What is chosen from a container on the way to the value.
  struct Level {
    std::string token = {};
    bool is_array = false;       ///< the container that is open now
    std::size_t next_index = 0;  ///< in it
  };

  std::vector<Level> levels_;
  std::string text_;
  std::string error_;
};

/// Nothing if it is JSON, else why it is not.
[[nodiscard]] std::string json_error(std::string_view text);

}  // namespace ingest
