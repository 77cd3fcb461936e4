// The tile shapes of w4a4: channels x tokens of a CTA's tile; x2: two CTAs on a multiprocessor.
#pragma once

#include <array>

#include "backend/cuda/gemm/tiles.cuh"
#include "backend/cuda/gemm/w4a4_sm90a.cuh"

namespace atom::cuda::w4a4 {

using gemm::entry, gemm::KernelEntry, gemm::Tile;

template <class Out>
std::array<KernelEntry, 5> tiles() {
  return {entry<Format, Tile<1, 192, 5, 1>, Out>("128x192", 1350, 6500),
          entry<Format, Tile<1, 128, 7, 1>, Out>("128x128", 980, 4000),
          entry<Format, Tile<1, 64, 10, 1>, Out, true>("128x64", 700, 2600),
          entry<Format, Tile<1, 32, 7, 2>, Out>("128x32 x2", 560, 2000),
          entry<Format, Tile<1, 16, 8, 2>, Out, true>("128x16 x2", 480, 2000)};
}

}  // namespace atom::cuda::w4a4
