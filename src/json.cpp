#include "shard/json.hpp"

#include <new>
#include <ostream>
#include <streambuf>

namespace shard {

Result<nlohmann::json, JsonError> parse_json(Bytes payload) {
  const auto text = payload.text();
  try {
    auto value = nlohmann::json::parse(text.begin(), text.end());
    // The JSON library takes a NUL byte for the end of the text and would not look behind it.
    if (const auto nul = text.find('\0'); nul != std::string_view::npos) {
      return Unexpected{JsonError{"a NUL byte is no JSON", nul + 1}};
    }
    return value;
  } catch (const nlohmann::json::parse_error& error) {
    return Unexpected{JsonError{error.what(), error.byte}};
  } catch (const nlohmann::json::exception& error) {
    return Unexpected{JsonError{error.what(), 0}};  // a number out of range
  }
}

namespace detail {

namespace {

/// A stream into a string that keeps its capacity. The JSON library writes to streams without a string of
/// its own, which dump() would make anew for each value.
class Storage : public std::streambuf {
 public:
  Storage() : stream(this) {}
  std::string text;
  std::ostream stream;

 protected:
  int_type overflow(int_type c) override {
    if (!traits_type::eq_int_type(c, traits_type::eof())) {
      text.push_back(traits_type::to_char_type(c));
    }
    return traits_type::not_eof(c);
  }
  std::streamsize xsputn(const char* from, std::streamsize size) override {
    text.append(from, static_cast<std::size_t>(size));
    return size;
  }
};

constinit thread_local bool t_storage_gone = false;

struct ThreadStorage : Storage {
  ~ThreadStorage() override { t_storage_gone = true; }
};

}  // namespace

JsonText::JsonText(const nlohmann::json& value) noexcept {
  try {
    if (t_storage_gone) {  // ingested by a destructor that runs late
      fallback_ = value.dump();
      text_ = fallback_;
      return;
    }
    thread_local ThreadStorage storage;
    storage.text.clear();
    storage.stream.clear();
    storage.stream.exceptions(std::ios::badbit);  // bad_alloc in the buffer comes through
    storage.stream << value;
    text_ = storage.text;
  } catch (const std::bad_alloc&) {
    reason_ = Outcome::out_of_memory;
  } catch (...) {
    reason_ = Outcome::invalid_json;
  }
}

}  // namespace detail

void to_json(nlohmann::json& json, const Ledger& ledger) {
  json = nlohmann::json{{"offered", ledger.offered()}};
  for (const auto& [name, count] : detail::kLedgerCounts) {
    json[name] = ledger.*count;
  }
}

}  // namespace shard
