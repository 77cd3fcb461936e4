// Calls of tools in a model's output, in the formats that open models write:
//   Hermes, Qwen    text <tool_call>{"name": "f", "arguments": {...}}</tool_call>, any number
//   Llama 3         {"name": "f", "parameters": {...}} as the whole output, several with ";"
//   between
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace atom {

struct ToolCall {
  std::string name = {};
  std::string arguments = {};  // JSON text of an object
};

struct ToolOutput {
  std::string content = {};          // what is no call
  std::vector<ToolCall> calls = {};  // those that are complete
};

// Feeds on text piece by piece. What might become a call is held back until it is one or is not;
// what looked like a call and is none (JSON that does not parse, a name that is no tool's) comes
// out as content, unchanged.
class ToolCallParser {
 public:
  explicit ToolCallParser(std::vector<std::string> tool_names)
      : tool_names_(std::move(tool_names)) {}

  ToolOutput push(std::string_view piece);
  ToolOutput finish();
  // Whether any call was found.
  bool called() const { return called_; }

 private:
  enum class State : uint8_t {
    kStart,   // only blanks so far
    kText,    // until <tool_call>
    kTagged,  // behind <tool_call>
    kBare,    // the output began with "{"
  };
  void parse_text(ToolOutput& out);
  bool parse_tagged(ToolOutput& out);
  bool parse_call(std::string_view text, ToolOutput& out);
  bool parse_bare_calls(ToolOutput& out);

  std::vector<std::string> tool_names_;
  State state_ = State::kStart;
  std::string held_;
  bool after_call_ = false;  // blanks that follow are no content
  bool called_ = false;
};

}  // namespace atom
