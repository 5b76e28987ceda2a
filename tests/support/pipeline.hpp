#pragma once

#include <catch2/catch.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "shard/pipeline.hpp"
#include "support/books.hpp"
#include "support/elastic.hpp"
#include "support/manual_clock.hpp"
#include "support/options.hpp"

namespace shard_test {

/// A pipeline that its host drives, of small shards; a batch is due when 8 events are there, or after 10 ms. A failed
/// batch is tried again after 100, 200, 400, ... ms, without jitter.
[[nodiscard]] inline shard::PipelineOptions hosted_options(std::size_t shards = 1,
                                                           std::size_t ring_capacity = 64,
                                                           shard::Backpressure backpressure = {}) {
  shard::PipelineOptions options;
  options.manager = small_options(shards, ring_capacity, backpressure);
  options.workers = 0;
  options.batch.min_events = 8;
  options.batch.max_events = 8;
  options.retry.jitter = 0;
  options.retry.max_backoff = std::chrono::hours{1};
  options.retry.max_attempts = 0;
  options.retry.max_elapsed = std::chrono::nanoseconds::max();
  options.notice_interval = std::chrono::nanoseconds{0};
  options.producer_id = 7;
  return options;
}

/// The same with a number of shards that may change, by explicit calls only.
[[nodiscard]] inline shard::PipelineOptions hosted_elastic_options(shard::Routing routing,
                                                                   std::size_t shards,
                                                                   std::size_t min_shards,
                                                                   std::size_t max_shards,
                                                                   std::size_t ring_capacity = 64) {
  auto options = hosted_options(shards, ring_capacity);
  options.manager =
      elastic_options(routing, shards, min_shards, max_shards, nullptr, ring_capacity);
  return options;
}

/// What a batch was, remembered.
struct SeenBatch {
  shard::ShardId shard{};
  shard::Identity identity{};
  std::uint32_t attempt = 0;
  std::uint64_t time = 0;  ///< of the clock, when it came
  std::vector<std::uint64_t> sequences = {};
  std::vector<std::string> texts = {};
  std::vector<std::string> keys = {};
  std::vector<const void*> storage = {};  ///< where the payloads are
  std::size_t bytes = 0;

  [[nodiscard]] std::size_t size() const noexcept { return texts.size(); }
};

[[nodiscard]] inline SeenBatch seen(const shard::Batch& batch, std::uint64_t time,
                                    std::uint32_t attempt) {
  SeenBatch seen{.shard = batch.shard(),
                 .identity = batch.identity(),
                 .attempt = attempt,
                 .time = time,
                 .bytes = batch.payload_bytes()};
  for (const auto event : batch) {
    CHECK(event.shard == seen.shard);
    seen.sequences.push_back(event.sequence.value);
    seen.texts.emplace_back(event.text());
    seen.keys.emplace_back(event.key ? event.key->bytes.text() : "");
    seen.storage.push_back(event.payload.data());
  }
  return seen;
}

/// What a batch and a letter say together.
struct SeenLetter {
  SeenBatch batch;
  shard::DeadLetter why;
};

/// An adapter whose answers the test gives, as a list or by a function, and everything that it and the pipeline's other
/// callbacks were told. Outlives the pipeline, so it can be asked afterwards.
/// Threads: one.
class Sink {
 public:
  using Answer = std::function<shard::Delivery(const shard::Batch&, const shard::DeliveryContext&)>;

  explicit Sink(const ManualClock& clock) : clock_(clock) {}

  std::deque<Answer> script;  ///< for the next calls, one each
  Answer otherwise = [](const shard::Batch& /*batch*/, const shard::DeliveryContext& /*context*/) {
    return shard::Delivery::delivered();
  };
  std::function<bool()> on_flush;
  std::function<void()> on_close;
  std::function<void(const SeenLetter&)> on_letter;
  std::function<void(const shard::Notice&)> on_notice;

  std::vector<SeenBatch> batches = {};
  std::vector<SeenLetter> letters = {};
  std::vector<shard::Notice> notices = {};
  std::size_t flushes = 0;
  std::size_t closes = 0;
  std::size_t destroyed = 0;

  void answer(shard::Delivery delivery) {
    script.emplace_back([delivery = std::move(delivery)](
                            const shard::Batch& /*batch*/,
                            const shard::DeliveryContext& /*context*/) { return delivery; });
  }
  template <class Exception>
  void fail_with(Exception exception) {
    script.emplace_back(
        [exception = std::move(exception)](
            const shard::Batch& /*batch*/,
            const shard::DeliveryContext& /*context*/) -> shard::Delivery { throw exception; });
  }
  /// From now on, when the script has ended.
  void always(shard::Delivery delivery) {
    otherwise = [delivery = std::move(delivery)](const shard::Batch& /*batch*/,
                                                 const shard::DeliveryContext& /*context*/) {
      return delivery;
    };
  }

  [[nodiscard]] std::unique_ptr<shard::Adapter> adapter() { return std::make_unique<Face>(*this); }
  void connect(shard::PipelineOptions& options) {
    options.dead_letters = [this](const shard::Batch& batch, const shard::DeadLetter& why) {
      letters.push_back({seen(batch, clock_.nanoseconds(), why.attempts), why});
      if (on_letter) on_letter(letters.back());
    };
    options.listener = [this](const shard::Notice& notice) {
      notices.push_back(notice);
      if (on_notice) on_notice(notice);
    };
  }

  /// The texts of all batches, one after the other.
  [[nodiscard]] std::vector<std::string> texts() const {
    std::vector<std::string> texts;
    for (const auto& batch : batches) {
      texts.insert(texts.end(), batch.texts.begin(), batch.texts.end());
    }
    return texts;
  }
  [[nodiscard]] std::size_t noticed(shard::NoticeKind kind) const {
    return static_cast<std::size_t>(std::count_if(
        notices.begin(), notices.end(), [kind](const auto& n) { return n.kind == kind; }));
  }

 private:
  class Face final : public shard::Adapter {
   public:
    explicit Face(Sink& sink) : sink_(sink) {}
    ~Face() override { ++sink_.destroyed; }
    shard::Delivery deliver(const shard::Batch& batch,
                            const shard::DeliveryContext& context) override {
      CHECK(!batch.empty());
      CHECK(!std::exchange(sink_.inside_, true));
      struct Leave {
        Sink& sink;
        ~Leave() { sink.inside_ = false; }
      };
      const Leave leave{sink_};
      sink_.batches.push_back(seen(batch, sink_.clock_.nanoseconds(), context.attempt));
      if (sink_.script.empty()) return sink_.otherwise(batch, context);
      const auto answer = std::move(sink_.script.front());
      sink_.script.pop_front();
      return answer(batch, context);
    }
    bool flush(const shard::DeliveryContext& /*context*/) override {
      ++sink_.flushes;
      return !sink_.on_flush || sink_.on_flush();
    }
    void close(const shard::DeliveryContext& /*context*/) override {
      ++sink_.closes;
      if (sink_.on_close) sink_.on_close();
    }

   private:
    Sink& sink_;
  };

  const ManualClock& clock_;
  bool inside_ = false;
};

/// A pipeline, its clock and its sink.
struct Hosted {
  explicit Hosted(shard::PipelineOptions options) : sink(clock) {
    options.manager.time_source = &clock;
    sink.connect(options);
    pipeline = std::make_unique<shard::Pipeline>(options, sink.adapter());
  }

  ManualClock clock;
  Sink sink;
  std::unique_ptr<shard::Pipeline> pipeline;
  std::size_t pushed = 0;

  /// Ingests "e0", "e1", ..., going on where the last call ended.
  void push(std::size_t events) {
    for (std::size_t i = 0; i < events; ++i) {
      REQUIRE(pipeline->ingest("e" + std::to_string(pushed)) == shard::Outcome::accepted);
      ++pushed;
    }
  }
  void advance(std::chrono::nanoseconds time) {
    clock.advance(static_cast<std::uint64_t>(time.count()));
  }
  /// Runs until nothing is due; how many events became terminal.
  std::size_t run() {
    std::size_t settled = 0;
    for (std::size_t i = 0; i < 10'000; ++i) {
      settled += pipeline->run_once();
      if (pipeline->next_due() > now()) return settled;
    }
    FAIL("there is always something due");
    return settled;
  }
  [[nodiscard]] shard::Timestamp now() const { return pipeline->manager().now(); }
  [[nodiscard]] shard::Ledger ledger() const { return pipeline->ledger(); }
};

/// "e<first>", "e<first + 1>", ...
[[nodiscard]] inline std::vector<std::string> numbered(std::size_t first, std::size_t count) {
  std::vector<std::string> texts;
  for (std::size_t i = first; i < first + count; ++i) texts.push_back("e" + std::to_string(i));
  return texts;
}

/// The sequence numbers that a report names, by shard; a number that it names twice is a failure.
[[nodiscard]] inline std::map<std::uint32_t, std::set<std::uint64_t>> undelivered_in(
    const shard::CloseReport& report) {
  std::map<std::uint32_t, std::set<std::uint64_t>> named;
  for (const auto& range : report.undelivered) {
    REQUIRE(range.first <= range.last);
    for (auto at = range.first.value; at <= range.last.value; ++at) {
      REQUIRE(named[range.shard.value].insert(at).second);
    }
  }
  return named;
}

/// How many events of a report went that way.
[[nodiscard]] inline std::uint64_t undelivered_as(const shard::CloseReport& report,
                                                  shard::Undelivered why) {
  std::uint64_t events = 0;
  for (const auto& range : report.undelivered) {
    events += range.why == why ? range.last.value - range.first.value + 1 : 0;
  }
  return events;
}

}  // namespace shard_test

template <>
struct Catch::StringMaker<shard::FlushStatus> {
  static std::string convert(shard::FlushStatus status) { return std::string(to_string(status)); }
};

template <>
struct Catch::StringMaker<shard::Undelivered> {
  static std::string convert(shard::Undelivered why) { return std::string(to_string(why)); }
};

template <>
struct Catch::StringMaker<shard::UndeliveredRange> {
  static std::string convert(const shard::UndeliveredRange& range) {
    return "shard " + std::to_string(range.shard.value) + ": " + std::to_string(range.first.value) +
           ".." + std::to_string(range.last.value) + " " + std::string(to_string(range.why));
  }
};

template <>
struct Catch::StringMaker<shard::HealthState> {
  static std::string convert(shard::HealthState state) { return std::string(to_string(state)); }
};

template <>
struct Catch::StringMaker<shard::DeadLetterCause> {
  static std::string convert(shard::DeadLetterCause cause) { return std::string(to_string(cause)); }
};
