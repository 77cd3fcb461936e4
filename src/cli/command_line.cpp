#include "cli/command_line.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <string>

#include "base/interrupt.h"
#include "cli/commands.h"

namespace atom::cli {
namespace {

constexpr const char* kDescription =
    "atom: language models in 4 bits.\n"
    "\n"
    "Quantizes a model to 4-bit weights, activations and KV cache and runs it in integer "
    "arithmetic.\n"
    "MODEL is a Hugging Face folder, a GGUF file or an Atom checkpoint; every command takes all "
    "three.";

constexpr const char* kExamples =
    "Examples:\n"
    "  atom quantize model.gguf model-w4a8 --recipe w4a8\n"
    "  atom eval ppl model-w4a8 --text wikitext.txt\n"
    "  atom generate model-w4a8 \"The capital of France is\"\n"
    "  atom chat model-w4a8\n"
    "  atom serve model-w4a8 --port 8000\n"
    "\n"
    "atom COMMAND --help explains a command and its options.";

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk:
      return 0;
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kNotFound:
    case ErrorCode::kCorrupt:
    case ErrorCode::kUnsupported:
      return 2;
    case ErrorCode::kCancelled:
      return 130;
    case ErrorCode::kOutOfMemory:
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      return 1;
  }
  return 1;
}

// Messages quote what files say; a line break in them must not make two lines of one.
std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return text;
}

int fail(int code, const std::string& message) {
  fmt::print(stderr, "atom: {}\n", one_line(message));
  return code;
}

}  // namespace

int run_command_line(int argc, char** argv) {
  install_interrupt_handler();
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is an error like a full disk
  CLI::App app(kDescription, "atom");
  app.footer(kExamples);
  app.require_subcommand(0, 1);
  app.set_version_flag("--version", "atom " ATOM_VERSION);
  app.get_formatter()->column_width(34);

  Action action;
  add_quantize_command(app, action);
  add_eval_command(app, action);
  add_generate_command(app, action);
  add_chat_command(app, action);
  add_serve_command(app, action);
  add_inspect_command(app, action);
  add_bench_command(app, action);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    if (problem.get_exit_code() == 0) return app.exit(problem);  // --help, --version
    if (argc > 1 && argv[1][0] != '-' && app.get_subcommands().empty()) {
      return fail(2, fmt::format("there is no command '{}'; atom --help lists them", argv[1]));
    }
    return fail(2, problem.what());
  }
  if (!action) {
    fmt::print("{}", app.help());
    return 0;
  }
  const Status status = action();
  if (!status.ok()) return fail(exit_code(status.code()), status.message());
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    return fail(1, "cannot write to standard output");
  }
  return 0;
}

}  // namespace atom::cli
