#pragma once

#include <string>
#include <utility>
#include <vector>

#include "report/suite.hpp"
#include "report/text.hpp"

/// Results as tables, for the page and, in Markdown, for a README.
namespace bench::report {

struct Table {
  std::vector<std::string> head;  ///< the first column is of texts, the others are of figures
  std::vector<std::vector<std::string>> rows;
  std::string note = {};  ///< stands below
};

/// Figures stand at the right of their cells, words at the left.
inline bool is_figure(const std::string& text) {
  return text == "-" || text.find_first_of("0123456789") == 0;
}

inline std::string to_html(const Table& table) {
  const auto css = [](bool figure) { return figure ? "" : " class=\"w\""; };
  std::string html = "<div class=\"scroll\"><table>";
  if (!table.head.empty()) {
    html += "<thead><tr>";
    for (std::size_t i = 0; i < table.head.size(); ++i) {
      const bool figures =
          !table.rows.empty() && i < table.rows[0].size() && is_figure(table.rows[0][i]);
      html +=
          std::string("<th scope=\"col\"") + css(figures) + ">" + escape(table.head[i]) + "</th>";
    }
    html += "</tr></thead>";
  }
  html += "<tbody>";
  for (const auto& row : table.rows) {
    html += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bool figure = !table.head.empty() && is_figure(row[i]);
      html += i == 0 ? "<th scope=\"row\">" + escape(row[i]) + "</th>"
                     : std::string("<td") + css(figure) + ">" + escape(row[i]) + "</td>";
    }
    html += "</tr>";
  }
  html += "</tbody></table></div>\n";
  return table.note.empty() ? html : html + "<p class=\"note\">" + escape(table.note) + "</p>\n";
}

/// \param table  has rows
inline std::string to_markdown(const Table& table) {
  const auto line = [](const std::vector<std::string>& cells) {
    std::string text = "|";
    for (const auto& cell : cells) {
      text += " " + escape_markdown(cell) + " |";
    }
    return text + "\n";
  };
  std::string text = line(table.head) + "|";
  for (std::size_t i = 0; i < table.head.size(); ++i) {
    text += i > 0 && is_figure(table.rows[0][i]) ? "---:|" : "---|";
  }
  text += "\n";
  for (const auto& row : table.rows) {
    text += line(row);
  }
  return text;
}

inline std::string name_of_quantile(const std::string& name) {
  return name == "p999" ? "p99.9" : name;
}

inline const char* name_of_role(const std::string& role) {
  return role == "peer"         ? "peer"
         : role == "paced_peer" ? "peer, rests"
         : role == "floor"      ? "floor"
         : role == "baseline"   ? "baseline"
                                : "shard";
}

/// A ratio, or a dash where there is nothing to divide by.
inline std::string ratio(std::optional<double> of, const Row* to) {
  const auto by = to == nullptr ? std::nullopt : to->figure();
  return of && by && *by > 0 ? fixed(*of / *by, 2) : "-";
}

/// All of a case.
inline Table table_of(const Case& one) {
  // Rows of memory differ by what they are to hold, so there is no best of them.
  const bool memory = one.unit.starts_with("bytes");
  const auto* peer = memory ? nullptr : one.best_peer();
  const auto* paced = one.best_paced_peer();
  Table table;
  if (one.has_quantiles()) {
    std::vector<std::string> names;
    for (const auto& row : one.rows) {
      for (const auto& [name, value] : row.quantiles) {
        if (std::find(names.begin(), names.end(), name) == names.end()) {
          names.push_back(name);
        }
      }
    }
    table.head = {"", "role"};
    for (const auto& name : names) {
      table.head.push_back(name_of_quantile(name));
    }
    if (peer != nullptr) {
      table.head.push_back("p50 to best peer");
      table.note = "Best peer: " + peer->name;
    }
    for (const auto& row : one.rows) {
      std::vector<std::string> cells{row.name, name_of_role(row.role)};
      for (const auto& name : names) {
        const auto value = row.quantile(name);
        cells.push_back(value ? nanoseconds(*value) : "-");
      }
      if (peer != nullptr) {
        cells.push_back(ratio(row.quantile("p50"), peer));
      }
      table.rows.push_back(std::move(cells));
    }
    return table;
  }
  table.head = {one.unit, "role", "median", "min", "max"};
  if (peer != nullptr) {
    table.head.push_back("to best peer");
    table.note = "Best peer: " + peer->name;
  }
  if (paced != nullptr) {
    table.head.push_back("to best that rests");
    table.note += (peer == nullptr ? "Best that rests: " : "; best that rests: ") + paced->name;
  }
  for (const auto& row : one.rows) {
    const auto cell = [&](std::optional<double> value) {
      return !value ? std::string("-") : memory ? bytes(*value) : figure(*value);
    };
    std::vector<std::string> cells{row.name, name_of_role(row.role), cell(row.median),
                                   cell(row.min), cell(row.max)};
    if (peer != nullptr) {
      cells.push_back(ratio(row.median, peer));
    }
    if (paced != nullptr) {
      cells.push_back(ratio(row.median, paced));
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

/// Whether it is of a part of bench_system, which begins its titles with that.
inline bool is_system(const Case& one, std::string_view part) {
  return one.program == "bench_system" && one.title.starts_with(part);
}

/// "2026-11-25, AMD EPYC, 2 cores, g++ 12.2.0, commit 1234567": what no figure means anything without.
inline std::string headline(const Suite& suite) {
  std::string text = suite.text("date");
  const auto add = [&](const std::string& name, const std::string& before,
                       const std::string& after) {
    if (!suite.text(name).empty()) {
      text += ", " + before + suite.text(name) + after;
    }
  };
  add("cpu", "", "");
  add("cores", "", " cores");
  add("compiler", "", "");
  add("commit", "commit ", suite.text("dirty") == "yes" ? " with changes" : "");
  return text + (suite.text("quick") == "yes" ? ", QUICK: too short to mean anything" : "");
}

inline std::string transfers_in_words(const Suite& suite) {
  const auto all = suite.transfers();
  if (all.empty()) {
    return "Line transfers were not measured.";
  }
  const auto [min, max] = std::minmax_element(all.begin(), all.end());
  return "A cache line took " + figure(median_of(all)) + " ns (" + figure(*min) + " .. " +
         figure(*max) + ") to the other core.";
}

/// The subjects' costs, each beside the best peer that polls and the best that rests.
inline Table summary_of_costs(const Suite& suite) {
  Table table{{"", "unit", "median", "min", "best peer", "its median", "ratio", "best that rests",
               "its median", "ratio"},
              {}};
  for (const auto& one : suite.cases) {
    const bool wanted = one.program == "bench_caller_side" || one.program == "bench_end_to_end" ||
                        one.program == "bench/instructions" || is_system(one, "throughput:") ||
                        is_system(one, "overflow:");
    if (!wanted || one.has_quantiles()) {
      continue;
    }
    const auto* peer = one.best_peer();
    const auto* paced = one.best_paced_peer();
    const auto median = [](const Row* row) {
      return row != nullptr && row->median ? figure(*row->median) : "-";
    };
    for (const auto& row : one.rows) {
      if (row.role == "subject" && row.median) {
        table.rows.push_back({one.title + ": " + row.name, one.unit, figure(*row.median),
                              row.min ? figure(*row.min) : "-", peer == nullptr ? "-" : peer->name,
                              median(peer), ratio(row.median, peer),
                              paced == nullptr ? "-" : paced->name, median(paced),
                              ratio(row.median, paced)});
      }
    }
  }
  return table;
}

inline Table summary_of_latencies(const Suite& suite) {
  Table table{{"", "p50", "p99", "p99.9", "max", "best peer", "its p50", "its p99", "p50 ratio"},
              {}};
  for (const auto& one : suite.cases) {
    const auto* peer = one.has_quantiles() ? one.best_peer() : nullptr;
    for (const auto& row : one.rows) {
      if (row.quantiles.empty() || row.role != "subject") {
        continue;
      }
      const auto cell = [](const Row* of, const char* name) {
        const auto value = of == nullptr ? std::nullopt : of->quantile(name);
        return value ? nanoseconds(*value) : "-";
      };
      table.rows.push_back({one.title + ": " + row.name, cell(&row, "p50"), cell(&row, "p99"),
                            cell(&row, "p999"), cell(&row, "max"),
                            peer == nullptr ? "-" : peer->name, cell(peer, "p50"),
                            cell(peer, "p99"), ratio(row.quantile("p50"), peer)});
    }
  }
  return table;
}

inline Table summary_of_memory(const Suite& suite) {
  Table table{{"memory", "role", "bytes"}, {}};
  for (const auto& one : suite.cases) {
    if (one.unit.starts_with("bytes")) {
      for (const auto& row : one.rows) {
        table.rows.push_back({one.title + ": " + row.name, name_of_role(row.role),
                              row.median ? bytes(*row.median) : "-"});
      }
    }
  }
  return table;
}

/// To be pasted into a README.
inline std::string summary_in_markdown(const Suite& suite) {
  std::string text = "### " + headline(suite) + "\n\n" + transfers_in_words(suite) + "\n";
  for (const auto& table :
       {summary_of_costs(suite), summary_of_latencies(suite), summary_of_memory(suite)}) {
    if (!table.rows.empty()) {
      text += "\n" + to_markdown(table);
    }
  }
  return text;
}

}  // namespace bench::report
