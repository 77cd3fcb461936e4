#include "backend/cuda/bench/timing.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "backend/cuda/bench/bench_kernels.h"
#include "base/random.h"
#include "tensor/dtype.h"

namespace atom::cuda::bench {
namespace {

constexpr size_t kBlockBytes = (size_t{1} << 18) + 296;  // of random data

// A work's graph, and how long its replays took.
class Replay {
 public:
  explicit Replay(const Work& work) {
    ATOM_CUDA_CHECK(cudaStreamCreate(&stream_));
    work.run(0, stream_);  // lazy loading, attributes
    ATOM_CUDA_CHECK(cudaStreamSynchronize(stream_));
    cudaGraph_t graph;
    ATOM_CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < work.copies; ++i) work.run(i, stream_);
    ATOM_CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    ATOM_CUDA_CHECK(cudaGraphInstantiate(&exec_, graph, 0));
    ATOM_CUDA_CHECK(cudaGraphDestroy(graph));
    ATOM_CUDA_CHECK(cudaEventCreate(&begin_));
    ATOM_CUDA_CHECK(cudaEventCreate(&end_));
  }
  Replay(Replay&& other) noexcept
      : ms(std::move(other.ms)),
        stream_(std::exchange(other.stream_, nullptr)),
        exec_(other.exec_),
        begin_(other.begin_),
        end_(other.end_) {}
  Replay& operator=(Replay&&) = delete;
  ~Replay() {
    if (stream_ == nullptr) return;
    ATOM_CUDA_CHECK(cudaEventDestroy(begin_));
    ATOM_CUDA_CHECK(cudaEventDestroy(end_));
    ATOM_CUDA_CHECK(cudaGraphExecDestroy(exec_));
    ATOM_CUDA_CHECK(cudaStreamDestroy(stream_));
  }

  // Milliseconds of all copies.
  float run() {
    ATOM_CUDA_CHECK(cudaEventRecord(begin_, stream_));
    ATOM_CUDA_CHECK(cudaGraphLaunch(exec_, stream_));
    ATOM_CUDA_CHECK(cudaEventRecord(end_, stream_));
    ATOM_CUDA_CHECK(cudaEventSynchronize(end_));
    float ms = 0;
    ATOM_CUDA_CHECK(cudaEventElapsedTime(&ms, begin_, end_));
    return ms;
  }

  std::vector<float> ms;

 private:
  cudaStream_t stream_;
  cudaGraphExec_t exec_;
  cudaEvent_t begin_, end_;
};

}  // namespace

int rotations(int64_t bytes) {
  const int64_t wanted = 3 * device_info().l2_bytes / std::max<int64_t>(bytes, 1) + 2;
  return static_cast<int>(std::clamp<int64_t>(wanted, 2, 64));
}

std::vector<Timing> time_in_turns(std::span<const Work> works, int samples) {
  std::vector<Replay> replays;
  for (const Work& work : works) replays.emplace_back(work);
  for (int i = -3; i < samples; ++i) {
    for (Replay& replay : replays) {
      const float ms = replay.run();
      if (i >= 0) replay.ms.push_back(ms);
    }
  }
  std::vector<Timing> timings;
  for (size_t i = 0; i < works.size(); ++i) {
    std::vector<float>& ms = replays[i].ms;
    std::sort(ms.begin(), ms.end());
    const auto at = [&](int tenths) {
      return 1e3 * static_cast<double>(ms[(ms.size() - 1) * static_cast<size_t>(tenths) / 10]) /
             works[i].copies;
    };
    timings.push_back({.median = at(5), .p10 = at(1), .p90 = at(9)});
  }
  return timings;
}

Timing time_us(int copies, const std::function<void(int, cudaStream_t)>& run, int samples) {
  constexpr auto kRest = std::chrono::milliseconds(60);
  std::this_thread::sleep_for(kRest);
  const Work work = {.copies = copies, .run = run};
  return time_in_turns({&work, 1}, samples)[0];
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
