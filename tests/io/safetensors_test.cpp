#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "io/safetensors_writer.h"
#include "io/test_files.h"

namespace atom {
namespace {

using testing::as_bytes;
using testing::exact_copy;
using testing::read_data;
using testing::TempFolder;

std::string make(const std::string& header, size_t data_bytes) {
  const uint64_t size = header.size();
  std::string text(reinterpret_cast<const char*>(&size), sizeof size);
  return text + header + std::string(data_bytes, '\1');
}

std::string parse_error(const std::string& header, size_t data_bytes) {
  const std::vector<std::byte> copy = exact_copy(as_bytes(make(header, data_bytes)));
  return SafetensorsFile::parse(copy, "f").status().message();
}

template <class T>
std::span<const std::byte> raw(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

// The tensors of tests/data/io/written.safetensors, in another order than it has them.
Status write_golden_tensors(SafetensorsWriter& writer) {
  const std::vector<uint16_t> halves = {0x0000, 0x3800, 0x3c00, 0x3e00, 0x4000, 0x4100};
  ATOM_TRY(writer.add("b.scales", DType::kF16, {2, 3}, raw(halves)));
  ATOM_TRY(writer.add("norm", DType::kF32, {3}, raw(std::vector<float>{0.5f, -1.5f, 1e-8f})));
  ATOM_TRY(writer.add("a.qweight", DType::kU8, {2, 5},
                      raw(std::vector<uint8_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})));
  ATOM_TRY(writer.add("a.zeros", DType::kI8, {3}, raw(std::vector<int8_t>{-1, 2, -3})));
  ATOM_TRY(writer.add("empty", DType::kF32, {0, 4}, {}));
  return writer.add("perm", DType::kI32, {3}, raw(std::vector<int32_t>{2, 0, 1}));
}

TEST(Safetensors, WritesTheBytesThatTheLibraryWrites) {
  const TempFolder folder;
  SafetensorsWriter writer = SafetensorsWriter::create(folder.path()).value();
  ASSERT_TRUE(write_golden_tensors(writer).ok());
  ASSERT_TRUE(writer.finish().ok());
  const std::string bytes = read_text_file(folder.path() / "model.safetensors", 1 << 20).value();
  EXPECT_EQ(bytes, read_data("written.safetensors"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(Safetensors, ShardsReadBackAsOne) {
  const TempFolder folder;
  {
    SafetensorsWriter writer = SafetensorsWriter::create(folder.path(), 16).value();
    ASSERT_TRUE(write_golden_tensors(writer).ok());
    ASSERT_TRUE(writer.finish().ok());
  }
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "model-00001-of-00004.safetensors"));
  for (const bool with_index : {true, false}) {
    if (!with_index) std::filesystem::remove(folder.path() / "model.safetensors.index.json");
    const SafetensorsFolder tensors = SafetensorsFolder::open(folder.path()).value();
    EXPECT_EQ(tensors.entries().size(), 6u);
    const SafetensorsTensor& perm = *tensors.find("perm").value().tensor;
    EXPECT_EQ(perm.dtype, "I32");
    EXPECT_EQ(perm.shape, std::vector<int64_t>{3});
    int32_t values[3];
    std::memcpy(values, perm.bytes.data(), sizeof values);
    EXPECT_EQ(values[0], 2);
    EXPECT_EQ(tensors.find("none").status().message(),
              folder.path().string() + ": tensor 'none' is missing");
  }
}

TEST(Safetensors, AnUnfinishedWriterLeavesNothing) {
  const TempFolder folder;
  {
    SafetensorsWriter writer = SafetensorsWriter::create(folder.path(), 16).value();
    ASSERT_TRUE(write_golden_tensors(writer).ok());
    SafetensorsWriter moved = std::move(writer);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Safetensors, AFullDiskIsReported) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  const TempFolder folder;
  std::filesystem::create_symlink("/dev/full", folder.path() / "tensors.scratch");
  SafetensorsWriter writer = SafetensorsWriter::create(folder.path()).value();
  const std::vector<uint8_t> large(1 << 20);
  Status status = writer.add("t", DType::kU8, {1 << 20}, raw(large));
  if (status.ok()) status = writer.finish();
  EXPECT_EQ(status.message(), (folder.path() / "tensors.scratch").string() +
                                  ": cannot write: No space left on device");
}

TEST(Safetensors, EveryTruncationIsAnError) {
  const std::string whole = read_data("written.safetensors");
  ASSERT_TRUE(SafetensorsFile::parse(as_bytes(whole), "f").ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::vector<std::byte> part = exact_copy(as_bytes(whole).first(size));
    const Result<SafetensorsFile> file = SafetensorsFile::parse(part, "f");
    ASSERT_FALSE(file.ok()) << size;
    EXPECT_EQ(file.status().message().find('\n'), std::string::npos);
  }
}

TEST(Safetensors, HostileHeadersAreRefusedWithTheReason) {
  const auto entry = [](const char* dtype, const char* shape, const char* offsets) {
    return fmt::format(R"({{"t":{{"dtype":"{}","shape":{},"data_offsets":{}}}}})", dtype, shape,
                       offsets);
  };
  EXPECT_EQ(parse_error(entry("F32", "[2]", "[0,8]"), 8), "");
  EXPECT_EQ(parse_error(entry("F32", "[]", "[0,4]"), 4), "");
  EXPECT_EQ(parse_error(entry("F32", "[2]", "[0,8]"), 9),
            "f: 9 bytes of data, but the tensors have 8");
  EXPECT_EQ(
      parse_error(entry("F32", "[2]", "[0,8]"), 7),
      "f: tensor 't': data_offsets [0, 8], expected to begin at 0 and to end within 7 bytes of "
      "data");
  EXPECT_EQ(
      parse_error(entry("F32", "[2]", "[1,9]"), 9),
      "f: tensor 't': data_offsets [1, 9], expected to begin at 0 and to end within 9 bytes of "
      "data");
  EXPECT_EQ(parse_error(entry("F32", "[3]", "[0,8]"), 8),
            "f: tensor 't': 8 bytes for 3 values of F32");
  EXPECT_EQ(parse_error(entry("Q4", "[2]", "[0,8]"), 8), "f: tensor 't': dtype 'Q4' is not known");
  EXPECT_EQ(parse_error(entry("F32", "[-2]", "[0,8]"), 8),
            "f: tensor 't': unexpected -2 at or after 'shape'");
  EXPECT_EQ(parse_error(entry("F32", "[4294967296,4294967296]", "[0,8]"), 8),
            "f: tensor 't': shape: 4294967296 is too large");
  EXPECT_EQ(parse_error(entry("F32", "[0,99999999999999999999]", "[0,0]"), 0),
            "f: tensor 't': unexpected 99999999999999999999 at or after 'shape'");
  EXPECT_EQ(parse_error(entry("F32", "[2]", "[8]"), 8),
            "f: tensor 't': data_offsets needs two numbers");
  EXPECT_EQ(parse_error(entry("F32", "[2]", "[0,4,8]"), 8),
            "f: tensor 't': unexpected 8 at or after 'data_offsets'");
  EXPECT_EQ(parse_error(entry("F32", "[[2]]", "[0,8]"), 8),
            "f: tensor 't': unexpected an array at or after 'shape'");
  EXPECT_EQ(parse_error(R"({"t":{"dtype":"F32","shape":[2]}})", 8),
            "f: tensor 't': needs dtype, shape and data_offsets");
  EXPECT_EQ(parse_error(R"({"t":{"dtype":"F32","dtype":"F32"}})", 8),
            "f: tensor 't': 'dtype' stands there twice");
  EXPECT_EQ(parse_error(R"({"t":{"type":"F32"}})", 8), "f: tensor 't': unknown field 'type'");
  const std::string body = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  EXPECT_EQ(parse_error(fmt::format(R"({{"t":{0},"t":{0}}})", body), 1),
            "f: tensor 't' stands there twice");
  EXPECT_EQ(
      parse_error(fmt::format(R"({{"t":{0},"u":{0}}})", body), 1),
      "f: tensor 'u': data_offsets [0, 1], expected to begin at 1 and to end within 1 bytes of "
      "data");
  EXPECT_EQ(parse_error("[]", 0), "f: header: unexpected an array");
  EXPECT_EQ(parse_error("{", 0), "f: header: not valid JSON at byte 2");
  EXPECT_EQ(parse_error(R"({"__metadata__":{"a":1}})", 0), "f: header: unexpected 1");
  EXPECT_FALSE(parse_error(std::string(100000, '['), 0).empty());
  const std::string huge(8, '\xff');
  EXPECT_EQ(SafetensorsFile::parse(as_bytes(huge), "f").status().message(),
            "f: header length 18446744073709551615, but the file has 8 bytes");
}

TEST(Safetensors, AnIndexMustBeTrueAndStayInItsFolder) {
  const TempFolder folder;
  const auto open_error = [&](const std::string& index) {
    folder.write("model.safetensors.index.json", index);
    std::string message = SafetensorsFolder::open(folder.path()).status().message();
    const std::string prefix = folder.path().string() + "/";
    while (message.find(prefix) != std::string::npos) {
      message.erase(message.find(prefix), prefix.size());
    }
    return message;
  };
  folder.write("part.safetensors",
               make(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1));
  folder.write("same.safetensors",
               make(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1));
  EXPECT_EQ(open_error(R"({"weight_map":{"t":"part.safetensors"}})"), "");
  EXPECT_EQ(open_error(R"({"weight_map":{"t":"../part.safetensors"}})"),
            "model.safetensors.index.json: weight_map: '../part.safetensors' is not the name of a "
            "file beside it");
  EXPECT_EQ(open_error(R"({"weight_map":{"t":".."}})"),
            "model.safetensors.index.json: weight_map: '..' is not the name of a file beside it");
  EXPECT_EQ(open_error(R"({"weight_map":{"u":"part.safetensors"}})"),
            "model.safetensors.index.json: weight_map: tensor 'u' is not in 'part.safetensors'");
  EXPECT_EQ(open_error(R"({"weight_map":{"t":"part.safetensors","u":"same.safetensors"}})"),
            "same.safetensors: tensor 't' is in 'part.safetensors' too");
  EXPECT_EQ(open_error(R"({"weight_map":{"t":"none.safetensors"}})"),
            "none.safetensors: cannot open: No such file or directory");
  EXPECT_EQ(open_error(R"({"weight_map":{}})"),
            "model.safetensors.index.json: weight_map lists no file");
  EXPECT_EQ(open_error("{}"), "model.safetensors.index.json: 'weight_map' is missing");
}

}  // namespace
}  // namespace atom
