#include "ops/host_step.h"

#include <chrono>

#include "base/check.h"

namespace atom {

void run_host_step(const StepArgs& args, const std::function<void()>& operators, float* logits) {
  const auto start = std::chrono::steady_clock::now();
  operators();
  const StepReading& reading = args.reading;
  if (reading.to == nullptr) return;
  const size_t rows = args.batch->logit_rows.size();
  const auto whole = static_cast<size_t>(reading.whole_rows);
  StepOutput& output = static_cast<HostReadback&>(*reading.to).output;
  output = {};
  if (whole < rows) {
    output.chosen = std::span(static_cast<const HostTokenIds&>(*reading.chosen).ids).first(rows);
  }
  if (whole > 0) output.logits = {logits, whole * static_cast<size_t>(args.logits->cols())};
  output.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::span<const int32_t> resolve_ids(const EmbedArgs& args, std::vector<int32_t>& memory) {
  if (args.earlier == nullptr) return args.ids;
  const std::vector<int32_t>& earlier = static_cast<const HostTokenIds&>(*args.earlier).ids;
  memory.assign(args.ids.begin(), args.ids.end());
  for (int32_t& id : memory) {
    if (id >= 0) continue;
    ATOM_CHECK(-1 - id < args.earlier->size(), "an id of a row that is not there");
    id = earlier[static_cast<size_t>(-1 - id)];
  }
  return memory;
}

}  // namespace atom
