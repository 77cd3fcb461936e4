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

Result<int64_t> parse_bytes(const char* option, const std::string& text) {
  size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  const std::string unit = text.substr(digits);
  int64_t scale = 0;
  if (unit.empty() || unit == "B") scale = 1;
  if (unit == "K" || unit == "KiB") scale = int64_t{1} << 10;
  if (unit == "M" || unit == "MiB") scale = int64_t{1} << 20;
  if (unit == "G" || unit == "GiB") scale = int64_t{1} << 30;
  if (unit == "KB") scale = 1'000;
  if (unit == "MB") scale = 1'000'000;
  if (unit == "GB") scale = 1'000'000'000;
  if (digits == 0 || digits > 9 || scale == 0) {
    return error(ErrorCode::kInvalidArgument, "{}: '{}' is not a size like 512M or 4G", option,
                 text);
  }
  return std::stoll(text.substr(0, digits)) * scale;
}

}  // namespace atom::cli
