#include "app/text_side.h"

#include <utility>

namespace atom {

Result<Tokenizer> make_tokenizer(TextAssets assets, std::string_view origin) {
  if (!assets.tokenizer_json.empty()) {
    return Tokenizer::from_json(assets.tokenizer_json, assets.tokenizer_config_json, origin);
  }
  TokenizerData data;
  if (assets.gguf_model == "llama") {
    data.kind = TokenizerData::Kind::kSentencePieceBpe;
  } else if (assets.gguf_model == "gpt2") {
    data.kind = TokenizerData::Kind::kByteLevelBpe;
  } else if (assets.gguf_model.empty()) {
    return error(ErrorCode::kNotFound, "{}: has no tokenizer", origin);
  } else {
    return error(ErrorCode::kUnsupported, "{}: tokenizer.ggml.model '{}' is not supported", origin,
                 assets.gguf_model);
  }
  const bool sentencepiece = data.kind == TokenizerData::Kind::kSentencePieceBpe;
  data.pre_tokenizer = std::move(assets.gguf_pre);
  data.tokens = std::move(assets.tokens);
  data.scores = std::move(assets.scores);
  data.token_types = std::move(assets.token_types);
  data.merges = std::move(assets.merges);
  data.bos_id = assets.bos_id;
  data.eos_id = assets.eos_id;
  data.unk_id = assets.unk_id;
  data.pad_id = assets.pad_id;
  // Files that say nothing mean what the two kinds have always done.
  data.add_bos = assets.add_bos.value_or(sentencepiece);
  data.add_eos = assets.add_eos.value_or(false);
  data.add_space_prefix = assets.add_space_prefix.value_or(true);
  return Tokenizer::from_gguf(std::move(data), origin);
}

}  // namespace atom
