#include "shard/buffer.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

#include "support/counted_buffer.hpp"

using shard::Buffer;
using shard::BufferAccess;

TEST_CASE("a buffer takes a container over without copying its bytes", "[R-A9]") {
  std::string text(100, 'x');
  const auto* const data = text.data();
  const auto buffer = Buffer::adopt(std::move(text));
  CHECK(static_cast<const void*>(buffer.bytes().data()) == data);
  CHECK(buffer.bytes().size() == 100);

  std::vector<std::byte> bytes(100, std::byte{1});
  const auto* const first = bytes.data();
  CHECK(Buffer::adopt(std::move(bytes)).bytes().data() == first);
}

TEST_CASE("a short string in a buffer stays valid when the buffer is moved", "[R-A12]") {
  auto buffer = Buffer::adopt(std::string("short"));
  const auto moved = std::move(buffer);
  CHECK(moved.bytes().text() == "short");
}

TEST_CASE("a copy has the bytes of the original and does not refer to it", "[R-A12]") {
  std::string text("a\0b", 3);
  const auto copy = Buffer::copy_of(text);
  text[0] = 'X';
  CHECK(copy.bytes().text() == std::string("a\0b", 3));
  CHECK(Buffer::copy_of(shard::Bytes{}).empty());
}

TEST_CASE("a buffer releases its bytes once, whatever it is moved through", "[R-A7]") {
  shard_test::CountedBuffers counted;
  {
    auto first = counted.make("bytes");
    auto second = std::move(first);
    Buffer third;
    third = std::move(second);
    third.swap(first);
    auto& same = first;
    first = std::move(same);  // onto itself: changes nothing
    CHECK(first.bytes().text() == "bytes");
    CHECK(third.empty());
    CHECK(counted.released() == 0);
  }
  CHECK(counted.released() == 1);
}

TEST_CASE("assigning to a buffer releases what it had", "[R-A7]") {
  shard_test::CountedBuffers counted;
  auto buffer = counted.make("old");
  buffer = counted.make("new");
  CHECK(counted.released() == 1);
  CHECK(buffer.bytes().text() == "new");
  buffer = Buffer{};
  CHECK(counted.released() == 2);
}

TEST_CASE("memory without a release function is left alone", "[R-A7]") {
  const auto buffer = Buffer::adopt("static", nullptr, nullptr);
  CHECK(buffer.bytes().text() == "static");
}

TEST_CASE("a chain releases each of its buffers once, at its end", "[R-A7]") {
  shard_test::CountedBuffers counted;
  {
    BufferAccess::Chain chain;
    for (int i = 0; i < 3; ++i) {
      auto buffer = counted.make("bytes");
      chain.add(BufferAccess::release(buffer));
      CHECK(buffer.empty());
    }
    CHECK(counted.released() == 0);
  }
  CHECK(counted.released() == 3);
}
