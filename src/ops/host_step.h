// Steps of backends that compute on the host: whoever asked for a step has its results already.
#pragma once

#include <functional>
#include <vector>

#include "ops/backend.h"

namespace atom {

struct HostTokenIds final : public TokenIds {
  explicit HostTokenIds(int64_t size) : ids(static_cast<size_t>(size)) {}
  int64_t size() const override { return static_cast<int64_t>(ids.size()); }

  std::vector<int32_t> ids;
};

// Lends the logits where they are.
struct HostReadback final : public StepReadback {
  StepOutput wait() override { return output; }

  StepOutput output;
};

// Backend::run_step. logits: the elements of args.logits, or null.
void run_host_step(const StepArgs& args, const std::function<void()>& operators, float* logits);

// The ids of an embed, those from the step before filled in. memory: for where there are such.
std::span<const int32_t> resolve_ids(const EmbedArgs& args, std::vector<int32_t>& memory);

}  // namespace atom
