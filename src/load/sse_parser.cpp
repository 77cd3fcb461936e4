#include "load/sse_parser.h"

namespace atom {

Status SseParser::feed(std::string_view bytes, const Sink& sink) {
  while (!bytes.empty()) {
    if (after_cr_) {
      after_cr_ = false;
      if (bytes.front() == '\n') {
        bytes.remove_prefix(1);
        continue;
      }
    }
    const size_t end = bytes.find_first_of("\r\n");
    const std::string_view part = bytes.substr(0, end);
    if (line_.size() + data_.size() + part.size() > kMaxEventBytes) {
      return error(ErrorCode::kCorrupt, "an event of more than {} bytes", kMaxEventBytes);
    }
    line_ += part;
    if (end == std::string_view::npos) return {};
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    ATOM_TRY(end_line(sink));
  }
  return {};
}

Status SseParser::end_line(const Sink& sink) {
  std::string_view line = line_;
  if (first_line_ && line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);
  first_line_ = false;
  if (line.empty()) {
    const Status status = has_data_ ? sink(data_) : Status();
    data_.clear();
    has_data_ = false;
    line_.clear();
    return status;
  }
  const size_t colon = std::min(line.find(':'), line.size());
  if (line.substr(0, colon) == "data") {
    line.remove_prefix(std::min(colon + 1, line.size()));
    if (line.starts_with(' ')) line.remove_prefix(1);
    if (has_data_) data_ += '\n';
    data_ += line;
    has_data_ = true;
  }
  line_.clear();
  return {};
}

}  // namespace atom
