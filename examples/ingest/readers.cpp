#include "readers.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <span>
#include <utility>

#include "json_field.hpp"

namespace ingest {

namespace {

constexpr std::size_t kBatch = 256;  // events in one call of the pipeline

/// How often a followed file is looked at. Notifications of the kernel would not come from network file systems.
constexpr std::chrono::milliseconds kLookEvery{200};

/// A program that writes a log goes on in the file that was renamed until it opens the new one: two seconds are enough.
constexpr unsigned kLooksAtReplaced = 10;

/// Parts that several readers share are not smaller.
constexpr std::uint64_t kSmallestPart = std::uint64_t{4} << 20U;

}  // namespace

/// What one thread needs.
class Readers::Worker {
 public:
  Worker(const Options& options, Rejects& rejects, shard::Pipeline& pipeline)
      : options_(options), rejects_(rejects), pipeline_(pipeline) {
    if (options.has_key) field_.emplace(options.key);
    events_.reserve(kBatch);
    keys_.resize(kBatch);
  }

  std::atomic<std::uint64_t> bytes{0};
  std::atomic<std::uint64_t> records{0};
  std::atomic<std::uint64_t> blank{0};
  std::atomic<std::uint64_t> rejected{0};
  std::atomic<std::uint64_t> unread{0};
  std::atomic<std::uint64_t> gone{0};

  /// One block. False: nothing there now.
  [[nodiscard]] InputFile::Status step(InputFile& input) {
    const auto bytes_before = input.bytes_read();
    const auto blank_before = input.blank();
    const auto status = input.read(read_);
    if (!read_.empty()) {
      if (input.identity() != named_) {
        named_ = input.identity();
        rejects_.name(*named_, input.path());
      }
      for (auto rest = std::span<const Record>(read_); !rest.empty();) {
        const auto some = rest.first(std::min(kBatch, rest.size()));
        ingest(some, input.is_pipe() ? gone : unread);
        rest = rest.subspan(some.size());
      }
    }
    bytes += input.bytes_read() - bytes_before;
    blank += input.blank() - blank_before;
    return status;
  }

 private:
  /// \param late  counts what is not taken in any more
  void ingest(std::span<const Record> records_in, std::atomic<std::uint64_t>& late) {
    events_.clear();
    for (const auto& record : records_in) {
      auto event = shard::RawEvent::of(record.text);
      if (!is_good(record, event)) continue;
      event.with(shard::SourceIdentity{*named_, record.offset});
      kept_[events_.size()] = &record;
      events_.push_back(event);
    }
    pipeline_.ingest_raw_batch(events_, outcomes_);
    records += records_in.size();
    for (std::size_t i = 0; i < events_.size(); ++i) {
      const auto outcome = outcomes_[i];
      if (outcome == shard::Outcome::rejected_closed) {
        ++late;
      } else if (is_invalid(outcome)) {
        note(*kept_[i], std::string(to_string(outcome)));
      }
    }
  }

  /// Gives the event its key; or rejects the record.
  bool is_good(const Record& record, shard::RawEvent& event) {
    if (record.too_long) {
      return reject(record, shard::Outcome::payload_too_large,
                    std::to_string(record.size) + " bytes, more than --max-record");
    }
    if (field_) {
      switch (field_->find(record.text)) {
        case JsonField::Found::value: {
          auto& key = keys_[events_.size()];
          key = field_->text();
          event.with(shard::Key{key});
          return true;
        }
        case JsonField::Found::nothing:
          return reject(record, shard::Outcome::invalid_json, "nothing at " + options_.key);
        case JsonField::Found::structure:
          return reject(record, shard::Outcome::invalid_json,
                        "an object or array at " + options_.key);
        case JsonField::Found::no_json:
          return reject(record, shard::Outcome::invalid_json, field_->error());
      }
    }
    if (options_.validate_json) {
      const auto error = json_error(record.text);
      if (!error.empty()) return reject(record, shard::Outcome::invalid_json, error);
    }
    return true;
  }

  /// Counted by the pipeline too, so that its ledger holds every record.
  bool reject(const Record& record, shard::Outcome outcome, const std::string& reason) {
    pipeline_.reject(outcome);
    note(record, reason);
    return false;
  }
  void note(const Record& record, const std::string& reason) {
    ++rejected;
    rejects_.add(Place{*named_, record.offset, record.line}, reason, record.text);
  }

  const Options& options_;
  Rejects& rejects_;
  shard::Pipeline& pipeline_;
  std::optional<JsonField> field_;
  std::optional<std::uint64_t> named_;  ///< the identity that rejects_ knows
  std::vector<Record> read_;
  std::vector<shard::RawEvent> events_;
  std::array<const Record*, kBatch> kept_{};  ///< the record of each event
  std::vector<std::string> keys_;
  std::array<shard::Outcome, kBatch> outcomes_{};
};

Readers::Readers(const Options& options, Rejects& rejects,
                 std::function<void(const std::string&)> on_error)
    : options_(options), rejects_(rejects), on_error_(std::move(on_error)) {
  open_inputs();
}

Readers::~Readers() {
  request_stop();
  join();
}

void Readers::open_inputs() {
  auto paths = options_.inputs;
  if (paths.empty()) paths.emplace_back("-");
  files_ = paths.size();
  const InputFile::Limits limits{options_.max_record, options_.follow, stop_.descriptor(),
                                 kLooksAtReplaced};
  for (const auto& path : paths) {
    auto input = std::make_unique<InputFile>(path, limits);
    const auto same = std::find_if(inputs_.begin(), inputs_.end(),
                                   [&](const auto& other) { return other->is_same_file(*input); });
    if (same != inputs_.end()) {
      throw shard::ConfigError("inputs", path, "another file than " + (*same)->path());
    }
    if (const auto size = input->size(); size && total_) {
      *total_ += *size;
    } else {
      total_.reset();
    }
    inputs_.push_back(std::move(input));
  }
  if (options_.follow) total_.reset();
  if (!options_.split) return;

  std::vector<std::unique_ptr<InputFile>> parts;
  for (auto& input : inputs_) {
    const auto size = input->size().value_or(0);
    const auto part = std::max(kSmallestPart, size / (4 * options_.threads) + 1);
    if (size <= part) {
      parts.push_back(std::move(input));
      continue;
    }
    for (std::uint64_t begin = 0; begin < size; begin += part) {
      const auto end = begin + part < size ? begin + part : RecordReader::kToTheEnd;
      parts.push_back(std::make_unique<InputFile>(input->path(), limits, begin, end));
    }
  }
  inputs_ = std::move(parts);
}

void Readers::start(shard::Pipeline& pipeline, std::function<void()> on_done) {
  on_done_ = std::move(on_done);
  const auto count = std::min(options_.threads, inputs_.size());
  for (std::size_t i = 0; i < count; ++i) {
    workers_.push_back(std::make_unique<Worker>(options_, rejects_, pipeline));
  }
  running_ = count;
  threads_.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    threads_.emplace_back([this, i] {
      try {
        run(*workers_[i], i);
      } catch (const std::exception& error) {
        fail(error.what());
      }
      if (--running_ == 0) on_done_();
    });
  }
}

void Readers::fail(const std::string& error) {
  {
    const std::lock_guard lock(mutex_);
    errors_.push_back(error);
  }
  on_error_(error);
}

void Readers::run(Worker& worker, std::size_t index) {
  std::vector<InputFile*> mine;
  const auto take = [&] {  // one, or its share of those that are followed
    mine.clear();
    if (options_.follow) {
      for (auto i = index; i < inputs_.size(); i += workers_.size())
        mine.push_back(inputs_[i].get());
    } else if (const auto next = next_input_++; next < inputs_.size()) {
      mine.push_back(inputs_[next].get());
    }
  };
  for (take(); !mine.empty() && !stopping_;) {
    bool idle = true;
    for (auto& input : mine) {
      try {
        const auto status = worker.step(*input);
        idle = idle && status == InputFile::Status::idle;
        if (status == InputFile::Status::done) {
          ++finished_;
          input = nullptr;
        }
      } catch (const InputError& error) {
        fail(error.what());
        input = nullptr;
      }
      if (stopping_) break;
    }
    std::erase(mine, nullptr);
    if (mine.empty() && !options_.follow) take();
    if (!mine.empty() && idle) stop_.wait_for(kLookEvery);
  }
}

void Readers::request_stop() noexcept {
  stopping_ = true;
  stop_.ring();
}

void Readers::join() {
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

ReadCounts Readers::counts() const noexcept {
  ReadCounts counts;
  for (const auto& worker : workers_) {
    counts.bytes += worker->bytes;
    counts.records += worker->records;
    counts.blank += worker->blank;
    counts.rejected += worker->rejected;
    counts.unread += worker->unread;
    counts.gone += worker->gone;
  }
  return counts;
}

std::vector<std::string> Readers::errors() const {
  const std::lock_guard lock(mutex_);
  return errors_;
}

}  // namespace ingest
