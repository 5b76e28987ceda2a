// What a crash leaves, and what the next adapter makes of it.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>

#include "jsonl/jsonl_support.hpp"

namespace {

using Catch::Contains;
using shard::Delivery;
using shard::JsonlAdapter;
using shard::JsonlOptions;
using shard::JsonlSync;
using shard_test::compressed;
using shard_test::deliver;
using shard_test::Events;
using shard_test::frames_of;
using shard_test::lines_of;
using shard_test::noise;
using shard_test::read_file;
using shard_test::refusal;
using shard_test::Strings;
using shard_test::TemporaryFolder;
using shard_test::text_of;
using shard_test::write_file;
using shard_test::operator+;

constexpr auto kDelivered = Delivery::Kind::delivered;

/// What the file is after an adapter has found `left` of it and has written "next" on.
std::string text_after(const std::string& path, const std::string& left) {
  const JsonlOptions options{
      .path = path, .existing = shard::JsonlExisting::replace, .sync = JsonlSync::never};
  write_file(path + ".part", left);
  {
    JsonlAdapter adapter(options);
    CHECK(deliver(adapter, {"next"}).kind() == kDelivered);
  }
  return text_of(path);
}

TEST_CASE("a torn last line is cut off and nothing else") {
  const TemporaryFolder folder;
  const auto path = folder / "events.ndjson";
  CHECK(text_after(path, "") == "next\n");
  CHECK(text_after(path, "torn") == "next\n");
  CHECK(text_after(path, "a\n") == "a\nnext\n");
  CHECK(text_after(path, "\n") == "\nnext\n");
  CHECK(text_after(path, "a\nb\ntorn") == "a\nb\nnext\n");
  CHECK(text_after(path, std::string("a\nb\0\n\0", 6)) == std::string("a\nb\0\nnext\n", 10));
}

TEST_CASE("a torn line may be longer than what is read at once") {
  const TemporaryFolder folder;
  const auto path = folder / "events.ndjson";
  // Around the blocks in which the end is looked for.
  for (const auto torn : {16'383U, 16'384U, 16'385U, 32'768U, 100'000U}) {
    CHECK(text_after(path, noise(torn, 1)) == "next\n");
    CHECK(text_after(path, "a\n" + noise(torn, 1)) == "a\nnext\n");
    CHECK(text_after(path, noise(torn, 1) + "\n") == noise(torn, 1) + "\nnext\n");
  }
}

TEST_CASE("a torn frame is cut off, wherever it ends") {
  const TemporaryFolder folder;
  const auto path = folder / "events.ndjson.zst";
  {
    JsonlAdapter adapter({.path = path});
    CHECK(deliver(adapter, {noise(300, 1), noise(300, 2)}).kind() == kDelivered);
    CHECK(deliver(adapter, {std::string(400'000, 'x')}).kind() == kDelivered);  // several blocks
  }
  const auto bytes = read_file(path);
  const auto first = ZSTD_findFrameCompressedSize(bytes.data(), bytes.size());
  const auto first_text = text_of(path).substr(0, 602);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    INFO("cut to " << size << " of " << bytes.size());
    CHECK(text_after(path, bytes.substr(0, size)) == (size < first ? "" : first_text) + "next\n");
  }
  CHECK(text_after(path, bytes).size() == 602 + 400'001 + 5);
}

TEST_CASE("frames of other programs are whole, too") {
  const TemporaryFolder folder;
  const auto path = folder / "events.zst";
  using namespace std::string_literals;
  const auto skippable = "\x5A\x2A\x4D\x18\x03\x00\x00\x00...\x28\xB5\x2F\xFD"s;
  CHECK(text_after(path, compressed("")) == "next\n");
  CHECK(text_after(path, compressed("a\n") + skippable.substr(11)) == "a\nnext\n");  // torn
  CHECK(text_after(path, compressed("a\n") + "zeros, or anything") == "a\nnext\n");
  CHECK(text_after(path, compressed("a\n") + skippable.substr(0, 10)) == "a\nnext\n");
  // Larger than its header says at first sight: streamed, with a window, without a size, with small blocks.
  std::string stream(std::size_t{1} << 20U, '\0');
  ZSTD_CCtx* const context = ZSTD_createCCtx();
  ZSTD_outBuffer out{stream.data(), stream.size(), 0};
  const auto text = noise(300'000, 1) + "\n";
  for (std::size_t at = 0; at < text.size(); at += 1'000) {
    ZSTD_inBuffer in{text.data() + at, std::min<std::size_t>(1'000, text.size() - at), 0};
    ZSTD_compressStream2(context, &out, &in, ZSTD_e_flush);
  }
  ZSTD_inBuffer nothing{nullptr, 0, 0};
  CHECK(ZSTD_compressStream2(context, &out, &nothing, ZSTD_e_end) == 0);
  ZSTD_freeCCtx(context);
  stream.resize(out.pos);
  write_file(path + ".part", stream + skippable.substr(0, 11));
  {
    JsonlAdapter adapter({.path = path, .existing = shard::JsonlExisting::replace});
    CHECK(deliver(adapter, {"next"}).kind() == kDelivered);
  }
  const auto bytes = read_file(path);
  const auto kept = stream + skippable.substr(0, 11);
  REQUIRE(bytes.starts_with(kept));
  CHECK(frames_of(bytes.substr(kept.size())) == Strings{"next\n"});
}

TEST_CASE("a part that is no zstd at all is somebody else's") {
  const TemporaryFolder folder;
  const auto path = folder / "events.zst";
  for (const std::string content : {"{\"a\": 1}\n", "a", "\x28\xB5?"}) {
    write_file(path + ".part", content);
    CHECK_THAT(refusal({.path = path}), Contains(path + ".part: is no zstd file"));
    CHECK(read_file(path + ".part") == content);
  }
}

TEST_CASE("all parts of a series are completed, and the last one is written on") {
  const TemporaryFolder folder;
  const JsonlOptions options{.path = folder / "e.ndjson", .rotate_bytes = 1'000};
  write_file(folder / "e.000001.ndjson", "1\n");
  write_file(folder / "e.000002.ndjson.part", "2\ntorn");
  write_file(folder / "e.000003.ndjson.part", "torn");  // begun, without a line
  write_file(folder / "e.000004.ndjson.part", "4\ntorn");
  {
    JsonlAdapter adapter(options);
    CHECK(folder.names() == Strings{"e.000001.ndjson", "e.000002.ndjson", "e.000004.ndjson.part"});
    CHECK(deliver(adapter, {"next"}).kind() == kDelivered);
  }
  CHECK(read_file(folder / "e.000002.ndjson") == "2\n");
  CHECK(read_file(folder / "e.000004.ndjson") == "4\nnext\n");

  write_file(folder / "e.000003.ndjson.part", "3\n");  // older than one that is complete
  {
    JsonlAdapter adapter(options);
    CHECK(deliver(adapter, {"last"}).kind() == kDelivered);
  }
  CHECK(read_file(folder / "e.000003.ndjson") == "3\n");
  CHECK(read_file(folder / "e.000005.ndjson") == "last\n");
}

TEST_CASE("a part that is large enough already is completed before anything is written") {
  const TemporaryFolder folder;
  write_file(folder / "e.000001.ndjson.part", "a\nb\n");
  {
    JsonlAdapter adapter({.path = folder / "e.ndjson", .rotate_bytes = 4});
    CHECK(deliver(adapter, {"c"}).kind() == kDelivered);
  }
  CHECK(read_file(folder / "e.000001.ndjson") == "a\nb\n");
  CHECK(read_file(folder / "e.000002.ndjson") == "c\n");
}

// ---------------------------------------------------------------------------------- kill -9

/// The n-th of all.
std::string line_of(std::uint64_t n) { return std::to_string(n) + noise(n * 13 % 97, n); }

/// The events of the n-th batch: a few, of different sizes.
Strings batch_of(std::uint64_t n, std::uint64_t& line) {
  Strings lines;
  for (std::uint64_t i = 0; i < 1 + n * 7 % 40; ++i) {
    lines.push_back(line_of(line++));
  }
  return lines;
}

/// Writes batches, tells how many lines were delivered after each, closes, and waits until it is killed.
[[noreturn]] void write_until_killed(const JsonlOptions& options, std::uint64_t line, int told) {
  try {
    JsonlAdapter adapter(options);
    for (std::uint64_t n = 0; n < 40; ++n) {
      const Events events(batch_of(n, line));
      if (adapter.deliver(events.batch(), {}).kind() != kDelivered ||
          ::write(told, &line, sizeof line) != sizeof line) {
        ::_exit(1);
      }
    }
    adapter.close({});
  } catch (...) {
    ::_exit(2);
  }
  for (;;) ::pause();
}

/// Every line of every file, in the order of their names.
Strings all_lines(const TemporaryFolder& folder) {
  Strings lines;
  for (const auto& name : folder.names()) {
    INFO(name);
    const auto more = lines_of(folder / name);
    lines.insert(lines.end(), more.begin(), more.end());
  }
  return lines;
}

TEST_CASE("killed at any moment it leaves whole lines, all that it has answered for, each once") {
  // Not the same every time; a failure is found again by its seed.
  const auto* const given = std::getenv("SHARD_SEED");
  const std::uint64_t seed = given != nullptr ? std::stoull(given) : std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const std::string name = GENERATE("e.ndjson", "e.ndjson.zst");
  const auto rotate_bytes = GENERATE(std::uint64_t{0}, std::uint64_t{20'000});
  const TemporaryFolder folder;
  JsonlOptions options{.path = folder / name,
                       .existing = shard::JsonlExisting::append,
                       .rotate_bytes = rotate_bytes,
                       .compression_level = 1};
  std::uint64_t written = 0;  // lines, by now
  constexpr int kKills = 15;
  for (int kill_number = 0; kill_number < kKills; ++kill_number) {
    CAPTURE(kill_number);
    // Syncs matter to power failures only; they are slow, and other moments.
    options.sync = kill_number % 5 == 0 ? JsonlSync::on_close : JsonlSync::never;
    std::array<int, 2> pipe{};
    REQUIRE(::pipe(pipe.data()) == 0);
    const auto child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::close(pipe[0]);
      write_until_killed(options, written, pipe[1]);
    }
    ::close(pipe[1]);
    std::uint64_t answered = written;
    const auto next_answer = [&] { return ::read(pipe[0], &answered, sizeof answered) > 0; };
    bool alive = true;
    for (auto answers = random() % 40; alive && answers != 0; --answers) alive = next_answer();
    for (auto turns = random() % 20; turns != 0; --turns) std::this_thread::yield();
    ::kill(child, SIGKILL);
    while (next_answer()) {
    }
    ::close(pipe[0]);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    REQUIRE(alive);

    // What has its name is whole, as it is.
    for (const auto& file : folder.names()) {
      if (!file.ends_with(".part")) {
        static_cast<void>(lines_of(folder / file));
      }
    }
    // And what has not, once it was taken over; then the next child writes on.
    { const JsonlAdapter adapter(options); }
    const auto lines = all_lines(folder);
    REQUIRE(lines.size() >= answered);
    std::uint64_t right = 0;
    while (right < lines.size() && lines[right] == line_of(right)) ++right;
    REQUIRE(right == lines.size());
    written = lines.size();
  }
}

TEST_CASE("a child of fork touches nothing", "[R-I6]") {
  const TemporaryFolder folder;
  const auto path = folder / "events.ndjson";
  const Events events({"a"});
  JsonlAdapter adapter({.path = path});
  CHECK(adapter.deliver(events.batch(), {}).kind() == kDelivered);
  const auto child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    int wrong = adapter.deliver(events.batch(), {}).kind() == Delivery::Kind::refuse ? 0 : 1;
    wrong |= adapter.flush({}) ? 2 : 0;
    adapter.close({});
    ::_exit(wrong);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(folder.names() == Strings{"events.ndjson.part"});
  CHECK(deliver(adapter, {"b"}).kind() == kDelivered);
  CHECK_THAT(refusal({.path = path}), Contains("another process writes it"));
  adapter.close({});
  CHECK(lines_of(path) == Strings{"a", "b"});
}

}  // namespace
