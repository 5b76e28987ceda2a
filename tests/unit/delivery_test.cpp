#include "shard/delivery.hpp"

#include <catch2/catch.hpp>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace {

using shard::Delivery;
using shard::Reason;
using Indices = std::vector<std::size_t>;

}  // namespace

TEST_CASE("a reason is a text that is cut off where it ends") {
  STATIC_REQUIRE(std::is_trivially_copyable_v<Reason>);  // so it owns nothing
  CHECK(Reason{}.empty());
  CHECK(Reason("").empty());
  CHECK(Reason("connection lost").text() == "connection lost");
  const std::string made = "error " + std::to_string(17);
  CHECK(Reason(made).text() == "error 17");
  CHECK(Reason(std::string_view("a\0b", 3)).text().size() == 3);
  const std::string longest(Reason::kMaxSize, 'x');
  CHECK(Reason(longest).text() == longest);
  CHECK(Reason(longest + "y").text() == longest);
  CHECK(Reason(std::string(100'000, 'x')).text() == longest);
  CHECK_FALSE(Reason("x").empty());
}

TEST_CASE("reasons are equal when their texts are") {
  CHECK(Reason("a") == Reason("a"));
  CHECK_FALSE(Reason("a") == Reason("b"));
  CHECK_FALSE(Reason("a") == Reason("ab"));
  Reason assigned = "a longer text";
  assigned = "a";
  CHECK(assigned == Reason("a"));
}

TEST_CASE("an answer for a whole batch says which") {
  CHECK(Delivery::delivered().kind() == Delivery::Kind::delivered);
  CHECK(Delivery::delivered().reason().empty());
  const auto retry = Delivery::retry("no route " + std::to_string(3));
  CHECK(retry.kind() == Delivery::Kind::retry);
  CHECK(retry.reason().text() == "no route 3");
  const auto refuse = Delivery::refuse("no such table");
  CHECK(refuse.kind() == Delivery::Kind::refuse);
  CHECK(refuse.reason().text() == "no such table");
  const auto unknown = Delivery::unknown("timed out");
  CHECK(unknown.kind() == Delivery::Kind::unknown);
  CHECK(unknown.reason().text() == "timed out");
  for (const auto& delivery : {Delivery::delivered(), retry, refuse, unknown}) {
    CHECK(delivery.count() == 0);
    CHECK(delivery.indices().empty());
  }
}

TEST_CASE("an answer for the first events of a batch says how many") {
  const auto some = Delivery::delivered(120, "disk full");
  CHECK(some.kind() == Delivery::Kind::delivered_prefix);
  CHECK(some.count() == 120);
  CHECK(some.reason().text() == "disk full");
  CHECK(some.indices().empty());
  CHECK(Delivery::delivered(0).kind() == Delivery::Kind::delivered_prefix);
}

TEST_CASE("an answer for some events of a batch has their indices in order, each once") {
  const auto refused = Delivery::refuse({17, 3, 17, 0, 3}, "no such column");
  CHECK(refused.kind() == Delivery::Kind::refuse_some);
  CHECK(refused.indices() == Indices{0, 3, 17});
  CHECK(refused.reason().text() == "no such column");

  const Indices given{9, 8, 8};
  const auto except = Delivery::delivered_except(given, "too wide");
  CHECK(except.kind() == Delivery::Kind::delivered_except);
  CHECK(except.indices() == Indices{8, 9});
  CHECK(except.reason().text() == "too wide");

  CHECK(Delivery::refuse(given, "too wide").indices() == Indices{8, 9});
  CHECK(Delivery::delivered_except({4}, "bad").indices() == Indices{4});
  CHECK(Delivery::refuse({0}, "bad").indices() == Indices{0});
  CHECK(Delivery::refuse({}, "none").kind() == Delivery::Kind::refuse_some);
  CHECK(Delivery::refuse({}, "none").indices().empty());
}

TEST_CASE("the errors that an adapter may throw carry their text") {
  CHECK(shard::RetryableError("later").what() == std::string("later"));
  CHECK(shard::PermanentError("never").what() == std::string("never"));
  STATIC_REQUIRE_FALSE(std::is_base_of_v<std::logic_error, shard::RetryableError>);
}
