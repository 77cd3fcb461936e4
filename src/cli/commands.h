// The commands of the program, one file each. A command declares its options on a CLI11 subcommand;
// what it does once they are parsed is its action.
#pragma once

#include <functional>

#include "base/status.h"

namespace CLI {
class App;
}

namespace atom::cli {

using Action = std::function<Status()>;

// Each adds its subcommand to app; when the command line names that subcommand, parsing leaves the
// work in action. app and action must outlive the run of it.
void add_quantize_command(CLI::App& app, Action& action);
void add_eval_command(CLI::App& app, Action& action);
void add_generate_command(CLI::App& app, Action& action);
void add_chat_command(CLI::App& app, Action& action);
void add_serve_command(CLI::App& app, Action& action);
void add_inspect_command(CLI::App& app, Action& action);
void add_bench_command(CLI::App& app, Action& action);
// Under eval and bench: `group` is that subcommand.
void add_eval_tasks_command(CLI::App& group, Action& action);
void add_bench_serve_command(CLI::App& group, Action& action);
void add_bench_engine_command(CLI::App& group, Action& action);
void add_bench_kernels_command(CLI::App& group, Action& action);
void add_bench_quantize_command(CLI::App& group, Action& action);
void add_bench_tokenizer_command(CLI::App& group, Action& action);

}  // namespace atom::cli
