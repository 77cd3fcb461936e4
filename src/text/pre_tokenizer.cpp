#include "text/pre_tokenizer.h"

#include <algorithm>

#include "text/normalizer.h"
#include "text/unicode.h"

namespace atom {
namespace {

using Kind = PreTokenizerStep::Kind;

bool has_class(const Utf8Step& step, uint8_t bits) {
  return step.kind == Utf8Step::Kind::kCharacter && (CharClasses::get()(step.code) & bits) != 0;
}

}  // namespace

Result<PreTokenizer> PreTokenizer::create(const std::vector<PreTokenizerStep>& steps,
                                          std::string_view place) {
  PreTokenizer result;
  for (const PreTokenizerStep& spec : steps) {
    Step step;
    step.spec = spec;
    switch (spec.kind) {
      case Kind::kByteLevel:
        if (spec.use_regex) step.scanner = ScannerKind::kGpt2;
        break;
      case Kind::kSplit:
        step.behavior = spec.behavior;
        step.invert = spec.invert;
        if (!spec.is_regex) break;
        // The scanners' patterns match everything, so that "removed, inverted" isolates as well.
        if (spec.invert ? spec.behavior == SplitBehavior::kRemoved
                        : spec.behavior == SplitBehavior::kIsolated) {
          step.scanner = scanner_for(spec.pattern);
        }
        if (!step.scanner) {
          step.regex =
              ATOM_TRY(Regex::compile(spec.pattern, fmt::format("{}: pre_tokenizer", place)));
        }
        break;
      case Kind::kDigits:
        step.behavior =
            spec.individual_digits ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
        break;
      case Kind::kMetaspace:
        break;
      case Kind::kWhitespace:
        step.behavior = SplitBehavior::kRemoved;
        step.invert = true;
        break;
      case Kind::kWhitespaceSplit:
      case Kind::kCharDelimiterSplit:
        step.behavior = SplitBehavior::kRemoved;
        break;
      case Kind::kPunctuation:
        step.behavior = spec.behavior;
        break;
    }
    result.steps_.push_back(std::move(step));
  }
  return result;
}

PreTokenizer::Run::Run(const PreTokenizer& pre_tokenizer, PieceSink& sink)
    : pre_tokenizer_(pre_tokenizer), sink_(sink), matchers_(pre_tokenizer.steps_.size()) {
  for (size_t i = 0; i < matchers_.size(); ++i) {
    if (pre_tokenizer.steps_[i].regex) matchers_[i].emplace(*pre_tokenizer.steps_[i].regex);
  }
}

Status PreTokenizer::Run::split(std::string_view text, bool at_start) {
  return apply(0, text, at_start);
}

Status PreTokenizer::Run::next(size_t index, std::string_view text, bool at_start) {
  if (index + 1 < pre_tokenizer_.steps_.size()) return apply(index + 1, text, at_start);
  if (!text.empty()) sink_.piece(text);
  return {};
}

Status PreTokenizer::Run::apply(size_t index, std::string_view text, bool at_start) {
  if (text.empty()) return {};
  if (pre_tokenizer_.steps_.empty()) {
    sink_.piece(text);
    return {};
  }
  const Step& step = pre_tokenizer_.steps_[index];
  if (step.spec.kind == Kind::kMetaspace) return apply_metaspace(index, text, at_start);
  if (step.spec.kind == Kind::kByteLevel) {
    if (step.spec.add_prefix_space && text.front() != ' ') {
      text = strings_.emplace_back(" ").append(text);
    }
    if (!step.scanner) return next(index, text, at_start);
  }
  if (!step.scanner) return apply_split(index, text, at_start);
  const char* p = text.data();
  const char* end = p + text.size();
  const bool last = index + 1 == pre_tokenizer_.steps_.size();
  while (p < end) {
    const char* q = scan(*step.scanner, p, end);
    const std::string_view piece(p, static_cast<size_t>(q - p));
    if (last) {
      sink_.piece(piece);
    } else {
      if (Status s = apply(index + 1, piece, at_start && p == text.data()); !s.ok()) return s;
    }
    p = q;
  }
  return {};
}

// Replaces blanks by a visible character, and splits in front of each.
Status PreTokenizer::Run::apply_metaspace(size_t index, std::string_view text, bool at_start) {
  const PreTokenizerStep& spec = pre_tokenizer_.steps_[index].spec;
  const std::string& mark = spec.replacement;
  std::string& replaced = strings_.emplace_back();
  const bool wants_prefix = spec.prepend_scheme == PrependScheme::kAlways ||
                            (spec.prepend_scheme == PrependScheme::kFirst && at_start);
  if (wants_prefix && text.front() != ' ' && !text.starts_with(mark)) replaced = mark;
  for (const char c : text) {
    if (c == ' ') {
      replaced += mark;
    } else {
      replaced += c;
    }
  }
  const std::string_view view = replaced;
  if (!spec.split) return next(index, view, at_start);
  size_t begin = 0;
  while (begin < view.size()) {
    size_t end = view.find(mark, begin + (view.substr(begin).starts_with(mark) ? mark.size() : 0));
    if (end == std::string_view::npos) end = view.size();
    if (Status s = next(index, view.substr(begin, end - begin), at_start && begin == 0); !s.ok()) {
      return s;
    }
    begin = end;
  }
  return {};
}

// Cuts text into matches and what lies between them.
Status PreTokenizer::Run::find_parts(size_t index, std::string_view text,
                                     std::vector<Part>& parts) {
  const Step& step = pre_tokenizer_.steps_[index];
  const char* begin = text.data();
  const char* end = begin + text.size();
  size_t covered = 0;
  const auto add_match = [&](size_t from, size_t to) {
    if (from > covered) parts.push_back({covered, from, false});
    parts.push_back({from, to, true});
    covered = to;
  };
  if (step.regex) {
    std::string storage;
    const std::string_view subject = with_valid_utf8(text, storage);
    size_t from = 0;
    while (from <= text.size()) {
      bool found = false;
      TextSpan match;
      if (Status s = matchers_[index]->find(subject, from, found, match); !s.ok()) return s;
      if (!found) break;
      add_match(match.begin, match.end);
      from = match.end;
      if (match.begin == match.end) {
        if (from >= text.size()) break;
        from += utf8_step(subject.data() + from, subject.data() + subject.size()).length;
      }
    }
  } else if (step.spec.kind == Kind::kSplit || step.spec.kind == Kind::kCharDelimiterSplit) {
    const std::string& pattern = step.spec.pattern;
    size_t hit = pattern.empty() ? std::string_view::npos : text.find(pattern);
    while (hit != std::string_view::npos) {
      add_match(hit, hit + pattern.size());
      hit = text.find(pattern, covered);
    }
  } else {
    // What is matched a character at a time, or, for words, a run of one class.
    const char* p = begin;
    while (p < end) {
      const Utf8Step first = utf8_step(p, end);
      const char* q = p + first.length;
      bool matches = false;
      switch (step.spec.kind) {
        case Kind::kDigits:
          matches = has_class(first, kNumber);
          break;
        case Kind::kPunctuation:
          matches = has_class(first, kPunctuation);
          break;
        case Kind::kWhitespaceSplit:
          matches = has_class(first, kSpace);
          break;
        default: {  // kWhitespace: \w+|[^\w\s]+
          matches = !has_class(first, kSpace);
          const bool word = has_class(first, kWord);
          while (matches && q < end) {
            const Utf8Step c = utf8_step(q, end);
            if (has_class(c, kSpace) || has_class(c, kWord) != word) break;
            q += c.length;
          }
        }
      }
      if (matches) add_match(static_cast<size_t>(p - begin), static_cast<size_t>(q - begin));
      p = q;
    }
  }
  if (covered < text.size()) parts.push_back({covered, text.size(), false});
  return {};
}

Status PreTokenizer::Run::apply_split(size_t index, std::string_view text, bool at_start) {
  const Step& step = pre_tokenizer_.steps_[index];
  std::vector<Part> parts;
  if (Status s = find_parts(index, text, parts); !s.ok()) return s;
  if (step.invert) {
    for (Part& part : parts) part.is_match = !part.is_match;
  }
  std::vector<Part> pieces;
  bool previous = false;
  switch (step.behavior) {
    case SplitBehavior::kIsolated:
      pieces.swap(parts);
      break;
    case SplitBehavior::kRemoved:
      for (const Part& part : parts) {
        if (!part.is_match) pieces.push_back(part);
      }
      break;
    case SplitBehavior::kContiguous:
      for (const Part& part : parts) {
        if (!pieces.empty() && pieces.back().is_match == part.is_match) {
          pieces.back().end = part.end;
        } else {
          pieces.push_back(part);
        }
      }
      break;
    case SplitBehavior::kMergedWithPrevious:
      for (const Part& part : parts) {
        if (part.is_match && !previous && !pieces.empty()) {
          pieces.back().end = part.end;
        } else {
          pieces.push_back(part);
        }
        previous = part.is_match;
      }
      break;
    case SplitBehavior::kMergedWithNext:
      for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
        if (part->is_match && !previous && !pieces.empty()) {
          pieces.back().begin = part->begin;
        } else {
          pieces.push_back(*part);
        }
        previous = part->is_match;
      }
      std::reverse(pieces.begin(), pieces.end());
      break;
  }
  for (const Part& piece : pieces) {
    if (piece.begin == piece.end) continue;
    const std::string_view view = text.substr(piece.begin, piece.end - piece.begin);
    if (Status s = next(index, view, at_start && piece.begin == 0); !s.ok()) return s;
  }
  return {};
}

}  // namespace atom
