#include "server/generation_request.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/request.h"
#include "server/chat_messages.h"
#include "server/request_fields.h"

namespace atom {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 30;

Status read_stop(const JsonView& view, std::vector<std::string>& stop) {
  if (view.is_string()) {
    stop.push_back(ATOM_TRY(view.as_string()));
  } else {
    if (!view.is_array()) {
      return error(ErrorCode::kInvalidArgument, "{}: expected a string or an array of strings",
                   view.place());
    }
    for (size_t i = 0; i < view.size(); ++i) {
      stop.push_back(ATOM_TRY(ATOM_TRY(view.at(i)).as_string()));
    }
  }
  if (static_cast<int64_t>(stop.size()) > kMaxStopStrings) {
    return error(ErrorCode::kInvalidArgument, "{}: {} strings, more than {}", view.place(),
                 stop.size(), kMaxStopStrings);
  }
  for (const std::string& text : stop) {
    if (text.empty() || static_cast<int64_t>(text.size()) > kMaxStopBytes) {
      return error(ErrorCode::kInvalidArgument, "{}: a string of {} bytes is not within 1..{}",
                   view.place(), text.size(), kMaxStopBytes);
    }
  }
  return {};
}

// {"token id": bias}
Status read_logit_bias(const JsonView& view, const ModelFacts& facts,
                       std::vector<std::pair<int32_t, float>>& biases) {
  if (!view.is_object()) {
    return error(ErrorCode::kInvalidArgument, "{}: expected an object of token ids", view.place());
  }
  for (const std::string& key : view.keys()) {
    int32_t id = -1;
    const auto [end, problem] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (problem != std::errc() || end != key.data() + key.size() || id < 0 || id >= facts.vocab) {
      return error(ErrorCode::kInvalidArgument, "{}: '{}' is not a token id within 0..{}",
                   view.place(), key, facts.vocab - 1);
    }
    const double bias = ATOM_TRY(view.get_number(key));
    if (bias < -100 || bias > 100) {
      return error(ErrorCode::kInvalidArgument, "{}: {} is not within -100..100",
                   ATOM_TRY(view.at(key)).place(), bias);
    }
    biases.emplace_back(id, static_cast<float>(bias));
  }
  return {};
}

Status set_shape(OutputShape::Kind kind, const char* param, OutputShape& shape) {
  if (shape.kind != OutputShape::Kind::kAnyText) {
    return error(ErrorCode::kInvalidArgument, "request: {}: the output has another shape already",
                 param);
  }
  shape.kind = kind;
  shape.param = param;
  return {};
}

// OpenAI's way to ask for JSON. A schema's text follows from the body in its own order.
Status read_response_format(const JsonView& view, OutputShape& shape) {
  const std::string type = ATOM_TRY(view.get_string("type"));
  if (type == "text") return {};
  if (type == "json_object") {
    return set_shape(OutputShape::Kind::kJsonObject, "response_format", shape);
  }
  if (type == "json_schema") {
    ATOM_TRY(ATOM_TRY(view.at("json_schema")).at("schema"));
    return set_shape(OutputShape::Kind::kJsonSchema, "response_format", shape);
  }
  return error(ErrorCode::kInvalidArgument, "{}: '{}' is none of text, json_object, json_schema",
               view.place(), type);
}

// vLLM's way to ask for more: {"json": schema} or {"regex": ...} or {"choice": [...]}.
Status read_structured_outputs(const JsonView& view, OutputShape& shape) {
  if (!view.is_object()) {
    return error(ErrorCode::kInvalidArgument, "{}: expected an object", view.place());
  }
  if (view.has("json")) {
    ATOM_TRY(set_shape(OutputShape::Kind::kJsonSchema, "structured_outputs", shape));
  }
  if (ATOM_TRY(view.get_bool("json_object", false))) {
    ATOM_TRY(set_shape(OutputShape::Kind::kJsonObject, "structured_outputs", shape));
  }
  if (view.has("regex")) {
    ATOM_TRY(set_shape(OutputShape::Kind::kRegex, "structured_outputs", shape));
    shape.text = ATOM_TRY(view.get_string("regex"));
  }
  if (view.has("choice")) {
    ATOM_TRY(set_shape(OutputShape::Kind::kChoice, "structured_outputs", shape));
    const JsonView choices = ATOM_TRY(view.at("choice"));
    for (size_t i = 0; i < choices.size(); ++i) {
      shape.choices.push_back(ATOM_TRY(ATOM_TRY(choices.at(i)).as_string()));
    }
    if (shape.choices.empty()) {
      return error(ErrorCode::kInvalidArgument, "{}: expected a non-empty array of strings",
                   choices.place());
    }
  }
  return {};
}

// Fills in the schema that the checked body asks for.
void take_schema(const nlohmann::ordered_json& body, OutputShape& shape) {
  if (shape.kind != OutputShape::Kind::kJsonSchema) return;
  const nlohmann::ordered_json& schema = shape.param == "response_format"
                                             ? body["response_format"]["json_schema"]["schema"]
                                             : body["structured_outputs"]["json"];
  shape.text = schema.is_string() ? schema.get<std::string>() : schema.dump();
}

// The JSON of a call of one of the tools, as ToolCallParser reads it.
OutputShape call_shape(const nlohmann::ordered_json& tools, const std::string& only) {
  using OrderedJson = nlohmann::ordered_json;
  OrderedJson calls = OrderedJson::array();
  for (const OrderedJson& tool : tools) {
    const OrderedJson& function = tool["function"];
    if (!only.empty() && function["name"] != only) continue;
    OrderedJson arguments{{"type", "object"}};
    if (function.contains("parameters") && function["parameters"].is_object()) {
      arguments = function["parameters"];
    }
    calls.push_back(
        {{"type", "object"},
         {"properties",
          {{"name", {{"const", function["name"]}}}, {"arguments", std::move(arguments)}}},
         {"required", {"name", "arguments"}},
         {"additionalProperties", false}});
  }
  OrderedJson schema = calls.size() == 1 ? calls[0] : OrderedJson{{"anyOf", std::move(calls)}};
  return {.kind = OutputShape::Kind::kJsonSchema, .text = schema.dump(), .param = "tool_choice"};
}

void read_common(RequestFields& fields, const ModelFacts& facts, GenerationFields& to) {
  fields.text("model", to.model);
  SamplingParams& sampling = to.sampling;
  fields.number("temperature", sampling.temperature);
  // Some clients write -1 for "all".
  fields.integer("top_k", -1, kMostTokens, sampling.top_k);
  sampling.top_k = std::max<int64_t>(sampling.top_k, 0);
  fields.number("top_p", sampling.top_p);
  fields.number("min_p", sampling.min_p);
  fields.number("repetition_penalty", sampling.repetition_penalty);
  fields.number("presence_penalty", sampling.presence_penalty);
  fields.number("frequency_penalty", sampling.frequency_penalty);
  fields.read("logit_bias", [&](const JsonView& view) {
    return read_logit_bias(view, facts, sampling.logit_bias);
  });
  fields.read("seed", [&](const JsonView& view) -> Status {
    sampling.seed = static_cast<uint64_t>(ATOM_TRY(view.as_int(INT64_MIN, INT64_MAX)));
    to.seeded = true;
    return {};
  });
  if (fields.ok()) {
    const Status status = validate(sampling);
    // Its messages begin with the parameter: "top_p = 2: must be ...".
    const std::string name = status.message().substr(0, status.message().find(' '));
    if (!status.ok()) fields.fail(name.c_str(), status.with_context("request"));
  }
  fields.integer("max_tokens", 0, kMostTokens, to.max_tokens);
  fields.integer("n", 1, kMaxChoices, to.n);
  to.best_of = to.n;
  fields.integer("best_of", to.n, kMaxChoices, to.best_of);
  fields.read("stop", [&](const JsonView& view) { return read_stop(view, to.stop); });
  fields.ids("stop_token_ids", 0, facts.vocab - 1, to.stop_ids);
  fields.boolean("ignore_eos", to.ignore_eos);
  fields.boolean("skip_special_tokens", to.skip_special);
  fields.boolean("stream", to.stream);
  fields.read("stream_options", [&](const JsonView& view) -> Status {
    if (!view.is_object()) {
      return error(ErrorCode::kInvalidArgument, "{}: expected an object", view.place());
    }
    to.include_usage = ATOM_TRY(view.get_bool("include_usage", false));
    return {};
  });
  fields.integer("priority", -kMaxPriority, kMaxPriority, to.priority);
  fields.text("cache_salt", to.cache_salt);
  if (to.stream && to.best_of > to.n) {
    fields.fail("best_of",
                error(ErrorCode::kInvalidArgument,
                      "request: best_of = {} with n = {} cannot be streamed", to.best_of, to.n));
  }
  fields.read("response_format",
              [&](const JsonView& view) { return read_response_format(view, to.shape); });
  fields.read("structured_outputs",
              [&](const JsonView& view) { return read_structured_outputs(view, to.shape); });
}

Status read_prompts(const JsonView& view, const ModelFacts& facts, CompletionRequest& to) {
  const auto add_ids = [&](const JsonView& list) -> Status {
    to.prompts.emplace_back(ATOM_TRY(read_ids(list, 0, facts.vocab - 1)));
    return {};
  };
  if (view.is_string()) {
    to.prompts.emplace_back(ATOM_TRY(view.as_string()));
    return {};
  }
  if (!view.is_array() || view.size() == 0) {
    return error(ErrorCode::kInvalidArgument,
                 "{}: expected a string, token ids, or a non-empty array of these", view.place());
  }
  if (ATOM_TRY(view.at(size_t{0})).is_number()) return add_ids(view);
  if (static_cast<int64_t>(view.size()) > kMaxPrompts) {
    return error(ErrorCode::kInvalidArgument, "{}: {} prompts, more than {}", view.place(),
                 view.size(), kMaxPrompts);
  }
  for (size_t i = 0; i < view.size(); ++i) {
    const JsonView item = ATOM_TRY(view.at(i));
    if (item.is_array()) {
      ATOM_TRY(add_ids(item));
    } else {
      to.prompts.emplace_back(ATOM_TRY(item.as_string()));
    }
  }
  return {};
}

// Sets body, or yields the answer to a text that is no JSON.
template <class AnyJson>
std::optional<ApiError> parse_body(std::string_view text, AnyJson& body) {
  const Status depth = check_json_depth(text, "request");
  if (!depth.ok()) return api_error(depth);
  body = AnyJson::parse(text.begin(), text.end(), nullptr, false);
  if (!body.is_discarded()) return std::nullopt;
  return ApiError{.message = "the request body is not valid JSON"};
}

}  // namespace

std::optional<ApiError> parse_completion_request(std::string_view text, const ModelFacts& facts,
                                                 CompletionRequest& request) {
  Json body;
  if (auto problem = parse_body(text, body)) return problem;
  RequestFields fields(body);
  read_common(fields, facts, request);
  if (request.max_tokens < 0) request.max_tokens = 16;  // OpenAI's default
  fields.require("prompt",
                 [&](const JsonView& view) { return read_prompts(view, facts, request); });
  fields.boolean("echo", request.echo);
  fields.integer("logprobs", 0, kMaxLogprobs, request.logprobs);
  std::string suffix;
  fields.text("suffix", suffix);
  if (!suffix.empty()) {
    fields.fail("suffix", error(ErrorCode::kUnsupported,
                                "request: suffix: text before a given end is not supported"));
  }
  if (!fields.ok()) return fields.problem();
  if (request.shape.kind == OutputShape::Kind::kJsonSchema) {
    nlohmann::ordered_json ordered;
    if (auto problem = parse_body(text, ordered)) return problem;
    take_schema(ordered, request.shape);
  }
  return std::nullopt;
}

std::optional<ApiError> parse_chat_request(std::string_view text, const ModelFacts& facts,
                                           ChatRequest& request) {
  Json body;
  if (auto problem = parse_body(text, body)) return problem;
  RequestFields fields(body);
  read_common(fields, facts, request);
  fields.integer("max_completion_tokens", 1, kMostTokens, request.max_tokens);
  bool logprobs = false;
  fields.boolean("logprobs", logprobs);
  if (logprobs) request.logprobs = 0;
  fields.read("top_logprobs", [&](const JsonView& view) -> Status {
    if (!logprobs) {
      return error(ErrorCode::kInvalidArgument, "{}: needs logprobs to be true", view.place());
    }
    request.logprobs = ATOM_TRY(view.as_int(0, kMaxLogprobs));
    return {};
  });
  fields.require("messages", [&](const JsonView& view) { return check_messages(view); });
  request.tools = nlohmann::ordered_json::array();
  ToolChoice choice;
  fields.read("tool_choice", [&](const JsonView& view) -> Status {
    choice = ATOM_TRY(read_tool_choice(view));
    return {};
  });
  if (choice.forced && !fields.has("tools")) {
    fields.fail("tool_choice",
                error(ErrorCode::kInvalidArgument, "request: tool_choice: there are no tools"));
  }
  fields.read("tools", [&](const JsonView& view) { return check_tools(view); });
  fields.read("chat_template_kwargs", [&](const JsonView& view) -> Status {
    if (view.is_object()) return {};
    return error(ErrorCode::kInvalidArgument, "{}: expected an object", view.place());
  });
  if (!fields.ok()) return fields.problem();

  // Templates print what they are given in the order in which it was written.
  nlohmann::ordered_json ordered;
  if (auto problem = parse_body(text, ordered)) return problem;
  request.messages = template_messages(std::move(ordered["messages"]));
  if (choice.shown && fields.has("tools")) request.tools = std::move(ordered["tools"]);
  take_schema(ordered, request.shape);
  if (choice.forced) {
    if (!choice.name.empty() && !has_tool(request.tools, choice.name)) {
      return ApiError{
          .message = fmt::format("request: tool_choice: no tool has the name '{}'", choice.name),
          .param = "tool_choice"};
    }
    const Status status = set_shape(OutputShape::Kind::kJsonSchema, "tool_choice", request.shape);
    if (!status.ok()) return api_error(status, "tool_choice");
    request.shape = call_shape(request.tools, choice.name);
  }
  request.template_variables = nlohmann::ordered_json::object();
  if (fields.has("chat_template_kwargs")) {
    request.template_variables = std::move(ordered["chat_template_kwargs"]);
  }
  return std::nullopt;
}

}  // namespace atom
