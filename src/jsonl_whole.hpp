#pragma once

#include <cstdint>
#include <optional>

namespace shard::detail {

/// Where the last line or, compressed, the last zstd frame ends that is whole. Reads little, whatever the size.
/// Nothing, with errno set: it cannot be read, or (EILSEQ) its first bytes are no zstd.
[[nodiscard]] std::optional<std::uint64_t> end_of_whole(int file, std::uint64_t size,
                                                        bool compressed);

}  // namespace shard::detail
