#define PCRE2_CODE_UNIT_WIDTH 8
#include <gtest/gtest.h>
#include <pcre2.h>

#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "grammar/dfa.h"
#include "text/unicode.h"

namespace atom::grammar {
namespace {

Result<Dfa> compile(std::string_view pattern, bool search = false) {
  WorkBudget budget(20'000'000);
  return compile_pattern(pattern, search, CharSpelling::kUtf8, budget, "pattern");
}

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

// What PCRE2 makes of the same pattern: \d \w \s are ASCII, '$' only at the very end.
class Pcre2 {
 public:
  explicit Pcre2(const std::string& pattern, bool search) {
    int code = 0;
    size_t offset = 0;
    const uint32_t whole = search ? 0 : PCRE2_ANCHORED | PCRE2_ENDANCHORED;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_ALT_BSUX | whole, &code,
                              &offset, nullptr));
    EXPECT_NE(code_, nullptr) << pattern;
    if (code_) match_.reset(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  }
  bool accepts(const std::string& text) const {
    return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0,
                       match_.get(), nullptr) >= 0;
  }

 private:
  std::unique_ptr<pcre2_code, FreeCode> code_;
  std::unique_ptr<pcre2_match_data, FreeMatch> match_;
};

constexpr const char* kPatterns[] = {
    "",
    "abc",
    "a|bc|",
    "(a|b)*c",
    "(?:ab){2,4}",
    "a{3}",
    "a{2,}b?",
    "[a-c]+[^a-c]",
    "[^\\d]*\\d{1,3}",
    "\\w+\\s\\w+",
    "\\W|\\D1",
    "(a*)*b",
    "(a|ab)(c|bcd)(d*)",
    "x*?y+?",
    ".*b.",
    "[\\w-]+@[a-c.]+",
    "\\x61\\u0062\\.",
    "[\\]\\\\-]a",
    "a{,",
    "{a}",
    "\u00e9+|[\u00e0-\u00ef]b",
    "[^\u00e9]",
    "(?<name>a)(?<other>b)?",
    "((a|b)(b|c)){1,3}",
    "(a{0,2}){2}b{0}",
    "\\t|\\n|\\r|\\f|\\v|\\0",
    "a-z[-a][a-]",
    "1?1?1?1?111",
};

std::string random_text(Random& random) {
  constexpr const char* kPieces[] = {
      "a", "b", "c", "d",      "x",      "y",      "1",      "2",         "-",
      "@", ".", " ", "\n",     "\t",     "]",      "\\",     "{",         "}",
      ",", "z", "_", "\u00e9", "\u00e0", "\u00ef", "\u0100", "\U0001F600"};
  std::string text;
  const int64_t length = random.below(9);
  for (int64_t i = 0; i < length; ++i) {
    text += kPieces[random.below(static_cast<int64_t>(std::size(kPieces)))];
  }
  return text;
}

// A random way through the automaton, so that matches are not rare; may end anywhere.
std::string random_walk(const Dfa& dfa, Random& random) {
  std::string text;
  int32_t state = 0;
  for (int i = 0; i < 24; ++i) {
    const DfaState& s = dfa.states[static_cast<size_t>(state)];
    if (s.edges.empty() || (s.accepting && random.below(3) == 0)) break;
    const ByteEdge& edge =
        s.edges[static_cast<size_t>(random.below(static_cast<int64_t>(s.edges.size())))];
    text.push_back(static_cast<char>(edge.first + random.below(edge.last - edge.first + 1)));
    state = edge.target;
  }
  return text;
}

// '.' is narrower here, and so is \S.
bool dialects_agree(const std::string& text) {
  for (const char* apart : {"\r", "\u2028", "\u2029", "\u00a0", "\u1680", "\u3000", "\ufeff"}) {
    if (text.find(apart) != std::string::npos) return false;
  }
  return true;
}

TEST(Regex, AgreesWithPcre2) {
  Random random(1);
  for (const char* pattern : kPatterns) {
    const Result<Dfa> dfa = compile(pattern);
    ASSERT_TRUE(dfa.ok()) << pattern << ": " << dfa.status().message();
    const Pcre2 pcre2(pattern, /*search=*/false);
    int matches = 0;
    for (int i = 0; i < 3000; ++i) {
      const std::string text = i % 2 == 0 ? random_text(random) : random_walk(*dfa, random);
      if (!is_valid_utf8(text)) {
        EXPECT_FALSE(dfa->accepts(text)) << pattern;
        continue;
      }
      if (!dialects_agree(text)) continue;
      EXPECT_EQ(dfa->accepts(text), pcre2.accepts(text))
          << "/" << pattern << "/ " << one_line(text);
      matches += dfa->accepts(text);
    }
    EXPECT_GT(matches, 0) << pattern;
  }
}

TEST(Regex, SearchAgreesWithPcre2) {
  Random random(2);
  for (const char* pattern : {"b", "^b", "b$", "^b$", "^a|b$|c1", "(^a|b$)", "a.b", "", "^", "$",
                              "^(a|b)+$", "(?:^a$)|(?:^b$)"}) {
    const Result<Dfa> dfa = compile(pattern, /*search=*/true);
    ASSERT_TRUE(dfa.ok()) << pattern << ": " << dfa.status().message();
    const Pcre2 pcre2(pattern, /*search=*/true);
    for (int i = 0; i < 2000; ++i) {
      const std::string text = random_text(random);
      EXPECT_EQ(dfa->accepts(text), pcre2.accepts(text))
          << "/" << pattern << "/ " << one_line(text);
    }
  }
}

// Random patterns from a small grammar of their own.
std::string random_pattern(Random& random, int depth) {
  constexpr const char* kAtoms[] = {"a", "b", "[ab]", "[^a]", ".", "\\d", "\u00e9", "c"};
  constexpr const char* kRepeats[] = {"", "", "", "*", "+", "?", "{2}", "{1,3}", "{2,}"};
  std::string pattern;
  const int64_t parts = 1 + random.below(3);
  for (int64_t i = 0; i < parts; ++i) {
    if (i > 0 && random.below(4) == 0) pattern += "|";
    if (depth > 0 && random.below(3) == 0) {
      pattern += "(" + random_pattern(random, depth - 1) + ")";
    } else {
      pattern += kAtoms[random.below(static_cast<int64_t>(std::size(kAtoms)))];
    }
    pattern += kRepeats[random.below(static_cast<int64_t>(std::size(kRepeats)))];
  }
  return pattern;
}

TEST(Regex, RandomPatternsAgreeWithPcre2) {
  Random random(3);
  for (int p = 0; p < 300; ++p) {
    const std::string pattern = random_pattern(random, 2);
    const Result<Dfa> dfa = compile(pattern);
    ASSERT_TRUE(dfa.ok()) << pattern << ": " << dfa.status().message();
    const Pcre2 pcre2(pattern, /*search=*/false);
    for (int i = 0; i < 60; ++i) {
      const std::string text = i % 2 == 0 ? random_text(random) : random_walk(*dfa, random);
      if (!is_valid_utf8(text) || !dialects_agree(text)) continue;
      EXPECT_EQ(dfa->accepts(text), pcre2.accepts(text))
          << "/" << pattern << "/ " << one_line(text);
    }
  }
}

TEST(Regex, NarrowerWhereDialectsDiffer) {
  const auto accepts = [](std::string_view pattern, std::string_view text) {
    return compile(pattern).value().accepts(text);
  };
  EXPECT_FALSE(accepts(".", "\n"));
  EXPECT_FALSE(accepts(".", "\r"));
  EXPECT_FALSE(accepts(".", "\u2028"));
  EXPECT_FALSE(accepts("\\S", "\u00a0"));
  EXPECT_FALSE(accepts("\\s", "\u00a0"));
  EXPECT_FALSE(accepts("\\w", "\u00e9"));
  EXPECT_TRUE(accepts("\\W", "\u00e9"));
  EXPECT_TRUE(accepts("\\ud83d\\ude00", "\U0001F600"));
  EXPECT_TRUE(accepts("\\u{1F600}", "\U0001F600"));
  EXPECT_TRUE(accepts("^a$", "a"));
}

TEST(Regex, NamesWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {"(a", "pattern: at character 2 of the pattern: '(' without ')'"},
      {"a)", "')' without '('"},
      {"[a", "'[' without ']'"},
      {"[]a]", "dialects"},
      {"*a", "nothing to repeat"},
      {"a**", "repeat of a repeat"},
      {"a{3,2}", "asks for more"},
      {"a{1,9999999}", "above 1000000"},
      {"a{,3}", "write '{0,n}'"},
      {"a*+", "possessive"},
      {"[b-a]", "range is empty"},
      {"[\\d-z]", "no end of a range"},
      {"[[:alpha:]]", "POSIX"},
      {"(?=a)", "look-around"},
      {"(?i)a", "not supported"},
      {"(?<!a)", "not supported"},
      {"\\bword", "'\\b'"},
      {"(a)\\1", "back references"},
      {"\\pL", "'\\p{..}'"},
      {"\\q", "this escape"},
      {"\\", "at the end"},
      {"\\x1", "hexadecimal"},
      {"\\ud800", "no Unicode character"},
      {"\\u{110000}", "no Unicode character"},
      {"a^b", "anchors"},
      {"(^a)*", "anchors"},
      {"^*", "repeated anchor"},
      {"\xff", "not UTF-8"},
  };
  for (const auto& [pattern, message] : cases) {
    const Result<Dfa> dfa = compile(pattern);
    ASSERT_FALSE(dfa.ok()) << pattern;
    EXPECT_NE(dfa.status().message().find(message), std::string::npos) << dfa.status().message();
  }
}

TEST(Regex, HostilePatternsEndInErrors) {
  std::string nested = "a";
  for (int i = 0; i < 150; ++i) nested = "(" + nested + ")";
  for (const std::string& pattern :
       {std::string("x{1,100000}"), std::string("((a{1,100}){1,100}){1,100}"), nested,
        std::string("(a|b)*a(a|b){25}"), std::string("((){1000000}){1000000}"),
        std::string(20'000, 'a'), std::string("(.{0,1000}a){0,20}"),
        std::string("(((((((((((a*)*)*)*)*)*)*)*)*)*)*){999}{1}")}) {
    EXPECT_FALSE(compile(pattern).ok()) << pattern.substr(0, 60);
  }
}

TEST(Regex, SpellsJson) {
  WorkBudget budget(1'000'000);
  const Dfa dfa =
      compile_pattern(".*\\s?[\"\\x01\\x7f]", false, CharSpelling::kJson, budget, "pattern")
          .value();
  EXPECT_TRUE(dfa.accepts("a\\\""));
  EXPECT_TRUE(dfa.accepts("\\n\\u0001"));
  EXPECT_TRUE(dfa.accepts("\\\\\x7f"));
  EXPECT_FALSE(dfa.accepts("\""));
  EXPECT_FALSE(dfa.accepts("\\u0061\\\""));
}

}  // namespace
}  // namespace atom::grammar
