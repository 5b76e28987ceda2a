#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "shard/options.hpp"

namespace shard::detail {

/// The value as it would be written, cut to a length for a message. Never throws for bad UTF-8.
inline std::string shown(const nlohmann::json& value) {
  if (value.is_structured()) {  // it may be nested deeper than dump(), which recurses, has stack
    return value.is_array() ? "an array" : "an object";
  }
  auto text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > 80) {
    text.resize(77);
    text += "...";
  }
  return text;
}

/// Reads the members of one object. Every key that is asked for is known; finish() refuses the others.
class ObjectReader {
 public:
  ObjectReader(const nlohmann::json& object, std::string pointer)
      : object_(object), pointer_(std::move(pointer)) {
    if (!object.is_object()) {
      throw ConfigError(pointer_, shown(object), "an object");
    }
  }

  /// The member of that name, or nullptr.
  const nlohmann::json* find(const std::string& name) {
    known_.push_back(name);
    const auto found = object_.find(name);
    return found == object_.end() ? nullptr : &*found;
  }

  [[nodiscard]] std::string place(const std::string& name) const {
    return pointer_ + "/" + nlohmann::json::json_pointer{}.operator/=(name).to_string().substr(1);
  }

  template <std::integral Integer>
  void read(const std::string& name, Integer& into) {
    if (const nlohmann::json* value = find(name)) {
      into = integer<Integer>(name, *value);
    }
  }

  template <class Integer>
  [[nodiscard]] Integer integer(const std::string& name, const nlohmann::json& value) const {
    constexpr auto kHighest = static_cast<std::uint64_t>(std::numeric_limits<Integer>::max());
    // A number that was parsed and is not negative is unsigned; one that was made in C++ may be signed.
    const bool unfit = !value.is_number_unsigned() &&
                       (!value.is_number_integer() || value.get<std::int64_t>() < 0);
    if (unfit || value.get<std::uint64_t>() > kHighest) {
      throw ConfigError(place(name), shown(value), "an integer, 0 .. " + std::to_string(kHighest));
    }
    return static_cast<Integer>(value.get<std::uint64_t>());
  }

  void read(const std::string& name, bool& into) {
    if (const nlohmann::json* value = find(name)) {
      if (!value->is_boolean()) throw ConfigError(place(name), shown(*value), "true or false");
      into = value->get<bool>();
    }
  }

  void read(const std::string& name, double& into) {
    if (const nlohmann::json* value = find(name)) {
      if (!value->is_number()) throw ConfigError(place(name), shown(*value), "a number");
      into = value->get<double>();
    }
  }

  void read(const std::string& name, std::string& into) {
    if (const nlohmann::json* value = find(name)) {
      if (!value->is_string()) throw ConfigError(place(name), shown(*value), "a text");
      into = value->get_ref<const std::string&>();
    }
  }

  /// One of `all`, by its name.
  template <class Enum, std::size_t kCount>
  void read(const std::string& name, Enum& into, const std::array<Enum, kCount>& all) {
    const nlohmann::json* value = find(name);
    if (value == nullptr) return;
    const auto found = std::find_if(all.begin(), all.end(), [value](Enum candidate) {
      return value->is_string() && value->get_ref<const std::string&>() == to_string(candidate);
    });
    if (found == all.end()) {
      std::string names;
      for (std::size_t i = 0; i < kCount; ++i) {
        names.append(i == 0 ? "\"" : i + 1 == kCount ? "\" or \"" : "\", \"");
        names.append(to_string(all[i]));
      }
      throw ConfigError(place(name), shown(*value), names + "\"");
    }
    into = *found;
  }

  /// Written as an integer of nanoseconds.
  void read(const std::string& name, std::chrono::nanoseconds& into) {
    auto count = into.count();
    read(name, count);
    into = std::chrono::nanoseconds{count};
  }

  void finish() const {
    for (const auto& [name, value] : object_.items()) {
      if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
        std::string names;
        for (const auto& known : known_) {
          names.append(names.empty() ? "" : ", ").append(known);
        }
        throw ConfigError(place(name), shown(value), "absent: the keys here are " + names);
      }
    }
  }

 private:
  const nlohmann::json& object_;
  std::string pointer_;
  std::vector<std::string> known_;
};

}  // namespace shard::detail
