#include "backend/cuda/runtime/staging.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/random.h"
#include "cuda/device_test.h"

namespace atom::cuda {
namespace {

std::vector<uint8_t> random_array(int64_t size, uint64_t seed) {
  Random random(seed);
  std::vector<uint8_t> bytes(static_cast<size_t>(size));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
  return bytes;
}

// Arrays of one byte to several pieces, none waiting for the one before, from memory that is
// overwritten as soon as it is sent.
TEST(Staging, ArraysArriveWhole) {
  Staging staging(nullptr);
  std::vector<std::vector<uint8_t>> sent;
  std::vector<DeviceArray<uint8_t>> arrived;
  for (const int64_t size : {1, 5, 131072, 131073, 3, 16 << 20, (40 << 20) + 7, 2}) {
    sent.push_back(random_array(size, static_cast<uint64_t>(size)));
    arrived.push_back(DeviceArray<uint8_t>::allocate(size).value());
    std::vector<uint8_t> host = sent.back();
    ASSERT_EQ(staging.send(arrived.back().data(), host).message(), "");
    host.assign(host.size(), 0);
  }
  ASSERT_EQ(staging.send(nullptr, {}).message(), "");
  for (size_t i = 0; i < sent.size(); ++i) EXPECT_TRUE(arrived[i].to_host() == sent[i]) << i;
}

// Items that make several pieces, and items larger than a piece is otherwise.
TEST(Staging, ItemsArriveInTheirPlaces) {
  Staging staging(nullptr);
  for (const int64_t item_bytes : {int64_t{100}, int64_t{3} << 20, (int64_t{17} << 20) + 5}) {
    const int64_t items = item_bytes == 100 ? 1000 : item_bytes < 16 << 20 ? 17 : 3;
    const std::vector<uint8_t> want = random_array(items * item_bytes, 1);
    auto device = DeviceArray<uint8_t>::allocate(items * item_bytes).value();
    const auto write = [&](int64_t i, uint8_t* to) {
      std::memcpy(to, want.data() + i * item_bytes, static_cast<size_t>(item_bytes));
    };
    ASSERT_EQ(staging.send(device.data(), items, item_bytes, write).message(), "");
    EXPECT_TRUE(device.to_host() == want) << item_bytes;
  }
}

}  // namespace
}  // namespace atom::cuda
