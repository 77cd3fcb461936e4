#include "load/trace.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/json.h"
#include "base/printable.h"

namespace atom {
namespace {

constexpr int64_t kMaxTokens = 10'000'000;
constexpr size_t kMaxRequests = 10'000'000;

enum class Role : uint8_t { kPrompt, kOutput, kArrival };
enum class Unit : uint8_t { kCount, kSecondsOrDate, kNanoseconds };

struct Column {
  std::string_view name;
  Role role;
  Unit unit;
};

constexpr Column kColumns[] = {
    {"ContextTokens", Role::kPrompt, Unit::kCount},
    {"num_prefill_tokens", Role::kPrompt, Unit::kCount},
    {"input_toks", Role::kPrompt, Unit::kCount},
    {"input_tokens", Role::kPrompt, Unit::kCount},
    {"prompt_tokens", Role::kPrompt, Unit::kCount},
    {"GeneratedTokens", Role::kOutput, Unit::kCount},
    {"num_decode_tokens", Role::kOutput, Unit::kCount},
    {"output_toks", Role::kOutput, Unit::kCount},
    {"output_tokens", Role::kOutput, Unit::kCount},
    {"completion_tokens", Role::kOutput, Unit::kCount},
    {"max_tokens", Role::kOutput, Unit::kCount},
    {"TIMESTAMP", Role::kArrival, Unit::kSecondsOrDate},
    {"arrival_s", Role::kArrival, Unit::kSecondsOrDate},
    {"arrival_time_ns", Role::kArrival, Unit::kNanoseconds},
};

const Column* find_column(std::string_view name) {
  for (const Column& column : kColumns) {
    if (column.name == name) return &column;
  }
  return nullptr;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) {
    text.remove_suffix(1);
  }
  return text;
}

template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Takes `digits` digits off the front of text.
std::optional<int> take_digits(std::string_view& text, size_t digits) {
  if (text.size() < digits) return std::nullopt;
  int value = 0;
  for (size_t i = 0; i < digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    value = value * 10 + (text[i] - '0');
  }
  text.remove_prefix(digits);
  return value;
}

// Takes one of the characters off the front of text, and says which.
char take_one_of(std::string_view& text, std::string_view characters) {
  if (text.empty() || characters.find(text.front()) == std::string_view::npos) return '\0';
  const char taken = text.front();
  text.remove_prefix(1);
  return taken;
}

// Seconds since 1970 of "2023-11-16 18:15:46.6805900", with 'T' for the space and "Z" or "+01:00"
// behind it if need be.
std::optional<double> parse_date(std::string_view text) {
  const auto year = take_digits(text, 4);
  if (!year || !take_one_of(text, "-")) return std::nullopt;
  const auto month = take_digits(text, 2);
  if (!month || !take_one_of(text, "-")) return std::nullopt;
  const auto day = take_digits(text, 2);
  if (!day || !take_one_of(text, " T")) return std::nullopt;
  const auto hour = take_digits(text, 2);
  if (!hour || !take_one_of(text, ":")) return std::nullopt;
  const auto minute = take_digits(text, 2);
  if (!minute || !take_one_of(text, ":")) return std::nullopt;
  const auto second = take_digits(text, 2);
  if (!second || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
  double fraction = 0;
  if (take_one_of(text, ".")) {
    for (double digit = 0.1; !text.empty() && text.front() >= '0' && text.front() <= '9';
         digit /= 10) {
      fraction += digit * (text.front() - '0');
      text.remove_prefix(1);
    }
  }
  int offset_minutes = 0;
  if (const char sign = take_one_of(text, "Z+-"); sign == '+' || sign == '-') {
    const auto hours = take_digits(text, 2);
    take_one_of(text, ":");
    const auto minutes = take_digits(text, 2);
    if (!hours || !minutes) return std::nullopt;
    offset_minutes = (sign == '+' ? 1 : -1) * (*hours * 60 + *minutes);
  }
  const std::chrono::year_month_day date{std::chrono::year(*year),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!text.empty() || !date.ok()) return std::nullopt;
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  const int64_t minutes = days * 1440 + *hour * 60 + *minute - offset_minutes;
  return static_cast<double>(minutes * 60 + *second) + fraction;
}

// One request while its columns are being read.
class Row {
 public:
  Status set(const Column& column, std::string_view text) {
    if (column.role == Role::kArrival) {
      std::optional<double> value = parse_number<double>(text);
      if (value && column.unit == Unit::kNanoseconds) *value *= 1e-9;
      if (!value && column.unit == Unit::kSecondsOrDate) value = parse_date(text);
      if (!value || !std::isfinite(*value)) return wrong(column, "a time", text);
      request_.arrival_s = *value;
      has_arrival_ = true;
      return {};
    }
    const auto value = parse_number<int64_t>(text);
    if (!value || *value < 1 || *value > kMaxTokens) {
      return wrong(column, fmt::format("an integer within 1..{}", kMaxTokens), text);
    }
    (column.role == Role::kPrompt ? request_.prompt_tokens : request_.output_tokens) = *value;
    return {};
  }

  // What is missing of a whole request; empty if nothing is.
  const char* missing() const {
    if (request_.prompt_tokens == 0) return "a column of prompt tokens, such as ContextTokens";
    if (request_.output_tokens == 0) return "a column of output tokens, such as GeneratedTokens";
    return nullptr;
  }
  const TraceRequest& request() const { return request_; }
  bool has_arrival() const { return has_arrival_; }

 private:
  static Status wrong(const Column& column, std::string_view wanted, std::string_view text) {
    return error(ErrorCode::kCorrupt, "column '{}': expected {}, found '{}'", column.name, wanted,
                 printable(text));
  }
  TraceRequest request_;
  bool has_arrival_ = false;
};

std::vector<std::string_view> split_commas(std::string_view line) {
  std::vector<std::string_view> fields;
  while (true) {
    const size_t comma = line.find(',');
    fields.push_back(trimmed(line.substr(0, comma)));
    if (comma == std::string_view::npos) return fields;
    line.remove_prefix(comma + 1);
  }
}

// The lines of a CSV file; the first names the columns.
class CsvReader {
 public:
  Status read_header(std::string_view line) {
    bool seen[3] = {};
    for (const std::string_view name : split_commas(line)) {
      const Column* column = find_column(name);
      columns_.push_back(column);
      if (column == nullptr) continue;
      bool& taken = seen[static_cast<size_t>(column->role)];
      if (taken) {
        return error(ErrorCode::kCorrupt, "column '{}': a column before it says the same",
                     column->name);
      }
      taken = true;
    }
    if (!seen[0] || !seen[1]) {
      return error(ErrorCode::kCorrupt,
                   "no trace: expected a header with ContextTokens and GeneratedTokens, or with "
                   "num_prefill_tokens and num_decode_tokens, found '{}'",
                   printable(line));
    }
    return {};
  }

  Result<Row> read_row(std::string_view line) const {
    const std::vector<std::string_view> fields = split_commas(line);
    if (fields.size() != columns_.size()) {
      return error(ErrorCode::kCorrupt, "{} columns, but {} in the header", fields.size(),
                   columns_.size());
    }
    Row row;
    for (size_t i = 0; i < fields.size(); ++i) {
      if (columns_[i] != nullptr) ATOM_TRY(row.set(*columns_[i], fields[i]));
    }
    return row;
  }

 private:
  std::vector<const Column*> columns_;  // null: ignored
};

Result<Row> read_json_row(std::string_view line) {
  const Json object = Json::parse(line.begin(), line.end(), nullptr, false);
  if (!object.is_object()) return error(ErrorCode::kCorrupt, "not a JSON object");
  Row row;
  for (const Column& column : kColumns) {
    const auto it = object.find(std::string(column.name));
    if (it == object.end()) continue;
    const std::string text = it->is_string()
                                 ? it->get<std::string>()
                                 : it->dump(-1, ' ', true, Json::error_handler_t::replace);
    ATOM_TRY(row.set(column, text));
  }
  if (const char* missing = row.missing()) {
    return error(ErrorCode::kCorrupt, "{} is missing", missing);
  }
  return row;
}

// Takes the lines that are not empty one by one.
class TraceReader {
 public:
  explicit TraceReader(bool is_json) : is_json_(is_json), header_read_(is_json) {}

  Status read(std::string_view line) {
    if (!header_read_) {
      header_read_ = true;
      return csv_.read_header(line);
    }
    const Row row = ATOM_TRY(is_json_ ? read_json_row(line) : csv_.read_row(line));
    if (!trace_.requests.empty() && row.has_arrival() != trace_.has_arrivals) {
      return error(ErrorCode::kCorrupt, "some lines have an arrival time and others do not");
    }
    if (trace_.requests.size() == kMaxRequests) {
      return error(ErrorCode::kInvalidArgument, "more than {} requests", kMaxRequests);
    }
    trace_.has_arrivals = row.has_arrival();
    trace_.requests.push_back(row.request());
    return {};
  }
  Trace& trace() { return trace_; }

 private:
  bool is_json_;
  bool header_read_;
  CsvReader csv_;
  Trace trace_;
};

void order_by_arrival(Trace& trace) {
  auto& requests = trace.requests;
  std::stable_sort(requests.begin(), requests.end(),
                   [](const auto& a, const auto& b) { return a.arrival_s < b.arrival_s; });
  const double start = requests.front().arrival_s;
  for (TraceRequest& request : requests) request.arrival_s -= start;
}

}  // namespace

Result<Trace> read_trace(const std::filesystem::path& path) {
  const MappedFile file = ATOM_TRY(MappedFile::open(path));
  return parse_trace(file.text(), path.string());
}

Result<Trace> parse_trace(std::string_view text, std::string_view origin) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  const bool is_json = trimmed(text.substr(0, text.find('\n'))).starts_with('{');
  TraceReader reader(is_json);
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty()) continue;
    if (const Status status = reader.read(line); !status.ok()) {
      return status.with_context(fmt::format("{}:{}", origin, number));
    }
  }
  if (reader.trace().requests.empty()) {
    return error(ErrorCode::kCorrupt, "{}: no requests in it", origin);
  }
  if (reader.trace().has_arrivals) order_by_arrival(reader.trace());
  return std::move(reader.trace());
}

}  // namespace atom
