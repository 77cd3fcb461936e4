#include "server/api_error.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace atom {
namespace {

nlohmann::ordered_json text_or_null(const std::string& text) {
  if (text.empty()) return nullptr;
  return text;
}

}  // namespace

ApiError api_error(const Status& status, std::string param) {
  ApiError result{.message = status.message(), .param = std::move(param)};
  switch (status.code()) {
    case ErrorCode::kOk:
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kNotFound:
    case ErrorCode::kCorrupt:
    case ErrorCode::kUnsupported:
      break;
    case ErrorCode::kCancelled:
      result.status = 503;
      result.type = "server_error";
      break;
    case ErrorCode::kOutOfMemory:
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      result.status = 500;
      result.type = "server_error";
      break;
  }
  return result;
}

std::string error_json(const ApiError& error) {
  const nlohmann::ordered_json body{{"error",
                                     {{"message", error.message},
                                      {"type", error.type},
                                      {"param", text_or_null(error.param)},
                                      {"code", text_or_null(error.code)}}}};
  // Messages quote requests, which may hold bytes that are no UTF-8.
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response{.status = error.status, .body = error_json(error)};
  if (error.retry_after_seconds > 0) {
    response.headers.push_back({"Retry-After", std::to_string(error.retry_after_seconds)});
  }
  if (error.status == 401) response.headers.push_back({"WWW-Authenticate", "Bearer"});
  return response;
}

}  // namespace atom
