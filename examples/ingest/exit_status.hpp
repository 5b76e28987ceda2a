#pragma once

namespace ingest {

/// How shard-ingest ends; 128 + n after signal n, if nothing was lost.
enum ExitStatus : int {
  kDelivered = 0,  ///< all of it
  kUnusable = 1,   ///< the sink or an input
  kUsage = 2,      ///< of the command line or the configuration
  kLost = 3,       ///< something was lost or refused
};

}  // namespace ingest
