// Quantizes a model layer by layer: reads a float layer, learns from the calibration text what the
// recipe asks for, makes its codes, hands them over and forgets it.
//
// For each layer
//
//   float pass      the float model's residual stream runs through the float layer: channel
//                   salience (diag X^T X) and so balance and order of channels; the mean of the
//                   rotated keys; the prefix's keys and values; with HessianInputs::kFloat the
//                   Hessians too
//   quantized pass  (HessianInputs::kQuantized) the quantized model's stream runs through the float
//                   layer with its activations and KV cache quantized: Hessians
//   GPTQ            codes of the linears
//   advance         (HessianInputs::kQuantized) the quantized model's stream runs through the
//                   quantized layer
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/model_source.h"
#include "model/weights.h"
#include "ops/backend.h"
#include "quant/recipe.h"

namespace atom {

// Takes a quantized model's parts as they are made.
class QuantizedModelSink {
 public:
  virtual ~QuantizedModelSink() = default;
  // lm_head is null where it is tied to the embedding.
  virtual Status add_ends(const PackedLinear& embedding, const PackedLinear* lm_head,
                          std::span<const float> final_norm) = 0;
  virtual Status add_layer(int64_t index, const PackedLayer& layer) = 0;
};

struct LinearReport {
  std::string name;    // "model.layers.0.self_attn.q_proj"
  std::string format;  // "w4a4 g128 o64"
  double bits = 0;     // stored for each weight, scales and outliers included
  int64_t weights = 0;
  // Squared error of the weights, weighted with the energy of their input channels, as a share of
  // the weights' own; without calibration unweighted.
  double error = 0;
};

// Where the time went, in seconds.
struct QuantizeTimes {
  double read = 0;       // float weights from their source
  double calibrate = 0;  // the calibration text through the layers, statistics of inputs
  double transform = 0;  // balance, order, rotations
  double factor = 0;     // GPTQ's factors
  double codes = 0;      // finding them
  double report = 0;     // the weights' errors
  double write = 0;      // handing layers over
  double total = 0;
};

struct QuantizeReport {
  std::vector<LinearReport> linears;
  std::vector<int32_t> prefix_tokens;
  int64_t calibration_tokens = 0;
  QuantizeTimes seconds;
  // Bits stored for each weight over all decoder linears.
  double effective_bits() const;
};

// tokens: the calibration text, unused where the recipe needs none. The result depends on nothing
// else: not on time, threads or addresses. Polls for Ctrl-C (kCancelled).
Result<QuantizeReport> quantize_model(const ModelSource& source, Backend& backend,
                                      const Recipe& recipe, std::span<const int32_t> tokens,
                                      QuantizedModelSink& sink, bool show_progress);

// The prefix of a recipe on a model: its tokens, or BOS. Fails where the model has no BOS.
Result<std::vector<int32_t>> prefix_tokens_for(const Recipe& recipe, const ModelConfig& config);

}  // namespace atom
