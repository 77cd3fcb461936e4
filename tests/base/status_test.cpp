#include "base/status.h"

#include <gtest/gtest.h>

#include <memory>

namespace atom {
namespace {

Result<std::unique_ptr<int>> half(int x) {
  if (x % 2 != 0) return error(ErrorCode::kInvalidArgument, "{} is odd", x);
  return std::make_unique<int>(x / 2);
}
Result<int> quarter(int x) {
  const std::unique_ptr<int> h = ATOM_TRY(half(x));  // move-only values pass through
  return *ATOM_TRY(half(*h));
}
Status check_quarter(int x) {
  ATOM_TRY(quarter(x));
  return {};
}

TEST(Status, TryYieldsTheValueOrLeavesWithTheError) {
  EXPECT_EQ(quarter(12).value(), 3);
  EXPECT_EQ(quarter(6).status().message(), "3 is odd");
  EXPECT_EQ(check_quarter(6).code(), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(check_quarter(8).ok());
  EXPECT_EQ(check_quarter(6).with_context("f").message(), "f: 3 is odd");
}

}  // namespace
}  // namespace atom
