#include "grammar/constraint.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/random.h"
#include "engine/sampler.h"
#include "grammar/byte_automaton.h"
#include "grammar/json_schema.h"
#include "grammar/random_document.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace atom {
namespace {

using grammar::Automaton;
using grammar::TokenTrie;
using grammar::test::random_document;
using nlohmann::ordered_json;

constexpr const char* kPlace = "response_format";

// A trained byte-level vocabulary of 900 tokens; <|im_end|> ends an output.
const Tokenizer& tokenizer() {
  static const Tokenizer kTokenizer = [] {
    const auto json = read_text_file(ATOM_TEST_DATA "/text/llama3.json", 16 << 20);
    return Tokenizer::from_json(json.value(), "", "llama3.json").value();
  }();
  return kTokenizer;
}

const std::shared_ptr<const TokenTrie>& token_trie() {
  static const auto kTrie =
      std::make_shared<const TokenTrie>(tokenizer(), tokenizer().end_of_generation_ids());
  return kTrie;
}

// A vocabulary of a few texts; the last id ends an output.
class Words {
 public:
  explicit Words(std::vector<std::string> words) : words_(std::move(words)) {
    std::vector<TokenTrie::Token> tokens;
    for (size_t i = 0; i < words_.size(); ++i) {
      tokens.push_back({static_cast<int32_t>(i), words_[i]});
    }
    trie_ = std::make_shared<const TokenTrie>(end() + 1, std::move(tokens),
                                              std::vector<int32_t>{end()});
  }
  int32_t end() const { return static_cast<int32_t>(words_.size()); }
  const std::shared_ptr<const TokenTrie>& trie() const { return trie_; }

  // The words that may come next; "END" for the end.
  std::vector<std::string> allowed(TokenConstraint& constraint) const {
    std::vector<std::string> result;
    for (const int32_t id : grammar::test::allowed_tokens(constraint, *trie_)) {
      result.push_back(id == end() ? "END" : words_[static_cast<size_t>(id)]);
    }
    return result;
  }
  int32_t id(const std::string& word) const {
    for (size_t i = 0; i < words_.size(); ++i) {
      if (words_[i] == word) return static_cast<int32_t>(i);
    }
    return -1;
  }

 private:
  std::vector<std::string> words_;
  std::shared_ptr<const TokenTrie> trie_;
};

using Strings = std::vector<std::string>;

TEST(Constraint, MasksFollowTheTokens) {
  const Words words({"a", "b", "ab", "abc", "c", "", "x"});
  ConstraintCompiler compiler(words.trie());
  const auto start = compiler.regex("(ab)+c?", kPlace);
  ASSERT_TRUE(start.ok()) << start.status().message();
  const auto constraint = (*start)->clone();
  EXPECT_EQ(words.allowed(*constraint), (Strings{"a", "ab", "abc"}));
  ASSERT_TRUE(constraint->accept(words.id("a")).ok());
  EXPECT_EQ(words.allowed(*constraint), (Strings{"b"}));
  ASSERT_TRUE(constraint->accept(words.id("b")).ok());
  EXPECT_EQ(words.allowed(*constraint), (Strings{"a", "ab", "abc", "c", "END"}));

  const auto copy = constraint->clone();
  ASSERT_TRUE(copy->accept(words.id("abc")).ok());
  EXPECT_EQ(words.allowed(*copy), (Strings{"END"}));
  EXPECT_EQ(words.allowed(*constraint), (Strings{"a", "ab", "abc", "c", "END"}));
  ASSERT_TRUE(copy->accept(words.end()).ok());
  EXPECT_EQ(words.allowed(*copy), (Strings{"END"}));

  EXPECT_FALSE(constraint->accept(words.id("x")).ok());
  EXPECT_FALSE(constraint->accept(words.id("")).ok());
  EXPECT_FALSE(constraint->accept(-1).ok());
  EXPECT_FALSE(constraint->accept(1000).ok());
  ASSERT_TRUE(constraint->accept(words.id("a")).ok());
  EXPECT_FALSE(constraint->accept(words.end()).ok());  // "aba" is not complete
}

TEST(Constraint, TokensMaySplitCharactersThatCanBeCompleted) {
  const Words words({"\"", "\xc3", "\xa9", "\xe2\x82", "\xac", "\xac\"", "\xa9\xa9"});
  ConstraintCompiler compiler(words.trie());
  const auto constraint =
      (*compiler.json_schema(R"({"type": "string", "maxLength": 2})", kPlace))->clone();
  ASSERT_TRUE(constraint->accept(words.id("\"")).ok());
  // The euro sign's second byte is no token of its own, so a half of it might be a dead end.
  EXPECT_EQ(words.allowed(*constraint), (Strings{"\"", "\xc3"}));
  ASSERT_TRUE(constraint->accept(words.id("\xc3")).ok());
  EXPECT_EQ(words.allowed(*constraint), (Strings{"\xa9", "\xac", "\xac\""}));
}

TEST(Constraint, MasksAreWhatBytesSay) {
  // Every mask along random walks, against the automaton asked token by token.
  const TokenTrie& trie = *token_trie();
  Random random(5);
  for (const char* schema :
       {R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 9},
            "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 300}}})",
        R"({"type": "object"})", R"({"type": "string", "pattern": "^([a-z]+ ?){2,5}$"})"}) {
    grammar::Grammar grammar = grammar::grammar_of_json_schema(schema, kPlace).value();
    ASSERT_TRUE(grammar.prune(trie.single_bytes()));
    Automaton automaton(grammar, trie);
    Automaton by_tokens(grammar, trie);
    Automaton::StateId state = automaton.start();
    Automaton::StateId other = by_tokens.start();
    for (int step = 0; step < 60; ++step) {
      const std::span<const uint64_t> mask = automaton.tokens(state);
      std::vector<int32_t> choices;
      for (int32_t id = 0; id < trie.vocab_size(); ++id) {
        const bool in_mask = (mask[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0;
        const bool fits =
            !trie.bytes(id).empty() && by_tokens.step(other, trie.bytes(id)) != Automaton::kDead;
        ASSERT_EQ(in_mask, fits) << schema << " token " << id;
        if (in_mask) choices.push_back(id);
      }
      if (choices.empty()) break;
      const int32_t id =
          choices[static_cast<size_t>(random.below(static_cast<int64_t>(choices.size())))];
      state = automaton.step(state, trie.bytes(id));
      other = by_tokens.step(other, trie.bytes(id));
    }
  }
}

TEST(Constraint, RandomWalksGiveDocumentsOfTheSchema) {
  ConstraintCompiler compiler(token_trie());
  const auto cases =
      ordered_json::parse(read_text_file(ATOM_TEST_DATA "/grammar/schemas.json", 1 << 20).value());
  Random random(7);
  for (const ordered_json& row : cases) {
    const std::string schema = row.at("schema").dump();
    const auto start = compiler.json_schema(schema, kPlace);
    ASSERT_TRUE(start.ok()) << schema << ": " << start.status().message();
    grammar::test::ByteAutomaton automaton(grammar::grammar_of_json_schema(schema, kPlace).value());
    for (int i = 0; i < 3; ++i) {
      const auto document = random_document(*(*start)->clone(), *token_trie(), random, 20, [] {});
      const std::string& text = document.text;
      EXPECT_TRUE(document.ended) << schema << "\n" << text.substr(0, 200);
      EXPECT_TRUE(is_valid_utf8(text));
      EXPECT_TRUE(ordered_json::accept(text)) << schema << "\n" << text.substr(0, 200);
      EXPECT_TRUE(automaton.accepts(text)) << schema << "\n" << text.substr(0, 200);
    }
  }
}

TEST(Constraint, SamplingUnderAMaskIsReproducible) {
  ConstraintCompiler compiler(token_trie());
  const auto start = compiler.json_object();
  ASSERT_TRUE(start.ok());
  const auto vocab = static_cast<size_t>(tokenizer().vocab_size());
  const auto generate = [&](bool warm) {
    ConstraintCompiler fresh(token_trie());
    const auto constraint = (warm ? *start : *fresh.json_object())->clone();
    SamplingParams params;
    params.temperature = 1.0;
    params.seed = 3;
    Sampler sampler(params);
    SamplingScratch scratch;
    Random noise(11);
    std::vector<int32_t> tokens;
    std::vector<uint64_t> mask((vocab + 63) / 64);
    for (int i = 0; i < 40; ++i) {
      std::vector<float> logits(vocab);
      for (float& logit : logits) logit = static_cast<float>(noise.normal());
      constraint->allowed(mask);
      const int32_t token = sampler.sample(logits, scratch, mask);
      EXPECT_GE(token, 0);
      tokens.push_back(token);
      EXPECT_TRUE(constraint->accept(token).ok());
      if (tokenizer().is_end_of_generation(token)) break;
    }
    return tokens;
  };
  const std::vector<int32_t> first = generate(true);
  EXPECT_EQ(generate(true), first);
  EXPECT_EQ(generate(false), first);
}

TEST(Constraint, EqualRequestsShareTheirGrammar) {
  ConstraintCompiler compiler(token_trie());
  const std::string schema = R"({"type": "integer"})";
  EXPECT_EQ(compiler.json_schema(schema, kPlace)->get(), compiler.json_schema(schema, "x")->get());
  EXPECT_NE(compiler.json_schema(schema, kPlace)->get(), compiler.regex(schema, kPlace)->get());
  // What was not used for longest makes room.
  std::vector<std::shared_ptr<const TokenConstraint>> kept;
  for (int i = 0; i < 70; ++i) {
    kept.push_back(*compiler.choice(Strings{std::to_string(i), "b"}, kPlace));
  }
  EXPECT_EQ(compiler.choice(Strings{"69", "b"}, kPlace)->get(), kept[69].get());
  EXPECT_NE(compiler.choice(Strings{"0", "b"}, kPlace)->get(), kept[0].get());
}

TEST(Constraint, OutputsMoveToAnotherAutomatonUnchanged) {
  const TokenTrie& trie = *token_trie();
  grammar::Grammar grammar =
      grammar::grammar_of_json_schema(
          R"({"type": "array", "items": {"anyOf": [{"type": "array", "minItems": 2, "maxItems": 500},
              {"type": "string", "minLength": 3}]}, "minItems": 200})",
          kPlace)
          .value();
  ASSERT_TRUE(grammar.prune(trie.single_bytes()));
  Automaton first(grammar, trie);
  const std::string begin = R"([[1, {"a": [2, )";
  const std::string end = R"(3]}], "abc)";
  const Automaton::StateId state = first.step(first.start(), begin);
  ASSERT_NE(state, Automaton::kDead);
  Automaton second(grammar, trie);
  const Automaton::StateId moved = second.import(first, state);
  EXPECT_EQ(second.step(second.start(), begin), moved);
  EXPECT_NE(second.step(moved, end), Automaton::kDead);
  const auto a = first.tokens(first.step(state, end));
  const auto b = second.tokens(second.step(moved, end));
  EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
}

TEST(Constraint, MasksOfHostileGrammarsGiveUp) {
  std::string alternatives;
  for (int i = 3; i < 80; ++i) {
    alternatives += fmt::format(R"({{"pattern": "^(?:[a-z]{{{}}})*$"}},)", i);
  }
  ConstraintCompiler compiler(token_trie());
  const auto start = compiler.json_schema(
      R"({"type": "string", "anyOf": [)" + alternatives + R"({"maxLength": 2}]})", kPlace);
  ASSERT_TRUE(start.ok()) << start.status().message();
  grammar::Grammar grammar =
      grammar::grammar_of_json_schema(
          R"({"type": "string", "anyOf": [)" + alternatives + R"({"maxLength": 2}]})", kPlace)
          .value();
  const TokenTrie& trie = *token_trie();
  Automaton automaton(grammar, trie);
  const Automaton::StateId state = automaton.step(automaton.start(), "\"");
  EXPECT_TRUE(automaton.tokens(state, 1000).empty());
  EXPECT_FALSE(automaton.tokens(state).empty());
}

TEST(Constraint, VocabulariesThatCannotSpellAreRefused) {
  const Words words({"a", "b"});
  ConstraintCompiler compiler(words.trie());
  EXPECT_TRUE(compiler.regex("[a-z]+", kPlace).ok());
  const auto failed = compiler.json_object();
  ASSERT_FALSE(failed.ok());
  EXPECT_NE(failed.status().message().find("vocabulary lacks"), std::string::npos);
  EXPECT_FALSE(compiler.choice({}, kPlace).ok());
}

}  // namespace
}  // namespace atom
