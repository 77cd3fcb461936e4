// The messages and tools of a chat request: checked, and in the form that chat templates expect.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/json.h"
#include "base/status.h"

namespace atom {

// An array of messages, each with a role, and a content that is text, an array of text parts, or
// null. The error names the message and its field.
Status check_messages(const JsonView& messages);

// A non-empty array of {"type": "function", "function": {"name", ...}}.
Status check_tools(const JsonView& tools);

struct ToolChoice {
  bool shown = true;      // false: "none"
  bool forced = false;    // "required", or one tool by name
  std::string name = {};  // of that one; empty: any
};
// "auto", "none", "required" or {"type": "function", "function": {"name": ...}}.
Result<ToolChoice> read_tool_choice(const JsonView& choice);

// Whether checked tools have one of that name.
bool has_tool(const nlohmann::ordered_json& tools, const std::string& name);

// Checked messages with each content as one text (parts joined by line breaks, as vLLM joins them),
// arguments of tool calls as objects where they are the JSON of one, and role "developer" as
// "system".
nlohmann::ordered_json template_messages(nlohmann::ordered_json messages);

}  // namespace atom
