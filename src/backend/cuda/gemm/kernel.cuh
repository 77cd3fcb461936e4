// The kernel of every GEMM: one or two warps bring the operands (pipeline.cuh), the others multiply
// them and store the tile (consumer.cuh).
#pragma once

#include "backend/cuda/gemm/consumer.cuh"

namespace atom::cuda::gemm {

template <class C>
constexpr bool kMoves = moves_registers(C::warpgroups, C::ctas, C::row_blocks* C::tokens,
                                        C::cluster, C::turns);

// The threads of a CTA by which the compiler divides a multiprocessor's registers. Where none are
// moved, that is more than are launched: C::producers warps of a warpgroup, and for three math
// warpgroups in pairs along K, of up to 64 tokens, so many that each thread has 96 registers, and a
// norm's CTA, of 256 threads with 80, finds room beside them.
template <class C>
constexpr int bound_threads() {
  if (C::ctas > 1) return C::math_threads + 32;
  const bool pairs = C::warpgroups == 3 && C::cluster > 1 && C::tokens <= 64;
  return C::math_threads + (pairs && !kMoves<C> ? 224 : 128);
}

// The kernel of any format.
template <class K>
__global__ __launch_bounds__(bound_threads<typename K::C>(),
                             K::C::ctas) void gemm_sm90a_kernel(const __grid_constant__ Params p) {
  using L = Layout<K>;
  using C = typename K::C;
  constexpr int kMathThreads = C::math_threads;
  const uint32_t shared = ptx::shared_address(shared_memory());
  if constexpr (K::experts) {
    auto* first_tiles = reinterpret_cast<int*>(shared_memory() + L::kFirstTiles);
    if (threadIdx.x < 32) TilesOf<K>::count_tiles(p.plan, p.experts, first_tiles);
  }
  if (threadIdx.x == 0) {
    for (int s = 0; s < C::stages; ++s) {
      ptx::barrier_init(shared + L::kFull + s * 8, C::producers);
      ptx::barrier_init(shared + L::kEmpty + s * 8, C::share * kMathThreads / 32);
    }
    ptx::barrier_init(shared + L::kGiven, 1);
    if constexpr (C::cluster > 1) {
      ptx::barrier_expect(shared + L::kGiven, (C::givers - 1) * L::kGiftBytes);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  if constexpr (C::cluster * C::share > 1) ptx::cluster_arrive();
  // One CTA on a multiprocessor moves registers from the producer to the math warps; where several
  // share it, their tiles are small enough without.
  if (threadIdx.x >= kMathThreads) {
    if constexpr (kMoves<C>) ptx::give_registers<C::warpgroups == 2 ? 40 : 32>();
    Producer<K> producer(p, shared);
    const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32 - kMathThreads / 32, 0);
    if (warp == 0) {
      if (ptx::elect_one()) producer.run_first();
      __syncwarp();
    }
    if constexpr (C::share > 1) ptx::cluster_wait();  // the others have their barriers
    if (warp == C::producers - 1) {
      if (ptx::elect_one()) producer.run_last();
      __syncwarp();
    }
    if (warp == 0) ask_ahead(p);
  } else {
    if constexpr (kMoves<C>) ptx::take_registers<C::warpgroups == 2 ? 232 : 160>();
    typename K::Format::template Math<K>(p).run([] {
      wait_for_previous();
      let_next_start();
      if constexpr (C::cluster * C::share > 1) ptx::cluster_wait();  // the others have started
    });
    ptx::bulk_store_wait_read<0>();  // shared memory must outlive them
  }
  if constexpr (C::share > 1) {
    // A CTA's barriers must outlive the others' last arrivals.
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }
}

}  // namespace atom::cuda::gemm
