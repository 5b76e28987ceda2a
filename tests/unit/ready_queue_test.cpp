// The ready queue, in one thread: what is claimed, in which order and when, and who is woken for it. While one sleeps or spins
// the platform lets the test act as another thread would. tests/schedule/ready_queue_test.cpp has the interleavings.

#include "shard/detail/ready_queue.hpp"

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/manual_clock.hpp"

namespace {

using shard::Clock;
using shard::Timestamp;
using shard::detail::Rest;

constexpr std::optional<Timestamp> kNoDeadline{};
constexpr Timestamp at(std::uint64_t time) { return Timestamp{time}; }

/// What one park found: until when it would have slept, and whether what happened meanwhile has changed the word.
struct Parked {
  std::optional<Timestamp> deadline;
  bool woken = false;
  bool operator==(const Parked&) const = default;
};

/// Parks nobody: instead of that it runs the next of `meanwhile`.
struct StagedPlatform {
  template <class T>
  using Atomic = std::atomic<T>;
  using Word = Atomic<std::uint32_t>;

  static inline std::deque<std::function<void()>> meanwhile{};
  static inline std::vector<Parked> parked{};  ///< in the order in which they return
  static inline std::size_t ones = 0;          ///< calls of unpark_one()
  static inline std::size_t alls = 0;

  static void reset() {
    meanwhile.clear();
    parked.clear();
    ones = alls = 0;
  }
  static void relax() noexcept {}
  static constexpr int kSpins = 1;
  static void yield() noexcept {}
  static constexpr int kYields = 1;
  static void park(const Word& word, std::uint32_t expected) noexcept {
    stay(word, expected, std::nullopt);
  }
  static bool park_until(const Word& word, std::uint32_t expected, const Clock& /*clock*/,
                         Timestamp deadline) noexcept {
    return stay(word, expected, deadline);
  }
  static void unpark_one(const Word& /*word*/) noexcept { ++ones; }
  static void unpark_all(const Word& /*word*/) noexcept { ++alls; }
  static bool enable_process_barrier() noexcept { return false; }
  static bool process_barrier() noexcept { return false; }

 private:
  static bool stay(const Word& word, std::uint32_t expected, std::optional<Timestamp> deadline) {
    if (word.load() != expected || deadline == Timestamp{}) return word.load() != expected;
    if (!meanwhile.empty()) {
      const auto act = std::move(meanwhile.front());
      meanwhile.pop_front();
      act();
    }
    parked.push_back({deadline, word.load() != expected});
    return parked.back().woken;
  }
};

using Queue = shard::detail::ReadyQueue<StagedPlatform>;
using Parks = std::vector<Parked>;
struct Node final : shard::detail::ReadyNode {};

/// A queue and nodes a, b, c, ...
struct Stage {
  explicit Stage(std::size_t max_claims = Queue::kNoLimit) : queue(clock, max_claims) {
    StagedPlatform::reset();
  }

  shard_test::ManualClock time;
  Clock clock{&time};
  Queue queue;
  std::array<Node, 4> nodes;
  Node& a = nodes[0];
  Node& b = nodes[1];
  Node& c = nodes[2];
  Node& d = nodes[3];

  /// The letter of the next node that is claimed; '-': none.
  char claim(Timestamp now = {}) {
    const auto* const node = queue.claim(now).node;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (node == &nodes[i]) return static_cast<char>('a' + i);
    }
    return node == nullptr ? '-' : '?';
  }
  /// All that can be claimed, in order.
  std::string claim_all(Timestamp now = {}) {
    std::string letters;
    for (char letter = claim(now); letter != '-' && letters.size() < 10; letter = claim(now)) {
      letters += letter;
    }
    return letters;
  }
  /// Brings it there by a pass that ends so.
  void put(Node& node, Rest rest, Timestamp due = {}) {
    queue.announce(node);
    REQUIRE(queue.claim(Timestamp{}).node == &node);
    queue.release(node, rest, false, due);
  }
  /// Sleeps once. What others do meanwhile: one function for each park, in the order in which they come.
  template <class... Acts>
  void sleep(const Acts&... acts) {
    (StagedPlatform::meanwhile.emplace_back(acts), ...);
    queue.sleep(ticket());
  }
  std::uint32_t ticket() {
    const auto claim = queue.claim(Timestamp{});
    REQUIRE(claim.node == nullptr);
    return claim.ticket;
  }
  /// Has `act` notified who waits for progress?
  template <class Act>
  bool tells(const Act& act) {
    const auto before = queue.progress.prepare();
    act();
    return queue.progress.wait_until(before, clock, Timestamp{});
  }
};

std::size_t woken() { return std::exchange(StagedPlatform::ones, 0); }
Parks parks() { return std::exchange(StagedPlatform::parked, {}); }

}  // namespace

// ---------------------------------------------------------------------------------- places

TEST_CASE("nodes are claimed in the order in which they were announced, each once") {
  Stage test;
  CHECK(test.claim() == '-');
  CHECK(test.queue.next_due() == Timestamp::max());
  for (auto* const node : {&test.a, &test.b, &test.a, &test.c}) test.queue.announce(*node);
  CHECK(test.queue.next_due() == Timestamp{});
  CHECK(test.claim_all() == "abc");
  CHECK(test.queue.next_due() == Timestamp::max());
}

TEST_CASE("a node that is announced while it is claimed is ready again after that pass, once",
          "[R-G7]") {
  Stage test;
  test.queue.announce(test.a);
  REQUIRE(test.claim() == 'a');
  const auto rest = GENERATE(Rest::idle, Rest::unwatched, Rest::later, Rest::fenced, Rest::again);
  test.queue.announce(test.a);
  CHECK(test.claim() == '-');
  test.queue.release(test.a, rest, false, at(100));
  CHECK_FALSE(test.queue.unwatched(test.a));
  CHECK(test.claim() == 'a');
  test.queue.release(test.a, Rest::idle, false);
  CHECK(test.claim() == '-');
  CHECK(test.queue.next_due() == Timestamp::max());
}

TEST_CASE("a node that has more to do goes behind all others", "[R-G1]") {
  Stage test;
  for (auto* const node : {&test.a, &test.b, &test.c}) test.queue.announce(*node);
  std::string order;
  for (int i = 0; i < 6; ++i) {
    const auto claim = test.queue.claim(Timestamp{});
    REQUIRE(claim.node != nullptr);
    order += static_cast<char>('a' + (static_cast<Node*>(claim.node) - test.nodes.data()));
    test.queue.release(*claim.node, Rest::again, false);
  }
  CHECK(order == "abcabc");
  CHECK(test.claim() == 'a');
  test.queue.release(test.a, Rest::idle, false);
  test.queue.moved();  // none of them was fenced
  CHECK(test.claim_all() == "bc");
}

TEST_CASE("who waits is claimed when it is due, first what is due first, and not before",
          "[R-F2]") {
  Stage test;
  test.put(test.a, Rest::later, at(30));
  test.put(test.b, Rest::later, at(10));
  test.put(test.c, Rest::later, at(30));
  test.put(test.d, Rest::later, at(20));
  CHECK(test.queue.next_due() == at(10));
  CHECK(test.claim_all(at(9)).empty());
  CHECK(test.claim_all(at(10)) == "b");
  CHECK(test.queue.next_due() == at(20));
  SECTION("in turn") {
    CHECK(test.claim_all(at(29)) == "d");
    CHECK(test.claim_all(at(30)) == "ac");
  }
  SECTION("all at once") { CHECK(test.claim_all(at(1'000)) == "dac"); }
  SECTION("when it is announced it waits no longer, whatever its place") {
    using Case = std::pair<char, std::string>;
    const auto [chosen, others] = GENERATE(Case{'a', "dc"}, Case{'c', "da"}, Case{'d', "ac"});
    test.queue.announce(test.nodes.at(static_cast<std::size_t>(chosen - 'a')));
    CHECK(test.queue.next_due() == Timestamp{});
    CHECK(test.claim_all() == std::string(1, chosen));
    CHECK(test.claim_all(at(30)) == others);
  }
  CHECK(test.queue.next_due() == Timestamp::max());
}

TEST_CASE("fenced nodes are ready when any shard has moved on, in the order in which they came",
          "[R-D15]") {
  Stage test;
  test.queue.moved();  // that was before
  for (auto* const node : {&test.a, &test.b, &test.c}) test.put(*node, Rest::fenced);
  CHECK(test.claim() == '-');
  SECTION("by a pass") {
    test.queue.announce(test.d);
    REQUIRE(test.claim() == 'd');
    test.queue.release(test.d, Rest::idle, true);
    CHECK(test.claim_all() == "abc");
  }
  SECTION("by somebody else") {
    test.queue.moved();
    CHECK(test.claim_all() == "abc");
  }
  SECTION("or by themselves, when they are announced") {
    test.queue.announce(test.b);
    CHECK(test.claim_all() == "b");
    test.queue.moved();
    CHECK(test.claim_all() == "ac");
  }
}

TEST_CASE("a move during a pass lets a fenced node look once more", "[R-D15]") {
  Stage test;
  test.queue.announce(test.a);
  test.queue.announce(test.b);
  REQUIRE(test.claim_all() == "ab");
  SECTION("another's") {
    test.queue.release(test.b, Rest::idle, true);
    test.queue.release(test.a, Rest::fenced, false);
    CHECK(test.claim() == 'a');
    test.queue.release(test.a, Rest::fenced, false);
    CHECK(test.claim() == '-');
  }
  SECTION("its own moves the others only") {
    test.queue.release(test.a, Rest::fenced, true);
    test.queue.release(test.b, Rest::fenced, false);
    CHECK(test.claim_all() == "b");
  }
  SECTION("and none that is not fenced") {
    test.queue.release(test.b, Rest::idle, true);
    test.queue.release(test.a, Rest::idle, false);
    CHECK(test.claim() == '-');
  }
}

TEST_CASE("what is retired is in no place any more, and the others are where they were") {
  Stage test;
  test.put(test.a, Rest::later, at(10));
  test.put(test.b, Rest::fenced);
  SECTION("ready") {
    test.queue.announce(test.c);
    test.queue.announce(test.d);
    CHECK(test.queue.retire(test.c));
    CHECK(test.claim_all() == "d");
  }
  SECTION("waiting") {
    test.put(test.c, Rest::later, at(10));
    CHECK(test.queue.retire(test.c));
  }
  SECTION("fenced") {
    test.put(test.c, Rest::fenced);
    CHECK(test.queue.retire(test.c));
  }
  SECTION("idle") { CHECK(test.queue.retire(test.c)); }
  SECTION("idle and unwatched") {
    test.put(test.c, Rest::unwatched);
    CHECK(test.queue.retire(test.c));
    test.sleep();
    CHECK(parks() == Parks{{at(10), false}});
  }
  test.queue.announce(test.c);
  CHECK_FALSE(test.queue.try_claim(test.c));
  CHECK(test.claim() == '-');
  test.queue.moved();
  CHECK(test.claim_all() == "b");
  CHECK(test.claim_all(at(10)) == "a");
  CHECK(test.queue.next_due() == Timestamp::max());
}

TEST_CASE("what is claimed cannot be retired, and who waits is told of what was") {
  Stage test;
  test.queue.announce(test.a);
  REQUIRE(test.claim() == 'a');
  CHECK_FALSE(test.queue.retire(test.a));
  test.queue.release(test.a, Rest::again, false);
  CHECK(test.tells([&] { CHECK(test.queue.retire(test.a)); }));
  CHECK(test.claim() == '-');
}

// ---------------------------------------------------------------------------------- claims

TEST_CASE("no more nodes are claimed at a time than may be, however that is done", "[R-G1]") {
  Stage test(2);
  test.put(test.d, Rest::later, at(10));
  CHECK(test.queue.enter());
  for (auto* const node : {&test.a, &test.b}) test.queue.announce(*node);
  CHECK(test.claim_all(at(5)) == "a");
  CHECK(test.queue.next_due() == at(10));  // b has to wait for a claim to end
  CHECK_FALSE(test.queue.enter());
  CHECK_FALSE(test.queue.try_claim(test.c));
  SECTION("a claim ends") {
    test.queue.release(test.a, Rest::idle, false);
    CHECK(test.queue.next_due() == Timestamp{});
    CHECK(test.claim_all() == "b");
  }
  SECTION("who was inside leaves") {
    test.queue.leave();
    CHECK(test.claim_all() == "b");
  }
  SECTION("one that was found idle is claimed then") {
    test.queue.leave();
    CHECK(test.queue.try_claim(test.c));
    CHECK_FALSE(test.queue.try_claim(test.c));
    CHECK(test.claim() == '-');
    test.queue.announce(test.c);  // while it is claimed
    test.queue.release(test.c, Rest::idle, false);
    test.queue.release(test.a, Rest::idle, false);
    CHECK(test.claim_all() == "bc");
  }
  CHECK_FALSE(test.queue.enter());
}

TEST_CASE("only an idle node can be claimed by its name") {
  Stage test;
  CHECK(Queue::is_idle(test.a));
  test.put(test.b, Rest::later, at(10));
  test.put(test.c, Rest::fenced);
  test.queue.announce(test.a);
  for (auto* const node : {&test.a, &test.b, &test.c}) {
    CHECK_FALSE(Queue::is_idle(*node));
    CHECK_FALSE(test.queue.try_claim(*node));
  }
  CHECK(test.queue.try_claim(test.d));
  CHECK_FALSE(Queue::is_idle(test.d));
  test.queue.release(test.d, Rest::idle, false);
  CHECK(Queue::is_idle(test.d));
  test.queue.moved();
  CHECK(test.claim_all(at(10)) == "acb");
}

// ---------------------------------------------------------------------------------- unwatched

TEST_CASE("nobody parks while a node is unwatched, until it is claimed, announced or watched",
          "[R-G7]") {
  Stage test;
  CHECK_FALSE(test.queue.unwatched(test.a));
  test.put(test.a, Rest::unwatched);
  test.put(test.b, Rest::unwatched);
  CHECK(Queue::is_idle(test.a));
  const auto number = test.queue.unwatched(test.a);
  REQUIRE(number);
  test.sleep();
  CHECK(parks().empty());
  SECTION("watched") { test.queue.note_watched(test.a, *number); }
  SECTION("watched twice") {
    test.queue.note_watched(test.a, *number);
    test.queue.note_watched(test.a, *number);
  }
  SECTION("claimed, and idle later") {
    REQUIRE(test.queue.try_claim(test.a));
    test.queue.release(test.a, Rest::idle, false);
  }
  SECTION("announced") {
    test.queue.announce(test.a);
    REQUIRE(test.claim() == 'a');
  }
  CHECK_FALSE(test.queue.unwatched(test.a));
  test.sleep();
  CHECK(parks().empty());  // there is the other one
  test.queue.note_watched(test.b, *test.queue.unwatched(test.b));
  test.sleep();
  CHECK(parks() == Parks{{kNoDeadline, false}});
}

TEST_CASE("a watch that was set before the node was unwatched again is none", "[R-G7]") {
  Stage test;
  test.put(test.a, Rest::unwatched);
  const auto before = test.queue.unwatched(test.a);
  REQUIRE(test.queue.try_claim(test.a));
  test.queue.release(test.a, Rest::unwatched, false);
  test.queue.note_watched(test.a, *before);
  CHECK(test.queue.unwatched(test.a));
  CHECK(test.queue.unwatched(test.a) != before);
}

TEST_CASE("while somebody is parked no node becomes unwatched: it is looked at once more",
          "[R-G7]") {
  Stage test;
  for (auto* const node : {&test.a, &test.b}) test.queue.announce(*node);
  REQUIRE(test.claim_all() == "ab");
  CHECK_FALSE(test.queue.has_sleepers());
  test.sleep([&] {
    CHECK(test.queue.has_sleepers());
    test.queue.release(test.a, Rest::unwatched, false);
    CHECK_FALSE(test.queue.unwatched(test.a));
    CHECK(test.claim() == 'a');
    test.queue.release(test.b, Rest::idle, false);
    CHECK(test.claim() == '-');
  });
  CHECK_FALSE(test.queue.has_sleepers());
  test.queue.release(test.a, Rest::unwatched, false);
  CHECK(test.queue.unwatched(test.a));
}

// ---------------------------------------------------------------------------------- sleeping

TEST_CASE("nobody sleeps who has something to claim, or was interrupted", "[R-G7]") {
  Stage test(1);
  const auto ticket = test.ticket();
  test.queue.sleep(ticket);
  CHECK(parks() == Parks{{kNoDeadline, false}});
  test.queue.announce(test.a);
  test.queue.sleep(ticket);
  CHECK(parks().empty());
  REQUIRE(test.claim() == 'a');
  test.queue.announce(test.b);  // which cannot be claimed now
  test.sleep();
  CHECK(parks() == Parks{{kNoDeadline, false}});
  test.queue.interrupt();
  test.queue.sleep(ticket);
  CHECK(parks().empty());
  test.sleep([&] { test.queue.interrupt(); });
  CHECK(parks() == Parks{{kNoDeadline, true}});
  CHECK(StagedPlatform::alls == 2);
  CHECK(woken() == 0);
}

TEST_CASE("one sleeper is woken for each node that becomes ready, while there are any", "[R-G7]") {
  Stage test;
  test.sleep([&] { test.queue.interrupt(); });  // nobody was woken, which must leave no credit
  test.sleep([&] {
    test.sleep();
    test.queue.announce(test.a);
    CHECK(woken() == 1);
  });
  CHECK(test.claim() == 'a');
  test.queue.release(test.a, Rest::idle, false);
  CHECK(parks() == Parks{{kNoDeadline, true}, {kNoDeadline, false}, {kNoDeadline, true}});
  test.sleep([&] {
    test.sleep([&] {
      CHECK(woken() == 0);
      test.queue.announce(test.a);
      CHECK(woken() == 1);
      test.queue.announce(test.a);  // it is ready
      CHECK(woken() == 0);
      test.queue.announce(test.b);
      CHECK(woken() == 1);
      test.queue.announce(test.c);  // both are on their way
      CHECK(woken() == 0);
    });
  });
  CHECK(parks() == Parks{{kNoDeadline, true}, {kNoDeadline, true}});
  CHECK(test.claim_all() == "abc");
  test.queue.announce(test.d);
  CHECK(woken() == 0);  // nobody sleeps
}

TEST_CASE("nobody is woken for what nobody may claim", "[R-G7]") {
  Stage test(1);
  REQUIRE(test.queue.enter());
  test.sleep([&] {
    test.queue.announce(test.a);
    test.queue.moved();
    CHECK(woken() == 0);
    test.queue.leave();
    CHECK(test.queue.enter());
    CHECK(woken() == 0);
    test.queue.leave();
    test.queue.announce(test.b);
    CHECK(woken() == 1);
  });
  CHECK(parks() == Parks{{kNoDeadline, true}});
}

TEST_CASE("who ends a pass wakes nobody; who goes on to work leaves the rest to another",
          "[R-G1][R-G7]") {
  Stage test;
  for (auto* const node : {&test.a, &test.b}) test.queue.announce(*node);
  REQUIRE(test.claim_all() == "ab");
  test.sleep([&] {
    test.queue.release(test.a, Rest::again, false);
    CHECK(woken() == 0);
    SECTION("by a claim of the only one") {
      CHECK(test.claim() == 'a');
      CHECK(woken() == 0);
    }
    SECTION("by a claim of the first one") {
      test.queue.release(test.b, Rest::again, false);
      CHECK(test.claim() == 'a');
      CHECK(woken() == 1);
    }
    SECTION("by a claim of another one") {
      CHECK(test.queue.try_claim(test.c));
      CHECK(woken() == 1);
    }
    SECTION("by a claim of none in particular") {
      CHECK(test.queue.enter());
      CHECK(woken() == 1);
    }
    SECTION("when a shard has moved") {
      test.queue.release(test.b, Rest::fenced, false);
      CHECK(test.claim() == 'a');
      CHECK(woken() == 0);
      test.queue.moved();
      CHECK(woken() == 1);
    }
  });
}

TEST_CASE("one sleeper watches the first due time, the others sleep on", "[R-F2][R-G7]") {
  Stage test;
  test.put(test.a, Rest::later, at(10));
  test.queue.announce(test.b);
  REQUIRE(test.claim() == 'b');
  test.sleep([&] {
    test.sleep();
    test.queue.release(test.b, Rest::again, false);
    CHECK(test.claim() == 'b');
    CHECK(woken() == 0);  // it is watched
    test.queue.release(test.b, Rest::later, false, at(5));
    CHECK(test.queue.try_claim(test.c));
    CHECK(woken() == 1);  // this is not
    CHECK(test.queue.enter());
    CHECK(woken() == 0);  // somebody comes to see
    test.queue.leave();
    test.queue.sleep(0);
  });
  CHECK(parks() == Parks{{kNoDeadline, false}, {at(5), false}, {at(10), true}});
  test.sleep();
  CHECK(parks() == Parks{{at(5), false}});  // nobody watched any more
}

TEST_CASE("who returns from a later due time leaves an earlier one to who watches that", "[R-F2]") {
  Stage test;
  test.put(test.a, Rest::later, at(10));
  std::promise<void> parked;
  std::promise<void> go_on;
  std::thread other;
  test.sleep([&] {
    test.put(test.b, Rest::later, at(5));
    StagedPlatform::meanwhile.emplace_back([&] {
      parked.set_value();
      go_on.get_future().wait();
    });
    other = std::thread([&] { test.queue.sleep(0); });
    parked.get_future().wait();
  });
  CHECK(parks() == Parks{{at(10), true}});
  test.sleep();
  CHECK(parks() == Parks{{kNoDeadline, false}});
  go_on.set_value();
  other.join();
  CHECK(parks() == Parks{{at(5), false}});
}

TEST_CASE("who drives the pipeline is told what becomes ready while nobody else would see it",
          "[R-G10]") {
  Stage test;
  CHECK(test.tells([&] { test.queue.announce(test.a); }));
  CHECK_FALSE(test.tells([&] { test.queue.announce(test.a); }));
  REQUIRE(test.claim() == 'a');
  CHECK_FALSE(test.tells([&] { test.queue.announce(test.a); }));
  test.queue.release(test.a, Rest::idle, false);
  REQUIRE(test.claim() == 'a');
  test.queue.release(test.a, Rest::idle, false);
  CHECK(test.tells([&] { test.queue.moved(); }));
  test.sleep([&] { CHECK_FALSE(test.tells([&] { test.queue.announce(test.a); })); });
  REQUIRE(test.claim() == 'a');
  CHECK(test.queue.spin(0, Timestamp::max(), [&] {
    CHECK_FALSE(test.tells([&] { test.queue.announce(test.b); }));
    return true;
  }));
}

// ---------------------------------------------------------------------------------- spinning

namespace {

/// Spins; `act` comes in the first turn. Time goes on by 1 in each turn. Nothing: it did not end by itself.
template <class Act>
std::optional<bool> spin(Stage& test, Timestamp until, const Act& act, std::uint32_t ticket = 0) {
  std::size_t turns = 0;
  const bool found = test.queue.spin(ticket, until, [&] {
    test.time.advance(1);
    if (++turns == 1) act();
    return turns == 1'000;
  });
  return turns < 1'000 ? std::optional(found) : std::nullopt;
}

}  // namespace

TEST_CASE("who spins ends when there may be something to claim", "[R-G7]") {
  Stage test;
  test.queue.announce(test.a);
  REQUIRE(test.claim() == 'a');
  SECTION("announced") {
    CHECK(spin(test, Timestamp::max(), [&] { test.queue.announce(test.b); }) == true);
    CHECK(test.claim() == 'b');
  }
  SECTION("moved to by a fence that fell") {
    test.put(test.b, Rest::fenced);
    CHECK(spin(test, Timestamp::max(), [&] { test.queue.moved(); }) == true);
  }
  SECTION("left by a claim") {
    CHECK(spin(test, Timestamp::max(), [&] {
            test.queue.release(test.a, Rest::again, false);
            CHECK(test.queue.try_claim(test.b));
          }) == true);
  }
  SECTION("due at another time than before") {
    CHECK(spin(test, Timestamp::max(),
               [&] { test.queue.release(test.a, Rest::later, false, at(2'000)); }) == true);
  }
  SECTION("interrupted") {
    CHECK(spin(test, Timestamp::max(), [&] { test.queue.interrupt(); }) == true);
  }
  SECTION("found by looking") {
    int looks = 0;
    CHECK(test.queue.spin(0, Timestamp::max(), [&] { return ++looks == 3; }));
    CHECK(looks == 3);
  }
  CHECK(woken() == 0);
}

TEST_CASE("who spins ends when its time is over, or something is due", "[R-G7]") {
  Stage test;
  test.sleep([&] { test.queue.interrupt(); });  // earlier events are no reason
  const auto ticket = test.ticket();
  const auto nothing = [] {};
  SECTION("with nothing to do") {
    CHECK(spin(test, at(64), nothing, ticket) == false);
    CHECK(test.time.nanoseconds() >= 64);
    CHECK(test.time.nanoseconds() < 200);
  }
  SECTION("exactly then") {
    test.time.set(64);
    int looks = 0;
    CHECK_FALSE(test.queue.spin(ticket, at(64), [&] { return ++looks == 1'000; }));
  }
  SECTION("with nothing to do until then") {
    test.put(test.a, Rest::later, at(65));
    CHECK(spin(test, at(64), nothing, ticket) == false);
  }
  SECTION("with something that is due just then") {
    test.put(test.a, Rest::later, at(64));
    CHECK(spin(test, at(64), nothing, ticket) == true);
  }
  SECTION("with something that was due before") {
    test.put(test.a, Rest::later, at(40));
    CHECK(spin(test, at(900), nothing, ticket) == true);
    CHECK(test.time.nanoseconds() >= 40);
    CHECK(test.time.nanoseconds() < 200);
  }
  SECTION("with what a pass has left, of which it is not told") {
    test.queue.announce(test.a);
    REQUIRE(test.claim() == 'a');
    CHECK(spin(
              test, at(64), [&] { test.queue.release(test.a, Rest::again, false); }, ticket) ==
          true);
    CHECK(test.time.nanoseconds() >= 64);
  }
  SECTION("with what others cannot claim either, of which it is not told") {
    CHECK(spin(
              test, at(64), [&] { test.queue.moved(); }, ticket) == false);
  }
}

TEST_CASE("nobody spins who has something to claim, or was interrupted", "[R-G7]") {
  Stage test;
  bool looked = false;
  const auto look = [&looked] { return looked = true; };
  SECTION("ready") { test.queue.announce(test.a); }
  SECTION("interrupted") { test.queue.interrupt(); }
  CHECK(test.queue.spin(0, Timestamp::max(), look));
  CHECK_FALSE(looked);
}

TEST_CASE("while one spins nobody is woken, afterwards as before", "[R-G7]") {
  Stage test;
  test.sleep([&] {
    CHECK(spin(test, Timestamp::max(), [&] { test.queue.announce(test.a); }) == true);
    CHECK(woken() == 0);
    test.queue.announce(test.b);
    CHECK(woken() == 1);
  });
  CHECK(test.claim_all() == "ab");
}
