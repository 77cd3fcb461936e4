#include "server/chat_messages.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace atom {
namespace {

using OrderedJson = nlohmann::ordered_json;

Status check_content(const JsonView& content) {
  if (content.is_string()) return {};
  if (!content.is_array()) {
    return error(ErrorCode::kInvalidArgument, "{}: expected a string or an array of parts",
                 content.place());
  }
  for (size_t i = 0; i < content.size(); ++i) {
    const JsonView part = ATOM_TRY(content.at(i));
    const std::string type = ATOM_TRY(part.get_string("type"));
    if (type != "text") {
      return error(ErrorCode::kUnsupported, "{}: a part of type '{}'; this model reads text only",
                   part.place(), type);
    }
    ATOM_TRY(part.get_string("text"));
  }
  return {};
}

Status check_tool_calls(const JsonView& calls) {
  if (!calls.is_array()) {
    return error(ErrorCode::kInvalidArgument, "{}: expected an array", calls.place());
  }
  for (size_t i = 0; i < calls.size(); ++i) {
    const JsonView function = ATOM_TRY(ATOM_TRY(calls.at(i)).at("function"));
    ATOM_TRY(function.get_string("name"));
    const JsonView arguments = ATOM_TRY(function.at("arguments"));
    if (!arguments.is_string() && !arguments.is_object()) {
      return error(ErrorCode::kInvalidArgument, "{}: expected the arguments as JSON text",
                   arguments.place());
    }
    if (arguments.is_string())
      ATOM_TRY(check_json_depth(ATOM_TRY(arguments.as_string()), arguments.place()));
  }
  return {};
}

std::string joined_parts(const OrderedJson& parts) {
  std::string text;
  for (const OrderedJson& part : parts) {
    if (!text.empty()) text += '\n';
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

}  // namespace

Status check_messages(const JsonView& messages) {
  if (!messages.is_array() || messages.size() == 0) {
    return error(ErrorCode::kInvalidArgument, "{}: expected a non-empty array of messages",
                 messages.place());
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const JsonView message = ATOM_TRY(messages.at(i));
    ATOM_TRY(message.get_string("role"));
    if (message.has("content")) ATOM_TRY(check_content(ATOM_TRY(message.at("content"))));
    if (message.has("tool_calls")) {
      ATOM_TRY(check_tool_calls(ATOM_TRY(message.at("tool_calls"))));
    } else if (!message.has("content")) {
      return error(ErrorCode::kNotFound, "{}: 'content' is missing", message.place());
    }
  }
  return {};
}

Status check_tools(const JsonView& tools) {
  if (!tools.is_array() || tools.size() == 0) {
    return error(ErrorCode::kInvalidArgument, "{}: expected a non-empty array of tools",
                 tools.place());
  }
  for (size_t i = 0; i < tools.size(); ++i) {
    const JsonView tool = ATOM_TRY(tools.at(i));
    const std::string type = ATOM_TRY(tool.get_string("type"));
    if (type != "function") {
      return error(ErrorCode::kUnsupported, "{}: a tool of type '{}'; only functions are known",
                   tool.place(), type);
    }
    ATOM_TRY(ATOM_TRY(tool.at("function")).get_string("name"));
  }
  return {};
}

Result<ToolChoice> read_tool_choice(const JsonView& choice) {
  if (!choice.is_string()) {
    const JsonView function = ATOM_TRY(choice.at("function"));
    return ToolChoice{.forced = true, .name = ATOM_TRY(function.get_string("name"))};
  }
  const std::string word = ATOM_TRY(choice.as_string());
  if (word == "auto") return ToolChoice{};
  if (word == "none") return ToolChoice{.shown = false};
  if (word == "required") return ToolChoice{.forced = true};
  return error(ErrorCode::kInvalidArgument, "{}: '{}' is none of auto, none, required",
               choice.place(), word);
}

bool has_tool(const OrderedJson& tools, const std::string& name) {
  return std::any_of(tools.begin(), tools.end(),
                     [&](const OrderedJson& tool) { return tool["function"]["name"] == name; });
}

OrderedJson template_messages(OrderedJson messages) {
  for (OrderedJson& message : messages) {
    if (message["role"] == "developer") message["role"] = "system";
    // Templates concatenate contents; most cannot with null.
    OrderedJson& content = message["content"];
    if (content.is_array()) content = joined_parts(content);
    if (content.is_null()) content = "";
    if (!message.contains("tool_calls") || !message["tool_calls"].is_array()) continue;
    for (OrderedJson& call : message["tool_calls"]) {
      OrderedJson& arguments = call["function"]["arguments"];
      if (!arguments.is_string()) continue;
      OrderedJson parsed =
          OrderedJson::parse(arguments.get_ref<const std::string&>(), nullptr, false);
      if (parsed.is_object()) arguments = std::move(parsed);
    }
  }
  return messages;
}

}  // namespace atom
