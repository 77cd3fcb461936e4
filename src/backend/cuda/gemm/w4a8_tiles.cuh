// The tile shapes of w4a8: channels x tokens of a CTA's tile; x2, x4: as many CTAs on a
// multiprocessor; k2: two CTAs of a cluster share a tile along K; t2: two warpgroups of a CTA share
// its part of it; s2: two CTAs of a cluster share their activations.
#pragma once

#include <array>

#include "backend/cuda/gemm/tiles.cuh"
#include "backend/cuda/gemm/w4a8_sm90a.cuh"

namespace atom::cuda::w4a8 {

using gemm::entry, gemm::KernelEntry, gemm::Tile;

template <class Out>
std::array<KernelEntry, 5> large_tiles() {
  return {entry<Format, Tile<3, 1, 192, 4, 1>, Out>("192x192", 1460, 9000),
          entry<Format, Tile<2, 1, 256, 4, 1>, Out>("128x256", 1245, 3100),
          entry<Format, Tile<2, 1, 256, 4, 1, 1, 2>, Out>("128x256 s2", 1220, 3800),
          entry<Format, Tile<2, 1, 128, 7, 1>, Out>("128x128", 720, 3200),
          entry<Format, Tile<2, 1, 128, 6, 1, 2>, Out>("128x128 k2", 660, 8800)};
}

template <class Out>
std::array<KernelEntry, 20> medium_tiles() {
  constexpr int kMore = sizeof(Out) == 2 ? 1 : 0;  // stages, as halves need less room at the end
  return {entry<Format, Tile<3, 1, 160, 4, 1>, Out>("192x160", 1100, 7700),
          entry<Format, Tile<3, 1, 160, 3 + kMore, 1, 2>, Out>("192x160 k2", 1000, 13800),
          entry<Format, Tile<3, 1, 128, 5, 1>, Out>("192x128", 910, 4400),
          entry<Format, Tile<3, 1, 128, 4 + kMore, 1, 2>, Out>("192x128 k2", 810, 13900),
          entry<Format, Tile<3, 1, 96, 6, 1>, Out>("192x96", 860, 4000),
          entry<Format, Tile<3, 1, 96, 4, 1, 2>, Out>("192x96 k2", 820, 10000),
          entry<Format, Tile<3, 1, 80, 7, 1>, Out>("192x80", 800, 4400),
          entry<Format, Tile<3, 1, 80, 6, 1, 2>, Out>("192x80 k2", 740, 9200),
          entry<Format, Tile<3, 1, 64, 7, 1>, Out>("192x64", 740, 2800),
          entry<Format, Tile<3, 1, 64, 6, 1, 2>, Out>("192x64 k2", 660, 8400),
          entry<Format, Tile<2, 1, 96, 8, 1>, Out>("128x96", 620, 4000),
          entry<Format, Tile<2, 1, 96, 6, 1, 2>, Out>("128x96 k2", 580, 7600),
          entry<Format, Tile<2, 1, 96, 6, 1, 3>, Out>("128x96 k3", 580, 8000),
          entry<Format, Tile<2, 2, 64, 7, 1>, Out>("256x64", 980, 3200),
          entry<Format, Tile<2, 1, 64, 10, 1>, Out, true>("128x64", 520, 3600),
          entry<Format, Tile<2, 1, 64, 7, 1, 2>, Out>("128x64 k2", 520, 6800),
          entry<Format, Tile<1, 1, 128, 4, 1, 2, 1, 2>, Out>("64x128 k2 t2", 400, 8900),
          entry<Format, Tile<1, 1, 96, 4, 1, 2, 1, 2>, Out>("64x96 k2 t2", 380, 7600),
          entry<Format, Tile<1, 1, 80, 5, 1, 2, 1, 2>, Out>("64x80 k2 t2", 325, 6700),
          entry<Format, Tile<1, 1, 64, 6, 1, 2, 1, 2>, Out>("64x64 k2 t2", 285, 6400)};
}

template <class Out>
std::array<KernelEntry, 9> few_tiles() {
  return {entry<Format, Tile<3, 1, 32, 5, 2>, Out>("192x32 x2", 720, 3200),
          entry<Format, Tile<3, 1, 32, 4, 2, 2>, Out>("192x32 x2 k2", 640, 6800),
          entry<Format, Tile<3, 1, 16, 8, 1>, Out>("192x16", 560, 4400),
          entry<Format, Tile<3, 1, 16, 8, 1, 2>, Out>("192x16 k2", 500, 8000),
          entry<Format, Tile<2, 1, 32, 7, 2>, Out>("128x32 x2", 520, 4400),
          entry<Format, Tile<2, 1, 32, 6, 2, 2>, Out>("128x32 x2 k2", 460, 6000),
          entry<Format, Tile<2, 1, 16, 8, 2>, Out, true>("128x16 x2", 380, 6000),
          entry<Format, Tile<1, 1, 32, 6, 1, 2, 1, 2>, Out>("64x32 k2 t2", 250, 5600),
          entry<Format, Tile<1, 1, 16, 8, 1, 2, 1, 2>, Out>("64x16 k2 t2", 240, 5400)};
}

// For the experts of a mixture.
template <class Out>
std::array<KernelEntry, 7> expert_tiles() {
  return {entry<Format, Tile<2, 1, 256, 4, 1>, Out, false, true>("128x256", 1220, 3200),
          entry<Format, Tile<2, 1, 128, 7, 1>, Out, false, true>("128x128", 720, 3200),
          entry<Format, Tile<2, 1, 64, 10, 1>, Out, true, true>("128x64", 520, 3600),
          entry<Format, Tile<2, 1, 64, 7, 1, 2>, Out, false, true>("128x64 k2", 520, 6800),
          entry<Format, Tile<2, 1, 32, 7, 2>, Out, false, true>("128x32 x2", 520, 4400),
          entry<Format, Tile<2, 1, 16, 8, 2>, Out, true, true>("128x16 x2", 380, 6000),
          entry<Format, Tile<2, 1, 16, 6, 2, 3>, Out, false, true>("128x16 x2 k3", 460, 6400)};
}

}  // namespace atom::cuda::w4a8
