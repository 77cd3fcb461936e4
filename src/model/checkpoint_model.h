// Between an Atom checkpoint and a decoder's weights: the names that a layer's parts have on disk.
#pragma once

#include "base/status.h"
#include "io/checkpoint.h"
#include "model/weights.h"

namespace atom {

// Writes a layer; permutations that stand for the identity are written out.
Status write_checkpoint_layer(CheckpointWriter& writer, const ModelConfig& config, int64_t index,
                              const PackedLayer& layer);
// Reads and validates a layer. The memory of `room`, another layer of the checkpoint, is used
// again.
Result<PackedLayer> read_checkpoint_layer(const Checkpoint& checkpoint, int64_t index,
                                          PackedLayer room = {});

// A whole model into a backend's memory, layer by layer. Polls for Ctrl-C between layers.
Result<DecoderWeights> load_checkpoint_model(Backend& backend, const Checkpoint& checkpoint);

}  // namespace atom
