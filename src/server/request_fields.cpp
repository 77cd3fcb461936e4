#include "server/request_fields.h"

#include <nlohmann/json.hpp>

namespace atom {

RequestFields::RequestFields(const Json& body) : body_(body, "request") {
  if (!body_.is_object()) {
    problem_ =
        api_error(error(ErrorCode::kInvalidArgument, "the request body is not a JSON object"));
  }
}

void RequestFields::fail(const char* name, const Status& status) {
  if (ok()) problem_ = api_error(status, name);
}

void RequestFields::read(const char* name, const std::function<Status(const JsonView&)>& take) {
  if (!ok() || !has(name)) return;
  const Result<JsonView> member = body_.at(name);
  const Status status = member.ok() ? take(*member) : member.status();
  if (!status.ok()) fail(name, status);
}

void RequestFields::require(const char* name, const std::function<Status(const JsonView&)>& take) {
  if (!ok()) return;
  if (!has(name)) {
    fail(name, error(ErrorCode::kNotFound, "request: '{}' is missing", name));
    return;
  }
  read(name, take);
}

void RequestFields::number(const char* name, double& to) {
  read(name, [&](const JsonView& view) -> Status {
    to = ATOM_TRY(view.as_number());
    return {};
  });
}

void RequestFields::integer(const char* name, int64_t min, int64_t max, int64_t& to) {
  read(name, [&](const JsonView& view) -> Status {
    to = ATOM_TRY(view.as_int(min, max));
    return {};
  });
}

void RequestFields::boolean(const char* name, bool& to) {
  read(name, [&](const JsonView& view) -> Status {
    to = ATOM_TRY(view.as_bool());
    return {};
  });
}

void RequestFields::text(const char* name, std::string& to) {
  read(name, [&](const JsonView& view) -> Status {
    to = ATOM_TRY(view.as_string());
    return {};
  });
}

void RequestFields::ids(const char* name, int64_t min, int64_t max, std::vector<int32_t>& to) {
  read(name, [&](const JsonView& view) -> Status {
    to = ATOM_TRY(read_ids(view, min, max));
    return {};
  });
}

Result<std::vector<int32_t>> read_ids(const JsonView& view, int64_t min, int64_t max) {
  std::vector<int32_t> ids;
  ids.reserve(view.size());
  for (size_t i = 0; i < view.size(); ++i) {
    ids.push_back(static_cast<int32_t>(ATOM_TRY(ATOM_TRY(view.at(i)).as_int(min, max))));
  }
  if (!view.is_array()) ATOM_TRY(view.at(size_t{0}));  // says what stands there instead
  return ids;
}

}  // namespace atom
