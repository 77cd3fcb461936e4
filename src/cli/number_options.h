// Options that take a number within bounds; their help shows the default.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace atom::cli {

// A whole number, N in the help.
CLI::Option* add_count(CLI::App& command, const char* name, int64_t& value, int64_t least,
                       int64_t most, const char* text);
// A time of up to 1e6 seconds, S in the help.
CLI::Option* add_seconds(CLI::App& command, const char* name, double& value, double least,
                         const char* text);

// A size in bytes: "512M" and "4G" in powers of 1024, "24GB" in powers of 1000, "1073741824".
// Errors name the option.
Result<int64_t> parse_bytes(const char* option, const std::string& text);

}  // namespace atom::cli
