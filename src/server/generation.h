// One completion or chat on its way through the engine: prompts in, text out, whole or streamed.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "server/answer_format.h"
#include "server/choice_text.h"
#include "server/generation_request.h"
#include "server/http_server.h"
#include "server/tool_calls.h"

namespace atom {

struct PromptInput {
  std::vector<int32_t> ids = {};
  std::string echo = {};  // its text, where the answer repeats it
};

// All that a generation is made of.
struct GenerationPlan {
  GenerationFields fields = {};
  std::vector<PromptInput> prompts = {};
  bool echo = false;
  bool scores_stop = false;  // log-probabilities include that of the token that ended an output
  std::shared_ptr<const TokenConstraint> constraint = {};
  std::vector<std::string> tool_names = {};  // that the output may call
  std::unique_ptr<AnswerFormat> format = {};
  std::vector<HttpHeader> headers = {};  // of the answer
};

// How a generation went, for log and metrics.
struct GenerationReport {
  int status = 200;  // of HTTP; 499: the client left before the end
  std::string finish =
      {};  // of the first output that failed, else of the first: "stop", "length", ...
  std::string message = {};  // of an error
  RequestEnd end = {};       // sums over the prompts, the first's arrival and the last's end
};

// Told once, on any thread, when nothing more will come.
using GenerationDone = std::function<void(const GenerationReport&)>;

// The engine's thread turns tokens into text and finds stop strings, so that an output ends exactly
// there; the connection's thread makes JSON of it. Between them stands mutex_, and pieces that come
// faster than they can be sent go out together.
class Generation : public std::enable_shared_from_this<Generation> {
 public:
  // Submits the prompts and answers on exchange, with an error if they are not accepted. Called on
  // the exchange's thread. time_limit: 0 for none. Engine and tokenizer must outlive the engine's
  // requests.
  static void start(Engine& engine, const Tokenizer& tokenizer, GenerationPlan plan,
                    std::shared_ptr<HttpExchange> exchange, std::chrono::milliseconds time_limit,
                    GenerationDone done);

 private:
  class Sink;
  struct Output {
    ChoiceText text;
    std::optional<ToolCallParser> tools = {};
    int64_t calls_sent = 0;
    bool opened = false;  // its first chunk was sent
    bool dirty = false;   // is in dirty_
    std::optional<ChoiceEnd> end = {};
    bool closed = false;  // its last chunk was sent
  };
  struct Prompt {
    IncrementalDetokenizer detokenizer;
    int64_t offset = 0;  // characters so far
    std::vector<PlacedToken> tokens = {};
  };

  Generation(Engine& engine, const Tokenizer& tokenizer, GenerationPlan plan,
             std::shared_ptr<HttpExchange> exchange, GenerationDone done);
  bool submit_all();
  Request engine_request(const PromptInput& prompt) const;
  void cancel_all();
  void on_time_limit(std::chrono::milliseconds limit);

  // On the engine's thread.
  void on_prompt(size_t prompt, std::span<const ScoredToken> tokens);
  bool on_token(size_t output, const ScoredToken& token);
  void on_choice_end(size_t output, const ChoiceEnd& end);
  void on_end(const RequestEnd& end);
  void add_to_report(const RequestEnd& end);  // under the lock
  void conclude_report();                     // under the lock
  void schedule(size_t output);
  void schedule_flush();

  // On the connection's thread.
  void flush();
  void flush_stream();
  void send_news(size_t output);
  void end_stream();
  void answer_whole();
  AnswerPart take_part(size_t output);
  std::vector<size_t> best_outputs(size_t prompt) const;
  std::optional<ApiError> failure() const;
  Usage usage() const;
  void write_event(std::string_view data);
  size_t outputs_per_prompt() const { return static_cast<size_t>(plan_.fields.best_of); }

  Engine& engine_;
  const Tokenizer& tokenizer_;
  const GenerationPlan plan_;
  const std::shared_ptr<HttpExchange> exchange_;
  GenerationDone done_;
  std::vector<RequestId> ids_;  // used on the connection's thread
  bool finished_ = false;       // the answer has ended; used on the connection's thread

  mutable std::mutex mutex_;
  std::vector<Prompt> prompts_;
  std::vector<Output> outputs_;  // prompt by prompt
  std::deque<size_t> dirty_;     // outputs with something to send
  bool flush_scheduled_ = false;
  std::string stopped_by_;    // why the server cancelled all, if it did
  int64_t open_prompts_ = 0;  // whose on_end has not come
  GenerationReport report_;
};

}  // namespace atom
