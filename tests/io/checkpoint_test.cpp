#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/json.h"
#include "base/random.h"
#include "io/hf_config.h"
#include "io/packed_parts.h"
#include "io/test_files.h"

namespace atom {
namespace {

using testing::TempFolder;

ModelConfig small_config(bool tied) {
  const Json json = {
      {"model_type", "qwen3"},  {"hidden_size", 16},          {"intermediate_size", 24},
      {"num_hidden_layers", 2}, {"num_attention_heads", 4},   {"num_key_value_heads", 2},
      {"head_dim", 4},          {"vocab_size", 20},           {"max_position_embeddings", 64},
      {"eos_token_id", 2},      {"tie_word_embeddings", tied}};
  return parse_hf_config(json, "c").value();
}

CheckpointMeta small_meta(bool tied, bool extras) {
  CheckpointMeta meta;
  meta.config = small_config(tied);
  meta.config_json = hf_config_json(meta.config).dump();
  meta.recipe_json = R"({"name":"test"})";
  if (!extras) return meta;
  meta.kv = {KvKind::kInt, 4, false, true, true};
  meta.prefix_tokens = {1, 19};
  return meta;
}

const LinearFormat kFormats[] = {
    {{WeightKind::kFloat, DType::kF32, 4, 128, 0, OutlierKind::kNone}, {}},
    {{WeightKind::kFloat, DType::kF16, 4, 128, 0, OutlierKind::kNone}, {}},
    {{WeightKind::kFloat, DType::kBF16, 4, 128, 0, OutlierKind::kNone}, {}},
    {{WeightKind::kGrouped, DType::kF32, 4, 4, 0, OutlierKind::kNone},
     {true, 4, 4, ActRule::kSymmetric, 0.9f, false}},
    {{WeightKind::kGrouped, DType::kF32, 4, 4, 8, OutlierKind::kInt8},
     {true, 4, 4, ActRule::kSigned, 1.0f, true}},
    {{WeightKind::kGrouped, DType::kF32, 3, 0, 4, OutlierKind::kFloat},
     {true, 3, 0, ActRule::kAsymmetric, 0.7f, false}},
    {{WeightKind::kGrouped, DType::kF32, 8, 0, 0, OutlierKind::kNone},
     {true, 8, 0, ActRule::kSymmetric, 1.0f, false}},
    {{WeightKind::kTwoLevel, DType::kF32, 4, 4, 8, OutlierKind::kInt8},
     {true, 8, 0, ActRule::kSymmetric, 1.0f, false}},
    {{WeightKind::kGrouped, DType::kF32, 4, 4, 4, OutlierKind::kInt8, CodeGrid::kE2M1,
      GroupScales::kE4M3},
     {true, 4, 4, ActRule::kSymmetric, 1.0f, false, CodeGrid::kE2M1, GroupScales::kE4M3}},
};

// A valid linear with random contents.
PackedLinear random_linear(const LinearSpec& spec, const LinearFormat& format, Random& random) {
  PackedLinear p;
  p.format = format;
  p.rows = spec.rows;
  p.cols = spec.cols;
  const Status filled = for_each_part(
      p, [&](const char* suffix, DType, const std::vector<int64_t>& shape, auto& array) -> Status {
        using T = typename std::remove_reference_t<decltype(array)>::value_type;
        int64_t count = 1;
        for (const int64_t size : shape) count *= size;
        array.resize(static_cast<size_t>(count));
        const std::string name = suffix;
        for (T& value : array) {
          if constexpr (std::is_same_v<T, float>) {
            value = static_cast<float>(random.normal());
          } else if (name == "group_scales") {
            value = static_cast<T>(1 + random.below(16));
          } else if (name == "group_zeros") {
            value = static_cast<T>(-128 + random.below(15));
          } else if (name == "row_scales" && format.weight.scales == GroupScales::kE4M3) {
            value = static_cast<T>((1 + random.below(22)) << 10);  // a power of two
          } else if constexpr (std::is_same_v<T, uint16_t>) {
            value = static_cast<T>(random.below(0x7c00));  // finite, not negative
          } else {
            value = static_cast<T>(random.next());
          }
        }
        return {};
      });
  EXPECT_TRUE(filled.ok());
  if (spec.bias) {
    for (int64_t i = 0; i < p.rows; ++i) p.bias.push_back(static_cast<float>(random.normal()));
  }
  return p;
}

struct Model {
  CheckpointMeta meta;
  std::map<std::string, PackedLinear> linears;
  std::map<std::string, std::vector<float>> floats;
  std::map<std::string, std::vector<int32_t>> perms;
};

Model random_model(const CheckpointMeta& meta, size_t first_format) {
  Model model;
  model.meta = meta;
  Random random(first_format);
  size_t format = first_format;
  for (const LinearSpec& spec : checkpoint_linears(meta.config)) {
    model.linears[spec.name] =
        random_linear(spec, kFormats[format++ % std::size(kFormats)], random);
  }
  for (const TensorSpec& spec : checkpoint_floats(meta)) {
    int64_t count = 1;
    for (const int64_t size : spec.shape) count *= size;
    for (int64_t i = 0; i < count; ++i) {
      model.floats[spec.name].push_back(static_cast<float>(random.normal()));
    }
  }
  for (const TensorSpec& spec : checkpoint_perms(meta.config)) {
    std::vector<int32_t>& perm = model.perms[spec.name];
    perm.resize(static_cast<size_t>(spec.shape[0]));
    std::iota(perm.begin(), perm.end(), 0);
    for (size_t i = perm.size(); i > 1; --i) {
      std::swap(perm[i - 1], perm[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
    }
  }
  return model;
}

Status write_model(const Model& model, const std::filesystem::path& folder, int64_t shard_bytes) {
  CheckpointWriter writer = ATOM_TRY(CheckpointWriter::create(folder, model.meta, shard_bytes));
  for (const auto& [name, linear] : model.linears) ATOM_TRY(writer.add_linear(name, linear));
  for (const TensorSpec& spec : checkpoint_floats(model.meta)) {
    ATOM_TRY(writer.add_floats(spec.name, spec.shape, model.floats.at(spec.name)));
  }
  for (const auto& [name, perm] : model.perms) ATOM_TRY(writer.add_perm(name, perm));
  ATOM_TRY(writer.add_text_file("tokenizer.json", "{}"));
  ATOM_TRY(writer.add_text_file("chat_template.jinja", "{{ y }}"));
  return writer.finish();
}

void expect_equal(const PackedLinear& a, const PackedLinear& b) {
  EXPECT_EQ(a.format, b.format);
  EXPECT_EQ(a.rows, b.rows);
  EXPECT_EQ(a.cols, b.cols);
  EXPECT_EQ(a.values, b.values);
  EXPECT_EQ(a.values16, b.values16);
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.scales, b.scales);
  EXPECT_EQ(a.group_scales, b.group_scales);
  EXPECT_EQ(a.group_zeros, b.group_zeros);
  EXPECT_EQ(a.row_scales, b.row_scales);
  EXPECT_EQ(a.outlier_codes, b.outlier_codes);
  EXPECT_EQ(a.outlier_scales, b.outlier_scales);
  EXPECT_EQ(a.outlier_values, b.outlier_values);
  EXPECT_EQ(a.bias, b.bias);
}

TEST(Checkpoint, RoundTripsEveryFormatBitForBit) {
  for (size_t first = 0; first < std::size(kFormats); ++first) {
    const bool tied = first % 2 == 0, extras = first % 3 == 0;
    const int64_t shard_bytes = first % 4 == 0 ? 2000 : SafetensorsWriter::kShardBytes;
    Model model = random_model(small_meta(tied, extras), first);
    // A bias that the architecture does not have may be there too.
    PackedLinear& o = model.linears.at("model.layers.0.self_attn.o_proj");
    o.bias.assign(static_cast<size_t>(o.rows), 0.5f);
    const TempFolder folder;
    ASSERT_EQ(write_model(model, folder.path(), shard_bytes).message(), "");
    ASSERT_TRUE(Checkpoint::is_checkpoint(folder.path()));
    const Checkpoint checkpoint = Checkpoint::open(folder.path()).value();
    EXPECT_EQ(checkpoint.meta().config, model.meta.config);
    EXPECT_EQ(checkpoint.meta().kv, model.meta.kv);
    EXPECT_EQ(checkpoint.meta().prefix_tokens, model.meta.prefix_tokens);
    EXPECT_EQ(checkpoint.meta().recipe_json, model.meta.recipe_json);
    EXPECT_EQ(parse_json(checkpoint.meta().config_json, "a").value(),
              parse_json(model.meta.config_json, "b").value());
    EXPECT_EQ(checkpoint.linears().size(), tied ? 15u : 16u);
    int64_t bytes = 0;
    PackedLinear last;
    for (const CheckpointLinear& linear : checkpoint.linears()) {
      const PackedLinear read = checkpoint.linear(linear.name).value();
      expect_equal(read, model.linears.at(linear.name));
      EXPECT_EQ(linear.bytes, read.bytes());
      // Over another linear of that format and shape, in its memory; over any other, in its own.
      PackedLinear room = read;
      for (uint8_t& code : room.codes) code ^= 0xff;
      for (float& value : room.values) value += 1.0f;
      room.bias.assign(static_cast<size_t>(room.rows), 7.0f);
      const uint8_t* const codes = room.codes.data();
      room = checkpoint.linear(linear.name, std::move(room)).value();
      expect_equal(room, read);
      EXPECT_EQ(room.codes.data(), codes);
      last = checkpoint.linear(linear.name, std::move(last)).value();
      expect_equal(last, read);
      bytes += linear.bytes;
    }
    for (const auto& [name, values] : model.floats) {
      EXPECT_EQ(checkpoint.floats(name).value(), values);
      bytes += static_cast<int64_t>(4 * values.size());
    }
    for (const auto& [name, perm] : model.perms) {
      EXPECT_EQ(checkpoint.perm(name).value(), perm);
      bytes += static_cast<int64_t>(4 * perm.size());
    }
    EXPECT_EQ(checkpoint.total_bytes(), bytes);
    EXPECT_EQ(checkpoint.text_assets().value().chat_template, "{{ y }}");
    EXPECT_EQ(open_model_source(folder.path()).status().code(), ErrorCode::kUnsupported);
  }
}

TEST(Checkpoint, ReadsWhatAnotherProgramWroteFromTheDocument) {
  const Checkpoint checkpoint = Checkpoint::open(testing::data_path("checkpoint")).value();
  EXPECT_EQ(checkpoint.meta().prefix_tokens, std::vector<int32_t>{1});
  const std::string golden = testing::read_data("checkpoint/values.f32");
  std::vector<std::string> names;
  for (const CheckpointLinear& linear : checkpoint.linears()) names.push_back(linear.name);
  std::sort(names.begin(), names.end());
  size_t at = 0;
  for (const std::string& name : names) {
    const PackedLinear linear = checkpoint.linear(name).value();
    std::vector<double> values(static_cast<size_t>(linear.rows * linear.cols));
    dequantize(linear, values);
    for (const double value : values) {
      float expected = 0.0f;
      ASSERT_LE(at + sizeof expected, golden.size());
      std::memcpy(&expected, golden.data() + at, sizeof expected);
      EXPECT_EQ(static_cast<float>(value), expected) << name;
      at += sizeof expected;
    }
  }
  EXPECT_EQ(at, golden.size());
}

TEST(Checkpoint, BytesDoNotDependOnTheOrder) {
  const Model model = random_model(small_meta(true, true), 3);
  const TempFolder a, b;
  ASSERT_TRUE(write_model(model, a.path(), SafetensorsWriter::kShardBytes).ok());
  CheckpointWriter writer = CheckpointWriter::create(b.path(), model.meta).value();
  for (const auto& [name, perm] : model.perms) ASSERT_TRUE(writer.add_perm(name, perm).ok());
  for (auto it = model.linears.rbegin(); it != model.linears.rend(); ++it) {
    ASSERT_TRUE(writer.add_linear(it->first, it->second).ok());
  }
  for (const TensorSpec& spec : checkpoint_floats(model.meta)) {
    ASSERT_TRUE(writer.add_floats(spec.name, spec.shape, model.floats.at(spec.name)).ok());
  }
  ASSERT_TRUE(writer.finish().ok());
  for (const char* name : {"model.safetensors", "config.json"}) {
    EXPECT_EQ(read_text_file(a.path() / name, 1 << 20).value(),
              read_text_file(b.path() / name, 1 << 20).value());
  }
}

TEST(Checkpoint, AnIncompleteModelIsNotWritten) {
  const auto finish_error = [](const std::function<void(Model&)>& change) {
    Model model = random_model(small_meta(true, false), 4);
    change(model);
    const TempFolder folder;
    return write_model(model, folder.path(), SafetensorsWriter::kShardBytes).message();
  };
  EXPECT_EQ(finish_error([](Model& m) { m.linears.erase("model.embed_tokens"); }),
            "checkpoint: 'model.embed_tokens' was not written");
  EXPECT_EQ(finish_error([](Model& m) { m.perms.erase("model.layers.1.self_attn.o_perm"); }),
            "checkpoint: 'model.layers.1.self_attn.o_perm' was not written");
  EXPECT_EQ(finish_error([](Model& m) { m.perms["model.layers.9.self_attn.o_perm"] = {0}; }),
            "checkpoint: 'model' has tensors of no use");
  EXPECT_EQ(finish_error([](Model& m) {
              PackedLinear& p = m.linears.at("model.layers.0.self_attn.q_proj");
              p.codes.pop_back();
            }),
            "model.layers.0.self_attn.q_proj: qweight: 95 elements, expected 96");
  EXPECT_EQ(finish_error([](Model& m) { m.meta.config.layers = 1; }),
            "checkpoint: 'config_json' does not say the configuration");
}

// Opening errors after a change to the JSON, with the folder's name taken out.
std::string open_error(const std::function<void(Json&)>& change) {
  const TempFolder folder;
  const Model model = random_model(small_meta(true, true), 3);
  EXPECT_TRUE(write_model(model, folder.path(), SafetensorsWriter::kShardBytes).ok());
  Json config = read_json_file(folder.path() / "config.json").value();
  change(config);
  folder.write("config.json", config.dump());
  std::string message = Checkpoint::open(folder.path()).status().message();
  const std::string prefix = folder.path().string() + "/";
  if (message.starts_with(prefix)) message.erase(0, prefix.size());
  return message;
}

TEST(Checkpoint, ConfigsThatDoNotFitAreRefusedByName) {
  const char* kQuant = "quantization_config";
  const char* kQ = "model.layers.0.self_attn.q_proj";
  EXPECT_EQ(open_error([](Json&) {}), "");
  EXPECT_EQ(open_error([&](Json& c) { c.erase(kQuant); }),
            "config.json: 'quantization_config' is missing");
  EXPECT_EQ(open_error([&](Json& c) { c[kQuant]["version"] = 2; }),
            "config.json: quantization_config: version: 2 is not supported (1 is)");
  EXPECT_EQ(open_error([&](Json& c) { c[kQuant]["quant_method"] = "gptq"; }),
            "config.json: quantization_config: quant_method: 'gptq' is not an Atom checkpoint's");
  EXPECT_EQ(open_error([&](Json& c) { c[kQuant]["extra"] = 1; }),
            "config.json: quantization_config: unknown field 'extra'");
  EXPECT_EQ(open_error([&](Json& c) {
              c[kQuant]["prefix_tokens"] = {1, 20};
            }),
            "config.json: quantization_config.prefix_tokens[1]: 20 is not within 0..19");
  EXPECT_EQ(open_error([&](Json& c) { c[kQuant]["prefix_tokens"] = Json::array({1}); }),
            "model.safetensors: tensor 'model.layers.0.self_attn.prefix_k': shape [2, 2, 4], "
            "expected [1, 2, 4]");
  EXPECT_EQ(
      open_error([&](Json& c) { c[kQuant]["formats"].erase(kQ); }),
      "config.json: quantization_config.formats: 'model.layers.0.self_attn.q_proj' is missing");
  EXPECT_EQ(open_error([&](Json& c) { c[kQuant]["formats"]["x"] = c[kQuant]["formats"][kQ]; }),
            "config.json: quantization_config.formats: 16 entries for 15 linears");
  EXPECT_EQ(open_error([&](Json& c) { c[kQuant]["formats"][kQ]["weight"]["group"] = 12; }),
            "config.json: quantization_config.formats.model.layers.0.self_attn.q_proj: format: "
            "group = 12: does not divide the body channels");
  EXPECT_EQ(open_error([&](Json& c) { c[kQuant]["kv"]["hadamard"] = 1; }),
            "config.json: quantization_config.kv.hadamard: expected true or false, found 1");
  EXPECT_EQ(open_error([&](Json& c) { c[kQuant]["kv"]["bits"] = 5; }),
            "config.json: format: kv.bits = 5: must be 3, 4 or 8");
  EXPECT_NE(open_error([&](Json& c) {
              c[kQuant]["kv"]["centered"] = false;
            }).find("tensor 'model.layers.0.self_attn.k_mean' has no place in this model"),
            std::string::npos);
  EXPECT_EQ(
      open_error([&](Json& c) { c["vocab_size"] = 21; }),
      "model.safetensors: tensor 'model.embed_tokens.qweight': shape [20, 8], expected [21, 8]");
  EXPECT_NE(open_error([&](Json& c) {
              c["tie_word_embeddings"] = false;
            }).find("formats: 'lm_head' is missing"),
            std::string::npos);
  EXPECT_NE(open_error([&](Json& c) { c["num_hidden_layers"] = 3; }).find("is missing"),
            std::string::npos);
}

// The error of reading one tensor whose bytes were changed in the file.
std::string read_error(const std::string& tensor,
                       const std::function<void(std::byte*, size_t)>& change,
                       const std::function<Status(const Checkpoint&)>& read) {
  const TempFolder folder;
  const Model model = random_model(small_meta(true, true), 3);
  EXPECT_TRUE(write_model(model, folder.path(), SafetensorsWriter::kShardBytes).ok());
  const std::filesystem::path path = folder.path() / "model.safetensors";
  std::string bytes = read_text_file(path, 1 << 20).value();
  const SafetensorsFile file = SafetensorsFile::parse(testing::as_bytes(bytes), "f").value();
  const std::span<const std::byte> data = file.tensors().at(tensor).bytes;
  change(reinterpret_cast<std::byte*>(bytes.data()) +
             (data.data() - reinterpret_cast<const std::byte*>(bytes.data())),
         data.size());
  folder.write("model.safetensors", bytes);
  const Checkpoint checkpoint = Checkpoint::open(folder.path()).value();
  std::string message = read(checkpoint).message();
  const std::string prefix = folder.path().string();
  if (message.starts_with(prefix)) message.erase(0, prefix.size());
  return message;
}

TEST(Checkpoint, ValuesOutOfRangeAreRefusedByName) {
  const std::string perm = "model.layers.0.self_attn.o_perm";
  const auto read_perm = [&](const Checkpoint& c) { return c.perm(perm).status(); };
  const auto put = [](int32_t value) {
    return [value](std::byte* at, size_t) { std::memcpy(at, &value, sizeof value); };
  };
  EXPECT_EQ(read_error(perm, put(16), read_perm),
            "/model.safetensors: tensor 'model.layers.0.self_attn.o_perm': channel 16 at 0 is not "
            "within 0..15");
  EXPECT_EQ(read_error(perm, put(-1), read_perm),
            "/model.safetensors: tensor 'model.layers.0.self_attn.o_perm': channel -1 at 0 is not "
            "within 0..15");
  EXPECT_NE(read_error(
                perm, [](std::byte* at, size_t) { std::memcpy(at, at + 4, 4); }, read_perm)
                .find("stands there twice"),
            std::string::npos);
  const std::string norm = "model.norm.weight";
  const float nan = NAN;
  EXPECT_EQ(read_error(
                norm, [&](std::byte* at, size_t) { std::memcpy(at + 8, &nan, 4); },
                [&](const Checkpoint& c) { return c.floats(norm).status(); }),
            "/model.safetensors: tensor 'model.norm.weight': value 2 is not finite");
  const auto fill = [](std::byte* at, size_t size) { std::memset(at, 0xff, size); };
  EXPECT_EQ(read_error("model.embed_tokens.scales", fill,
                       [](const Checkpoint& c) { return c.linear("model.embed_tokens").status(); }),
            ": tensor 'model.embed_tokens': scales[0]: not finite");
}

TEST(Checkpoint, UnknownNamesAreErrors) {
  const TempFolder folder;
  ASSERT_TRUE(write_model(random_model(small_meta(true, false), 0), folder.path(),
                          SafetensorsWriter::kShardBytes)
                  .ok());
  const Checkpoint checkpoint = Checkpoint::open(folder.path()).value();
  EXPECT_FALSE(checkpoint.linear("lm_head").ok());
  EXPECT_FALSE(checkpoint.floats("model.layers.0.self_attn.k_mean").ok());
  EXPECT_FALSE(checkpoint.floats("model.layers.0.self_attn.o_perm").ok());
  EXPECT_FALSE(checkpoint.perm("model.norm.weight").ok());
  EXPECT_FALSE(Checkpoint::is_checkpoint(folder.path() / "config.json"));
  EXPECT_FALSE(Checkpoint::is_checkpoint("/nowhere"));
}

}  // namespace
}  // namespace atom
