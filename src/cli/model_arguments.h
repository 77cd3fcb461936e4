// What every command that runs a model has on its command line.
#pragma once

#include <cstdint>
#include <string>

#include "app/open_model.h"
#include "base/status.h"

namespace CLI {
class App;
}

namespace atom::cli {

// The longest text file that a command reads, and the most tokens that one measures.
inline constexpr size_t kMaxTextBytes = size_t{1} << 30;
inline constexpr int64_t kMaxTokens = 1 << 20;

struct ModelArguments {
  std::string path;
  std::string device = "cpu";
  int threads = 0;  // 0: all cores of this process
};

// MODEL alone, for commands that do not run it.
void add_model_path(CLI::App& command, std::string& path);
// --device and --threads.
void add_machine_options(CLI::App& command, std::string& device, int& threads);
// All three.
void add_model_arguments(CLI::App& command, ModelArguments& arguments);

// Opens the model as the arguments say.
Result<OpenedModel> open_model(const ModelArguments& arguments);

}  // namespace atom::cli
