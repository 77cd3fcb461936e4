// Decode steps as CUDA graphs: recorded once for each size of batch, then replayed with one call.
#pragma once

#include <cuda_runtime_api.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <map>

namespace atom::cuda {

// What the launches of a step depend on.
struct StepKey {
  uint64_t cache = 0, state = 0, logits = 0, chosen = 0;  // serial numbers; the last two may be 0
  bool chooses = false;                                   // chosen is not read only, but written
  int64_t tokens = 0, logit_rows = 0, draws = 0;
  int64_t longest = 0;          // DeviceBatch::longest_decode
  const void* batch = nullptr;  // DeviceBatch::address

  auto operator<=>(const StepKey&) const = default;
};

class StepGraphs {
 public:
  StepGraphs() = default;
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;
  ~StepGraphs();

  // Runs a step: by calling `operators` the first time, which brings what they need into GPU
  // memory; the second time they are recorded; from then on the record is replayed.
  void run(const StepKey& key, cudaStream_t stream, const std::function<void()>& operators);

  // Forgets all records: what they touch has moved. REQUIRES: none of them runs.
  void clear();

 private:
  struct Record {
    cudaGraphExec_t graph = nullptr;
    uint64_t last_use = 0;
  };
  void drop_oldest();

  std::map<StepKey, Record> records_;
  uint64_t uses_ = 0;
};

}  // namespace atom::cuda
