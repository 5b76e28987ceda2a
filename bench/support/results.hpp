#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/rounds.hpp"

/// What a program of the suite measured, as JSON, for bench_report. Each program prints its tables as
/// before; with `--json FILE` among its arguments it also writes
///
///     {"program": "bench_x", "cases": [CASE...]}
///
/// A case is what was measured in the same rounds, subject and peers together:
///
///     {"title": "1 producer, single events", "unit": "ns per event",
///      "parameters": {"producers": 1, "shards": 4, "payload": 64, "batch": 1, ...},
///      "subjects": [{"name": "shard", "role": "subject", "median": 1, "min": 1, "max": 1, "rounds": [1]}],
///      "ratios": [{"role": "peer", "to": "the fastest of that role", "values": [one per subject]}],
///      "transfers_ns": [one per round]}
///
/// Program, title and parameters together name a case: they are the same in a short run and in a long
/// one, so numbers of rounds and of events are no parameters.
///
/// A case of latencies has quantiles instead of medians, in nanoseconds: each subject has "p50", "p99",
/// "p999", "max" and, where there are several loads, "load", the part of the capacity from 0 to 1.
namespace bench {

/// What a row is: this library; what does the same job, with a consumer that polls or one that rests in
/// between; what does one part of the job and no more; or what the ratios of a table are to.
enum class Role { subject, peer, paced_peer, floor, baseline };

inline const char* to_string(Role role) {
  switch (role) {
    case Role::subject:
      return "subject";
    case Role::peer:
      return "peer";
    case Role::paced_peer:
      return "paced_peer";
    case Role::floor:
      return "floor";
    case Role::baseline:
      return "baseline";
  }
  return "?";
}

/// Whoever runs `bench_x --json FILE` gets the file, or an exit status that says that there is none: it is
/// written when main() ends, so a program that gives up by exit() leaves it empty.
struct Results {
  /// Takes `--json FILE` out of the arguments, wherever it stands; the others keep their order.
  static Results from_arguments(int& argc, char** argv) { return Results{argc, argv}; }

  Results(const Results&) = delete;
  Results& operator=(const Results&) = delete;
  ~Results() { write(); }

  void add(nlohmann::ordered_json result_case) { json_["cases"].push_back(std::move(result_case)); }

  /// Whether a file was asked for.
  [[nodiscard]] bool wanted() const { return !path_.empty(); }
  [[nodiscard]] const std::string& path() const { return path_; }

  /// Writes all that was added; later calls do nothing.
  void write() {
    if (!file_.is_open()) {
      return;
    }
    using nlohmann::ordered_json;
    file_ << json_.dump(1, ' ', false, ordered_json::error_handler_t::replace) << '\n';
    file_.close();
    if (file_.fail()) {
      std::fprintf(stderr, "%s: cannot be written\n", path_.c_str());
      std::_Exit(EXIT_FAILURE);
    }
  }

 private:
  Results(int& argc, char** argv) {
    json_["program"] = std::filesystem::path(argv[0]).filename().string();
    json_["cases"] = nlohmann::ordered_json::array();
    int kept = 1;
    for (int i = 1; i < argc; ++i) {
      if (std::string_view(argv[i]) == "--json" && i + 1 < argc) {
        path_ = argv[++i];
      } else {
        argv[kept++] = argv[i];
      }
    }
    argc = kept;
    argv[argc] = nullptr;
    if (wanted()) {
      file_.open(path_);  // now, as nobody likes to hear of it after an hour
      if (!file_) {
        std::fprintf(stderr, "%s: cannot be written\n", path_.c_str());
        std::exit(EXIT_FAILURE);
      }
    }
  }

  std::string path_;
  std::ofstream file_;
  nlohmann::ordered_json json_;
};

inline nlohmann::ordered_json to_json(const Subject& subject) {
  return {{"name", subject.name},
          {"median", subject.median()},
          {"min", subject.quantile(0)},
          {"max", subject.quantile(1)},
          {"rounds", subject.rounds}};
}

/// A case whose subjects have been measured; the ratios are to the fastest of each role that is there to
/// be compared with.
/// \param roles       one for each subject
/// \param parameters  an object: producers, shards, payload, batch, mode ... where they apply
inline nlohmann::ordered_json case_of(
    std::string title, const std::vector<Subject>& subjects, const std::vector<Role>& roles,
    const std::vector<Nanoseconds>& transfers,
    nlohmann::ordered_json parameters = nlohmann::ordered_json::object(),
    std::string unit = "ns per event") {
  nlohmann::ordered_json result{{"title", std::move(title)},
                                {"unit", std::move(unit)},
                                {"parameters", std::move(parameters)},
                                {"subjects", nlohmann::ordered_json::array()},
                                {"ratios", nlohmann::ordered_json::array()},
                                {"transfers_ns", transfers}};
  for (std::size_t i = 0; i < subjects.size(); ++i) {
    auto subject = to_json(subjects[i]);
    subject["role"] = to_string(roles.at(i));
    result["subjects"].push_back(std::move(subject));
  }
  for (const auto role : {Role::baseline, Role::peer, Role::paced_peer}) {
    const Subject* fastest = nullptr;
    for (std::size_t i = 0; i < subjects.size(); ++i) {
      if (roles[i] == role && (fastest == nullptr || subjects[i].median() < fastest->median())) {
        fastest = &subjects[i];
      }
    }
    if (fastest == nullptr) {
      continue;
    }
    std::vector<double> values;
    for (const auto& subject : subjects) {
      values.push_back(subject.median() / fastest->median());
    }
    result["ratios"].push_back(
        {{"role", to_string(role)}, {"to", fastest->name}, {"values", values}});
  }
  return result;
}

/// The latencies of one subject, for latency_case_of(); `samples` are nanoseconds.
inline nlohmann::ordered_json quantiles_to_json(std::string name, Role role,
                                                const std::vector<double>& samples) {
  return {{"name", std::move(name)},
          {"role", to_string(role)},
          {"p50", quantile_of(samples, 0.5)},
          {"p99", quantile_of(samples, 0.99)},
          {"p999", quantile_of(samples, 0.999)},
          {"max", quantile_of(samples, 1)}};
}

/// A case of latencies.
/// \param subjects  an array: each as quantiles_to_json() makes it, with "load" where there are several
inline nlohmann::ordered_json latency_case_of(
    std::string title, nlohmann::ordered_json subjects, const std::vector<Nanoseconds>& transfers,
    nlohmann::ordered_json parameters = nlohmann::ordered_json::object()) {
  return {{"title", std::move(title)},
          {"unit", "ns"},
          {"parameters", std::move(parameters)},
          {"subjects", std::move(subjects)},
          {"transfers_ns", transfers}};
}

/// run_rounds() that also records: what is named shard... is the subject, all else its peer.
inline void run_rounds(Results& results, std::string title, std::vector<Subject>& subjects,
                       int rounds, const std::string& baseline, nlohmann::ordered_json parameters) {
  const auto transfers = run_rounds(subjects, rounds, baseline);
  std::vector<Role> roles;
  for (const auto& subject : subjects) {
    roles.push_back(subject.name == baseline            ? Role::baseline
                    : subject.name.starts_with("shard") ? Role::subject
                                                        : Role::peer);
  }
  results.add(case_of(std::move(title), subjects, roles, transfers, std::move(parameters)));
}

}  // namespace bench
