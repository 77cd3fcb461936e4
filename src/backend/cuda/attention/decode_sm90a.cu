// The decode attention kernels for Hopper: formats x head sizes x output types.
#include "backend/cuda/attention/decode_sm90a.cuh"

namespace atom::cuda::decode {
namespace {

template <class Reader, int kHeadDim, class Out>
void launch(const Params& params, int sequences, cudaStream_t stream) {
  constexpr int kBytes = shared_bytes<Reader, kHeadDim>();
  const auto kernel = decode_attention_sm90a_kernel<Reader, kHeadDim, Out>;
  (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  const dim3 grid(static_cast<unsigned>(params.splits), static_cast<unsigned>(params.kv_heads),
                  static_cast<unsigned>(sequences));
  kernel<<<grid, kThreads, kBytes, stream>>>(params);
}

template <int kHeadDim>
Launcher pick(bool int4, bool f32_output) {
  if (int4) {
    return f32_output ? launch<Int4Reader<kHeadDim>, kHeadDim, float>
                      : launch<Int4Reader<kHeadDim>, kHeadDim, __half>;
  }
  return f32_output ? launch<HalfReader<kHeadDim>, kHeadDim, float>
                    : launch<HalfReader<kHeadDim>, kHeadDim, __half>;
}

}  // namespace

Launcher find_launcher(bool int4, int head_dim, bool f32_output) {
  if (head_dim == 128) return pick<128>(int4, f32_output);
  if (head_dim == 64) return pick<64>(int4, f32_output);
  return nullptr;
}

}  // namespace atom::cuda::decode
