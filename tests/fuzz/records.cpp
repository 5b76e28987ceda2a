// Whatever bytes a file holds: its records are those that the contract of RecordReader says, whatever the limit and
// wherever the file is cut into parts.
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "fuzz/require.hpp"
#include "record_reader.hpp"

namespace {

using ingest::Record;
using ingest::RecordReader;

struct Kept {
  std::string text;
  std::uint64_t offset;
  std::uint64_t size;
  bool operator==(const Kept&) const = default;
};

void read_all(RecordReader& reader, int file, std::vector<Kept>& all) {
  std::vector<Record> records;
  const auto keep = [&] {
    for (const auto& record : records) {
      all.push_back({std::string(record.text), record.offset, record.size});
    }
  };
  while (reader.read(file, records) == RecordReader::Status::more) keep();
  reader.finish(records);
  keep();
}

/// From the contract, a line at a time.
std::vector<Kept> expected(const std::string& text, std::size_t max_size) {
  std::vector<Kept> all;
  for (std::size_t start = 0; start < text.size();) {
    const auto end = text.find('\n', start);
    const auto next = end == std::string::npos ? text.size() : end + 1;
    auto line = text.substr(start, (end == std::string::npos ? text.size() : end) - start);
    if (end != std::string::npos && line.ends_with('\r')) line.pop_back();
    const auto size = line.size();
    if (size > max_size) line.resize(std::min<std::size_t>(size, 1'024));
    if (size != 0) all.push_back({line, start, size});
    start = next;
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  const auto max_size = input.ConsumeIntegralInRange<std::size_t>(1, 64);
  const auto cut = input.ConsumeIntegralInRange<std::uint64_t>(0, 512);
  // Repeated, so that it goes beyond a block of the reader now and then.
  const auto times = input.ConsumeBool() ? 1U : input.ConsumeIntegralInRange<unsigned>(1, 3'000);
  const auto piece = input.ConsumeRemainingBytesAsString();
  std::string text;
  for (unsigned i = 0; i < times && text.size() < 3 * RecordReader::kBlock; ++i) text += piece;

  static const int file = ::memfd_create("records", MFD_CLOEXEC);
  REQUIRE_THAT(::ftruncate(file, 0) == 0);
  REQUIRE_THAT(::pwrite(file, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));

  const auto records = expected(text, max_size);
  std::vector<Kept> whole;
  REQUIRE_THAT(::lseek(file, 0, SEEK_SET) == 0);
  RecordReader reader(max_size);
  read_all(reader, file, whole);
  REQUIRE_THAT(whole == records);
  REQUIRE_THAT(reader.position() == text.size());

  std::vector<Kept> parts;
  for (const auto& [begin, end] :
       {std::pair{std::uint64_t{0}, cut}, std::pair{cut, RecordReader::kToTheEnd}}) {
    RecordReader part(max_size, begin, end);
    const auto start = static_cast<off_t>(RecordReader::start_of_part(begin));
    REQUIRE_THAT(::lseek(file, start, SEEK_SET) == start);
    read_all(part, file, parts);
  }
  REQUIRE_THAT(parts == records);
  return 0;
}
