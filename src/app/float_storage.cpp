#include "app/float_storage.h"

#include <string>

#include "io/model_tensors.h"

namespace atom {

Result<DType> exact_storage(const ModelSource& source) {
  const ModelConfig& config = source.config();
  std::string common;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (const LinearSpec& linear : layer_linears(config, layer)) {
      const std::string type = ATOM_TRY(source.stored_type(linear.name + ".weight"));
      if (common.empty()) common = type;
      if (type != common) return DType::kF32;
    }
  }
  if (common == dtype_name(DType::kF16)) return DType::kF16;
  if (common == dtype_name(DType::kBF16)) return DType::kBF16;
  return DType::kF32;
}

}  // namespace atom
