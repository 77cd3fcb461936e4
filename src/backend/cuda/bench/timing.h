// Timing of GPU work as a user would meet it: graph replays over inputs rotated past L2.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backend/cuda/runtime/device.h"

namespace atom::cuda::bench {

// How many copies of `bytes` of input make sure that none is still in L2 when its turn comes again.
int rotations(int64_t bytes);

// Microseconds of one run.
struct Timing {
  double median = 0, p10 = 0, p90 = 0;
};

// What is timed: run(i, stream) for i = 0 .. copies-1, each on inputs of its own.
struct Work {
  int copies = 0;
  std::function<void(int, cudaStream_t)> run;
};

// Of run(i, stream). A graph of runs i = 0 .. copies-1 is captured and replayed; each replay is one
// sample. The GPU rests before the first: under the board's limit of power clocks depend on what
// ran in the tens of milliseconds before, which is to be the same for all that is compared.
Timing time_us(int copies, const std::function<void(int, cudaStream_t)>& run, int samples);

// To choose between works: medians of a few replays of each, in turns and without a rest.
std::vector<Timing> time_in_turns(std::span<const Work> works, int samples);

// Device-to-device copy rate, bytes read plus written, in GB/s: the memory ceiling.
Result<double> copy_gbps();

// GPU memory filled with a pattern again and again.
Result<DeviceArray<uint8_t>> repeated(int64_t bytes, std::span<const uint8_t> pattern);
// GPU memory filled with random bytes, of which the bits of mask are kept.
Result<DeviceArray<uint8_t>> random_bytes(int64_t bytes, uint64_t seed, uint8_t mask = 0xff);
// Random F16 values, standard normal ones.
Result<DeviceArray<uint8_t>> random_halves(int64_t count, uint64_t seed);
// Random floats, standard normal ones.
Result<DeviceArray<float>> random_floats(int64_t count, uint64_t seed);
Result<DeviceArray<float>> same_floats(int64_t count, float value);

}  // namespace atom::cuda::bench
