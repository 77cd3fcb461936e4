#include "cli/number_options.h"

#include <CLI/CLI.hpp>

namespace atom::cli {
namespace {

template <class T>
CLI::Option* add_number(CLI::App& command, const char* name, T& value, T least, T most,
                        const char* unit, const char* text) {
  return command.add_option(name, value, text)
      ->check(CLI::Range(least, most))
      ->type_name(unit)
      ->capture_default_str();
}

}  // namespace

CLI::Option* add_count(CLI::App& command, const char* name, int64_t& value, int64_t least,
                       int64_t most, const char* text) {
  return add_number(command, name, value, least, most, "N", text);
}

CLI::Option* add_seconds(CLI::App& command, const char* name, double& value, double least,
                         const char* text) {
  return add_number(command, name, value, least, 1e6, "S", text);
}

}  // namespace atom::cli
