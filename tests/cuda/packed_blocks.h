// A linear's blocks as the loader sends them, whole and on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cuda/gemm/pack_weights.h"

namespace atom::cuda {

struct GemmWeights {
  std::vector<uint8_t> blocks;  // of one of the *_layout.h
  std::vector<float> row_scales;
};

// `before`: what stands where the blocks will, of which nothing must be left.
inline GemmWeights pack_all(const BlockPacker& packer, uint8_t before = 0xff) {
  GemmWeights all;
  all.blocks.assign(static_cast<size_t>(packer.row_blocks * packer.row_block_bytes), before);
  for (int64_t i = 0; i < packer.row_blocks; ++i) {
    packer.pack(i, all.blocks.data() + i * packer.row_block_bytes);
  }
  all.row_scales = packer.row_scales;
  return all;
}

}  // namespace atom::cuda
