#include "json_field.hpp"

#include <array>
#include <charconv>
#include <cstddef>

namespace ingest {

namespace {

using Json = nlohmann::json;

/// What the library's messages say, without their number and class. They quote the token where it went wrong, which may be
/// the whole record.
std::string plain(const std::string& what) {
  constexpr std::size_t kLongest = 200;
  const auto end = what.find("] ");
  auto text = end == std::string::npos ? what : what.substr(end + 2);
  if (text.size() > kLongest) text.replace(kLongest - 3, std::string::npos, "...");
  return text;
}

/// Accepts everything and remembers the error.
class Validator : public Json::json_sax_t {
 public:
  explicit Validator(std::string& error) : error_(error) {}
  bool null() override { return true; }
  bool boolean(bool /*value*/) override { return true; }
  bool number_integer(number_integer_t /*value*/) override { return true; }
  bool number_unsigned(number_unsigned_t /*value*/) override { return true; }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override { return true; }
  bool string(string_t& /*value*/) override { return true; }
  bool binary(binary_t& /*value*/) override { return true; }
  bool start_object(std::size_t /*size*/) override { return true; }
  bool key(string_t& /*name*/) override { return true; }
  bool end_object() override { return true; }
  bool start_array(std::size_t /*size*/) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                   const Json::exception& why) override {
    error_ = plain(why.what());
    return false;
  }

 private:
  std::string& error_;
};

/// Shows the text to `events`. False, and `error` says why, if it is no JSON.
bool read(std::string_view text, Validator& events, std::string& error) {
  error.clear();
  const bool good = Json::sax_parse(text.begin(), text.end(), &events);
  // The library takes a NUL byte for the end of the text and does not look behind it.
  if (good && text.find('\0') != std::string_view::npos) {
    error = "a NUL byte is no JSON";
  } else if (!good && error.empty()) {
    error = "no JSON";
  }
  return error.empty();
}

}  // namespace

std::string json_error(std::string_view text) {
  std::string error;
  Validator validator(error);
  read(text, validator, error);
  return error;
}

/// Follows the pointer while the text is read. A container is "entered" if it lies on the way to the value, so the n-th
/// entered one is chosen from by the n-th token of it; all others are "passed".
class JsonField::Events final : public Validator {
 public:
  explicit Events(JsonField& field) : Validator(field.error_), field_(field) {}

  Found found = Found::nothing;

  bool null() override {
    if (is_next()) found = Found::nothing;
    return true;
  }
  bool boolean(bool value) override { return scalar(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return number(value); }
  bool number_unsigned(number_unsigned_t value) override { return number(value); }
  bool number_float(number_float_t /*value*/, const string_t& text) override {
    return scalar(text);
  }
  bool string(string_t& value) override { return scalar(value); }
  bool key(string_t& name) override {
    if (passed_ == 0) named_ = name == field_.levels_[entered_ - 1].token;
    return true;
  }
  bool start_object(std::size_t /*size*/) override { return enter(false); }
  bool start_array(std::size_t /*size*/) override { return enter(true); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }

 private:
  /// Is the value that begins now on the way?
  bool is_next() {
    if (passed_ != 0) return false;
    if (entered_ == 0) return true;
    auto& level = field_.levels_[entered_ - 1];
    return level.is_array ? std::to_string(level.next_index++) == level.token : named_;
  }
  [[nodiscard]] bool is_target() const { return entered_ == field_.levels_.size(); }

  bool scalar(std::string_view text) {
    if (!is_next()) return true;
    if (is_target()) {
      field_.text_ = text;
      found = Found::value;
    } else {
      found =
          Found::nothing;  // the way ends here; forgets what an earlier member of that name led to
    }
    return true;
  }
  template <class Number>
  bool number(Number value) {
    std::array<char, 24> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
    return scalar({digits.data(), static_cast<std::size_t>(end - digits.data())});
  }

  bool enter(bool array) {
    if (!is_next()) {
      ++passed_;
      return true;
    }
    found = is_target() ? Found::structure : Found::nothing;
    if (is_target()) {
      ++passed_;
      return true;
    }
    auto& level = field_.levels_[entered_++];
    level.is_array = array;
    level.next_index = 0;
    named_ = false;
    return true;
  }
  bool leave() {
    if (passed_ != 0) {
      --passed_;
    } else {
      --entered_;
      named_ = false;
    }
    return true;
  }

  JsonField& field_;
  std::size_t entered_ = 0;
  std::size_t passed_ = 0;
  bool named_ = false;  ///< the member that comes now has the name that the token asks for
};

JsonField::JsonField(const std::string& pointer) {
  for (Json::json_pointer rest(pointer); !rest.empty(); rest.pop_back()) {
    levels_.insert(levels_.begin(), {.token = rest.back()});
  }
}

JsonField::Found JsonField::find(std::string_view json) {
  Events events(*this);
  if (!read(json, events, error_)) return Found::no_json;
  return events.found;
}

}  // namespace ingest
