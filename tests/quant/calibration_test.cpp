#include "quant/calibration.h"

#include <gtest/gtest.h>

#include <numeric>

namespace atom {
namespace {

std::vector<int32_t> count_to(int32_t tokens) {
  std::vector<int32_t> text(static_cast<size_t>(tokens));
  std::iota(text.begin(), text.end(), 0);
  return text;
}

TEST(Windows, StandSideBySideWhereTheTextIsShort) {
  const auto windows = cut_windows(count_to(70), 8, 20, 0, {}).value();
  ASSERT_EQ(windows.size(), 3u);
  for (size_t w = 0; w < 3; ++w) {
    EXPECT_EQ(windows[w].size(), 20u);
    EXPECT_EQ(windows[w][0], static_cast<int32_t>(20 * w));
  }
  EXPECT_EQ(cut_windows(count_to(18), 8, 20, 0, {}).value(),
            std::vector<std::vector<int32_t>>{count_to(18)});
}

TEST(Windows, StandAtPlacesOfTheSeedInALongText) {
  const auto text = count_to(5000);
  const auto windows = cut_windows(text, 8, 20, 7, {}).value();
  ASSERT_EQ(windows.size(), 8u);
  for (const auto& window : windows) {
    for (size_t i = 1; i < 20; ++i) EXPECT_EQ(window[i], window[i - 1] + 1);
  }
  EXPECT_EQ(windows, cut_windows(text, 8, 20, 7, {}).value());
  EXPECT_NE(windows, cut_windows(text, 8, 20, 8, {}).value());
}

TEST(Windows, StandWhereTheRecipeSays) {
  const std::vector<int64_t> places = {30, 0};
  const auto windows = cut_windows(count_to(50), 8, 20, 7, places).value();
  ASSERT_EQ(windows.size(), 2u);
  EXPECT_EQ(windows[0][0], 30);
  EXPECT_EQ(windows[1][0], 0);
  const std::vector<int64_t> beyond = {31};
  EXPECT_NE(cut_windows(count_to(50), 8, 20, 7, beyond).status().message().find("offset 31"),
            std::string::npos);
}

TEST(Windows, NeedText) {
  EXPECT_EQ(cut_windows(count_to(15), 8, 20, 0, {}).status().code(), ErrorCode::kInvalidArgument);
}

// Windows keep what was written to them, in memory and in the file.
TEST(HiddenStates, HoldTheirWindows) {
  for (const int64_t resident : {HiddenStates::kResidentBytes, int64_t{0}}) {
    HiddenStates made = HiddenStates::create(3, 5000, resident).value();
    HiddenStates states = std::move(made);
    EXPECT_EQ(states.spilled(), resident == 0);
    for (int64_t w = 0; w < 3; ++w) {
      const std::span<float> window = states.window(w);
      ASSERT_EQ(window.size(), 5000u);
      std::fill(window.begin(), window.end(), static_cast<float>(w + 1));
      states.release(w);
    }
    for (int64_t w = 0; w < 3; ++w) {
      for (const float value : states.window(w)) ASSERT_EQ(value, static_cast<float>(w + 1));
    }
  }
}

TEST(HiddenStates, NoRoomIsAnError) {
  const auto states = HiddenStates::create(1 << 20, int64_t{1} << 30, 0);
  ASSERT_FALSE(states.ok());
  EXPECT_NE(states.status().message().find("MB of calibration states"), std::string::npos);
}

}  // namespace
}  // namespace atom
