#include <variant>

#include "options.hpp"
#include "run.hpp"

int main(int argc, char** argv) {
  const auto command = ingest::parse_command_line(argc, argv);
  if (const int* status = std::get_if<int>(&command)) return *status;
  return ingest::run(std::get<ingest::Options>(command));
}
