// An unquantized model of a published shape with random weights, made as it is read: for measuring
// how fast models are quantized without having them.
#pragma once

#include <memory>
#include <string_view>

#include "base/status.h"
#include "io/model_source.h"

namespace atom {

// shape, layers: as make_synthetic_model. One in a hundred channels of the inputs of qkv and
// gate_up (by the norm's weight), of o (by v's rows) and of down (by up's rows) is an outlier,
// twenty times as large as the others. Every read of a tensor gives the same values. Its
// tokens are bytes.
Result<std::unique_ptr<ModelSource>> make_synthetic_source(std::string_view shape,
                                                           int64_t layers = 0);

}  // namespace atom
