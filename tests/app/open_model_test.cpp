#include "app/open_model.h"

#include <gtest/gtest.h>

namespace atom {
namespace {

using Ids = std::vector<int32_t>;

TEST(WithoutPrefix, TakesThePrefixOffOnceAndNeverThePrompt) {
  EXPECT_EQ(without_prefix({1, 5, 6}, Ids{1}), (Ids{5, 6}));
  EXPECT_EQ(without_prefix({1, 1, 6}, Ids{1}), (Ids{1, 6}));
  EXPECT_EQ(without_prefix({5, 1}, Ids{1}), (Ids{5, 1}));
  EXPECT_EQ(without_prefix({1}, Ids{1}), (Ids{1}));
  EXPECT_EQ(without_prefix({1, 2}, Ids{1, 2, 3}), (Ids{1, 2}));
  EXPECT_EQ(without_prefix({1, 2}, {}), (Ids{1, 2}));
}

}  // namespace
}  // namespace atom
