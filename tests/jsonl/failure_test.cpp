// What the system refuses.

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "jsonl/file_size_limit.hpp"
#include "jsonl/jsonl_support.hpp"
#include "jsonl/system_faults.hpp"
#include "support/manual_clock.hpp"
#include "support/pipeline.hpp"

namespace {

using Catch::Contains;
using shard::Delivery;
using shard::JsonlAdapter;
using shard::JsonlOptions;
using shard::JsonlSync;
using shard_test::deliver;
using shard_test::FaultsEnd;
using shard_test::FileSizeLimit;
using shard_test::lines_of;
using shard_test::ManualClock;
using shard_test::noise;
using shard_test::numbered_lines;
using shard_test::read_file;
using shard_test::refusal;
using shard_test::SignalIgnored;
using shard_test::Strings;
using shard_test::system_faults;
using shard_test::TemporaryFolder;
using shard_test::write_file;
using shard_test::operator+;
using std::chrono::milliseconds;

constexpr auto kDelivered = Delivery::Kind::delivered;
constexpr auto kRetry = Delivery::Kind::retry;
constexpr auto kRefuse = Delivery::Kind::refuse;
constexpr auto kUnknown = Delivery::Kind::unknown;

// ---------------------------------------------------------------------------------- full disks

TEST_CASE("a write that fails half-way leaves nothing and is retried", "[R-G2]") {
  const TemporaryFolder folder;
  const auto path = folder / GENERATE("events.ndjson", "events.ndjson.zst");
  const Strings before{noise(600, 1)};
  const Strings batch{noise(300, 2), noise(300, 3), noise(300, 4)};
  JsonlAdapter adapter({.path = path});
  CHECK(deliver(adapter, before).kind() == kDelivered);
  const auto whole = read_file(path + ".part");
  {
    const FileSizeLimit limit(1'000);
    for (int attempt = 0; attempt < 3; ++attempt) {
      const auto answer = deliver(adapter, batch);
      CHECK(answer.kind() == kRetry);
      CHECK_THAT(std::string(answer.reason().text()), Contains("File too large"));
      CHECK_THAT(std::string(answer.reason().text()), Contains("write"));
      CHECK_THAT(std::string(answer.reason().text()), Contains(path.substr(path.size() - 14)));
      CHECK_THAT(adapter.last_error(), Contains(path));
      CHECK(read_file(path + ".part") == whole);
    }
    CHECK(adapter.counts().lines == 1);
    CHECK(adapter.counts().bytes == whole.size());
    CHECK(adapter.flush({}));  // what was delivered is there
  }
  CHECK(deliver(adapter, batch).kind() == kDelivered);
  adapter.close({});
  CHECK(lines_of(path) == before + batch);
}

TEST_CASE("what could not be cut off is cut off before anything else is written") {
  const TemporaryFolder folder;
  const FaultsEnd end;
  const auto path = folder / "events.ndjson";
  JsonlAdapter adapter({.path = path});
  CHECK(deliver(adapter, {"first"}).kind() == kDelivered);
  {
    const FileSizeLimit limit(100);
    system_faults.ftruncate = EIO;
    CHECK(deliver(adapter, {noise(200, 1)}).kind() == kRetry);
    CHECK(read_file(path + ".part").size() == 100);
  }
  const auto answer = deliver(adapter, {"no"});
  CHECK(answer.kind() == kRetry);
  CHECK_THAT(std::string(answer.reason().text()), Contains("ftruncate: Input/output error"));
  CHECK(read_file(path + ".part").size() == 100);
  SECTION("by the next batch") {
    system_faults = {};
    CHECK(deliver(adapter, {"second"}).kind() == kDelivered);
    adapter.close({});
    CHECK(lines_of(path) == Strings{"first", "second"});
  }
  SECTION("or by close") {
    system_faults = {};
    adapter.close({});
    CHECK(lines_of(path) == Strings{"first"});
  }
  SECTION("or the file does not get its name") {
    CHECK_THROWS_AS(adapter.close({}), std::system_error);
    CHECK(folder.names() == Strings{"events.ndjson.part"});
  }
}

TEST_CASE("a disk that stays full fills the dead letters, and the pipeline goes on when it is not",
          "[R-G2][R-G4]") {
  const TemporaryFolder folder;
  const auto path = folder / "events.ndjson";
  ManualClock clock;
  auto options = shard_test::hosted_options();
  options.manager.time_source = &clock;
  options.retry.max_attempts = 3;
  std::vector<std::string> letters;
  options.dead_letters = [&](const shard::Batch& batch, const shard::DeadLetter& why) {
    CHECK(why.cause == shard::DeadLetterCause::attempts_exhausted);
    CHECK(why.attempts == 3);
    CHECK_THAT(std::string(why.reason.text()), Contains("File too large"));
    for (const auto event : batch) letters.emplace_back(event.text());
  };
  shard::Pipeline pipeline(options, std::make_unique<JsonlAdapter>(JsonlOptions{.path = path}));
  const auto push = [&](const Strings& lines) {
    for (const auto& line : lines) CHECK(pipeline.ingest(line) == shard::Outcome::accepted);
    clock.advance(3'600'000'000'000);
    for (int i = 0; i < 4; ++i) {
      pipeline.run_once();
      clock.advance(3'600'000'000'000);
    }
  };
  const auto first = numbered_lines("first", 8);
  const auto second = numbered_lines("second", 8);
  const auto third = numbered_lines("third", 8);
  push(first);
  {
    const FileSizeLimit limit(80);
    push(second);
  }
  push(third);
  CHECK(letters == second);
  CHECK(pipeline.close(std::chrono::minutes{2}).complete);
  CHECK(lines_of(path) == first + third);
}

TEST_CASE("a full device is an error that may pass") {
  JsonlAdapter adapter({.path = "/dev/full"});
  const auto answer = deliver(adapter, {"a"});
  CHECK(answer.kind() == kRetry);
  CHECK(answer.reason().text() == "/dev/full: write: No space left on device");
  CHECK(adapter.last_error() == "/dev/full: write: No space left on device");
  CHECK(adapter.counts().lines == 0);
  CHECK(adapter.flush({}));
  adapter.close({});
  CHECK_FALSE(std::filesystem::exists("/dev/full.part"));
}

// ---------------------------------------------------------------------------------- devices

TEST_CASE("a device is written to as it is") {
  JsonlAdapter adapter({.path = "/dev/null", .sync = JsonlSync::batch});
  CHECK(deliver(adapter, {"a", "b"}).kind() == kDelivered);
  CHECK(adapter.counts().lines == 2);
  CHECK(adapter.flush({}));
  adapter.close({});
  CHECK(adapter.counts().files == 0);
  CHECK_FALSE(std::filesystem::exists("/dev/null.part"));
}

TEST_CASE("a FIFO takes the lines, and whoever writes to one that nobody reads is refused") {
  const TemporaryFolder folder;
  const SignalIgnored ignored(SIGPIPE);
  const auto path = folder / "fifo";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  const int reader = ::open(path.c_str(), O_RDONLY | O_NONBLOCK);
  REQUIRE(reader >= 0);
  JsonlAdapter adapter({.path = path});
  CHECK(deliver(adapter, {"a", "b"}).kind() == kDelivered);
  std::array<char, 16> text{};
  CHECK(::read(reader, text.data(), text.size()) == 4);
  CHECK(std::string(text.data()) == "a\nb\n");
  ::close(reader);
  const auto answer = deliver(adapter, {"c"});
  CHECK(answer.kind() == kRefuse);
  CHECK_THAT(std::string(answer.reason().text()), Contains("fifo: write: Broken pipe"));
  CHECK(folder.names() == Strings{"fifo"});
}

TEST_CASE("what a device has taken a part of is possibly delivered") {
  const TemporaryFolder folder;
  const SignalIgnored ignored(SIGPIPE);
  const auto path = folder / "fifo";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  const int reader = ::open(path.c_str(), O_RDONLY | O_NONBLOCK);
  REQUIRE(reader >= 0);
  JsonlAdapter adapter({.path = path});
  std::thread read_some([reader] {
    std::array<char, 1> one{};
    while (::read(reader, one.data(), one.size()) != 1) std::this_thread::yield();
    ::close(reader);  // the writer waits for room, as there is more than a pipe holds
  });
  const auto answer = deliver(adapter, {noise(2'000'000, 1)});
  read_some.join();
  CHECK(answer.kind() == kUnknown);
  CHECK(deliver(adapter, {"more"}).kind() == kRefuse);
}

// ---------------------------------------------------------------------------------- sync

TEST_CASE(
    "a batch whose sync fails is not there and is retried, if each batch is to be on the disk") {
  const TemporaryFolder folder;
  const FaultsEnd end;
  const auto path = folder / GENERATE("events.ndjson", "events.ndjson.zst");
  JsonlAdapter adapter({.path = path, .sync = JsonlSync::batch});
  CHECK(deliver(adapter, {"first"}).kind() == kDelivered);
  const auto whole = read_file(path + ".part");
  system_faults.fdatasync = EIO;
  const auto answer = deliver(adapter, {"second"});
  CHECK(answer.kind() == kRetry);
  CHECK_THAT(std::string(answer.reason().text()), Contains("fdatasync: Input/output error"));
  CHECK(read_file(path + ".part") == whole);
  CHECK(adapter.counts().lines == 1);
  CHECK(adapter.flush({}));  // what was delivered is on the disk
  SECTION("also if it cannot be cut off at once") {
    system_faults.ftruncate = EIO;
    CHECK(deliver(adapter, {"second"}).kind() == kRetry);
    CHECK(read_file(path + ".part") != whole);
    CHECK(adapter.flush({}));
  }
  system_faults = {};
  CHECK(deliver(adapter, {"second"}).kind() == kDelivered);
  CHECK(adapter.flush({}));
  adapter.close({});
  CHECK(lines_of(path) == Strings{"first", "second"});
}

TEST_CASE("after a failed sync the file is not called complete") {
  const TemporaryFolder folder;
  const FaultsEnd end;
  ManualClock clock;
  const auto path = folder / "events.ndjson";
  const auto sync = GENERATE(JsonlSync::on_close, JsonlSync::interval);
  JsonlAdapter adapter(
      {.path = path, .sync = sync, .sync_interval = milliseconds{10}, .time_source = &clock});
  CHECK(deliver(adapter, {"a"}).kind() == kDelivered);
  system_faults.fdatasync = EIO;
  CHECK(deliver(adapter, {"b"}).kind() == kDelivered);
  clock.advance(10'000'000);
  SECTION("flush tells, and goes on telling") {
    CHECK_FALSE(adapter.flush({}));
    system_faults = {};
    CHECK(deliver(adapter, {"c"}).kind() == kDelivered);
    CHECK_FALSE(adapter.flush({}));
    CHECK_THAT(adapter.last_error(), Contains("fdatasync"));
    CHECK_THROWS_AS(adapter.close({}), std::system_error);
  }
  SECTION("the batch that meets it is possibly delivered") {
    const auto answer = deliver(adapter, {"c"});
    CHECK(answer.kind() == (sync == JsonlSync::interval ? kUnknown : kDelivered));
    CHECK(answer.reason().empty() == (sync != JsonlSync::interval));
    CHECK_THROWS_AS(adapter.close({}), std::system_error);
    system_faults = {};
  }
  CHECK(folder.names() == Strings{"events.ndjson.part"});
  CHECK(read_file(path + ".part") == "a\nb\nc\n");
  CHECK_FALSE(adapter.flush({}));
  CHECK(adapter.counts().files == 0);

  // The next one takes it over.
  JsonlAdapter next({.path = path});
  CHECK(deliver(next, {"d"}).kind() == kDelivered);
  next.close({});
  CHECK(lines_of(path) == Strings{"a", "b", "c", "d"});
}

TEST_CASE(
    "with rotation a file whose sync failed is left aside and completed by the next adapter") {
  const TemporaryFolder folder;
  const FaultsEnd end;
  const JsonlOptions options{.path = folder / "e.ndjson", .rotate_bytes = 4};
  {
    JsonlAdapter adapter(options);
    CHECK(deliver(adapter, {"one"}).kind() == kDelivered);
    system_faults.fdatasync = EIO;
    CHECK(deliver(adapter, {"two"}).kind() == kUnknown);
    system_faults = {};
    CHECK(deliver(adapter, {"three"}).kind() == kDelivered);
    CHECK_FALSE(adapter.flush({}));
    CHECK_THROWS_WITH(adapter.close({}), Contains("fdatasync"));
  }
  CHECK(folder.names() == Strings{"e.000001.ndjson", "e.000002.ndjson.part", "e.000003.ndjson"});
  {
    JsonlAdapter adapter(options);
    CHECK(folder.names() ==
          Strings{"e.000001.ndjson", "e.000002.ndjson", "e.000003.ndjson", "e.000004.ndjson.part"});
  }
  CHECK(read_file(folder / "e.000002.ndjson") == "two\n");
}

TEST_CASE("without sync nothing is synced") {
  const TemporaryFolder folder;
  const FaultsEnd end;
  system_faults.fdatasync = EIO;
  JsonlAdapter adapter({.path = folder / "events.ndjson", .sync = JsonlSync::never});
  CHECK(deliver(adapter, {"a"}).kind() == kDelivered);
  CHECK(adapter.flush({}));
  adapter.close({});
  CHECK(lines_of(folder / "events.ndjson") == Strings{"a"});
}

// ---------------------------------------------------------------------------------- names

TEST_CASE("a file system without a rename that overwrites nothing has a link that does not") {
  const TemporaryFolder folder;
  const FaultsEnd end;
  const auto path = folder / "events.ndjson";
  system_faults.renameat2 = GENERATE(EINVAL, ENOSYS);
  {
    JsonlAdapter adapter({.path = path});
    CHECK(deliver(adapter, {"a"}).kind() == kDelivered);
  }
  CHECK(folder.names() == Strings{"events.ndjson"});
  SECTION("also when there is something to overwrite") {
    JsonlAdapter adapter({.path = folder / "other.ndjson"});
    write_file(folder / "other.ndjson", "another's\n");
    CHECK_THROWS_WITH(adapter.close({}), Contains("File exists"));
    CHECK(read_file(folder / "other.ndjson") == "another's\n");
  }
  SECTION("and a crash between its two steps leaves two names for one file") {
    std::filesystem::create_hard_link(path, path + ".part");
    SECTION("of which one goes") {
      JsonlAdapter adapter({.path = path, .existing = shard::JsonlExisting::append});
      CHECK(deliver(adapter, {"b"}).kind() == kDelivered);
      adapter.close({});
      CHECK(lines_of(path) == Strings{"a", "b"});
    }
    SECTION("of which the complete one stays as it is") {
      JsonlAdapter adapter({.path = path, .existing = shard::JsonlExisting::replace});
      CHECK(deliver(adapter, {"b"}).kind() == kDelivered);
      CHECK(lines_of(path) == Strings{"a"});
      adapter.close({});
      CHECK(lines_of(path) == Strings{"b"});
    }
    CHECK(folder.names() == Strings{"events.ndjson"});
  }
}

TEST_CASE("a file that cannot be renamed keeps its lines and is completed by the next adapter") {
  const TemporaryFolder folder;
  const FaultsEnd end;
  const JsonlOptions options{.path = folder / "e.ndjson", .rotate_bytes = 4};
  {
    JsonlAdapter adapter(options);
    system_faults.renameat2 = EACCES;
    CHECK(deliver(adapter, {"one"}).kind() == kDelivered);
    system_faults = {};
    CHECK_THAT(adapter.last_error(), Contains("e.000001.ndjson.part: rename: Permission denied"));
    CHECK(deliver(adapter, {"two"}).kind() == kDelivered);
    CHECK(adapter.flush({}));  // both are on the disk
    CHECK_THROWS_AS(adapter.close({}), std::system_error);
  }
  CHECK(folder.names() == Strings{"e.000001.ndjson.part", "e.000002.ndjson"});
  { JsonlAdapter adapter(options); }
  CHECK(folder.names() == Strings{"e.000001.ndjson", "e.000002.ndjson"});
  CHECK(read_file(folder / "e.000001.ndjson") == "one\n");
}

TEST_CASE("while the next file cannot be begun this one is written on") {
  const TemporaryFolder folder;
  const FaultsEnd end;
  JsonlAdapter adapter({.path = folder / "e.ndjson", .rotate_bytes = 4});
  system_faults.openat = EMFILE;
  CHECK(deliver(adapter, {"one"}).kind() == kDelivered);
  CHECK_THAT(adapter.last_error(), Contains("Too many open files"));
  CHECK(deliver(adapter, {"two"}).kind() == kDelivered);
  CHECK(adapter.counts().files == 0);
  system_faults = {};
  CHECK(deliver(adapter, {"three"}).kind() == kDelivered);
  adapter.close({});
  CHECK(lines_of(folder / "e.000001.ndjson") == Strings{"one", "two"});
  CHECK(lines_of(folder / "e.000002.ndjson") == Strings{"three"});
}

}  // namespace
