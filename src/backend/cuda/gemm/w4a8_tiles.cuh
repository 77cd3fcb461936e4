// The tile shapes of w4a8: channels x tokens of a CTA's tile; x2: two CTAs on a
// multiprocessor; k2: two CTAs of a cluster share a tile along K.
#pragma once

#include <array>

#include "backend/cuda/gemm/tiles.cuh"
#include "backend/cuda/gemm/w4a8_sm90a.cuh"

namespace atom::cuda::w4a8 {

using gemm::entry, gemm::KernelEntry, gemm::Tile;

template <class Out>
std::array<KernelEntry, 4> large_tiles() {
  return {entry<Format, Tile<2, 1, 256, 4, 1>, Out>("128x256", 1060, 9700),
          entry<Format, Tile<2, 1, 256, 4, 1, 1, 2>, Out>("128x256 s2", 1060, 9700),
          entry<Format, Tile<2, 1, 128, 7, 1>, Out>("128x128", 640, 3600),
          entry<Format, Tile<2, 1, 128, 5, 1, 2>, Out>("128x128 k2", 640, 7500)};
}

template <class Out>
std::array<KernelEntry, 14> medium_tiles() {
  return {entry<Format, Tile<3, 1, 160, 4, 1>, Out>("192x160", 1100, 5000),
          entry<Format, Tile<3, 1, 128, 5, 1>, Out>("192x128", 860, 4000),
          entry<Format, Tile<3, 1, 96, 6, 1>, Out>("192x96", 760, 3600),
          entry<Format, Tile<3, 1, 96, 4, 1, 2>, Out>("192x96 k2", 760, 5500),
          entry<Format, Tile<3, 1, 80, 7, 1>, Out>("192x80", 760, 3600),
          entry<Format, Tile<3, 1, 64, 7, 1>, Out>("192x64", 720, 3000),
          entry<Format, Tile<3, 1, 64, 6, 1, 2>, Out>("192x64 k2", 720, 5000),
          entry<Format, Tile<2, 1, 96, 8, 1>, Out>("128x96", 600, 3100),
          entry<Format, Tile<2, 1, 96, 6, 1, 2>, Out>("128x96 k2", 600, 5000),
          entry<Format, Tile<2, 1, 96, 6, 1, 3>, Out>("128x96 k3", 600, 5500),
          entry<Format, Tile<2, 2, 64, 7, 1>, Out>("256x64", 1040, 4500),
          entry<Format, Tile<2, 1, 64, 10, 1>, Out, true>("128x64", 560, 2600),
          entry<Format, Tile<2, 1, 64, 7, 1, 2>, Out>("128x64 k2", 560, 4500),
          entry<Format, Tile<1, 1, 64, 6, 2, 4>, Out>("64x64 x2 k4", 560, 5500)};
}

template <class Out>
std::array<KernelEntry, 11> few_tiles() {
  return {entry<Format, Tile<3, 1, 32, 11, 1>, Out>("192x32", 700, 2500),
          entry<Format, Tile<3, 1, 32, 9, 1, 2>, Out>("192x32 k2", 700, 4500),
          entry<Format, Tile<3, 1, 16, 13, 1>, Out>("192x16", 680, 2000),
          entry<Format, Tile<3, 1, 16, 12, 1, 2>, Out>("192x16 k2", 680, 4000),
          entry<Format, Tile<1, 1, 16, 7, 4>, Out>("64x16 x4", 400, 2000),
          entry<Format, Tile<1, 1, 16, 8, 2, 4>, Out>("64x16 x2 k4", 400, 5000),
          entry<Format, Tile<2, 1, 32, 7, 2>, Out>("128x32 x2", 560, 2000),
          entry<Format, Tile<2, 1, 32, 6, 2, 2>, Out>("128x32 x2 k2", 560, 4000),
          entry<Format, Tile<2, 1, 16, 8, 2>, Out, true>("128x16 x2", 480, 2000),
          entry<Format, Tile<2, 1, 16, 6, 2, 3>, Out>("128x16 x2 k3", 440, 5200),
          entry<Format, Tile<2, 1, 8, 9, 2>, Out>("128x8 x2", 440, 2000)};
}

// For the experts of a mixture.
template <class Out>
std::array<KernelEntry, 7> expert_tiles() {
  return {entry<Format, Tile<2, 1, 256, 4, 1>, Out, false, true>("128x256", 1060, 9700),
          entry<Format, Tile<2, 1, 128, 7, 1>, Out, false, true>("128x128", 640, 3600),
          entry<Format, Tile<2, 1, 64, 10, 1>, Out, true, true>("128x64", 560, 2600),
          entry<Format, Tile<2, 1, 64, 7, 1, 2>, Out, false, true>("128x64 k2", 560, 4500),
          entry<Format, Tile<2, 1, 32, 7, 2>, Out, false, true>("128x32 x2", 560, 2000),
          entry<Format, Tile<2, 1, 16, 8, 2>, Out, true, true>("128x16 x2", 480, 2000),
          entry<Format, Tile<2, 1, 16, 6, 2, 3>, Out, false, true>("128x16 x2 k3", 440, 5200)};
}

}  // namespace atom::cuda::w4a8
