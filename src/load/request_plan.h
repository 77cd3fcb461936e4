// Which requests are sent, and when.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "load/trace.h"

namespace atom {

struct PlannedRequest {
  int64_t index = 0;
  double arrival_s = 0;  // after the start of the load; 0 under closed loops
  int64_t prompt_tokens = 0;
  int64_t max_tokens = 0;
};

struct PlanOptions {
  int64_t requests = 0;  // 0: without end, or once through the trace with its arrivals
  int64_t first_index = 0;
  uint64_t seed = 0;
  // Shapes: of the trace, or these.
  int64_t prompt_tokens = 128;
  int64_t max_tokens = 64;
  int64_t context = 0;  // leaves out requests of the trace with more tokens in all; 0: no limit
  // Arrivals; at most one of the two.
  double rate = 0;              // Poisson, requests a second; 0: none
  bool trace_arrivals = false;  // those of the trace
  double speed = 1;             // divides the trace's times
};

// Hands out the requests one by one, the same ones for the same seed. Without the trace's own
// arrivals its requests come in random order, each once before any comes again.
class RequestPlan {
 public:
  // trace: may be null. Fails where nothing of it is left, or it tells no arrivals but must.
  static Result<RequestPlan> create(const PlanOptions& options, const Trace* trace);

  // None once all are handed out.
  std::optional<PlannedRequest> next();
  // How many there are in all; 0 when there is no end.
  int64_t total() const { return options_.requests; }

 private:
  explicit RequestPlan(const PlanOptions& options)
      : options_(options), arrivals_(options.seed ^ 0xa771u), order_(options.seed ^ 0x0bdeu) {}
  void shuffle();

  PlanOptions options_;
  std::vector<TraceRequest> shapes_;  // empty: all alike
  Random arrivals_;
  Random order_;
  int64_t handed_out_ = 0;
  double now_s_ = 0;
};

}  // namespace atom
