// The GPU tests. Where there is no GPU they say so and count as skipped (exit code 77 to ctest).
#include <gtest/gtest.h>

#include <cstdio>

#include "backend/cuda/runtime/device.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no GPU here: nothing was tested");
    return 77;
  }
  return RUN_ALL_TESTS();
}
