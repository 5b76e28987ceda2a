#include "sink.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <stdexcept>
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
    if (begun_ != 0 && first_ != batch.first_sequence()) {
      is_broken_ = true;  // that one was given up, and its torn line cannot be taken back
      return gone();
    }
    if (begun_ == 0) {
      owner_ = batch.shard();
      first_ = batch.first_sequence();
      text_.clear();
      for (const auto event : batch) text_.append(event.text()).push_back('\n');
    }
    while (begun_ != text_.size()) {
      const auto wrote = ::write(STDOUT_FILENO, text_.data() + begun_, text_.size() - begun_);
      if (wrote >= 0) {
        begun_ += static_cast<std::size_t>(wrote);
      } else if (errno == EPIPE || errno == EBADF) {
        is_broken_ = true;
        return gone();
      } else if (errno == EAGAIN) {
        if (!wait_for_room(context)) return Delivery::retry("standard output: nobody reads it");
      } else if (errno != EINTR) {
        return Delivery::retry("standard output: " + std::generic_category().message(errno));
      }
    }
    begun_ = 0;
    return Delivery::delivered();
  }
  std::string_view name() const noexcept override { return "stdout"; }

 private:
  static Delivery gone() { return Delivery::refuse("standard output: nobody reads it any more"); }

  /// For a descriptor that does not block, which may be what the program got.
  static bool wait_for_room(const DeliveryContext& context) {
    constexpr int kSlice = 50;  // ms
    while (!context.stop.stop_requested() && std::chrono::steady_clock::now() < context.deadline) {
      pollfd watched{STDOUT_FILENO, POLLOUT, 0};
      if (::poll(&watched, 1, kSlice) != 0) return true;
    }
    return false;
  }

  std::mutex mutex_;
  std::string text_;       // guarded by mutex_, as what follows
  std::size_t begun_ = 0;  // of the text, already written: a retry goes on there
  shard::ShardId owner_{};
  shard::Sequence first_{};
  bool is_broken_ = false;
};

/// Its messages name options as a program spells them.
std::unique_ptr<shard::JsonlAdapter> make_jsonl(shard::JsonlOptions options) {
  try {
    return std::make_unique<shard::JsonlAdapter>(std::move(options));
  } catch (const shard::ConfigError&) {
    throw;
  } catch (const std::exception& error) {
    const std::string name = "JsonlExisting::";
    std::string what = error.what();
    for (std::size_t at = 0; (at = what.find(name, at)) != std::string::npos;) {
      what.replace(at, name.size(), "--existing ");
    }
    throw std::runtime_error(what);
  }
}

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

std::string sink_path(const Options& options) {
  const std::string_view to = options.to;
  for (const std::string_view scheme : {"sqlite:", "jsonl:"}) {
    if (to.starts_with(scheme)) {
      const auto path = to.substr(scheme.size());
      // SQLite reads more than a path there.
      return path.starts_with(':') || path.starts_with("file:") ? std::string() : std::string(path);
    }
  }
  return {};
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
    auto adapter = make_jsonl(std::move(jsonl));
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
