#pragma once

#include "options.hpp"

namespace ingest {

/// Reads all there is, delivers it, reports; the exit status. Blocks SIGINT, SIGTERM and SIGHUP and ignores SIGPIPE and
/// SIGXFSZ for the whole process. Ends it by itself if a thread does not come back. Call it once, from the only thread.
[[nodiscard]] int run(const Options& options);

}  // namespace ingest
