#pragma once

#include <array>
#include <charconv>
#include <chrono>
#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>

#include "shard/options.hpp"

/// What the validate() of all options share: a value that is out of its bounds is refused by its name.
namespace shard::detail {

std::string text_of(std::integral auto value) { return std::to_string(value); }

inline std::string text_of(std::chrono::nanoseconds value) {
  return std::to_string(value.count()) + " ns";
}

/// The shortest form that reads back the same.
inline std::string text_of(double value) {
  std::array<char, 32> digits{};  // such a form has at most 24
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  return {digits.data(), end};
}

template <class T>
void require_between(std::string_view field, T value, std::type_identity_t<T> low,
                     std::type_identity_t<T> high) {
  // Written such that NaN, which compares with nothing, is refused.
  if (!(value >= low && value <= high)) {
    throw ConfigError(field, text_of(value), text_of(low) + " .. " + text_of(high));
  }
}

}  // namespace shard::detail
