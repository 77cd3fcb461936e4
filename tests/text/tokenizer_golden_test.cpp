// Every pipeline against what the real libraries gave (tools/make_tokenizer_goldens.py).
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/json.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace atom {
namespace {

std::string read_data(const std::string& name) {
  std::ifstream file(std::string(ATOM_TEST_DATA) + "/text/" + name, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  EXPECT_TRUE(file.good()) << name;
  return bytes.str();
}

const std::vector<std::string>& strings() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> result;
    std::istringstream lines(read_data("strings.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      result.push_back(parse_json(line, "strings.jsonl").value().get<std::string>());
    }
    return result;
  }();
  return all;
}

uint32_t crc32(uint32_t crc, const void* data, size_t size) {
  crc = ~crc;
  for (size_t i = 0; i < size; ++i) {
    crc ^= static_cast<const uint8_t*>(data)[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1)));
  }
  return ~crc;
}
uint32_t crc32(uint32_t crc, const std::vector<int32_t>& ids) {
  return crc32(crc, ids.data(), ids.size() * sizeof(int32_t));
}
uint32_t crc32(uint32_t crc, const std::string& text) {
  return crc32(crc, text.data(), text.size());
}

std::vector<uint32_t> read_crcs(const std::string& name) {
  const std::string bytes = read_data(name);
  std::vector<uint32_t> crcs(bytes.size() / 4);
  std::memcpy(crcs.data(), bytes.data(), crcs.size() * 4);
  return crcs;
}

std::string incremental(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip) {
  IncrementalDetokenizer detokenizer(tokenizer, skip);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.push(id);
  return text + detokenizer.finish();
}

std::string escaped(const std::string& text) { return Json(text).dump(-1, ' ', true); }

class TokenizerGolden : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerGolden, EqualsTheLibrary) {
  const std::string name = GetParam();
  const Result<Tokenizer> loaded = Tokenizer::from_json(read_data(name + ".json"), "", name);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  const Tokenizer& tokenizer = loaded.value();
  const std::vector<uint32_t> crcs = read_crcs(name + ".crc32");
  ASSERT_EQ(crcs.size(), strings().size());
  ASSERT_GE(crcs.size(), 10000u);
  for (size_t i = 0; i < crcs.size() && !HasFailure(); ++i) {
    const std::vector<int32_t> ids = tokenizer.encode(strings()[i], true, true).value();
    const std::vector<int32_t> plain = tokenizer.encode(strings()[i], false, false).value();
    const std::string skipped = tokenizer.decode(ids, true);
    const std::string whole = tokenizer.decode(ids, false);
    const uint32_t crc = crc32(crc32(crc32(crc32(0, ids), skipped), whole), plain);
    EXPECT_EQ(crc, crcs[i]) << i << ": " << escaped(strings()[i]) << " -> " << escaped(whole) << ' '
                            << testing::PrintToString(ids);
    EXPECT_EQ(incremental(tokenizer, ids, true), skipped) << escaped(strings()[i]);
    EXPECT_EQ(incremental(tokenizer, ids, false), whole) << escaped(strings()[i]);
  }
}

TEST_P(TokenizerGolden, WritesATokenizerJsonThatReadsBackTheSame) {
  const std::string name = GetParam();
  const Tokenizer tokenizer = Tokenizer::from_json(read_data(name + ".json"), "", name).value();
  const std::string json = tokenizer.to_json();
  const Result<Tokenizer> again = Tokenizer::from_json(json, tokenizer.to_config_json(), "written");
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_EQ(again.value().to_json(), json);
  EXPECT_EQ(again.value().bos_id(), tokenizer.bos_id());
  for (size_t i = 0; i < strings().size(); i += 7) {
    const std::vector<int32_t> ids = tokenizer.encode(strings()[i], true, true).value();
    ASSERT_EQ(again.value().encode(strings()[i], true, true).value(), ids) << escaped(strings()[i]);
    ASSERT_EQ(again.value().decode(ids, false), tokenizer.decode(ids, false));
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerGolden,
                         testing::Values("gpt2", "llama3", "qwen2", "smollm", "gpt4o", "llama2",
                                         "metaspace", "characters", "mixed", "words"),
                         [](const auto& info) { return std::string(info.param); });

// The metadata a GGUF file would hold for a byte-level tokenizer.json.
TokenizerData gguf_data(const std::string& name, const std::string& pre) {
  const Json json = parse_json(read_data(name + ".json"), name).value();
  TokenizerData data;
  data.pre_tokenizer = pre;
  const auto put = [&](const std::string& token, size_t id, int32_t type) {
    if (id >= data.tokens.size()) {
      data.tokens.resize(id + 1);
      data.token_types.resize(id + 1, 5);
    }
    data.tokens[id] = token;
    data.token_types[id] = type;
  };
  for (const auto& [token, id] : json["model"]["vocab"].items()) put(token, id.get<size_t>(), 1);
  for (const Json& token : json["added_tokens"]) {
    put(token["content"].get<std::string>(), token["id"].get<size_t>(),
        token["special"].get<bool>() ? 3 : 4);
  }
  for (const Json& merge : json["model"]["merges"]) {
    data.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  return data;
}

TEST(TokenizerGguf, ByteLevelEqualsTokenizerJson) {
  for (const auto& [name, pre] :
       {std::pair{"gpt2", "gpt-2"}, std::pair{"gpt2", "default"}, std::pair{"llama3", "llama-bpe"},
        std::pair{"qwen2", "qwen2"}, std::pair{"smollm", "smollm"}, std::pair{"gpt4o", "gpt-4o"}}) {
    TokenizerData data = gguf_data(name, pre);
    data.bos_id = 0;
    data.add_bos = std::string_view(name) == "llama3";
    const Result<Tokenizer> loaded = Tokenizer::from_gguf(data, name);
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    EXPECT_EQ(loaded.value().adds_bos(), data.add_bos);
    const std::vector<uint32_t> crcs = read_crcs(std::string(name) + ".crc32");
    for (size_t i = 0; i < crcs.size(); i += 3) {
      const std::vector<int32_t> ids = loaded.value().encode(strings()[i], true, true).value();
      const uint32_t crc = crc32(crc32(crc32(crc32(0, ids), loaded.value().decode(ids, true)),
                                       loaded.value().decode(ids, false)),
                                 loaded.value().encode(strings()[i], false, false).value());
      ASSERT_EQ(crc, crcs[i]) << pre << ' ' << i << ": " << escaped(strings()[i]);
    }
  }
}

TEST(TokenizerGguf, SentencePieceEqualsTheLibrary) {
  const Json json = parse_json(read_data("spm.json"), "spm.json").value();
  TokenizerData data;
  data.kind = TokenizerData::Kind::kSentencePieceBpe;
  data.tokens = json["tokens"].get<std::vector<std::string>>();
  data.scores = json["scores"].get<std::vector<float>>();
  data.token_types = json["types"].get<std::vector<int32_t>>();
  data.unk_id = 0;
  data.bos_id = 1;
  data.eos_id = 2;
  const Result<Tokenizer> loaded = Tokenizer::from_gguf(data, "spm");
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  const Tokenizer again =
      Tokenizer::from_json(loaded.value().to_json(), loaded.value().to_config_json(), "written")
          .value();
  EXPECT_EQ(again.eos_id(), 2);
  const std::vector<uint32_t> crcs = read_crcs("spm.crc32");
  ASSERT_EQ(crcs.size(), strings().size());
  for (size_t i = 0; i < crcs.size() && !HasFailure(); ++i) {
    const std::vector<int32_t> ids = loaded.value().encode(strings()[i], false, false).value();
    const std::string text = loaded.value().decode(ids, true);
    EXPECT_EQ(crc32(crc32(0, ids), text), crcs[i])
        << i << ": " << escaped(strings()[i]) << " -> " << escaped(text) << ' '
        << testing::PrintToString(ids);
    EXPECT_EQ(again.encode(strings()[i], false, false).value(), ids) << escaped(strings()[i]);
    EXPECT_EQ(incremental(loaded.value(), ids, true), text) << escaped(strings()[i]);
  }
}

}  // namespace
}  // namespace atom
