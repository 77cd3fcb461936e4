#include "engine/decoder_runner.h"

#include <utility>
#include <vector>

namespace atom {
namespace {

// What a runner keeps between steps; readbacks: one for each batch that may be on its way.
struct RunnerMemory {
  std::unique_ptr<KvCache> cache;
  std::unique_ptr<Tensor> logits;    // [max_logit_rows, V]
  std::unique_ptr<TokenIds> chosen;  // [max_logit_rows]
  std::vector<std::unique_ptr<StepReadback>> readbacks;
};

// Where the backend is not asynchronous, start() does all the work.
class DecoderRunner : public Runner {
 public:
  DecoderRunner(Decoder& decoder, RunnerMemory memory)
      : decoder_(decoder), memory_(std::move(memory)) {
    const ModelConfig& config = decoder.config();
    const DecoderLimits& limits = decoder.limits();
    limits_ = {.vocab = config.vocab,
               .max_tokens = limits.max_tokens,
               .max_logit_rows = limits.max_logit_rows,
               .pages = memory_.cache->shape().pages,
               .context = limits.positions - decoder.weights().prefix_tokens,
               .prefix_tokens = decoder.weights().prefix_tokens,
               .eos_ids = config.eos_ids,
               .overlaps = decoder.backend().asynchronous()};
  }

  const RunnerLimits& limits() const override { return limits_; }

  Status start(const Batch& batch, int64_t whole_rows) override {
    ATOM_TRY(decoder_.forward(
        batch, *memory_.cache, *memory_.logits,
        {.to = &readback(started_), .whole_rows = whole_rows, .chosen = memory_.chosen.get()}));
    ++started_;
    return {};
  }

  Result<StepOutput> wait() override { return readback(waited_++).wait(); }

 private:
  StepReadback& readback(size_t batch) {
    return *memory_.readbacks[batch % memory_.readbacks.size()];
  }

  Decoder& decoder_;
  RunnerMemory memory_;
  RunnerLimits limits_;
  size_t started_ = 0, waited_ = 0;  // batches
};

}  // namespace

Result<std::unique_ptr<Runner>> make_decoder_runner(Decoder& decoder, int64_t kv_pages) {
  if (kv_pages < 1) {
    return error(ErrorCode::kInvalidArgument, "a KV cache of {} pages: must be 1 or more",
                 kv_pages);
  }
  Backend& backend = decoder.backend();
  const int64_t rows = decoder.limits().max_logit_rows, vocab = decoder.config().vocab;
  RunnerMemory memory = {.cache = ATOM_TRY(decoder.make_cache(kv_pages)),
                         .logits = ATOM_TRY(backend.make_tensor(rows, vocab)),
                         .chosen = ATOM_TRY(backend.make_token_ids(rows)),
                         .readbacks = {}};
  for (int i = 0; i < (backend.asynchronous() ? 2 : 1); ++i) {
    memory.readbacks.push_back(ATOM_TRY(backend.make_readback(rows, vocab)));
  }
  return std::unique_ptr<Runner>(new DecoderRunner(decoder, std::move(memory)));
}

}  // namespace atom
