#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jsonl_file.hpp"
#include "shard/jsonl.hpp"

namespace shard::detail {

/// A name with a number in it, before the extension: "events." 000001 ".ndjson.zst".
class NumberedName {
 public:
  explicit NumberedName(std::string_view name) {
    auto end = name.size();
    const auto drop = [&](std::string_view extension) {
      const auto rest = name.substr(0, end);
      const bool has = rest.size() > extension.size() && rest.ends_with(extension);
      end -= has ? extension.size() : 0;
      return has;
    };
    drop(".zst");
    static_cast<void>(drop(".ndjson") || drop(".jsonl") || drop(".json"));
    before_ = std::string(name.substr(0, end)) + ".";
    behind_ = name.substr(end);
  }

  [[nodiscard]] std::string name(std::uint64_t number) const {
    const auto digits = std::to_string(number);
    constexpr std::size_t kDigits = 6;
    return before_ + std::string(kDigits - std::min(kDigits, digits.size()), '0') + digits +
           behind_;
  }

  /// Nothing if it is no such name.
  [[nodiscard]] std::optional<std::uint64_t> number_of(std::string_view name) const {
    constexpr std::size_t kMostDigits = 18;  // far from the end of the numbers
    if (name.size() <= before_.size() + behind_.size() || !name.starts_with(before_) ||
        !name.ends_with(behind_)) {
      return std::nullopt;
    }
    const auto digits = name.substr(before_.size(), name.size() - before_.size() - behind_.size());
    if (digits.size() > kMostDigits ||
        !std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      return std::nullopt;
    }
    return std::stoull(std::string(digits));
  }

 private:
  std::string before_;
  std::string behind_;
};

/// Where the files of an adapter are, what they are called, and which one is the next.
/// Threads: one at a time.
class Place {
 public:
  /// Throws std::system_error if there is no such folder.
  explicit Place(const JsonlOptions& options)
      : path_(followed(options)),
        folder_(path_.find('/') == std::string::npos
                    ? "."
                    : path_.substr(0, std::max<std::size_t>(path_.rfind('/'), 1))),
        single_(path_.substr(path_.rfind('/') + 1)),
        numbered_(single_),
        existing_(options.existing),
        rotates_(is_rotating(options)) {}

  [[nodiscard]] const Folder& folder() const noexcept { return folder_; }
  [[nodiscard]] bool is_rotating() const noexcept { return rotates_; }
  [[nodiscard]] bool is_compressed() const noexcept { return path_.ends_with(".zst"); }
  [[nodiscard]] std::string path_of(const LineFile& file) const {
    return file.is_device() ? file.name() : folder_.path_of(file.name());
  }

  /// The file to write; and in `left` those that have to be completed besides. Throws std::system_error.
  LineFile open_first(std::vector<LineFile>& left) {
    struct stat found {};
    if (::stat(path_.c_str(), &found) == 0) {
      if (S_ISDIR(found.st_mode)) {
        throw_failure(path_, {EISDIR, "open"});
      }
      if (!S_ISREG(found.st_mode)) {
        if (rotates_) {
          throw_failure(path_, {EINVAL, "is no file that can be rotated"});
        }
        return LineFile::open_device(path_);
      }
    }
    return rotates_ ? open_series(left) : open_single();
  }

  /// With rotation. Throws std::system_error.
  LineFile open_next() {
    for (auto number = number_ + 1;; ++number) {
      const auto name = numbered_.name(number);
      if (folder_.has(name)) {
        continue;
      }
      if (auto file =
              LineFile::open(folder_, part_of(name), LineFile::Origin::anew, is_compressed())) {
        number_ = number;
        return *std::move(file);
      }
    }
  }

  /// Takes the ".part" away.
  Failure give_name(const LineFile& file) const {
    auto name = file.name().substr(0, file.name().size() - kPart.size());
    if (!rotates_) {
      return existing_ == JsonlExisting::replace ? folder_.rename_over(file.name(), name)
                                                 : folder_.rename_new(file.name(), name);
    }
    auto failure = folder_.rename_new(file.name(), name);
    // Somebody else has taken the number since.
    for (auto number = numbered_.number_of(name); number && failure.code == EEXIST;) {
      failure = folder_.rename_new(file.name(), numbered_.name(++*number));
    }
    return failure;
  }

 private:
  static constexpr std::string_view kPart = ".part";

  [[nodiscard]] static bool is_rotating(const JsonlOptions& options) noexcept {
    return options.rotate_bytes != 0 || options.rotate_after.count() != 0;
  }
  [[nodiscard]] static std::string part_of(const std::string& name) {
    return name + std::string(kPart);
  }

  /// A link to a file is followed here, so that what is renamed is the file and not the link.
  static std::string followed(const JsonlOptions& options) {
    struct stat found {};
    if (!is_rotating(options) && ::lstat(options.path.c_str(), &found) == 0 &&
        S_ISLNK(found.st_mode) && ::stat(options.path.c_str(), &found) == 0 &&
        S_ISREG(found.st_mode)) {
      const std::unique_ptr<char, decltype(&std::free)> real(
          ::realpath(options.path.c_str(), nullptr), &std::free);
      if (real != nullptr) {
        return real.get();
      }
    }
    return options.path;
  }

  LineFile open_single() const {
    const auto part = part_of(single_);
    drop_second_name(single_, part);
    if (folder_.has(single_)) {
      const auto path = folder_.path_of(single_);
      if (existing_ == JsonlExisting::fail) {
        throw_failure(path, {EEXIST,
                             "JsonlExisting::append would write it on, "
                             "JsonlExisting::replace would replace it"});
      }
      if (existing_ == JsonlExisting::append) {
        constexpr const char* kBoth = "there is a .part of it, too";
        if (folder_.has(part)) {
          throw_failure(path, {EEXIST, kBoth});
        }
        auto file = LineFile::open(folder_, single_, LineFile::Origin::completed, is_compressed());
        if (const auto failure = folder_.rename_new(single_, part)) {
          throw_failure(path, failure.code == EEXIST ? Failure{EEXIST, kBoth} : failure);
        }
        file->set_name(part);
        return *std::move(file);
      }
    }
    return *LineFile::open(folder_, part, LineFile::Origin::left, is_compressed());
  }

  LineFile open_series(std::vector<LineFile>& left) {
    std::set<std::uint64_t> parts;
    folder_.for_each_name([&](std::string_view name) {
      const bool part = name.ends_with(kPart);
      name.remove_suffix(part ? kPart.size() : 0);
      if (const auto number = numbered_.number_of(name)) {
        if (part) {
          parts.insert(*number);
        } else {
          number_ = std::max(number_, *number);
        }
      }
    });
    // What a crash, or a file that could not be completed, has left. The last one is written on, unless there are later
    // lines in a file that is complete.
    for (const auto number : parts) {
      const auto part = part_of(numbered_.name(number));
      if (drop_second_name(numbered_.name(number), part)) {
        continue;
      }
      auto file = LineFile::open(folder_, part, LineFile::Origin::left, is_compressed());
      if (number == *parts.rbegin() && number > number_) {
        number_ = number;
        return *std::move(file);
      }
      left.push_back(*std::move(file));
    }
    return open_next();
  }

  /// See Folder::rename_new().
  bool drop_second_name(const std::string& name, const std::string& part) const {
    const bool same = folder_.is_same(name, part);
    return same && !folder_.remove(part);
  }

  const std::string path_;
  const Folder folder_;
  const std::string single_;  ///< the last part of the path
  const NumberedName numbered_;
  const JsonlExisting existing_;
  const bool rotates_;
  std::uint64_t number_ = 0;  ///< of the last file that was begun, or the highest there is
};

}  // namespace shard::detail
