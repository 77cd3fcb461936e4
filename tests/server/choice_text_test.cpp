#include "server/choice_text.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "server/token_text.h"

namespace atom {
namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer instance = [] {
    const auto json = read_text_file(ATOM_TEST_DATA "/text/gpt2.json", 64 << 20).value();
    return Tokenizer::from_json(json, "", "gpt2").value();
  }();
  return instance;
}

std::vector<int32_t> ids_of(const std::string& text) {
  return tokenizer().encode(text, /*add_special=*/false, /*parse_special=*/false).value();
}

TEST(ChoiceText, TokensStandAtTheirCharacters) {
  ChoiceText choice(tokenizer(), true, {}, /*keep_logprobs=*/true, /*offset=*/10);
  const std::vector<int32_t> ids = ids_of("Où 🙂 là");
  for (const int32_t id : ids) EXPECT_TRUE(choice.push({.token = id, .logprob = -1.0f}));
  choice.finish({.token = 7, .logprob = -2.0f});
  TextPiece piece = choice.take();
  EXPECT_EQ(piece.text, "Où 🙂 là");
  // What ended the output stands behind its text.
  ASSERT_EQ(piece.logprobs.size(), ids.size() + 1);
  EXPECT_EQ(piece.logprobs.back().scored.token, 7);
  EXPECT_EQ(piece.logprobs.back().offset, 10 + count_characters(piece.text));
  piece.logprobs.pop_back();
  int64_t before = 10;
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(piece.logprobs[i].scored.token, ids[i]);
    EXPECT_GE(piece.logprobs[i].offset, before);
    before = piece.logprobs[i].offset;
  }
  EXPECT_EQ(piece.logprobs.front().offset, 10);
  EXPECT_LT(before, 10 + count_characters(piece.text));
}

TEST(ChoiceText, TokensOfAStopStringAreLeftOut) {
  ChoiceText choice(tokenizer(), true, {" STOP here"}, true, 0);
  bool more = true;
  int64_t pushed = 0;
  TextPiece all;
  for (const int32_t id : ids_of("Hello world STOP here and on")) {
    if (!more) break;
    more = choice.push({.token = id, .logprob = -1.0f});
    ++pushed;
    TextPiece piece = choice.take();
    all.text += piece.text;
    all.logprobs.insert(all.logprobs.end(), piece.logprobs.begin(), piece.logprobs.end());
  }
  choice.finish();
  EXPECT_FALSE(more);
  EXPECT_EQ(all.text, "Hello world");
  EXPECT_TRUE(choice.take().text.empty());
  EXPECT_EQ(choice.tokens(), pushed);
  int64_t characters = 0;
  for (const PlacedToken& token : all.logprobs) {
    characters += count_characters(tokenizer().token_bytes(token.scored.token));
  }
  EXPECT_EQ(characters, count_characters(all.text));
}

TEST(TokenText, BytesThatAreNoTextAreSpelledOut) {
  bool found = false;
  for (const int32_t id : ids_of("🙂")) {
    const std::string text = token_text(tokenizer(), id);
    found |= text.starts_with("bytes:\\x");
  }
  EXPECT_TRUE(found);
  EXPECT_EQ(token_text(tokenizer(), ids_of("a")[0]), "a");
}

}  // namespace
}  // namespace atom
