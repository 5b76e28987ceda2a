#pragma once

#include "options.hpp"

namespace ingest {

/// Reads all there is, delivers it, reports; the exit status. Blocks SIGINT and SIGTERM and ignores SIGPIPE and SIGXFSZ for
/// the whole process. Call it once, from the only thread.
[[nodiscard]] int run(const Options& options);

}  // namespace ingest
