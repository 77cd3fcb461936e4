#include "io/gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "io/gguf_bytes.h"
#include "io/test_files.h"

namespace atom {
namespace {

using testing::as_bytes;
using testing::data_path;
using testing::exact_copy;
using testing::GgufBytes;
using testing::read_data;

std::string parse_error(const GgufBytes& bytes) {
  const std::vector<std::byte> copy = exact_copy(as_bytes(bytes.text()));
  return GgufFile::parse(copy, "f.gguf").status().message();
}

TEST(Gguf, EveryTypeDecodesToTheBitsOfTheGgufPackage) {
  const GgufFile file = GgufFile::open(data_path("quants.gguf")).value();
  const std::string golden = read_data("quants.f32");
  std::vector<float> expected(golden.size() / sizeof(float));
  std::memcpy(expected.data(), golden.data(), golden.size());
  size_t at = 0;
  // The order in which tools/make_io_goldens.py writes them.
  for (const char* name : {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K",
                           "Q3_K", "Q4_K", "Q5_K", "Q6_K"}) {
    const auto it = file.tensors().find(std::string_view(name));
    ASSERT_NE(it, file.tensors().end()) << name;
    const GgufTensor& tensor = it->second;
    EXPECT_STREQ(tensor.type->name, name);
    ASSERT_EQ(tensor.shape, (std::vector<int64_t>{3, 512}));
    std::vector<float> values(3 * 512, NAN);
    GgufFile::decode_rows(tensor, 0, 1, values.data());
    GgufFile::decode_rows(tensor, 1, 2, values.data() + 512);
    for (const float value : values) {
      ASSERT_EQ(std::bit_cast<uint32_t>(value), std::bit_cast<uint32_t>(expected.at(at)))
          << name << " value " << at % 1536;
      ++at;
    }
  }
  EXPECT_EQ(at, expected.size());
}

TEST(Gguf, F64RoundsToFloat) {
  GgufBytes bytes;
  bytes.header(1, 0).tensor("t", 2, 28, 0).pad(64).put(0.1).put(-1e300);
  const GgufFile file = GgufFile::parse(as_bytes(bytes.text()), "f.gguf").value();
  float values[2];
  GgufFile::decode_rows(file.tensors().at("t"), 0, 1, values);
  EXPECT_EQ(values[0], 0.1f);
  EXPECT_EQ(values[1], -INFINITY);
}

TEST(Gguf, MetadataOfEveryTypeReads) {
  const GgufFile file = GgufFile::open(data_path("metadata.gguf")).value();
  constexpr int64_t kMin = INT64_MIN, kMax = INT64_MAX;
  EXPECT_EQ(file.get_int("u8", kMin, kMax).value(), 200);
  EXPECT_EQ(file.get_int("i8", kMin, kMax).value(), -100);
  EXPECT_EQ(file.get_int("u16", kMin, kMax).value(), 60000);
  EXPECT_EQ(file.get_int("i16", kMin, kMax).value(), -30000);
  EXPECT_EQ(file.get_int("u32", kMin, kMax).value(), 4000000000);
  EXPECT_EQ(file.get_int("i32", kMin, kMax).value(), -2000000000);
  EXPECT_EQ(file.get_int("u64", kMin, kMax).value(), int64_t{1} << 40);
  EXPECT_EQ(file.get_int("i64", kMin, kMax).value(), -(int64_t{1} << 40));
  EXPECT_EQ(file.get_number("f32").value(), 1e-5);  // as written, not as a float holds it
  EXPECT_EQ(file.get_number("f64").value(), 0.1);
  EXPECT_EQ(file.get_number("i8").value(), -100.0);
  EXPECT_TRUE(file.get_bool("yes").value());
  EXPECT_EQ(file.get_string("text").value(), "caf\xc3\xa9\n");
  EXPECT_EQ(file.get_strings("strings").value(), (std::vector<std::string>{"a", "", "ccc"}));
  EXPECT_EQ(file.get_ints("ints").value(), (std::vector<int32_t>{1, -2, 3}));
  EXPECT_EQ(file.get_floats("floats").value(), (std::vector<float>{0.5f, -0.25f}));
  const GgufValue& nested = file.metadata().at("nested");
  EXPECT_EQ(nested.element, GgufType::kArray);
  EXPECT_EQ(nested.count, 2u);
}

TEST(Gguf, MetadataErrorsNameKeyAndValue) {
  const GgufFile file = GgufFile::open(data_path("metadata.gguf")).value();
  const std::string origin = file.origin();
  EXPECT_EQ(file.get_int("i8", 0, 7).status().message(),
            origin + ": metadata 'i8': -100 is not within 0..7");
  EXPECT_EQ(file.get_int("none", 0, 7).status().message(), origin + ": metadata 'none' is missing");
  EXPECT_EQ(file.get_int("none", 0, 7, 5).value(), 5);
  EXPECT_EQ(file.get_string("strings").status().message(),
            origin + ": metadata 'strings': expected a string, found array of 3 string");
  EXPECT_EQ(file.get_floats("ints").status().message(),
            origin + ": metadata 'ints': expected an array of float32, found array of 3 int32");
  EXPECT_FALSE(file.get_strings("nested").ok());
  EXPECT_FALSE(file.get_ints("nested").ok());
  EXPECT_FALSE(file.get_bool("u8").ok());
  EXPECT_FALSE(file.get_number("text").ok());
}

TEST(Gguf, EveryTruncationIsAnError) {
  for (const char* name : {"metadata.gguf", "quants.gguf"}) {
    const std::string whole = read_data(name);
    ASSERT_TRUE(GgufFile::parse(as_bytes(whole), "f").ok());
    // quants.gguf is mostly data; the header alone holds all the decisions.
    const size_t dense = std::min<size_t>(whole.size(), 1500);
    for (size_t size = 0; size < whole.size(); size += size < dense ? 1 : 997) {
      const std::vector<std::byte> part = exact_copy(as_bytes(whole).first(size));
      const Result<GgufFile> file = GgufFile::parse(part, "f");
      if (file.ok()) {
        // Only padding behind the last value may be missing.
        EXPECT_TRUE(file->tensors().empty()) << size;
        EXPECT_GT(size + 32, whole.size());
      } else {
        EXPECT_EQ(file.status().message().find('\n'), std::string::npos);
      }
    }
  }
}

TEST(Gguf, HostileHeadersAreRefusedWithTheReason) {
  EXPECT_EQ(parse_error(GgufBytes()), "f.gguf: not a GGUF file: it does not begin with \"GGUF\"");
  EXPECT_EQ(parse_error(GgufBytes().header(0, 0, 1)),
            "f.gguf: GGUF version 1: only 2 and 3 are supported");
  EXPECT_EQ(parse_error(GgufBytes().header(0, 0, 0x03000000)),
            "f.gguf: big-endian GGUF files are not supported");
  EXPECT_EQ(parse_error(GgufBytes().header(0, UINT64_MAX)),
            "f.gguf: metadata count 18446744073709551615 does not fit into 24 bytes");
  EXPECT_EQ(parse_error(GgufBytes().header(1u << 20, 0)),
            "f.gguf: tensor count 1048576 does not fit into 24 bytes");
  EXPECT_EQ(parse_error(GgufBytes().header(0, 1).put(UINT64_MAX).pad(64)),
            "f.gguf: metadata key 1 of 1: length 18446744073709551615, but only 32 bytes are left");
  EXPECT_EQ(parse_error(GgufBytes().header(0, 1).string("k").put(uint32_t{13}).pad(64)),
            "f.gguf: metadata 'k': unknown value type 13");
  EXPECT_EQ(parse_error(GgufBytes().header(0, 1).string("a\nb").put(uint32_t{13}).pad(64)),
            "f.gguf: metadata 'a\\x0ab': unknown value type 13");
  EXPECT_EQ(parse_error(GgufBytes().header(0, 2).uint32("k", 1).uint32("k", 2)),
            "f.gguf: metadata 'k' stands there twice");
  EXPECT_EQ(parse_error(GgufBytes()
                            .header(0, 1)
                            .string("k")
                            .put(uint32_t{9})
                            .put(uint32_t{10})
                            .put(uint64_t{1} << 61)
                            .pad(64)),
            "f.gguf: metadata 'k': array of 2305843009213693952 uint64 does not fit into 15 bytes");
  GgufBytes nested;
  nested.header(0, 1).string("k").put(uint32_t{9});
  for (int i = 0; i < 6; ++i) nested.put(uint32_t{9}).put(uint64_t{1});
  EXPECT_EQ(parse_error(nested.pad(200)), "f.gguf: metadata 'k': arrays nested deeper than 4");
}

TEST(Gguf, HostileTensorsAreRefusedWithTheReason) {
  const auto one = [](uint64_t size, uint32_t type, uint64_t offset) {
    return parse_error(GgufBytes().header(1, 0).tensor("t", size, type, offset).pad(64 + 64));
  };
  EXPECT_EQ(one(16, 0, 0), "");
  EXPECT_EQ(one(17, 0, 0),
            "f.gguf: tensor 't': 68 bytes at offset 0 leave the 64 bytes of data (is the file "
            "truncated?)");
  EXPECT_EQ(one(1, 0, UINT64_MAX - 31),
            "f.gguf: tensor 't': 4 bytes at offset 18446744073709551584 leave the 64 bytes of data "
            "(is the file truncated?)");
  EXPECT_EQ(one(1, 0, 4), "f.gguf: tensor 't': offset 4 is not a multiple of 32");
  EXPECT_EQ(one(0, 0, 0), "f.gguf: tensor 't': size 0 of dimension 0 is out of range");
  EXPECT_EQ(one(uint64_t{1} << 60, 0, 0),
            "f.gguf: tensor 't': size 1152921504606846976 of dimension 0 is out of range");
  EXPECT_EQ(one(33, 2, 0), "f.gguf: tensor 't': rows of 33 values are not whole Q4_0 blocks of 32");
  EXPECT_EQ(one(32, 22, 0), "f.gguf: tensor 't': type 22 (IQ2_S) is not supported");
  EXPECT_EQ(one(32, 4, 0), "f.gguf: tensor 't': type 4 (unknown) is not supported");
  const auto two = [](const char* second, uint64_t offset) {
    return parse_error(
        GgufBytes().header(2, 0).tensor("a", 16, 0, 0).tensor(second, 8, 0, offset).pad(96 + 96));
  };
  EXPECT_EQ(two("b", 64), "");
  EXPECT_EQ(two("b", 32), "f.gguf: tensor 'b' at offset 32 overlaps tensor 'a'");
  EXPECT_EQ(two("a", 64), "f.gguf: tensor 'a' stands there twice");
  EXPECT_EQ(parse_error(GgufBytes().header(1, 0).string("t").put(uint32_t{5}).pad(96)),
            "f.gguf: tensor 't': 5 dimensions");
  EXPECT_EQ(parse_error(GgufBytes().header(0, 1).uint32("general.alignment", 24)),
            "f.gguf: metadata 'general.alignment': 24 is no power of two");
}

TEST(Gguf, AlignmentMovesTheData) {
  GgufBytes bytes;
  bytes.header(1, 1).uint32("general.alignment", 128).tensor("t", 1, 0, 0).pad(128).put(2.5f);
  const GgufFile file = GgufFile::parse(as_bytes(bytes.text()), "f.gguf").value();
  float value = 0;
  GgufFile::decode_rows(file.tensors().at("t"), 0, 1, &value);
  EXPECT_EQ(value, 2.5f);
}

}  // namespace
}  // namespace atom
