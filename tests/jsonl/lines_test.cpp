// What stands in the files.

#include "jsonl/jsonl_support.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <string>

#include "alloc/allocation_counter.hpp"
#include "shard/options.hpp"

namespace {

using namespace std::string_literals;

using shard::Delivery;
using shard::JsonlAdapter;
using shard::JsonlOptions;
using shard_test::deliver;
using shard_test::Events;
using shard_test::frames_of;
using shard_test::lines_of;
using shard_test::noise;
using shard_test::numbered_lines;
using shard_test::read_file;
using shard_test::Strings;
using shard_test::TemporaryFolder;
using shard_test::text_of;
using shard_test::operator+;

TEST_CASE("payloads come out as lines, byte for byte, in order", "[R-A12]") {
  const TemporaryFolder folder;
  const auto path = folder / GENERATE("events.ndjson", "events.ndjson.zst", "events");
  const Strings first{R"({"a": 1})", "", "\r", "nul\0nul"s, "\xFF\xFE no UTF-8", "{\"a\": 1}\r"};
  const Strings second = numbered_lines("line", 1'000);
  JsonlAdapter adapter({.path = path});
  CHECK(deliver(adapter, first).kind() == Delivery::Kind::delivered);
  CHECK(deliver(adapter, second).kind() == Delivery::Kind::delivered);
  adapter.close({});
  CHECK(lines_of(path) == first + second);
  CHECK(folder.names().size() == 1);
}

TEST_CASE("a payload with a line feed is refused by its index and the others are there", "[R-G9]") {
  const TemporaryFolder folder;
  const auto path = folder / GENERATE("events.ndjson", "events.ndjson.zst");
  JsonlAdapter adapter({.path = path});
  const auto answer = deliver(adapter, {"a\n", "b", "\n", "c", "d\ne", "f", "\nf"});
  CHECK(answer.kind() == Delivery::Kind::delivered_except);
  CHECK(answer.indices() == std::vector<std::size_t>{0, 2, 4, 6});
  CHECK(answer.reason().text() == "a payload with a line feed in it is not one line");

  SECTION("and a batch of nothing else is refused") {
    const auto none = deliver(adapter, {"\n", "a\nb"});
    CHECK(none.kind() == Delivery::Kind::refuse);
    CHECK(none.reason() == answer.reason());
  }
  CHECK(adapter.counts().lines == 3);
  adapter.close({});
  CHECK(lines_of(path) == Strings{"b", "c", "f"});
}

TEST_CASE("a compressed batch is one frame that knows its size and has a checksum") {
  const TemporaryFolder folder;
  const auto path = folder / "events.zst";
  JsonlAdapter adapter({.path = path, .compression_level = 19});
  CHECK(deliver(adapter, {"a", "b"}).kind() == Delivery::Kind::delivered);
  CHECK(deliver(adapter, {"c"}).kind() == Delivery::Kind::delivered);
  adapter.close({});
  const auto bytes = read_file(path);
  CHECK(frames_of(bytes) == Strings{"a\nb\n", "c\n"});
  CHECK((static_cast<unsigned char>(bytes.at(4)) & 4U) != 0);  // the flag of the checksum
  CHECK(adapter.counts().bytes == bytes.size());
}

TEST_CASE("large payloads and batches are written whole") {
  const TemporaryFolder folder;
  const auto path = folder / GENERATE("events.ndjson", "events.ndjson.zst");
  const Strings large{noise(3'000'000, 1), "small", noise(1, 2), noise(5'000'000, 3)};
  const auto many = numbered_lines("line", 16'000);
  {
    JsonlAdapter adapter({.path = path});
    CHECK(deliver(adapter, {"first"}).kind() == Delivery::Kind::delivered);
    CHECK(deliver(adapter, large).kind() == Delivery::Kind::delivered);
    CHECK(deliver(adapter, many).kind() == Delivery::Kind::delivered);
  }
  CHECK(lines_of(path) == Strings{"first"} + large + many);
}

TEST_CASE("what was written is counted as it is in the file") {
  const TemporaryFolder folder;
  JsonlAdapter adapter({.path = folder / "events.json"});
  CHECK(adapter.counts().lines == 0);
  CHECK(deliver(adapter, {"abc", "", "de"}).kind() == Delivery::Kind::delivered);
  CHECK(adapter.counts().lines == 3);
  CHECK(adapter.counts().bytes == 8);
  CHECK(adapter.counts().files == 0);
  adapter.close({});
  CHECK(adapter.counts().files == 1);
  CHECK(adapter.last_error().empty());
  CHECK(adapter.name() == "jsonl");
}

TEST_CASE("in steady state nothing is allocated", "[R-F6]") {
  const TemporaryFolder folder;
  const auto path = folder / GENERATE("events.ndjson", "events.ndjson.zst");
  JsonlAdapter adapter(
      {.path = path, .sync = GENERATE(shard::JsonlSync::on_close, shard::JsonlSync::batch)});
  const Events events(numbered_lines("line", 1'000));
  const auto batch = events.batch();
  std::uint64_t delivered = 0;
  const auto round = [&] {
    delivered += adapter.deliver(batch, {}).kind() == Delivery::Kind::delivered ? 1U : 0U;
  };
  round();
  const shard_test::AllocationScope scope;
  for (int i = 0; i < 20; ++i) round();
  const auto allocations = scope.count();
  CHECK(allocations == 0);
  CHECK(delivered == 21);
}

TEST_CASE("whichever allocation fails, no line is lost, torn or there twice") {
  const TemporaryFolder folder;
  const auto path = folder / GENERATE("events.ndjson", "events.ndjson.zst");
  const Strings payloads{"a", "b\n", "c"};
  const Events events(payloads);
  const auto batch = events.batch();
  std::size_t batches = 0;
  {
    bool failed = true;
    for (std::uint64_t n = 1; failed; ++n) {
      std::filesystem::remove(path);
      JsonlAdapter adapter({.path = path});
      batches = 0;
      {
        const shard_test::AllocationFailure failure(n);
        try {
          batches +=
              adapter.deliver(batch, {}).kind() == Delivery::Kind::delivered_except ? 1U : 0U;
        } catch (const std::bad_alloc&) {
          batches += 0;
        }
        failed = failure.happened();
      }
      CHECK(batches == (failed ? 0 : 1));
      CHECK(adapter.deliver(batch, {}).kind() == Delivery::Kind::delivered_except);
      adapter.close({});
      Strings expected{"a", "c"};
      CHECK(lines_of(path) == (batches == 0 ? expected : expected + expected));
    }
  }
}

// ---------------------------------------------------------------------------------- options

TEST_CASE("options out of bounds are refused by name", "[R-J1]") {
  const auto field_of = [](JsonlOptions options) {
    if (options.path.empty()) options.path = "/nowhere/events.ndjson";
    try {
      options.validate();
      return ""s;
    } catch (const shard::ConfigError& error) {
      CHECK_THROWS_AS(JsonlAdapter(options), shard::ConfigError);
      CHECK(std::string(error.what()).find(error.field()) != std::string::npos);
      return error.field();
    }
  };
  using std::chrono::hours;
  using std::chrono::milliseconds;
  using std::chrono::seconds;
  CHECK(field_of({}).empty());
  CHECK(field_of({.path = "events"}).empty());
  CHECK_THROWS_AS(JsonlOptions{}.validate(), shard::ConfigError);
  CHECK(field_of({.path = "/"}) == "path");
  CHECK(field_of({.path = "folder/"}) == "path");
  CHECK(field_of({.path = "."}) == "path");
  CHECK(field_of({.path = "folder/.."}) == "path");
  CHECK(field_of({.path = "a\0b"s}) == "path");
  CHECK(field_of({.existing = static_cast<shard::JsonlExisting>(3)}) == "existing");
  CHECK(field_of({.rotate_after = seconds{-1}}) == "rotate_after");
  CHECK(field_of({.rotate_after = seconds{1}}).empty());
  CHECK(field_of({.rotate_after = hours{24 * 3653}}).empty());
  CHECK(field_of({.rotate_after = hours{24 * 3654}}) == "rotate_after");
  CHECK(field_of({.rotate_after = seconds::max()}) == "rotate_after");
  CHECK(field_of({.sync = static_cast<shard::JsonlSync>(4)}) == "sync");
  CHECK(field_of({.sync_interval = milliseconds{0}}) == "sync_interval");
  CHECK(field_of({.sync_interval = milliseconds{1}}).empty());
  CHECK(field_of({.sync_interval = hours{1}}).empty());
  CHECK(field_of({.sync_interval = hours{1} + milliseconds{1}}) == "sync_interval");
  CHECK(field_of({.compression_level = 0}) == "compression_level");
  CHECK(field_of({.compression_level = 20}) == "compression_level");
}

TEST_CASE("the options' words are those of the code") {
  using shard::JsonlExisting;
  using shard::JsonlSync;
  CHECK(to_string(JsonlSync::never) == "never");
  CHECK(to_string(JsonlSync::on_close) == "on_close");
  CHECK(to_string(JsonlSync::interval) == "interval");
  CHECK(to_string(JsonlSync::batch) == "batch");
  CHECK(to_string(static_cast<JsonlSync>(9)) == "unknown");
  CHECK(to_string(JsonlExisting::fail) == "fail");
  CHECK(to_string(JsonlExisting::append) == "append");
  CHECK(to_string(JsonlExisting::replace) == "replace");
  CHECK(to_string(static_cast<JsonlExisting>(9)) == "unknown");
}

}  // namespace
