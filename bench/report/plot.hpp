#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "report/text.hpp"

/// Plots as SVG that stands in the page. Colours are the page's (classes s0 .. s6), so that they follow its
/// light or dark scheme; lines differ by their markers and dashes, too.
namespace bench::report {

/// How a figure reads at an axis or beside a bar.
using Format = std::function<std::string(double)>;

inline constexpr std::size_t kStyles = 7;

namespace detail {

inline std::string at(double value) { return fixed(value, 1); }

inline std::string text_at(double x, double y, const std::string& text,
                           const char* anchor = "start", const char* css = "") {
  return "<text x=\"" + at(x) + "\" y=\"" + at(y) + "\" text-anchor=\"" + anchor + "\" class=\"" +
         css + "\">" + escape(text) + "</text>";
}

inline std::string line_at(double x1, double y1, double x2, double y2, const std::string& css) {
  return "<line x1=\"" + at(x1) + "\" y1=\"" + at(y1) + "\" x2=\"" + at(x2) + "\" y2=\"" + at(y2) +
         "\" class=\"" + css + "\"/>";
}

inline std::string begin_svg(double width, double height, const std::string& title) {
  // The height follows the width on a narrow screen; on a wide one nothing is blown up.
  return "<svg viewBox=\"0 0 " + fixed(width, 0) + " " + fixed(height, 0) +
         "\" style=\"max-width:" + fixed(width, 0) + "px\" role=\"img\" aria-label=\"" +
         escape(title) + "\"><title>" + escape(title) + "</title>";
}

/// A marker of the series' own shape.
inline std::string marker(double x, double y, std::size_t style) {
  const auto css = "m s" + std::to_string(style);
  const auto path = [&](const std::vector<std::pair<double, double>>& points) {
    std::string result = "<path class=\"" + css + "\" d=\"";
    for (std::size_t i = 0; i < points.size(); ++i) {
      result += (i == 0 ? "M" : "L") + at(x + points[i].first) + " " + at(y + points[i].second);
    }
    return result + "Z\"/>";
  };
  switch (style % kStyles) {
    case 1:
      return path({{-4, -4}, {4, -4}, {4, 4}, {-4, 4}});
    case 2:
      return path({{0, -5}, {5, 4}, {-5, 4}});
    case 3:
      return path({{0, -5.5}, {5.5, 0}, {0, 5.5}, {-5.5, 0}});
    case 4:
      return path({{0, 5}, {5, -4}, {-5, -4}});
    case 5:
      return path({{-5, -2}, {5, -2}, {5, 2}, {-5, 2}});
    case 6:
      return path({{-2, -5}, {2, -5}, {2, 5}, {-2, 5}});
    default:
      return "<circle class=\"" + css + "\" cx=\"" + at(x) + "\" cy=\"" + at(y) + "\" r=\"4.5\"/>";
  }
}

/// Round figures from 0 up, some five of them.
inline std::vector<double> linear_ticks(double max) {
  const double raw = max / 5;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 2.5, 5.0}) {
    if (factor * power >= raw) {
      step = factor * power;
      break;
    }
  }
  std::vector<double> result;
  for (int i = 0; i * step <= max * 1.0001; ++i) {
    result.push_back(i * step);
  }
  return result;
}

}  // namespace detail

// -------------------------------------------------------------------------------------------- bars

struct Bar {
  std::string label;
  double value = 0;
  std::optional<double> low, high;  ///< of the rounds
  std::size_t style = 0;
  std::string text;  ///< beside the bar
};

/// Horizontal bars from 0; thin lines show the rounds' minimum and maximum, cut where they leave the plot.
/// \param reference  where a line is to stand out; 0: nowhere
inline std::string bars(const std::string& title, const std::vector<Bar>& all, const Format& format,
                        double reference = 0) {
  using namespace detail;
  constexpr double kWidth = 880;
  constexpr double kLeft = 340;
  constexpr double kRight = 720;
  constexpr double kTop = 8;
  constexpr double kStep = 24;
  double max = 0;
  for (const auto& bar : all) {
    max = std::max(max, bar.value);
  }
  if (max <= 0) {
    return {};
  }
  const double top = max * 1.05;
  const double bottom = kTop + kStep * static_cast<double>(all.size());
  const auto x = [&](double value) {
    return kLeft + (kRight - kLeft) * std::min(value, top) / top;
  };
  auto svg = begin_svg(kWidth, bottom + 24, title);
  for (const double tick : linear_ticks(max)) {
    svg += line_at(x(tick), kTop, x(tick), bottom, "grid");
    svg += text_at(x(tick), bottom + 16, trimmed(format(tick)), "middle", "tick");
  }
  std::string texts;  // above all else
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& bar = all[i];
    const double y = kTop + kStep * static_cast<double>(i);
    svg += text_at(kLeft - 8, y + 16, bar.label, "end", bar.style == 0 ? "strong" : "");
    svg += "<rect class=\"s" + std::to_string(bar.style) + "\" x=\"" + at(kLeft) + "\" y=\"" +
           at(y + 4) + "\" width=\"" + at(std::max(1.0, x(bar.value) - kLeft)) +
           "\" height=\"16\" rx=\"1\"><title>" + escape(bar.label + ": " + bar.text) +
           "</title></rect>";
    double end = x(bar.value);
    if (bar.low && bar.high && *bar.high > *bar.low * 1.01) {
      svg += line_at(x(*bar.low), y + 12, x(*bar.high), y + 12, "whisker");
      end = std::max(end, x(*bar.high));
    }
    texts += text_at(end + 6, y + 16, bar.text, "start", "value");
  }
  if (reference > 0 && reference < top) {
    svg += line_at(x(reference), kTop - 4, x(reference), bottom + 3, "reference");
  }
  return svg + line_at(kLeft, kTop, kLeft, bottom, "axis") + texts + "</svg>";
}

// -------------------------------------------------------------------------------------------- dots

/// Figures of very different size, one to a row, on a logarithmic axis.
inline std::string dots(const std::string& title, const std::vector<Bar>& all,
                        const Format& format) {
  using namespace detail;
  constexpr double kWidth = 900;
  constexpr double kLeft = 400;
  constexpr double kRight = 760;
  constexpr double kTop = 8;
  constexpr double kStep = 20;
  double min = 1e300;
  double max = 0;
  for (const auto& bar : all) {
    if (bar.value > 0) {
      min = std::min(min, bar.value);
      max = std::max(max, bar.value);
    }
  }
  if (max <= 0) {
    return {};
  }
  const double from = std::floor(std::log10(min));
  const double to = std::max(from + 1, std::ceil(std::log10(max)));
  const double bottom = kTop + kStep * static_cast<double>(all.size());
  const auto x = [&](double value) {
    const double place = (std::log10(std::max(value, 1e-9)) - from) / (to - from);
    return kLeft + (kRight - kLeft) * std::clamp(place, 0.0, 1.0);
  };
  auto svg = begin_svg(kWidth, bottom + 24, title);
  for (double power = from; power <= to; ++power) {
    const double tick = std::pow(10, power);
    svg += line_at(x(tick), kTop, x(tick), bottom, "grid");
    svg += text_at(x(tick), bottom + 16, trimmed(format(tick)), "middle", "tick");
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& bar = all[i];
    if (bar.value <= 0) {
      continue;
    }
    const double y = kTop + kStep * (static_cast<double>(i) + 0.5);
    svg += text_at(kLeft - 8, y + 4, bar.label, "end");
    svg += line_at(kLeft, y, x(bar.value), y, "stem");
    double end = x(bar.value) + 4;
    if (bar.low && bar.high && *bar.high > *bar.low * 1.01) {
      svg += line_at(x(*bar.low), y, x(*bar.high), y, "whisker");
      end = std::max(end, x(*bar.high));
    }
    svg += marker(x(bar.value), y, bar.style);
    svg += text_at(end + 6, y + 4, bar.text, "start", "value");
  }
  return svg + line_at(kLeft, kTop, kLeft, bottom, "axis") + "</svg>";
}

// ------------------------------------------------------------------------------------------- lines

struct Series {
  std::string name;
  std::size_t style = 0;
  std::vector<std::pair<double, double>> points = {};  ///< x and y
  bool ours = false;                                   ///< a row of this library: a thick line
};

struct Axis {
  std::string title;
  std::vector<std::pair<double, std::string>>
      ticks;                 ///< of the x axis: places and what stands there
  Format format;             ///< of the y axis
  bool logarithmic = false;  ///< the y axis
  double min = 0, max = 0;   ///< of the y axis, where several plots share one; 0, 0: as it comes
};

namespace detail {

inline std::string line_class(const Series& series) {
  return "l s" + std::to_string(series.style) + (series.ours ? " ours" : "");
}

}  // namespace detail

/// Lines with markers, one small plot.
inline std::string lines(const std::string& title, const std::vector<Series>& all,
                         const Axis& axis) {
  using namespace detail;
  constexpr double kWidth = 420;
  constexpr double kHeight = 270;
  constexpr double kLeft = 62;
  constexpr double kRight = 402;
  constexpr double kTop = 12;
  constexpr double kBottom = 222;
  double min = axis.min > 0 ? axis.min : 1e300;
  double max = axis.max;
  for (const auto& series : all) {
    for (const auto& [x, y] : series.points) {
      if (y > 0) {
        min = axis.min > 0 ? min : std::min(min, y);
        max = std::max(max, axis.max > 0 ? axis.max : y);
      }
    }
  }
  if (max <= 0 || axis.ticks.empty()) {
    return {};
  }
  const double first = axis.ticks.front().first;
  const double span = std::max(1e-9, axis.ticks.back().first - first);
  const auto place_x = [&](double x) {
    return axis.ticks.size() == 1 ? (kLeft + kRight) / 2
                                  : kLeft + 14 + (kRight - kLeft - 28) * (x - first) / span;
  };
  const double from = axis.logarithmic ? std::floor(std::log10(min)) : 0;
  const double to = axis.logarithmic ? std::max(from + 1, std::ceil(std::log10(max))) : max * 1.06;
  const auto place_y = [&](double y) {
    const double value = axis.logarithmic ? std::log10(std::max(y, 1e-9)) : y;
    return kBottom - (kBottom - kTop) * std::clamp((value - from) / (to - from), 0.0, 1.0);
  };
  auto svg = begin_svg(kWidth, kHeight, title);
  std::vector<double> ticks;
  if (axis.logarithmic) {
    for (double power = from; power <= to; ++power) {
      ticks.push_back(std::pow(10, power));
    }
  } else {
    ticks = linear_ticks(max);
  }
  for (const double tick : ticks) {
    svg += line_at(kLeft, place_y(tick), kRight, place_y(tick), "grid");
    svg += text_at(kLeft - 6, place_y(tick) + 4, trimmed(axis.format(tick)), "end", "tick");
  }
  for (const auto& [x, label] : axis.ticks) {
    svg += line_at(place_x(x), kBottom, place_x(x), kBottom + 4, "axis");
    svg += text_at(place_x(x), kBottom + 17, trimmed(label), "middle", "tick");
  }
  svg += line_at(kLeft, kBottom, kRight, kBottom, "axis");
  svg += text_at((kLeft + kRight) / 2, kBottom + 36, axis.title, "middle", "tick");
  // The first series are those of interest: they are drawn last, above the others.
  for (auto series = all.rbegin(); series != all.rend(); ++series) {
    std::string path;
    for (const auto& [x, y] : series->points) {
      path += (path.empty() ? "M" : "L") + at(place_x(x)) + " " + at(place_y(y));
    }
    svg += "<path class=\"" + line_class(*series) + "\" d=\"" + path + "\"/>";
    for (const auto& [x, y] : series->points) {
      svg += marker(place_x(x), place_y(y), series->style);
    }
  }
  return svg + "</svg>";
}

/// What the lines of a plot are.
inline std::string legend(const std::vector<Series>& all) {
  std::string html = "<ul class=\"legend\">";
  for (const auto& series : all) {
    html +=
        "<li><svg viewBox=\"0 0 34 14\" width=\"34\" height=\"14\" aria-hidden=\"true\">"
        "<path class=\"l s" +
        std::to_string(series.style) + "\" d=\"M0 7L34 7\"/>" +
        detail::marker(17, 7, series.style) + "</svg>" + escape(series.name) + "</li>";
  }
  return html + "</ul>";
}

}  // namespace bench::report
