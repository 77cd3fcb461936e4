// What a tokenizer consists of, free of the file that said so: both loaders fill this description,
// Tokenizer is built from it, and to_json() writes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace atom {

// Above any real vocabulary; keeps what a hostile file can make us allocate small.
inline constexpr int32_t kMaxTokenId = (1 << 22) - 1;

struct NormalizerStep {
  enum class Kind : uint8_t { kNfc, kNfd, kNfkc, kNfkd, kLowercase, kPrepend, kReplace, kStrip };
  Kind kind = Kind::kNfc;
  std::string pattern;  // kReplace
  bool is_regex = false;
  std::string content;  // kPrepend, kReplace
  bool strip_left = true;
  bool strip_right = true;
};

enum class SplitBehavior : uint8_t {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous
};
enum class PrependScheme : uint8_t { kAlways, kFirst, kNever };

struct PreTokenizerStep {
  enum class Kind : uint8_t {
    kByteLevel,
    kSplit,
    kDigits,
    kMetaspace,
    kWhitespace,
    kWhitespaceSplit,
    kPunctuation,
    kCharDelimiterSplit
  };
  Kind kind = Kind::kByteLevel;
  std::string pattern;  // kSplit, kCharDelimiterSplit
  bool is_regex = false;
  SplitBehavior behavior = SplitBehavior::kIsolated;  // kSplit, kPunctuation
  bool invert = false;
  bool add_prefix_space = false;  // kByteLevel
  bool use_regex = true;
  bool individual_digits = false;  // kDigits
  std::string replacement;         // kMetaspace
  PrependScheme prepend_scheme = PrependScheme::kAlways;
  bool split = true;
};

struct DecoderStep {
  enum class Kind : uint8_t { kByteLevel, kByteFallback, kFuse, kReplace, kStrip, kMetaspace };
  Kind kind = Kind::kByteLevel;
  std::string pattern;  // kReplace (a literal), kMetaspace's replacement, kStrip's character
  std::string content;  // kReplace
  int32_t start = 0;    // kStrip: how many characters to drop at most in front
  PrependScheme prepend_scheme = PrependScheme::kAlways;
};

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;
  bool lstrip = false;
  bool rstrip = false;
  bool single_word = false;
  bool normalized = false;
};

// Two tokens that become one; earlier merges go first.
struct Merge {
  int32_t left = -1;
  int32_t right = -1;
  int32_t result = -1;
};

struct BpeSpec {
  std::vector<std::string> tokens;  // by id, as the file spells them; "" where an id is unused
  std::vector<Merge> merges;
  int32_t unk_id = -1;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
};

struct TokenizerSpec {
  BpeSpec model;
  std::vector<AddedToken> added_tokens;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  std::vector<DecoderStep> decoder;
  std::vector<int32_t> prefix_ids;  // what add_special puts around a text
  std::vector<int32_t> suffix_ids;
  int32_t bos_id = -1;
  int32_t eos_id = -1;
  int32_t unk_id = -1;
  int32_t pad_id = -1;
  std::vector<int32_t> end_of_generation_ids;  // beyond eos_id

  // Token strings stand for bytes by GPT-2's table.
  bool byte_level() const {
    return !pre_tokenizer.empty() &&
           pre_tokenizer.back().kind == PreTokenizerStep::Kind::kByteLevel;
  }
};

}  // namespace atom
