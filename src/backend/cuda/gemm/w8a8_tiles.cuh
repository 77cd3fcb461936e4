// The tile shapes of w8a8: channels x tokens of a CTA's tile; x2: two CTAs on a multiprocessor; k2:
// two CTAs of a cluster share a tile along K.
#pragma once

#include <array>

#include "backend/cuda/gemm/tiles.cuh"
#include "backend/cuda/gemm/w8a8_sm90a.cuh"

namespace atom::cuda::w8a8 {

using gemm::entry, gemm::KernelEntry, gemm::Tile;

template <class Out>
std::array<KernelEntry, 12> tiles() {
  return {entry<Format, Tile<3, 1, 96, 4, 1>, Out>("192x96", 700, 9200),
          entry<Format, Tile<3, 1, 64, 5, 1>, Out>("192x64", 580, 8400),
          entry<Format, Tile<3, 1, 64, 4, 1, 2>, Out>("192x64 k2", 700, 8400),
          entry<Format, Tile<2, 1, 256, 3, 1>, Out>("128x256", 1120, 6400),
          entry<Format, Tile<2, 1, 128, 5, 1>, Out>("128x128", 600, 7200),
          entry<Format, Tile<2, 1, 128, 4, 1, 2>, Out>("128x128 k2", 660, 10000),
          entry<Format, Tile<2, 1, 96, 5, 1, 3>, Out>("128x96 k3", 700, 8200),
          entry<Format, Tile<2, 1, 64, 7, 1>, Out>("128x64", 500, 5400),
          entry<Format, Tile<2, 1, 64, 6, 1, 2>, Out>("128x64 k2", 480, 8200),
          entry<Format, Tile<2, 1, 32, 4, 2>, Out>("128x32 x2", 480, 7200),
          entry<Format, Tile<2, 1, 16, 5, 2>, Out>("128x16 x2", 420, 7200),
          entry<Format, Tile<2, 1, 16, 5, 2, 3>, Out>("128x16 x2 k3", 400, 7600)};
}

template <class Out>
std::array<KernelEntry, 5> expert_tiles() {
  return {entry<Format, Tile<2, 1, 128, 4, 1>, Out, false, true>("128x128", 620, 3000),
          entry<Format, Tile<2, 1, 64, 6, 1>, Out, false, true>("128x64", 520, 2200),
          entry<Format, Tile<2, 1, 32, 4, 2>, Out, false, true>("128x32 x2", 560, 1800),
          entry<Format, Tile<2, 1, 16, 5, 2>, Out, false, true>("128x16 x2", 540, 1800),
          entry<Format, Tile<2, 1, 16, 5, 2, 3>, Out, false, true>("128x16 x2 k3", 540, 4800)};
}

}  // namespace atom::cuda::w8a8
