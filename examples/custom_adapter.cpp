// An adapter of its own class that appends lines to a file: what flush() promises is read back while the pipeline
// still runs, and what close() leaves afterwards.
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include "shard/pipeline.hpp"

class LineFile final : public shard::Adapter {
 public:
  explicit LineFile(const std::filesystem::path& path) : file_(path, std::ios::binary) {}

  shard::Delivery deliver(const shard::Batch& batch, const shard::DeliveryContext&) override {
    for (const shard::Event event : batch) file_ << event.text() << '\n';
    // A part of it may be in the file, so it must not be written again.
    return file_ ? shard::Delivery::delivered() : shard::Delivery::unknown("write failed");
  }
  bool flush(const shard::DeliveryContext&) override { return static_cast<bool>(file_.flush()); }
  void close(const shard::DeliveryContext&) override {
    file_.close();
    if (!file_) throw std::runtime_error("close failed");  // then the report is not complete
  }
  [[nodiscard]] std::string_view name() const noexcept override { return "line_file"; }

 private:
  std::ofstream file_;
};

constexpr std::size_t kKeys = 8;

/// How many lines the file has; 0 if those of a key are not 0, 1, 2, ...
std::size_t lines_in_order(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::array<std::size_t, kKeys> next{};
  std::size_t lines = 0;
  for (std::size_t key = 0, number = 0; file >> key >> number; ++lines) {
    if (number != next.at(key)++) return 0;
  }
  return lines;
}

int main() {
  using namespace std::chrono_literals;
  constexpr std::size_t kEvents = 20'000;
  auto directory = (std::filesystem::temp_directory_path() / "shard-XXXXXX").string();
  if (::mkdtemp(directory.data()) == nullptr) return EXIT_FAILURE;
  const auto path = std::filesystem::path(directory) / "events.txt";

  // One file for both workers, so one call at a time.
  shard::Pipeline pipeline{{.manager = {.backpressure = shard::Backpressure::block(10s)},
                            .workers = 2,
                            .serialise_adapter = true},
                           std::make_unique<LineFile>(path)};
  std::size_t after_flush = 0;
  for (std::size_t i = 0; i < kEvents; ++i) {
    const auto key = std::to_string(i % kKeys);
    pipeline.ingest(key + " " + std::to_string(i / kKeys), shard::Key{key});
    if (i + 1 == kEvents / 2 && pipeline.flush(10s)) after_flush = lines_in_order(path);
  }
  const auto report = pipeline.close(10s);
  const auto after_close = lines_in_order(path);
  std::filesystem::remove_all(directory);

  std::cout << after_flush << " lines after flush(), " << after_close << " after close()\n"
            << to_string(report);
  const bool kept = after_flush == kEvents / 2 && report.complete && report.ledger.balanced() &&
                    after_close == kEvents;
  std::cout << (kept ? "every line is there, in order\n" : "LINES ARE MISSING\n");
  return kept ? EXIT_SUCCESS : EXIT_FAILURE;
}
