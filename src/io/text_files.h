// The text side of a Hugging Face folder: tokenizer.json, tokenizer_config.json, chat template.
#pragma once

#include <filesystem>
#include <string>

#include "io/model_source.h"

namespace atom {

// Reads the files that are there. The chat template is chat_template.jinja if that exists, else
// tokenizer_config.json's chat_template: a string, or the one named "default" of a list.
Result<TextAssets> read_text_files(const std::filesystem::path& folder);

// The chat template inside a tokenizer_config.json; empty if it has none.
Result<std::string> chat_template_of(const std::string& tokenizer_config,
                                     const std::string& origin);

}  // namespace atom
