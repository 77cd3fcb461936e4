// The bodies of API requests and the outputs that tool calls are looked for in: the first byte says
// which, the rest is the text.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "server/generation_request.h"
#include "server/tool_calls.h"

namespace {

void check_error(const std::optional<atom::ApiError>& problem) {
  if (!problem) return;
  ATOM_CHECK(problem->status == 400, "a wrong body is the client's error");
  ATOM_CHECK(!problem->message.empty(), "errors say something");
  (void)atom::error_response(*problem);
}

// However the text is cut, calls and content are the same.
void check_tool_calls(std::string_view text) {
  atom::ToolOutput results[2];
  for (const size_t size : {size_t{1}, size_t{7}}) {
    atom::ToolCallParser parser({"f", "get_weather"});
    atom::ToolOutput& all = results[size == 1 ? 0 : 1];
    const auto take = [&](atom::ToolOutput out) {
      all.content += out.content;
      for (atom::ToolCall& call : out.calls) all.calls.push_back(std::move(call));
    };
    for (size_t i = 0; i < text.size(); i += size) take(parser.push(text.substr(i, size)));
    take(parser.finish());
  }
  ATOM_CHECK(results[0].content == results[1].content, "the same content");
  ATOM_CHECK(results[0].calls.size() == results[1].calls.size(), "the same calls");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const atom::ModelFacts facts{.vocab = 512};
  if (data[0] % 3 == 0) {
    atom::CompletionRequest request;
    check_error(atom::parse_completion_request(text, facts, request));
  } else if (data[0] % 3 == 1) {
    atom::ChatRequest request;
    check_error(atom::parse_chat_request(text, facts, request));
  } else {
    check_tool_calls(text);
  }
  return 0;
}
