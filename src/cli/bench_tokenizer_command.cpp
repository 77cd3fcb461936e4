// atom bench tokenizer: how fast text becomes tokens and tokens become text.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/interrupt.h"
#include "cli/commands.h"
#include "cli/model_arguments.h"
#include "cli/output.h"

namespace atom::cli {
namespace {

struct BenchTokenizerArguments {
  std::string model, text;
  int repeat = 5;
  bool json = false;
};

// The median time of `repeat` runs, after one that warms up.
template <class Run>
Result<double> median_seconds(int repeat, Run&& run) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds;
  for (int i = 0; i <= repeat; ++i) {
    ATOM_TRY(check_interrupted());
    const auto start = Clock::now();
    ATOM_TRY(run());
    if (i > 0) seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + repeat / 2, seconds.end());
  return seconds[static_cast<size_t>(repeat / 2)];
}

Status bench_tokenizer(const BenchTokenizerArguments& arguments) {
  const std::string text = ATOM_TRY(read_text_file(arguments.text, kMaxTextBytes));
  if (text.empty()) {
    return error(ErrorCode::kInvalidArgument, "{}: the text is empty", arguments.text);
  }
  const OpenedModel model = ATOM_TRY(open_model({.path = arguments.model, .threads = 1}));
  std::vector<int32_t> tokens;
  const double encode_seconds = ATOM_TRY(median_seconds(arguments.repeat, [&]() -> Status {
    tokens =
        ATOM_TRY(model.tokenizer->encode(text, /*add_special=*/false, /*parse_special=*/false));
    return {};
  }));
  std::string decoded;
  const double decode_seconds = ATOM_TRY(median_seconds(arguments.repeat, [&]() -> Status {
    decoded = model.tokenizer->decode_bytes(tokens, /*skip_special=*/false);
    return {};
  }));
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  if (arguments.json) {
    print_json({{"model", arguments.model},
                {"text", arguments.text},
                {"bytes", text.size()},
                {"tokens", tokens.size()},
                {"repeat", arguments.repeat},
                {"same_text", decoded == text},
                {"encode_mb_per_s", megabytes / encode_seconds},
                {"decode_mb_per_s", megabytes / decode_seconds}});
    return {};
  }
  fmt::print("encoding  {:8.1f} MB/s   ({} bytes, {} tokens)\n", megabytes / encode_seconds,
             text.size(), tokens.size());
  fmt::print("decoding  {:8.1f} MB/s   ({})\n", megabytes / decode_seconds,
             decoded == text ? "the same text" : "another text: the tokenizer normalizes");
  return {};
}

}  // namespace

void add_bench_tokenizer_command(CLI::App& group, Action& action) {
  CLI::App* command =
      group.add_subcommand("tokenizer", "Megabytes a second of text to tokens and back");
  command->footer(
      "One thread, the whole file as one text without special tokens; medians over the\n"
      "repetitions, after one that warms up.\n"
      "\n"
      "Example:\n"
      "  atom bench tokenizer model.gguf --text wikitext.txt");
  auto arguments = std::make_shared<BenchTokenizerArguments>();
  add_model_path(*command, arguments->model);
  command->add_option("--text", arguments->text, "The text, a UTF-8 file")
      ->type_name("FILE")
      ->required();
  command->add_option("--repeat", arguments->repeat, "Repetitions")
      ->check(CLI::Range(1, 1000))
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback(
      [arguments, &action] { action = [arguments] { return bench_tokenizer(*arguments); }; });
}

}  // namespace atom::cli
