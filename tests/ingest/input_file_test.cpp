#include "input_file.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support.hpp"

namespace {

using ingest::InputError;
using ingest::InputFile;
using ingest::Record;
using shard_test::append_file;
using shard_test::TemporaryFolder;
using shard_test::write_all;
using shard_test::write_file;

const InputFile::Limits kOnce{.max_record = 1'000, .follow = false};
const InputFile::Limits kFollow{.max_record = 1'000, .follow = true};

/// A record, with the identity of its source.
struct Kept {
  std::string text;
  std::uint64_t offset;
  std::uint64_t line;
  std::uint64_t identity;
};

using Texts = std::vector<std::string>;

Texts texts_of(const std::vector<Kept>& records) {
  Texts texts;
  for (const auto& record : records) texts.push_back(record.text);
  return texts;
}

/// Everything that is there now: to the end, or until there is nothing new in a followed file.
std::vector<Kept> read(InputFile& input) {
  std::vector<Kept> all;
  std::vector<Record> records;
  while (input.read(records) == InputFile::Status::more) {
    for (const auto& record : records) {
      all.push_back({std::string(record.text), record.offset, record.line, input.identity()});
    }
  }
  CHECK(records.empty());
  return all;
}

Texts texts(InputFile& input) { return texts_of(read(input)); }

/// Of the first record; a new run would see it so.
std::uint64_t identity_of(const std::string& path) {
  InputFile input(path, kOnce);
  const auto records = read(input);
  REQUIRE_FALSE(records.empty());
  return records.front().identity;
}

std::string error_of(const std::string& path) {
  try {
    InputFile input(path, kOnce);
    read(input);
  } catch (const InputError& error) {
    return error.what();
  }
  return {};
}

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator open("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(open), end(open)));
}

/// Makes a descriptor the standard input, until the end.
class StandardInput {
 public:
  explicit StandardInput(int descriptor) : before_(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)) {
    REQUIRE(::dup2(descriptor, STDIN_FILENO) == STDIN_FILENO);
  }
  StandardInput(const StandardInput&) = delete;
  StandardInput& operator=(const StandardInput&) = delete;
  ~StandardInput() {
    if (before_.get() >= 0) {
      ::dup2(before_.get(), STDIN_FILENO);
    } else {
      ::close(STDIN_FILENO);
    }
  }

 private:
  ingest::Descriptor before_;
};

}  // namespace

TEST_CASE("a file is read to its end", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\n\ntwo\r\nthree");
  InputFile input(folder / "a", kOnce);
  CHECK(input.path() == folder / "a");
  CHECK(input.size() == 15U);
  CHECK(input.bytes_read() == 0);
  const auto records = read(input);
  CHECK(texts_of(records) == Texts{"one", "two", "three"});
  REQUIRE(records.size() == 3);
  CHECK(records[2].offset == 10);
  CHECK(records[2].line == 4);
  CHECK(records[2].identity == records[0].identity);
  CHECK(input.bytes_read() == 15);
  CHECK(input.blank() == 1);

  std::vector<Record> more;
  CHECK(input.read(more) == InputFile::Status::done);
  CHECK(input.read(more) == InputFile::Status::done);
}

TEST_CASE("an empty file has no records, and one of blank lines neither", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "empty", "");
  InputFile empty(folder / "empty", kOnce);
  CHECK(texts(empty).empty());
  CHECK(empty.size() == 0U);
  write_file(folder / "blank", "\n\r\n\n");
  InputFile blank(folder / "blank", kOnce);
  CHECK(texts(blank).empty());
  CHECK(blank.blank() == 3);
  CHECK(blank.bytes_read() == 4);
}

TEST_CASE("what cannot be read is told with its name and the reason", "[ingest]") {
  const TemporaryFolder folder;
  CHECK(error_of(folder / "none") ==
        (folder / "none") + " cannot be opened: No such file or directory");
  CHECK(error_of(folder / "") == (folder / "") + " cannot be read: Is a directory");
  write_file(folder / "a", "one\n");
  CHECK(error_of(folder / "a/b") == (folder / "a/b") + " cannot be opened: Not a directory");
}

TEST_CASE("a file that is gone before it is read is an error", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\n");
  InputFile input(folder / "a", kOnce);
  std::filesystem::remove(folder / "a");
  std::vector<Record> records;
  CHECK_THROWS_AS(input.read(records), InputError);
}

TEST_CASE("files are open only while they are read", "[ingest]") {
  const TemporaryFolder folder;
  const auto before = open_descriptors();
  std::vector<InputFile> inputs;
  for (int i = 0; i < 20; ++i) {
    const auto path = folder / std::to_string(i);
    write_file(path, "one\n");
    inputs.emplace_back(path, kOnce);
  }
  CHECK(open_descriptors() == before);
  for (auto& input : inputs) CHECK(texts(input) == Texts{"one"});
  CHECK(open_descriptors() == before);
}

TEST_CASE("two names of one file are the same file", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\n");
  write_file(folder / "b", "one\n");
  std::filesystem::create_hard_link(folder / "a", folder / "hard");
  std::filesystem::create_symlink(folder / "a", folder / "soft");
  const InputFile a(folder / "a", kOnce);
  CHECK(a.is_same_file(a));
  CHECK(a.is_same_file(InputFile(folder / "hard", kOnce)));
  CHECK(a.is_same_file(InputFile(folder / "soft", kOnce)));
  CHECK_FALSE(a.is_same_file(InputFile(folder / "b", kOnce)));
}

TEST_CASE("a file keeps its identity when it is read again, renamed or grows", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\ntwo\n");
  const auto identity = identity_of(folder / "a");
  CHECK(identity_of(folder / "a") == identity);
  append_file(folder / "a", "three\n");
  CHECK(identity_of(folder / "a") == identity);
  std::filesystem::rename(folder / "a", folder / "b");
  CHECK(identity_of(folder / "b") == identity);
  std::filesystem::create_hard_link(folder / "b", folder / "c");
  CHECK(identity_of(folder / "c") == identity);
}

TEST_CASE("a file whose first line is long, or is all there is, keeps its identity, too",
          "[ingest]") {
  const TemporaryFolder folder;
  for (const std::size_t size : {1U, 4'095U, 4'096U, 4'097U, 100'000U}) {
    CAPTURE(size);
    const auto path = folder / std::to_string(size);
    write_file(path, std::string(size, 'x'));
    const auto identity = identity_of(path);
    append_file(path, "\nmore\n");
    CHECK(identity_of(path) == identity);
  }
}

TEST_CASE("another file has another identity, also with the same content", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\n");
  std::filesystem::copy_file(folder / "a", folder / "b");
  CHECK(identity_of(folder / "a") != identity_of(folder / "b"));
}

TEST_CASE("another content of a file has another identity", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\ntwo\n");
  const auto identity = identity_of(folder / "a");
  struct ::stat before {};
  REQUIRE(::stat((folder / "a").c_str(), &before) == 0);
  write_file(folder / "a", "two\ntwo\n");
  struct ::stat after {};
  REQUIRE(::stat((folder / "a").c_str(), &after) == 0);
  CHECK(after.st_ino == before.st_ino);
  CHECK(identity_of(folder / "a") != identity);
}

namespace {

/// The text through a named pipe.
std::uint64_t identity_through_pipe(const std::string& path, std::string_view text) {
  // Open at both ends, so that nothing waits for the other one.
  ingest::Descriptor both(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  REQUIRE(both.get() >= 0);
  write_all(both.get(), text);
  InputFile input(path, kFollow);  // a pipe has an end all the same
  both = ingest::Descriptor();
  CHECK_FALSE(input.size());
  const auto records = read(input);
  CHECK(texts_of(records) == Texts{"one", "two"});
  CHECK(input.bytes_read() == text.size());
  REQUIRE_FALSE(records.empty());
  return records[0].identity;
}

}  // namespace

TEST_CASE("what comes through a pipe is always new", "[ingest]") {
  const TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  const auto first = identity_through_pipe(folder / "pipe", "one\ntwo");
  CHECK(identity_through_pipe(folder / "pipe", "one\ntwo") != first);
}

TEST_CASE("whoever waits for a pipe comes back when told to stop", "[ingest]") {
  const TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  const ingest::Descriptor both(::open((folder / "pipe").c_str(), O_RDWR | O_CLOEXEC));
  const shard_test::Pipe stop;
  InputFile input(folder / "pipe", {.max_record = 1'000, .follow = false, .stop = stop.out.get()});
  std::vector<Record> records;
  write_all(both.get(), "one\n");
  CHECK(input.read(records) == InputFile::Status::more);
  CHECK(records.size() == 1);
  write_all(stop.in.get(), "x");
  CHECK(input.read(records) == InputFile::Status::more);  // though nothing has come
  CHECK(records.empty());
}

TEST_CASE("standard input is read, as a pipe and as a file", "[ingest]") {
  {
    shard_test::Pipe pipe;
    const StandardInput standard(pipe.out.get());
    write_all(pipe.in.get(), "one\ntwo");
    pipe.in = ingest::Descriptor();
    InputFile input("-", kOnce);
    CHECK_FALSE(input.size());
    CHECK(texts(input) == Texts{"one", "two"});
  }
  const TemporaryFolder folder;
  write_file(folder / "a", "one\ntwo\n");
  const ingest::Descriptor file(::open((folder / "a").c_str(), O_RDONLY | O_CLOEXEC));
  const StandardInput standard(file.get());
  InputFile input("-", kOnce);
  CHECK(input.size() == 8U);
  CHECK(input.is_same_file(InputFile(folder / "a", kOnce)));
  const auto records = read(input);
  CHECK(texts_of(records) == Texts{"one", "two"});
  CHECK(records.front().identity == identity_of(folder / "a"));  // a redirected file is that file
}

TEST_CASE("standard input that does not begin with its file does not pass for that", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\ntwo\nthree\n");
  const ingest::Descriptor file(::open((folder / "a").c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(::lseek(file.get(), 4, SEEK_SET) == 4);  // someone has read the first line
  const StandardInput standard(file.get());
  InputFile input("-", kOnce);
  const auto records = read(input);
  CHECK(texts_of(records) == Texts{"two", "three"});
  // Its offsets count from there, so with the identity of the file they would name other records of it.
  CHECK(records.front().identity != identity_of(folder / "a"));
}

TEST_CASE("a closed standard input is an error", "[ingest]") {
  const ingest::Descriptor null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const StandardInput standard(null.get());
  ::close(STDIN_FILENO);
  CHECK(error_of("-") == "standard input cannot be opened: Bad file descriptor");
}

TEST_CASE("the parts of a file give each record once, with the identity of the file", "[ingest]") {
  const TemporaryFolder folder;
  const std::string_view text = "one\ntwo\r\n\nthree\nfour";
  write_file(folder / "a", text);
  const auto identity = identity_of(folder / "a");
  for (std::uint64_t cut = 1; cut <= text.size(); ++cut) {
    CAPTURE(cut);
    Texts all;
    for (const bool is_first : {true, false}) {
      InputFile part(folder / "a", kOnce, is_first ? 0 : cut,
                     is_first ? cut : ingest::RecordReader::kToTheEnd);
      for (const auto& record : read(part)) {
        CHECK(record.identity == identity);
        CHECK(text.substr(record.offset).starts_with(record.text));
        CHECK((record.offset < cut) == is_first);
        all.push_back(record.text);
      }
    }
    CHECK(all == Texts{"one", "two", "three", "four"});
  }
}

TEST_CASE("a followed file gives what is appended, with offsets and lines that go on", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "");
  InputFile input(folder / "a", kFollow);
  CHECK(texts(input).empty());
  append_file(folder / "a", "one\ntwo\n");
  const auto first = read(input);
  CHECK(texts_of(first) == Texts{"one", "two"});
  CHECK(texts(input).empty());
  append_file(folder / "a", "\nthree\n");
  const auto second = read(input);
  REQUIRE(texts_of(second) == Texts{"three"});
  CHECK(second[0].offset == 9);
  CHECK(second[0].line == 4);
  CHECK(second[0].identity == first[0].identity);
  CHECK(input.bytes_read() == 15);
  CHECK(input.blank() == 1);
}

TEST_CASE("a followed line is given when its end comes", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "on");
  InputFile input(folder / "a", kFollow);
  CHECK(texts(input).empty());
  append_file(folder / "a", "e");
  CHECK(texts(input).empty());
  append_file(folder / "a", "\r");
  CHECK(texts(input).empty());
  append_file(folder / "a", "\ntw");
  CHECK(texts(input) == Texts{"one"});
  append_file(folder / "a", "o\n");
  const auto records = read(input);
  REQUIRE(texts_of(records) == Texts{"two"});
  CHECK(records[0].offset == 5);
  CHECK(records[0].identity == identity_of(folder / "a"));
}

TEST_CASE("when another file takes the name, both are read to their end", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\n");
  InputFile input(folder / "a", kFollow);
  const auto before = read(input);
  append_file(folder / "a", "two\n");
  std::filesystem::rename(folder / "a", folder / "a.1");
  append_file(folder / "a.1", "three\n");
  write_file(folder / "a", "one\nnew\n");
  const auto after = read(input);
  REQUIRE(texts_of(after) == Texts{"two", "three", "one", "new"});
  CHECK(after[1].identity == before[0].identity);
  CHECK(after[1].offset == 8);
  CHECK(after[1].line == 3);
  CHECK(after[2].identity == identity_of(folder / "a"));
  CHECK(after[2].identity != before[0].identity);
  CHECK(after[2].offset == 0);
  CHECK(after[2].line == 1);
  append_file(folder / "a", "newer\n");
  CHECK(texts(input) == Texts{"newer"});
  CHECK(input.bytes_read() == 14 + 8 + 6);
}

TEST_CASE("a followed file that is renamed before its first read is not lost", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\n");
  InputFile input(folder / "a", kFollow);
  std::filesystem::rename(folder / "a", folder / "a.1");
  CHECK(texts(input) == Texts{"one"});
  write_file(folder / "a", "new\n");
  CHECK(texts(input) == Texts{"new"});
}

TEST_CASE("the last line of a file that was replaced needs no end", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\ntw");
  InputFile input(folder / "a", kFollow);
  CHECK(texts(input) == Texts{"one"});
  std::filesystem::rename(folder / "a", folder / "a.1");
  CHECK(texts(input).empty());  // it may still get its end
  write_file(folder / "a", "new\n");
  const auto records = read(input);
  REQUIRE(texts_of(records) == Texts{"tw", "new"});
  CHECK(records[0].offset == 4);
  CHECK(records[0].identity == identity_of(folder / "a.1"));
  CHECK(records[1].identity == identity_of(folder / "a"));
}

TEST_CASE("a replaced file whose only line has no end is not lost", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "half");
  InputFile input(folder / "a", kFollow);
  CHECK(texts(input).empty());
  std::filesystem::rename(folder / "a", folder / "a.1");
  write_file(folder / "a", "new\n");
  const auto records = read(input);
  REQUIRE(texts_of(records) == Texts{"half", "new"});
  CHECK(records[0].identity == identity_of(folder / "a.1"));
  CHECK(records[1].identity == identity_of(folder / "a"));
}

TEST_CASE("while no file has the name, the old one is followed", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\n");
  InputFile input(folder / "a", kFollow);
  CHECK(texts(input) == Texts{"one"});
  std::filesystem::rename(folder / "a", folder / "a.1");
  CHECK(texts(input).empty());
  append_file(folder / "a.1", "two\n");
  CHECK(texts(input) == Texts{"two"});
  std::filesystem::remove(folder / "a.1");
  CHECK(texts(input).empty());
  write_file(folder / "a", "new\n");
  CHECK(texts(input) == Texts{"new"});
}

TEST_CASE("a file that is cut and written again is read from its start", "[ingest]") {
  const TemporaryFolder folder;
  const std::string old = "one\ntwo\nthree\n";
  // Shorter, as long, one byte longer, much longer.
  for (const std::string fresh :
       {"1\n", "ONE\nTWO\nTHREE\n", "ONE\nTWO\nTHREE!\n", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n"}) {
    CAPTURE(fresh);
    write_file(folder / "a", old);
    InputFile input(folder / "a", kFollow);
    const auto before = read(input);
    CHECK(before.size() == 3);
    write_file(folder / "a", fresh);
    auto after = read(input);
    append_file(folder / "a", "last\n");  // if it is as long as before, that shows only now
    for (auto& record : read(input)) after.push_back(std::move(record));

    Texts expected;
    for (std::size_t at = 0; at < fresh.size(); at = fresh.find('\n', at) + 1) {
      expected.push_back(fresh.substr(at, fresh.find('\n', at) - at));
    }
    expected.emplace_back("last");
    REQUIRE(texts_of(after) == expected);
    CHECK(after[0].offset == 0);
    CHECK(after[0].line == 1);
    CHECK(after[0].identity == identity_of(folder / "a"));
    CHECK(after[0].identity != before[0].identity);
    CHECK(after.back().identity == after[0].identity);
    CHECK(after.back().offset == fresh.size());
  }
}

TEST_CASE("what is still added to a file that was replaced is read, line by line", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\nha");
  auto limits = kFollow;
  limits.looks = 2;
  InputFile input(folder / "a", limits);
  CHECK(texts(input) == Texts{"one"});
  std::filesystem::rename(folder / "a", folder / "a.1");
  write_file(folder / "a", "new\n");
  CHECK(texts(input).empty());  // the first look
  append_file(folder / "a.1", "lf\nlate\n");
  CHECK(texts(input) == Texts{"half", "late"});
  CHECK(texts(input).empty());  // looks that find nothing count anew
  CHECK(texts(input) == Texts{"new"});
}

TEST_CASE("a file that is cut and begins with the same line is another source", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "header\none\ntwo\n");
  InputFile input(folder / "a", kFollow);
  const auto before = read(input);
  write_file(folder / "a", "header\nTWO\n");
  const auto after = read(input);
  REQUIRE(texts_of(after) == Texts{"header", "TWO"});
  CHECK(after[0].identity != before[0].identity);
  append_file(folder / "a", "three\n");
  const auto more = read(input);
  REQUIRE(texts_of(more) == Texts{"three"});
  CHECK(more[0].identity == after[0].identity);
}

TEST_CASE("a file that is cut to nothing is read when it grows again", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\ntwo\nthr");
  InputFile input(folder / "a", kFollow);
  CHECK(texts(input) == Texts{"one", "two"});
  write_file(folder / "a", "");
  CHECK(texts(input).empty());
  append_file(folder / "a", "a");
  CHECK(texts(input).empty());
  append_file(folder / "a", "b\nc\n");
  const auto records = read(input);
  REQUIRE(texts_of(records) == Texts{"ab", "c"});
  CHECK(records[1].offset == 3);
  CHECK(records[1].line == 2);
}

TEST_CASE("following needs no name: standard input may be a file that grows", "[ingest]") {
  const TemporaryFolder folder;
  write_file(folder / "a", "one\n");
  const ingest::Descriptor file(::open((folder / "a").c_str(), O_RDONLY | O_CLOEXEC));
  const StandardInput standard(file.get());
  InputFile input("-", kFollow);
  CHECK(texts(input) == Texts{"one"});
  append_file(folder / "a", "two\n");
  CHECK(texts(input) == Texts{"two"});
  std::filesystem::rename(folder / "a", folder / "b");
  write_file(folder / "a", "another\n");
  CHECK(texts(input).empty());
  write_file(folder / "b", "x\n");
  CHECK(texts(input) == Texts{"x"});
}

namespace {

/// Writes a log as programs do, with rotation by renaming and by cutting, and remembers its lines.
class Log {
 public:
  explicit Log(std::string path) : path_(std::move(path)), current_(path_) {
    write_file(path_, "");
  }

  [[nodiscard]] const Texts& lines() const { return lines_; }
  [[nodiscard]] bool has_half() const { return !half_.empty(); }
  [[nodiscard]] bool is_renamed() const { return current_ != path_; }
  [[nodiscard]] std::size_t size() const { return size_; }

  void add_half(const std::string& piece) {
    half_ += piece;
    write(piece);
  }
  void add_line(const std::string& rest) {
    write(rest + "\n");
    lines_.push_back(half_ + rest);
    half_.clear();
  }
  void rename() {
    current_ = path_ + "." + std::to_string(++renamed_);
    std::filesystem::rename(path_, current_);
  }
  /// The next file, after rename().
  void begin() {
    if (!half_.empty()) lines_.push_back(half_);
    half_.clear();
    current_ = path_;
    size_ = 0;
    write_file(path_, "");
  }
  void cut() {
    size_ = 0;
    write_file(current_, "");
  }

 private:
  void write(const std::string& text) {
    append_file(current_, text);
    size_ += text.size();
  }

  const std::string path_;
  std::string current_;  ///< where the file is now
  std::size_t size_ = 0;
  int renamed_ = 0;
  std::string half_;
  Texts lines_;
};

}  // namespace

TEST_CASE("nothing of a followed file is lost or comes twice, whatever happens to it", "[ingest]") {
  const auto seed = GENERATE(take(8, random(0U, 4'000'000'000U)));
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const TemporaryFolder folder;
  Log log(folder / "a");
  InputFile input(folder / "a", kFollow);
  Texts got;
  bool is_seen = true;  // a file that has the name between two looks only is never found
  const auto look = [&] {
    is_seen = is_seen || !log.is_renamed();
    for (const auto& text : texts(input)) got.push_back(text);
  };
  int number = 0;
  const auto piece = [&] { return std::to_string(++number) + std::string(random() % 40, 'x'); };
  for (int step = 0; step < 400; ++step) {
    switch (random() % 12) {
      case 0:
        log.add_half(piece());
        break;
      case 1:
        if (log.is_renamed()) break;
        if (!is_seen) look();
        log.rename();
        break;
      case 2:
        if (!log.is_renamed()) break;
        log.begin();
        is_seen = false;
        break;
      case 3: {
        if (log.is_renamed()) break;
        if (log.has_half()) log.add_line("");
        look();  // what was not read before is gone
        const auto before = log.size();
        log.cut();
        const auto lines = 1 + random() % 12;
        for (std::size_t i = 0; i < lines || log.size() == before; ++i) log.add_line(piece());
        if (random() % 2 == 0) look();
        break;
      }
      case 4:
      case 5:
        look();
        break;
      default:
        log.add_line(piece());
        break;
    }
  }
  if (log.has_half()) log.add_line("");
  look();
  CHECK(got.size() == log.lines().size());
  for (std::size_t i = 0; i < std::min(got.size(), log.lines().size()); ++i) {
    CAPTURE(i);
    REQUIRE(got[i] == log.lines()[i]);
  }
}
