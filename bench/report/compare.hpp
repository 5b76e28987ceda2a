#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "report/suite.hpp"
#include "report/text.hpp"

namespace bench::report {

/// How two runs of the suite differ. Where a case has a peer, what counts is each subject's ratio to the
/// best of the peers that both runs have, as a machine that got slower did so for both. Else the figures
/// themselves are compared, unless the line transfers say that the machine was in another state.
struct Change {
  std::string what;  ///< program, case and subject
  std::string how;   ///< which figure
  double before = 0;
  double after = 0;
  bool decides = true;  ///< else it is told, no more: the far end of a distribution moves by itself

  [[nodiscard]] double factor() const { return after / before; }
};

struct Comparison {
  std::vector<Change> changes;       ///< of all that could be compared
  std::vector<std::string> refused;  ///< what has no peer, while the machine's state is another
  std::vector<std::string> gone;     ///< what the older run has and the newer one has not
  std::vector<std::string> notes;
  double transfer_before = 0;  ///< 0: not measured
  double transfer_after = 0;

  [[nodiscard]] std::vector<Change> slower(double threshold) const {
    return those([=](const Change& change) { return change.factor() > threshold; });
  }
  [[nodiscard]] std::vector<Change> faster(double threshold) const {
    return those([=](const Change& change) { return change.factor() < 1 / threshold; });
  }
  [[nodiscard]] bool is_slower(double threshold) const {
    const auto all = slower(threshold);
    return std::any_of(all.begin(), all.end(), [](const Change& change) { return change.decides; });
  }

 private:
  template <class Is>
  [[nodiscard]] std::vector<Change> those(Is is) const {
    std::vector<Change> result;
    std::copy_if(changes.begin(), changes.end(), std::back_inserter(result), is);
    std::sort(result.begin(), result.end(),
              [](const Change& a, const Change& b) { return a.factor() > b.factor(); });
    return result;
  }
};

namespace detail {

/// The figures of one subject in both runs, or of a quantile of it.
inline void compare_figures(Comparison& result, const Case& before, const Case& after,
                            const std::string& subject, const char* quantile,
                            bool states_are_same) {
  const auto figure_of = [&](const Row& row) {
    return quantile == nullptr ? row.median : row.quantile(quantile);
  };
  const auto positive = [&](const Case& in, const std::string& name) -> std::optional<double> {
    const auto* row = in.row(name);
    const auto value = row == nullptr ? std::nullopt : figure_of(*row);
    return value && *value > 0 ? value : std::nullopt;
  };
  const auto old_figure = positive(before, subject);
  const auto new_figure = positive(after, subject);
  if (!old_figure || !new_figure) {
    return;
  }
  const auto what = after.program + ": " + after.title + ": " + subject;
  const auto name = std::string(quantile == nullptr ? "median" : quantile);
  const bool decides = quantile == nullptr || name == "p50";
  // What the state of the machine does not change is compared as it is.
  const bool is_time = after.unit.starts_with("ns");
  std::optional<std::pair<std::string, double>> old_best;
  std::optional<std::pair<std::string, double>> new_best;
  for (const auto& row : after.rows) {
    if (row.role == "subject" || row.role == "floor" || !is_time) {
      continue;
    }
    const auto then = positive(before, row.name);
    const auto now = positive(after, row.name);
    if (then && now) {
      old_best = !old_best || *then < old_best->second ? std::pair(row.name, *then) : *old_best;
      new_best = !new_best || *now < new_best->second ? std::pair(row.name, *now) : *new_best;
    }
  }
  if (old_best) {
    auto how = name + ", ratio to " + new_best->first;
    if (old_best->first != new_best->first) {
      how += " (before: " + old_best->first + ")";
    }
    result.changes.push_back({what, std::move(how), *old_figure / old_best->second,
                              *new_figure / new_best->second, decides});
  } else if (!is_time || states_are_same) {
    result.changes.push_back({what, name + ", " + after.unit, *old_figure, *new_figure, decides});
  } else if (decides) {
    result.refused.push_back(what);
  }
}

}  // namespace detail

inline Comparison compare(const Suite& before, const Suite& after) {
  Comparison result;
  result.transfer_before = median_of(before.transfers());
  result.transfer_after = median_of(after.transfers());
  const bool all_same = same_state(result.transfer_before, result.transfer_after);
  for (const auto* name : {"cpu", "cores", "compiler", "quick"}) {
    if (before.text(name) != after.text(name)) {
      result.notes.push_back(std::string(name) + " was \"" + before.text(name) + "\" and is \"" +
                             after.text(name) + "\"");
    }
  }
  std::map<std::string, const Case*> known;
  for (const auto& one : after.cases) {
    known[one.key()] = &one;
  }
  for (const auto& one : before.cases) {
    const auto found = known.find(one.key());
    if (found == known.end()) {
      const bool has_program =
          std::any_of(after.cases.begin(), after.cases.end(),
                      [&](const Case& other) { return other.program == one.program; });
      auto name = has_program ? one.program + ": " + one.title : one.program;
      if (result.gone.empty() || result.gone.back() != name) {
        result.gone.push_back(std::move(name));
      }
      continue;
    }
    const auto& other = *found->second;
    // How idle something is, or how often it wakes up, is no cost that has a threshold.
    const bool is_cost = other.unit.starts_with("ns") || other.unit.starts_with("bytes") ||
                         other.unit.starts_with("instructions");
    if (!is_cost) {
      continue;
    }
    const bool same = all_same && same_state(median_of(one.transfers), median_of(other.transfers));
    for (const auto& row : one.rows) {
      if (row.role != "subject") {
        continue;
      }
      if (other.row(row.name) == nullptr) {
        result.gone.push_back(one.program + ": " + one.title + ": " + row.name);
      } else if (row.quantiles.empty()) {
        detail::compare_figures(result, one, other, row.name, nullptr, same);
      } else {
        for (const auto* quantile : {"p50", "p99"}) {
          detail::compare_figures(result, one, other, row.name, quantile, same);
        }
      }
    }
  }
  return result;
}

/// What a person reads.
inline std::string to_text(const Comparison& comparison, double threshold) {
  std::string text;
  const auto line = [&text](const std::string& of) { text += of + "\n"; };
  for (const auto& note : comparison.notes) {
    line("note: " + note);
  }
  if (comparison.transfer_before > 0 && comparison.transfer_after > 0) {
    line("line transfer: " + figure(comparison.transfer_before) + " ns before, " +
         figure(comparison.transfer_after) + " ns now");
  }
  if (!same_state(comparison.transfer_before, comparison.transfer_after)) {
    line("The machine was in another state (line transfers differ by more than " +
         fixed(kSameState, 1) + "x): times without a peer beside them are not compared.");
  }
  const auto list = [&](const char* heading, const std::vector<Change>& changes) {
    if (changes.empty()) {
      return;
    }
    line(std::string("\n") + heading);
    for (const auto& change : changes) {
      line("  " + fixed(change.factor(), 2) + "x  " + change.what + "\n         " + change.how +
           ": " + figure(change.before) + " -> " + figure(change.after) +
           (change.decides ? "" : " (does not decide)"));
    }
  };
  list("Slower:", comparison.slower(threshold));
  list("Faster:", comparison.faster(threshold));
  const auto names = [&](const char* heading, const std::vector<std::string>& all) {
    if (!all.empty()) {
      line(std::string("\n") + heading);
      for (const auto& name : all) {
        line("  " + name);
      }
    }
  };
  names("Not compared, as the machine was in another state and there is no peer:",
        comparison.refused);
  names("Only in the older run:", comparison.gone);
  line("\n" + std::to_string(comparison.changes.size()) + " figures compared, threshold " +
       fixed(threshold, 2) + ": " + std::to_string(comparison.slower(threshold).size()) +
       " slower, " + std::to_string(comparison.faster(threshold).size()) + " faster");
  return text;
}

}  // namespace bench::report
