// In which order a step's linears read their weights: every step of a model reads the same ones.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/cuda/objects.h"

namespace atom::cuda {

// Learns the order as steps run, so that a GEMM can ask for weights of the next one ahead of time.
class WeightOrder {
 public:
  // Before the first linear of a step.
  void begin_step() { at_ = 0; }
  // A linear of the step runs: the blocks that the one behind it read in the step before, or none
  // where that was another step's, is not known yet, keeps no blocks or is gone.
  std::span<const uint8_t> after(const CudaLinear& linear);

 private:
  struct Reader {
    uint64_t serial;
    std::weak_ptr<const std::span<const uint8_t>> blocks;
  };
  std::vector<Reader> order_;  // of the last step's linears
  size_t at_ = 0;              // those of this step so far
};

}  // namespace atom::cuda
