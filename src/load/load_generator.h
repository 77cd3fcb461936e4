// Puts a server under load and measures what its clients see. One thread serves all streams.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "load/measurement.h"
#include "load/openai.h"
#include "load/prompt_source.h"
#include "load/request_plan.h"
#include "load/url.h"

namespace atom {

struct LoadOptions {
  Url url;
  Api api = Api::kCompletions;
  std::string model;                  // empty: the first that the server lists
  std::string api_key;                // empty: none
  std::shared_ptr<const Json> extra;  // members of every request's body; may be null
  PlanOptions plan;
  // Closed loop: so many clients, each sending its next request once the last is answered. 0: open
  // loop, requests are sent when the plan says so, whatever became of those before.
  int64_t concurrency = 0;
  int64_t max_streams = 16384;            // an arrival beyond so many open ones fails, unsent
  double duration_s = 0;                  // no request starts later than this; 0: no limit
  double timeout_s = 600;                 // of one request
  int64_t warmup = 0;                     // requests before the measurement
  int64_t shared_prefix_tokens = 0;       // the beginning that all prompts share
  std::optional<double> tokens_per_word;  // absent: asked of the server
  std::string trace_name;                 // for reports; empty without a trace
  bool progress = true;
};

struct LoadResult {
  std::string model;
  TokenFit fit;
  bool fit_measured = false;  // else assumed: the server counts no prompt tokens
  bool interrupted = false;   // Ctrl-C cut the measurement off
  int64_t peak_streams = 0;
  Measurement measurement{Slo{}};
};

// Asks the server for its model and how many tokens it makes of words, warms it up, then runs the
// plan. Fails where the server cannot be reached or refuses the first questions; what goes wrong
// later is counted. Ctrl-C ends the measurement early, not in an error.
Result<LoadResult> run_load(const LoadOptions& options, const PromptSource& prompts,
                            RequestPlan plan, const Slo& slo);

}  // namespace atom
