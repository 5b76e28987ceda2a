#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "report/plot.hpp"
#include "report/suite.hpp"
#include "report/table.hpp"
#include "report/text.hpp"

/// The results as one HTML page that needs nothing else: no script, no font, no network.
namespace bench::report {

namespace detail {

using Cases = std::vector<const Case*>;

inline constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --text: #1b1f24; --soft: #57606a; --back: #ffffff; --box: #f4f6f8; --rule: #d5dae0;
  --c0: #0b5cad; --c1: #b45f06; --c2: #0f766e; --c3: #8e24aa; --c4: #6b7280; --c5: #be123c; --c6: #4d6b07; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ed; --soft: #a3adb8; --back: #14171a; --box: #1d2226;
  --rule: #384048; --c0: #62aef7; --c1: #f0a04b; --c2: #3fd0bd; --c3: #d99af0; --c4: #9aa4af; --c5: #fb7c93;
  --c6: #b5d24a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 56rem;
  margin: 0 auto; padding: 1rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; margin: .6rem 0 .2rem; } h2 { font-size: 1.3rem; margin: 2.6rem 0 .4rem;
  border-bottom: 1px solid var(--rule); padding-bottom: .2rem; } h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
p { margin: .4rem 0; max-width: 48rem; } .soft, figcaption { color: var(--soft); }
nav a { margin-right: .9rem; white-space: nowrap; } a { color: var(--c0); }
.warning { border-left: 4px solid var(--c1); background: var(--box); padding: .5rem .8rem; margin: .8rem 0; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: .4rem 0; } th, td { padding: .18rem .6rem; text-align: right;
  border-bottom: 1px solid var(--rule); } th { font-weight: 600; } thead th { vertical-align: bottom; color: var(--soft); }
.w { text-align: left; } .note { color: var(--soft); font-size: 13px; margin-top: 0; }
tbody th, thead th:first-child { text-align: left; font-weight: 400; } tbody th { min-width: 9rem; }
details { margin: .2rem 0 1rem; } summary { cursor: pointer; color: var(--soft); font-size: 13px; }
figure { margin: .3rem 0; } figcaption { font-size: 13px; font-weight: 600; color: var(--text); }
.grid { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; } .grid figure { flex: 1 1 22rem; max-width: 26.5rem; }
ul.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .2rem 0; padding: 0;
  font-size: 13px; } ul.legend svg { vertical-align: -2px; margin-right: .35rem; width: 34px; }
svg { width: 100%; height: auto; display: block; } ul.legend svg { display: inline; }
svg text { font: 12px system-ui, sans-serif; fill: var(--text); } svg text.tick { fill: var(--soft); font-size: 11px; }
svg text.strong { font-weight: 700; } svg text.value { font-variant-numeric: tabular-nums;
  paint-order: stroke; stroke: var(--back); stroke-width: 3px; stroke-linejoin: round; }
.grid line, line.grid { stroke: var(--rule); } line.axis { stroke: var(--soft); }
line.reference { stroke: var(--text); stroke-width: 1.5; stroke-dasharray: 4 3; }
line.stem { stroke: var(--rule); stroke-width: 2; } line.whisker { stroke: var(--text); stroke-width: 1.4; opacity: .65; }
.s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); } .s3 { --c: var(--c3); } .s4 { --c: var(--c4); }
.s5 { --c: var(--c5); } .s6 { --c: var(--c6); } rect { fill: var(--c); } .m { fill: var(--c); stroke: var(--back); }
.l { fill: none; stroke: var(--c); stroke-width: 1.8; } .l.ours { stroke-width: 3; } .l.s1 { stroke-dasharray: 7 3; }
.l.s2 { stroke-dasharray: 2 3; } .l.s3 { stroke-dasharray: 9 3 2 3; } .l.s4 { stroke-dasharray: 4 4; }
.l.s5 { stroke-dasharray: 12 4; } .l.s6 { stroke-dasharray: 1 4; }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .35rem 0 .9rem; background: var(--c); }
)css";

inline std::size_t style_of(const std::string& role) {
  return role == "subject" ? 0 : role == "paced_peer" ? 2 : role == "floor" ? 4 : 1;
}

inline std::string key_of_bars() {
  return "<p class=\"soft\"><span class=\"key s0\"></span>shard<span class=\"key s1\"></span>peer, "
         "or baseline"
         "<span class=\"key s2\"></span>peer whose consumer rests<span class=\"key "
         "s4\"></span>floor: one part of "
         "the job only. Shorter is better; thin lines go from the fastest round to the "
         "slowest.</p>\n";
}

inline std::string paragraph(const std::string& text) { return "<p>" + escape(text) + "</p>\n"; }

inline std::string folded(const std::string& summary, const std::string& html) {
  return "<details><summary>" + escape(summary) + "</summary>" + html + "</details>\n";
}

inline std::string table_under(const Case& one) {
  const auto html = to_html(table_of(one));
  return one.rows.size() > 8 ? folded("All " + std::to_string(one.rows.size()) + " rows", html)
                             : html;
}

/// The rows that a plot shows: all if they are few, else the subjects, the best of each kind of peer and
/// the floors; the table has the others.
inline std::vector<const Row*> rows_to_draw(const Case& one) {
  std::vector<const Row*> result;
  for (const auto& row : one.rows) {
    if (one.rows.size() <= 8 || row.role == "subject" || row.role == "floor" ||
        &row == one.best_peer() || &row == one.best_paced_peer()) {
      result.push_back(&row);
    }
  }
  return result;
}

inline std::string bars_of(const Case& one) {
  const auto* peer = one.best_peer();
  const auto* paced = one.best_paced_peer();
  const bool memory = one.unit.starts_with("bytes");
  // Round numbers of KiB make better ticks than round numbers of bytes.
  const double scale = memory ? 1.0 / 1024 : 1;
  const auto scaled = [&](std::optional<double> value) {
    return value ? std::optional(*value * scale) : std::nullopt;
  };
  std::vector<Bar> all;
  for (const auto* row : rows_to_draw(one)) {
    if (!row->median) {
      continue;
    }
    auto text = with_unit(*row->median, one.unit);
    if (!memory && row->role == "subject" && peer != nullptr) {
      text += "  (" + ratio(row->median, peer) + "x" +
              (paced == nullptr ? "" : ", " + ratio(row->median, paced) + "x") + ")";
    }
    all.push_back({row->name, *row->median * scale, scaled(row->min), scaled(row->max),
                   style_of(row->role), text});
  }
  return "<figure>" +
         bars(one.title + ", " + one.unit, all,
              [&](double value) {
                return memory ? figure(value) + " KiB" : with_unit(value, one.unit);
              }) +
         "</figure>\n";
}

inline std::string bars_with_table(const Case& one, const std::string& title) {
  return "<h3>" + escape(title) + " <span class=\"soft\">(" + escape(one.unit) + ")</span></h3>\n" +
         bars_of(one) + table_under(one);
}

/// A title without the name of its section.
inline std::string short_title(const Case& one) {
  const auto colon = one.title.find(": ");
  auto text = colon == std::string::npos || one.program != "bench_system"
                  ? one.title
                  : one.title.substr(colon + 2);
  return text;
}

/// The other parameters of a plot in words.
inline std::string words_of(const Json& parameters, const std::string& axis) {
  std::string text;
  const auto add = [&](const std::string& words) { text += (text.empty() ? "" : ", ") + words; };
  for (const auto& [name, value] : parameters.items()) {
    const auto word = value.is_string() ? value.get<std::string>() : value.dump();
    const auto plural = word == "1" ? "" : "s";
    if (name == axis) {
      continue;
    }
    if (name == "producers" || name == "shards") {
      add(word + " " + name.substr(0, name.size() - 1) + plural);
    } else if (name == "batch") {
      add(word == "1" ? "single events" : "batches of " + word);
    } else if (name == "payload") {
      add(word + " bytes");
    } else if (name == "place") {
      add(word == "producer" ? "each producer in its own place" : "by " + word);
    } else if (name != "routing" || word != "static") {
      add(name + " " + word);
    }
  }
  return text;
}

/// Cases that differ in one parameter only.
struct Sweep {
  std::string title;
  std::map<double, const Case*> at;
};

/// \param kind_of  cases of another kind are never in one sweep
inline std::vector<Sweep> sweeps(const Cases& cases, const std::string& axis,
                                 const std::function<std::string(const Case&)>& kind_of) {
  std::vector<std::pair<std::string, Sweep>> groups;
  for (const auto* one : cases) {
    const auto place = one->parameters.find(axis);
    if (place == one->parameters.end() || !place->is_number()) {
      continue;
    }
    auto others = one->parameters;
    others.erase(axis);
    const auto key = kind_of(*one) + others.dump();
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const auto& known) { return known.first == key; });
    if (group == groups.end()) {
      const auto kind = kind_of(*one);
      const auto words = words_of(one->parameters, axis);
      groups.push_back({key, {kind + (kind.empty() ? "" : ": ") + words, {}}});
      group = groups.end() - 1;
    }
    group->second.at.emplace(place->get<double>(), one);
  }
  std::vector<Sweep> result;
  for (auto& [key, sweep] : groups) {
    if (sweep.at.size() > 1) {
      result.push_back(std::move(sweep));
    }
  }
  return result;
}

/// Our rows, and the best peer at each place; logarithmic places, as they double or quadruple.
inline std::string plot_of(const Sweep& sweep, const std::string& axis_title,
                           const std::function<double(double)>& y_of, const Format& format) {
  std::vector<Series> all;
  Series peers{"best peer that polls", 1, {}};
  Series paced{"best peer that rests", 2, {}};
  Series floor{"floor", 4, {}};
  Axis axis{.title = axis_title, .ticks = {}, .format = format};
  for (const auto& [place, one] : sweep.at) {
    const double x = std::log2(std::max(place, 1.0));
    axis.ticks.emplace_back(x, figure(place));
    for (const auto& row : one->rows) {
      if (row.role != "subject" || !row.median) {
        continue;
      }
      auto found = std::find_if(all.begin(), all.end(),
                                [&](const Series& series) { return series.name == row.name; });
      if (found == all.end()) {
        constexpr std::array<std::size_t, 4> kOurs{0, 3, 5, 6};
        all.push_back({row.name, kOurs[std::min<std::size_t>(all.size(), 3)], {}, true});
        found = all.end() - 1;
      }
      found->points.emplace_back(x, y_of(*row.median));
    }
    const auto add = [&](Series& series, const Row* row) {
      if (row != nullptr && row->median) {
        series.points.emplace_back(x, y_of(*row->median));
      }
    };
    add(peers, one->best_peer());
    add(paced, one->best_paced_peer());
    add(floor, one->best([](const Row& row) { return row.role == "floor"; }));
  }
  if (paced.points.empty()) {
    peers.name = "best peer";
  }
  for (auto* series : {&peers, &paced, &floor}) {
    if (!series->points.empty()) {
      all.push_back(std::move(*series));
    }
  }
  return "<figure><figcaption>" + escape(sweep.title) + "</figcaption>" +
         lines(sweep.title + ", against " + axis_title, all, axis) + legend(all) + "</figure>\n";
}

/// All figures of a sweep in one table: a row for each subject and peer, a column for each place.
inline Table table_of(const Sweep& sweep, const std::string& unit, const std::string& axis) {
  Table table{{unit}, {}};
  std::vector<std::string> names;
  for (const auto& [place, one] : sweep.at) {
    table.head.push_back(axis + " " + trimmed(figure(place)));
    for (const auto& row : one->rows) {
      if (std::find(names.begin(), names.end(), row.name) == names.end()) {
        names.push_back(row.name);
      }
    }
  }
  for (const auto& name : names) {
    std::vector<std::string> cells{name};
    for (const auto& [place, one] : sweep.at) {
      const auto* row = one->row(name);
      cells.push_back(row != nullptr && row->median ? figure(*row->median) : "-");
    }
    table.rows.push_back(std::move(cells));
  }
  const auto ratios = [&](const char* title, const Row* (Case::*best)() const) {
    std::vector<std::string> cells{title};
    bool any = false;
    for (const auto& [place, one] : sweep.at) {
      const auto* ours = one->best([](const Row& row) { return row.role == "subject"; });
      const auto* other = ((*one).*best)();
      any = any || (ours != nullptr && other != nullptr);
      cells.push_back(ratio(ours == nullptr ? std::nullopt : ours->median, other));
    }
    if (any) {
      table.rows.push_back(std::move(cells));
    }
  };
  ratios("shard / best peer", &Case::best_peer);
  ratios("shard / best peer that rests", &Case::best_paced_peer);
  return table;
}

inline double place_of_quantile(const std::string& name) {
  return name == "p50" ? 0 : name == "p90" ? 0.5 : name == "p99" ? 1 : name == "p999" ? 2 : 3;
}

/// The rows of some cases, each in one style in all of their plots.
inline std::vector<Series> styles_of(const Cases& cases) {
  std::vector<Series> all;
  for (const auto* one : cases) {
    for (const auto& row : one->rows) {
      const bool known = std::any_of(all.begin(), all.end(),
                                     [&](const Series& series) { return series.name == row.name; });
      if (!known) {
        all.push_back({row.name, all.size() % kStyles, {}, row.role == "subject"});
      }
    }
  }
  return all;
}

/// Of the series, those that have points.
inline std::vector<Series> drawn(std::vector<Series> all) {
  std::erase_if(all, [](const Series& series) { return series.points.empty(); });
  return all;
}

/// p50 and p99 against the load.
inline std::string load_plots(const Cases& cases) {
  std::string html;
  for (const std::string quantile : {"p50", "p99"}) {
    std::map<double, std::string> places;
    auto all = styles_of(cases);
    for (const auto* one : cases) {
      const auto load = number(one->parameters, "load");
      if (!load) {
        continue;
      }
      places[*load] = figure(*load * 100) + " %";
      for (auto& series : all) {
        const auto* row = one->row(series.name);
        if (const auto value = row == nullptr ? std::nullopt : row->quantile(quantile)) {
          series.points.emplace_back(*load, *value);
        }
      }
    }
    if (places.size() < 2) {
      return {};
    }
    const Axis axis{.title = "load, of each one's own capacity",
                    .ticks = {places.begin(), places.end()},
                    .format = nanoseconds,
                    .logarithmic = true};
    html += "<figure><figcaption>" + quantile + " against load</figcaption>" +
            lines(quantile + " against load", drawn(std::move(all)), axis) + "</figure>\n";
  }
  return html;
}

/// The quantiles of some cases, small plots with one axis, and where there are several loads what becomes
/// of them with the load.
inline std::string quantile_plots(const Cases& cases) {
  double min = 1e300;
  double max = 0;
  for (const auto* one : cases) {
    for (const auto& row : one->rows) {
      for (const auto& [name, value] : row.quantiles) {
        min = value > 0 ? std::min(min, value) : min;
        max = std::max(max, value);
      }
    }
  }
  auto html = legend(styles_of(cases)) + "<div class=\"grid\">";
  for (const auto* one : cases) {
    std::map<double, std::string> places;
    auto all = styles_of(cases);
    for (auto& series : all) {
      if (const auto* row = one->row(series.name)) {
        for (const auto& [name, value] : row->quantiles) {
          const auto place = place_of_quantile(name);
          places[place] = name_of_quantile(name);
          series.points.emplace_back(place, value);
        }
      }
    }
    const Axis axis{.title = "quantile",
                    .ticks = {places.begin(), places.end()},
                    .format = nanoseconds,
                    .logarithmic = true,
                    .min = min,
                    .max = max};
    html += "<figure><figcaption>" + escape(short_title(*one)) + "</figcaption>" +
            lines(one->title + ", latency by quantile", drawn(std::move(all)), axis) +
            "</figure>\n";
  }
  return html + load_plots(cases) + "</div>\n";
}

inline std::string tables_of(const Cases& cases) {
  std::string html;
  for (const auto* one : cases) {
    html += "<h3>" + escape(short_title(*one)) + "</h3>" + table_under(*one);
  }
  return html;
}

/// Google Benchmark's rows whose last argument is a number of shards.
inline std::string operations_by_shards(const Cases& cases) {
  std::map<std::string, std::map<double, double>> found;
  for (const auto* one : cases) {
    for (const auto& row : one->rows) {
      const auto slash = row.name.rfind('/');
      const auto prefix = row.name.substr(0, slash == std::string::npos ? 0 : slash);
      char* end = nullptr;
      const auto last = row.name.c_str() + slash + 1;
      const double shards = slash == std::string::npos ? 0 : std::strtod(last, &end);
      if (prefix.find("shards") != std::string::npos && end != last && *end == '\0' && row.median) {
        found[prefix].emplace(shards, *row.median);
      }
    }
  }
  std::vector<Series> all;
  std::map<double, std::string> places;
  for (const auto& [name, points] : found) {
    if (points.size() < 2) {
      continue;
    }
    Series series{name, all.size() % kStyles, {}};
    for (const auto& [shards, nanos] : points) {
      places[std::log2(std::max(shards, 1.0))] = figure(shards);
      series.points.emplace_back(std::log2(std::max(shards, 1.0)), nanos);
    }
    all.push_back(std::move(series));
  }
  if (all.empty()) {
    return {};
  }
  const Axis axis{.title = "shards",
                  .ticks = {places.begin(), places.end()},
                  .format = nanoseconds,
                  .logarithmic = true};
  return "<figure><figcaption>Single operations against the number of shards</figcaption>" +
         lines("Single operations against the number of shards", all, axis) + legend(all) +
         "</figure>\n";
}

/// Puts the page together; remembers which cases have been shown, so that none is forgotten.
class Page {
 public:
  explicit Page(const Suite& suite) : suite_(suite) {}

  std::string render() {
    machine();
    section("transfers", "Line transfers", line_transfers());
    section("summary", "In short", short_summary());
    section("caller", "Caller's side", callers_side());
    section("end-to-end", "End to end", end_to_end());
    section("throughput", "Throughput by producers and shards", throughput());
    section("latency", "Latency by load", latency());
    section("hand-over", "One event after idleness", quantiles_of("bench_hand_over"));
    section("isolation", "Isolation", quantiles_of("bench_isolation"));
    section("stages", "Cost per stage", stages());
    section("scale", "Scale and memory", scale());
    section("overflow", "Overflow", overflow());
    section("idle", "Idle", plain([](const Case& one) { return one.program == "bench_idle"; }, ""));
    section("others", "Others",
            plain([this](const Case& one) { return !shown_.contains(&one); }, ""), false);

    std::string html =
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
        "<title>shard: benchmarks, " +
        escape(suite_.text("date")) + "</title><style>" + kStyle +
        "</style></head><body>\n<h1>shard: benchmarks</h1>\n" + head_ + "<nav>" + links_ +
        "</nav>\n" + body_;
    if (!missing_.empty()) {
      std::string all;
      for (const auto& name : missing_) {
        all += (all.empty() ? "" : ", ") + name;
      }
      html += "<h2>Left out</h2>\n" + paragraph("Not measured in this run: " + all + ".");
    }
    return html + "</body></html>\n";
  }

 private:
  template <class Is>
  Cases take(Is is) {
    Cases result;
    for (const auto& one : suite_.cases) {
      if (is(one)) {
        result.push_back(&one);
      }
    }
    shown_.insert(result.begin(), result.end());
    return result;
  }

  void section(const std::string& id, const std::string& title, const std::string& html,
               bool expected = true) {
    if (html.empty()) {
      if (expected) {
        missing_.push_back(title);
      }
      return;
    }
    links_ += "<a href=\"#" + id + "\">" + escape(title) + "</a> ";
    body_ += "<section><h2 id=\"" + id + "\">" + escape(title) + "</h2>\n" + html + "</section>\n";
  }

  void machine() {
    static const std::vector<std::pair<std::string, std::string>> kNames{
        {"date", "date"},         {"commit", "commit"},
        {"cpu", "processor"},     {"cores", "cores"},
        {"governor", "governor"}, {"kernel", "kernel"},
        {"compiler", "compiler"}, {"load_average", "load average at the start"}};
    head_ =
        "<p class=\"soft\">Method: subjects and peers of a plot ran in one program, in turn, after "
        "a round that "
        "warms up; figures are medians of the rounds, and payloads are verified. Compare figures "
        "of one "
        "plot only: the machine changes its speed in between.</p>\n";
    Table table{{}, {}};
    for (const auto& [name, title] : kNames) {
      auto text = suite_.text(name);
      if (name == "commit" && suite_.text("dirty") == "yes") {
        text += ", with changes that are not committed";
      }
      if (!text.empty()) {
        table.rows.push_back({title, text});
      }
    }
    const auto box = [this](const std::string& text) {
      head_ += "<p class=\"warning\">" + escape(text) + "</p>\n";
    };
    if (suite_.text("quick") == "yes") {
      box("A quick run: too short to mean anything, long enough to see that all of it works.");
    }
    if (!suite_.text("warning").empty()) {
      box(suite_.text("warning"));
    }
    head_ += to_html(table);
  }

  std::string line_transfers() {
    std::vector<std::string> programs;
    std::map<std::string, std::vector<double>> transfers;
    for (const auto& one : suite_.cases) {
      if (!one.transfers.empty() && !transfers.contains(one.program)) {
        programs.push_back(one.program);
      }
      auto& all = transfers[one.program];
      all.insert(all.end(), one.transfers.begin(), one.transfers.end());
    }
    if (programs.empty()) {
      return {};
    }
    std::vector<Bar> all;
    Table table{{"ns", "measured", "median", "min", "max"}, {}};
    for (const auto& program : programs) {
      const auto& values = transfers[program];
      const auto [min, max] = std::minmax_element(values.begin(), values.end());
      const auto median = median_of(values);
      all.push_back({program, median, *min, *max, 4, figure(median) + " ns"});
      table.rows.push_back(
          {program, std::to_string(values.size()), figure(median), figure(*min), figure(*max)});
    }
    const auto everything = suite_.transfers();
    const auto [min, max] = std::minmax_element(everything.begin(), everything.end());
    std::string html = paragraph(
        "What a cache line takes to another core, measured before each round. It tells in which "
        "state "
        "the machine was: states differ by a factor of three, and only figures of one can be "
        "compared.");
    if (*max > kSameState * *min) {
      html += paragraph(
          "It was between " + figure(*min) + " and " + figure(*max) +
          " ns in this run, so not always in the same state; medians and ratios bear that, "
          "figures of different plots do not.");
    }
    return html + "<figure>" + bars("Line transfers by program", all, nanoseconds) + "</figure>" +
           to_html(table);
  }

  std::string short_summary() {
    std::string html;
    const auto costs = summary_of_costs(suite_);
    const auto latencies = summary_of_latencies(suite_);
    if (!costs.rows.empty()) {
      html += folded("Costs: " + std::to_string(costs.rows.size()) + " rows", to_html(costs));
    }
    if (!latencies.rows.empty()) {
      html += folded("Latencies: " + std::to_string(latencies.rows.size()) + " rows",
                     to_html(latencies));
    }
    const auto overview = overview_of_ratios();
    return overview.empty() ? html : overview + html;
  }

  /// All ratios to the best peer on one axis: where this library is ahead, and where it is behind.
  std::string overview_of_ratios() {
    std::vector<Bar> all;
    for (const auto& one : suite_.cases) {
      if (one.program != "bench_caller_side" && one.program != "bench_end_to_end") {
        continue;
      }
      const auto* peer = one.best_peer();
      const auto* paced = one.best_paced_peer();
      for (const auto& row : one.rows) {
        if (row.role != "subject" || !row.median || peer == nullptr) {
          continue;
        }
        const auto name = one.program == "bench_caller_side" ? row.name : one.title;
        all.push_back(
            {name, *row.median / *peer->median, {}, {}, 0, ratio(row.median, peer) + "x"});
        if (paced != nullptr) {
          all.push_back({"beside the best that rests",
                         *row.median / *paced->median,
                         {},
                         {},
                         2,
                         ratio(row.median, paced) + "x"});
        }
      }
    }
    if (all.empty()) {
      return {};
    }
    return paragraph(
               "What an event costs, as a multiple of what it costs in the best peer of the same "
               "case; "
               "below 1 this library is faster.") +
           "<figure>" +
           bars(
               "Ratios to the best peer", all, [](double value) { return figure(value) + "x"; },
               1) +
           "</figure>\n";
  }

  template <class Is>
  std::string plain(Is is, const std::string& lead) {
    std::string html;
    for (const auto* one : take(is)) {
      if (one->has_quantiles()) {
        html += quantile_plots({one}) + table_under(*one);
      } else {
        html += bars_with_table(*one, short_title(*one));
      }
    }
    return html.empty() ? html : lead + html;
  }

  std::string callers_side() {
    return plain(
        [](const Case& one) { return one.program == "bench_caller_side"; },
        paragraph(
            "What an ingest call costs the thread that makes it, on shards with room. In brackets: "
            "the ratio to the best peer.") +
            key_of_bars());
  }

  std::string end_to_end() {
    return plain(
        [](const Case& one) { return one.program == "bench_end_to_end"; },
        paragraph("From ingest to the callback that gets the batches. The plots show the best "
                  "peers only. In "
                  "brackets: the ratios to the best that polls and to the best that rests.") +
            key_of_bars());
  }

  std::string throughput() {
    const auto cases =
        take([](const Case& one) { return is_system(one, "throughput:") && !one.has_quantiles(); });
    if (cases.empty()) {
      return {};
    }
    std::string html = paragraph(
        "Million events per second from producers to the callback; higher is better. The best "
        "peer is another one from place to place; the tables name all of them.");
    std::set<const Case*> drawn;
    for (const auto& [axis, title] :
         {std::pair{"producers", "By producers"}, std::pair{"shards", "By shards"},
          std::pair{"payload", "By bytes of payload"}}) {
      const auto all = sweeps(cases, axis, [](const Case&) { return std::string(); });
      if (all.empty()) {
        continue;
      }
      html += std::string("<h3>") + title + "</h3>\n<div class=\"grid\">";
      std::string tables;
      for (const auto& sweep : all) {
        html += plot_of(
            sweep, axis, [](double nanos) { return 1e3 / nanos; },
            [](double value) { return figure(value) + " M/s"; });
        tables += folded(sweep.title + ": ns per event, all peers",
                         to_html(table_of(sweep, "ns per event", axis)));
        for (const auto& [place, one] : sweep.at) {
          drawn.insert(one);
        }
      }
      html += "</div>\n" + tables;
    }
    std::string others;
    for (const auto* one : cases) {
      if (!drawn.contains(one)) {
        others += bars_with_table(*one, short_title(*one));
      }
    }
    return others.empty() ? html : html + key_of_bars() + others;
  }

  std::string latency() {
    const auto cases = take([](const Case& one) { return is_system(one, "latency:"); });
    Cases curves;
    std::string capacity;
    for (const auto* one : cases) {
      if (one->has_quantiles()) {
        curves.push_back(one);
      } else {
        capacity += bars_with_table(*one, short_title(*one));
      }
    }
    if (curves.empty()) {
      return capacity;
    }
    return paragraph(
               "From the time at which an event was meant to be sent to the callback, so a "
               "producer that is held "
               "up does not hide it. Loads are parts of what each can do at most. Logarithmic; "
               "lower is better.") +
           quantile_plots(curves) + tables_of(curves) + capacity;
  }

  std::string quantiles_of(const std::string& program) {
    const auto cases =
        take([&](const Case& one) { return one.program == program && one.has_quantiles(); });
    return cases.empty() ? std::string() : quantile_plots(cases) + tables_of(cases);
  }

  std::string stages() {
    std::string html;
    for (const auto* one : take([](const Case& one) { return one.unit == "ns per operation"; })) {
      std::vector<Bar> all;
      for (const auto& row : one->rows) {
        const bool peer = row.name.starts_with("std_") || row.name.starts_with("nlohmann_");
        all.push_back({row.name, row.median.value_or(0), row.min, row.max, peer ? 1U : 0U,
                       nanoseconds(row.median.value_or(0))});
      }
      html += "<h3>" + escape(one->program) + "</h3>\n<figure>" +
              dots(one->program + ", ns per operation", all, nanoseconds) + "</figure>\n" +
              folded("All " + std::to_string(one->rows.size()) + " rows",
                     to_html(report::table_of(*one)));
    }
    for (const auto* one :
         take([](const Case& one) { return one.unit.starts_with("instructions"); })) {
      html += bars_with_table(*one, one->title);
    }
    return html.empty() ? html
                        : paragraph(
                              "Each by itself, on a logarithmic axis; whatever another library "
                              "does for comparison "
                              "has a square. Instructions, if counted, are the same in each run.") +
                              html;
  }

  std::string scale() {
    const auto cases = take([](const Case& one) { return is_system(one, "scale:"); });
    // "scale: end to end, shards: 4" is of the kind "end to end".
    const auto all = sweeps(cases, "shards", [](const Case& one) {
      const auto text = short_title(one);
      return text.substr(0, text.find(", "));
    });
    std::string html;
    std::string tables;
    std::set<const Case*> drawn;
    for (const auto& sweep : all) {
      html += plot_of(
          sweep, "shards", [](double nanos) { return nanos; }, nanoseconds);
      tables += folded(sweep.title + ": ns per event, all peers",
                       to_html(table_of(sweep, "ns per event", "shards")));
      for (const auto& [place, one] : sweep.at) {
        drawn.insert(one);
      }
    }
    Cases google;
    for (const auto& one : suite_.cases) {
      if (one.unit == "ns per operation") {
        google.push_back(&one);
      }
    }
    html += operations_by_shards(google);
    if (!html.empty()) {
      html = "<div class=\"grid\">" + html + "</div>\n" + tables;
    }
    for (const auto* one : cases) {
      if (!drawn.contains(one)) {
        html += bars_with_table(*one, short_title(*one));
      }
    }
    return html.empty() ? html
                        : paragraph("What stays flat as shards are added; lower is better.") + html;
  }

  std::string overflow() {
    return plain([](const Case& one) { return is_system(one, "overflow:"); },
                 paragraph("What an ingest call costs whose shard is full. The caller's side above "
                           "has drop_oldest, too.") +
                     key_of_bars());
  }

  const Suite& suite_;
  std::set<const Case*> shown_;
  std::vector<std::string> missing_;
  std::string head_, links_, body_;
};

}  // namespace detail

/// \throw nothing: what is not there is left out, and named at the end
inline std::string page_of(const Suite& suite) { return detail::Page(suite).render(); }

}  // namespace bench::report
