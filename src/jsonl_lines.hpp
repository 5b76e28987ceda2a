#pragma once

#include <zstd.h>

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "shard/batch.hpp"
#include "shard/detail/annotations.hpp"
#include "shard/detail/mutex.hpp"
#include "shard/detail/platform.hpp"

namespace shard::detail {

/// The lines of one batch as they go into the file, in storage that is reused.
/// Threads: one at a time.
class Lines {
 public:
  /// \param level  zstd's; 0: not compressed
  explicit Lines(int level) noexcept : level_(level) {}

  /// Takes the place of what was there. Throws std::bad_alloc, and RetryableError if zstd fails.
  void fill(const Batch& batch);

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  /// The indices of the events that cannot be a line, ascending.
  [[nodiscard]] const std::vector<std::size_t>& refused() const noexcept { return refused_; }

 private:
  class Block {
   public:
    [[nodiscard]] std::byte* data() const noexcept { return bytes_.get(); }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    /// At least that large; the first `kept` bytes stay.
    void grow(std::size_t size, std::size_t kept);

   private:
    std::unique_ptr<std::byte[]> bytes_;
    std::size_t size_ = 0;
  };

  struct FreeContext {
    void operator()(ZSTD_CCtx* context) const noexcept { ZSTD_freeCCtx(context); }
  };

  [[nodiscard]] std::span<const std::byte> compress(std::span<const std::byte> text);

  int level_;
  Block text_;
  Block compressed_;
  std::unique_ptr<ZSTD_CCtx, FreeContext> context_;
  std::span<const std::byte> bytes_;
  std::size_t count_ = 0;
  std::vector<std::size_t> refused_;
};

/// Has Lines for as many calls as there are at once.
/// Threads: any.
class LinesPool {
 public:
  explicit LinesPool(int level) noexcept : level_(level) {}

  class Lease {
   public:
    Lease(LinesPool& pool, std::unique_ptr<Lines> lines) noexcept
        : pool_(pool), lines_(std::move(lines)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { pool_.give_back(std::move(lines_)); }

    Lines& operator*() const noexcept { return *lines_; }
    Lines* operator->() const noexcept { return lines_.get(); }

   private:
    LinesPool& pool_;
    std::unique_ptr<Lines> lines_;
  };

  /// Throws std::bad_alloc.
  [[nodiscard]] Lease take() SHARD_EXCLUDES(mutex_) { return {*this, take_or_make()}; }

 private:
  std::unique_ptr<Lines> take_or_make() SHARD_EXCLUDES(mutex_);
  void give_back(std::unique_ptr<Lines> lines) noexcept SHARD_EXCLUDES(mutex_);

  const int level_;
  BasicMutex<SystemPlatform> mutex_;
  std::vector<std::unique_ptr<Lines>> spare_ SHARD_GUARDED_BY(mutex_);
  std::size_t made_ SHARD_GUARDED_BY(mutex_) = 0;
};

/// A frame of nothing: a compressed file without a line has to have one.
[[nodiscard]] std::vector<std::byte> empty_frame();

}  // namespace shard::detail
