#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace atom {
namespace {

constexpr size_t kMaxPatternBytes = 64 * 1024;
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kDepthLimit = 100'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;

std::string error_text(int code) {
  PCRE2_UCHAR buffer[160];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0) return "unknown error";
  return reinterpret_cast<const char*>(buffer);
}

// What \s and \w mean to tokenizers (White_Space; Alphabetic, marks, decimal digits, connectors
// and, as Oniguruma has it, the fractions and superscripts of Latin-1): PCRE2 adds U+180E to the
// one and leaves marks out of the other. To stand inside brackets.
constexpr std::string_view kSpaceSet =
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"
    "\\x{3000}";
constexpr std::string_view kWordSet =
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

bool compiles(std::string_view pattern) {
  int code = 0;
  size_t offset = 0;
  pcre2_code* regex = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                    PCRE2_UTF | PCRE2_UCP, &code, &offset, nullptr);
  pcre2_code_free(regex);
  return regex != nullptr;
}

// What stands in braces behind \p or \P: for the name of a script, "sc:" in front, because PCRE2
// means the wider set of Script_Extensions where only the name is given.
std::string exact_property(std::string_view name) {
  if (name.find(':') != std::string_view::npos || name.find('=') != std::string_view::npos) {
    return std::string(name);
  }
  const bool negated = name.starts_with('^');
  const std::string script = fmt::format("sc:{}", name.substr(negated ? 1 : 0));
  if (!compiles("\\p{" + script + "}")) return std::string(name);
  return (negated ? "^" : "") + script;
}

// The pattern with these classes, and the word boundary that follows from them, spelled out. \S and
// \W inside brackets stay PCRE2's own.
std::string with_exact_classes(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (in_class && (next == 's' || next == 'w')) {
        out += next == 's' ? kSpaceSet : kWordSet;
      } else if (!in_class && (next == 's' || next == 'S')) {
        out += fmt::format("[{}{}]", next == 's' ? "" : "^", kSpaceSet);
      } else if (!in_class && (next == 'w' || next == 'W')) {
        out += fmt::format("[{}{}]", next == 'w' ? "" : "^", kWordSet);
      } else if (!in_class && next == 'b') {
        out += fmt::format("(?:(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}]))", kWordSet);
      } else if ((next == 'p' || next == 'P') && pattern.substr(i + 1).starts_with('{') &&
                 pattern.find('}', i) != std::string_view::npos) {
        const size_t close = pattern.find('}', i);
        out +=
            fmt::format("\\{}{{{}}}", next, exact_property(pattern.substr(i + 2, close - i - 2)));
        i = close;
      } else {
        out += {c, next};
      }
      continue;
    }
    out += c;
    if (in_class && c == ']') {
      in_class = false;
    } else if (!in_class && c == '[') {
      in_class = true;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') out += pattern[++i];
    }
  }
  return out;
}

}  // namespace

void Regex::FreeCode::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }
void Regex::FreeContext::operator()(pcre2_real_match_context_8* context) const {
  pcre2_match_context_free(context);
}
void Regex::Matcher::FreeMatchData::operator()(pcre2_real_match_data_8* data) const {
  pcre2_match_data_free(data);
}

Result<Regex> Regex::compile(std::string_view pattern, std::string place) {
  if (pattern.size() > kMaxPatternBytes) {
    return error(ErrorCode::kUnsupported, "{}: a pattern of {} bytes, more than the {} allowed",
                 place, pattern.size(), kMaxPatternBytes);
  }
  const std::string exact = with_exact_classes(pattern);
  int code = 0;
  size_t offset = 0;
  Regex regex;
  regex.code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(exact.data()), exact.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset,
                                  nullptr));
  if (regex.code_ == nullptr) {
    return error(ErrorCode::kUnsupported, "{}: cannot use this pattern: {}", place,
                 error_text(code));
  }
  // Without JIT the interpreter does the same more slowly.
  pcre2_jit_compile(regex.code_.get(), PCRE2_JIT_COMPLETE);
  regex.limits_.reset(pcre2_match_context_create(nullptr));
  if (regex.limits_ == nullptr) return error(ErrorCode::kOutOfMemory, "{}: no memory", place);
  pcre2_set_match_limit(regex.limits_.get(), kMatchLimit);
  pcre2_set_depth_limit(regex.limits_.get(), kDepthLimit);
  pcre2_set_heap_limit(regex.limits_.get(), kHeapLimitKib);
  regex.place_ = std::move(place);
  return regex;
}

Regex::Matcher::Matcher(const Regex& regex)
    : regex_(&regex), data_(pcre2_match_data_create_from_pattern(regex.code_.get(), nullptr)) {}

Status Regex::Matcher::find(std::string_view text, size_t from, bool& found, TextSpan& match) {
  found = false;
  if (data_ == nullptr) return error(ErrorCode::kOutOfMemory, "{}: no memory", regex_->place_);
  const auto run = [&](uint32_t options) {
    return pcre2_match(regex_->code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                       from, PCRE2_NO_UTF_CHECK | options, data_.get(), regex_->limits_.get());
  };
  int rc = run(0);
  // The JIT runs on 32 KiB of machine stack; the interpreter takes over where that is too little.
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = run(PCRE2_NO_JIT);
  if (rc == PCRE2_ERROR_NOMATCH) return {};
  if (rc < 0) {
    return error(ErrorCode::kUnsupported, "{}: the pattern fails on this text: {}", regex_->place_,
                 error_text(rc));
  }
  const size_t* bounds = pcre2_get_ovector_pointer(data_.get());
  // \K inside a look-around can put the start behind the end, or before where the search began.
  if (bounds[0] > bounds[1] || bounds[0] < from || bounds[1] > text.size()) {
    return error(ErrorCode::kUnsupported, "{}: the pattern moves its match backwards",
                 regex_->place_);
  }
  found = true;
  match = {bounds[0], bounds[1]};
  return {};
}

}  // namespace atom
