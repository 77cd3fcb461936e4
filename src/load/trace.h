// Request traces: how long prompts and answers are, and when requests arrive.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace atom {

struct TraceRequest {
  double arrival_s = 0;  // after the first request of the trace
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
};

struct Trace {
  std::vector<TraceRequest> requests;  // by arrival where the file tells it, else as in the file
  bool has_arrivals = false;
};

// Reads a CSV file with a header line, or a file of one JSON object a line; what a column means
// follows from its name:
//   prompt tokens   ContextTokens (Azure), num_prefill_tokens (ShareGPT as in sarathi-serve),
//                   input_toks, input_tokens, prompt_tokens
//   output tokens   GeneratedTokens, num_decode_tokens, output_toks, output_tokens,
//                   completion_tokens, max_tokens
//   arrival         TIMESTAMP (a date and time, or seconds), arrival_time_ns, arrival_s; optional
// Other columns are ignored. Errors name the line, the column and what stood there.
Result<Trace> read_trace(const std::filesystem::path& path);
// The same for a file's text; origin stands in front of errors.
Result<Trace> parse_trace(std::string_view text, std::string_view origin);

}  // namespace atom
