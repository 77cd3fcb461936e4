#include "load/url.h"

#include <gtest/gtest.h>

namespace atom {
namespace {

TEST(Url, Parts) {
  const Url plain = *parse_url("http://localhost:8000");
  EXPECT_EQ(plain.host, "localhost");
  EXPECT_EQ(plain.port, "8000");
  EXPECT_EQ(plain.prefix, "");
  EXPECT_EQ(plain.authority(), "localhost:8000");
  const Url prefixed = *parse_url("http://example.org/llm/v1/");
  EXPECT_EQ(prefixed.port, "80");
  EXPECT_EQ(prefixed.prefix, "/llm");
  const Url v6 = *parse_url("http://[::1]:81/v1");
  EXPECT_EQ(v6.host, "::1");
  EXPECT_EQ(v6.prefix, "");
  EXPECT_EQ(v6.authority(), "[::1]:81");
}

TEST(Url, RefusesOthers) {
  for (const char* wrong :
       {"", "localhost", "https://a", "http://", "http://:80", "http://a:", "http://a:0",
        "http://a:65536", "http://a:8x", "http://[::1", "http://[::1]x", "http://a b", "http://a?b",
        "http://user@a", "http://a\r\nb"}) {
    EXPECT_FALSE(parse_url(wrong).ok()) << wrong;
  }
}

}  // namespace
}  // namespace atom
