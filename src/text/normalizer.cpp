#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/unicode.h"

namespace atom {
namespace {

using Kind = NormalizerStep::Kind;

// Normalizes one stretch of characters. Sorting marks by stable_sort rather than by utf8proc's own
// exchange sort keeps a long run of marks from costing quadratic time.
void normalize_stretch(std::vector<utf8proc_int32_t>& codes, Kind kind, std::string& out) {
  const bool compose = kind == Kind::kNfc || kind == Kind::kNfkc;
  const bool compat = kind == Kind::kNfkc || kind == Kind::kNfkd;
  const auto decompose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                        (compat ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> parts;
  parts.reserve(codes.size() + codes.size() / 2 + 32);
  for (const utf8proc_int32_t code : codes) {
    utf8proc_int32_t buffer[32];
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(code, buffer, 32, decompose, &boundary);
    if (count < 0 || count > 32) {
      parts.push_back(code);
    } else {
      parts.insert(parts.end(), buffer, buffer + count);
    }
  }
  const auto combining = [](utf8proc_int32_t code) {
    return utf8proc_get_property(code)->combining_class;
  };
  for (size_t i = 0; i < parts.size();) {
    if (combining(parts[i]) == 0) {
      ++i;
      continue;
    }
    size_t j = i;
    while (j < parts.size() && combining(parts[j]) != 0) ++j;
    std::stable_sort(parts.begin() + static_cast<ptrdiff_t>(i),
                     parts.begin() + static_cast<ptrdiff_t>(j),
                     [&](auto a, auto b) { return combining(a) < combining(b); });
    i = j;
  }
  auto count = static_cast<utf8proc_ssize_t>(parts.size());
  if (compose) {
    count = utf8proc_normalize_utf32(
        parts.data(), count, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  }
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    append_utf8(out, static_cast<char32_t>(parts[static_cast<size_t>(i)]));
  }
}

std::string normal_form(std::string_view text, Kind kind) {
  // Below this a character is its own normal form and never joins the one in front of it, so that
  // only the stretches of higher characters, with one lower character in front, need work.
  const char32_t first_affected = kind == Kind::kNfc ? 0x300 : 0x80;
  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t> stretch;
  const char* p = text.data();
  const char* end = p + text.size();
  const char* copied = p;  // everything before is in out
  const char* before = p;  // the last low character before p, or p
  while (p < end) {
    const Utf8Step step = utf8_step(p, end);
    if (step.kind != Utf8Step::Kind::kCharacter || step.code < first_affected) {
      before = step.kind == Utf8Step::Kind::kCharacter ? p : p + step.length;
      p += step.length;
      continue;
    }
    out.append(copied, before);
    stretch.clear();
    if (before < p) stretch.push_back(static_cast<int>(utf8_step(before, end).code));
    while (p < end) {
      const Utf8Step next = utf8_step(p, end);
      if (next.kind != Utf8Step::Kind::kCharacter || next.code < first_affected) break;
      stretch.push_back(static_cast<int>(next.code));
      p += next.length;
    }
    normalize_stretch(stretch, kind, out);
    copied = before = p;
  }
  return out.append(copied, end);
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  const char* p = text.data();
  const char* end = p + text.size();
  while (p < end) {
    const Utf8Step step = utf8_step(p, end);
    if (step.kind != Utf8Step::Kind::kCharacter) {
      out.append(p, step.length);
    } else if (step.code == 0x130) {
      out += "i\xcc\x87";  // the one character whose lower case is two
    } else {
      append_utf8(
          out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(step.code))));
    }
    p += step.length;
  }
  return out;
}

std::string_view strip(std::string_view text, bool left, bool right) {
  const CharClasses& classes = CharClasses::get();
  const char* p = text.data();
  const char* end = p + text.size();
  const char* first = nullptr;  // what is not space lies in [first, last)
  const char* last = p;
  while (p < end) {
    const Utf8Step step = utf8_step(p, end);
    const bool space =
        step.kind == Utf8Step::Kind::kCharacter && (classes(step.code) & kSpace) != 0;
    if (!space && first == nullptr) first = p;
    p += step.length;
    if (!space) last = p;
  }
  if (first == nullptr) return left || right ? std::string_view() : text;
  const char* begin = left ? first : text.data();
  return {begin, static_cast<size_t>((right ? last : end) - begin)};
}

// Both stop where the result exceeds `limit` bytes; it is then unfinished.
std::string replace_literal(std::string_view text, std::string_view from, std::string_view to,
                            size_t limit) {
  std::string out;
  out.reserve(text.size());
  size_t at = 0;
  while (!from.empty() && out.size() <= limit) {
    const size_t hit = text.find(from, at);
    if (hit == std::string_view::npos) break;
    out.append(text, at, hit - at).append(to);
    at = hit + from.size();
  }
  return out.append(text, at);
}

Result<std::string> replace_regex(std::string_view text, const Regex& regex, std::string_view to,
                                  size_t limit) {
  std::string storage;
  const std::string_view subject = with_valid_utf8(text, storage);
  Regex::Matcher matcher(regex);
  std::string out;
  size_t copied = 0;
  size_t from = 0;
  while (from <= text.size() && out.size() <= limit) {
    bool found = false;
    TextSpan match;
    if (Status s = matcher.find(subject, from, found, match); !s.ok()) return s;
    if (!found) break;
    out.append(text, copied, match.begin - copied).append(to);
    copied = match.end;
    from = match.end;
    if (match.begin == match.end) {
      if (from >= text.size()) break;
      from += utf8_step(subject.data() + from, subject.data() + subject.size()).length;
    }
  }
  return out.append(text, copied);
}

}  // namespace

std::string_view with_valid_utf8(std::string_view text, std::string& storage) {
  if (is_valid_utf8(text)) return text;
  storage.assign(text);
  const char* p = text.data();
  const char* end = p + text.size();
  while (p < end) {
    const Utf8Step step = utf8_step(p, end);
    if (step.kind != Utf8Step::Kind::kCharacter) {
      std::fill_n(storage.begin() + (p - text.data()), step.length, '\x1a');
    }
    p += step.length;
  }
  return storage;
}

Result<Normalizer> Normalizer::create(const std::vector<NormalizerStep>& steps,
                                      std::string_view place) {
  Normalizer normalizer;
  normalizer.place_ = place;
  for (const NormalizerStep& spec : steps) {
    Step step{spec, std::nullopt};
    if (spec.kind == Kind::kReplace && spec.is_regex) {
      step.regex = ATOM_TRY(Regex::compile(spec.pattern, fmt::format("{}: normalizer", place)));
    }
    normalizer.steps_.push_back(std::move(step));
  }
  return normalizer;
}

Result<std::string> Normalizer::apply(std::string_view text) const {
  std::string current(text);
  // Real normalizers stay far below; a hostile sequence of replacements could grow without end.
  const size_t limit = 32 * (text.size() + 1024);
  for (const Step& step : steps_) {
    switch (step.spec.kind) {
      case Kind::kNfc:
      case Kind::kNfd:
      case Kind::kNfkc:
      case Kind::kNfkd:
        current = normal_form(current, step.spec.kind);
        break;
      case Kind::kLowercase:
        current = lowercase(current);
        break;
      case Kind::kPrepend:
        if (!current.empty()) current.insert(0, step.spec.content);
        break;
      case Kind::kReplace:
        current = step.regex
                      ? ATOM_TRY(replace_regex(current, *step.regex, step.spec.content, limit))
                      : replace_literal(current, step.spec.pattern, step.spec.content, limit);
        break;
      case Kind::kStrip:
        current = std::string(strip(current, step.spec.strip_left, step.spec.strip_right));
        break;
    }
    if (current.size() > limit) {
      return error(ErrorCode::kUnsupported, "{}: normalizer makes this text too long", place_);
    }
  }
  return current;
}

}  // namespace atom
