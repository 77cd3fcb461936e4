// In place of src/backend/cuda/ptx/mma_nvfp4.cuh: sm_120's instruction, kind::mxf4nvf4 with
// scale_vec::4X, byte-id 0 and thread-id kStep on both sides.
#pragma once

#include "backend/cuda/ptx/mma.cuh"

namespace atom::cuda::ptx {

template <int kStep>
struct NvFp4Rows {
  uint32_t codes[4], scales;
  void set(const uint32_t* a, uint32_t s) {
    std::copy_n(a, 4, codes);
    scales = s;
  }
};
template <int kStep>
struct NvFp4Columns {
  uint32_t codes[2], scales;
  void set(const uint32_t* b, uint32_t s) {
    std::copy_n(b, 2, codes);
    scales = s;
  }
};

// Row r's four scales are the word of lane 4 (r % 8) + r / 8 + 2 kStep, column n's that of lane
// 4n + kStep.
template <int kStep>
void mma_nvfp4(float (&d)[4], const NvFp4Rows<kStep>& a, const NvFp4Columns<kStep>& b) {
  Fragments<2> mine = fragments(a.codes, b.codes[0], b.codes[1]);
  mine.a_scales = a.scales;
  mine.b_scales = b.scales;
  const Product<4, 2> p(mine);
  for (int e = 0; e < 4; ++e) {
    const int row = p.row(e), column = p.column(e);
    const uint32_t a_scales = p.lane(row % 8 * 4 + row / 8 + 2 * kStep).a_scales;
    const uint32_t b_scales = p.lane(column * 4 + kStep).b_scales;
    double sum = d[e];
    for (int k = 0; k < p.kDepth; k += 16) {
      double group = 0;
      for (int i = k; i < k + 16; ++i) group += e2m1(p.a(row, i)) * e2m1(p.b(i, column));
      const int shift = k / 16 * 8;
      sum += group * ue4m3(a_scales >> shift & 255) * ue4m3(b_scales >> shift & 255);
    }
    d[e] = static_cast<float>(sum);
  }
}

}  // namespace atom::cuda::ptx
