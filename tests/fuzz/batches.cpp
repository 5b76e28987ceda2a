// Whatever events come in, in whatever groups and however they are taken out [R-A5] [R-A12] [R-C1] [R-F7]: what comes out is
// what went in, byte for byte and in order, and the counts say the rest.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "fuzz/require.hpp"
#include "shard/manager.hpp"
#include "support/options.hpp"

namespace {

struct Sent {
  std::string payload;
  std::optional<std::string> key;
  std::optional<shard::SourceIdentity> source;
};

/// One shard, and a list of what should be in it.
class Model {
 public:
  explicit Model(FuzzedDataProvider& input)
      : input_(input), mode_(pick_mode()), manager_(shard_test::small_options(1, 16, mode_)) {}

  void run() {
    while (input_.remaining_bytes() != 0) {
      if (input_.ConsumeBool()) {
        push(input_.ConsumeIntegralInRange<std::size_t>(1, 20));
      } else {
        pop(input_.ConsumeIntegralInRange<std::size_t>(0, 20));
      }
      REQUIRE_THAT(shard_.len() == inside_.size());
    }
    pop(100);
    const auto ledger = manager_.ledger();
    REQUIRE_THAT(inside_.empty());
    REQUIRE_THAT(ledger.balanced());
    REQUIRE_THAT(ledger.offered() == offered_);
    REQUIRE_THAT(ledger.returned == returned_);
    REQUIRE_THAT(ledger.evicted == evicted_);
  }

 private:
  shard::Backpressure pick_mode() {
    switch (input_.ConsumeIntegralInRange(0, 4)) {
      case 0:
        return shard::Backpressure::drop_newest();
      case 1:
        return shard::Backpressure::drop_oldest();
      case 2:
        return shard::Backpressure::fail_producer();
      case 3:
        return shard::Backpressure::sample(input_.ConsumeIntegralInRange<std::uint32_t>(1, 4));
      default:
        return shard::Backpressure::block(std::chrono::nanoseconds{0});
    }
  }

  Sent make() {
    Sent sent;
    // Some are longer than what is copied into the ring, than what is allowed, than the ring.
    sent.payload = input_.ConsumeRandomLengthString(64);
    if (input_.ConsumeBool()) {
      sent.payload.resize(input_.ConsumeIntegralInRange<std::size_t>(0, 2'200), '\xAB');
    }
    if (input_.ConsumeBool()) sent.key = input_.ConsumeRandomLengthString(600);
    if (input_.ConsumeBool()) sent.source = {input_.ConsumeIntegral<std::uint64_t>(), offered_};
    return sent;
  }

  void push(std::size_t count) {
    std::vector<Sent> sent;
    for (std::size_t i = 0; i < count; ++i) sent.push_back(make());
    std::vector<shard::RawEvent> events;
    for (const auto& one : sent) {
      auto event = shard::RawEvent::of(one.payload);
      if (one.key) event.with(shard::Key{*one.key});
      if (one.source) event.with(*one.source);
      events.push_back(event);
    }
    std::vector<shard::Outcome> outcomes(count);
    const auto before = manager_.ledger().evicted;
    manager_.ingest_raw_batch(events, outcomes);
    offered_ += count;
    for (std::size_t i = 0; i < count; ++i) {
      if (outcomes[i] == shard::Outcome::accepted) inside_.push_back(std::move(sent[i]));
    }
    const auto evicted = manager_.ledger().evicted - before;
    REQUIRE_THAT(evicted <= inside_.size());
    inside_.erase(inside_.begin(), inside_.begin() + static_cast<std::ptrdiff_t>(evicted));
    evicted_ += evicted;
  }

  void pop(std::size_t most) {
    batch_.clear();
    const auto popped = shard_.pop_batch_into(batch_, most);
    REQUIRE_THAT(popped == batch_.size());
    REQUIRE_THAT(popped == std::min(most, inside_.size()));
    returned_ += popped;
    for (const auto event : batch_) {
      const auto& sent = inside_.front();
      REQUIRE_THAT(event.text() == sent.payload);
      REQUIRE_THAT(event.key.has_value() == sent.key.has_value());
      REQUIRE_THAT(!event.key || event.key->bytes.text() == *sent.key);
      REQUIRE_THAT(event.source == sent.source);
      REQUIRE_THAT(!last_ || (event.sequence > last_->first && event.timestamp > last_->second));
      last_ = {event.sequence, event.timestamp};
      inside_.pop_front();
    }
  }

  FuzzedDataProvider& input_;
  const shard::Backpressure mode_;
  shard::Manager manager_;
  shard::Shard shard_ = *manager_.shard(manager_.shard_ids().front());
  std::deque<Sent> inside_;
  shard::EventBatch batch_;
  std::optional<std::pair<shard::Sequence, shard::Timestamp>> last_;
  std::uint64_t offered_ = 0;
  std::uint64_t returned_ = 0;
  std::uint64_t evicted_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  Model(input).run();
  return 0;
}
