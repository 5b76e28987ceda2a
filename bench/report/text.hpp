#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>
#include <string_view>

namespace bench::report {

/// Text as it may stand in HTML, between tags and in quoted attributes.
inline std::string escape(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

/// Text as it may stand in a cell of a Markdown table.
inline std::string escape_markdown(std::string_view text) {
  std::string result;
  for (const char c : text) {
    result += c == '\n' ? std::string(" ") : c == '|' ? std::string("\\|") : std::string(1, c);
  }
  return result;
}

inline std::string fixed(double value, int digits) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

/// Three digits that count: 0.123, 1.23, 12.3, 123, 1,234.
inline std::string figure(double value) {
  if (!std::isfinite(value)) {
    return "?";
  }
  const double size = std::fabs(value);
  if (size < 0.0005) {
    return size == 0 ? "0" : fixed(value, 5);
  }
  auto text = fixed(value, size < 1 ? 3 : size < 10 ? 2 : size < 100 ? 1 : 0);
  if (text.find('.') == std::string::npos) {
    for (auto place = static_cast<int>(text.size()) - 3; place > (value < 0 ? 1 : 0); place -= 3) {
      text.insert(static_cast<std::size_t>(place), 1, ',');
    }
  }
  return text;
}

/// The same without zeros that say nothing, for an axis: "25.0 ns" becomes "25 ns".
inline std::string trimmed(std::string text) {
  const auto point = text.find('.');
  if (point == std::string::npos) {
    return text;
  }
  auto end = std::min(text.find_first_not_of("0123456789", point + 1), text.size());
  auto keep = end;
  while (keep > point && (text[keep - 1] == '0' || text[keep - 1] == '.')) {
    --keep;
    if (text[keep] == '.') {
      break;
    }
  }
  return text.erase(keep, end - keep);
}

inline std::string nanoseconds(double value) {
  return value < 1e3   ? figure(value) + " ns"
         : value < 1e6 ? figure(value / 1e3) + " us"
         : value < 1e9 ? figure(value / 1e6) + " ms"
                       : figure(value / 1e9) + " s";
}

inline std::string bytes(double value) {
  return value < 1024            ? figure(value) + " B"
         : value < 1024.0 * 1024 ? figure(value / 1024) + " KiB"
                                 : figure(value / 1024 / 1024) + " MiB";
}

/// A figure with what it is of: "ns per event" becomes 12.3 ns or 1.2 us.
inline std::string with_unit(double value, std::string_view unit) {
  return unit.starts_with("ns")      ? nanoseconds(value)
         : unit.starts_with("bytes") ? bytes(value)
                                     : figure(value);
}

}  // namespace bench::report
