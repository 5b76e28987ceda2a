// What the files are called, and when.

#include "jsonl/jsonl_support.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

#include "support/manual_clock.hpp"

namespace {

using Catch::Contains;
using shard::Delivery;
using shard::JsonlAdapter;
using shard::JsonlExisting;
using shard::JsonlOptions;
using shard_test::compressed;
using shard_test::deliver;
using shard_test::lines_of;
using shard_test::ManualClock;
using shard_test::read_file;
using shard_test::refusal;
using shard_test::Strings;
using shard_test::TemporaryFolder;
using shard_test::text_of;
using shard_test::write_file;
using std::chrono::seconds;

constexpr auto kDelivered = Delivery::Kind::delivered;

TEST_CASE("a file gets its name when it is complete") {
  const TemporaryFolder folder;
  auto adapter = std::make_unique<JsonlAdapter>(JsonlOptions{.path = folder / "events.ndjson"});
  CHECK(folder.names() == Strings{"events.ndjson.part"});
  CHECK(deliver(*adapter, {"a"}).kind() == kDelivered);
  CHECK(adapter->flush({}));
  CHECK(folder.names() == Strings{"events.ndjson.part"});
  SECTION("by close") {
    adapter->close({});
    CHECK(folder.names() == Strings{"events.ndjson"});
    const auto late = deliver(*adapter, {"b"});
    CHECK(late.kind() == Delivery::Kind::refuse);
    CHECK(late.reason().text() == "the file is closed");
    CHECK(adapter->flush({}));
    adapter->close({});
    CHECK(adapter->counts().files == 1);
  }
  SECTION("by the destructor") {}
  adapter.reset();
  CHECK(folder.names() == Strings{"events.ndjson"});
  CHECK(lines_of(folder / "events.ndjson") == Strings{"a"});
}

TEST_CASE("without events there is an empty file, a whole one if it is compressed") {
  const TemporaryFolder folder;
  { const JsonlAdapter adapter({.path = folder / "events.ndjson"}); }
  CHECK(read_file(folder / "events.ndjson").empty());
  { const JsonlAdapter adapter({.path = folder / "events.ndjson.zst"}); }
  CHECK_FALSE(read_file(folder / "events.ndjson.zst").empty());
  CHECK(text_of(folder / "events.ndjson.zst").empty());
}

TEST_CASE("with rotation and without events there is no file") {
  const TemporaryFolder folder;
  {
    JsonlAdapter adapter({.path = folder / "events.ndjson", .rotate_bytes = 1});
    CHECK(adapter.flush({}));
    CHECK(adapter.counts().files == 0);
  }
  CHECK(folder.names().empty());
}

// ---------------------------------------------------------------------------------- a file that exists

TEST_CASE("a file that exists is left alone unless the options say otherwise") {
  const TemporaryFolder folder;
  const auto path = folder / "events.ndjson";
  write_file(path, "old\n");
  const auto why = refusal({.path = path});
  CHECK_THAT(why, Contains(path));
  CHECK_THAT(why, Contains("append"));
  CHECK_THAT(why, Contains("replace"));
  CHECK(folder.names() == Strings{"events.ndjson"});
  CHECK(read_file(path) == "old\n");
}

TEST_CASE("a file that appears meanwhile is not overwritten") {
  const TemporaryFolder folder;
  const auto path = folder / "events.ndjson";
  JsonlAdapter adapter({.path = path});
  CHECK(deliver(adapter, {"a"}).kind() == kDelivered);
  write_file(path, "another's\n");
  CHECK_THROWS_WITH(adapter.close({}), Contains("File exists"));
  CHECK_THAT(adapter.last_error(), Contains(path));
  CHECK(read_file(path) == "another's\n");
  CHECK(read_file(path + ".part") == "a\n");
  CHECK(adapter.counts().files == 0);
}

TEST_CASE("append keeps what is there and writes it on") {
  const TemporaryFolder folder;
  const auto path = folder / "events.ndjson";
  for (const auto* const line : {"a", "b", "c"}) {
    JsonlAdapter adapter({.path = path, .existing = JsonlExisting::append});
    CHECK(folder.names() == Strings{"events.ndjson.part"});
    CHECK(deliver(adapter, {line}).kind() == kDelivered);
  }
  CHECK(read_file(path) == "a\nb\nc\n");
  CHECK(folder.names() == Strings{"events.ndjson"});
}

TEST_CASE("append keeps compressed frames") {
  const TemporaryFolder folder;
  const auto path = folder / "events.zst";
  for (const auto* const line : {"a", "b"}) {
    JsonlAdapter adapter({.path = path, .existing = JsonlExisting::append});
    CHECK(deliver(adapter, {line}).kind() == kDelivered);
  }
  CHECK(text_of(path) == "a\nb\n");
}

TEST_CASE("append cuts nothing off") {
  const TemporaryFolder folder;
  SECTION("a last line without an end gets one") {
    const auto path = folder / "events.ndjson";
    write_file(path, "a\nb");
    JsonlAdapter adapter({.path = path, .existing = JsonlExisting::append});
    CHECK(read_file(path + ".part") == "a\nb\n");
    CHECK(deliver(adapter, {"c"}).kind() == kDelivered);
    adapter.close({});
    CHECK(read_file(path) == "a\nb\nc\n");
  }
  SECTION("frames that are not whole are an error") {
    const auto path = folder / "events.zst";
    const auto bytes = compressed("a\n") + compressed("b\n").substr(0, 7);
    write_file(path, bytes);
    CHECK_THAT(refusal({.path = path, .existing = JsonlExisting::append}),
               Contains(path + ": does not end with a whole zstd frame"));
    CHECK(read_file(path) == bytes);
    CHECK(folder.names() == Strings{"events.zst"});
  }
  SECTION("a file that is not compressed is not taken for one that is") {
    const auto path = folder / "events.zst";
    write_file(path, "{\"a\": 1}\n");
    CHECK_THAT(refusal({.path = path, .existing = JsonlExisting::append}),
               Contains(path + ": is no zstd file"));
    CHECK(read_file(path) == "{\"a\": 1}\n");
  }
  SECTION("nor is anything decided if there is a part, too") {
    const auto path = folder / "events.ndjson";
    write_file(path, "a\n");
    write_file(path + ".part", "b\n");
    CHECK_THAT(refusal({.path = path, .existing = JsonlExisting::append}), Contains(".part"));
    CHECK(read_file(path) == "a\n");
    CHECK(read_file(path + ".part") == "b\n");
  }
}

TEST_CASE("replace keeps the old file until the new one is complete") {
  const TemporaryFolder folder;
  const auto path = folder / "events.ndjson";
  write_file(path, "old\n");
  JsonlAdapter adapter({.path = path, .existing = JsonlExisting::replace});
  CHECK(deliver(adapter, {"new"}).kind() == kDelivered);
  CHECK(read_file(path) == "old\n");
  adapter.close({});
  CHECK(read_file(path) == "new\n");
  CHECK(folder.names() == Strings{"events.ndjson"});
}

TEST_CASE("a symbolic link is followed and stays") {
  const TemporaryFolder folder;
  const auto real = folder / "real.ndjson";
  const auto link = folder / "link.ndjson";
  write_file(real, "old\n");
  std::filesystem::create_symlink(real, link);
  const auto existing = GENERATE(JsonlExisting::append, JsonlExisting::replace);
  {
    JsonlAdapter adapter({.path = link, .existing = existing});
    CHECK(folder.has("real.ndjson.part"));
    CHECK(deliver(adapter, {"new"}).kind() == kDelivered);
  }
  CHECK(std::filesystem::is_symlink(link));
  CHECK(read_file(real) == (existing == JsonlExisting::append ? "old\nnew\n" : "new\n"));
}

// ---------------------------------------------------------------------------------- rotation

TEST_CASE("the number stands before the extension") {
  const TemporaryFolder folder;
  const auto [path, name] = GENERATE(table<std::string, std::string>({
      {"events.ndjson", "events.000001.ndjson"},
      {"events.jsonl", "events.000001.jsonl"},
      {"events.json", "events.000001.json"},
      {"events.ndjson.zst", "events.000001.ndjson.zst"},
      {"events.json.zst", "events.000001.json.zst"},
      {"events.zst", "events.000001.zst"},
      {"events", "events.000001"},
      {"events.log", "events.log.000001"},
      {"a.b.ndjson", "a.b.000001.ndjson"},
      {".ndjson", ".ndjson.000001"},
  }));
  {
    JsonlAdapter adapter({.path = folder / path, .rotate_bytes = 1'000});
    CHECK(folder.names() == Strings{name + ".part"});
    CHECK(deliver(adapter, {"a"}).kind() == kDelivered);
  }
  CHECK(folder.names() == Strings{name});
  CHECK(lines_of(folder / name) == Strings{"a"});
}

TEST_CASE("the batch that reaches the size ends its file") {
  const TemporaryFolder folder;
  JsonlAdapter adapter({.path = folder / "e.ndjson", .rotate_bytes = 8});
  CHECK(deliver(adapter, {"abc", "ab"}).kind() == kDelivered);  // 7 bytes
  CHECK(adapter.counts().files == 0);
  CHECK(deliver(adapter, {"x", "y", "z"}).kind() == kDelivered);
  CHECK(adapter.counts().files == 1);
  CHECK(folder.names() == Strings{"e.000001.ndjson", "e.000002.ndjson.part"});
  CHECK(lines_of(folder / "e.000001.ndjson") == Strings{"abc", "ab", "x", "y", "z"});
  CHECK(deliver(adapter, {"exactly"}).kind() == kDelivered);
  CHECK(adapter.counts().files == 2);
  adapter.close({});
  CHECK(folder.names() == Strings{"e.000001.ndjson", "e.000002.ndjson"});
  CHECK(adapter.counts().lines == 6);
}

TEST_CASE("numbers go on after a restart, above the highest, and overwrite nothing") {
  const TemporaryFolder folder;
  const JsonlOptions options{.path = folder / "e.ndjson", .rotate_bytes = 1};
  write_file(folder / "e.000003.ndjson", "3\n");
  write_file(folder / "e.12.ndjson", "12\n");
  write_file(folder / "e.000x99.ndjson", "no number\n");
  write_file(folder / "e.000099.ndjson.zst", "another series\n");
  write_file(folder / "e..ndjson", "no number\n");
  write_file(folder / "e.9999999999999999999999.ndjson", "no number of ours\n");
  {
    JsonlAdapter adapter(options);
    CHECK(deliver(adapter, {"a"}).kind() == kDelivered);
    CHECK(deliver(adapter, {"b"}).kind() == kDelivered);
  }
  {
    JsonlAdapter adapter(options);
    std::filesystem::create_directory(folder / "e.000016.ndjson");  // since it has looked
    CHECK(deliver(adapter, {"c"}).kind() == kDelivered);
    CHECK(deliver(adapter, {"d"}).kind() == kDelivered);
  }
  CHECK(read_file(folder / "e.000003.ndjson") == "3\n");
  CHECK(read_file(folder / "e.12.ndjson") == "12\n");
  CHECK(read_file(folder / "e.000013.ndjson") == "a\n");
  CHECK(read_file(folder / "e.000014.ndjson") == "b\n");
  CHECK(read_file(folder / "e.000015.ndjson") == "c\n");
  CHECK(read_file(folder / "e.000017.ndjson") == "d\n");
  CHECK_FALSE(folder.has("e.000018.ndjson"));
}

TEST_CASE("a number that somebody else takes is left to him") {
  const TemporaryFolder folder;
  JsonlAdapter adapter({.path = folder / "e.ndjson", .rotate_bytes = 100});
  CHECK(deliver(adapter, {"a"}).kind() == kDelivered);
  write_file(folder / "e.000001.ndjson", "another's\n");
  adapter.close({});
  CHECK(read_file(folder / "e.000001.ndjson") == "another's\n");
  CHECK(read_file(folder / "e.000002.ndjson") == "a\n");
}

TEST_CASE("a file is completed when its first line is old enough") {
  const TemporaryFolder folder;
  ManualClock clock;
  const auto advance = [&clock](seconds by) {
    clock.advance(static_cast<std::uint64_t>(std::chrono::nanoseconds{by}.count()));
  };
  JsonlAdapter adapter(
      {.path = folder / "e.ndjson", .rotate_after = seconds{60}, .time_source = &clock});
  advance(seconds{1'000});  // the file is older, but has no line
  CHECK(adapter.flush({}));
  CHECK(deliver(adapter, {"a"}).kind() == kDelivered);
  advance(seconds{59});
  CHECK(deliver(adapter, {"b"}).kind() == kDelivered);
  CHECK(adapter.counts().files == 0);
  advance(seconds{1});
  SECTION("with the next batch, which goes into the next file") {
    CHECK(deliver(adapter, {"c"}).kind() == kDelivered);
    CHECK(adapter.counts().files == 1);
    adapter.close({});
    CHECK(lines_of(folder / "e.000001.ndjson") == Strings{"a", "b"});
    CHECK(lines_of(folder / "e.000002.ndjson") == Strings{"c"});
  }
  SECTION("or with flush") {
    CHECK(adapter.flush({}));
    CHECK(adapter.counts().files == 1);
    advance(seconds{1'000});
    CHECK(adapter.flush({}));
    CHECK(adapter.counts().files == 1);
    adapter.close({});
    CHECK(folder.names() == Strings{"e.000001.ndjson"});
    CHECK(lines_of(folder / "e.000001.ndjson") == Strings{"a", "b"});
  }
}

// ---------------------------------------------------------------------------------- what cannot be written

TEST_CASE("a path that cannot be a file is refused with its name") {
  const TemporaryFolder folder;
  const auto path = folder / "missing/events.ndjson";
  CHECK_THAT(refusal({.path = path}),
             Contains(folder / "missing") && Contains("No such file or directory"));
  std::filesystem::create_directory(path.substr(0, path.rfind('/')));
  std::filesystem::create_directory(path);
  CHECK_THAT(refusal({.path = path}), Contains(path) && Contains("Is a directory"));
  CHECK_THAT(refusal({.path = path, .rotate_bytes = 1}), Contains("Is a directory"));
  write_file(folder / "file", "");
  CHECK_THAT(refusal({.path = folder / "file/events.ndjson"}), Contains("Not a directory"));
  CHECK_THAT(refusal({.path = "/dev/null", .rotate_bytes = 1}), Contains("/dev/null"));
  std::filesystem::create_symlink(folder / "file", folder / "link.ndjson.part");
  CHECK_THAT(refusal({.path = folder / "link.ndjson"}), Contains("link.ndjson.part"));
  CHECK(::mkfifo((folder / "fifo.part").c_str(), 0600) == 0);
  CHECK_THAT(refusal({.path = folder / "fifo"}), Contains("fifo.part: is no regular file"));
}

TEST_CASE("a folder that must not be written to is refused") {
  if (::geteuid() == 0) {
    WARN("not as root");
    return;
  }
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "closed");
  std::filesystem::permissions(folder / "closed", std::filesystem::perms{0500});
  CHECK_THAT(refusal({.path = folder / "closed/events.ndjson"}),
             Contains("closed/events.ndjson.part") && Contains("Permission denied"));
}

TEST_CASE("a second writer is refused and changes nothing") {
  const TemporaryFolder folder;
  const auto rotate_bytes = GENERATE(std::uint64_t{0}, std::uint64_t{4});
  const JsonlOptions options{.path = folder / "events.ndjson", .rotate_bytes = rotate_bytes};
  {
    JsonlAdapter adapter(options);
    const auto why = refusal(options);
    CHECK_THAT(why, Contains(folder / folder.names().at(0)));
    CHECK_THAT(why, Contains("another process writes it"));
    CHECK(deliver(adapter, {"a"}).kind() == kDelivered);
    CHECK_THAT(refusal(options), Contains("another process writes it"));
    CHECK(deliver(adapter, {"b", "c"}).kind() == kDelivered);
    CHECK_THAT(refusal(options), Contains("another process writes it"));  // in between two files
  }
  Strings lines;
  for (const auto& name : folder.names()) {
    for (const auto& line : lines_of(folder / name)) lines.push_back(line);
  }
  CHECK(lines == Strings{"a", "b", "c"});
}

TEST_CASE("the working directory may change") {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder / ".");
  JsonlAdapter adapter({.path = "events.ndjson"});
  std::filesystem::current_path(before);
  CHECK(deliver(adapter, {"a"}).kind() == kDelivered);
  adapter.close({});
  CHECK(lines_of(folder / "events.ndjson") == Strings{"a"});
}

}  // namespace
