// A TokenizerSpec from GGUF metadata: what tokenizer.json would say about the same model.
#include <algorithm>
#include <array>
#include <unordered_map>

#include "text/scanners.h"
#include "text/tokenizer.h"
#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace atom {
namespace {

using PreKind = PreTokenizerStep::Kind;
using TokenIds = std::unordered_map<std::string_view, int32_t>;

enum TokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kByte = 6 };

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581, sentencepiece's blank

constexpr std::string_view kGpt4oPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

enum class Family : uint8_t { kGpt2, kSmolLm, kLlama3, kQwen2, kGpt4o, kTekken };
struct NamedFamily {
  std::string_view pre;
  Family family;
  bool ignore_merges = false;
};
// tokenizer.ggml.pre as converters write it. An absent name is an old file of a GPT-2-like model.
constexpr std::array kFamilies = {
    NamedFamily{"", Family::kGpt2},
    NamedFamily{"default", Family::kGpt2},
    NamedFamily{"gpt-2", Family::kGpt2},
    NamedFamily{"phi-2", Family::kGpt2},
    NamedFamily{"mpt", Family::kGpt2},
    NamedFamily{"olmo", Family::kGpt2},
    NamedFamily{"smollm", Family::kSmolLm},
    NamedFamily{"starcoder", Family::kSmolLm},
    NamedFamily{"refact", Family::kSmolLm},
    NamedFamily{"llama-bpe", Family::kLlama3, true},
    NamedFamily{"llama3", Family::kLlama3, true},
    NamedFamily{"llama-v3", Family::kLlama3, true},
    NamedFamily{"dbrx", Family::kLlama3},
    NamedFamily{"smaug-bpe", Family::kLlama3},
    NamedFamily{"qwen2", Family::kQwen2},
    NamedFamily{"deepseek-r1-qwen", Family::kQwen2},
    NamedFamily{"gpt-4o", Family::kGpt4o},
    NamedFamily{"llama4", Family::kGpt4o},
    NamedFamily{"tekken", Family::kTekken, true},
};

Status check_sizes(const TokenizerData& data, std::string_view origin) {
  const size_t count = data.tokens.size();
  if (count == 0 || count > static_cast<size_t>(kMaxTokenId)) {
    return error(ErrorCode::kCorrupt, "{}: tokenizer.ggml.tokens has {} entries", origin, count);
  }
  if (!data.scores.empty() && data.scores.size() != count) {
    return error(ErrorCode::kCorrupt, "{}: tokenizer.ggml.scores has {} entries for {} tokens",
                 origin, data.scores.size(), count);
  }
  if (!data.token_types.empty() && data.token_types.size() != count) {
    return error(ErrorCode::kCorrupt, "{}: tokenizer.ggml.token_type has {} entries for {} tokens",
                 origin, data.token_types.size(), count);
  }
  for (size_t id = 0; id < count; ++id) {
    if (!is_valid_utf8(data.tokens[id])) {
      return error(ErrorCode::kCorrupt, "{}: tokenizer.ggml.tokens[{}] is not UTF-8", origin, id);
    }
  }
  return {};
}

Status set_pre_tokenizer(const TokenizerData& data, std::string_view origin, TokenizerSpec& spec) {
  const auto* named = std::find_if(kFamilies.begin(), kFamilies.end(), [&](const NamedFamily& f) {
    return f.pre == data.pre_tokenizer;
  });
  if (named == kFamilies.end()) {
    return error(ErrorCode::kUnsupported, "{}: tokenizer.ggml.pre '{}' is not supported", origin,
                 data.pre_tokenizer);
  }
  spec.model.ignore_merges = named->ignore_merges;
  PreTokenizerStep bytes;
  bytes.kind = PreKind::kByteLevel;
  bytes.use_regex = false;
  PreTokenizerStep split;
  split.kind = PreKind::kSplit;
  split.is_regex = true;
  switch (named->family) {
    case Family::kSmolLm:
      split.kind = PreKind::kDigits;
      split.is_regex = false;
      split.individual_digits = true;
      spec.pre_tokenizer.push_back(split);
      [[fallthrough]];
    case Family::kGpt2:
      bytes.use_regex = true;
      spec.pre_tokenizer.push_back(bytes);
      return {};
    case Family::kLlama3:
      split.pattern = scanner_pattern(ScannerKind::kLlama3);
      break;
    case Family::kQwen2: {
      split.pattern = scanner_pattern(ScannerKind::kQwen2);
      NormalizerStep nfc;
      nfc.kind = NormalizerStep::Kind::kNfc;
      spec.normalizer.push_back(nfc);
      break;
    }
    case Family::kGpt4o:
      split.pattern = kGpt4oPattern;
      break;
    case Family::kTekken:
      split.pattern = kTekkenPattern;
      break;
  }
  spec.pre_tokenizer.push_back(split);
  spec.pre_tokenizer.push_back(bytes);
  return {};
}

Status read_merges(const TokenizerData& data, const TokenIds& ids, std::string_view origin,
                   BpeSpec& bpe) {
  bpe.merges.reserve(data.merges.size());
  std::string joined;
  for (size_t i = 0; i < data.merges.size(); ++i) {
    const std::string_view text = data.merges[i];
    // A token may hold a blank, even begin with one: the first blank behind its first byte.
    const size_t blank = text.find(' ', 1);
    if (text.empty() || blank == std::string_view::npos || blank + 1 == text.size()) {
      return error(ErrorCode::kCorrupt, "{}: tokenizer.ggml.merges[{}] is not a pair of tokens",
                   origin, i);
    }
    joined.assign(text.substr(0, blank)).append(text.substr(blank + 1));
    Merge merge;
    for (const auto& [token, id] :
         {std::pair<std::string_view, int32_t*>{text.substr(0, blank), &merge.left},
          {text.substr(blank + 1), &merge.right},
          {joined, &merge.result}}) {
      const auto found = ids.find(token);
      if (found == ids.end()) {
        return error(ErrorCode::kCorrupt,
                     "{}: tokenizer.ggml.merges[{}]: '{}' is not in the vocabulary", origin, i,
                     token);
      }
      *id = found->second;
    }
    bpe.merges.push_back(merge);
  }
  return {};
}

// Sentencepiece joins the neighbours whose union scores best: as merges, every way to cut a token
// into two others, ordered by the score of the whole.
void derive_merges(const TokenizerData& data, const TokenIds& ids, BpeSpec& bpe) {
  struct Scored {
    Merge merge;
    float score;
    size_t left_chars;
  };
  std::vector<Scored> all;
  for (const auto& [token, id] : ids) {
    const char* begin = token.data();
    const char* end = begin + token.size();
    size_t chars = 0;
    for (const char* p = begin; p < end; ++chars) {
      if (p != begin) {
        const auto left = ids.find({begin, static_cast<size_t>(p - begin)});
        const auto right = ids.find({p, static_cast<size_t>(end - p)});
        if (left != ids.end() && right != ids.end()) {
          all.push_back(
              {{left->second, right->second, id}, data.scores[static_cast<size_t>(id)], chars});
        }
      }
      p += utf8_step(p, end).length;
    }
  }
  std::sort(all.begin(), all.end(), [](const Scored& a, const Scored& b) {
    if (a.score != b.score) return a.score > b.score;
    if (a.merge.result != b.merge.result) return a.merge.result < b.merge.result;
    return a.left_chars > b.left_chars;
  });
  for (const Scored& scored : all) bpe.merges.push_back(scored.merge);
}

Status set_sentencepiece(const TokenizerData& data, std::string_view origin, TokenizerSpec& spec) {
  if (data.scores.empty()) {
    return error(ErrorCode::kNotFound, "{}: tokenizer.ggml.scores is missing", origin);
  }
  for (size_t id = 0; id < data.scores.size(); ++id) {
    if (!(data.scores[id] == data.scores[id])) {
      return error(ErrorCode::kCorrupt, "{}: tokenizer.ggml.scores[{}] is not a number", origin,
                   id);
    }
  }
  NormalizerStep prepend;
  prepend.kind = NormalizerStep::Kind::kPrepend;
  prepend.content = kSpaceMark;
  if (data.add_space_prefix) spec.normalizer.push_back(prepend);
  NormalizerStep replace;
  replace.kind = NormalizerStep::Kind::kReplace;
  replace.pattern = " ";
  replace.content = kSpaceMark;
  spec.normalizer.push_back(replace);

  DecoderStep step;
  step.kind = DecoderStep::Kind::kReplace;
  step.pattern = kSpaceMark;
  step.content = " ";
  spec.decoder.push_back(step);
  step = {};
  step.kind = DecoderStep::Kind::kByteFallback;
  spec.decoder.push_back(step);
  step.kind = DecoderStep::Kind::kFuse;
  spec.decoder.push_back(step);
  if (data.add_space_prefix) {
    step.kind = DecoderStep::Kind::kStrip;
    step.pattern = " ";
    step.start = 1;
    spec.decoder.push_back(step);
  }
  spec.model.byte_fallback = true;
  spec.model.fuse_unk = true;
  spec.model.unk_id = data.unk_id;
  return {};
}

Result<TokenizerSpec> make_spec(TokenizerData data, std::string_view origin) {
  if (Status s = check_sizes(data, origin); !s.ok()) return s;
  const auto count = static_cast<int32_t>(data.tokens.size());
  const bool sentencepiece = data.kind == TokenizerData::Kind::kSentencePieceBpe;
  for (const auto& [name, id] : {std::pair{"bos", data.bos_id}, std::pair{"eos", data.eos_id},
                                 std::pair{"unk", data.unk_id}, std::pair{"pad", data.pad_id}}) {
    if (id < -1 || id >= count) {
      return error(ErrorCode::kCorrupt, "{}: the {} token {} is not among the {} tokens", origin,
                   name, id, count);
    }
  }
  TokenizerSpec spec;
  TokenIds mergeable;  // texts that merges may name
  const auto type_of = [&](int32_t id) {
    return data.token_types.empty() ? int32_t{kNormal} : data.token_types[static_cast<size_t>(id)];
  };
  for (int32_t id = 0; id < count; ++id) {
    const std::string& token = data.tokens[static_cast<size_t>(id)];
    const int32_t type = type_of(id);
    if (type == kControl || type == kUserDefined || (sentencepiece && type == kUnknown)) {
      if (token.empty()) continue;
      AddedToken added;
      added.id = id;
      added.content = token;
      added.special = type != kUserDefined;
      spec.added_tokens.push_back(std::move(added));
      if (sentencepiece) continue;
    }
    if (!token.empty() && type != kByte) mergeable.emplace(token, id);
  }
  if (sentencepiece) {
    if (Status s = set_sentencepiece(data, origin, spec); !s.ok()) return s;
    derive_merges(data, mergeable, spec.model);
  } else {
    if (Status s = set_pre_tokenizer(data, origin, spec); !s.ok()) return s;
    if (Status s = read_merges(data, mergeable, origin, spec.model); !s.ok()) return s;
    spec.decoder.emplace_back();  // ByteLevel
  }
  spec.bos_id = data.bos_id;
  spec.eos_id = data.eos_id;
  spec.unk_id = data.unk_id;
  spec.pad_id = data.pad_id;
  spec.end_of_generation_ids = std::move(data.end_of_generation_ids);
  if (data.add_bos && data.bos_id >= 0) spec.prefix_ids.push_back(data.bos_id);
  if (data.add_eos && data.eos_id >= 0) spec.suffix_ids.push_back(data.eos_id);
  mergeable.clear();  // its keys point into data
  spec.model.tokens = std::move(data.tokens);
  return spec;
}

}  // namespace

Result<Tokenizer> Tokenizer::from_gguf(TokenizerData data, std::string_view origin) {
  return from_spec(make_spec(std::move(data), origin), origin);
}

}  // namespace atom
