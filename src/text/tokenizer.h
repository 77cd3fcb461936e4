// Text to token ids and back: byte-pair encoding as Llama-family models use it, read from Hugging
// Face's tokenizer.json or from GGUF metadata.
//
// Input may hold bytes that are no UTF-8. A byte-level vocabulary keeps them exactly, as symbols; a
// character vocabulary writes them as byte tokens <0xNN> where it has these, else as the unknown
// token.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace atom {

struct TokenizerSpec;
class TokenDecoder;

// A GGUF file's tokenizer.ggml.* metadata; the reader of the file fills it, so that this room need
// not know the format.
struct TokenizerData {
  enum class Kind : uint8_t {
    kByteLevelBpe,      // tokenizer.ggml.model "gpt2"
    kSentencePieceBpe,  // "llama"
  };
  Kind kind = Kind::kByteLevelBpe;
  std::string pre_tokenizer;         // tokenizer.ggml.pre; byte level only
  std::vector<std::string> tokens;   // by id
  std::vector<float> scores;         // as many as tokens, or none; sentencepiece needs them
  std::vector<int32_t> token_types;  // as many as tokens, or none: 1 normal, 2 unknown, 3 control,
                                     // 4 user-defined, 5 unused, 6 byte
  std::vector<std::string> merges;   // "left right", by rank; byte level needs them
  int32_t bos_id = -1;               // -1: none
  int32_t eos_id = -1;
  int32_t unk_id = -1;
  int32_t pad_id = -1;
  std::vector<int32_t> end_of_generation_ids;  // beyond eos_id, e.g. tokenizer.ggml.eot_token_id
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = true;  // sentencepiece only
};

class Tokenizer {
 public:
  // origin names the file in messages.
  static Result<Tokenizer> from_gguf(TokenizerData data, std::string_view origin);
  // tokenizer_json and tokenizer_config_json are the texts of the two files of a Hugging Face
  // folder; the second may be empty (then there is no eos). Truncation and padding settings are
  // ignored. Anything else that cannot be done exactly is an error (kUnsupported).
  static Result<Tokenizer> from_json(std::string_view tokenizer_json,
                                     std::string_view tokenizer_config_json,
                                     std::string_view origin);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // The ids of a text. add_special: put around it what the model's post-processor says, such as
  // BOS. parse_special: special tokens written out in the text count as these tokens; otherwise
  // they are plain text. Thread-safe. Fails only for a text of 1 GiB or more, or where a regular
  // expression of the model exceeds its limits on this text.
  Result<std::vector<int32_t>> encode(std::string_view text, bool add_special,
                                      bool parse_special) const;

  // The text of ids as the `tokenizers` library gives it, always valid UTF-8: U+FFFD stands for
  // what is not. skip_special leaves special tokens out; ids that name no token are ignored. There
  // is no clean-up of spaces before punctuation. One difference: in a run of byte tokens <0xNN>
  // that is not UTF-8 as a whole, the characters that are whole are kept.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;
  // The same before invalid UTF-8 is replaced: for a byte-level vocabulary that has all bytes,
  // exactly the bytes that were encoded.
  std::string decode_bytes(std::span<const int32_t> ids, bool skip_special) const;

  // One more than the highest id; ids between may be unused.
  int32_t vocab_size() const;
  // The token as the vocabulary spells it ("Ġthe", "▁the", "<0x0A>"); empty for an unused id.
  std::string_view piece(int32_t id) const;
  // The bytes that a token stands for anywhere but at the start of a text (" the").
  std::string_view token_bytes(int32_t id) const;
  // The id of a token spelled as piece() does, or -1.
  int32_t token_to_id(std::string_view token) const;

  int32_t bos_id() const;  // -1: none
  int32_t eos_id() const;
  int32_t unk_id() const;
  int32_t pad_id() const;
  bool adds_bos() const;  // add_special puts bos_id() in front
  bool is_special(int32_t id) const;
  // Whether generation stops at this token: eos, and the other ends of turns or texts that the
  // vocabulary is known for.
  bool is_end_of_generation(int32_t id) const;
  std::vector<int32_t> end_of_generation_ids() const;

  // A tokenizer.json that from_json and the `tokenizers` library read back to the same behaviour.
  std::string to_json() const;
  // The tokenizer_config.json that belongs to it: the names of bos, eos, unk and pad.
  std::string to_config_json() const;

 private:
  friend class IncrementalDetokenizer;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  static Result<Tokenizer> from_spec(Result<TokenizerSpec> spec, std::string_view origin);
  static Result<Tokenizer> build(TokenizerSpec spec, std::string_view origin);
  const TokenDecoder& decoder() const;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace atom
