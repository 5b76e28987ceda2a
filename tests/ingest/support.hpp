#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include "input_file.hpp"
#include "support/temporary_folder.hpp"

namespace shard_test {

inline void put(const std::string& path, std::string_view text, std::ios::openmode mode) {
  std::ofstream file(path, std::ios::binary | mode);
  file << text << std::flush;
  if (!file) throw std::runtime_error(path + " cannot be written");
}
/// The same file, if there is one, with other content.
inline void write_file(const std::string& path, std::string_view text) {
  put(path, text, std::ios::trunc);
}
inline void append_file(const std::string& path, std::string_view text) {
  put(path, text, std::ios::app);
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Everything, or an exception: what stands behind it is large enough.
inline void write_all(int descriptor, std::string_view text) {
  if (::write(descriptor, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw std::runtime_error("not everything could be written");
  }
}

/// A pipe that takes a mebibyte before it blocks.
struct Pipe {
  static constexpr std::size_t kRoom = std::size_t{1} << 20U;

  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
    out = ingest::Descriptor(ends[0]);
    in = ingest::Descriptor(ends[1]);
    if (::fcntl(in.get(), F_SETPIPE_SZ, static_cast<int>(kRoom)) < 0) {
      throw std::runtime_error("the pipe cannot be made larger");
    }
  }

  ingest::Descriptor in;
  ingest::Descriptor out;
};

/// A file in memory that holds the text and stands at its start.
inline ingest::Descriptor file_of(std::string_view text) {
  ingest::Descriptor file(::memfd_create("records", MFD_CLOEXEC));
  if (file.get() < 0) throw std::runtime_error("memfd_create failed");
  write_all(file.get(), text);
  ::lseek(file.get(), 0, SEEK_SET);
  return file;
}

}  // namespace shard_test
