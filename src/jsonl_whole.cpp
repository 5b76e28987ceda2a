#include "jsonl_whole.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <span>
#include <string_view>

namespace shard::detail {

namespace {

/// Up to `into.size()` bytes at `offset`; how many there are, or -1.
ssize_t read_at(int file, std::uint64_t offset, std::span<unsigned char> into) {
  for (;;) {
    const auto got = ::pread(file, into.data(), into.size(), static_cast<off_t>(offset));
    if (got >= 0 || errno != EINTR) return got;
  }
}

std::uint32_t little_endian(std::span<const unsigned char> bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    value |= static_cast<std::uint32_t>(bytes[i]) << (8 * i);
  }
  return value;
}

constexpr std::uint32_t kFrameMagic = 0xFD2FB528;
constexpr std::array<unsigned char, 4> kFrameStart{0x28, 0xB5, 0x2F, 0xFD};  // as it is in the file
constexpr std::uint32_t kSkippableMagic = 0x184D2A50;                        // and the 15 behind it

bool is_frame(std::uint32_t magic) {
  return magic == kFrameMagic || (magic & 0xFFFFFFF0) == kSkippableMagic;
}

/// What the file says of a frame.
enum class FrameKind : std::uint8_t { whole, torn, none, unreadable };

/// Looks at the frame that begins at `at` and, if it is whole, moves `at` behind it. Only headers are read (RFC 8878),
/// so that a frame may be of any size; its checksum is for whoever decompresses it.
FrameKind skip_frame(int file, std::uint64_t size, std::uint64_t& at) {
  std::array<unsigned char, 18> header{};
  const auto got = read_at(file, at, header);
  if (got < 0) return FrameKind::unreadable;
  const std::span all(header);
  if (got < 4) {
    const bool begun = std::equal(header.begin(), header.begin() + got, kFrameStart.begin());
    return begun ? FrameKind::torn : FrameKind::none;
  }
  const auto magic = little_endian(all.first(4));
  if (!is_frame(magic)) return FrameKind::none;
  if (got < 5) return FrameKind::torn;
  if (magic != kFrameMagic) {
    const auto end = at + 8 + little_endian(all.subspan(4, 4));
    if (got < 8 || end > size) return FrameKind::torn;
    at = end;
    return FrameKind::whole;
  }
  constexpr std::array<std::uint64_t, 4> kDictionarySize{0, 1, 2, 4};
  constexpr std::array<std::uint64_t, 4> kContentSize{0, 2, 4, 8};
  const unsigned descriptor = header[4];
  const bool single_segment = (descriptor & 0x20U) != 0;
  const bool has_checksum = (descriptor & 0x04U) != 0;
  auto end = at + 5 + kDictionarySize[descriptor & 3U] + kContentSize[descriptor >> 6U] +
             (single_segment ? (descriptor >> 6U == 0 ? 1 : 0) : 1);
  for (bool last = false; !last;) {
    std::array<unsigned char, 3> block{};
    const auto read = read_at(file, end, block);
    if (read < 0) return FrameKind::unreadable;
    if (read < 3) return FrameKind::torn;
    const auto fields = little_endian(block);
    const auto type = fields >> 1U & 3U;
    if (type == 3) return FrameKind::torn;  // reserved: no block
    last = (fields & 1U) != 0;
    end += 3 + (type == 1 ? 1 : fields >> 3U);  // 1: one byte, repeated
  }
  end += has_checksum ? 4 : 0;
  if (end > size) return FrameKind::torn;
  at = end;
  return FrameKind::whole;
}

std::optional<std::uint64_t> end_of_frames(int file, std::uint64_t size) {
  std::uint64_t at = 0;
  while (at < size) {
    const auto before = at;
    switch (skip_frame(file, size, at)) {
      case FrameKind::whole:
        break;
      case FrameKind::none:
        if (before == 0) {
          errno = EILSEQ;
          return std::nullopt;
        }
        return before;
      case FrameKind::torn:
        return before;
      case FrameKind::unreadable:
        return std::nullopt;
    }
  }
  return at;
}

std::optional<std::uint64_t> end_of_lines(int file, std::uint64_t size) {
  std::array<unsigned char, 16'384> block{};
  for (auto end = size; end != 0;) {
    const auto begin = end - std::min<std::uint64_t>(end, block.size());
    const auto wanted = static_cast<std::size_t>(end - begin);
    if (read_at(file, begin, std::span(block).first(wanted)) != static_cast<ssize_t>(wanted)) {
      return std::nullopt;
    }
    const auto found =
        std::string_view(reinterpret_cast<const char*>(block.data()), wanted).rfind('\n');
    if (found != std::string_view::npos) {
      return begin + found + 1;
    }
    end = begin;
  }
  return 0;
}

}  // namespace

std::optional<std::uint64_t> end_of_whole(int file, std::uint64_t size, bool compressed) {
  return compressed ? end_of_frames(file, size) : end_of_lines(file, size);
}

}  // namespace shard::detail
