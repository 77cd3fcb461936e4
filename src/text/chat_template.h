// Chat templates: the Jinja text that a model ships with and that turns a conversation into its
// prompt. Renders what Hugging Face transformers would (jinja2 in a sandbox, trim_blocks,
// lstrip_blocks, loop controls, generation tags), except that
//   - integers have 64 bits, and dict keys are None, bools, numbers or strings;
//   - map, select and their like do their work at once rather than item by item;
//   - letters change case one code point at a time;
//   - include, import, extends and autoescape are refused, and so are the filters filesizeformat,
//     pprint, random, striptags, urlize, wordwrap and xmlattr, and a few rare string methods;
//   - a filter or test that does not exist is an error where it runs, not where it stands.
#pragma once

#include <memory>

#include "base/json.h"
#include "text/jinja_interpreter.h"

namespace atom {

class ChatTemplate {
 public:
  // origin (a file, "tokenizer.chat_template") stands in front of every error message.
  static Result<ChatTemplate> parse(std::string_view source, std::string_view origin,
                                    const jinja::RenderOptions& options = {});

  // variables: an object with messages, tools, add_generation_prompt, bos_token and whatever else
  // the template reads. Fails where the template calls raise_exception, misuses a value, or takes
  // too long. The order of keys shows in templates that print tool schemas as JSON: the second form
  // keeps it, the first has them sorted.
  Result<std::string> render(const Json& variables) const;
  Result<std::string> render(const nlohmann::ordered_json& variables) const;

 private:
  ChatTemplate() = default;
  Result<std::string> render_value(const Result<jinja::Value>& variables) const;

  std::shared_ptr<const jinja::Body> body_;
  std::string origin_;
  jinja::RenderOptions options_;
};

}  // namespace atom
