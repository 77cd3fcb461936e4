#include "load/request_plan.h"

#include <algorithm>
#include <cmath>

namespace atom {

Result<RequestPlan> RequestPlan::create(const PlanOptions& options, const Trace* trace) {
  RequestPlan plan(options);
  if (options.trace_arrivals && (trace == nullptr || !trace->has_arrivals)) {
    return error(ErrorCode::kInvalidArgument,
                 "--trace-arrivals: the trace has no column of arrival times");
  }
  if (trace == nullptr) return plan;
  for (const TraceRequest& request : trace->requests) {
    if (options.context == 0 || request.prompt_tokens + request.output_tokens <= options.context) {
      plan.shapes_.push_back(request);
    }
  }
  if (plan.shapes_.empty()) {
    return error(ErrorCode::kInvalidArgument,
                 "--context {}: no request of the trace has so few tokens", options.context);
  }
  const auto count = static_cast<int64_t>(plan.shapes_.size());
  if (options.trace_arrivals && (options.requests == 0 || options.requests > count)) {
    plan.options_.requests = count;
  }
  return plan;
}

std::optional<PlannedRequest> RequestPlan::next() {
  if (options_.requests > 0 && handed_out_ == options_.requests) return std::nullopt;
  PlannedRequest request{.index = options_.first_index + handed_out_,
                         .arrival_s = 0,
                         .prompt_tokens = options_.prompt_tokens,
                         .max_tokens = options_.max_tokens};
  if (!shapes_.empty()) {
    const auto at = static_cast<size_t>(handed_out_) % shapes_.size();
    if (at == 0 && !options_.trace_arrivals) shuffle();
    request.prompt_tokens = shapes_[at].prompt_tokens;
    request.max_tokens = shapes_[at].output_tokens;
    if (options_.trace_arrivals) request.arrival_s = shapes_[at].arrival_s / options_.speed;
  }
  if (options_.rate > 0) {
    now_s_ -= std::log(1.0 - arrivals_.uniform()) / options_.rate;
    request.arrival_s = now_s_;
  }
  ++handed_out_;
  return request;
}

void RequestPlan::shuffle() {
  for (size_t i = shapes_.size(); i > 1; --i) {
    std::swap(shapes_[i - 1], shapes_[static_cast<size_t>(order_.below(static_cast<int64_t>(i)))]);
  }
}

}  // namespace atom
