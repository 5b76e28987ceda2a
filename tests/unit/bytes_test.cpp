#include "shard/bytes.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

using shard::Bytes;
using shard::Key;

TEST_CASE("bytes are made from text, containers and spans of one-byte elements", "[R-A12]") {
  const std::string text("a\0b", 3);
  const std::vector<std::byte> vector{std::byte{'a'}, std::byte{0}, std::byte{'b'}};
  const std::array<std::uint8_t, 3> array{'a', 0, 'b'};
  const Bytes from_text = text;
  CHECK(from_text.size() == 3);
  CHECK(from_text.text() == text);
  CHECK(Bytes(vector) == from_text);
  CHECK(Bytes(array) == from_text);
  CHECK(Bytes(std::span(vector)) == from_text);
  CHECK(Bytes(std::string_view(text)) == from_text);
  CHECK(Bytes(from_text.data(), from_text.size()) == from_text);
  CHECK(from_text.span().size() == 3);
  CHECK(from_text.span()[1] == std::byte{0});
}

TEST_CASE("a view of bytes refers to them and does not copy", "[R-A12]") {
  std::string text = "before";
  const Bytes view = text;
  text[0] = 'B';
  CHECK(view.text() == "Before");
}

TEST_CASE("wider elements are no bytes", "[R-A12]") {
  STATIC_REQUIRE_FALSE(std::is_constructible_v<Bytes, const std::vector<int>&>);
  STATIC_REQUIRE_FALSE(std::is_constructible_v<Bytes, const std::u16string&>);
  STATIC_REQUIRE_FALSE(std::is_constructible_v<Key, const std::vector<int>&>);
}

TEST_CASE("bytes compare by content, and no bytes are equal wherever they are", "[R-A12]") {
  CHECK(Bytes{} == Bytes{""});
  CHECK(Bytes{}.empty());
  CHECK_FALSE(Bytes{std::string_view{"a\0b", 3}} == Bytes{std::string_view{"a\0c", 3}});
  CHECK_FALSE(Bytes{"a"} == Bytes{std::string_view{"a\0", 2}});
}

TEST_CASE("a key is never made from bytes by accident", "[R-A12]") {
  STATIC_REQUIRE_FALSE(std::is_convertible_v<const char*, Key>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<std::string, Key>);
  CHECK(Key{"k"}.bytes == Bytes{"k"});
  CHECK(Key{std::string{"k"}}.bytes.size() == 1);
}
