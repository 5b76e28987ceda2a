#pragma once

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "support/rounds.hpp"

namespace bench {

/// main() of a program whose benchmarks are Google Benchmark's: `--json FILE` makes it write that library's
/// own format; a line transfer from before the run stands in its context.
/// All other arguments are the library's.
inline int run_google_benchmark(int argc, char** argv) {
  std::string file;
  std::vector<char*> arguments;
  for (int i = 0; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--json" && i + 1 < argc) {
      file = std::string("--benchmark_out=") + argv[++i];
    } else {
      arguments.push_back(argv[i]);
    }
  }
  std::string format = "--benchmark_out_format=json";
  if (!file.empty()) {
    arguments.push_back(file.data());
    arguments.push_back(format.data());
    benchmark::AddCustomContext("line_transfer_ns", std::to_string(line_transfer()));
  }
  int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) {
    return EXIT_FAILURE;
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return EXIT_SUCCESS;
}

}  // namespace bench
