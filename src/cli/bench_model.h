// The model that a benchmark runs: of files, or of a known shape with random weights.
#pragma once

#include <cstdint>
#include <string>

#include "app/open_model.h"
#include "base/status.h"
#include "cli/model_arguments.h"

namespace atom::cli {

struct BenchModelArguments {
  ModelArguments files;
  std::string shape;  // instead of files
  std::string recipe, kv;
  int64_t layers = 0;  // 0: all
};

// MODEL, --shape with what belongs to it, --device and --threads.
void add_bench_model_arguments(CLI::App& command, BenchModelArguments& arguments);

// command: stands in front of errors.
Result<OpenedModel> open_bench_model(const char* command, const BenchModelArguments& arguments);

}  // namespace atom::cli
