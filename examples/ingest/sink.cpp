#include "sink.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>

#include "shard/jsonl.hpp"
#include "shard/sqlite.hpp"

namespace ingest {

namespace {

using shard::Batch;
using shard::Delivery;
using shard::DeliveryContext;

/// Lines on standard output, a batch at a time.
class StandardOutput final : public shard::Adapter {
 public:
  Delivery deliver(const Batch& batch, const DeliveryContext& context) override {
    const std::lock_guard lock(mutex_);
    if (is_broken_) return gone();
    if (begun_ != 0 && owner_ != batch.shard()) {
      return Delivery::retry("standard output: another batch stands there in part");
    }
    if (begun_ == 0) {
      owner_ = batch.shard();
      text_.clear();
      for (const auto event : batch) text_.append(event.text()).push_back('\n');
    }
    while (begun_ != text_.size()) {
      const auto wrote = ::write(STDOUT_FILENO, text_.data() + begun_, text_.size() - begun_);
      if (wrote >= 0) {
        begun_ += static_cast<std::size_t>(wrote);
      } else if (errno == EPIPE) {
        is_broken_ = true;
        break;
      } else if (errno != EINTR || context.stop.stop_requested()) {
        return Delivery::retry("standard output: " + std::generic_category().message(errno));
      }
    }
    if (is_broken_) return gone();
    begun_ = 0;
    return Delivery::delivered();
  }
  std::string_view name() const noexcept override { return "stdout"; }

 private:
  static Delivery gone() { return Delivery::refuse("standard output: nobody reads it any more"); }

  std::mutex mutex_;
  std::string text_;       // guarded by mutex_, as what follows
  std::size_t begun_ = 0;  // of the text, already written: a retry goes on there
  shard::ShardId owner_{};
  bool is_broken_ = false;
};

/// Tells the watch of what another adapter answers.
class Watched final : public shard::Adapter {
 public:
  Watched(std::unique_ptr<shard::Adapter> adapter, SinkWatch& watch)
      : adapter_(std::move(adapter)), watch_(watch) {}

  Delivery deliver(const Batch& batch, const DeliveryContext& context) override {
    auto answer = adapter_->deliver(batch, context);
    if (answer.kind() == Delivery::Kind::refuse) {
      watch_.fail(std::string(answer.reason().text()));
    } else if (answer.kind() != Delivery::Kind::retry) {
      watch_.delivered(batch.size());
    }
    return answer;
  }
  bool flush(const DeliveryContext& context) override { return adapter_->flush(context); }
  void close(const DeliveryContext& context) override { adapter_->close(context); }
  std::string_view name() const noexcept override { return adapter_->name(); }

 private:
  std::unique_ptr<shard::Adapter> adapter_;
  SinkWatch& watch_;
};

}  // namespace

void SinkWatch::delivered(std::uint64_t events) noexcept {
  auto largest = largest_.load();
  while (largest < events && !largest_.compare_exchange_weak(largest, events)) {
  }
}

void SinkWatch::fail(const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    if (failed_) return;
    why_ = why;
    failed_ = true;
  }
  on_failure_();
}

std::string SinkWatch::why() const {
  const std::lock_guard lock(mutex_);
  return why_;
}

Sink make_sink(const Options& options, SinkWatch& watch) {
  Sink sink;
  const auto watched = [&](auto adapter) {
    sink.adapter = std::make_unique<Watched>(std::move(adapter), watch);
  };
  const std::string_view to = options.to;
  const auto rest = [to](std::string_view scheme) { return std::string(to.substr(scheme.size())); };
  if (to.starts_with("sqlite:")) {
    auto sqlite = options.sqlite;
    sqlite.database = rest("sqlite:");
    auto adapter = std::make_unique<shard::SqliteAdapter>(std::move(sqlite));
    sink.counts = [&sqlite = *adapter]() -> nlohmann::ordered_json {
      const auto counts = sqlite.counts();
      return {{"rows inserted", counts.inserted}, {"already there", counts.duplicates}};
    };
    watched(std::move(adapter));
  } else if (to.starts_with("jsonl:")) {
    auto jsonl = options.jsonl;
    jsonl.path = rest("jsonl:");
    auto adapter = std::make_unique<shard::JsonlAdapter>(std::move(jsonl));
    sink.counts = [&jsonl = *adapter]() -> nlohmann::ordered_json {
      const auto counts = jsonl.counts();
      return {{"lines", counts.lines}, {"bytes", counts.bytes}, {"files", counts.files}};
    };
    watched(std::move(adapter));
  } else if (to == "stdout:") {
    sink.is_standard_output = true;
    watched(std::make_unique<StandardOutput>());
  } else {  // null:
    watched(shard::make_adapter([](const Batch& /*batch*/) {}));
  }
  return sink;
}

}  // namespace ingest
