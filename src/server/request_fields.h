// Reading a request body member by member: absent and null members keep their defaults, unknown
// ones are ignored, and the first wrong one becomes the answer.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "server/api_error.h"

namespace atom {

class RequestFields {
 public:
  // body must outlive it; a body that is no object is an error.
  explicit RequestFields(const Json& body);

  bool has(std::string_view name) const { return body_.has(name); }
  const JsonView& body() const { return body_; }

  void number(const char* name, double& to);
  void integer(const char* name, int64_t min, int64_t max, int64_t& to);
  void boolean(const char* name, bool& to);
  void text(const char* name, std::string& to);
  // An array of integers within [min, max].
  void ids(const char* name, int64_t min, int64_t max, std::vector<int32_t>& to);
  // Any other shape: `take` is called with the member if it is there.
  void read(const char* name, const std::function<Status(const JsonView&)>& take);
  // As read(), and its absence is an error.
  void require(const char* name, const std::function<Status(const JsonView&)>& take);

  // The first error wins; after it the readers do nothing.
  void fail(const char* name, const Status& status);
  bool ok() const { return !problem_.has_value(); }
  const std::optional<ApiError>& problem() const { return problem_; }

 private:
  JsonView body_;
  std::optional<ApiError> problem_;
};

// The elements of an array of integers within [min, max].
Result<std::vector<int32_t>> read_ids(const JsonView& view, int64_t min, int64_t max);

}  // namespace atom
