#include "server/stop_matcher.h"

#include <gtest/gtest.h>

namespace atom {
namespace {

// The output of a text fed in pieces of `size` bytes.
std::string feed(const std::string& text, size_t size, std::vector<std::string> stop,
                 bool& stopped) {
  StopMatcher matcher(std::move(stop));
  std::string out;
  for (size_t i = 0; i < text.size() && !matcher.stopped(); i += size) {
    out += matcher.push(text.substr(i, size));
  }
  stopped = matcher.stopped();
  return out + matcher.finish();
}

TEST(StopMatcher, CutsBeforeTheEarliestStringHoweverTheTextIsCut) {
  for (size_t size = 1; size <= 20; ++size) {
    bool stopped = false;
    EXPECT_EQ(feed("one two END three\n\nfour", size, {"\n\n", "END"}, stopped), "one two ");
    EXPECT_TRUE(stopped);
    EXPECT_EQ(feed("aab", size, {"aab"}, stopped), "");
    EXPECT_TRUE(stopped);
    EXPECT_EQ(feed("aaab", size, {"aab"}, stopped), "a");
    EXPECT_TRUE(stopped);
  }
}

TEST(StopMatcher, GivesEverythingWhereNoStringCompletes) {
  for (size_t size = 1; size <= 8; ++size) {
    bool stopped = true;
    EXPECT_EQ(feed("EN END-less EN", size, {"ENDE", "\n"}, stopped), "EN END-less EN");
    EXPECT_FALSE(stopped);
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBeginAStop) {
  StopMatcher matcher({"<|end|>"});
  EXPECT_EQ(matcher.push("hello <"), "hello ");
  EXPECT_EQ(matcher.push("|e"), "");
  EXPECT_EQ(matcher.push("x"), "<|ex");
  EXPECT_EQ(matcher.push(" <|end"), " ");
  EXPECT_EQ(matcher.push("|> more"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

}  // namespace
}  // namespace atom
