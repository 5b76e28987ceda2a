// The result side of the suite: brings the programs' files together, draws the report, writes the summary
// and compares two runs. bench/run calls it.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "report/compare.hpp"
#include "report/page.hpp"
#include "report/suite.hpp"
#include "report/table.hpp"

namespace {

using bench::report::BadInput;
using bench::report::Json;

constexpr int kSlower = 1;
constexpr int kBadInput = 2;

constexpr const char* kUsage = R"(Usage:
  bench_report RESULTS.json REPORT.html
      draws the report: one file, no scripts
  bench_report --summary RESULTS.json
      prints the summary in Markdown
  bench_report --combine RESULTS.json [--set NAME=TEXT]... FILE...
      writes what the programs wrote with --json into one file; NAME: date, commit, cpu ...
  bench_report --compare OLD.json NEW.json [--threshold 1.10]
      prints what got slower or faster. Exit status 1 if something got slower by more than the threshold

The exit status is 2 if an argument or a file is not as it should be.
)";

void write(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) {
    throw BadInput(path + ": cannot be written");
  }
}

int combine(const std::vector<std::string>& arguments) {
  Json about = Json::object();
  std::vector<std::string> files;
  for (std::size_t i = 2; i < arguments.size(); ++i) {
    if (arguments[i] != "--set") {
      files.push_back(arguments[i]);
      continue;
    }
    const auto setting = ++i < arguments.size() ? arguments[i] : std::string();
    const auto equals = setting.find('=');
    if (equals == std::string::npos) {
      throw BadInput("--set needs NAME=TEXT");
    }
    about[setting.substr(0, equals)] = setting.substr(equals + 1);
  }
  write(arguments[1], bench::report::combine(std::move(about), files)
                              .dump(1, ' ', false, Json::error_handler_t::replace) +
                          "\n");
  return EXIT_SUCCESS;
}

int compare(const std::vector<std::string>& arguments) {
  double threshold = 1.10;
  std::vector<std::string> files;
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i] != "--threshold") {
      files.push_back(arguments[i]);
      continue;
    }
    const auto text = ++i < arguments.size() ? arguments[i] : std::string();
    char* end = nullptr;
    threshold = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !(threshold >= 1)) {
      throw BadInput("--threshold needs a number from 1 up, such as 1.10");
    }
  }
  if (files.size() != 2) {
    throw BadInput("--compare needs two files");
  }
  const auto result = bench::report::compare(bench::report::read_suite(files[0]),
                                             bench::report::read_suite(files[1]));
  std::fputs(to_text(result, threshold).c_str(), stdout);
  if (result.changes.empty()) {
    throw BadInput("the two runs have nothing in common that can be compared");
  }
  return result.is_slower(threshold) ? kSlower : EXIT_SUCCESS;
}

int run(const std::vector<std::string>& arguments) {
  const std::string first = arguments.empty() ? "" : arguments[0];
  if (first == "--help" || first == "-h") {
    std::fputs(kUsage, stdout);
    return EXIT_SUCCESS;
  }
  if (first == "--combine" && arguments.size() > 1) {
    return combine(arguments);
  }
  if (first == "--compare") {
    return compare(arguments);
  }
  if (first == "--summary" && arguments.size() == 2) {
    std::fputs(summary_in_markdown(bench::report::read_suite(arguments[1])).c_str(), stdout);
    return EXIT_SUCCESS;
  }
  if (arguments.size() == 2 && !first.starts_with("-")) {
    write(arguments[1], page_of(bench::report::read_suite(arguments[0])));
    return EXIT_SUCCESS;
  }
  std::fputs(kUsage, stderr);
  return kBadInput;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_report: %s\n", error.what());
    return kBadInput;
  }
}
