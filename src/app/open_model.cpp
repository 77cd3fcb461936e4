#include "app/open_model.h"

#include <algorithm>
#include <utility>

#include "app/device.h"
#include "app/float_storage.h"
#include "app/text_side.h"
#include "io/checkpoint.h"
#include "io/model_source.h"
#include "model/checkpoint_model.h"
#include "model/float_loader.h"

namespace atom {
namespace {

Status add_text_side(TextAssets assets, const ModelConfig& config, OpenedModel& model) {
  model.chat_template = std::move(assets.chat_template);
  model.tokenizer =
      std::make_unique<const Tokenizer>(ATOM_TRY(make_tokenizer(std::move(assets), model.origin)));
  if (model.tokenizer->vocab_size() > config.vocab) {
    return error(ErrorCode::kCorrupt, "{}: the tokenizer has {} ids, the model {}", model.origin,
                 model.tokenizer->vocab_size(), config.vocab);
  }
  return {};
}

}  // namespace

std::vector<int32_t> without_prefix(std::vector<int32_t> prompt, std::span<const int32_t> prefix) {
  if (prompt.size() > prefix.size() && std::equal(prefix.begin(), prefix.end(), prompt.begin())) {
    prompt.erase(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(prefix.size()));
  }
  return prompt;
}

Result<OpenedModel> open_model(const std::filesystem::path& path, std::string_view device) {
  OpenedModel model;
  model.origin = path.string();
  model.backend = ATOM_TRY(make_backend(device));
  std::shared_ptr<DecoderWeights> weights;
  if (Checkpoint::is_checkpoint(path)) {
    const Checkpoint checkpoint = ATOM_TRY(Checkpoint::open(path));
    ATOM_TRY(add_text_side(ATOM_TRY(checkpoint.text_assets()), checkpoint.meta().config, model));
    model.prefix_tokens = checkpoint.meta().prefix_tokens;
    weights = std::make_shared<DecoderWeights>(
        ATOM_TRY(load_checkpoint_model(*model.backend, checkpoint)));
  } else {
    const std::unique_ptr<ModelSource> source = ATOM_TRY(open_model_source(path));
    ATOM_TRY(add_text_side(ATOM_TRY(source->text_assets()), source->config(), model));
    const DType storage = ATOM_TRY(exact_storage(*source));
    weights = std::make_shared<DecoderWeights>(
        ATOM_TRY(load_float_model(*model.backend, *source, storage, KvFormat{})));
  }
  std::vector<int32_t>& eos_ids = weights->config.eos_ids;
  for (const int32_t id : model.tokenizer->end_of_generation_ids()) {
    if (std::find(eos_ids.begin(), eos_ids.end(), id) == eos_ids.end()) eos_ids.push_back(id);
  }
  model.weights = std::move(weights);
  return model;
}

}  // namespace atom
