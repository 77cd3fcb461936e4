#include "server/endpoints.h"

#include <ctime>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "base/random.h"
#include "server/request_fields.h"
#include "server/token_text.h"

namespace atom {
namespace {

using OrderedJson = nlohmann::ordered_json;

HttpResponse json_response(const OrderedJson& body) {
  return {.body = body.dump(-1, ' ', false, OrderedJson::error_handler_t::replace)};
}

uint64_t random_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

int64_t unix_time() { return static_cast<int64_t>(std::time(nullptr)); }

// The names of a chat's tools, in the request's order.
std::vector<std::string> names_of(const OrderedJson& tools) {
  std::vector<std::string> names;
  for (const OrderedJson& tool : tools) {
    names.push_back(tool["function"]["name"].get<std::string>());
  }
  return names;
}

}  // namespace

void ApiCall::respond(HttpResponse response) const {
  response.headers.insert(response.headers.end(), headers.begin(), headers.end());
  exchange->respond(std::move(response));
}

void ApiCall::fail(const ApiError& problem) const {
  respond(error_response(problem));
  done({.status = problem.status, .message = problem.message});
}

Endpoints::Endpoints(const OpenedModel& model, Engine& engine, std::string model_name,
                     std::chrono::milliseconds request_timeout)
    : model_(model),
      engine_(engine),
      model_name_(std::move(model_name)),
      request_timeout_(request_timeout),
      encoder_(model, engine.context()),
      constraints_(*model.tokenizer, model.weights->config.eos_ids),
      created_(unix_time()),
      seed_(random_seed()) {}

uint64_t Endpoints::unique_number() const { return Random(seed_ + count_.fetch_add(1)).next(); }

void Endpoints::run(ApiCall call, GenerationPlan plan) const {
  if (!plan.fields.seeded) plan.fields.sampling.seed = unique_number();
  for (const PromptInput& prompt : plan.prompts) {
    if (const auto problem = encoder_.check_length(prompt.ids, plan.fields.max_tokens)) {
      call.fail(*problem);
      return;
    }
  }
  auto constraint = constraint_of(plan.fields.shape);
  if (!constraint.ok()) {
    ApiError problem = api_error(constraint.status(), plan.fields.shape.param);
    problem.status = 400;
    call.fail(problem);
    return;
  }
  plan.constraint = std::move(constraint).value();
  plan.headers = std::move(call.headers);
  Generation::start(engine_, *model_.tokenizer, std::move(plan), std::move(call.exchange),
                    request_timeout_, std::move(call.done));
}

Result<std::shared_ptr<const TokenConstraint>> Endpoints::constraint_of(
    const OutputShape& shape) const {
  const std::string place = "request: " + shape.param;
  switch (shape.kind) {
    case OutputShape::Kind::kAnyText:
      break;
    case OutputShape::Kind::kJsonObject:
      return constraints_.json_object();
    case OutputShape::Kind::kJsonSchema:
      return constraints_.json_schema(shape.text, place);
    case OutputShape::Kind::kRegex:
      return constraints_.regex(shape.text, place);
    case OutputShape::Kind::kChoice:
      return constraints_.choice(shape.choices, place);
  }
  return std::shared_ptr<const TokenConstraint>();
}

void Endpoints::completions(ApiCall call) const {
  CompletionRequest request;
  if (const auto problem = parse_completion_request(call.request.body, facts(), request)) {
    call.fail(*problem);
    return;
  }
  GenerationPlan plan{.fields = request, .echo = request.echo, .scores_stop = true};
  const bool scored = request.echo && request.logprobs >= 0;
  for (auto& prompt : request.prompts) {
    PromptInput input;
    if (auto* text = std::get_if<std::string>(&prompt)) {
      const auto problem = encoder_.encode_text(*text, /*add_special=*/true, scored, input.ids);
      if (problem) {
        call.fail(*problem);
        return;
      }
      if (request.echo) input.echo = std::move(*text);
    } else {
      auto& ids = std::get<std::vector<int32_t>>(prompt);
      if (request.echo) input.echo = model_.tokenizer->decode(ids, request.skip_special);
      input.ids = encoder_.encode_ids(std::move(ids), scored);
    }
    plan.prompts.push_back(std::move(input));
  }
  plan.format = make_completion_format(
      *model_.tokenizer, {.id = "cmpl-" + call.id, .created = unix_time(), .model = model_name_},
      request.logprobs >= 0, request.include_usage);
  run(std::move(call), std::move(plan));
}

void Endpoints::chat_completions(ApiCall call) const {
  ChatRequest request;
  if (const auto problem = parse_chat_request(call.request.body, facts(), request)) {
    call.fail(*problem);
    return;
  }
  PromptInput input;
  if (const auto problem = encoder_.encode_chat(request, input.ids)) {
    call.fail(*problem);
    return;
  }
  GenerationPlan plan{.fields = request, .tool_names = names_of(request.tools)};
  plan.prompts.push_back(std::move(input));
  plan.format =
      make_chat_format(*model_.tokenizer,
                       {.id = "chatcmpl-" + call.id, .created = unix_time(), .model = model_name_},
                       request.logprobs >= 0, request.include_usage);
  run(std::move(call), std::move(plan));
}

HttpResponse Endpoints::tokenize(const HttpRequest& request) const {
  const Result<Json> body = parse_json(request.body, "request");
  if (!body.ok()) return error_response(api_error(body.status()));
  RequestFields fields(*body);
  bool add_special = true;
  bool with_texts = false;
  fields.boolean("add_special_tokens", add_special);
  fields.boolean("return_token_strs", with_texts);
  std::vector<int32_t> ids;
  if (fields.has("messages")) {
    ChatRequest chat;
    if (auto problem = parse_chat_request(request.body, facts(), chat)) {
      return error_response(*problem);
    }
    if (auto problem = encoder_.encode_chat(chat, ids)) return error_response(*problem);
  } else {
    std::string text;
    fields.require("prompt", [&](const JsonView& view) -> Status {
      text = ATOM_TRY(view.as_string());
      return {};
    });
    if (!fields.ok()) return error_response(*fields.problem());
    // As the tokenizer says it: with the BOS that a prompt of a completion would lose again.
    if (auto problem = encoder_.encode_text(text, add_special, /*scored=*/true, ids)) {
      return error_response(*problem);
    }
  }
  if (!fields.ok()) return error_response(*fields.problem());
  OrderedJson answer{{"count", ids.size()}, {"max_model_len", engine_.context()}, {"tokens", ids}};
  if (with_texts) {
    OrderedJson& texts = answer["token_strs"] = OrderedJson::array();
    for (const int32_t id : ids) texts.push_back(token_text(*model_.tokenizer, id));
  }
  return json_response(answer);
}

HttpResponse Endpoints::detokenize(const HttpRequest& request) const {
  const Result<Json> body = parse_json(request.body, "request");
  if (!body.ok()) return error_response(api_error(body.status()));
  RequestFields fields(*body);
  std::vector<int32_t> ids;
  bool skip_special = false;
  fields.boolean("skip_special_tokens", skip_special);
  fields.require("tokens", [&](const JsonView& view) -> Status {
    ids = ATOM_TRY(read_ids(view, 0, facts().vocab - 1));
    return {};
  });
  if (!fields.ok()) return error_response(*fields.problem());
  return json_response({{"prompt", model_.tokenizer->decode(ids, skip_special)}});
}

HttpResponse Endpoints::models() const {
  const OrderedJson model{{"id", model_name_},
                          {"object", "model"},
                          {"created", created_},
                          {"owned_by", "atom"},
                          {"max_model_len", engine_.context()}};
  return json_response({{"object", "list"}, {"data", OrderedJson::array({model})}});
}

}  // namespace atom
