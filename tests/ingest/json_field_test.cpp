#include "json_field.hpp"

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace ingest {

std::ostream& operator<<(std::ostream& out, JsonField::Found found) {
  switch (found) {
    case JsonField::Found::value:
      return out << "value";
    case JsonField::Found::nothing:
      return out << "nothing";
    case JsonField::Found::structure:
      return out << "structure";
    case JsonField::Found::no_json:
      return out << "no_json";
  }
  return out << "?";
}

}  // namespace ingest

namespace {

using namespace std::string_literals;
using ingest::json_error;
using ingest::JsonField;
using nlohmann::json;
using Found = JsonField::Found;

Found kind_of(const std::string& pointer, std::string_view text) {
  return JsonField(pointer).find(text);
}

/// The text of the value, or nothing if there is none.
std::optional<std::string> value_of(const std::string& pointer, std::string_view text) {
  JsonField field(pointer);
  if (field.find(text) != Found::value) return std::nullopt;
  return field.text();
}

std::string repeated(std::string_view text, std::size_t times) {
  std::string all;
  all.reserve(text.size() * times);
  for (std::size_t i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace

TEST_CASE("a pointer leads through objects and arrays to a value", "[ingest]") {
  const auto* text = R"({"a": {"b": [10, {"c": "x"}, [20, 21]]}, "b": "y"})";
  CHECK(value_of("/b", text) == "y");
  CHECK(value_of("/a/b/0", text) == "10");
  CHECK(value_of("/a/b/1/c", text) == "x");
  CHECK(value_of("/a/b/2/1", text) == "21");
}

TEST_CASE("the same names elsewhere in the text do not mislead", "[ingest]") {
  const auto* text = R"({"x": {"a": 1, "b": {"a": 2}}, "y": [{"a": 3}], "a": 4, "z": {"a": 5}})";
  CHECK(value_of("/a", text) == "4");
  CHECK(value_of("/x/b/a", text) == "2");
  CHECK(value_of("/y/0/a", text) == "3");
  CHECK(value_of("/z/a", text) == "5");
  // "b" is the name of the value before.
  CHECK(kind_of("/b", R"({"a": "b", "c": 1})") == Found::nothing);
}

TEST_CASE("a pointer spells ~ as ~0 and / as ~1", "[ingest]") {
  const auto* text = R"({"a/b": 1, "m~n": 2, "~1": 3, "/": 4, "~": 5})";
  CHECK(value_of("/a~1b", text) == "1");
  CHECK(value_of("/m~0n", text) == "2");
  CHECK(value_of("/~01", text) == "3");
  CHECK(value_of("/~1", text) == "4");
  CHECK(value_of("/~0", text) == "5");
}

TEST_CASE("an empty pointer is the whole text, and a name may be empty", "[ingest]") {
  CHECK(value_of("", "\"all\"") == "all");
  CHECK(value_of("", " 17 ") == "17");
  CHECK(kind_of("", "null") == Found::nothing);
  CHECK(kind_of("", "{}") == Found::structure);
  CHECK(kind_of("", "[1]") == Found::structure);
  const auto* text = R"({"": {"": "deep"}, "x": 1})";
  CHECK(value_of("//", text) == "deep");
  CHECK(kind_of("/", text) == Found::structure);
  CHECK(kind_of("///", text) == Found::nothing);
}

TEST_CASE("what is no pointer is refused", "[ingest]") {
  for (const auto* pointer : {"a", "a/b", "/~", "/~2", "/a~", " /a"}) {
    CAPTURE(pointer);
    CHECK_THROWS_AS(JsonField(pointer), json::parse_error);
  }
}

TEST_CASE("numbers and booleans are taken as they are written", "[ingest]") {
  for (const auto* number : {"0", "-7", "18446744073709551615", "-9223372036854775808",
                             "18446744073709551616", "1.50", "1e3", "1E+3", "-0.0",
                             "123456789012345678901234567890", "0.1000000000000000055511151231"}) {
    CAPTURE(number);
    CHECK(value_of("/n", R"({"n": )" + std::string(number) + "}") == number);
  }
  CHECK(value_of("/b", R"({"b": true})") == "true");
  CHECK(value_of("/b", R"({"b": false})") == "false");
}

TEST_CASE("a string is taken by its content, escapes and all", "[ingest]") {
  CHECK(value_of("/s", R"({"s": "a\"\\\/\n\t"})") == "a\"\\/\n\t");
  CHECK(value_of("/s", R"({"s": "\u00e4\u20ac\ud83d\ude00"})") ==
        "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
  CHECK(value_of("/s", "{\"s\": \"\xc3\xa4\"}") == "\xc3\xa4");
  CHECK(value_of("/s", R"({"s": "a\u0000b"})") == "a\0b"s);
  CHECK(value_of("/s", R"({"s": ""})") == "");
  CHECK(value_of("/s", R"({"\u0073": 1})") == "1");  // a name, too
}

TEST_CASE("where there is no value, or null, there is nothing", "[ingest]") {
  for (const auto* text :
       {"{}", "[]", "1", "\"a\"", "null", R"({"a": null})", R"({"b": 1})", R"({"a": {}})"}) {
    CAPTURE(text);
    CHECK(kind_of("/a/b", text) == Found::nothing);
  }
  CHECK(kind_of("/a", R"({"a": null})") == Found::nothing);
  CHECK(kind_of("/a", R"({"A": 1, "ab": 2, "": 3})") == Found::nothing);
}

TEST_CASE("an element of an array is named by its index, without leading zeros", "[ingest]") {
  const auto* text = R"([5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])";
  CHECK(value_of("/0", text) == "5");
  CHECK(value_of("/10", text) == "15");
  for (const auto* pointer : {"/11", "/00", "/01", "/-", "/-1", "/+1", "/1.0", "/", "/a", "/ 1"}) {
    CAPTURE(pointer);
    CHECK(kind_of(pointer, text) == Found::nothing);
  }
  CHECK(value_of("/01", R"({"01": "a name"})") == "a name");
  CHECK(value_of("/1", R"([[1, 2], {"1": 3}, 4])").has_value() == false);
  CHECK(value_of("/1/1", R"([[1, 2], {"1": 3}, 4])") == "3");
}

TEST_CASE("an object or an array is a structure", "[ingest]") {
  for (const auto* value : {"{}", "[]", R"({"a": 1})", "[1]", "[[null]]"}) {
    CAPTURE(value);
    CHECK(kind_of("/a", R"({"a": )" + std::string(value) + R"(, "b": 1})") == Found::structure);
  }
}

TEST_CASE("with the same name twice the last one counts", "[ingest]") {
  CHECK(value_of("/a", R"({"a": 1, "b": 9, "a": 2})") == "2");
  CHECK(kind_of("/a", R"({"a": 1, "a": null})") == Found::nothing);
  CHECK(kind_of("/a", R"({"a": 1, "a": [2]})") == Found::structure);
  CHECK(value_of("/a", R"({"a": [2], "a": 1})") == "1");
  CHECK(kind_of("/a/b", R"({"a": {"b": 1}, "a": {"c": 2}})") == Found::nothing);
  CHECK(kind_of("/a/b", R"({"a": {"b": 1}, "a": 2})") == Found::nothing);
  CHECK(value_of("/a/b", R"({"a": {"b": 1}, "a": {"b": 2}})") == "2");
  CHECK(value_of("/a/0", R"({"a": [1, 2], "a": {"0": 3}})") == "3");
  CHECK(value_of("/a/0", R"({"a": {"0": 3}, "a": [1, 2]})") == "1");
}

TEST_CASE("one field can be asked of many texts, also after a bad one", "[ingest]") {
  JsonField field("/a/1");
  CHECK(field.find(R"({"a": [1, 2]})") == Found::value);
  CHECK(field.text() == "2");
  CHECK(field.find(R"({"a": [1, [)") == Found::no_json);
  CHECK_FALSE(field.error().empty());
  CHECK(field.find(R"({"a": [1]})") == Found::nothing);
  CHECK(field.error().empty());
  CHECK(field.find(R"({"a": {"1": "x"}})") == Found::value);
  CHECK(field.text() == "x");
  CHECK(field.find(R"({"a": [[], {}]})") == Found::structure);
}

TEST_CASE("text that is no JSON is told with a reason", "[ingest]") {
  for (const auto& text : {""s,
                           " "s,
                           "{"s,
                           "}"s,
                           "{\"a\": 1"s,
                           "{\"a\": 1}}"s,
                           "{\"a\": 1} x"s,
                           "{\"a\": 1,}"s,
                           "{\"a\" 1}"s,
                           "{a: 1}"s,
                           "[1 2]"s,
                           "nul"s,
                           "NaN"s,
                           "01"s,
                           "1."s,
                           "+1"s,
                           "'a'"s,
                           "\"a"s,
                           "\"\xff\""s,
                           "\"a\tb\""s,
                           "\"\\x\""s,
                           "\"\\ud800\""s,
                           "1e999999"s,
                           "{} {}"s,
                           "// x"s}) {
    CAPTURE(text);
    JsonField field("/a");
    CHECK(field.find(text) == Found::no_json);
    CHECK_FALSE(field.error().empty());
    CHECK(json_error(text) == field.error());
    CHECK(field.error().find("json.exception") == std::string::npos);
  }
  CHECK(json_error("{\"a\" 1}").find("column 6") != std::string::npos);
}

TEST_CASE("text that is JSON has no error", "[ingest]") {
  for (const auto* text :
       {"0", "-1.5e-3", "\"\"", "null", "true", " [ ] ", "{\"a\": {\"a\": [1, \"x\"]}}\t"}) {
    CAPTURE(text);
    CHECK(json_error(text).empty());
  }
}

TEST_CASE("no garbage hides behind a NUL byte", "[ingest]") {
  for (const auto& text : {"{\"a\": 1}\0"s, "{\"a\": 1}\0garbage"s, "{\"a\": 1\0}"s, "\0"s, "\0{}"s,
                           "{\"a\": \"\0\"}"s}) {
    CAPTURE(text);
    CHECK(kind_of("/a", text) == Found::no_json);
    CHECK_FALSE(json_error(text).empty());
  }
}

TEST_CASE("a reason stays short however long the record is", "[ingest]") {
  const auto reason = json_error("\"" + std::string(1'000'000, 'x'));
  CHECK(reason.size() < 300);
  CHECK_FALSE(reason.empty());
  CHECK(json_error(std::string(1'000'000, '\x01')).size() < 300);
}

TEST_CASE("a hundred thousand levels are read without a crash", "[ingest]") {
  constexpr std::size_t kDeep = 100'000;
  const auto arrays = repeated("[", kDeep) + repeated("]", kDeep);
  const auto objects = repeated("{\"a\":", kDeep) + "1" + repeated("}", kDeep);
  CHECK(json_error(arrays).empty());
  CHECK(json_error(objects).empty());
  CHECK(kind_of("", arrays) == Found::structure);
  CHECK(kind_of("/0/0/0", arrays) == Found::structure);
  CHECK(kind_of("/0/1", arrays) == Found::nothing);
  CHECK(kind_of("/a/a", objects) == Found::structure);
  CHECK(value_of("/b", "{\"a\": " + arrays + ", \"b\": 1}") == "1");
  CHECK(kind_of("/0", repeated("[", kDeep)) == Found::no_json);
  CHECK(value_of(repeated("/a", 100), repeated("{\"a\":", 100) + "1" + repeated("}", 100)) == "1");
}

namespace {

using Tokens = std::vector<std::string>;

/// Random JSON, and names that come twice in an object.
class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  std::string value(int depth = 0) {
    switch (pick(depth < 4 ? 9 : 6)) {
      case 0:
        return "null";
      case 1:
        return pick(2) == 0 ? "true" : "false";
      case 2:
        return std::to_string(pick(1'000));
      case 3:
        return "-" + std::to_string(pick(1'000)) + ".5";
      case 4:
        return json(token()).dump();
      case 5:
        return "\"\"";
      case 6:
        return "[" + members(depth, false) + "]";
      default:
        return "{" + members(depth, true) + "}";
    }
  }
  Tokens tokens() {
    Tokens tokens(pick(5));
    for (auto& one : tokens) one = token();
    return tokens;
  }

 private:
  std::size_t pick(std::size_t below) { return random_() % below; }
  std::string token() {
    static const Tokens all{"a", "b", "0", "1", "2", "01", "-", "", "~", "/", "\xc3\xa4"};
    return all[pick(pick(2) == 0 ? 4 : all.size())];
  }
  std::string members(int depth, bool named) {
    std::string text;
    for (auto left = pick(5); left != 0; --left) {
      if (named) text += json(token()).dump(-1, ' ', pick(2) == 0) + ": ";
      text += value(depth + 1) + (left == 1 ? " " : ",");
    }
    return text;
  }

  std::mt19937_64 random_;
};

std::string pointer_of(const Tokens& tokens) {
  json::json_pointer pointer;
  for (const auto& token : tokens) pointer /= token;
  return pointer.to_string();
}

/// The same by way of the whole document.
const json* look_up(const json& document, const Tokens& tokens) {
  const json* at = &document;
  for (const auto& token : tokens) {
    if (at->is_object() && at->contains(token)) {
      at = &(*at)[token];
    } else if (at->is_array() && token.size() == 1 && token[0] >= '0' && token[0] <= '9' &&
               static_cast<std::size_t>(token[0] - '0') < at->size()) {
      at = &(*at)[static_cast<std::size_t>(token[0] - '0')];
    } else {
      return nullptr;
    }
  }
  return at;
}

}  // namespace

TEST_CASE("a field is what the whole document has at that place", "[ingest]") {
  const auto seed = GENERATE(take(5, random(0U, 4'000'000'000U)));
  CAPTURE(seed);
  Generator generator(seed);
  std::size_t values = 0;
  for (int i = 0; i < 2'000; ++i) {
    const auto tokens = generator.tokens();
    const auto pointer = pointer_of(tokens);
    JsonField field(pointer);
    for (int j = 0; j < 3; ++j) {
      const auto text = generator.value();
      CAPTURE(text, pointer);
      const auto document = json::parse(text);
      const auto* there = look_up(document, tokens);
      const auto found = field.find(text);
      if (there == nullptr || there->is_null()) {
        REQUIRE(found == Found::nothing);
      } else if (there->is_structured()) {
        REQUIRE(found == Found::structure);
      } else {
        ++values;
        REQUIRE(found == Found::value);
        REQUIRE(field.text() == (there->is_string() ? there->get<std::string>() : there->dump()));
      }
    }
  }
  CHECK(values > 100);  // or the test would say little
}

TEST_CASE("a text that is cut short is no JSON, wherever it is cut", "[ingest]") {
  const auto text = R"({"a": [1, {"b": "\u00e4x"}, true], "c": {"d": null}})"s;
  JsonField field("/a/1/b");
  REQUIRE(field.find(text) == Found::value);
  for (std::size_t size = 0; size < text.size(); ++size) {
    CAPTURE(size);
    CHECK(field.find(std::string_view(text).substr(0, size)) == Found::no_json);
  }
}
