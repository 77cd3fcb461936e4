// The tiles of a mixture of experts: expert after expert, of each as many as its tokens need, which
// only the GPU knows. An expert without tokens has none, so that its weights are not read.
//
//   tokens   |  expert 0   |    expert 2     |3|        of y and x, side by side
//   tiles    |------|------|                            of expert 0
//                   :   |------|------|                 of expert 2: begin at a multiple of kStep
//                                   |------|            of expert 3: writes its own tokens alone
#pragma once

#include "backend/cuda/experts/routing_view.h"
#include "backend/cuda/gemm/gemm_args.h"
#include "backend/cuda/gemm/schedule.cuh"

namespace atom::cuda {

template <int kTokens, int kStep>
class ExpertTiles {
 public:
  // first_tiles: in shared memory, filled by count_tiles.
  __device__ ExpertTiles(const SchedulePlan& plan, const ExpertGroups& experts,
                         const int* first_tiles)
      : plan_(plan), experts_(experts), first_tiles_(first_tiles) {}

  // One warp: how many tiles stand before each expert's; first_tiles [count + 1].
  __device__ static void count_tiles(const SchedulePlan& plan, const ExpertGroups& experts,
                                     int* first_tiles) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane == 0) first_tiles[0] = 0;
    int before = 0;
    for (int e0 = 0; e0 < experts.count; e0 += 32) {
      const int e = e0 + lane;
      int tiles = 0;
      if (e < experts.count) {
        const int begin = experts.offsets[e], end = experts.offsets[e + 1];
        if (end > begin) tiles = (end - begin / kStep * kStep + kTokens - 1) / kTokens;
      }
#pragma unroll
      for (int lanes = 1; lanes < 32; lanes *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, tiles, lanes);
        if (lane >= lanes) tiles += other;
      }
      if (e < experts.count) first_tiles[e + 1] = before + tiles * plan.tiles_w;
      before += __shfl_sync(0xffffffffu, tiles, 31) * plan.tiles_w;
    }
  }

  __device__ int count() const { return first_tiles_[experts_.count]; }
  __device__ int whole() const {
    if (!plan_.split) return count();
    const int n = ctas();
    return max(0, count() / n - 1) * n;
  }
  // Those with at least two blocks each; the others have nothing to do.
  __device__ int ctas() const {
    return plan_.split ? max(1, min(plan_.ctas, count() * plan_.blocks / 2)) : plan_.ctas;
  }
  __device__ int blocks() const { return plan_.blocks; }
  __device__ void locate(int tile, Work& work) const {
    // The last expert that begins at or before the tile.
    int low = 0;
    for (int high = experts_.count; high - low > 1;) {
      const int middle = (low + high) / 2;
      if (first_tiles_[middle] <= tile) {
        low = middle;
      } else {
        high = middle;
      }
    }
    const int tiles_t = (first_tiles_[low + 1] - first_tiles_[low]) / plan_.tiles_w;
    work.expert = low;
    work.token0 = experts_.offsets[low] / kStep * kStep +
                  locate_tile(plan_, tiles_t, tile - first_tiles_[low], work) * kTokens;
  }

 private:
  const SchedulePlan& plan_;
  const ExpertGroups& experts_;
  const int* first_tiles_;
};

}  // namespace atom::cuda
