// The OpenAI-compatible server: HTTP in front of one engine. docs/http_api.md is normative.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "app/open_model.h"
#include "base/status.h"
#include "engine/engine.h"
#include "server/http_server.h"

namespace atom {

struct ServerOptions {
  HttpOptions http = {};
  std::string model_name = {};                   // as clients see it
  std::vector<std::string> api_keys = {};        // none: nobody has to show one
  std::vector<std::string> cors_origins = {};    // that browsers may call from; "*": all
  std::string log_path = {};                     // "-": stderr; empty: no log
  std::chrono::milliseconds request_timeout{0};  // of a generation; 0: no limit
};

class Server {
 public:
  // Starts to serve. Model and engine must outlive the server.
  static Result<std::unique_ptr<Server>> start(const OpenedModel& model, Engine& engine,
                                               ServerOptions options);
  // What was asked must have been answered: after drain(), or where the engine is idle.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  uint16_t port() const;
  // Refuses new generations with 503, waits until those that run have been answered to their
  // clients' last byte.
  void drain();

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace atom
