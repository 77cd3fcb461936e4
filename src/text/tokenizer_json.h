// tokenizer.json and tokenizer_config.json to and from a TokenizerSpec.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "text/tokenizer_spec.h"

namespace atom {

Result<TokenizerSpec> parse_tokenizer_json(std::string_view tokenizer_json,
                                           std::string_view tokenizer_config_json,
                                           std::string_view origin);
std::string write_tokenizer_json(const TokenizerSpec& spec);
std::string write_tokenizer_config_json(const TokenizerSpec& spec);

}  // namespace atom
