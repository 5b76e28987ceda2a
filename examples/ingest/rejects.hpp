#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ingest {

/// Where a record stands.
struct Place {
  std::uint64_t source;  ///< InputFile::identity()
  std::uint64_t offset;
  std::uint64_t line;  ///< 0: not known
};

/// Keeps what was rejected or refused: in a file, a JSON object a line, if there is one; the first few in any case, to show.
///
/// Threads: any.
class Rejects {
 public:
  static constexpr std::size_t kShown = 3;

  /// \param path  empty: no file. Throws std::runtime_error when it cannot be written. Before anything is added.
  void open(const std::string& path);

  /// From now on places of that source are in the file at `path`.
  void name(std::uint64_t source, std::string_view path);

  /// \param text  the record, or the beginning of one that is too long
  void add(const std::optional<Place>& place, std::string_view reason, std::string_view text);

  /// "flights.ndjson:17: why".
  [[nodiscard]] std::vector<std::string> first() const;

  /// False if not everything could be written to the file.
  [[nodiscard]] bool close();

 private:
  mutable std::mutex mutex_;  // guards what follows
  std::map<std::uint64_t, std::string> names_;
  std::vector<std::string> first_;
  std::ofstream file_;
};

}  // namespace ingest
