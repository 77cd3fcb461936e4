// Errors as OpenAI's API reports them.
#pragma once

#include <string>

#include "base/status.h"
#include "server/http_server.h"

namespace atom {

struct ApiError {
  int status = 400;          // of HTTP
  std::string message = {};  // one line
  std::string type = "invalid_request_error";
  std::string param = {};       // the field of the request that is wrong, or empty
  std::string code = {};        // a word for programs, or empty
  int retry_after_seconds = 0;  // 0: no such header
};

// An error of the request's content (400), or of the machine (500), by its code. param: the field.
ApiError api_error(const Status& status, std::string param = "");

// {"error": {"message", "type", "param", "code"}}
std::string error_json(const ApiError& error);
HttpResponse error_response(const ApiError& error);

}  // namespace atom
