// What the server counts beside the engine, and both as Prometheus text and as JSON for the page.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/request.h"

namespace atom {

// The moment's figures of the HTTP side.
struct HttpGauges {
  int64_t connections = 0;
  int64_t dropped_clients = 0;  // since the start
  int64_t lost_log_lines = 0;   // since the start
  bool draining = false;
};

// Thread-safe.
class ServerMetrics {
 public:
  ServerMetrics() : started_(EngineClock::now()) {}

  // An answer, or a refusal, to a request for one of the server's paths ("other" for the rest).
  void count_request(const std::string& path, int status);
  // A prompt that ran to its end; its times enter the percentiles of the last minute.
  void add_finished(const RequestEnd& end);

  // The exposition format 0.0.4 of Prometheus.
  std::string prometheus(const EngineStats& engine, const HttpGauges& http,
                         const std::string& model) const;
  // The body of GET /stats (docs/http_api.md).
  nlohmann::ordered_json stats(const EngineStats& engine, const HttpGauges& http,
                               const std::string& model, int64_t context) const;

 private:
  struct Sample {
    EngineClock::time_point finished = {};
    double queue = 0;
    double first_token = 0;
    double per_token = 0;  // of the output tokens after the first; below 0: there were none
    double request = 0;
  };
  std::vector<Sample> recent_samples() const;

  const EngineClock::time_point started_;
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> requests_;  // by path and status
  std::vector<Sample> samples_;                              // a ring
  size_t next_sample_ = 0;
};

}  // namespace atom
