// The tile shapes of w4a16: channels x tokens of a CTA's tile; x2: two CTAs on a
// multiprocessor; k2: two CTAs of a cluster share a tile along K. Up to 16 tokens one warpgroup has
// all 128 channels, so that a warp's products share what it loads of the tokens.
#pragma once

#include <array>

#include "backend/cuda/gemm/tiles.cuh"
#include "backend/cuda/gemm/w4a16_sm90a.cuh"

namespace atom::cuda::w4a16 {

using gemm::entry, gemm::KernelEntry, gemm::Tile;

template <class Out>
std::array<KernelEntry, 3> large_tiles() {
  return {entry<Format, Tile<2, 1, 256, 4, 1>, Out>("128x256", 2600, 500),
          entry<Format, Tile<2, 1, 128, 4, 1>, Out>("128x128", 1340, 500),
          entry<Format, Tile<2, 1, 128, 3, 1, 2>, Out>("128x128 k2", 1280, 7500)};
}

template <class Out>
std::array<KernelEntry, 7> small_tiles() {
  return {entry<Format, Tile<2, 2, 64, 5, 1>, Out>("256x64", 1720, 500),
          entry<Format, Tile<2, 1, 64, 7, 1>, Out, true>("128x64", 960, 500),
          entry<Format, Tile<2, 1, 64, 6, 1, 2>, Out>("128x64 k2", 820, 5800),
          entry<Format, Tile<2, 1, 32, 5, 2>, Out>("128x32 x2", 800, 500),
          entry<Format, Tile<1, 2, 8, 5, 4>, Out>("128x8 x4", 480, 4300),
          entry<Format, Tile<1, 2, 16, 4, 4>, Out>("128x16 x4", 680, 1500),
          entry<Format, Tile<1, 2, 16, 6, 2, 4>, Out, true>("128x16 x2 k4", 960, 7000)};
}

// For the experts of a mixture.
template <class Out>
std::array<KernelEntry, 5> expert_tiles() {
  return {entry<Format, Tile<2, 1, 256, 4, 1>, Out, false, true>("128x256", 2600, 500),
          entry<Format, Tile<2, 1, 128, 4, 1>, Out, false, true>("128x128", 1340, 500),
          entry<Format, Tile<2, 1, 64, 7, 1>, Out, true, true>("128x64", 960, 500),
          entry<Format, Tile<1, 2, 16, 4, 4>, Out, false, true>("128x16 x4", 680, 1500),
          entry<Format, Tile<1, 2, 16, 6, 2, 4>, Out, true, true>("128x16 x2 k4", 960, 7000)};
}

}  // namespace atom::cuda::w4a16
