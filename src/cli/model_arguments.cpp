#include "cli/model_arguments.h"

#include <CLI/CLI.hpp>

#include "base/parallel.h"

namespace atom::cli {
namespace {
constexpr int kMaxThreads = 1024;
}  // namespace

void add_model_path(CLI::App& command, std::string& path) {
  command.add_option("MODEL", path, "Hugging Face folder, GGUF file or Atom checkpoint")
      ->required()
      ->type_name("");
}

void add_machine_options(CLI::App& command, std::string& device, int& threads) {
  command.add_option("--device", device, "Backend: cpu, cuda, or ref (slow, for tests)")
      ->type_name("NAME")
      ->capture_default_str();
  command.add_option("--threads", threads, "Threads to compute with (default: all cores)")
      ->check(CLI::Range(1, kMaxThreads))
      ->type_name("N");
}

void add_model_arguments(CLI::App& command, ModelArguments& arguments) {
  add_model_path(command, arguments.path);
  add_machine_options(command, arguments.device, arguments.threads);
}

Result<OpenedModel> open_model(const ModelArguments& arguments) {
  set_thread_count(arguments.threads);
  return atom::open_model(arguments.path, arguments.device);
}

}  // namespace atom::cli
