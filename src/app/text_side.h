// The text side of a model: what io found in its files, made into a tokenizer and a chat template.
#pragma once

#include <string_view>

#include "base/status.h"
#include "io/model_source.h"
#include "text/tokenizer.h"

namespace atom {

// From tokenizer.json where there is one, else from GGUF metadata. Fails where there is neither;
// origin names the model in messages.
Result<Tokenizer> make_tokenizer(TextAssets assets, std::string_view origin);

}  // namespace atom
