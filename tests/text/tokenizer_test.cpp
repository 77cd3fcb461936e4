#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/random.h"
#include "text/detokenizer.h"
#include "text/unicode.h"

namespace atom {
namespace {

std::string read_tokenizer(const std::string& name) {
  std::ifstream file(std::string(ATOM_TEST_DATA) + "/text/" + name + ".json", std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  EXPECT_TRUE(file.good()) << name;
  return bytes.str();
}

Tokenizer load(const std::string& name) {
  return Tokenizer::from_json(read_tokenizer(name), "", name).value();
}

std::string error_of(std::string_view json) {
  const Result<Tokenizer> result = Tokenizer::from_json(json, "", "t.json");
  EXPECT_EQ(result.status().message().find('\n'), std::string::npos);
  return result.status().message();
}

// A tokenizer.json around a model and other members.
std::string with(std::string_view model, std::string_view more = "") {
  return fmt::format(R"({{"model":{{"type":"BPE",{}}}{}}})", model, more);
}

constexpr std::string_view kSmallModel = R"("vocab":{"a":0,"b":1,"ab":2},"merges":["a b"])";

std::string random_bytes(Random& random, size_t size) {
  std::string text;
  while (text.size() < size) {
    switch (random.below(5)) {
      case 0:
        text.push_back(static_cast<char>(random.below(256)));
        break;
      case 1:
        append_utf8(text, static_cast<char32_t>(random.below(0xd800)));
        break;
      case 2:
        append_utf8(text, static_cast<char32_t>(0x10000 + random.below(0x20000)));
        break;
      default:
        text.push_back(static_cast<char>(' ' + random.below(95)));
        break;
    }
  }
  return text;
}

TEST(Tokenizer, ByteLevelKeepsEveryByte) {
  Random random(7);
  for (const char* name : {"gpt2", "llama3", "gpt4o"}) {
    const Tokenizer tokenizer = load(name);
    for (int i = 0; i < 2000; ++i) {
      const std::string text = random_bytes(random, static_cast<size_t>(random.below(60)));
      const std::vector<int32_t> ids = tokenizer.encode(text, false, true).value();
      ASSERT_EQ(tokenizer.decode_bytes(ids, false), text) << name;
      std::string pieces;
      for (const int32_t id : ids) pieces += tokenizer.token_bytes(id);
      ASSERT_EQ(pieces, text);
    }
  }
}

TEST(Tokenizer, InvalidUtf8BecomesByteTokensOrUnknown) {
  const Tokenizer llama = load("llama2");
  const std::vector<int32_t> ids = llama.encode("a\xff\xe4\xb8z", false, false).value();
  std::vector<std::string_view> pieces;
  for (const int32_t id : ids) pieces.push_back(llama.piece(id));
  const std::vector<std::string_view> tail(pieces.end() - 4, pieces.end());
  EXPECT_EQ(tail, (std::vector<std::string_view>{"<0xFF>", "<0xE4>", "<0xB8>", "z"}));
  EXPECT_EQ(llama.decode(ids, false), "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz");
  EXPECT_EQ(llama.decode_bytes(ids, false), "a\xff\xe4\xb8z");

  const Tokenizer words = load("words");
  EXPECT_EQ(words.encode("\xff", false, false).value(), std::vector<int32_t>{words.unk_id()});
}

TEST(Tokenizer, IncrementalDecodingEqualsDecodingOfAnyIds) {
  Random random(11);
  for (const char* name : {"gpt2", "smollm", "llama2", "metaspace", "characters", "words"}) {
    const Tokenizer tokenizer = load(name);
    for (int i = 0; i < 3000; ++i) {
      std::vector<int32_t> ids(static_cast<size_t>(random.below(12)));
      for (int32_t& id : ids) {
        id = static_cast<int32_t>(random.below(tokenizer.vocab_size() + 2)) - 1;
      }
      const bool skip = random.below(2) == 0;
      IncrementalDetokenizer detokenizer(tokenizer, skip);
      std::string text;
      for (const int32_t id : ids) {
        text += detokenizer.push(id);
        ASSERT_TRUE(is_valid_utf8(text));
      }
      text += detokenizer.finish();
      ASSERT_EQ(text, tokenizer.decode(ids, skip)) << name << testing::PrintToString(ids);
    }
  }
}

TEST(Tokenizer, IncrementalDecodingHoldsBackPartsOfCharacters) {
  const Tokenizer tokenizer = load("llama2");
  const auto byte = [&](const char* name) { return tokenizer.token_to_id(name); };
  IncrementalDetokenizer detokenizer(tokenizer, true, false);
  EXPECT_EQ(detokenizer.push(byte("<0xF0>")), "");
  EXPECT_EQ(detokenizer.push(byte("<0x9F>")), "");
  EXPECT_EQ(detokenizer.push(byte("<0x98>")), "");
  EXPECT_EQ(detokenizer.push(byte("<0x80>")), "\xf0\x9f\x98\x80");
  EXPECT_EQ(detokenizer.push(byte("<0xE4>")), "");
  EXPECT_EQ(detokenizer.push(tokenizer.token_to_id("a")),
            "\xef\xbf\xbd"
            "a");
  EXPECT_EQ(detokenizer.push(byte("<0xE4>")), "");
  EXPECT_EQ(detokenizer.finish(), "\xef\xbf\xbd");

  // The blank in front of a sentencepiece word goes at the start of a text only.
  const std::vector<int32_t> ids = tokenizer.encode("a", false, false).value();
  ASSERT_EQ(tokenizer.piece(ids[0]).substr(0, 3), "\xe2\x96\x81");
  EXPECT_EQ(IncrementalDetokenizer(tokenizer, true, true).push(ids[0]).substr(0, 1), "a");
  EXPECT_EQ(IncrementalDetokenizer(tokenizer, true, false).push(ids[0]).substr(0, 1), " ");
}

TEST(Tokenizer, KeepsWholeCharactersOfABrokenRunOfByteTokens) {
  const Tokenizer tokenizer = load("llama2");
  std::vector<int32_t> ids;
  for (const char* piece : {"<0xC3>", "<0xA9>", "<0xE4>", "<0xB8>"}) {
    ids.push_back(tokenizer.token_to_id(piece));
  }
  EXPECT_EQ(tokenizer.decode(ids, true), "\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd");
}

TEST(Tokenizer, SpecialTokensInTextCountOnlyWhenAskedFor) {
  const Tokenizer tokenizer = load("llama3");
  const int32_t start = tokenizer.token_to_id("<|im_start|>");
  ASSERT_GE(start, 0);
  EXPECT_TRUE(tokenizer.is_special(start));
  EXPECT_FALSE(tokenizer.is_special(tokenizer.token_to_id("a")));
  EXPECT_EQ(tokenizer.encode("<|im_start|>", false, true).value(), std::vector<int32_t>{start});
  const std::vector<int32_t> plain = tokenizer.encode("<|im_start|>", false, false).value();
  EXPECT_GT(plain.size(), 1u);
  EXPECT_EQ(tokenizer.decode(plain, true), "<|im_start|>");
  EXPECT_EQ(tokenizer.decode(std::vector{start, plain[0]}, true), tokenizer.piece(plain[0]));
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.encode("", true, true).value(), std::vector<int32_t>{tokenizer.bos_id()});
}

// What `tokenizers` gives for tokens that swallow the spaces around them.
TEST(Tokenizer, AddedTokensSwallowSpaces) {
  using Ids = std::vector<int32_t>;
  const auto encode = [](std::string_view flags, std::string_view text) {
    return Tokenizer::from_json(
               with(kSmallModel,
                    fmt::format(R"(,"added_tokens":[{{"id":3,"content":" ",{}}}])", flags)),
               "", "t.json")
        .value()
        .encode(text, false, true)
        .value();
  };
  EXPECT_EQ(encode(R"("lstrip":true,"rstrip":true)", "a   b"), (Ids{0, 3, 1}));
  EXPECT_EQ(encode(R"("lstrip":true,"rstrip":true)", "a \n b"), (Ids{0, 3, 1}));
  EXPECT_EQ(encode(R"("lstrip":true)", "a   b"), (Ids{0, 3, 3, 3, 1}));
  EXPECT_EQ(encode(R"("lstrip":true)", "a \n b"), (Ids{0, 3, 3, 1}));
  EXPECT_EQ(encode(R"("rstrip":true)", "a   b"), (Ids{0, 3, 3, 3, 1}));
  EXPECT_EQ(encode(R"("single_word":true)", "a b"), (Ids{2}));
}

TEST(Tokenizer, ReadsTheNamedTokensOfTheConfig) {
  const Tokenizer tokenizer =
      Tokenizer::from_json(read_tokenizer("llama2"),
                           R"({"bos_token":{"content":"<s>"},"eos_token":"</s>","pad_token":null})",
                           "llama2")
          .value();
  EXPECT_EQ(tokenizer.bos_id(), tokenizer.token_to_id("<s>"));
  EXPECT_EQ(tokenizer.eos_id(), tokenizer.token_to_id("</s>"));
  EXPECT_EQ(tokenizer.pad_id(), -1);
  EXPECT_TRUE(tokenizer.is_end_of_generation(tokenizer.eos_id()));
  EXPECT_FALSE(tokenizer.is_end_of_generation(tokenizer.bos_id()));
  EXPECT_FALSE(tokenizer.is_end_of_generation(-1));
  EXPECT_EQ(Tokenizer::from_json(read_tokenizer("llama2"), "[]", "m").status().message(),
            "m (tokenizer_config.json): not a JSON object");
}

TEST(Tokenizer, KnowsTheEndsOfTurns) {
  const Tokenizer tokenizer = load("smollm");
  EXPECT_EQ(tokenizer.end_of_generation_ids(),
            (std::vector<int32_t>{tokenizer.token_to_id("<|endoftext|>"),
                                  tokenizer.token_to_id("<|im_end|>")}));
}

// Where any step took quadratic time, this would run into the test's time limit.
TEST(Tokenizer, TakesLinearTimeOnHostileText) {
  std::string marks = "e";
  for (int i = 0; i < 150000; ++i) marks += i % 2 == 0 ? "\xcc\x81" : "\xcc\xa3";
  for (const char* name : {"gpt2", "llama3", "qwen2", "gpt4o", "llama2", "metaspace", "words"}) {
    const Tokenizer tokenizer = load(name);
    for (const std::string& text :
         {std::string(300000, 'a'), std::string(300000, ' '), std::string(300000, '\n'),
          std::string(300000, '<'), std::string(300000, '\xff'), marks}) {
      const std::vector<int32_t> ids = tokenizer.encode(text, false, true).value();
      if (std::string_view(name) == "gpt2") {
        EXPECT_EQ(tokenizer.decode_bytes(ids, false), text);
      }
    }
  }
  // An added token that is a space and swallows spaces.
  const Tokenizer spaces =
      Tokenizer::from_json(with(kSmallModel, R"(,"added_tokens":[{"id":3,"content":" ",)"
                                             R"("rstrip":true}])"),
                           "", "t.json")
          .value();
  EXPECT_EQ(spaces.encode(std::string(300000, ' '), false, true).value().size(), 300000u);
}

TEST(Tokenizer, StopsANormalizerThatGrowsTheText) {
  std::string steps;
  for (int i = 0; i < 30; ++i) {
    steps += fmt::format(R"({}{{"type":"Replace","pattern":{{"String":"a"}},"content":"{}"}})",
                         i == 0 ? "" : ",", std::string(100, 'a'));
  }
  const Tokenizer tokenizer =
      Tokenizer::from_json(
          with(kSmallModel,
               fmt::format(R"(,"normalizer":{{"type":"Sequence","normalizers":[{}]}})", steps)),
          "", "t.json")
          .value();
  EXPECT_TRUE(tokenizer.encode("b", false, false).ok());
  EXPECT_EQ(tokenizer.encode("aa", false, false).status().message(),
            "t.json: normalizer makes this text too long");
}

TEST(Tokenizer, EncodesInManyThreadsAtOnce) {
  const Tokenizer tokenizer = load("gpt4o");
  const std::string text = "It's 12345 o'clock \xe4\xb8\xad\xe6\x96\x87, isn't it?\n\n  Yes.";
  const std::vector<int32_t> expected = tokenizer.encode(text, true, true).value();
  std::vector<std::thread> threads;
  std::vector<int> same(4);
  for (size_t t = 0; t < same.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        same[t] += tokenizer.encode(text, true, true).value() == expected ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, (std::vector<int>{200, 200, 200, 200}));
}

TEST(Tokenizer, RefusesBrokenModels) {
  EXPECT_EQ(error_of("{"), "t.json: not valid JSON");
  EXPECT_EQ(error_of("[]"), "t.json: not a JSON object");
  EXPECT_EQ(error_of("{}"), "t.json: 'model' is missing");
  EXPECT_EQ(error_of(R"({"model":{"type":"Unigram"}})"),
            "t.json: model: type 'Unigram' is not supported");
  EXPECT_EQ(error_of(with(R"("vocab":{"a":0,"b":0},"merges":[])")),
            "t.json: model.vocab: 'a' and 'b' have the same id 0");
  EXPECT_EQ(error_of(with(R"("vocab":{"a":2000000000},"merges":[])")),
            "t.json: model.vocab: 'a' has no usable id: 2000000000");
  EXPECT_EQ(error_of(with(R"("vocab":{"a":-1},"merges":[])")),
            "t.json: model.vocab: 'a' has no usable id: -1");
  EXPECT_EQ(error_of(with(R"("vocab":{"a":18446744073709551615},"merges":[])")),
            "t.json: model.vocab: 'a' has no usable id: 18446744073709551615");
  EXPECT_EQ(error_of(with(R"("vocab":{"a":0,"b":1},"merges":["a b"])")),
            "t.json: model.merges[0]: 'ab' is not in the vocabulary");
  EXPECT_EQ(error_of(with(R"("vocab":{"a":0},"merges":[["a","x"]])")),
            "t.json: model.merges[0]: 'x' is not in the vocabulary");
  EXPECT_EQ(error_of(with(R"("vocab":{"a":0},"merges":["a"])")),
            "t.json: model.merges[0]: not a pair of tokens");
  EXPECT_EQ(error_of(with(R"("vocab":{"a":0},"merges":["a","b","c"]],"x":[1)")),
            "t.json: not valid JSON");
  EXPECT_EQ(error_of(with(R"("vocab":{"a":0},"merges":[],"unk_token":"u")")),
            "t.json: model: unk_token 'u' is not in the vocabulary");
  EXPECT_EQ(error_of(with(R"("vocab":{"a":0},"merges":[],"dropout":0.1)")),
            "t.json: model: 'dropout' is not supported");
  EXPECT_EQ(error_of(with(R"("vocab":[],"merges":[])")), "t.json: model.vocab: expected an object");
}

TEST(Tokenizer, ErrorsStayOnOneShortLine) {
  EXPECT_EQ(error_of(with(R"("vocab":{"a":0},"merges":[],"unk_token":"u\nk\u001b")")),
            "t.json: model: unk_token 'u\\nk\\x1b' is not in the vocabulary");
  EXPECT_LT(error_of(with(fmt::format(R"("vocab":{{"a":0}},"merges":[],"unk_token":"{}")",
                                      std::string(100000, 'x'))))
                .size(),
            400u);
}

TEST(Tokenizer, RefusesBrokenPipelines) {
  const auto refused = [](std::string_view more) { return error_of(with(kSmallModel, more)); };
  EXPECT_EQ(refused(R"(,"added_tokens":[{"id":4194304,"content":"x"}])"),
            "t.json: added_tokens[0].id: 4194304 is not within 0..1040");
  EXPECT_EQ(refused(R"(,"added_tokens":[{"id":1,"content":"x"}])"),
            "t.json: added token 'x' takes the id 1 of 'b'");
  EXPECT_EQ(refused(fmt::format(R"(,"added_tokens":[{{"id":3,"content":"{}"}}])",
                                std::string(1025, 'x'))),
            "t.json: added token 3 has 1025 bytes, more than the 1024 allowed");
  EXPECT_EQ(refused(R"(,"normalizer":{"type":"Precompiled"})"),
            "t.json: normalizer: normalizer 'Precompiled' is not supported");
  EXPECT_EQ(refused(R"(,"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},)"
                    R"("behavior":"Isolated"})"),
            "t.json: pre_tokenizer: cannot use this pattern: missing closing parenthesis");
  EXPECT_EQ(refused(R"(,"pre_tokenizer":{"type":"Split","pattern":{"String":"x"},)"
                    R"("behavior":"Away"})"),
            "t.json: pre_tokenizer: behavior 'Away' is not supported");
  EXPECT_EQ(refused(R"(,"decoder":{"type":"Sequence","decoders":[{"type":"Fuse"},)"
                    R"({"type":"ByteFallback"}]})"),
            "t.json: decoder: steps in an order that is not supported");
  EXPECT_EQ(refused(R"(,"post_processor":{"type":"TemplateProcessing","single":)"
                    R"([{"SpecialToken":{"id":"s"}},{"Sequence":{"id":"A"}}],)"
                    R"("special_tokens":{"s":{"ids":[77]}}})"),
            "t.json: special id 77 is not in the vocabulary of 3 tokens");
  std::string deep = R"({"type":"NFC"})";
  for (int i = 0; i < 20; ++i) {
    deep = fmt::format(R"({{"type":"Sequence","normalizers":[{}]}})", deep);
  }
  const std::string message = refused(R"(,"normalizer":)" + deep);
  EXPECT_NE(message.find("nesting this deep is not supported"), std::string::npos) << message;
}

TEST(Tokenizer, ReportsAPatternThatExplodes) {
  const Tokenizer tokenizer =
      Tokenizer::from_json(with(kSmallModel, R"(,"pre_tokenizer":{"type":"Split","pattern":)"
                                             R"({"Regex":"(a|aa)+$"},"behavior":"Isolated"})"),
                           "", "t.json")
          .value();
  EXPECT_TRUE(tokenizer.encode("ab", false, false).ok());
  const Status status = tokenizer.encode(std::string(200, 'a') + "b", false, false).status();
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT_EQ(status.message(),
            "t.json: pre_tokenizer: the pattern fails on this text: match limit exceeded");
}

TokenizerData small_gguf() {
  TokenizerData data;
  data.tokens = {"<unk>",
                 "<s>",
                 "</s>",
                 "<0x41>",
                 "\xe2\x96\x81",
                 "a",
                 "b",
                 "ab",
                 "\xe2\x96\x81"
                 "ab",
                 "<tool>"};
  data.scores = {0, 0, 0, 0, -3, -4, -5, -1, -2, 0};
  data.token_types = {2, 3, 3, 6, 1, 1, 1, 1, 1, 4};
  data.kind = TokenizerData::Kind::kSentencePieceBpe;
  data.unk_id = 0;
  data.bos_id = 1;
  data.eos_id = 2;
  data.add_bos = true;
  return data;
}

TEST(TokenizerGguf, SentencePieceAddsBlanksAsItsLibraryDoes) {
  const Tokenizer tokenizer = Tokenizer::from_gguf(small_gguf(), "m.gguf").value();
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(tokenizer.encode("ab ab", true, true).value(), (Ids{1, 8, 8}));
  EXPECT_EQ(tokenizer.encode("Ab", false, true).value(), (Ids{4, 3, 6}));
  EXPECT_EQ(tokenizer.encode("\x42", false, true).value(), (Ids{4, 0}));  // no <0x42>
  // A user-defined token is found in any text, a control token only if asked for; text behind one
  // gets its blank again, as in llama.cpp.
  EXPECT_EQ(tokenizer.encode("a<tool>a</s>", false, true).value(), (Ids{4, 5, 9, 4, 5, 2}));
  EXPECT_EQ(tokenizer.encode("<tool></s>", false, false).value()[0], 9);
  EXPECT_NE(tokenizer.encode("<tool></s>", false, false).value().back(), 2);
  EXPECT_EQ(tokenizer.decode(Ids{1, 8, 8, 2}, true), "ab ab");
  TokenizerData bare = small_gguf();
  bare.add_space_prefix = false;
  bare.add_eos = true;
  EXPECT_EQ(Tokenizer::from_gguf(bare, "m.gguf").value().encode("ab", true, true).value(),
            (Ids{1, 7, 2}));
}

TEST(TokenizerGguf, RefusesBrokenMetadata) {
  const auto refused = [](auto change) {
    TokenizerData data = small_gguf();
    change(data);
    const Result<Tokenizer> result = Tokenizer::from_gguf(std::move(data), "m.gguf");
    return result.status().message();
  };
  EXPECT_EQ(refused([](TokenizerData& d) { d.tokens.clear(); }),
            "m.gguf: tokenizer.ggml.tokens has 0 entries");
  EXPECT_EQ(refused([](TokenizerData& d) { d.scores.pop_back(); }),
            "m.gguf: tokenizer.ggml.scores has 9 entries for 10 tokens");
  EXPECT_EQ(refused([](TokenizerData& d) { d.scores.clear(); }),
            "m.gguf: tokenizer.ggml.scores is missing");
  EXPECT_EQ(refused([](TokenizerData& d) { d.scores[5] = NAN; }),
            "m.gguf: tokenizer.ggml.scores[5] is not a number");
  EXPECT_EQ(refused([](TokenizerData& d) { d.token_types.resize(3); }),
            "m.gguf: tokenizer.ggml.token_type has 3 entries for 10 tokens");
  EXPECT_EQ(refused([](TokenizerData& d) { d.tokens[5] = "\xff"; }),
            "m.gguf: tokenizer.ggml.tokens[5] is not UTF-8");
  EXPECT_EQ(refused([](TokenizerData& d) { d.tokens[5] = "b"; }),
            "m.gguf: token 6 repeats the text of token 5");
  EXPECT_EQ(refused([](TokenizerData& d) { d.bos_id = 10; }),
            "m.gguf: the bos token 10 is not among the 10 tokens");
  EXPECT_EQ(refused([](TokenizerData& d) { d.end_of_generation_ids = {99}; }),
            "m.gguf: special id 99 is not in the vocabulary of 10 tokens");
  const auto byte_level = [&](auto change) {
    return refused([&](TokenizerData& d) {
      d.kind = TokenizerData::Kind::kByteLevelBpe;
      change(d);
    });
  };
  EXPECT_EQ(byte_level([](TokenizerData& d) { d.pre_tokenizer = "martian"; }),
            "m.gguf: tokenizer.ggml.pre 'martian' is not supported");
  EXPECT_EQ(byte_level([](TokenizerData& d) {
              d.merges = {"a b", "ab"};
            }),
            "m.gguf: tokenizer.ggml.merges[1] is not a pair of tokens");
  EXPECT_EQ(byte_level([](TokenizerData& d) { d.merges = {"a a"}; }),
            "m.gguf: tokenizer.ggml.merges[0]: 'aa' is not in the vocabulary");
}

}  // namespace
}  // namespace atom
