// Parses the input as a chat template and renders it with a fixed conversation, under limits that
// keep one run short.
#include <cstdint>
#include <nlohmann/json.hpp>

#include "text/chat_template.h"

namespace {

const nlohmann::ordered_json& variables() {
  static const auto json = nlohmann::ordered_json::parse(R"({
    "messages": [
      {"role": "system", "content": "  Be kind.\n"},
      {"role": "user", "content": "Où est-ce? 🙂"},
      {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5, true]}}}]},
      {"role": "tool", "tool_call_id": "c1", "content": "{\"x\": 1}"},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}],
    "tools": [{"type": "function", "function": {"name": "f", "description": "Does\nf",
      "parameters": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}}},
      "required": ["a"]}}}],
    "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>", "n": 7, "x": -2.5,
    "nums": [3, 1, 2], "words": ["b", "A", "c"], "text": " One\ntwo ", "none": null, "empty": ""})");
  return json;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  atom::jinja::RenderOptions options;
  options.limits.max_source_bytes = 4096;
  options.limits.max_text_bytes = 1 << 16;
  options.limits.max_steps = 20000;
  options.now = std::tm{};
  const auto chat_template = atom::ChatTemplate::parse(
      std::string_view(reinterpret_cast<const char*>(data), size), "fuzz", options);
  if (chat_template.ok()) (void)chat_template->render(variables());
  return 0;
}
