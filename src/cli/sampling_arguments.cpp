#include "cli/sampling_arguments.h"

#include <CLI/CLI.hpp>

namespace atom::cli {

void add_sampling_arguments(CLI::App& command, SamplingArguments& arguments) {
  const auto option = [&](const char* name, auto& value, const char* text) {
    return command.add_option(name, value, text)->capture_default_str()->group("Choosing tokens");
  };
  SamplingParams& params = arguments.params;
  option("--max-tokens", arguments.max_tokens, "Tokens to generate at most")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->type_name("N");
  option("--temperature", params.temperature, "0 always takes the most likely token")
      ->type_name("X");
  option("--top-k", params.top_k, "Choose among the K most likely; 0: all")->type_name("K");
  option("--top-p", params.top_p, "Choose among the most likely that together reach this share")
      ->type_name("X");
  option("--min-p", params.min_p, "Drop what is below this share of the most likely")
      ->type_name("X");
  option("--repeat-penalty", params.repetition_penalty,
         "Above 1: tokens seen before become less likely")
      ->type_name("X");
  option("--seed", params.seed, "The same seed gives the same text")->type_name("N");
}

}  // namespace atom::cli
