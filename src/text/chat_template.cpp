#include "text/chat_template.h"

#include <nlohmann/json.hpp>

#include "text/jinja_json.h"

namespace atom {

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, std::string_view origin,
                                         const jinja::RenderOptions& options) {
  if (source.size() > options.limits.max_source_bytes) {
    return error(ErrorCode::kUnsupported, "{}: {} bytes, more than the {} allowed", origin,
                 source.size(), options.limits.max_source_bytes);
  }
  Result<jinja::Body> body = jinja::parse_template(source);
  if (!body.ok()) return body.status().with_context(std::string(origin));
  ChatTemplate result;
  result.body_ = std::make_shared<const jinja::Body>(std::move(body).value());
  result.origin_ = origin;
  result.options_ = options;
  return result;
}

Result<std::string> ChatTemplate::render(const Json& variables) const {
  return render_value(jinja::from_json(variables));
}

Result<std::string> ChatTemplate::render(const nlohmann::ordered_json& variables) const {
  return render_value(jinja::from_json(variables));
}

Result<std::string> ChatTemplate::render_value(const Result<jinja::Value>& variables) const {
  if (!variables.ok()) return variables.status().with_context(origin_ + ": variables");
  if (!variables->is(jinja::Kind::kDict)) {
    return error(ErrorCode::kInvalidArgument, "{}: the variables are not an object", origin_);
  }
  jinja::Interpreter interpreter(variables->as_dict(), options_);
  Result<std::string> text = interpreter.render(*body_);
  if (text.ok()) return text;
  return text.status().with_context(fmt::format("{}: line {}", origin_, interpreter.line()));
}

}  // namespace atom
