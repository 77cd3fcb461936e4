// What the server does for each path: one function an endpoint, from a parsed HTTP request to its
// answer.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "app/open_model.h"
#include "engine/engine.h"
#include "grammar/constraint.h"
#include "server/generation.h"
#include "server/http_server.h"
#include "server/prompt_encoder.h"

namespace atom {

// One request on its way: what every answer to it needs.
struct ApiCall {
  HttpRequest request = {};
  std::string id = {};                   // x-request-id
  std::vector<HttpHeader> headers = {};  // of the answer
  std::shared_ptr<HttpExchange> exchange = {};
  GenerationDone done = {};  // for the log

  // The whole answer, with the headers added.
  void respond(HttpResponse response) const;
  // The same with an error; done is told.
  void fail(const ApiError& problem) const;
};

class Endpoints {
 public:
  Endpoints(const OpenedModel& model, Engine& engine, std::string model_name,
            std::chrono::milliseconds request_timeout);

  // The answers of these come when the engine has made them.
  void completions(ApiCall call) const;
  void chat_completions(ApiCall call) const;
  // These answer at once.
  HttpResponse tokenize(const HttpRequest& request) const;
  HttpResponse detokenize(const HttpRequest& request) const;
  HttpResponse models() const;

  // A number that no other call gets.
  uint64_t unique_number() const;

 private:
  void run(ApiCall call, GenerationPlan plan) const;
  Result<std::shared_ptr<const TokenConstraint>> constraint_of(const OutputShape& shape) const;
  ModelFacts facts() const { return {.vocab = model_.tokenizer->vocab_size()}; }

  const OpenedModel& model_;
  Engine& engine_;
  const std::string model_name_;
  const std::chrono::milliseconds request_timeout_;
  const PromptEncoder encoder_;
  mutable ConstraintCompiler constraints_;
  const int64_t created_;  // seconds since 1970
  const uint64_t seed_;
  mutable std::atomic<uint64_t> count_{0};
};

}  // namespace atom
