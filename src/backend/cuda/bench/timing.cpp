#include "backend/cuda/bench/timing.h"

#include <algorithm>
#include <vector>

#include "backend/cuda/bench/bench_kernels.h"
#include "base/random.h"
#include "tensor/dtype.h"

namespace atom::cuda::bench {
namespace {

constexpr size_t kBlockBytes = (size_t{1} << 18) + 296;  // of random data

}  // namespace

int rotations(int64_t bytes) {
  const int64_t wanted = 3 * device_info().l2_bytes / std::max<int64_t>(bytes, 1) + 2;
  return static_cast<int>(std::clamp<int64_t>(wanted, 2, 64));
}

Timing time_us(int copies, const std::function<void(int, cudaStream_t)>& run, int samples) {
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
  std::sort(times.begin(), times.end());
  ATOM_CUDA_CHECK(cudaEventDestroy(begin));
  ATOM_CUDA_CHECK(cudaEventDestroy(end));
  ATOM_CUDA_CHECK(cudaGraphExecDestroy(exec));
  ATOM_CUDA_CHECK(cudaGraphDestroy(graph));
  ATOM_CUDA_CHECK(cudaStreamDestroy(stream));
  const auto at = [&](int tenths) {
    const auto i = static_cast<size_t>((samples - 1) * tenths / 10);
    return 1e3 * static_cast<double>(times[i]) / copies;
  };
  return {.median = at(5), .p10 = at(1), .p90 = at(9)};
}

Result<double> copy_gbps() {
  const int64_t bytes = int64_t{2} << 30;
  auto from = ATOM_TRY(random_bytes(bytes, 1));
  auto to = ATOM_TRY(DeviceArray<uint8_t>::allocate(bytes));
  const Timing timing = time_us(
      1, [&](int, cudaStream_t stream) { copy_kernel(to.data(), from.data(), bytes, stream); }, 30);
  ATOM_CUDA_CHECK(cudaGetLastError());
  return 2e-3 * static_cast<double>(bytes) / timing.median;
}

Result<DeviceArray<uint8_t>> repeated(int64_t bytes, std::span<const uint8_t> pattern) {
  auto array = ATOM_TRY(DeviceArray<uint8_t>::allocate(bytes));
  int64_t filled = std::min(bytes, static_cast<int64_t>(pattern.size()));
  ATOM_CUDA_CHECK(cudaMemcpy(array.data(), pattern.data(), static_cast<size_t>(filled),
                             cudaMemcpyHostToDevice));
  // What is there, again behind it.
  while (filled < bytes) {
    const int64_t more = std::min(filled, bytes - filled);
    ATOM_CUDA_CHECK(cudaMemcpy(array.data() + filled, array.data(), static_cast<size_t>(more),
                               cudaMemcpyDeviceToDevice));
    filled += more;
  }
  return array;
}

// A random block, repeated at a stride that is no power of two.
Result<DeviceArray<uint8_t>> random_bytes(int64_t bytes, uint64_t seed, uint8_t mask) {
  std::vector<uint8_t> block(kBlockBytes);
  Random random(seed);
  for (uint8_t& byte : block) byte = static_cast<uint8_t>(random.next()) & mask;
  return repeated(bytes, block);
}

Result<DeviceArray<uint8_t>> random_halves(int64_t count, uint64_t seed) {
  std::vector<uint16_t> block(kBlockBytes / 2);
  Random random(seed);
  for (uint16_t& half : block) half = f32_to_f16(static_cast<float>(random.normal()));
  return repeated(count * 2, {reinterpret_cast<const uint8_t*>(block.data()), 2 * block.size()});
}

Result<DeviceArray<float>> random_floats(int64_t count, uint64_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  Random random(seed);
  for (float& value : values) value = static_cast<float>(random.normal());
  return DeviceArray<float>::copy_of(values);
}

Result<DeviceArray<float>> same_floats(int64_t count, float value) {
  return DeviceArray<float>::copy_of(std::vector<float>(static_cast<size_t>(count), value));
}

}  // namespace atom::cuda::bench
