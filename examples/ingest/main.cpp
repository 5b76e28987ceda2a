#include <fcntl.h>
#include <unistd.h>

#include <variant>

#include "options.hpp"
#include "run.hpp"

namespace {

/// What the program opens must not become its standard input or output, where these are closed. What stands there instead
/// cannot be read, or written, so that whoever tries is told.
void occupy_standard_descriptors() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) < 0) {
      static_cast<void>(::open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  occupy_standard_descriptors();
  const auto command = ingest::parse_command_line(argc, argv);
  if (const int* status = std::get_if<int>(&command)) return *status;
  return ingest::run(std::get<ingest::Options>(command));
}
