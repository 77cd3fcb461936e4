#include "server/tool_calls.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/json.h"
#include "base/json_brackets.h"
#include "server/stop_matcher.h"

namespace atom {
namespace {

constexpr std::string_view kOpen = "<tool_call>";
constexpr std::string_view kClose = "</tool_call>";
constexpr std::string_view kBlanks = " \t\r\n";

// The end of the JSON object that text begins with, or npos where it is not complete.
size_t object_end(std::string_view text) {
  JsonBrackets brackets(text);
  while (brackets.next()) {
    if (brackets.depth() == 0) return brackets.position();
  }
  return std::string_view::npos;
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

}  // namespace

// One call's JSON, appended to out. False where it is none.
bool ToolCallParser::parse_call(std::string_view text, ToolOutput& out) {
  if (!check_json_depth(text, "").ok()) return false;
  const auto json = nlohmann::ordered_json::parse(text.begin(), text.end(), nullptr, false);
  if (!json.is_object() || !json.contains("name") || !json["name"].is_string()) return false;
  ToolCall call{.name = json["name"].get<std::string>(), .arguments = "{}"};
  if (std::find(tool_names_.begin(), tool_names_.end(), call.name) == tool_names_.end()) {
    return false;
  }
  for (const char* key : {"arguments", "parameters"}) {
    if (!json.contains(key)) continue;
    const auto& arguments = json[key];
    if (arguments.is_object()) {
      call.arguments = arguments.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    } else if (arguments.is_string()) {
      call.arguments = arguments.get<std::string>();
    } else {
      return false;
    }
    break;
  }
  out.calls.push_back(std::move(call));
  called_ = true;
  return true;
}

// Gives out text up to where a call might begin.
void ToolCallParser::parse_text(ToolOutput& out) {
  if (after_call_) {
    held_.erase(0, std::min(held_.find_first_not_of(kBlanks), held_.size()));
    after_call_ = held_.empty();
  }
  const size_t open = held_.find(kOpen);
  if (open != std::string::npos) {
    out.content += held_.substr(0, open);
    held_.erase(0, open);
    state_ = State::kTagged;
    return;
  }
  const size_t certain = held_.size() - begun_at_end(held_, kOpen);
  out.content += held_.substr(0, certain);
  held_.erase(0, certain);
}

// False where the call is not complete yet.
bool ToolCallParser::parse_tagged(ToolOutput& out) {
  const size_t close = held_.find(kClose, kOpen.size());
  if (close == std::string::npos) return false;
  const std::string_view inner = std::string_view(held_).substr(kOpen.size(), close - kOpen.size());
  const size_t end = close + kClose.size();
  after_call_ = parse_call(trimmed(inner), out);
  if (!after_call_) out.content += held_.substr(0, end);
  held_.erase(0, end);
  state_ = State::kText;
  return true;
}

// All of held_ as calls with ";" between, or nothing.
bool ToolCallParser::parse_bare_calls(ToolOutput& out) {
  ToolOutput found;
  std::string_view rest = trimmed(held_);
  while (!rest.empty()) {
    const size_t end = object_end(rest);
    if (end == std::string_view::npos || !parse_call(rest.substr(0, end), found)) return false;
    rest = trimmed(rest.substr(end));
    if (rest.starts_with(';')) rest = trimmed(rest.substr(1));
  }
  std::move(found.calls.begin(), found.calls.end(), std::back_inserter(out.calls));
  return true;
}

ToolOutput ToolCallParser::push(std::string_view piece) {
  ToolOutput out;
  held_ += piece;
  if (state_ == State::kStart) {
    const size_t first = held_.find_first_not_of(kBlanks);
    if (first == std::string::npos) return out;
    state_ = held_[first] == '{' ? State::kBare : State::kText;
  }
  if (state_ == State::kBare) return out;
  do {
    if (state_ == State::kText) parse_text(out);
  } while (state_ == State::kTagged && parse_tagged(out));
  return out;
}

ToolOutput ToolCallParser::finish() {
  ToolOutput out;
  if (state_ == State::kBare) {
    const bool called_before = called_;
    if (parse_bare_calls(out)) {
      held_.clear();
    } else {
      called_ = called_before;
    }
  } else if (state_ == State::kTagged &&
             parse_call(trimmed(std::string_view(held_).substr(kOpen.size())), out)) {
    held_.clear();  // a model may end its turn without closing the last call
  }
  out.content += std::exchange(held_, {});
  return out;
}

}  // namespace atom
