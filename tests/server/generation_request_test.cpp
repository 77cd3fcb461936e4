#include "server/generation_request.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace atom {
namespace {

constexpr ModelFacts kFacts{.vocab = 100};

std::string chat_body(const std::string& members) {
  return R"({"messages": [{"role": "user", "content": "hi"}])" +
         (members.empty() ? "" : ", " + members) + "}";
}

TEST(GenerationRequest, CompletionDefaultsAndFields) {
  CompletionRequest request;
  ASSERT_FALSE(parse_completion_request(R"({"prompt": "a", "unknown": [1], "stop": null})", kFacts,
                                        request));
  EXPECT_EQ(std::get<std::string>(request.prompts.at(0)), "a");
  EXPECT_EQ(request.max_tokens, 16);
  EXPECT_EQ(request.sampling.temperature, 1.0);
  EXPECT_EQ(request.logprobs, -1);
  EXPECT_FALSE(request.seeded);

  CompletionRequest full;
  ASSERT_FALSE(parse_completion_request(
      R"({"prompt": [[1, 2], "b"], "max_tokens": 0, "echo": true, "logprobs": 3, "n": 2,
          "best_of": 4, "seed": -1, "temperature": 0, "top_p": 0.5, "top_k": -1, "min_p": 0.1,
          "repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": -0.5,
          "logit_bias": {"7": -100}, "stop": ["x", "y"], "stop_token_ids": [5],
          "ignore_eos": true, "stream_options": {"include_usage": true}, "priority": -2})",
      kFacts, full));
  EXPECT_EQ(std::get<std::vector<int32_t>>(full.prompts.at(0)), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(std::get<std::string>(full.prompts.at(1)), "b");
  EXPECT_EQ(full.max_tokens, 0);
  EXPECT_TRUE(full.echo && full.seeded && full.ignore_eos && full.include_usage);
  EXPECT_EQ(full.best_of, 4);
  EXPECT_EQ(full.sampling.top_k, 0);
  EXPECT_EQ(full.sampling.logit_bias.at(0), (std::pair<int32_t, float>(7, -100.0f)));
  EXPECT_EQ(full.stop, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(full.stop_ids, std::vector<int32_t>{5});
  EXPECT_EQ(full.priority, -2);
}

TEST(GenerationRequest, ErrorsNameTheFieldAndTheValue) {
  struct Case {
    const char* members;
    const char* param;
    const char* says;
  };
  for (const Case& c : {
           Case{R"("temperature": "hot")", "temperature", "expected a number, found \"hot\""},
           Case{R"("temperature": -1)", "temperature", "-1"},
           Case{R"("top_p": 0)", "top_p", "top_p = 0"},
           Case{R"("n": 0)", "n", "0 is not within 1..128"},
           Case{R"("n": 3, "best_of": 2)", "best_of", "2 is not within 3..128"},
           Case{R"("best_of": 2, "stream": true)", "best_of", "cannot be streamed"},
           Case{R"("stop": [""])", "stop", "0 bytes"},
           Case{R"("stop": 3)", "stop", "expected a string or an array"},
           Case{R"("stop": ["a", 3])", "stop", "stop[1]: expected a string, found 3"},
           Case{R"("logit_bias": {"100": 1})", "logit_bias",
                "'100' is not a token id within 0..99"},
           Case{R"("logit_bias": {"1x": 1})", "logit_bias", "'1x'"},
           Case{R"("logit_bias": {"1": 101})", "logit_bias", "101 is not within -100..100"},
           Case{R"("stream": "yes")", "stream", "expected true or false"},
           Case{R"("max_tokens": 1.5)", "max_tokens", "expected an integer, found 1.5"},
           Case{R"("response_format": {"type": "yaml"})", "response_format", "'yaml'"},
       }) {
    CompletionRequest request;
    const auto problem = parse_completion_request(
        std::string(R"({"prompt": "a", )") + c.members + "}", kFacts, request);
    ASSERT_TRUE(problem) << c.members;
    EXPECT_EQ(problem->status, 400);
    EXPECT_EQ(problem->param, c.param) << problem->message;
    EXPECT_NE(problem->message.find(c.says), std::string::npos) << problem->message;
  }
}

TEST(GenerationRequest, HostileBodies) {
  CompletionRequest request;
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"),
        std::string(R"({"prompt": []})"), std::string(R"({"prompt": {"a": 1}})"),
        std::string(R"({"prompt": [1, "a"]})"), std::string(R"({"prompt": [1, 100]})"),
        std::string(R"({"prompt": [1, -1]})"), std::string("{\"prompt\": \"\xff\"}"),
        std::string(1 << 20, '['),
        std::string(R"({"prompt": "a", "x": )") + std::string(1 << 20, '[')}) {
    const auto problem = parse_completion_request(body, kFacts, request);
    ASSERT_TRUE(problem) << body.substr(0, 40);
    EXPECT_EQ(problem->status, 400);
    EXPECT_LT(problem->message.size(), 300u);
  }
}

TEST(GenerationRequest, ChatMessagesBecomeWhatTemplatesExpect) {
  ChatRequest request;
  ASSERT_FALSE(parse_chat_request(
      R"({"messages": [
            {"role": "developer", "content": "d"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
              "function": {"name": "f", "arguments": "{\"y\": 1, \"x\": 2}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "3"}],
          "tools": [{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}],
          "max_completion_tokens": 7, "logprobs": true, "top_logprobs": 4,
          "chat_template_kwargs": {"enable_thinking": false}})",
      kFacts, request));
  EXPECT_EQ(request.messages[0]["role"], "system");
  EXPECT_EQ(request.messages[1]["content"], "a\nb");
  EXPECT_EQ(request.messages[2]["content"], "");
  EXPECT_EQ(request.messages[2]["tool_calls"][0]["function"]["arguments"].dump(),
            R"({"y":1,"x":2})");
  EXPECT_EQ(request.tools[0]["function"]["parameters"].dump(), R"({"z":1,"a":2})");
  EXPECT_EQ(request.max_tokens, 7);
  EXPECT_EQ(request.logprobs, 4);
  EXPECT_EQ(request.template_variables["enable_thinking"], false);
}

TEST(GenerationRequest, ChatDefaultsAndToolChoice) {
  ChatRequest request;
  ASSERT_FALSE(parse_chat_request(chat_body(""), kFacts, request));
  EXPECT_EQ(request.max_tokens, -1);
  EXPECT_EQ(request.logprobs, -1);
  const std::string tools = R"("tools": [{"type": "function", "function": {"name": "f"}}])";
  ASSERT_FALSE(
      parse_chat_request(chat_body(tools + R"(, "tool_choice": "none")"), kFacts, request));
  EXPECT_TRUE(request.tools.empty());
  ASSERT_FALSE(parse_chat_request(
      chat_body(tools + R"(, "tool_choice": {"type": "function", "function": {"name": "f"}})"),
      kFacts, request));
  EXPECT_EQ(request.shape.kind, OutputShape::Kind::kJsonSchema);
  EXPECT_NE(request.shape.text.find(R"("const":"f")"), std::string::npos) << request.shape.text;
}

TEST(GenerationRequest, OutputShapesKeepTheOrderOfTheSchema) {
  CompletionRequest request;
  ASSERT_FALSE(parse_completion_request(
      R"({"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"name": "x",
          "schema": {"type": "object", "properties": {"z": {}, "a": {}}}}}})",
      kFacts, request));
  EXPECT_EQ(request.shape.text, R"({"type":"object","properties":{"z":{},"a":{}}})");
  CompletionRequest regex;
  ASSERT_FALSE(parse_completion_request(
      R"({"prompt": "a", "structured_outputs": {"regex": "[0-9]+"}})", kFacts, regex));
  EXPECT_EQ(regex.shape.kind, OutputShape::Kind::kRegex);
  EXPECT_EQ(regex.shape.text, "[0-9]+");
}

TEST(GenerationRequest, ChatErrorsNameTheMessage) {
  struct Case {
    const char* body;
    const char* param;
    const char* says;
  };
  for (const Case& c : {
           Case{R"({})", "messages", "'messages' is missing"},
           Case{R"({"messages": []})", "messages", "non-empty"},
           Case{R"({"messages": [{"content": "x"}]})", "messages", "'role' is missing"},
           Case{R"({"messages": [{"role": "user"}]})", "messages", "'content' is missing"},
           Case{R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})",
                "messages", "messages[0].content[0]: a part of type 'image_url'"},
           Case{R"({"messages": [{"role": "user", "content": "x"}], "top_logprobs": 2})",
                "top_logprobs", "needs logprobs"},
           Case{R"({"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "x"}]})",
                "tools", "a tool of type 'x'"},
           Case{R"({"messages": [{"role": "user", "content": "x"}], "tool_choice": "maybe"})",
                "tool_choice", "'maybe'"},
       }) {
    ChatRequest request;
    const auto problem = parse_chat_request(c.body, kFacts, request);
    ASSERT_TRUE(problem) << c.body;
    EXPECT_EQ(problem->param, c.param) << problem->message;
    EXPECT_NE(problem->message.find(c.says), std::string::npos) << problem->message;
  }
}

}  // namespace
}  // namespace atom
