#include "engine/kv_budget.h"

#include <gtest/gtest.h>

namespace atom {
namespace {

constexpr int64_t kMiB = 1 << 20;

KvBudget budget(int64_t free_bytes, bool own) {
  return {.page_bytes = kMiB,
          .context = 1000,  // 63 pages
          .max_sequences = 20,
          .memory = {.free_bytes = free_bytes, .own = own}};
}

TEST(KvBudget, TakesAQuarterOfTheHostAtMost) {
  EXPECT_EQ(default_kv_pages(budget(100'000 * kMiB, false))->pages, 8 * 63);
  EXPECT_EQ(default_kv_pages(budget(400 * kMiB, false))->pages, 100);
  EXPECT_EQ(default_kv_pages(budget(kMiB, false))->pages, 1);
  EXPECT_EQ(default_kv_pages(budget(0, false))->pages, 8 * 63);  // the system does not say
  KvBudget few = budget(100'000 * kMiB, false);
  few.max_sequences = 2;
  EXPECT_EQ(default_kv_pages(few)->pages, 2 * 63);
  EXPECT_EQ(default_kv_pages(budget(0, false))->cache_pages, 2 * 63);
}

TEST(KvBudget, TakesADevicesOwnMemoryForAllSequences) {
  EXPECT_EQ(default_kv_pages(budget(100'000 * kMiB, true))->pages, 20 * 63);
  EXPECT_EQ(default_kv_pages(budget(1000 * kMiB, true))->pages, 900);
  EXPECT_EQ(default_kv_pages(budget(70 * kMiB, true))->pages, 63);
  EXPECT_EQ(default_kv_pages(budget(70 * kMiB, true))->cache_pages, 63);
}

TEST(KvBudget, SaysWhenTheModelLeavesTooLittle) {
  EXPECT_EQ(default_kv_pages(budget(69 * kMiB, true)).status().message(),
            "the model leaves 62 MiB of the device's memory for the KV cache, and one sequence of "
            "1000 tokens needs 63 MiB: lower --context or set --kv-memory");
  EXPECT_EQ(default_kv_pages(budget(0, true)).status().code(), ErrorCode::kOutOfMemory);
}

}  // namespace
}  // namespace atom
