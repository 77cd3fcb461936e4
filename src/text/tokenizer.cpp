#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <deque>
#include <unordered_map>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace atom {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;

// Special tokens that end a turn or a text in the models we know; a chat model often stops at
// another one than its eos.
constexpr std::array<std::string_view, 12> kEndTokens = {
    "</s>",       "<|endoftext|>", "<|end_of_text|>",
    "<|eot_id|>", "<|eom_id|>",    "<|im_end|>",
    "<|end|>",    "<end_of_turn>", "<|end_of_turn|>",
    "<|eot|>",    "<EOT>",         "<｜end▁of▁sentence｜>"};

class BpeSink : public PieceSink {
 public:
  explicit BpeSink(BpeModel::Run& run) : run_(run) {}
  void piece(std::string_view text) override { run_.encode(text); }

 private:
  BpeModel::Run& run_;
};

}  // namespace

struct Tokenizer::Impl {
  TokenizerSpec spec;
  BpeModel model;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  TokenDecoder decoder;
  AddedTokenMatcher raw_tokens;                             // looked for in the text as it comes
  AddedTokenMatcher normalized_tokens;                      // looked for after normalization
  std::unordered_map<std::string_view, int32_t> added_ids;  // into spec.added_tokens
  std::vector<std::string> names;                           // by id, added tokens included
  std::vector<bool> special;
  std::vector<int32_t> end_ids;  // sorted
};

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::from_json(std::string_view tokenizer_json,
                                       std::string_view tokenizer_config_json,
                                       std::string_view origin) {
  return from_spec(parse_tokenizer_json(tokenizer_json, tokenizer_config_json, origin), origin);
}

Result<Tokenizer> Tokenizer::from_spec(Result<TokenizerSpec> spec, std::string_view origin) {
  Result<Tokenizer> result =
      spec.ok() ? build(std::move(spec).value(), origin) : Result<Tokenizer>(spec.status());
  if (result.ok()) return result;
  // Messages quote tokens and patterns, which may hold anything.
  return Status(result.status().code(), one_line(result.status().message()));
}

Result<Tokenizer> Tokenizer::build(TokenizerSpec spec, std::string_view origin) {
  auto impl = std::make_unique<Impl>();
  impl->spec = std::move(spec);
  const TokenizerSpec& s = impl->spec;
  impl->model = ATOM_TRY(BpeModel::create(s.model, s.byte_level(), origin));
  impl->normalizer = ATOM_TRY(Normalizer::create(s.normalizer, origin));
  impl->pre_tokenizer = ATOM_TRY(PreTokenizer::create(s.pre_tokenizer, origin));

  impl->names = s.model.tokens;
  std::vector<std::pair<size_t, std::string>> normalized_names;
  for (const AddedToken& token : s.added_tokens) {
    if (token.content.size() > kMaxAddedTokenBytes) {
      return error(ErrorCode::kUnsupported,
                   "{}: added token {} has {} bytes, more than the {} allowed", origin, token.id,
                   token.content.size(), kMaxAddedTokenBytes);
    }
    const auto id = static_cast<size_t>(token.id);
    if (id >= impl->names.size()) impl->names.resize(id + 1);
    if (!impl->names[id].empty() && impl->names[id] != token.content) {
      return error(ErrorCode::kCorrupt, "{}: added token '{}' takes the id {} of '{}'", origin,
                   token.content, token.id, impl->names[id]);
    }
    impl->names[id] = token.content;
    impl->added_ids.emplace(token.content, token.id);
    if (token.normalized && !impl->normalizer.empty()) {
      const std::string text = ATOM_TRY(impl->normalizer.apply(token.content));
      impl->normalized_tokens.add(token, text);
      normalized_names.emplace_back(id, text);
    } else {
      (token.normalized ? impl->normalized_tokens : impl->raw_tokens).add(token, token.content);
    }
  }
  impl->special.resize(impl->names.size());
  for (const AddedToken& token : s.added_tokens) {
    impl->special[static_cast<size_t>(token.id)] = token.special;
  }
  // A token that is looked for in normalized text decodes to what was found.
  std::vector<std::string> decoded_names = impl->names;
  for (auto& [id, text] : normalized_names) decoded_names[id] = std::move(text);
  impl->decoder = ATOM_TRY(TokenDecoder::create(s.decoder, decoded_names, origin));

  const auto count = static_cast<int32_t>(impl->names.size());
  const auto check = [&](const char* what, int32_t id) -> Status {
    if (id == -1) return {};
    if (id >= 0 && id < count && !impl->names[static_cast<size_t>(id)].empty()) return {};
    return error(ErrorCode::kCorrupt, "{}: {} {} is not in the vocabulary of {} tokens", origin,
                 what, id, count);
  };
  for (const auto* list : {&s.prefix_ids, &s.suffix_ids, &s.end_of_generation_ids}) {
    for (const int32_t id : *list) {
      if (Status bad = check("special id", id); !bad.ok()) return bad;
    }
  }
  if (Status bad = check("bos id", s.bos_id); !bad.ok()) return bad;
  if (Status bad = check("eos id", s.eos_id); !bad.ok()) return bad;
  if (Status bad = check("unk id", s.unk_id); !bad.ok()) return bad;
  if (Status bad = check("pad id", s.pad_id); !bad.ok()) return bad;
  impl->end_ids = s.end_of_generation_ids;
  impl->end_ids.push_back(s.eos_id);
  for (const AddedToken& token : s.added_tokens) {
    if (token.special &&
        std::find(kEndTokens.begin(), kEndTokens.end(), token.content) != kEndTokens.end()) {
      impl->end_ids.push_back(token.id);
    }
  }
  std::sort(impl->end_ids.begin(), impl->end_ids.end());
  impl->end_ids.erase(std::unique(impl->end_ids.begin(), impl->end_ids.end()), impl->end_ids.end());
  std::erase(impl->end_ids, -1);
  return Tokenizer(std::move(impl));
}

Result<std::vector<int32_t>> Tokenizer::encode(std::string_view text, bool add_special,
                                               bool parse_special) const {
  if (text.size() >= kMaxTextBytes) {
    return error(ErrorCode::kInvalidArgument, "a text of {} bytes is too long to tokenize",
                 text.size());
  }
  const Impl& impl = *impl_;
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  if (add_special) ids = impl.spec.prefix_ids;

  std::deque<std::string> normalized;  // pieces point into these to the end
  BpeModel::Run bpe(impl.model, text.size(), ids);
  BpeSink sink(bpe);
  PreTokenizer::Run pre_tokenizer(impl.pre_tokenizer, sink);
  for (const AddedTokenMatcher::Part& part : impl.raw_tokens.split(text, parse_special)) {
    if (part.token != nullptr) {
      ids.push_back(part.token->id);
      continue;
    }
    std::string_view segment = text.substr(part.begin, part.end - part.begin);
    if (!impl.normalizer.empty()) {
      segment = normalized.emplace_back(ATOM_TRY(impl.normalizer.apply(segment)));
    }
    for (const AddedTokenMatcher::Part& inner :
         impl.normalized_tokens.split(segment, parse_special)) {
      if (inner.token != nullptr) {
        ids.push_back(inner.token->id);
        continue;
      }
      const bool at_start = part.begin == 0 && inner.begin == 0;
      if (Status s =
              pre_tokenizer.split(segment.substr(inner.begin, inner.end - inner.begin), at_start);
          !s.ok()) {
        return s;
      }
    }
  }
  if (add_special) {
    ids.insert(ids.end(), impl.spec.suffix_ids.begin(), impl.spec.suffix_ids.end());
  }
  return ids;
}

std::string Tokenizer::decode_bytes(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  TokenDecoder::Start start = impl_->decoder.start();
  for (const int32_t id : ids) {
    if (skip_special && is_special(id)) continue;
    impl_->decoder.append(id, start, bytes);
  }
  return bytes;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string text;
  append_lossy(text, decode_bytes(ids, skip_special), impl_->decoder.invalid_policy());
  return text;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->names.size()); }

std::string_view Tokenizer::piece(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return impl_->names[static_cast<size_t>(id)];
}

std::string_view Tokenizer::token_bytes(int32_t id) const { return impl_->decoder.bytes(id); }

int32_t Tokenizer::token_to_id(std::string_view token) const {
  const auto added = impl_->added_ids.find(token);
  return added != impl_->added_ids.end() ? added->second : impl_->model.token_to_id(token);
}

int32_t Tokenizer::bos_id() const { return impl_->spec.bos_id; }
int32_t Tokenizer::eos_id() const { return impl_->spec.eos_id; }
int32_t Tokenizer::unk_id() const { return impl_->spec.unk_id; }
int32_t Tokenizer::pad_id() const { return impl_->spec.pad_id; }

bool Tokenizer::adds_bos() const {
  const auto& prefix = impl_->spec.prefix_ids;
  return bos_id() >= 0 && std::find(prefix.begin(), prefix.end(), bos_id()) != prefix.end();
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && impl_->special[static_cast<size_t>(id)];
}

bool Tokenizer::is_end_of_generation(int32_t id) const {
  return std::binary_search(impl_->end_ids.begin(), impl_->end_ids.end(), id);
}

std::vector<int32_t> Tokenizer::end_of_generation_ids() const { return impl_->end_ids; }

std::string Tokenizer::to_json() const { return write_tokenizer_json(impl_->spec); }
std::string Tokenizer::to_config_json() const { return write_tokenizer_config_json(impl_->spec); }

const TokenDecoder& Tokenizer::decoder() const { return impl_->decoder; }

}  // namespace atom
