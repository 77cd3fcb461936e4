#include "load/openai.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace atom {
namespace {

TEST(StreamEvent, TellsTextFromTheRest) {
  const auto has_text = [](std::string_view data) { return read_stream_event(data)->has_text; };
  EXPECT_TRUE(has_text(R"({"choices":[{"text":" a"}]})"));
  EXPECT_TRUE(has_text(R"({"choices":[{"delta":{"content":"a"}}]})"));
  EXPECT_TRUE(has_text(R"({"choices":[{"delta":{"reasoning_content":"a"}}]})"));
  EXPECT_TRUE(has_text(R"({"choices":[{"delta":{"tool_calls":[{"index":0}]}}]})"));
  EXPECT_FALSE(has_text(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})"));
  EXPECT_FALSE(has_text(R"({"choices":[{"text":"","finish_reason":"stop"}]})"));
  EXPECT_FALSE(has_text(R"({"choices":[{"delta":{"content":null}}]})"));
  EXPECT_FALSE(has_text(R"({"choices":[]})"));
  EXPECT_FALSE(has_text("[DONE]"));
  EXPECT_TRUE(read_stream_event("[DONE]")->done);
}

TEST(StreamEvent, ReadsUsageAndErrors) {
  const StreamEvent event =
      *read_stream_event(R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}})");
  EXPECT_EQ(event.usage.prompt_tokens, 3);
  EXPECT_EQ(event.usage.generated_tokens, 4);
  EXPECT_FALSE(read_stream_event(R"({"usage":null})")->usage.prompt_tokens);
  EXPECT_FALSE(read_stream_event(R"({"usage":{"prompt_tokens":-1}})")->usage.prompt_tokens);
  EXPECT_FALSE(read_stream_event(R"({"usage":{"prompt_tokens":"9"}})")->usage.prompt_tokens);
  EXPECT_FALSE(read_stream_event(R"({"usage":[1],"choices":{"text":1}})")->has_text);
  EXPECT_EQ(read_stream_event(R"({"error":{"message":"a\nb"}})")->failure, "a\\x0ab");
  EXPECT_EQ(read_stream_event(R"({"error":"c"})")->failure, "c");
  EXPECT_FALSE(read_stream_event(R"({"error":null})")->failure);
  EXPECT_FALSE(read_stream_event("{").ok());
  EXPECT_FALSE(read_stream_event("[1]").ok());
}

TEST(FailureMessage, IsOneShortPrintableLine) {
  EXPECT_EQ(failure_message(R"({"error":{"message":"busy"}})"), "busy");
  EXPECT_EQ(failure_message(R"({"message":"busy"})"), "busy");
  EXPECT_EQ(failure_message("<html>\x1b[31m\r\n"), R"(<html>\x1b[31m\x0d\x0a)");
  EXPECT_LE(failure_message(std::string(100000, 'x')).size(), 203u);
}

TEST(RequestBody, TakesExtraMembers) {
  const GenerationRequest request{.prompt = "a b", .max_tokens = 3, .stream = true};
  const Json completion = Json::parse(
      request_body(Api::kCompletions, "m", request, Json{{"max_tokens", 9}, {"top_p", 0.5}}));
  EXPECT_EQ(completion["prompt"], "a b");
  EXPECT_EQ(completion["max_tokens"], 9);
  EXPECT_EQ(completion["top_p"], 0.5);
  EXPECT_EQ(completion["stream_options"]["include_usage"], true);
  const Json chat = Json::parse(request_body(Api::kChat, "m", request, Json()));
  EXPECT_EQ(chat["messages"], Json::parse(R"([{"role":"user","content":"a b"}])"));
}

TEST(FirstModel, NamesIt) {
  EXPECT_EQ(*first_model(R"({"data":[{"id":"m"}]})"), "m");
  EXPECT_FALSE(first_model(R"({"data":[]})").ok());
  EXPECT_FALSE(first_model("x").ok());
}

}  // namespace
}  // namespace atom
