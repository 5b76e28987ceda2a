#include "rejects.hpp"

#include <cerrno>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace ingest {

void Rejects::open(const std::string& path) {
  if (path.empty()) return;
  file_.open(path, std::ios::binary | std::ios::trunc);
  if (!file_) {
    throw std::runtime_error(path +
                             " cannot be written: " + std::generic_category().message(errno));
  }
}

void Rejects::name(std::uint64_t source, std::string_view path) {
  const std::lock_guard lock(mutex_);
  names_.insert_or_assign(source, path == "-" ? "standard input" : path);
}

void Rejects::add(const std::optional<Place>& place, std::string_view reason,
                  std::string_view text) {
  const std::lock_guard lock(mutex_);
  const auto name = place ? names_[place->source] : std::string();
  if (first_.size() < kShown) {
    auto shown = name;
    if (place) {
      shown += place->line != 0 ? ":" + std::to_string(place->line)
                                : " at byte " + std::to_string(place->offset);
    }
    first_.push_back(shown.append(": ").append(reason));
  }
  if (!file_.is_open()) return;
  nlohmann::ordered_json entry;
  if (place) {
    entry["file"] = name;
    if (place->line != 0) entry["line"] = place->line;
    entry["offset"] = place->offset;
  }
  entry["reason"] = reason;
  entry["record"] = text;
  // What is no UTF-8 is replaced: the original stands at its offset.
  file_ << entry.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << '\n';
}

std::vector<std::string> Rejects::first() const {
  const std::lock_guard lock(mutex_);
  return first_;
}

bool Rejects::close() {
  const std::lock_guard lock(mutex_);
  if (!file_.is_open()) return true;
  file_.close();
  return !file_.fail();
}

}  // namespace ingest
