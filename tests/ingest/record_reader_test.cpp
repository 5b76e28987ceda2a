#include "record_reader.hpp"

#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "support.hpp"

namespace {

using namespace std::string_literals;
using ingest::Record;
using ingest::RecordReader;
using shard_test::file_of;
using shard_test::Pipe;
using shard_test::write_all;

constexpr std::size_t kShown = 1'024;  // what is kept of a line that is too long

/// A record that outlives the reader's memory.
struct Kept {
  std::string text;
  std::uint64_t offset;
  std::uint64_t line;
  std::uint64_t size;
  bool too_long;

  bool operator==(const Kept&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Kept& record) {
  return out << "line " << record.line << " at " << record.offset << ", " << record.size
             << (record.too_long ? " bytes, too long: " : " bytes: ") << record.text.substr(0, 40);
}

void keep(const std::vector<Record>& records, std::vector<Kept>& into) {
  for (const auto& record : records) {
    into.push_back(
        {std::string(record.text), record.offset, record.line, record.size, record.too_long});
  }
}

/// Where two lists differ first, in words. All of them would be too much to read.
std::string difference(const std::vector<Kept>& got, const std::vector<Kept>& expected) {
  for (std::size_t i = 0; i < std::max(got.size(), expected.size()); ++i) {
    const auto shown = [i](const std::vector<Kept>& all) {
      std::ostringstream text;
      i < all.size() ? text << all[i] : text << "nothing";
      return text.str();
    };
    if (i >= got.size() || i >= expected.size() || !(got[i] == expected[i])) {
      return "record " + std::to_string(i) + " is " + shown(got) + "; not " + shown(expected);
    }
  }
  return "none";
}

struct Expected {
  std::vector<Kept> records;
  std::uint64_t blank = 0;
};

/// What the contract says of a whole text.
Expected split(const std::string& text, std::size_t max_size) {
  Expected expected;
  std::uint64_t line = 1;
  for (std::size_t start = 0; start < text.size(); ++line) {
    const auto end = text.find('\n', start);
    auto record = text.substr(start, end == std::string::npos ? end : end - start);
    const auto next = start + record.size() + 1;
    if (end != std::string::npos && record.ends_with('\r')) record.pop_back();
    const auto size = record.size();
    if (size > max_size) record.resize(std::min(size, kShown));
    if (size == 0) {
      ++expected.blank;
    } else {
      expected.records.push_back({record, start, line, size, size > max_size});
    }
    start = next;
  }
  return expected;
}

/// Everything that a reader finds in a descriptor that has an end.
std::vector<Kept> read_all(RecordReader& reader, int descriptor) {
  std::vector<Kept> all;
  std::vector<Record> records;
  while (reader.read(descriptor, records) == RecordReader::Status::more) keep(records, all);
  reader.finish(records);
  keep(records, all);
  return all;
}

std::vector<Kept> records_of(const std::string& text, std::size_t max_size = 1'000) {
  RecordReader reader(max_size);
  return read_all(reader, file_of(text).get());
}

/// The same through a pipe, with a read() after each piece.
std::vector<Kept> records_of(const std::vector<std::string>& pieces, std::size_t max_size) {
  Pipe pipe;
  RecordReader reader(max_size);
  std::vector<Kept> all;
  std::vector<Record> records;
  std::uint64_t wrote = 0;
  for (const auto& piece : pieces) {
    write_all(pipe.in.get(), piece);
    for (wrote += piece.size(); reader.position() != wrote;) {
      REQUIRE(reader.read(pipe.out.get(), records) == RecordReader::Status::more);
      keep(records, all);
    }
  }
  reader.finish(records);
  keep(records, all);
  return all;
}

std::vector<std::string> texts_of(const std::vector<Kept>& records) {
  std::vector<std::string> texts;
  for (const auto& record : records) texts.push_back(record.text);
  return texts;
}

/// Bytes of every kind but LF, with CR and NUL more often than chance would have it.
std::string random_line(std::mt19937_64& random, std::size_t size) {
  std::string line(size, 'x');
  for (auto& byte : line) {
    const auto roll = random() % 16;
    byte = roll == 0 ? '\r' : roll == 1 ? '\0' : static_cast<char>(random());
    if (byte == '\n') byte = 'n';
  }
  return line;
}

/// Lines around every size that a reader could stumble over.
std::string random_text(std::mt19937_64& random, std::size_t max_size, std::size_t target) {
  const auto sizes = std::to_array<std::size_t>(
      {0, 0, 1, 2, 7, max_size - 1, max_size, max_size + 1, max_size + 2, 2 * max_size, kShown,
       kShown + 1, RecordReader::kBlock - 1, RecordReader::kBlock, RecordReader::kBlock + 1,
       3 * RecordReader::kBlock});
  std::string text;
  while (text.size() < target) {
    // Large ones seldom, or there would be no others.
    const auto size = random() % 4 == 0 ? sizes[random() % sizes.size()] : random() % 200;
    text += random_line(random, size) + (random() % 4 == 0 ? "\r\n" : "\n");
  }
  if (random() % 2 == 0) text += random_line(random, random() % 300);
  return text;
}

}  // namespace

TEST_CASE("a line is a record, with where it stands", "[ingest]") {
  CHECK(records_of("one\ntwo\n"s) ==
        std::vector<Kept>{{"one", 0, 1, 3, false}, {"two", 4, 2, 3, false}});
}

TEST_CASE("a last line without an end is a record", "[ingest]") {
  CHECK(records_of("one\ntwo"s) ==
        std::vector<Kept>{{"one", 0, 1, 3, false}, {"two", 4, 2, 3, false}});
  CHECK(records_of("one"s) == std::vector<Kept>{{"one", 0, 1, 3, false}});
  CHECK(records_of(""s).empty());
}

TEST_CASE("CR LF ends a line, every other CR belongs to the record", "[ingest]") {
  CHECK(texts_of(records_of("a\r\nb\rc\n\rd\r\r\n\r\re"s)) ==
        std::vector<std::string>{"a", "b\rc", "\rd\r", "\r\re"});
  CHECK(records_of("a\r\nb\n"s)[1].offset == 3);
  // Without LF behind it a CR is no end.
  CHECK(records_of("a\r"s) == std::vector<Kept>{{"a\r", 0, 1, 2, false}});
}

TEST_CASE("lines without any byte are counted, and count as lines", "[ingest]") {
  RecordReader reader(10);
  const auto records = read_all(reader, file_of("\n\r\na\n\n b\n \n\r\n").get());
  CHECK(records ==
        std::vector<Kept>{{"a", 3, 3, 1, false}, {" b", 6, 5, 2, false}, {" ", 9, 6, 1, false}});
  CHECK(reader.blank() == 4);
}

TEST_CASE("NUL and bytes that are no UTF-8 are bytes as any other", "[ingest][R-A12]") {
  const auto line = "\0a\0\xff\xfe\x80\0"s;
  const auto records = records_of(line + "\n\0\n"s);
  REQUIRE(records.size() == 2);
  CHECK(records[0].text == line);
  CHECK(records[1] == Kept{"\0"s, 8, 2, 1, false});
}

TEST_CASE("a record may be as long as the limit, and no longer", "[ingest]") {
  constexpr std::size_t kMax = 2'000;
  const std::string full(kMax, 'x');
  const auto beginning = full.substr(0, kShown);
  for (const auto* end : {"\n", "\r\n", ""}) {
    CAPTURE(end);
    CHECK(records_of(full + end, kMax) == std::vector<Kept>{{full, 0, 1, kMax, false}});
    CHECK(records_of(full + "x" + end, kMax) ==
          std::vector<Kept>{{beginning, 0, 1, kMax + 1, true}});
  }
  // Here the CR is the byte too many: it is not part of an end.
  CHECK(records_of(full + "\r", kMax) == std::vector<Kept>{{beginning, 0, 1, kMax + 1, true}});
  CHECK(records_of(full + "\rx\n", kMax) == std::vector<Kept>{{beginning, 0, 1, kMax + 2, true}});
}

TEST_CASE("what follows a line far above the limit stands where it did", "[ingest]") {
  const std::string huge(5'000'000, 'x');
  for (const std::size_t max_size : {1U, 10U, 1'000U, 1'024U, 2'000U, 500'000U}) {
    CAPTURE(max_size);
    const auto records = records_of("a\n" + huge + "\nb\n" + huge, max_size);
    CHECK(records ==
          std::vector<Kept>{{"a", 0, 1, 1, false},
                            {huge.substr(0, kShown), 2, 2, huge.size(), true},
                            {"b", huge.size() + 3, 3, 1, false},
                            {huge.substr(0, kShown), huge.size() + 5, 4, huge.size(), true}});
  }
}

TEST_CASE("what is shown of a line that is too long is its beginning, whatever was read at once",
          "[ingest]") {
  std::mt19937_64 random(1);
  const auto line = random_line(random, 3'000);
  for (const std::size_t max_size : {1U, 10U, 1'500U}) {
    for (const std::size_t first : {2U, 12U, 500U, 1'024U, 1'025U, 1'600U, 2'999U}) {
      CAPTURE(max_size, first);
      const std::vector<std::string> pieces{line.substr(0, first), line.substr(first), "\nb\n"};
      CHECK(difference(records_of(pieces, max_size), split(line + "\nb\n", max_size).records) ==
            "none");
    }
  }
}

TEST_CASE("the size of a line that is too long does not hang on where a read ended", "[ingest]") {
  constexpr std::size_t kMax = 1'100;
  // A CR where the shown part ends is no line end, and one that was dropped is.
  const auto cr_inside = std::string(kShown - 1, 'x') + "\r" + std::string(500, 'y');
  const auto cr_last = std::string(1'500, 'x') + "\r";
  for (const auto& line : {cr_inside, cr_last}) {
    CHECK(difference(records_of(std::vector<std::string>{line, "\n", "b\n"}, kMax),
                     split(line + "\nb\n", kMax).records) == "none");
  }
}

TEST_CASE("records do not depend on the pieces in which the bytes come", "[ingest]") {
  const auto seed = GENERATE(take(12, random(0U, 4'000'000'000U)));
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto limits = std::to_array<std::size_t>({2, 10, kShown - 1, kShown, kShown + 1, 5'000,
                                                  RecordReader::kBlock - 2, RecordReader::kBlock,
                                                  RecordReader::kBlock + 1, 300'000});
  const auto max_size = limits[random() % limits.size()];
  const auto text = random_text(random, max_size, 1'500'000);
  std::vector<std::string> pieces;
  for (std::size_t at = 0; at < text.size(); at += pieces.back().size()) {
    const auto size = random() % 3 == 0 ? 1 + random() % Pipe::kRoom : 1 + random() % 2'000;
    pieces.push_back(text.substr(at, size));
  }
  CAPTURE(max_size, text.size(), pieces.size());
  const auto expected = split(text, max_size);
  CHECK(difference(records_of(pieces, max_size), expected.records) == "none");

  RecordReader reader(max_size);
  CHECK(difference(read_all(reader, file_of(text).get()), expected.records) == "none");
  CHECK(reader.blank() == expected.blank);
  CHECK(reader.position() == text.size());
}

TEST_CASE("records do not depend on the pieces, byte by byte", "[ingest]") {
  const auto text = "a\r\n\n\rb\0\n\r\r\n123\n1234\n12345\r\n\n1234\r\n123456\nlast"s;
  std::vector<std::string> pieces;
  for (const auto byte : text) pieces.emplace_back(1, byte);
  CHECK(records_of(pieces, 4) == split(text, 4).records);
}

TEST_CASE("after the end there may be more, if the input grows", "[ingest]") {
  const auto file = file_of("one\ntw");
  RecordReader reader(100);
  std::vector<Record> records;
  std::vector<Kept> all;
  const auto read = [&] {
    const auto status = reader.read(file.get(), records);
    keep(records, all);
    return status;
  };
  CHECK(read() == RecordReader::Status::more);
  CHECK(read() == RecordReader::Status::end);
  CHECK(reader.position() == 6);
  REQUIRE(::pwrite(file.get(), "o\nthree\n", 8, 6) == 8);
  CHECK(read() == RecordReader::Status::more);
  CHECK(read() == RecordReader::Status::end);
  CHECK(all == split("one\ntwo\nthree\n", 100).records);
}

TEST_CASE("a descriptor that cannot be read is an error, and errno says why", "[ingest]") {
  RecordReader reader(100);
  std::vector<Record> records;
  CHECK(reader.read(-1, records) == RecordReader::Status::error);
  CHECK(errno == EBADF);
}

namespace {

/// What the parts between the cuts give, one after the other.
std::vector<Kept> records_of_parts(int file, const std::vector<std::uint64_t>& cuts,
                                   std::size_t max_size) {
  std::vector<Kept> all;
  std::uint64_t begin = 0;
  for (std::size_t i = 0; i <= cuts.size(); ++i) {
    const auto end = i == cuts.size() ? RecordReader::kToTheEnd : cuts[i];
    ::lseek(file, static_cast<off_t>(RecordReader::start_of_part(begin)), SEEK_SET);
    RecordReader reader(max_size, begin, end);
    for (auto& record : read_all(reader, file)) {
      CHECK(record.offset >= begin);
      CHECK(record.offset < end);
      CHECK((record.line == 0) == (begin != 0));
      record.line = 0;  // only the first part knows it
      all.push_back(std::move(record));
    }
    begin = end;
  }
  return all;
}

std::vector<Kept> without_lines(std::vector<Kept> records) {
  for (auto& record : records) record.line = 0;
  return records;
}

}  // namespace

TEST_CASE("every record is in exactly one part, wherever a small file is cut", "[ingest]") {
  for (const auto& text : {"one\ntwo\r\n\n\nthree\n\r\nfour"s, "\n\na\n"s, "one line only"s, "a\n"s,
                           "\n"s, "much too long\nb\nmuch too long as well"s}) {
    CAPTURE(text);
    constexpr std::size_t kMax = 6;
    const auto file = file_of(text);
    const auto expected = without_lines(split(text, kMax).records);
    for (std::uint64_t first = 1; first <= text.size() + 1; ++first) {
      for (std::uint64_t second = first; second <= text.size() + 2; ++second) {
        CAPTURE(first, second);
        REQUIRE(records_of_parts(file.get(), {first, second}, kMax) == expected);
      }
    }
  }
}

TEST_CASE("every record is in exactly one part of a large file", "[ingest]") {
  const auto seed = GENERATE(take(6, random(0U, 4'000'000'000U)));
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  constexpr std::size_t kMax = 200'000;
  const auto text = random_text(random, kMax, 2'000'000);
  std::vector<std::uint64_t> cuts;
  for (int i = 0; i < 8; ++i) {
    cuts.push_back(1 + random() % text.size());
    // Beside a line end, too.
    const auto end = text.find('\n', random() % text.size());
    if (end != std::string::npos) cuts.push_back(end + random() % 3);
  }
  std::erase(cuts, 0);
  std::sort(cuts.begin(), cuts.end());
  CHECK(difference(records_of_parts(file_of(text).get(), cuts, kMax),
                   without_lines(split(text, kMax).records)) == "none");
}

TEST_CASE("blank lines are counted by one part each", "[ingest]") {
  const auto text = "\n\r\na\n\n\nb\n\r\n"s;
  const auto file = file_of(text);
  const auto all = split(text, 10).blank;
  for (std::uint64_t cut = 1; cut <= text.size(); ++cut) {
    CAPTURE(cut);
    std::uint64_t blank = 0;
    for (auto reader : {0, 1}) {
      const auto begin = reader == 0 ? 0 : cut;
      RecordReader part(10, begin, reader == 0 ? cut : RecordReader::kToTheEnd);
      ::lseek(file.get(), static_cast<off_t>(RecordReader::start_of_part(begin)), SEEK_SET);
      read_all(part, file.get());
      blank += part.blank();
    }
    CHECK(blank == all);
  }
}

TEST_CASE("a part leaves the input alone once the next line is not its own", "[ingest]") {
  const auto file = file_of("one\ntwo\nthree\n");
  RecordReader reader(10, 0, 4);
  CHECK(texts_of(read_all(reader, file.get())) == std::vector<std::string>{"one"});
  CHECK(reader.position() == 4);
  std::vector<Record> records;
  CHECK(reader.read(-1, records) == RecordReader::Status::end);  // does not even look
}

TEST_CASE("memory can be given back when a reader has finished", "[ingest]") {
  const auto file = file_of("one\ntwo");
  RecordReader reader(10);
  CHECK(read_all(reader, file.get()).size() == 2);
  reader.release();
  CHECK(reader.position() == 7);
  std::vector<Record> records;
  CHECK(reader.read(file.get(), records) == RecordReader::Status::end);
  CHECK(records.empty());
}
