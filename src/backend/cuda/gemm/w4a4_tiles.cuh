// The tile shapes of w4a4: channels x tokens of a CTA's tile; x2: two CTAs on a
// multiprocessor; k2: two CTAs of a cluster share a tile along K.
#pragma once

#include <array>

#include "backend/cuda/gemm/tiles.cuh"
#include "backend/cuda/gemm/w4a4_sm90a.cuh"

namespace atom::cuda::w4a4 {

using gemm::entry, gemm::KernelEntry, gemm::Tile;

// kGrid: of the weights.
template <CodeGrid kGrid, class Out>
std::array<KernelEntry, 12> tiles() {
  using F = Format<kGrid>;
  return {entry<F, Tile<3, 1, 128, 5, 1>, Out>("192x128", 1600, 7600),
          entry<F, Tile<2, 1, 128, 7, 1>, Out>("128x128", 1320, 4400),
          entry<F, Tile<2, 1, 128, 5, 1, 2>, Out>("128x128 k2", 1220, 8400),
          entry<F, Tile<3, 1, 64, 6, 1>, Out>("192x64", 1120, 4400),
          entry<F, Tile<2, 1, 64, 10, 1>, Out, true>("128x64", 760, 4800),
          entry<F, Tile<2, 1, 64, 7, 1, 2>, Out>("128x64 k2", 720, 7200),
          entry<F, Tile<2, 1, 32, 7, 2>, Out>("128x32 x2", 660, 5600),
          entry<F, Tile<3, 1, 16, 6, 2>, Out>("192x16 x2", 820, 2800),
          entry<F, Tile<3, 1, 16, 5, 2, 2>, Out>("192x16 x2 k2", 640, 7200),
          entry<F, Tile<1, 1, 16, 5, 4, 4>, Out>("64x16 x4 k4", 450, 3600),
          entry<F, Tile<2, 1, 16, 8, 2>, Out, true>("128x16 x2", 580, 5600),
          entry<F, Tile<2, 1, 16, 6, 2, 3>, Out>("128x16 x2 k3", 580, 6400)};
}

// For the experts of a mixture.
template <CodeGrid kGrid, class Out>
std::array<KernelEntry, 5> expert_tiles() {
  using F = Format<kGrid>;
  return {entry<F, Tile<2, 1, 128, 6, 1>, Out, false, true>("128x128", 1320, 4400),
          entry<F, Tile<2, 1, 64, 9, 1>, Out, true, true>("128x64", 760, 4800),
          entry<F, Tile<2, 1, 32, 6, 2>, Out, false, true>("128x32 x2", 660, 5600),
          entry<F, Tile<2, 1, 16, 8, 2>, Out, true, true>("128x16 x2", 580, 5600),
          entry<F, Tile<2, 1, 16, 6, 2, 3>, Out, false, true>("128x16 x2 k3", 580, 6400)};
}

}  // namespace atom::cuda::w4a4
