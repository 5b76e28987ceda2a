// What becomes of a batch: every answer of an adapter, every exception, retries and dead letters. Driven by its host.

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/counted_buffer.hpp"
#include "support/pipeline.hpp"

namespace {

using shard::Batch;
using shard::DeadLetterCause;
using shard::Delivery;
using shard::DeliveryContext;
using shard::FlushStatus;
using shard::HealthState;
using shard::Ledger;
using shard::NoticeKind;
using shard::Outcome;
using shard::Timestamp;
using shard_test::Hosted;
using shard_test::hosted_options;
using shard_test::numbered;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using Texts = std::vector<std::string>;

/// One shard with 8 events, e0 .. e7, which are due.
struct Eight : Hosted {
  explicit Eight(const shard::PipelineOptions& options = hosted_options()) : Hosted(options) {
    push(8);
  }
  /// Of 8 accepted events so many went each way.
  void check_ledger(std::uint64_t delivered, std::uint64_t dead, std::uint64_t batched,
                    std::uint64_t possibly = 0) const {
    Ledger expected;
    expected.accepted = expected.taken = 8;
    expected.delivered = delivered;
    expected.dead_lettered = dead;
    expected.batched = batched;
    expected.possibly_delivered = possibly;
    CHECK(ledger() == expected);
    CHECK(ledger().balanced());
  }
};

Texts texts_of(const std::vector<shard_test::SeenLetter>& letters) {
  Texts texts;
  for (const auto& letter : letters) {
    texts.insert(texts.end(), letter.batch.texts.begin(), letter.batch.texts.end());
  }
  return texts;
}

/// The i-th of these, at the same place in memory.
std::vector<const void*> pick(const std::vector<const void*>& from,
                              const std::vector<std::size_t>& indices) {
  std::vector<const void*> picked;
  for (const auto i : indices) picked.push_back(from[i]);
  return picked;
}

}  // namespace

// ---------------------------------------------------------------------------------- answers

TEST_CASE("a delivered batch is counted as delivered and forgotten", "[R-C1]") {
  Eight test;
  CHECK(test.run() == 8);
  REQUIRE(test.sink.batches.size() == 1);
  CHECK(test.sink.batches[0].texts == numbered(0, 8));
  CHECK(test.sink.batches[0].attempt == 1);
  test.check_ledger(8, 0, 0);
  CHECK(test.pipeline->next_due() == Timestamp::max());
}

TEST_CASE("after a prefix without a reason the rest is tried at once, in the same storage",
          "[R-G9][R-G3]") {
  Eight test;
  test.sink.answer(Delivery::delivered(3));
  test.sink.answer(Delivery::delivered(4));
  CHECK(test.pipeline->run_once() == 8);
  REQUIRE(test.sink.batches.size() == 3);
  CHECK(test.sink.batches[1].texts == numbered(3, 5));
  CHECK(test.sink.batches[2].texts == numbered(7, 1));
  CHECK(test.sink.batches[1].attempt == 1);  // what is left is another batch
  CHECK(test.sink.batches[1].storage == pick(test.sink.batches[0].storage, {3, 4, 5, 6, 7}));
  CHECK(test.sink.batches[1].sequences == std::vector<std::uint64_t>{3, 4, 5, 6, 7});
  test.check_ledger(8, 0, 0);
  CHECK(test.pipeline->health().failures == 0);
}

TEST_CASE("after a prefix with a reason the rest waits to be retried", "[R-G9]") {
  Eight test;
  test.sink.answer(Delivery::delivered(3, "disk full"));
  CHECK(test.pipeline->run_once() == 3);
  test.check_ledger(3, 0, 5);
  CHECK(test.pipeline->next_due() == test.now().after(milliseconds{100}));
  CHECK(test.pipeline->health().state == HealthState::retrying);
  CHECK(test.pipeline->health().last_error.text() == "disk full");
  test.advance(milliseconds{100});
  CHECK(test.run() == 5);
  CHECK(test.sink.batches[1].texts == numbered(3, 5));
  CHECK(test.sink.batches[1].attempt == 2);
  test.check_ledger(8, 0, 0);
}

TEST_CASE("a prefix of everything is delivered, a prefix of nothing is retry") {
  Eight test;
  test.sink.answer(Delivery::delivered(std::size_t{0}, "not yet"));
  test.sink.answer(Delivery::delivered(8, "all the same"));
  CHECK(test.run() == 0);
  test.check_ledger(0, 0, 8);
  test.advance(milliseconds{100});
  CHECK(test.run() == 8);
  CHECK(test.sink.batches[1].attempt == 2);
  test.check_ledger(8, 0, 0);
  CHECK(test.pipeline->health().state == HealthState::healthy);
}

TEST_CASE("delivered_except makes dead letters of those and delivers the others", "[R-G9][R-G4]") {
  Eight test;
  test.sink.answer(Delivery::delivered_except({6, 1, 1}, "bad column"));
  CHECK(test.run() == 8);
  CHECK(test.sink.batches.size() == 1);
  test.check_ledger(6, 2, 0);
  REQUIRE(test.sink.letters.size() == 1);
  const auto& letter = test.sink.letters[0];
  CHECK(letter.batch.texts == Texts{"e1", "e6"});
  CHECK(letter.batch.sequences == std::vector<std::uint64_t>{1, 6});
  CHECK(letter.why.cause == DeadLetterCause::refused);
  CHECK(letter.why.attempts == 1);
  CHECK(letter.why.reason.text() == "bad column");
  CHECK(test.pipeline->latency(shard::ShardId{0})->count() == 6);
}

TEST_CASE("delivered_except for no event is delivered") {
  Eight test;
  test.sink.answer(Delivery::delivered_except({}, "nothing wrong"));
  CHECK(test.run() == 8);
  test.check_ledger(8, 0, 0);
  CHECK(test.sink.letters.empty());
  CHECK(test.pipeline->health().state == HealthState::healthy);
}

TEST_CASE("delivered_except for all events makes dead letters of all") {
  Eight test;
  test.sink.answer(Delivery::delivered_except({0, 1, 2, 3, 4, 5, 6, 7}, "all bad"));
  CHECK(test.run() == 8);
  test.check_ledger(0, 8, 0);
  CHECK(texts_of(test.sink.letters) == numbered(0, 8));
  CHECK(test.pipeline->next_due() == Timestamp::max());
}

TEST_CASE("a batch that is refused for good is counted and handed over with its reason",
          "[R-C3][R-G4]") {
  Eight test;
  test.sink.answer(Delivery::refuse("no such table"));
  CHECK(test.run() == 8);
  CHECK(test.sink.batches.size() == 1);
  test.check_ledger(0, 8, 0);
  REQUIRE(test.sink.letters.size() == 1);
  CHECK(test.sink.letters[0].batch.texts == numbered(0, 8));
  CHECK(test.sink.letters[0].batch.identity == test.pipeline->identity());
  CHECK(test.sink.letters[0].why.cause == DeadLetterCause::refused);
  CHECK(test.sink.letters[0].why.reason.text() == "no such table");
}

TEST_CASE("without a handler what is refused is counted all the same", "[R-C3][R-G4]") {
  auto options = hosted_options();
  shard_test::ManualClock clock;
  options.manager.time_source = &clock;
  shard::Pipeline pipeline(options, [](const Batch&) { return Delivery::refuse("never"); });
  for (int i = 0; i < 8; ++i) REQUIRE(pipeline.ingest("x") == Outcome::accepted);
  CHECK(pipeline.run_once() == 8);
  CHECK(pipeline.ledger().dead_lettered == 8);
  CHECK(pipeline.health().last_error.text() == "never");
  CHECK(pipeline.close(hours{1}).complete);
}

TEST_CASE(
    "one poisoned event does not condemn its batch: the others come again at once, not copied",
    "[R-G9][R-G4][R-G3]") {
  Eight test;
  test.sink.answer(Delivery::refuse({2, 5}, "poison"));
  test.sink.answer(Delivery::refuse({0}, "poison, too"));
  CHECK(test.pipeline->run_once() == 8);
  REQUIRE(test.sink.batches.size() == 3);
  CHECK(test.sink.batches[1].texts == Texts{"e0", "e1", "e3", "e4", "e6", "e7"});
  CHECK(test.sink.batches[1].sequences == std::vector<std::uint64_t>{0, 1, 3, 4, 6, 7});
  CHECK(test.sink.batches[1].storage == pick(test.sink.batches[0].storage, {0, 1, 3, 4, 6, 7}));
  CHECK(test.sink.batches[2].texts == Texts{"e1", "e3", "e4", "e6", "e7"});
  CHECK(test.sink.batches[1].attempt == 1);
  test.check_ledger(5, 3, 0);
  REQUIRE(test.sink.letters.size() == 2);
  CHECK(test.sink.letters[0].batch.texts == Texts{"e2", "e5"});
  CHECK(test.sink.letters[0].batch.storage == pick(test.sink.batches[0].storage, {2, 5}));
  CHECK(test.sink.letters[1].batch.texts == Texts{"e0"});
  CHECK(test.sink.letters[1].why.reason.text() == "poison, too");
}

TEST_CASE("to refuse every event by its index is to refuse the batch") {
  Eight test;
  test.sink.answer(Delivery::refuse({0, 1, 2, 3, 4, 5, 6, 7}, "all"));
  CHECK(test.run() == 8);
  CHECK(test.sink.batches.size() == 1);
  test.check_ledger(0, 8, 0);
}

TEST_CASE("to refuse no event and deliver none is to retry") {
  Eight test;
  test.sink.answer(Delivery::refuse(std::initializer_list<std::size_t>{}, "which?"));
  CHECK(test.run() == 0);
  test.check_ledger(0, 0, 8);
  CHECK(test.sink.letters.empty());
  test.advance(milliseconds{100});
  CHECK(test.run() == 8);
  CHECK(test.sink.batches[1].attempt == 2);
}

TEST_CASE("an adapter that does not know is not asked again", "[R-C1]") {
  Eight test;
  test.sink.answer(Delivery::unknown("connection lost"));
  CHECK(test.run() == 8);
  CHECK(test.sink.batches.size() == 1);
  test.check_ledger(0, 0, 0, 8);
  CHECK(test.sink.letters.empty());
  CHECK(test.pipeline->health().state == HealthState::retrying);
  CHECK(test.pipeline->health().last_error.text() == "connection lost");
  CHECK(test.pipeline->flush(hours{1}));
  test.push(8);
  test.run();
  CHECK(test.pipeline->health().state == HealthState::healthy);
}

TEST_CASE("events keep their order through a mix of answers", "[R-G1][R-F7]") {
  Eight test;
  test.sink.answer(Delivery::delivered(2));
  test.sink.answer(Delivery::refuse({1}, "e3"));
  test.sink.answer(Delivery::retry("busy"));
  test.sink.answer(Delivery::delivered_except({2}, "e5"));
  test.push(8);
  test.run();
  test.advance(milliseconds{100});
  test.run();
  REQUIRE(test.sink.batches.size() == 5);
  CHECK(test.sink.batches[1].texts == numbered(2, 6));
  CHECK(test.sink.batches[2].texts == Texts{"e2", "e4", "e5", "e6", "e7"});
  CHECK(test.sink.batches[3].texts == test.sink.batches[2].texts);
  CHECK(test.sink.batches[4].texts == numbered(8, 8));
  CHECK(texts_of(test.sink.letters) == Texts{"e3", "e5"});
  CHECK(test.ledger().delivered == 14);
  CHECK(test.ledger().dead_lettered == 2);
  CHECK(test.ledger().balanced());
}

TEST_CASE("payloads that own their bytes survive retries and are released when they are settled") {
  shard_test::CountedBuffers buffers;
  Hosted test(hosted_options());
  for (int i = 0; i < 8; ++i) {
    REQUIRE(test.pipeline->ingest(buffers.make("payload")) == Outcome::accepted);
  }
  test.sink.answer(Delivery::retry("busy"));
  test.sink.answer(Delivery::refuse({0, 7}, "bad"));
  test.run();
  CHECK(buffers.released() == 0);
  test.advance(milliseconds{100});
  CHECK(test.run() == 8);
  CHECK(test.sink.batches[1].storage == test.sink.batches[0].storage);
  CHECK(test.sink.letters.at(0).batch.texts == Texts{"payload", "payload"});
  CHECK(buffers.released() == 8);
}

// ---------------------------------------------------------------------------------- exceptions

TEST_CASE("exceptions that mean that it never works are refusals", "[R-C4]") {
  Eight test;
  std::string reason;
  SECTION("PermanentError") {
    test.sink.fail_with(shard::PermanentError("bad schema"));
    reason = "bad schema";
  }
  SECTION("std::logic_error") {
    test.sink.fail_with(std::logic_error("a bug"));
    reason = "a bug";
  }
  SECTION("what is derived from it") {
    test.sink.fail_with(std::out_of_range("index"));
    reason = "index";
  }
  CHECK(test.run() == 8);
  test.check_ledger(0, 8, 0);
  REQUIRE(test.sink.letters.size() == 1);
  CHECK(test.sink.letters[0].why.cause == DeadLetterCause::refused);
  CHECK(test.sink.letters[0].why.reason.text() == reason);
}

TEST_CASE("every other exception is an answer to retry, and later events still flow",
          "[R-C4][R-G2]") {
  Eight test;
  std::string reason;
  SECTION("RetryableError") {
    test.sink.fail_with(shard::RetryableError("busy"));
    reason = "busy";
  }
  SECTION("std::runtime_error") {
    test.sink.fail_with(std::runtime_error("io"));
    reason = "io";
  }
  SECTION("std::bad_alloc") {
    test.sink.fail_with(std::bad_alloc());
    reason = std::bad_alloc().what();
  }
  SECTION("what is no std::exception") {
    test.sink.fail_with(7);
    reason = "the adapter threw what is no std::exception";
  }
  CHECK(test.run() == 0);
  test.check_ledger(0, 0, 8);
  CHECK(test.pipeline->health().state == HealthState::retrying);
  CHECK(test.pipeline->health().consecutive_failures == 1);
  CHECK(test.pipeline->health().last_error.text() == reason);
  test.push(8);
  test.advance(milliseconds{100});
  CHECK(test.run() == 16);
  CHECK(test.sink.batches.back().texts == numbered(8, 8));
  CHECK(test.pipeline->health().state == HealthState::healthy);
}

// ---------------------------------------------------------------------------------- dead letters

TEST_CASE("a dead-letter handler and a listener that throw do no harm", "[R-C4]") {
  Eight test;
  test.sink.on_letter = [](const auto&) { throw std::runtime_error("handler"); };
  test.sink.on_notice = [](const auto&) { throw 7; };
  test.sink.answer(Delivery::refuse({0}, "bad"));
  test.sink.answer(Delivery::retry("busy"));
  test.sink.answer(Delivery::refuse("bad"));
  CHECK(test.run() == 1);
  test.advance(milliseconds{100});
  CHECK(test.run() == 7);
  test.check_ledger(0, 8, 0);
  CHECK(test.sink.letters.size() == 2);
  CHECK_FALSE(test.sink.notices.empty());
  test.push(8);
  CHECK(test.run() == 8);
  CHECK(test.pipeline->close(hours{1}).complete);
}

TEST_CASE(
    "when the handler gets dead letters they are counted already, but no flush is past them") {
  Eight test;
  bool called = false;
  test.sink.answer(Delivery::refuse("bad"));
  test.sink.on_letter = [&](const auto&) {
    called = true;
    CHECK(test.ledger().dead_lettered == 8);
    CHECK(test.pipeline->flush(hours{1}).status == FlushStatus::would_deadlock);
  };
  test.run();
  CHECK(called);
}

TEST_CASE("the handler may send dead letters back as new events") {
  Eight test;
  test.sink.answer(Delivery::refuse("bad"));
  test.sink.on_letter = [&](const shard_test::SeenLetter& letter) {
    for (const auto& text : letter.batch.texts) {
      CHECK(test.pipeline->ingest(text + " again") == Outcome::accepted);
    }
  };
  CHECK(test.run() == 16);
  CHECK(test.sink.batches.back().texts.front() == "e0 again");
  CHECK(test.ledger().delivered == 8);
  CHECK(test.ledger().dead_lettered == 8);
}

// ---------------------------------------------------------------------------------- retries

TEST_CASE("a failed batch is tried again after waits that double, the same each time",
          "[R-G2][R-G3]") {
  auto options = hosted_options();
  options.retry.max_backoff = milliseconds{400};
  Eight test(options);
  for (int i = 0; i < 5; ++i) test.sink.answer(Delivery::retry("busy"));
  test.run();
  std::uint32_t attempt = 1;
  for (const int wait : {100, 200, 400, 400, 400}) {
    CHECK(test.pipeline->next_due() == test.now().after(milliseconds{wait}));
    test.advance(milliseconds{wait} - nanoseconds{1});
    CHECK(test.pipeline->run_once() == 0);
    CHECK(test.sink.batches.size() == attempt);
    test.advance(nanoseconds{1});
    test.run();
    ++attempt;
    REQUIRE(test.sink.batches.size() == attempt);
    const auto& last = test.sink.batches.back();
    CHECK(last.attempt == attempt);
    CHECK(last.texts == numbered(0, 8));
    CHECK(last.sequences == test.sink.batches[0].sequences);
    CHECK(last.storage == test.sink.batches[0].storage);
  }
  test.check_ledger(8, 0, 0);
  CHECK(test.pipeline->stats().attempts == 6);
  CHECK(test.pipeline->stats().retries == 5);
  CHECK(test.pipeline->stats().batches == 1);
}

TEST_CASE("waits are spread by the jitter and stay within it", "[R-G2]") {
  auto options = hosted_options();
  options.retry.jitter = 0.25;
  options.retry.multiplier = 1;
  Eight test(options);
  test.sink.always(Delivery::retry("busy"));
  test.run();
  std::vector<std::uint64_t> waits;
  for (int i = 0; i < 50; ++i) {
    const auto due = test.pipeline->next_due();
    waits.push_back(due.nanoseconds - test.now().nanoseconds);
    test.clock.set(due.nanoseconds);
    test.run();
  }
  CHECK(test.sink.batches.size() == 51);
  const auto [least, most] = std::minmax_element(waits.begin(), waits.end());
  CHECK(*least >= 75'000'000);
  CHECK(*most <= 125'000'000);
  CHECK(*most - *least > 5'000'000);  // 50 draws all within a tenth of the range: 1e-49
}

TEST_CASE("pipelines that fail at the same time do not try again at the same time", "[R-G2]") {
  auto options = hosted_options();
  options.retry.jitter = 0.5;
  std::set<std::uint64_t> waits;
  for (int i = 0; i < 8; ++i) {
    Eight test(options);
    test.sink.answer(Delivery::retry("down"));
    test.run();
    waits.insert(test.pipeline->next_due().nanoseconds);
  }
  CHECK(waits.size() > 1);
}

TEST_CASE("a batch that has been tried max_attempts times is a dead letter", "[R-G2][R-G4]") {
  auto options = hosted_options();
  options.retry.max_attempts = 3;
  Eight test(options);
  test.sink.always(Delivery::retry("down"));
  test.run();
  test.advance(milliseconds{100});
  test.run();
  test.check_ledger(0, 0, 8);
  test.advance(milliseconds{200});
  CHECK(test.run() == 8);
  CHECK(test.sink.batches.size() == 3);
  test.check_ledger(0, 8, 0);
  REQUIRE(test.sink.letters.size() == 1);
  CHECK(test.sink.letters[0].why.cause == DeadLetterCause::attempts_exhausted);
  CHECK(test.sink.letters[0].why.attempts == 3);
  CHECK(test.sink.letters[0].why.reason.text() == "down");
  CHECK(test.sink.letters[0].batch.texts == numbered(0, 8));
  CHECK(test.pipeline->health().failures == 3);
}

TEST_CASE("with max_attempts of one nothing is retried", "[R-G2]") {
  auto options = hosted_options();
  options.retry.max_attempts = 1;
  Eight test(options);
  test.sink.answer(Delivery::delivered(5, "broken off"));
  CHECK(test.run() == 8);
  CHECK(test.sink.batches.size() == 1);
  test.check_ledger(5, 3, 0);
  CHECK(test.sink.letters.at(0).why.cause == DeadLetterCause::attempts_exhausted);
  CHECK(texts_of(test.sink.letters) == numbered(5, 3));
}

TEST_CASE("a batch whose next attempt would come after max_elapsed is a dead letter now",
          "[R-G2][R-G4]") {
  auto options = hosted_options();
  options.retry.max_elapsed = milliseconds{699};  // attempts at 0, 100, 300 and 700 ms
  Eight test(options);
  test.sink.always(Delivery::retry("down"));
  test.run();
  test.advance(milliseconds{100});
  CHECK(test.run() == 0);
  test.advance(milliseconds{200});
  CHECK(test.run() == 8);
  CHECK(test.sink.batches.size() == 3);
  test.check_ledger(0, 8, 0);
  CHECK(test.sink.letters.at(0).why.cause == DeadLetterCause::time_exhausted);
  CHECK(test.sink.letters.at(0).why.attempts == 3);
}

TEST_CASE("progress gives what is left of a batch its attempts anew") {
  auto options = hosted_options();
  options.retry.max_attempts = 2;
  Eight test(options);
  test.sink.answer(Delivery::retry("busy"));
  test.sink.answer(Delivery::delivered(4, "broken off"));
  test.sink.answer(Delivery::refuse({0}, "bad"));
  test.sink.answer(Delivery::retry("busy"));
  test.run();
  for (int i = 0; i < 3; ++i) {
    test.advance(milliseconds{100});
    test.run();
  }
  CHECK(test.sink.batches.size() == 5);
  test.check_ledger(7, 1, 0);
}

TEST_CASE("progress gives what is left of a batch its time anew", "[R-G2]") {
  auto options = hosted_options();
  options.retry.max_elapsed = milliseconds{300};
  Eight test(options);
  test.sink.answer(Delivery::retry("busy"));               // at 0 ms
  test.sink.answer(Delivery::delivered(4, "broken off"));  // at 100 ms
  test.sink.answer(Delivery::retry("busy"));               // at 200 ms; again at 400 ms
  test.run();
  for (const auto wait : {100, 100, 200}) {
    test.advance(milliseconds{wait});
    test.run();
  }
  CHECK(test.sink.batches.size() == 4);
  test.check_ledger(8, 0, 0);
}

TEST_CASE("while one shard waits to be retried the others go on", "[R-G1]") {
  Hosted test(hosted_options(2));
  auto& manager = test.pipeline->manager();
  const auto first = shard_test::payloads_for(manager, shard::ShardId{0}, 16, "a");
  const auto second = shard_test::payloads_for(manager, shard::ShardId{1}, 16, "b");
  test.sink.otherwise = [](const Batch& batch, const DeliveryContext&) {
    return batch.shard() == shard::ShardId{0} ? Delivery::retry("busy") : Delivery::delivered();
  };
  for (std::size_t i = 0; i < 16; ++i) {
    REQUIRE(test.pipeline->ingest(first[i]) == Outcome::accepted);
    REQUIRE(test.pipeline->ingest(second[i]) == Outcome::accepted);
  }
  CHECK(test.run() == 16);
  CHECK(test.ledger().delivered == 16);
  CHECK(test.ledger().batched == 8);
  CHECK(test.ledger().queued == 8);
  CHECK(manager.shard(shard::ShardId{1})->ledger().delivered == 16);
  // The first batch of the shard that fails was tried once, and nothing behind it.
  CHECK(std::count_if(test.sink.batches.begin(), test.sink.batches.end(),
                      [](const auto& b) { return b.shard == shard::ShardId{0}; }) == 1);
  CHECK(test.pipeline->next_due() == test.now().after(milliseconds{100}));
}

TEST_CASE("while the adapter is down the rings fill and the mode decides", "[R-G5]") {
  auto options = hosted_options(1, 8, shard::Backpressure::fail_producer());
  Hosted test(options);
  test.sink.always(Delivery::retry("down"));
  test.push(4);
  test.run();
  std::size_t accepted = 4;
  while (test.pipeline->ingest("more") == Outcome::accepted) {
    ++accepted;
    test.run();
    REQUIRE(accepted < 100);
  }
  CHECK(test.ledger().rejected_full == 1);
  CHECK(test.ledger().queued == 7);
  CHECK(test.ledger().batched + 7 == accepted);
  test.sink.always(Delivery::delivered());
  test.advance(milliseconds{100});
  test.run();
  CHECK(test.pipeline->ingest("more") == Outcome::accepted);
}

TEST_CASE("new events do not hurry a batch that waits to be retried") {
  Eight test;
  test.sink.answer(Delivery::retry("busy"));
  test.run();
  test.push(20);
  CHECK(test.pipeline->run_once() == 0);
  CHECK(test.sink.batches.size() == 1);
  CHECK(test.pipeline->next_due() == test.now().after(milliseconds{100}));
}

TEST_CASE("with no wait before a retry a pass ends all the same", "[R-G10]") {
  auto options = hosted_options();
  options.retry.initial_backoff = options.retry.max_backoff = nanoseconds{0};
  Eight test(options);
  test.sink.always(Delivery::retry("busy"));
  for (std::size_t i = 1; i <= 5; ++i) {
    CHECK(test.pipeline->run_once() == 0);
    CHECK(test.sink.batches.size() == i);
    CHECK(test.pipeline->next_due() <= test.now());
  }
}

TEST_CASE("an attempt is told its number and by when it should answer") {
  auto options = hosted_options();
  options.attempt_timeout = hours{1};
  Eight test(options);
  const auto before = std::chrono::steady_clock::now();
  std::vector<DeliveryContext> contexts;
  test.sink.otherwise = [&](const Batch&, const DeliveryContext& context) {
    contexts.push_back(context);
    return contexts.size() == 1 ? Delivery::retry("busy") : Delivery::delivered();
  };
  test.run();
  test.advance(milliseconds{100});
  test.run();
  REQUIRE(contexts.size() == 2);
  CHECK(contexts[0].attempt == 1);
  CHECK(contexts[1].attempt == 2);
  CHECK(contexts[0].deadline >= before + hours{1});
  CHECK(contexts[1].deadline <= std::chrono::steady_clock::now() + hours{1});
  CHECK_FALSE(contexts[0].stop.stop_requested());
}

TEST_CASE("an adapter is told the epoch that its timestamps count from", "[R-B2]") {
  Eight test;
  std::chrono::system_clock::time_point epoch;
  test.sink.otherwise = [&](const Batch&, const DeliveryContext& context) {
    epoch = context.epoch;
    return Delivery::delivered();
  };
  test.run();
  CHECK(epoch == test.pipeline->epoch());
}

TEST_CASE("without a limit, or with one beyond all time, an attempt has no deadline") {
  auto options = hosted_options();
  options.attempt_timeout = nanoseconds::max() - nanoseconds{GENERATE(0, 1)};
  Eight test(options);
  auto deadline = std::chrono::steady_clock::time_point::min();
  test.sink.otherwise = [&](const Batch&, const DeliveryContext& context) {
    deadline = context.deadline;
    return Delivery::delivered();
  };
  test.run();
  CHECK(deadline == std::chrono::steady_clock::time_point::max());
}
