#include "base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace atom {
namespace {

class ParallelTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_thread_count(GetParam()); }
  void TearDown() override { set_thread_count(0); }
};

TEST_P(ParallelTest, RunsEveryItemOnceLoopAfterLoop) {
  for (int64_t loop = 0; loop < 2000; ++loop) {
    std::vector<int> runs(static_cast<size_t>(loop % 37), 0);
    parallel_for(loop % 37, [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
    for (const int n : runs) ASSERT_EQ(n, 1);
  }
}

TEST_P(ParallelTest, NestedLoopsRunWhole) {
  std::atomic<int64_t> sum{0};
  parallel_for(20, [&](int64_t i) { parallel_for(30, [&](int64_t j) { sum += 30 * i + j; }); });
  EXPECT_EQ(sum.load(), 600 * 599 / 2);
}

TEST_P(ParallelTest, LoopsOfSeveralThreadsDoNotMix) {
  const auto loops = [](int64_t first) {
    for (int64_t loop = 0; loop < 300; ++loop) {
      std::vector<int64_t> seen(50, -1);
      parallel_for(50, [&](int64_t i) { seen[static_cast<size_t>(i)] = first + i; });
      for (int64_t i = 0; i < 50; ++i) ASSERT_EQ(seen[static_cast<size_t>(i)], first + i);
    }
  };
  std::thread other(loops, 1000);
  loops(2000);
  other.join();
}

TEST_P(ParallelTest, WakesUpAfterIdleTime) {
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int> runs{0};
    parallel_for(8, [&](int64_t) { ++runs; });
    EXPECT_EQ(runs.load(), 8);
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, ParallelTest, testing::Values(1, 2, 3, 8));

}  // namespace
}  // namespace atom
