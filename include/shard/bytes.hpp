#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <string_view>

namespace shard {

namespace detail {

template <class T>
concept ByteRange = requires(const T& range) {
  { range.size() } -> std::convertible_to<std::size_t>;
  requires sizeof(*range.data()) == 1;
};

}  // namespace detail

/// A view of bytes, any bytes: made implicitly from text, from a span or from a container of byte-
/// sized elements. Does not own them.
class Bytes {
 public:
  constexpr Bytes() noexcept = default;
  constexpr Bytes(const std::byte* data, std::size_t size) noexcept : data_(data), size_(size) {}
  Bytes(std::string_view text) noexcept
      : data_(reinterpret_cast<const std::byte*>(text.data())), size_(text.size()) {}
  Bytes(const char* text) noexcept : Bytes(std::string_view{text}) {}

  /// From any contiguous range of one-byte elements: std::string, std::vector<std::byte>,
  /// std::span<const unsigned char>, ...
  template <detail::ByteRange Range>
  Bytes(const Range& range) noexcept
      : data_(reinterpret_cast<const std::byte*>(range.data())), size_(range.size()) {}

  [[nodiscard]] constexpr const std::byte* data() const noexcept { return data_; }
  [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
  [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] constexpr std::span<const std::byte> span() const noexcept {
    return {data_, size_};
  }

  /// The same bytes as text; nothing is checked or converted.
  [[nodiscard]] std::string_view text() const noexcept {
    return {reinterpret_cast<const char*>(data_), size_};
  }

  friend bool operator==(Bytes a, Bytes b) noexcept { return a.text() == b.text(); }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Says which events belong together: with keyed routing events of equal keys go to the same shard
/// and stay in order. Any bytes; an empty key is a key.
struct Key {
  Bytes bytes;

  Key() noexcept = default;
  template <class Source>
  requires std::constructible_from<Bytes, const Source&>
  explicit Key(const Source& source) noexcept : bytes(source) {}
};

}  // namespace shard
