// A hostile tokenizer.json: either a one-line error, or a tokenizer that keeps its promises.
#include <cstdint>
#include <cstdlib>

#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const atom::Result<atom::Tokenizer> loaded = atom::Tokenizer::from_json(json, "", "fuzz");
  if (!loaded.ok()) {
    require(loaded.status().message().find('\n') == std::string::npos);
    return 0;
  }
  const atom::Tokenizer& tokenizer = loaded.value();
  const atom::Result<atom::Tokenizer> again =
      atom::Tokenizer::from_json(tokenizer.to_json(), tokenizer.to_config_json(), "written");
  require(again.ok());
  for (const std::string_view text :
       {std::string_view("Hello world's 123  \n\t<s>aaaaaaaa bbbb</s>"),
        std::string_view("\xc3\xa9\xe4\xb8\xad \xf0\x9f\x98\x80 \xff\xc3 e\xcc\x81\xcc\xa3 x"),
        std::string_view("<|endoftext|> \xe2\x96\x81 <0x41>,;--//")}) {
    const auto ids = tokenizer.encode(text, true, true);
    const auto same = again.value().encode(text, true, true);
    require(ids.ok() == same.ok());
    if (!ids.ok()) continue;
    require(ids.value() == same.value());
    const std::string decoded = tokenizer.decode(ids.value(), false);
    atom::IncrementalDetokenizer detokenizer(tokenizer, false);
    std::string pieces;
    for (const int32_t id : ids.value()) {
      require(id >= 0 && id < tokenizer.vocab_size());
      pieces += detokenizer.push(id);
    }
    require(pieces + detokenizer.finish() == decoded);
  }
  return 0;
}
