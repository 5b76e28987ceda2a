#include "jsonl_lines.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "shard/delivery.hpp"

namespace shard::detail {

void Lines::Block::grow(std::size_t size, std::size_t kept) {
  if (size <= size_) {
    return;
  }
  const auto next = std::max(size, size_ * 2);
  auto bytes = std::make_unique_for_overwrite<std::byte[]>(next);
  if (kept != 0) {
    std::memcpy(bytes.get(), bytes_.get(), kept);
  }
  bytes_ = std::move(bytes);
  size_ = next;
}

void Lines::fill(const Batch& batch) {
  refused_.clear();
  std::size_t used = 0;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const auto payload = batch[i].payload;
    const auto size = payload.size();
    if (text_.size() - used <= size) {
      text_.grow(used + size + 1, used);
    }
    std::byte* const line = text_.data() + used;
    if (size != 0) {  // an empty one may have no address
      if (std::memchr(payload.data(), '\n', size) != nullptr) {
        refused_.push_back(i);
        continue;
      }
      std::memcpy(line, payload.data(), size);
    }
    line[size] = std::byte{'\n'};
    used += size + 1;
  }
  count_ = batch.size() - refused_.size();
  bytes_ = {text_.data(), used};
  if (level_ != 0 && count_ != 0) {
    bytes_ = compress(bytes_);
  }
}

std::span<const std::byte> Lines::compress(std::span<const std::byte> text) {
  if (context_ == nullptr) {
    context_.reset(ZSTD_createCCtx());
    if (context_ == nullptr) {
      throw std::bad_alloc();
    }
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level_);
    ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1);
  }
  compressed_.grow(ZSTD_compressBound(text.size()), 0);
  const auto size = ZSTD_compress2(context_.get(), compressed_.data(), compressed_.size(),
                                   text.data(), text.size());
  if (ZSTD_isError(size) != 0) {
    throw RetryableError(std::string("zstd: ") + ZSTD_getErrorName(size));
  }
  return {compressed_.data(), size};
}

std::unique_ptr<Lines> LinesPool::take_or_make() {
  {
    const LockGuard lock(mutex_);
    if (!spare_.empty()) {
      auto lines = std::move(spare_.back());
      spare_.pop_back();
      return lines;
    }
    spare_.reserve(++made_);  // so that it can come back whatever happens
  }
  return std::make_unique<Lines>(level_);
}

void LinesPool::give_back(std::unique_ptr<Lines> lines) noexcept {
  const LockGuard lock(mutex_);
  spare_.push_back(std::move(lines));
}

std::vector<std::byte> empty_frame() {
  std::vector<std::byte> frame(ZSTD_compressBound(0));
  const auto size = ZSTD_compress(frame.data(), frame.size(), nullptr, 0, 1);
  if (ZSTD_isError(size) != 0) {
    throw std::bad_alloc();  // it has no other reason
  }
  frame.resize(size);
  return frame;
}

}  // namespace shard::detail
