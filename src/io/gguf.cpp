#include "io/gguf.h"

#include <algorithm>
#include <cmath>

#include "base/printable.h"
#include "io/byte_reader.h"
#include "io/decimal.h"

namespace atom {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr int kMaxArrayDepth = 4;
constexpr uint32_t kMaxDimensions = 4;
constexpr int64_t kMaxElements = int64_t{1} << 48;

const char* type_name(GgufType type) {
  constexpr const char* kNames[] = {"uint8",  "int8",    "uint16", "int16",  "uint32",
                                    "int32",  "float32", "bool",   "string", "array",
                                    "uint64", "int64",   "float64"};
  return kNames[static_cast<size_t>(type)];
}

// Bytes of a fixed-size type; 0 for strings and arrays.
uint64_t fixed_size(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

template <class T>
T load(const std::byte* in) {
  T value;
  std::memcpy(&value, in, sizeof value);
  return value;
}

}  // namespace

class GgufParser {
 public:
  GgufParser(std::span<const std::byte> bytes, GgufFile& file)
      : bytes_(bytes), reader_(bytes), file_(file) {}

  Status parse() {
    uint64_t tensor_count = 0, metadata_count = 0;
    ATOM_TRY(parse_header(tensor_count, metadata_count));
    for (uint64_t i = 0; i < metadata_count; ++i) ATOM_TRY(parse_metadata(i, metadata_count));
    std::vector<Extent> extents;
    for (uint64_t i = 0; i < tensor_count; ++i) ATOM_TRY(parse_tensor(i, tensor_count, extents));
    return place_tensors(extents);
  }

 private:
  // Where a tensor says its data are.
  struct Extent {
    uint64_t offset, size;
    GgufTensor* tensor;
    const std::string* name;
  };

  const std::string& origin() const { return file_.origin_; }

  Status truncated(const std::string& what) const {
    return error(ErrorCode::kCorrupt, "{}: file ends inside {} (byte {} of {})", origin(), what,
                 reader_.offset(), bytes_.size());
  }

  Status parse_header(uint64_t& tensor_count, uint64_t& metadata_count) {
    uint32_t magic = 0, version = 0;
    if (!reader_.read(magic) || magic != kMagic) {
      return error(ErrorCode::kCorrupt, "{}: not a GGUF file: it does not begin with \"GGUF\"",
                   origin());
    }
    if (!reader_.read(version)) return truncated("the header");
    if ((version & 0xffffu) == 0 && version != 0) {
      return error(ErrorCode::kUnsupported, "{}: big-endian GGUF files are not supported",
                   origin());
    }
    if (version != 2 && version != 3) {
      return error(ErrorCode::kUnsupported, "{}: GGUF version {}: only 2 and 3 are supported",
                   origin(), version);
    }
    if (!reader_.read(tensor_count) || !reader_.read(metadata_count))
      return truncated("the header");
    // The smallest entries: an empty key or name with its type and one-byte value, or its
    // dimensions, type and offset.
    if (metadata_count > reader_.remaining() / 13) {
      return error(ErrorCode::kCorrupt, "{}: metadata count {} does not fit into {} bytes",
                   origin(), metadata_count, bytes_.size());
    }
    if (tensor_count > reader_.remaining() / 32) {
      return error(ErrorCode::kCorrupt, "{}: tensor count {} does not fit into {} bytes", origin(),
                   tensor_count, bytes_.size());
    }
    return {};
  }

  Result<std::string_view> parse_string(const std::string& what) {
    uint64_t length = 0;
    std::span<const std::byte> text;
    if (!reader_.read(length)) return truncated(what);
    if (!reader_.take(length, text)) {
      return error(ErrorCode::kCorrupt, "{}: {}: length {}, but only {} bytes are left", origin(),
                   what, length, reader_.remaining());
    }
    return as_text(text);
  }

  Result<GgufType> parse_type(const std::string& what) {
    uint32_t type = 0;
    if (!reader_.read(type)) return truncated(what);
    if (type > static_cast<uint32_t>(GgufType::kFloat64)) {
      return error(ErrorCode::kCorrupt, "{}: {}: unknown value type {}", origin(), what, type);
    }
    return static_cast<GgufType>(type);
  }

  // Walks over the elements of an array, and yields their type, number and bytes.
  Result<GgufValue> parse_array(const std::string& what, int depth) {
    if (depth > kMaxArrayDepth) {
      return error(ErrorCode::kUnsupported, "{}: {}: arrays nested deeper than {}", origin(), what,
                   kMaxArrayDepth);
    }
    GgufValue value;
    value.type = GgufType::kArray;
    value.element = ATOM_TRY(parse_type(what));
    if (!reader_.read(value.count)) return truncated(what);
    const uint64_t size = fixed_size(value.element);
    const uint64_t smallest = size != 0 ? size : value.element == GgufType::kString ? 8 : 12;
    if (value.count > reader_.remaining() / smallest) {
      return error(ErrorCode::kCorrupt, "{}: {}: array of {} {} does not fit into {} bytes",
                   origin(), what, value.count, type_name(value.element), reader_.remaining());
    }
    const size_t begin = reader_.offset();
    if (size != 0) {
      reader_.take(value.count * size, value.bytes);
      return value;
    }
    for (uint64_t i = 0; i < value.count; ++i) {
      if (value.element == GgufType::kString) {
        ATOM_TRY(parse_string(what));
      } else {
        ATOM_TRY(parse_array(what, depth + 1));
      }
    }
    value.bytes = bytes_.subspan(begin, reader_.offset() - begin);
    return value;
  }

  Status parse_metadata(uint64_t index, uint64_t count) {
    const std::string_view key =
        ATOM_TRY(parse_string(fmt::format("metadata key {} of {}", index + 1, count)));
    const std::string what = fmt::format("metadata '{}'", printable(key));
    GgufValue value;
    value.type = ATOM_TRY(parse_type(what));
    if (value.type == GgufType::kArray) {
      value = ATOM_TRY(parse_array(what, 1));
    } else if (value.type == GgufType::kString) {
      value.bytes = std::as_bytes(std::span(ATOM_TRY(parse_string(what))));
    } else if (!reader_.take(fixed_size(value.type), value.bytes)) {
      return truncated(what);
    }
    if (!file_.metadata_.emplace(key, value).second) {
      return error(ErrorCode::kCorrupt, "{}: {} stands there twice", origin(), what);
    }
    return {};
  }

  Status parse_tensor(uint64_t index, uint64_t count, std::vector<Extent>& extents) {
    const std::string_view name =
        ATOM_TRY(parse_string(fmt::format("the name of tensor {} of {}", index + 1, count)));
    const std::string what = fmt::format("tensor '{}'", printable(name));
    uint32_t dimensions = 0, type = 0;
    if (!reader_.read(dimensions)) return truncated(what);
    if (dimensions < 1 || dimensions > kMaxDimensions) {
      return error(ErrorCode::kCorrupt, "{}: {}: {} dimensions", origin(), what, dimensions);
    }
    GgufTensor tensor;
    int64_t elements = 1;
    for (uint32_t i = 0; i < dimensions; ++i) {
      uint64_t size = 0;
      if (!reader_.read(size)) return truncated(what);
      if (size < 1 || size > static_cast<uint64_t>(kMaxElements / elements)) {
        return error(ErrorCode::kCorrupt, "{}: {}: size {} of dimension {} is out of range",
                     origin(), what, size, i);
      }
      elements *= static_cast<int64_t>(size);
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
    }
    Extent extent{};
    if (!reader_.read(type) || !reader_.read(extent.offset)) return truncated(what);
    tensor.type = find_ggml_type(type);
    if (tensor.type == nullptr) {
      return error(ErrorCode::kUnsupported, "{}: {}: type {} ({}) is not supported", origin(), what,
                   type, ggml_type_name(type));
    }
    if (tensor.shape.back() % tensor.type->block_values != 0) {
      return error(ErrorCode::kCorrupt, "{}: {}: rows of {} values are not whole {} blocks of {}",
                   origin(), what, tensor.shape.back(), tensor.type->name,
                   tensor.type->block_values);
    }
    extent.size =
        static_cast<uint64_t>(elements / tensor.type->block_values * tensor.type->block_bytes);
    const auto [it, fresh] = file_.tensors_.emplace(name, std::move(tensor));
    if (!fresh) return error(ErrorCode::kCorrupt, "{}: {} stands there twice", origin(), what);
    extent.tensor = &it->second;
    extent.name = &it->first;
    extents.push_back(extent);
    return {};
  }

  // Finds the data that follow the header, and gives each tensor its part.
  Status place_tensors(std::vector<Extent>& extents) {
    const int64_t alignment = ATOM_TRY(file_.get_int("general.alignment", 1, int64_t{1} << 30, 32));
    if (!std::has_single_bit(static_cast<uint64_t>(alignment))) {
      return error(ErrorCode::kCorrupt, "{}: metadata 'general.alignment': {} is no power of two",
                   origin(), alignment);
    }
    const auto unit = static_cast<uint64_t>(alignment);
    const uint64_t begin = (reader_.offset() + unit - 1) / unit * unit;
    const uint64_t available = bytes_.size() > begin ? bytes_.size() - begin : 0;
    std::sort(extents.begin(), extents.end(),
              [](const Extent& a, const Extent& b) { return a.offset < b.offset; });
    uint64_t end = 0;
    const std::string* previous = nullptr;
    for (const Extent& extent : extents) {
      if (extent.offset % unit != 0) {
        return error(ErrorCode::kCorrupt, "{}: tensor '{}': offset {} is not a multiple of {}",
                     origin(), printable(*extent.name), extent.offset, alignment);
      }
      if (extent.offset > available || extent.size > available - extent.offset) {
        return error(ErrorCode::kCorrupt,
                     "{}: tensor '{}': {} bytes at offset {} leave the {} bytes of data (is the "
                     "file truncated?)",
                     origin(), printable(*extent.name), extent.size, extent.offset, available);
      }
      if (extent.offset < end) {
        return error(ErrorCode::kCorrupt, "{}: tensor '{}' at offset {} overlaps tensor '{}'",
                     origin(), printable(*extent.name), extent.offset, printable(*previous));
      }
      end = extent.offset + extent.size;
      previous = extent.name;
      extent.tensor->bytes = bytes_.subspan(begin + extent.offset, extent.size);
    }
    return {};
  }

  std::span<const std::byte> bytes_;
  ByteReader reader_;
  GgufFile& file_;
};

Result<GgufFile> GgufFile::open(const std::filesystem::path& path) {
  MappedFile mapped = ATOM_TRY(MappedFile::open(path));
  GgufFile file = ATOM_TRY(parse(mapped.bytes(), path.string()));
  file.file_ = std::move(mapped);
  return file;
}

Result<GgufFile> GgufFile::parse(std::span<const std::byte> bytes, std::string origin) {
  GgufFile file;
  file.origin_ = std::move(origin);
  ATOM_TRY(GgufParser(bytes, file).parse());
  return file;
}

Status GgufFile::type_error(std::string_view key, const char* wanted,
                            const GgufValue& value) const {
  const std::string found =
      value.type == GgufType::kArray
          ? fmt::format("array of {} {}", value.count, type_name(value.element))
          : std::string(type_name(value.type));
  return error(ErrorCode::kCorrupt, "{}: metadata '{}': expected {}, found {}", origin_, key,
               wanted, found);
}

Result<const GgufValue*> GgufFile::find(std::string_view key) const {
  const auto it = metadata_.find(key);
  if (it == metadata_.end()) {
    return error(ErrorCode::kNotFound, "{}: metadata '{}' is missing", origin_, key);
  }
  return &it->second;
}

Result<int64_t> GgufFile::get_int(std::string_view key, int64_t min, int64_t max) const {
  const GgufValue& value = *ATOM_TRY(find(key));
  const std::byte* in = value.bytes.data();
  int64_t number = 0;
  switch (value.type) {
    case GgufType::kUint8:
      number = load<uint8_t>(in);
      break;
    case GgufType::kInt8:
      number = load<int8_t>(in);
      break;
    case GgufType::kUint16:
      number = load<uint16_t>(in);
      break;
    case GgufType::kInt16:
      number = load<int16_t>(in);
      break;
    case GgufType::kUint32:
      number = load<uint32_t>(in);
      break;
    case GgufType::kInt32:
      number = load<int32_t>(in);
      break;
    case GgufType::kInt64:
      number = load<int64_t>(in);
      break;
    case GgufType::kUint64:
      number = static_cast<int64_t>(std::min<uint64_t>(load<uint64_t>(in), INT64_MAX));
      break;
    default:
      return type_error(key, "an integer", value);
  }
  if (number < min || number > max) {
    return error(ErrorCode::kInvalidArgument, "{}: metadata '{}': {} is not within {}..{}", origin_,
                 key, number, min, max);
  }
  return number;
}

Result<int64_t> GgufFile::get_int(std::string_view key, int64_t min, int64_t max,
                                  int64_t fallback) const {
  return has(key) ? get_int(key, min, max) : Result<int64_t>(fallback);
}

Result<double> GgufFile::get_number(std::string_view key) const {
  const GgufValue& value = *ATOM_TRY(find(key));
  double number = 0.0;
  if (value.type == GgufType::kFloat32) {
    number = load<float>(value.bytes.data());
    if (std::isfinite(number)) number = decimal_value(static_cast<float>(number));
  } else if (value.type == GgufType::kFloat64) {
    number = load<double>(value.bytes.data());
  } else if (value.type == GgufType::kString || value.type == GgufType::kArray ||
             value.type == GgufType::kBool) {
    return type_error(key, "a number", value);
  } else {
    number = static_cast<double>(ATOM_TRY(get_int(key, INT64_MIN, INT64_MAX)));
  }
  if (!std::isfinite(number)) {
    return error(ErrorCode::kCorrupt, "{}: metadata '{}': {} is not a finite number", origin_, key,
                 number);
  }
  return number;
}

Result<double> GgufFile::get_number(std::string_view key, double fallback) const {
  return has(key) ? get_number(key) : Result<double>(fallback);
}

Result<bool> GgufFile::get_bool(std::string_view key) const {
  const GgufValue& value = *ATOM_TRY(find(key));
  if (value.type != GgufType::kBool) return type_error(key, "true or false", value);
  return load<uint8_t>(value.bytes.data()) != 0;
}

Result<std::string> GgufFile::get_string(std::string_view key) const {
  const GgufValue& value = *ATOM_TRY(find(key));
  if (value.type != GgufType::kString) return type_error(key, "a string", value);
  return std::string(as_text(value.bytes));
}

Result<std::string> GgufFile::get_string(std::string_view key, std::string_view fallback) const {
  return has(key) ? get_string(key) : Result<std::string>(std::string(fallback));
}

Result<const GgufValue*> GgufFile::find_array(std::string_view key, GgufType element) const {
  const GgufValue* value = ATOM_TRY(find(key));
  if (value->type != GgufType::kArray || value->element != element) {
    return type_error(key, fmt::format("an array of {}", type_name(element)).c_str(), *value);
  }
  return value;
}

Result<std::vector<std::string>> GgufFile::get_strings(std::string_view key) const {
  const GgufValue& value = *ATOM_TRY(find_array(key, GgufType::kString));
  std::vector<std::string> strings;
  strings.reserve(static_cast<size_t>(value.count));
  ByteReader reader(value.bytes);
  for (uint64_t i = 0; i < value.count; ++i) {
    uint64_t length = 0;
    std::span<const std::byte> text;
    ATOM_CHECK(reader.read(length) && reader.take(length, text), "parsing walked over the strings");
    strings.emplace_back(as_text(text));
  }
  return strings;
}

Result<std::vector<float>> GgufFile::get_floats(std::string_view key) const {
  const GgufValue& value = *ATOM_TRY(find_array(key, GgufType::kFloat32));
  std::vector<float> numbers(static_cast<size_t>(value.count));
  if (!numbers.empty()) std::memcpy(numbers.data(), value.bytes.data(), value.bytes.size());
  return numbers;
}

Result<std::vector<int32_t>> GgufFile::get_ints(std::string_view key) const {
  const GgufValue& value = *ATOM_TRY(find(key));
  if (value.type != GgufType::kArray ||
      (value.element != GgufType::kInt32 && value.element != GgufType::kUint32)) {
    return type_error(key, "an array of int32", value);
  }
  std::vector<int32_t> numbers(static_cast<size_t>(value.count));
  if (!numbers.empty()) std::memcpy(numbers.data(), value.bytes.data(), value.bytes.size());
  return numbers;
}

void GgufFile::decode_rows(const GgufTensor& tensor, int64_t first, int64_t count, float* out) {
  const GgmlType& type = *tensor.type;
  const int64_t blocks = tensor.shape.back() / type.block_values;
  const int64_t row_bytes = blocks * type.block_bytes;
  ATOM_CHECK(first >= 0 && count >= 0 &&
                 (first + count) * row_bytes <= static_cast<int64_t>(tensor.bytes.size()),
             "rows beyond the tensor");
  type.decode(reinterpret_cast<const uint8_t*>(tensor.bytes.data()) + first * row_bytes,
              count * blocks, out);
}

void GgufFile::release(const GgufTensor& tensor) const {
  if (file_) file_->release(tensor.bytes);
}

}  // namespace atom
