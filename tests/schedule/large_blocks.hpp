#pragma once

namespace shard::test {

/// While on, operator new gives the calling thread no block of 64 KiB or more, which is what a batch grows by.
void no_large_blocks(bool on) noexcept;

}  // namespace shard::test
