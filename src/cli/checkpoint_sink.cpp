#include "cli/checkpoint_sink.h"

#include "io/model_tensors.h"
#include "model/checkpoint_model.h"

namespace atom::cli {

Status CheckpointSink::add_ends(const PackedLinear& embedding, const PackedLinear* lm_head,
                                std::span<const float> final_norm) {
  ATOM_TRY(writer_.add_linear(kEmbedTensor, embedding));
  if (lm_head != nullptr) ATOM_TRY(writer_.add_linear(kHeadTensor, *lm_head));
  return writer_.add_floats(kLastNormTensor, {config_.hidden}, final_norm);
}

Status CheckpointSink::add_layer(int64_t index, const PackedLayer& layer) {
  return write_checkpoint_layer(writer_, config_, index, layer);
}

}  // namespace atom::cli
