// Lines of a file go into an SQLite database, each once: this reads the file twice, and the second time nothing is new.
#include "shard/sqlite.hpp"

#include <stdlib.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <utility>

#include "shard/pipeline.hpp"

constexpr std::uint64_t kSource = 1;  // each file needs a number of its own, the same in every run

shard::SqliteCounts copy(const char* file, const std::string& database) {
  using namespace std::chrono_literals;
  auto adapter = std::make_unique<shard::SqliteAdapter>(shard::SqliteOptions{.database = database});
  const auto& table = *adapter;  // the pipeline owns it from now on
  shard::Pipeline pipeline{{.manager = {.backpressure = shard::Backpressure::block(10s)}},
                           std::move(adapter)};
  std::ifstream lines(file);
  std::uint64_t position = 0;
  for (std::string line; std::getline(lines, line); position += line.size() + 1) {
    pipeline.ingest(line, shard::SourceIdentity{kSource, position});
  }
  const auto report = pipeline.close(1min);
  std::cout << to_string(report);
  return report.complete ? table.counts() : shard::SqliteCounts{};
}

int main(int argc, char** argv) {
  auto folder = (std::filesystem::temp_directory_path() / "shard-XXXXXX").string();
  if (argc != 2 || ::mkdtemp(folder.data()) == nullptr) return EXIT_FAILURE;
  const auto first = copy(argv[1], folder + "/events.db");
  const auto second = copy(argv[1], folder + "/events.db");
  std::filesystem::remove_all(folder);
  std::cout << first.inserted << " rows, then " << second.inserted << " more and "
            << second.duplicates << " that were there\n";
  return first.inserted > 0 && second.inserted == 0 && second.duplicates == first.inserted
             ? EXIT_SUCCESS
             : EXIT_FAILURE;
}
