#include "engine/generator.h"

#include <utility>

#include "base/interrupt.h"
#include "engine/decoder_runner.h"

namespace atom {
namespace {

class GenerationSink : public RequestSink {
 public:
  explicit GenerationSink(const std::function<bool(int32_t)>& on_token) : on_token_(on_token) {}

  bool on_token(int, const ScoredToken& token) override {
    generation.tokens.push_back(token.token);
    return on_token_(token.token);
  }
  void on_choice_end(int, const ChoiceEnd& end) override {
    generation.finish = end.reason;
    status = end.status;
  }
  void on_end(const RequestEnd& end) override {
    generation.prompt_tokens = end.prompt_tokens;
    generation.reused_tokens = end.cached_tokens;
    // A stop id that comes first is a choice too, though no token.
    const auto first = end.generated_tokens > 0 ? end.first_token : end.finished;
    generation.prefill_seconds = seconds_between(end.arrival, first);
    generation.decode_seconds = seconds_between(first, end.finished);
  }

  Generation generation;
  Status status;

 private:
  const std::function<bool(int32_t)>& on_token_;
};

}  // namespace

Result<std::unique_ptr<Generator>> Generator::create(Decoder& decoder, int64_t context) {
  const int64_t room = decoder.limits().positions - decoder.weights().prefix_tokens;
  if (context < 1 || context > room) {
    return error(ErrorCode::kInvalidArgument, "a context of {} tokens is not within 1..{}", context,
                 room);
  }
  auto runner = ATOM_TRY(make_decoder_runner(decoder, pages_for(context)));
  auto core = ATOM_TRY(EngineCore::create(
      std::move(runner),
      {.max_sequences = 1, .max_batch_tokens = decoder.limits().max_tokens, .context = context}));
  return std::unique_ptr<Generator>(new Generator(std::move(core)));
}

Result<Generation> Generator::generate(std::span<const int32_t> prompt,
                                       const GenerateOptions& options,
                                       const std::function<bool(int32_t)>& on_token) {
  const auto sink = std::make_shared<GenerationSink>(on_token);
  Request request = {.prompt = {prompt.begin(), prompt.end()},
                     .sampling = options.sampling,
                     .max_tokens = options.max_tokens,
                     .ignore_eos = options.ignore_eos,
                     .constraint = options.constraint,
                     .sink = sink};
  ATOM_TRY(core_->validate(request));
  core_->add(++last_id_, std::move(request), EngineClock::now());
  while (core_->step()) {
    const Status interrupted = check_interrupted();
    if (interrupted.ok()) continue;
    core_->cancel_all();
    core_->step();
    return interrupted;
  }
  ATOM_TRY(sink->status);
  return std::move(sink->generation);
}

}  // namespace atom
