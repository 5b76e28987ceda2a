#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace shard {

/// A short text that never allocates: what does not fit is cut off.
class Reason {
 public:
  static constexpr std::size_t kMaxSize = 159;

  Reason() noexcept = default;
  Reason(std::string_view text) noexcept
      : size_(static_cast<std::uint8_t>(std::min(text.size(), kMaxSize))) {
    if (size_ != 0) {
      std::memcpy(text_.data(), text.data(), size_);
    }
  }
  Reason(const char* text) noexcept : Reason(std::string_view(text)) {}
  Reason(const std::string& text) noexcept : Reason(std::string_view(text)) {}

  [[nodiscard]] std::string_view text() const noexcept { return {text_.data(), size_}; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  bool operator==(const Reason& other) const noexcept { return text() == other.text(); }

 private:
  std::uint8_t size_ = 0;
  std::array<char, kMaxSize> text_{};
};

/// Thrown by an adapter: the batch should be tried again. The same as returning Delivery::retry().
class RetryableError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Thrown by an adapter: the batch can never be delivered. The same as returning Delivery::refuse().
class PermanentError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What an adapter answers for a batch. Indices are those of the batch that it was given.
///
///     return shard::Delivery::delivered();
///     return shard::Delivery::retry("connection lost");
///     return shard::Delivery::delivered(120);          // the first 120; the rest is retried
///     return shard::Delivery::refuse({17}, "no such column");  // that one never; the rest is retried at once
class Delivery {
 public:
  enum class Kind : std::uint8_t {
    delivered,  ///< all of it
    delivered_prefix,  ///< the first count() events; the rest is retried, at once unless there is a reason()
    delivered_except,  ///< all but indices(), which are dead letters
    retry,             ///< nothing of it, but it may work later
    refuse,            ///< nothing of it, ever: dead letters
    refuse_some,       ///< indices() are dead letters; the rest is retried at once, without them
    unknown,  ///< it may have got there or not, and must not be tried again: possibly delivered
  };

  [[nodiscard]] static Delivery delivered() noexcept { return Delivery(Kind::delivered); }
  /// \param prefix  how many of the first events were delivered; all of them is delivered(), none is retry()
  /// \param reason  why the rest was not: then it waits as after retry(). Without one it is tried again at once.
  [[nodiscard]] static Delivery delivered(std::size_t prefix, const Reason& reason = {}) noexcept {
    Delivery delivery(Kind::delivered_prefix, reason);
    delivery.count_ = prefix;
    return delivery;
  }
  [[nodiscard]] static Delivery delivered_except(std::span<const std::size_t> indices,
                                                 const Reason& reason) {
    return Delivery(Kind::delivered_except, indices, reason);
  }
  [[nodiscard]] static Delivery delivered_except(std::initializer_list<std::size_t> indices,
                                                 const Reason& reason) {
    return delivered_except(std::span(indices.begin(), indices.size()), reason);
  }
  [[nodiscard]] static Delivery retry(const Reason& reason) noexcept {
    return Delivery(Kind::retry, reason);
  }
  [[nodiscard]] static Delivery refuse(const Reason& reason) noexcept {
    return Delivery(Kind::refuse, reason);
  }
  /// No index at all refuses nothing and delivers nothing, so that is retry().
  [[nodiscard]] static Delivery refuse(std::span<const std::size_t> indices, const Reason& reason) {
    return Delivery(Kind::refuse_some, indices, reason);
  }
  [[nodiscard]] static Delivery refuse(std::initializer_list<std::size_t> indices,
                                       const Reason& reason) {
    return refuse(std::span(indices.begin(), indices.size()), reason);
  }
  [[nodiscard]] static Delivery unknown(const Reason& reason) noexcept {
    return Delivery(Kind::unknown, reason);
  }

  [[nodiscard]] Kind kind() const noexcept { return kind_; }
  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  /// Ascending, each once.
  [[nodiscard]] const std::vector<std::size_t>& indices() const noexcept { return indices_; }
  [[nodiscard]] const Reason& reason() const noexcept { return reason_; }

 private:
  explicit Delivery(Kind kind, const Reason& reason = {}) noexcept : kind_(kind), reason_(reason) {}
  Delivery(Kind kind, std::span<const std::size_t> indices, const Reason& reason)
      : kind_(kind), indices_(indices.begin(), indices.end()), reason_(reason) {
    std::sort(indices_.begin(), indices_.end());
    indices_.erase(std::unique(indices_.begin(), indices_.end()), indices_.end());
  }

  Kind kind_;
  std::size_t count_ = 0;
  std::vector<std::size_t> indices_;  // empty but where some of a batch was refused
  Reason reason_;
};

}  // namespace shard
