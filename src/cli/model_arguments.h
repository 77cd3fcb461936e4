// What every command that runs a model has on its command line.
#pragma once

#include <string>

#include "app/open_model.h"
#include "base/status.h"

namespace CLI {
class App;
}

namespace atom::cli {

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
