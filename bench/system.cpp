// The whole way, from producers to the adapter's callback, beside queues that do the same job.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <vector>

#include "support/queues.hpp"
#include "support/results.hpp"
#include "system/sections.hpp"

namespace {

using Section = std::pair<std::string_view, void (*)(const bench::system::Settings&)>;
constexpr std::array kSections{
    Section{"throughput", bench::system::throughput}, Section{"latency", bench::system::latency},
    Section{"overflow", bench::system::overflow}, Section{"scale", bench::system::scale}};

[[noreturn]] void usage() {
  std::fprintf(stderr,
               "bench_system [--quick] [--json FILE] [throughput] [latency] [overflow] [scale]\n");
  std::exit(EXIT_FAILURE);
}

}  // namespace

int main(int argc, char** argv) {
  auto results = bench::Results::from_arguments(argc, argv);
  bench::system::Settings settings;
  settings.results = &results;
  std::vector<Section> chosen;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--quick") {
      settings.quick = true;
      continue;
    }
    const auto known = chosen.size();
    for (const auto& section : kSections) {
      if (section.first == argument) {
        chosen.push_back(section);
      }
    }
    if (chosen.size() == known) {
      usage();
    }
  }
  if (chosen.empty()) {
    chosen.assign(kSections.begin(), kSections.end());
  }
  for (const auto& [built_in, package] : {std::pair{BENCH_HAS_MOODYCAMEL, "libconcurrentqueue-dev"},
                                          std::pair{BENCH_HAS_ATOMIC_QUEUE, "libatomic-queue-dev"},
                                          std::pair{BENCH_HAS_TBB, "libtbb-dev"}}) {
    if (built_in == 0) {
      std::printf("left out, because it was not there when this was built: %s\n", package);
    }
  }
  for (const auto& [name, run] : chosen) {
    run(settings);
  }
}
