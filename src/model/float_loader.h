// Loading an unquantized model, layer by layer: on top of the weights that stay resident, memory
// never holds more than one layer (or the embedding).
#pragma once

#include "io/model_source.h"
#include "io/model_tensors.h"
#include "model/weights.h"

namespace atom {

// Reads a linear's weight, stored from here on as `storage` (kF32, kF16 or kBF16; narrower types
// round half to even), and its bias if it has one. F16 fails on a value beyond its range.
Result<PackedLinear> read_float_linear(const ModelSource& source, const LinearSpec& spec,
                                       DType storage);

// One layer with float linears and identity permutations.
Result<PackedLayer> read_float_layer(const ModelSource& source, int64_t index, DType storage);

// What surrounds the layers: embedding, head and last norm; `layers` stays empty. kv says how the
// cache will be kept.
Result<DecoderWeights> load_float_ends(Backend& backend, const ModelSource& source, DType storage,
                                       const KvFormat& kv);

// A whole model. Polls for Ctrl-C between layers.
Result<DecoderWeights> load_float_model(Backend& backend, const ModelSource& source, DType storage,
                                        const KvFormat& kv);

}  // namespace atom
