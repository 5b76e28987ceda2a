// Whatever text a configuration is [R-J1] [R-J3]: it is read or refused with the place, never anything else; what was read
// is within its bounds, and written out it reads back the same.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "fuzz/require.hpp"
#include "shard/config_json.hpp"

namespace {

template <class Options>
void check(const Options& options, Options (*read)(std::string_view)) {
  options.validate();  // throws ConfigError if it is not so
  const nlohmann::json written = options;
  std::string text;
  try {
    text = written.dump();
  } catch (const nlohmann::json::type_error&) {
    return;  // a thread name in some other encoding has no JSON text
  }
  const nlohmann::json again = read(text);
  REQUIRE_THAT(again == written);
}

template <class Options>
void try_to_read(std::string_view text, Options (*read)(std::string_view)) {
  Options options;
  try {
    options = read(text);
  } catch (const shard::ConfigError& error) {
    REQUIRE_THAT(!error.bound().empty());
    REQUIRE_THAT(error.field().empty() || error.field().front() == '/');
    return;
  }
  check(options, read);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try_to_read(text, &shard::parse_pipeline_options);
  try_to_read(text, &shard::parse_manager_options);
  return 0;
}
