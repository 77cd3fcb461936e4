// The quantizer's results on their way into a checkpoint.
#pragma once

#include "io/checkpoint.h"
#include "quant/quantizer.h"

namespace atom::cli {

// Writes the parts of the model as the quantizer hands them over.
class CheckpointSink : public QuantizedModelSink {
 public:
  CheckpointSink(CheckpointWriter& writer, const ModelConfig& config)
      : writer_(writer), config_(config) {}

  Status add_ends(const PackedLinear& embedding, const PackedLinear* lm_head,
                  std::span<const float> final_norm) override;
  Status add_layer(int64_t index, const PackedLayer& layer) override;

 private:
  CheckpointWriter& writer_;
  const ModelConfig& config_;
};

}  // namespace atom::cli
