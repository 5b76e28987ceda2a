#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "shard/detail/annotations.hpp"
#include "shard/detail/mutex.hpp"
#include "shard/latency.hpp"
#include "shard/pipeline_options.hpp"
#include "shard/pipeline_report.hpp"

namespace shard::detail {

struct PipelineTestAccess;  // tests look inside

/// What is counted of deliveries beyond the ledger, how they go, and which notices are due.
///
/// Threads: any.
template <class Platform>
class Monitor {
 public:
  explicit Monitor(std::chrono::nanoseconds notice_interval) : interval_(notice_interval) {}

  void note_attempt(bool is_retry) noexcept {
    attempts_.fetch_add(1, std::memory_order_relaxed);  // counts order nothing
    if (is_retry) {
      retries_.fetch_add(1, std::memory_order_relaxed);
    }
  }
  void note_failure(const Reason& reason) noexcept SHARD_EXCLUDES(mutex_) {
    failures_.fetch_add(1, std::memory_order_relaxed);
    consecutive_.fetch_add(1, std::memory_order_relaxed);
    const LockGuard lock(mutex_);
    last_error_ = reason;
  }
  void note_success(Timestamp now) noexcept {
    batches_.fetch_add(1, std::memory_order_relaxed);
    if (consecutive_.load(std::memory_order_relaxed) != 0) {
      consecutive_.store(0, std::memory_order_relaxed);
    }
    last_success_.store(now.nanoseconds + 1, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint32_t consecutive_failures() const noexcept {
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(
        consecutive_.load(std::memory_order_relaxed), std::numeric_limits<std::uint32_t>::max()));
  }

  /// May there be a notice of this kind now? How many were left out since the last one; nothing: not yet.
  [[nodiscard]] std::optional<std::uint64_t> admit(NoticeKind kind, Timestamp now) noexcept
      SHARD_EXCLUDES(mutex_) {
    const LockGuard lock(mutex_);
    auto& limit = limits_[static_cast<std::size_t>(kind)];
    if (limit.next && now < *limit.next) {
      ++limit.suppressed;
      return std::nullopt;
    }
    limit.next = now.after(interval_);
    return std::exchange(limit.suppressed, 0);
  }

  /// All of it but what only the pipeline knows.
  void read(PipelineStats& stats) const noexcept {
    stats.batches = batches_.load(std::memory_order_relaxed);
    stats.attempts = attempts_.load(std::memory_order_relaxed);
    stats.retries = retries_.load(std::memory_order_relaxed);
    stats.latency = latency.read();
  }
  void read(Health& health) const noexcept SHARD_EXCLUDES(mutex_) {
    health.consecutive_failures = consecutive_failures();
    health.failures = failures_.load(std::memory_order_relaxed);
    if (const auto last = last_success_.load(std::memory_order_relaxed); last != 0) {
      health.last_success = Timestamp{last - 1};
    }
    const LockGuard lock(mutex_);
    health.last_error = last_error_;
  }

  AtomicLatencyHistogram latency;  ///< of all shards that ever were

 private:
  friend struct PipelineTestAccess;

  const std::chrono::nanoseconds interval_;
  std::atomic<std::uint64_t> batches_{0};
  std::atomic<std::uint64_t> attempts_{0};
  std::atomic<std::uint64_t> retries_{0};
  std::atomic<std::uint64_t> failures_{0};
  std::atomic<std::uint64_t> consecutive_{
      0};  ///< wider than what is told, so that it is never 0 again by itself
  std::atomic<std::uint64_t> last_success_{0};  ///< ns + 1; 0: never
  mutable BasicMutex<Platform> mutex_;
  Reason last_error_ SHARD_GUARDED_BY(mutex_);
  struct Limit {
    std::optional<Timestamp> next;
    std::uint64_t suppressed = 0;
  };
  static constexpr auto kKinds = static_cast<std::size_t>(NoticeKind::evicting) + 1;
  std::array<Limit, kKinds> limits_ SHARD_GUARDED_BY(mutex_);
};

}  // namespace shard::detail
