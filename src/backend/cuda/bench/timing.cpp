#include "backend/cuda/bench/timing.h"

#include <algorithm>
#include <vector>

#include "backend/cuda/bench/copy.h"
#include "base/random.h"

namespace atom::cuda::bench {

int rotations(int64_t bytes) {
  const int64_t wanted = 3 * device_info().l2_bytes / std::max<int64_t>(bytes, 1) + 2;
  return static_cast<int>(std::clamp<int64_t>(wanted, 2, 64));
}

double median_us(int copies, const std::function<void(int, cudaStream_t)>& run, int samples) {
  cudaStream_t stream;
  ATOM_CUDA_CHECK(cudaStreamCreate(&stream));
  run(0, stream);  // lazy loading, attributes
  ATOM_CUDA_CHECK(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  ATOM_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < copies; ++i) run(i, stream);
  ATOM_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  ATOM_CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin, end;
  ATOM_CUDA_CHECK(cudaEventCreate(&begin));
  ATOM_CUDA_CHECK(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = -3; i < samples; ++i) {
    ATOM_CUDA_CHECK(cudaEventRecord(begin, stream));
    ATOM_CUDA_CHECK(cudaGraphLaunch(exec, stream));
    ATOM_CUDA_CHECK(cudaEventRecord(end, stream));
    ATOM_CUDA_CHECK(cudaEventSynchronize(end));
    float ms = 0;
    ATOM_CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 0) times.push_back(ms);
  }
  std::nth_element(times.begin(), times.begin() + samples / 2, times.end());
  ATOM_CUDA_CHECK(cudaEventDestroy(begin));
  ATOM_CUDA_CHECK(cudaEventDestroy(end));
  ATOM_CUDA_CHECK(cudaGraphExecDestroy(exec));
  ATOM_CUDA_CHECK(cudaGraphDestroy(graph));
  ATOM_CUDA_CHECK(cudaStreamDestroy(stream));
  return 1e3 * static_cast<double>(times[static_cast<size_t>(samples / 2)]) / copies;
}

double copy_gbps() {
  const int64_t bytes = int64_t{2} << 30;
  auto from = random_bytes(bytes, 1);
  auto to = DeviceArray<uint8_t>::allocate(bytes).value();
  const double us = median_us(
      1, [&](int, cudaStream_t stream) { copy_kernel(to.data(), from.data(), bytes, stream); });
  ATOM_CUDA_CHECK(cudaGetLastError());
  return 2e-3 * static_cast<double>(bytes) / us;
}

DeviceArray<uint8_t> repeated(int64_t bytes, std::span<const uint8_t> pattern) {
  auto array = DeviceArray<uint8_t>::allocate(bytes).value();
  const auto step = static_cast<int64_t>(pattern.size());
  for (int64_t at = 0; at < bytes; at += step) {
    ATOM_CUDA_CHECK(cudaMemcpy(array.data() + at, pattern.data(),
                               static_cast<size_t>(std::min(step, bytes - at)),
                               cudaMemcpyHostToDevice));
  }
  return array;
}

DeviceArray<uint8_t> random_bytes(int64_t bytes, uint64_t seed, uint8_t mask) {
  // One random megabyte, repeated at a stride that is no power of two.
  std::vector<uint8_t> block((1 << 20) + 296);
  Random random(seed);
  for (uint8_t& byte : block) byte = static_cast<uint8_t>(random.next()) & mask;
  return repeated(bytes, block);
}

}  // namespace atom::cuda::bench
