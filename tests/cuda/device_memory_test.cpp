#include <gtest/gtest.h>

#include "backend/cuda/runtime/device.h"

namespace atom::cuda {
namespace {

TEST(DeviceMemory, MoreThanThereIsIsOneLineThatSaysHowMuchThereIs) {
  const Result<void*> most = device_allocate(int64_t{1} << 50);
  ASSERT_FALSE(most.ok());
  EXPECT_EQ(most.status().code(), ErrorCode::kOutOfMemory);
  EXPECT_EQ(most.status().message().rfind("GPU memory: 1125899906842624 bytes wanted, ", 0), 0u)
      << most.status().message();
  EXPECT_NE(most.status().message().find(" free: out of memory"), std::string::npos);
  // And nothing is left behind that the next one would stumble over.
  auto some = DeviceArray<int32_t>::allocate(4);
  ASSERT_TRUE(some.ok());
  some->fill_bytes(0);
  EXPECT_EQ(some->to_host(2), std::vector<int32_t>(2, 0));
}

}  // namespace
}  // namespace atom::cuda
