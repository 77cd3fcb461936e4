// The tile shapes of w4a4: channels x tokens of a CTA's tile; x2: two CTAs on a
// multiprocessor; k2: two CTAs of a cluster share a tile along K.
#pragma once

#include <array>

#include "backend/cuda/gemm/tiles.cuh"
#include "backend/cuda/gemm/w4a4_sm90a.cuh"

namespace atom::cuda::w4a4 {

using gemm::entry, gemm::KernelEntry, gemm::Tile;

template <class Out>
std::array<KernelEntry, 8> tiles() {
  return {entry<Format, Tile<3, 1, 128, 5, 1>, Out>("192x128", 1650, 4500),
          entry<Format, Tile<2, 1, 128, 7, 1>, Out>("128x128", 1260, 4000),
          entry<Format, Tile<2, 1, 128, 5, 1, 2>, Out>("128x128 k2", 1180, 7000),
          entry<Format, Tile<2, 1, 64, 10, 1>, Out, true>("128x64", 780, 2600),
          entry<Format, Tile<2, 1, 64, 7, 1, 2>, Out>("128x64 k2", 780, 5200),
          entry<Format, Tile<2, 1, 32, 7, 2>, Out>("128x32 x2", 560, 2000),
          entry<Format, Tile<2, 1, 16, 8, 2>, Out, true>("128x16 x2", 480, 2000),
          entry<Format, Tile<2, 1, 16, 6, 2, 3>, Out>("128x16 x2 k3", 480, 6000)};
}

// For the experts of a mixture.
template <class Out>
std::array<KernelEntry, 5> expert_tiles() {
  return {entry<Format, Tile<2, 1, 128, 6, 1>, Out, false, true>("128x128", 1260, 4000),
          entry<Format, Tile<2, 1, 64, 9, 1>, Out, true, true>("128x64", 780, 2600),
          entry<Format, Tile<2, 1, 32, 6, 2>, Out, false, true>("128x32 x2", 560, 2000),
          entry<Format, Tile<2, 1, 16, 8, 2>, Out, true, true>("128x16 x2", 480, 2000),
          entry<Format, Tile<2, 1, 16, 6, 2, 3>, Out, false, true>("128x16 x2 k3", 480, 6000)};
}

}  // namespace atom::cuda::w4a4
