#include "server/tool_calls.h"

#include <gtest/gtest.h>

namespace atom {
namespace {

const std::vector<std::string> kTools{"get_weather", "add"};

// What a parser makes of a text fed in pieces of `size` bytes.
ToolOutput feed(const std::string& text, size_t size) {
  ToolCallParser parser(kTools);
  ToolOutput all;
  const auto take = [&](ToolOutput out) {
    all.content += out.content;
    for (ToolCall& call : out.calls) all.calls.push_back(std::move(call));
  };
  for (size_t i = 0; i < text.size(); i += size) take(parser.push(text.substr(i, size)));
  take(parser.finish());
  EXPECT_EQ(parser.called(), !all.calls.empty());
  return all;
}

TEST(ToolCalls, Hermes) {
  const std::string text =
      "Let me see.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln "
      "</x>\", \"days\": [1, 2]}}\n</tool_call>\n<tool_call>{\"name\": \"add\", \"arguments\": "
      "{}}</tool_call>";
  for (size_t size = 1; size < text.size() + 1; size += 3) {
    const ToolOutput out = feed(text, size);
    EXPECT_EQ(out.content, "Let me see.\n");
    ASSERT_EQ(out.calls.size(), 2u);
    EXPECT_EQ(out.calls[0].name, "get_weather");
    EXPECT_EQ(out.calls[0].arguments, "{\"city\":\"Köln </x>\",\"days\":[1,2]}");
    EXPECT_EQ(out.calls[1].name, "add");
    EXPECT_EQ(out.calls[1].arguments, "{}");
  }
}

TEST(ToolCalls, HermesWithoutTheLastTag) {
  const ToolOutput out = feed("<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n", 4);
  EXPECT_EQ(out.content, "");
  ASSERT_EQ(out.calls.size(), 1u);
  EXPECT_EQ(out.calls[0].arguments, "{\"a\":1}");
}

TEST(ToolCalls, Llama3) {
  const std::string text =
      "\n{\"name\": \"add\", \"parameters\": {\"z\": \"}\", \"a\": 1}}; "
      "{\"name\": \"get_weather\", \"parameters\": {}}\n";
  for (size_t size = 1; size < text.size() + 1; size += 5) {
    const ToolOutput out = feed(text, size);
    EXPECT_EQ(out.content, "");
    ASSERT_EQ(out.calls.size(), 2u);
    EXPECT_EQ(out.calls[0].name, "add");
    EXPECT_EQ(out.calls[0].arguments, "{\"z\":\"}\",\"a\":1}");
    EXPECT_EQ(out.calls[1].name, "get_weather");
  }
}

TEST(ToolCalls, WhatIsNoCallStaysText) {
  for (const char* text :
       {"Just text with <tool and { braces }.", "  {\"not\": \"a call\"}",
        "{\"name\": \"unknown\", \"parameters\": {}}", "{\"name\": \"add\", \"parameters\": ",
        "<tool_call>no JSON</tool_call> and on", "<tool_call>{\"name\": \"unknown\"}</tool_call>",
        "{\"name\": \"add\", \"parameters\": {}} and words", "<tool_call>{\"name\": 1}", "<tool_ca",
        "{\"name\": \"add\", \"arguments\": 3}", ""}) {
    for (size_t size = 1; size < 12; ++size) {
      const ToolOutput out = feed(text, size);
      EXPECT_EQ(out.content, text);
      EXPECT_TRUE(out.calls.empty());
    }
  }
}

TEST(ToolCalls, TextFlowsUntilACallMayBegin) {
  ToolCallParser parser(kTools);
  EXPECT_EQ(parser.push("Hello <").content, "Hello ");
  EXPECT_EQ(parser.push("b> <tool").content, "<b> ");
  EXPECT_EQ(parser.push("_call>{\"name\": \"add\"}</tool_call> bye").calls.size(), 1u);
  EXPECT_EQ(parser.finish().content, "");
}

}  // namespace
}  // namespace atom
