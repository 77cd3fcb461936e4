// Options that take a number within bounds; their help shows the default.
#pragma once

#include <cstdint>

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

}  // namespace atom::cli
