#include <nlohmann/json.hpp>

#include "text/tokenizer_json.h"

namespace atom {
namespace {

using Ordered = nlohmann::ordered_json;

std::string json_string(std::string_view text) { return Ordered(text).dump(); }

Ordered pattern_json(const std::string& pattern, bool is_regex) {
  return {{is_regex ? "Regex" : "String", pattern}};
}

const char* scheme_name(PrependScheme scheme) {
  switch (scheme) {
    case PrependScheme::kAlways:
      return "always";
    case PrependScheme::kFirst:
      return "first";
    case PrependScheme::kNever:
      return "never";
  }
  return "";
}

const char* behavior_name(SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      return "Removed";
    case SplitBehavior::kIsolated:
      return "Isolated";
    case SplitBehavior::kMergedWithPrevious:
      return "MergedWithPrevious";
    case SplitBehavior::kMergedWithNext:
      return "MergedWithNext";
    case SplitBehavior::kContiguous:
      return "Contiguous";
  }
  return "";
}

Ordered step_json(const NormalizerStep& step) {
  using Kind = NormalizerStep::Kind;
  switch (step.kind) {
    case Kind::kNfc:
      return {{"type", "NFC"}};
    case Kind::kNfd:
      return {{"type", "NFD"}};
    case Kind::kNfkc:
      return {{"type", "NFKC"}};
    case Kind::kNfkd:
      return {{"type", "NFKD"}};
    case Kind::kLowercase:
      return {{"type", "Lowercase"}};
    case Kind::kPrepend:
      return {{"type", "Prepend"}, {"prepend", step.content}};
    case Kind::kReplace:
      return {{"type", "Replace"},
              {"pattern", pattern_json(step.pattern, step.is_regex)},
              {"content", step.content}};
    case Kind::kStrip:
      return {
          {"type", "Strip"}, {"strip_left", step.strip_left}, {"strip_right", step.strip_right}};
  }
  return nullptr;
}

Ordered step_json(const PreTokenizerStep& step) {
  using Kind = PreTokenizerStep::Kind;
  switch (step.kind) {
    case Kind::kByteLevel:
      return {{"type", "ByteLevel"},
              {"add_prefix_space", step.add_prefix_space},
              {"trim_offsets", true},
              {"use_regex", step.use_regex}};
    case Kind::kSplit:
      return {{"type", "Split"},
              {"pattern", pattern_json(step.pattern, step.is_regex)},
              {"behavior", behavior_name(step.behavior)},
              {"invert", step.invert}};
    case Kind::kDigits:
      return {{"type", "Digits"}, {"individual_digits", step.individual_digits}};
    case Kind::kMetaspace:
      return {{"type", "Metaspace"},
              {"replacement", step.replacement},
              {"prepend_scheme", scheme_name(step.prepend_scheme)},
              {"split", step.split}};
    case Kind::kWhitespace:
      return {{"type", "Whitespace"}};
    case Kind::kWhitespaceSplit:
      return {{"type", "WhitespaceSplit"}};
    case Kind::kPunctuation:
      return {{"type", "Punctuation"}, {"behavior", behavior_name(step.behavior)}};
    case Kind::kCharDelimiterSplit:
      return {{"type", "CharDelimiterSplit"}, {"delimiter", step.pattern}};
  }
  return nullptr;
}

Ordered step_json(const DecoderStep& step) {
  using Kind = DecoderStep::Kind;
  switch (step.kind) {
    case Kind::kByteLevel:
      return {{"type", "ByteLevel"},
              {"add_prefix_space", true},
              {"trim_offsets", true},
              {"use_regex", true}};
    case Kind::kByteFallback:
      return {{"type", "ByteFallback"}};
    case Kind::kFuse:
      return {{"type", "Fuse"}};
    case Kind::kReplace:
      return {{"type", "Replace"},
              {"pattern", pattern_json(step.pattern, false)},
              {"content", step.content}};
    case Kind::kStrip:
      return {{"type", "Strip"}, {"content", step.pattern}, {"start", step.start}, {"stop", 0}};
    case Kind::kMetaspace:
      return {{"type", "Metaspace"},
              {"replacement", step.pattern},
              {"prepend_scheme", scheme_name(step.prepend_scheme)},
              {"split", true}};
  }
  return nullptr;
}

template <class Step>
std::string steps_json(const std::vector<Step>& steps, const char* list) {
  if (steps.empty()) return "null";
  if (steps.size() == 1) return step_json(steps[0]).dump();
  Ordered all = Ordered::array();
  for (const Step& step : steps) all.push_back(step_json(step));
  return Ordered({{"type", "Sequence"}, {list, all}}).dump();
}

std::string_view token_name(const TokenizerSpec& spec, int32_t id) {
  for (const AddedToken& token : spec.added_tokens) {
    if (token.id == id) return token.content;
  }
  const auto& tokens = spec.model.tokens;
  return id >= 0 && static_cast<size_t>(id) < tokens.size() ? tokens[static_cast<size_t>(id)]
                                                            : std::string_view();
}

std::string post_processor_json(const TokenizerSpec& spec) {
  if (spec.prefix_ids.empty() && spec.suffix_ids.empty()) return "null";
  Ordered single = Ordered::array();
  Ordered pair = Ordered::array();
  Ordered tokens = Ordered::object();
  const auto add_special = [&](Ordered& list, int32_t id, int type_id) {
    const std::string name(token_name(spec, id));
    list.push_back({{"SpecialToken", {{"id", name}, {"type_id", type_id}}}});
    tokens[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
  };
  const auto add_text = [&](Ordered& list, const char* name, int type_id) {
    for (const int32_t id : spec.prefix_ids) add_special(list, id, type_id);
    list.push_back({{"Sequence", {{"id", name}, {"type_id", type_id}}}});
    for (const int32_t id : spec.suffix_ids) add_special(list, id, type_id);
  };
  add_text(single, "A", 0);
  add_text(pair, "A", 0);
  add_text(pair, "B", 1);
  return Ordered({{"type", "TemplateProcessing"},
                  {"single", single},
                  {"pair", pair},
                  {"special_tokens", tokens}})
      .dump();
}

std::string model_json(const BpeSpec& bpe) {
  const auto flag = [](bool on) { return on ? "true" : "false"; };
  std::string out = fmt::format(
      R"({{"type":"BPE","dropout":null,"unk_token":{},"continuing_subword_prefix":null,)"
      R"("end_of_word_suffix":null,"fuse_unk":{},"byte_fallback":{},"ignore_merges":{},)",
      bpe.unk_id < 0 ? "null" : json_string(bpe.tokens[static_cast<size_t>(bpe.unk_id)]),
      flag(bpe.fuse_unk), flag(bpe.byte_fallback), flag(bpe.ignore_merges));
  out += "\n\"vocab\":{";
  bool first = true;
  for (size_t id = 0; id < bpe.tokens.size(); ++id) {
    if (bpe.tokens[id].empty()) continue;
    out += first ? "\n" : ",\n";
    out += json_string(bpe.tokens[id]) + ":" + std::to_string(id);
    first = false;
  }
  out += "},\n\"merges\":[";
  first = true;
  for (const Merge& merge : bpe.merges) {
    const std::string& left = bpe.tokens[static_cast<size_t>(merge.left)];
    const std::string& right = bpe.tokens[static_cast<size_t>(merge.right)];
    out += first ? "\n" : ",\n";
    first = false;
    // One string is what every version of the library reads, but it cannot say a blank.
    if (left.find(' ') == std::string::npos && right.find(' ') == std::string::npos) {
      out += json_string(left + " " + right);
    } else {
      out += "[" + json_string(left) + "," + json_string(right) + "]";
    }
  }
  return out + "]}";
}

}  // namespace

std::string write_tokenizer_json(const TokenizerSpec& spec) {
  std::string out =
      "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n\"added_tokens\":[";
  for (size_t i = 0; i < spec.added_tokens.size(); ++i) {
    const AddedToken& token = spec.added_tokens[i];
    out += i == 0 ? "\n" : ",\n";
    out += Ordered({{"id", token.id},
                    {"content", token.content},
                    {"single_word", token.single_word},
                    {"lstrip", token.lstrip},
                    {"rstrip", token.rstrip},
                    {"normalized", token.normalized},
                    {"special", token.special}})
               .dump();
  }
  out += "],\n\"normalizer\":" + steps_json(spec.normalizer, "normalizers");
  out += ",\n\"pre_tokenizer\":" + steps_json(spec.pre_tokenizer, "pretokenizers");
  out += ",\n\"post_processor\":" + post_processor_json(spec);
  out += ",\n\"decoder\":" + steps_json(spec.decoder, "decoders");
  out += ",\n\"model\":" + model_json(spec.model) + "}\n";
  return out;
}

std::string write_tokenizer_config_json(const TokenizerSpec& spec) {
  Ordered config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                    {"clean_up_tokenization_spaces", false}};
  const auto add = [&](const char* key, int32_t id) {
    if (id >= 0) config[key] = token_name(spec, id);
  };
  add("bos_token", spec.bos_id);
  add("eos_token", spec.eos_id);
  add("unk_token", spec.unk_id);
  add("pad_token", spec.pad_id);
  return config.dump(2) + "\n";
}

}  // namespace atom
