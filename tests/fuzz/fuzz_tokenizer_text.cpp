// Any bytes as text, through one tokenizer of each kind: ids are in range, byte-level vocabularies
// give the bytes back, and incremental decoding equals decoding at once.
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <vector>

#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

struct Case {
  atom::Tokenizer tokenizer;
  bool exact;  // no normalization and all bytes in the vocabulary
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> result;
    for (const auto& [name, exact] :
         {std::pair{"gpt2", true}, std::pair{"llama3", true}, std::pair{"qwen2", false},
          std::pair{"gpt4o", true}, std::pair{"llama2", false}, std::pair{"characters", false},
          std::pair{"mixed", false}, std::pair{"words", false}}) {
      std::ifstream file(std::string(ATOM_TEST_DATA) + "/text/" + name + ".json");
      std::stringstream json;
      json << file.rdbuf();
      result.push_back({atom::Tokenizer::from_json(json.str(), "", name).value(), exact});
    }
    return result;
  }();
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const Case& c : cases()) {
    const std::vector<int32_t> ids = c.tokenizer.encode(text, false, true).value();
    for (const int32_t id : ids) require(id >= 0 && id < c.tokenizer.vocab_size());
    if (c.exact) require(c.tokenizer.decode_bytes(ids, false) == text);
    const std::string decoded = c.tokenizer.decode(ids, false);
    require(atom::is_valid_utf8(decoded));
    atom::IncrementalDetokenizer detokenizer(c.tokenizer, false);
    std::string pieces;
    for (const int32_t id : ids) {
      pieces += detokenizer.push(id);
      require(atom::is_valid_utf8(pieces));
    }
    require(pieces + detokenizer.finish() == decoded);
  }
  return 0;
}
