// The options that say how the next token is chosen.
#pragma once

#include <cstdint>

#include "engine/generator.h"

namespace CLI {
class App;
}

namespace atom::cli {

struct SamplingArguments {
  int64_t max_tokens = 256;
  SamplingParams params{.temperature = 0.7, .top_p = 0.95};
};

// --max-tokens, --temperature, --top-k, --top-p, --min-p, --repeat-penalty and --seed.
void add_sampling_arguments(CLI::App& command, SamplingArguments& arguments);

}  // namespace atom::cli
