#include "text/tokenizer_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "base/json.h"
#include "text/unicode.h"

namespace atom {
namespace {

constexpr int kMaxNesting = 8;
constexpr size_t kMaxSteps = 64;

Status unsupported(const JsonView& view, std::string_view what) {
  return error(ErrorCode::kUnsupported, "{}: {} is not supported", view.place(), what);
}

// Calls add(step) for a step, or for each step of (nested) Sequences, whose members are called
// `list`. A null value has no steps.
template <class Add>
class Steps {
 public:
  Steps(std::string_view list, const Add& add) : list_(list), add_(add) {}

  Status visit(const JsonView& value, int depth = 0) {
    if (value.is_null()) return {};
    const std::string type = ATOM_TRY(value.get_string("type"));
    if (type != "Sequence") {
      if (++count_ > kMaxSteps) return unsupported(value, "a sequence this long");
      return add_(value, type);
    }
    if (depth >= kMaxNesting) return unsupported(value, "nesting this deep");
    const JsonView steps = ATOM_TRY(value.at(list_));
    if (!steps.is_array()) {
      return error(ErrorCode::kCorrupt, "{}: expected an array", steps.place());
    }
    for (size_t i = 0; i < steps.size(); ++i) {
      if (Status s = visit(ATOM_TRY(steps.at(i)), depth + 1); !s.ok()) return s;
    }
    return {};
  }

 private:
  std::string_view list_;
  const Add& add_;
  size_t count_ = 0;
};

// Does so for a member of the document, if it is there.
template <class Add>
Status for_each_step(const JsonView& root, std::string_view key, std::string_view list,
                     const Add& add) {
  return root.has(key) ? Steps<Add>(list, add).visit(ATOM_TRY(root.at(key))) : Status();
}

// A field of type String (as {"String": "x"} or {"Regex": "x"}).
Status read_pattern(const JsonView& step, std::string& pattern, bool& is_regex) {
  const JsonView field = ATOM_TRY(step.at("pattern"));
  is_regex = field.has("Regex");
  pattern = ATOM_TRY(field.get_string(is_regex ? "Regex" : "String"));
  return {};
}

// A string that is exactly one character.
Result<std::string> get_char(const JsonView& step, std::string_view key) {
  std::string text = ATOM_TRY(step.get_string(key));
  if (!text.empty() && utf8_step(text.data(), text.data() + text.size()).length == text.size()) {
    return text;
  }
  return error(ErrorCode::kCorrupt, "{}: '{}' is not one character", step.place(), key);
}

Result<PrependScheme> get_prepend_scheme(const JsonView& step) {
  if (!step.has("prepend_scheme")) {  // how older files say it
    return ATOM_TRY(step.get_bool("add_prefix_space", true)) ? PrependScheme::kAlways
                                                             : PrependScheme::kNever;
  }
  const std::string scheme = ATOM_TRY(step.get_string("prepend_scheme"));
  if (scheme == "always") return PrependScheme::kAlways;
  if (scheme == "first") return PrependScheme::kFirst;
  if (scheme == "never") return PrependScheme::kNever;
  return unsupported(step, fmt::format("prepend_scheme '{}'", scheme));
}

Result<SplitBehavior> get_behavior(const JsonView& step) {
  const std::string name = ATOM_TRY(step.get_string("behavior"));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return unsupported(step, fmt::format("behavior '{}'", name));
}

Result<NormalizerStep> read_normalizer(const JsonView& step, const std::string& type) {
  using Kind = NormalizerStep::Kind;
  NormalizerStep out;
  if (type == "NFC") {
    out.kind = Kind::kNfc;
  } else if (type == "NFD") {
    out.kind = Kind::kNfd;
  } else if (type == "NFKC") {
    out.kind = Kind::kNfkc;
  } else if (type == "NFKD") {
    out.kind = Kind::kNfkd;
  } else if (type == "Lowercase") {
    out.kind = Kind::kLowercase;
  } else if (type == "Prepend") {
    out.kind = Kind::kPrepend;
    out.content = ATOM_TRY(step.get_string("prepend"));
  } else if (type == "Replace") {
    out.kind = Kind::kReplace;
    if (Status s = read_pattern(step, out.pattern, out.is_regex); !s.ok()) return s;
    out.content = ATOM_TRY(step.get_string("content"));
  } else if (type == "Strip") {
    out.kind = Kind::kStrip;
    out.strip_left = ATOM_TRY(step.get_bool("strip_left", true));
    out.strip_right = ATOM_TRY(step.get_bool("strip_right", true));
  } else {
    return unsupported(step, fmt::format("normalizer '{}'", type));
  }
  return out;
}

Result<PreTokenizerStep> read_pre_tokenizer(const JsonView& step, const std::string& type) {
  using Kind = PreTokenizerStep::Kind;
  PreTokenizerStep out;
  if (type == "ByteLevel") {
    out.kind = Kind::kByteLevel;
    out.add_prefix_space = ATOM_TRY(step.get_bool("add_prefix_space", true));
    out.use_regex = ATOM_TRY(step.get_bool("use_regex", true));
  } else if (type == "Split") {
    out.kind = Kind::kSplit;
    if (Status s = read_pattern(step, out.pattern, out.is_regex); !s.ok()) return s;
    out.behavior = ATOM_TRY(get_behavior(step));
    out.invert = ATOM_TRY(step.get_bool("invert", false));
  } else if (type == "Digits") {
    out.kind = Kind::kDigits;
    out.individual_digits = ATOM_TRY(step.get_bool("individual_digits", false));
  } else if (type == "Metaspace") {
    out.kind = Kind::kMetaspace;
    out.replacement = ATOM_TRY(get_char(step, "replacement"));
    out.prepend_scheme = ATOM_TRY(get_prepend_scheme(step));
    out.split = ATOM_TRY(step.get_bool("split", true));
  } else if (type == "Whitespace") {
    out.kind = Kind::kWhitespace;
  } else if (type == "WhitespaceSplit") {
    out.kind = Kind::kWhitespaceSplit;
  } else if (type == "Punctuation") {
    out.kind = Kind::kPunctuation;
    if (step.has("behavior")) out.behavior = ATOM_TRY(get_behavior(step));
  } else if (type == "CharDelimiterSplit") {
    out.kind = Kind::kCharDelimiterSplit;
    out.pattern = ATOM_TRY(get_char(step, "delimiter"));
  } else {
    return unsupported(step, fmt::format("pre_tokenizer '{}'", type));
  }
  return out;
}

Result<DecoderStep> read_decoder(const JsonView& step, const std::string& type) {
  using Kind = DecoderStep::Kind;
  DecoderStep out;
  if (type == "ByteLevel") {
    out.kind = Kind::kByteLevel;
  } else if (type == "ByteFallback") {
    out.kind = Kind::kByteFallback;
  } else if (type == "Fuse") {
    out.kind = Kind::kFuse;
  } else if (type == "Replace") {
    out.kind = Kind::kReplace;
    bool is_regex = false;
    if (Status s = read_pattern(step, out.pattern, is_regex); !s.ok()) return s;
    if (is_regex) return unsupported(step, "a regular expression here");
    out.content = ATOM_TRY(step.get_string("content"));
  } else if (type == "Strip") {
    out.kind = Kind::kStrip;
    out.pattern = ATOM_TRY(get_char(step, "content"));
    out.start = static_cast<int32_t>(ATOM_TRY(step.get_int("start", 0, 1 << 20)));
    if (ATOM_TRY(step.get_int("stop", 0, INT64_MAX)) != 0) return unsupported(step, "'stop'");
  } else if (type == "Metaspace") {
    out.kind = Kind::kMetaspace;
    out.pattern = ATOM_TRY(get_char(step, "replacement"));
    out.prepend_scheme = ATOM_TRY(get_prepend_scheme(step));
  } else {
    return unsupported(step, fmt::format("decoder '{}'", type));
  }
  return out;
}

using TokenIds = std::unordered_map<std::string_view, int32_t>;

Status read_vocab(const JsonView& model, size_t added_count, BpeSpec& bpe, TokenIds& ids) {
  const JsonView vocab = ATOM_TRY(model.at("vocab"));
  if (!vocab.is_object()) {
    return error(ErrorCode::kCorrupt, "{}: expected an object", vocab.place());
  }
  // Real vocabularies have few holes; a single huge id must not make us allocate.
  const auto limit = static_cast<int64_t>(4 * (vocab.size() + added_count) + 1024);
  for (const auto& [token, value] : vocab.json().items()) {
    if (!value.is_number_integer() || value.get<int64_t>() < 0 ||
        value.get<int64_t>() > std::min<int64_t>(limit, kMaxTokenId)) {
      return error(ErrorCode::kCorrupt, "{}: '{}' has no usable id: {}", vocab.place(), token,
                   value.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 40));
    }
    const auto id = static_cast<size_t>(value.get<int64_t>());
    if (id >= bpe.tokens.size()) bpe.tokens.resize(id + 1);
    if (!bpe.tokens[id].empty()) {
      return error(ErrorCode::kCorrupt, "{}: '{}' and '{}' have the same id {}", vocab.place(),
                   bpe.tokens[id], token, id);
    }
    bpe.tokens[id] = token;
  }
  for (size_t id = 0; id < bpe.tokens.size(); ++id) {
    if (!bpe.tokens[id].empty()) ids.emplace(bpe.tokens[id], static_cast<int32_t>(id));
  }
  return {};
}

Status read_merges(const JsonView& model, BpeSpec& bpe, const TokenIds& ids) {
  const JsonView merges = ATOM_TRY(model.at("merges"));
  if (!merges.is_array()) {
    return error(ErrorCode::kCorrupt, "{}: expected an array", merges.place());
  }
  bpe.merges.reserve(merges.size());
  std::string joined;
  for (size_t i = 0; i < merges.size(); ++i) {
    const Json& merge = merges.json()[i];
    std::string_view left;
    std::string_view right;
    if (merge.is_string()) {
      const std::string_view text = merge.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;
      const size_t blank = text.find(' ');
      if (blank != std::string_view::npos && text.find(' ', blank + 1) == std::string_view::npos) {
        left = text.substr(0, blank);
        right = text.substr(blank + 1);
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    }
    if (left.empty() || right.empty()) {
      return error(ErrorCode::kCorrupt, "{}[{}]: not a pair of tokens", merges.place(), i);
    }
    joined.assign(left).append(right);
    Merge out;
    for (const auto& [token, id] : {std::pair<std::string_view, int32_t*>{left, &out.left},
                                    {right, &out.right},
                                    {joined, &out.result}}) {
      const auto found = ids.find(token);
      if (found == ids.end()) {
        return error(ErrorCode::kCorrupt, "{}[{}]: '{}' is not in the vocabulary", merges.place(),
                     i, token);
      }
      *id = found->second;
    }
    bpe.merges.push_back(out);
  }
  return {};
}

Status read_model(const JsonView& model, size_t added_count, BpeSpec& bpe, TokenIds& ids) {
  const std::string type = ATOM_TRY(model.get_string("type", "BPE"));
  if (type != "BPE") return unsupported(model, fmt::format("type '{}'", type));
  if (ATOM_TRY(model.get_number("dropout", 0.0)) != 0.0) return unsupported(model, "'dropout'");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!ATOM_TRY(model.get_string(key, "")).empty()) {
      return unsupported(model, fmt::format("'{}'", key));
    }
  }
  if (Status s = read_vocab(model, added_count, bpe, ids); !s.ok()) return s;
  if (Status s = read_merges(model, bpe, ids); !s.ok()) return s;
  bpe.fuse_unk = ATOM_TRY(model.get_bool("fuse_unk", false));
  bpe.byte_fallback = ATOM_TRY(model.get_bool("byte_fallback", false));
  bpe.ignore_merges = ATOM_TRY(model.get_bool("ignore_merges", false));
  const std::string unk = ATOM_TRY(model.get_string("unk_token", ""));
  if (unk.empty()) return {};
  const auto found = ids.find(unk);
  if (found == ids.end()) {
    return error(ErrorCode::kCorrupt, "{}: unk_token '{}' is not in the vocabulary", model.place(),
                 unk);
  }
  bpe.unk_id = found->second;
  return {};
}

Status read_added_tokens(const JsonView& root, TokenizerSpec& spec, TokenIds& ids) {
  if (!root.has("added_tokens")) return {};
  const JsonView list = ATOM_TRY(root.at("added_tokens"));
  const auto limit = static_cast<int64_t>(4 * (spec.model.tokens.size() + list.size()) + 1024);
  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonView entry = ATOM_TRY(list.at(i));
    AddedToken token;
    token.content = ATOM_TRY(entry.get_string("content"));
    token.id = static_cast<int32_t>(
        ATOM_TRY(entry.get_int("id", 0, std::min<int64_t>(limit, kMaxTokenId))));
    token.special = ATOM_TRY(entry.get_bool("special", false));
    token.lstrip = ATOM_TRY(entry.get_bool("lstrip", false));
    token.rstrip = ATOM_TRY(entry.get_bool("rstrip", false));
    token.single_word = ATOM_TRY(entry.get_bool("single_word", false));
    token.normalized = ATOM_TRY(entry.get_bool("normalized", !token.special));
    if (!token.content.empty()) tokens.push_back(std::move(token));
  }
  spec.added_tokens.reserve(tokens.size());  // ids points into it
  std::unordered_set<int32_t> seen;
  for (AddedToken& token : tokens) {
    const auto found = ids.find(token.content);
    if (found != ids.end()) token.id = found->second;  // the vocabulary knows better
    if (found != ids.end() && !seen.insert(token.id).second) continue;
    seen.insert(token.id);
    spec.added_tokens.push_back(std::move(token));
    ids.emplace(spec.added_tokens.back().content, spec.added_tokens.back().id);
  }
  return {};
}

// The ids that a post-processor puts around a single text.
Status read_post_processor(const JsonView& step, const std::string& type, TokenizerSpec& spec) {
  if (type == "ByteLevel") return {};  // concerns offsets only
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  if (type == "TemplateProcessing") {
    const JsonView single = ATOM_TRY(step.at("single"));
    bool after = false;
    for (size_t i = 0; i < single.size(); ++i) {
      const JsonView part = ATOM_TRY(single.at(i));
      if (part.has("Sequence")) {
        if (after) return unsupported(single, "a text that occurs twice");
        after = true;
        continue;
      }
      const std::string name = ATOM_TRY(ATOM_TRY(part.at("SpecialToken")).get_string("id"));
      const JsonView list =
          ATOM_TRY(ATOM_TRY(ATOM_TRY(step.at("special_tokens")).at(name)).at("ids"));
      for (size_t j = 0; j < list.size(); ++j) {
        (after ? suffix : prefix)
            .push_back(static_cast<int32_t>(ATOM_TRY(ATOM_TRY(list.at(j)).as_int(0, kMaxTokenId))));
      }
    }
    if (!after) return unsupported(single, "a template without the text");
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    for (const char* key : {"cls", "sep"}) {
      const JsonView pair = ATOM_TRY(step.at(key));  // [text, id]
      const auto id = ATOM_TRY(ATOM_TRY(pair.at(1)).as_int(0, kMaxTokenId));
      (key[0] == 'c' ? prefix : suffix).push_back(static_cast<int32_t>(id));
    }
  } else {
    return unsupported(step, fmt::format("post_processor '{}'", type));
  }
  spec.prefix_ids.insert(spec.prefix_ids.begin(), prefix.begin(), prefix.end());
  spec.suffix_ids.insert(spec.suffix_ids.end(), suffix.begin(), suffix.end());
  return {};
}

// The id of a token that tokenizer_config.json names, as a string or as an object; else -1.
Result<int32_t> named_token(const JsonView& config, std::string_view key, const TokenIds& ids) {
  if (!config.has(key)) return -1;
  const JsonView field = ATOM_TRY(config.at(key));
  const std::string text =
      field.is_object() ? ATOM_TRY(field.get_string("content")) : ATOM_TRY(field.as_string());
  const auto found = ids.find(text);
  return found == ids.end() ? -1 : found->second;
}

Status read_config(std::string_view text, std::string_view origin, const TokenIds& ids,
                   TokenizerSpec& spec) {
  const std::string place = fmt::format("{} (tokenizer_config.json)", origin);
  const Json parsed = ATOM_TRY(parse_json(text, place));
  const JsonView config(parsed, place);
  if (!config.is_object()) return error(ErrorCode::kCorrupt, "{}: not a JSON object", place);
  spec.bos_id = ATOM_TRY(named_token(config, "bos_token", ids));
  spec.eos_id = ATOM_TRY(named_token(config, "eos_token", ids));
  spec.unk_id = ATOM_TRY(named_token(config, "unk_token", ids));
  spec.pad_id = ATOM_TRY(named_token(config, "pad_token", ids));
  return {};
}

}  // namespace

Result<TokenizerSpec> parse_tokenizer_json(std::string_view tokenizer_json,
                                           std::string_view tokenizer_config_json,
                                           std::string_view origin) {
  const Json parsed = ATOM_TRY(parse_json(tokenizer_json, origin));
  const JsonView root(parsed, std::string(origin));
  if (!root.is_object()) return error(ErrorCode::kCorrupt, "{}: not a JSON object", origin);
  TokenizerSpec spec;
  TokenIds ids;
  const size_t added_count =
      root.has("added_tokens") ? ATOM_TRY(root.at("added_tokens")).size() : 0;
  if (Status s = read_model(ATOM_TRY(root.at("model")), added_count, spec.model, ids); !s.ok()) {
    return s;
  }
  if (Status s = read_added_tokens(root, spec, ids); !s.ok()) return s;

  const auto add_normalizer = [&](const JsonView& step, const std::string& type) -> Status {
    spec.normalizer.push_back(ATOM_TRY(read_normalizer(step, type)));
    return {};
  };
  const auto add_pre_tokenizer = [&](const JsonView& step, const std::string& type) -> Status {
    if (spec.byte_level()) return unsupported(step, "a step behind ByteLevel");
    spec.pre_tokenizer.push_back(ATOM_TRY(read_pre_tokenizer(step, type)));
    return {};
  };
  const auto add_decoder = [&](const JsonView& step, const std::string& type) -> Status {
    spec.decoder.push_back(ATOM_TRY(read_decoder(step, type)));
    return {};
  };
  const auto add_post_processor = [&](const JsonView& step, const std::string& type) {
    return read_post_processor(step, type, spec);
  };
  if (Status s = for_each_step(root, "normalizer", "normalizers", add_normalizer); !s.ok()) {
    return s;
  }
  if (Status s = for_each_step(root, "pre_tokenizer", "pretokenizers", add_pre_tokenizer);
      !s.ok()) {
    return s;
  }
  if (Status s = for_each_step(root, "decoder", "decoders", add_decoder); !s.ok()) return s;
  if (Status s = for_each_step(root, "post_processor", "processors", add_post_processor); !s.ok()) {
    return s;
  }
  if (spec.prefix_ids.size() + spec.suffix_ids.size() > kMaxSteps) {
    return error(ErrorCode::kUnsupported, "{}: post_processor: more than {} tokens", origin,
                 kMaxSteps);
  }
  if (tokenizer_config_json.empty()) {
    if (!spec.prefix_ids.empty()) spec.bos_id = spec.prefix_ids.front();
    spec.unk_id = spec.model.unk_id;
  } else if (Status s = read_config(tokenizer_config_json, origin, ids, spec); !s.ok()) {
    return s;
  }
  return spec;
}

}  // namespace atom
