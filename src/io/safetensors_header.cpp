#include "io/safetensors_header.h"

#include <nlohmann/json.hpp>
#include <set>

#include "base/printable.h"

namespace atom {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 48;
constexpr size_t kMaxDimensions = 8;

// Follows {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...,
// "__metadata__": {"key": "text"}} event by event; anything else stops it with an error.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& origin) : origin_(origin) {}

  Status status() const { return status_; }
  std::vector<SafetensorsEntry> take_entries() { return std::move(entries_); }

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("true or false"); }
  bool number_float(double, const std::string& text) override { return unexpected(text); }
  bool binary(binary_t&) override { return unexpected("binary"); }
  bool number_integer(int64_t value) override { return unexpected(std::to_string(value)); }

  bool number_unsigned(uint64_t value) override {
    if (place_ == Place::kShape) return add_dimension(value);
    if (place_ == Place::kOffsets && offsets_ < 2) {
      (offsets_++ == 0 ? entries_.back().begin : entries_.back().end) = value;
      return true;
    }
    return unexpected(std::to_string(value));
  }

  bool string(std::string& value) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kEntry || field_ != "dtype") return unexpected('"' + value + '"');
    entries_.back().dtype = value;
    return true;
  }

  bool start_object(size_t) override {
    if (place_ == Place::kOutside) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop) {
      place_ = in_metadata_ ? Place::kMetadata : Place::kEntry;
      fields_.clear();
    } else {
      return unexpected("an object");
    }
    return true;
  }

  bool key(std::string& name) override {
    if (place_ == Place::kTop) return start_entry(name);
    if (place_ == Place::kMetadata) return true;
    if (name != "dtype" && name != "shape" && name != "data_offsets") {
      return fail(fmt::format("unknown field '{}'", printable(name)));
    }
    if (!fields_.insert(name).second) return fail(fmt::format("'{}' stands there twice", name));
    field_ = name;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kEntry && fields_.size() != 3) {
      return fail("needs dtype, shape and data_offsets");
    }
    place_ = place_ == Place::kTop ? Place::kOutside : Place::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ == Place::kEntry && field_ == "shape") {
      place_ = Place::kShape;
      elements_ = 1;
    } else if (place_ == Place::kEntry && field_ == "data_offsets") {
      place_ = Place::kOffsets;
      offsets_ = 0;
    } else {
      return unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && offsets_ != 2) return fail("data_offsets needs two numbers");
    place_ = Place::kEntry;
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    status_ =
        error(ErrorCode::kCorrupt, "{}: header: not valid JSON at byte {}", origin_, position);
    return false;
  }

 private:
  enum class Place { kOutside, kTop, kEntry, kMetadata, kShape, kOffsets };

  bool start_entry(const std::string& name) {
    in_metadata_ = name == "__metadata__";
    if (!names_.insert(name).second) {
      status_ = error(ErrorCode::kCorrupt, "{}: tensor '{}' stands there twice", origin_,
                      printable(name));
      return false;
    }
    if (in_metadata_) return true;
    entries_.emplace_back();
    entries_.back().name = name;
    return true;
  }

  bool add_dimension(uint64_t value) {
    std::vector<int64_t>& shape = entries_.back().shape;
    if (shape.size() == kMaxDimensions) return fail("shape has too many dimensions");
    // An element count of 0 must not hide a product that overflows later.
    const auto limit = static_cast<uint64_t>(kMaxElements / elements_);
    if (value > limit) return fail(fmt::format("shape: {} is too large", value));
    if (value > 0) elements_ *= static_cast<int64_t>(value);
    shape.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool unexpected(const std::string& what) {
    return fail(fmt::format("unexpected {}{}", printable(what),
                            field_.empty() ? "" : " at or after '" + field_ + "'"));
  }

  bool fail(const std::string& message) {
    if (entries_.empty() || in_metadata_) {
      status_ = error(ErrorCode::kCorrupt, "{}: header: {}", origin_, message);
    } else {
      status_ = error(ErrorCode::kCorrupt, "{}: tensor '{}': {}", origin_,
                      printable(entries_.back().name), message);
    }
    return false;
  }

  const std::string& origin_;
  Status status_;
  Place place_ = Place::kOutside;
  bool in_metadata_ = false;
  std::string field_;
  std::set<std::string> fields_;  // seen in the current entry
  std::set<std::string> names_;
  int offsets_ = 0;
  int64_t elements_ = 1;
  std::vector<SafetensorsEntry> entries_;
};

}  // namespace

Result<std::vector<SafetensorsEntry>> parse_safetensors_header(std::string_view json,
                                                               const std::string& origin) {
  HeaderReader reader(origin);
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) {
    ATOM_CHECK(!reader.status().ok(), "the reader stops only with an error");
    return reader.status();
  }
  return reader.take_entries();
}

}  // namespace atom
