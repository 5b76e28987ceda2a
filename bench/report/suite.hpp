#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What bench/run has brought together in one file: who measured what, where and when. Programs write
/// their cases as support/results.hpp says; what Google Benchmark writes becomes a case, too.
namespace bench::report {

using Json = nlohmann::ordered_json;

/// A file that is not there or not what it should be.
struct BadInput : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[(values.size() - 1) / 2];
}

/// Two line transfers that are further apart are of two states of the machine.
inline constexpr double kSameState = 1.5;

inline bool same_state(double a, double b) {
  return a <= 0 || b <= 0 || std::max(a, b) <= kSameState * std::min(a, b);
}

struct Row {
  std::string name;
  std::string role = "subject";
  std::optional<double> median = {}, min = {}, max = {};       ///< of the rounds
  std::vector<std::pair<std::string, double>> quantiles = {};  ///< "p50" ... "max", of latencies

  [[nodiscard]] std::optional<double> quantile(std::string_view name_of_it) const {
    for (const auto& [its_name, value] : quantiles) {
      if (its_name == name_of_it) {
        return value;
      }
    }
    return std::nullopt;
  }
  /// What stands for the row where one figure must do.
  [[nodiscard]] std::optional<double> figure() const {
    return quantiles.empty() ? median : quantile("p50");
  }
};

/// What was measured in the same rounds.
struct Case {
  std::string program;
  std::string title;
  std::string unit;
  Json parameters = Json::object();
  std::vector<Row> rows;
  std::vector<double> transfers;

  /// The same in each run of the suite, however long.
  [[nodiscard]] std::string key() const {
    return program + "\n" + title + "\n" + parameters.dump();
  }
  [[nodiscard]] bool has_quantiles() const {
    return std::any_of(rows.begin(), rows.end(),
                       [](const Row& row) { return !row.quantiles.empty(); });
  }
  [[nodiscard]] const Row* row(std::string_view name) const {
    const auto found =
        std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.name == name; });
    return found == rows.end() ? nullptr : &*found;
  }
  /// The row with the smallest figure of those for which `is_meant` holds; nullptr if there are none.
  template <class IsMeant>
  [[nodiscard]] const Row* best(IsMeant is_meant) const {
    const Row* result = nullptr;
    for (const auto& row : rows) {
      const auto figure = row.figure();
      if (figure && *figure > 0 && is_meant(row) &&
          (result == nullptr || *figure < *result->figure())) {
        result = &row;
      }
    }
    return result;
  }
  [[nodiscard]] const Row* best_peer() const {
    return best([](const Row& row) { return row.role == "peer" || row.role == "baseline"; });
  }
  [[nodiscard]] const Row* best_paced_peer() const {
    return best([](const Row& row) { return row.role == "paced_peer"; });
  }
};

struct Suite {
  Json about = Json::object();  ///< date, machine, commit ...: names and texts
  std::vector<Case> cases;

  [[nodiscard]] std::string text(const std::string& name) const {
    const auto found = about.find(name);
    return found == about.end() ? ""
           : found->is_string() ? found->get<std::string>()
                                : found->dump();
  }
  [[nodiscard]] std::vector<double> transfers() const {
    std::vector<double> result;
    for (const auto& one : cases) {
      result.insert(result.end(), one.transfers.begin(), one.transfers.end());
    }
    return result;
  }
};

namespace detail {

inline std::optional<double> number(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_number() ? std::optional(found->get<double>())
                                                     : std::nullopt;
}

inline std::vector<double> numbers(const Json& object, const char* name) {
  std::vector<double> result;
  for (const auto& value : object.value(name, Json::array())) {
    if (value.is_number()) {
      result.push_back(value.get<double>());
    }
  }
  return result;
}

inline Case case_from(const std::string& program, const Json& json) {
  Case result{.program = program,
              .title = json.at("title").get<std::string>(),
              .unit = json.value("unit", ""),
              .parameters = json.value("parameters", Json::object()),
              .rows = {},
              .transfers = numbers(json, "transfers_ns")};
  for (const auto& subject : json.at("subjects")) {
    Row row{.name = subject.at("name").get<std::string>(),
            .role = subject.value("role", "subject"),
            .median = number(subject, "median"),
            .min = number(subject, "min"),
            .max = number(subject, "max"),
            .quantiles = {}};
    for (const char* quantile : {"p50", "p90", "p99", "p999", "max"}) {
      const auto value = number(subject, quantile);
      if (value && !row.median) {
        row.quantiles.emplace_back(quantile, *value);
      }
    }
    result.rows.push_back(std::move(row));
  }
  return result;
}

/// Google Benchmark's format. Of its own aggregates nothing is used but what they were made of.
inline Case case_from_google(const std::string& program, const Json& json) {
  Case result{.program = program,
              .title = "stages",
              .unit = "ns per operation",
              .parameters = Json::object(),
              .rows = {},
              .transfers = {}};
  // An older run has strings in its context only.
  const auto transfer = json.value("context", Json::object()).value("line_transfer_ns", "");
  if (!transfer.empty()) {
    result.transfers.push_back(std::strtod(transfer.c_str(), nullptr));
  }
  std::map<std::string, std::vector<double>> rounds;
  for (const auto& run : json.at("benchmarks")) {
    if (run.value("run_type", "iteration") != "iteration" || run.contains("error_occurred")) {
      continue;
    }
    static const std::map<std::string, double> kUnits{
        {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
    auto time = run.at("real_time").get<double>() * kUnits.at(run.value("time_unit", "ns"));
    if (const auto items = number(run, "items_per_second")) {
      time = 1e9 / *items;
    }
    const auto name = run.value("run_name", run.at("name").get<std::string>());
    if (!rounds.contains(name)) {
      result.rows.push_back({.name = name, .median = {}, .min = {}, .max = {}, .quantiles = {}});
    }
    rounds[name].push_back(time);
  }
  for (auto& row : result.rows) {
    const auto& times = rounds[row.name];
    row.median = median_of(times);
    row.min = *std::min_element(times.begin(), times.end());
    row.max = *std::max_element(times.begin(), times.end());
  }
  return result;
}

}  // namespace detail

/// \throw BadInput  if it is not what bench_report --combine writes
inline Suite suite_from(const Json& json) {
  try {
    if (json.at("format") != 1) {
      throw BadInput("a format that this program does not know");
    }
    Suite result{.about = json.at("about"), .cases = {}};
    for (const auto& program : json.at("programs")) {
      const auto name = program.value("program", "?");
      if (program.contains("google_benchmark")) {
        result.cases.push_back(detail::case_from_google(name, program.at("google_benchmark")));
      }
      for (const auto& one : program.value("cases", Json::array())) {
        result.cases.push_back(detail::case_from(name, one));
      }
    }
    return result;
  } catch (const std::exception& error) {
    throw BadInput(std::string("not the results of bench/run: ") + error.what());
  }
}

/// \throw BadInput
inline Json read_json(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    throw BadInput(path + ": cannot be read");
  }
  try {
    return Json::parse(file);
  } catch (const std::exception& error) {
    throw BadInput(path + ": " + error.what());
  }
}

/// \throw BadInput
inline Suite read_suite(const std::string& path) {
  try {
    return suite_from(read_json(path));
  } catch (const BadInput& error) {
    throw BadInput(std::string(error.what()).starts_with(path) ? error.what()
                                                               : path + ": " + error.what());
  }
}

/// One file of all: what is known about the run, and what each program wrote.
/// \throw BadInput
inline Json combine(Json about, const std::vector<std::string>& paths) {
  auto programs = Json::array();
  for (const auto& path : paths) {
    auto json = read_json(path);
    if (json.contains("benchmarks")) {
      const auto executable = json.value("context", Json::object()).value("executable", path);
      programs.push_back({{"program", executable.substr(executable.find_last_of('/') + 1)},
                          {"google_benchmark", std::move(json)}});
    } else if (json.contains("cases")) {
      programs.push_back(std::move(json));
    } else {
      throw BadInput(path + ": neither cases nor benchmarks are in it");
    }
  }
  return {{"format", 1}, {"about", std::move(about)}, {"programs", std::move(programs)}};
}

}  // namespace bench::report
