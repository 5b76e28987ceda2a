#include <chrono>
#include <string>
#include <string_view>

#include "shard/jsonl.hpp"
#include "shard/options.hpp"

namespace shard {

std::string_view to_string(JsonlSync sync) noexcept {
  switch (sync) {
    case JsonlSync::never:
      return "never";
    case JsonlSync::on_close:
      return "on_close";
    case JsonlSync::interval:
      return "interval";
    case JsonlSync::batch:
      return "batch";
  }
  return "unknown";
}

std::string_view to_string(JsonlExisting existing) noexcept {
  switch (existing) {
    case JsonlExisting::fail:
      return "fail";
    case JsonlExisting::append:
      return "append";
    case JsonlExisting::replace:
      return "replace";
  }
  return "unknown";
}

void JsonlOptions::validate() const {
  using std::chrono::hours;
  using std::chrono::milliseconds;
  using std::chrono::seconds;
  const auto name = std::string_view(path).substr(path.rfind('/') + 1);
  if (name.empty() || name == "." || name == ".." || path.find('\0') != std::string::npos) {
    throw ConfigError("path", '"' + path + '"', "the name of a file");
  }
  if (existing > JsonlExisting::replace) {
    throw ConfigError("existing", std::to_string(static_cast<unsigned>(existing)),
                      "fail, append or replace");
  }
  constexpr seconds kTenYears = hours{24 * 3653};
  if (rotate_after != seconds{0} && (rotate_after < seconds{1} || rotate_after > kTenYears)) {
    throw ConfigError("rotate_after", std::to_string(rotate_after.count()) + " s",
                      "0, or 1 .. " + std::to_string(kTenYears.count()) + " s");
  }
  if (sync > JsonlSync::batch) {
    throw ConfigError("sync", std::to_string(static_cast<unsigned>(sync)),
                      "never, on_close, interval or batch");
  }
  if (sync_interval <= milliseconds{0} || sync_interval > hours{1}) {
    throw ConfigError("sync_interval", std::to_string(sync_interval.count()) + " ms",
                      "1 .. 3600000 ms");
  }
  if (compression_level < 1 || compression_level > 19) {
    throw ConfigError("compression_level", std::to_string(compression_level), "1 .. 19");
  }
}

}  // namespace shard
