#include "server/server.h"

#include <algorithm>
#include <atomic>
#include <ctime>
#include <nlohmann/json.hpp>
#include <string_view>
#include <thread>
#include <utility>

#include "server/api_error.h"
#include "server/endpoints.h"
#include "server/request_log.h"
#include "server/server_metrics.h"
#include "server/web_assets.h"

namespace atom {
namespace {

using OrderedJson = nlohmann::ordered_json;

enum class Action : uint8_t {
  kCompletions,
  kChatCompletions,
  kTokenize,
  kDetokenize,
  kModels,
  kHealth,
  kMetrics,
  kStats,
};

struct Route {
  std::string_view method;
  std::string_view path;
  Action action;
  bool needs_key = true;

  bool generates() const {
    return action == Action::kCompletions || action == Action::kChatCompletions;
  }
};

constexpr Route kRoutes[] = {
    {"POST", "/v1/chat/completions", Action::kChatCompletions},
    {"POST", "/v1/completions", Action::kCompletions},
    {"GET", "/v1/models", Action::kModels},
    {"POST", "/tokenize", Action::kTokenize},
    {"POST", "/detokenize", Action::kDetokenize},
    {"GET", "/health", Action::kHealth, /*needs_key=*/false},
    {"GET", "/metrics", Action::kMetrics},
    {"GET", "/stats", Action::kStats},
};

const Route* find_route(std::string_view path) {
  const auto found = std::find_if(std::begin(kRoutes), std::end(kRoutes),
                                  [&](const Route& route) { return route.path == path; });
  return found == std::end(kRoutes) ? nullptr : found;
}

const WebAsset* find_asset(std::string_view path) {
  const auto assets = web_assets();
  const auto found = std::find_if(assets.begin(), assets.end(),
                                  [&](const WebAsset& asset) { return asset.path == path; });
  return found == assets.end() ? nullptr : &*found;
}

// Takes as long whatever the strings hold.
bool equal_in_constant_time(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
  return difference == 0;
}

// Safe to repeat in a header and in a log.
bool is_request_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

// "2026-01-31T12:00:00.123Z"
std::string utc_now() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch());
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900,
                     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                     since.count() % 1000);
}

OrderedJson milliseconds(EngineClock::time_point from, EngineClock::time_point to) {
  if (from == EngineClock::time_point{} || to == EngineClock::time_point{}) return nullptr;
  return static_cast<double>(
             std::chrono::duration_cast<std::chrono::microseconds>(to - from).count()) /
         1000;
}

}  // namespace

class Server::Impl {
 public:
  Impl(const OpenedModel& model, Engine& engine, ServerOptions options,
       std::unique_ptr<RequestLog> log)
      : engine_(engine),
        options_(std::move(options)),
        log_(std::move(log)),
        endpoints_(model, engine, options_.model_name, options_.request_timeout) {}

  Status listen() {
    HttpHandler handler;
    handler.screen = [this](const HttpRequest& head, HttpResponse& refusal) {
      return screen(head, refusal);
    };
    handler.handle = [this](HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
      handle(std::move(request), std::move(exchange));
    };
    handler.fail = [this](HttpFailure failure, const std::string& message) {
      return fail(failure, message);
    };
    http_ = ATOM_TRY(HttpServer::bind(options_.http, std::move(handler)));
    http_->serve();
    return {};
  }

  uint16_t port() const { return http_->port(); }

  void drain() {
    draining_.store(true);
    http_->drain();
    engine_.drain();
    // The engine may still be busy with what nobody waits for: clients that have left.
    constexpr std::chrono::milliseconds kPoll{10};
    while (http_->busy() > 0) std::this_thread::sleep_for(kPoll);
    while (!engine_.wait_idle(kPoll)) {
    }
  }

 private:
  bool screen(const HttpRequest& head, HttpResponse& refusal);
  std::optional<ApiError> objection(const HttpRequest& head, const Route* route) const;
  void handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange);
  HttpResponse answer(const HttpRequest& request, const Route& route) const;
  HttpResponse asset_response(const HttpRequest& request, const WebAsset& asset) const;
  HttpResponse preflight(const HttpRequest& request) const;
  HttpResponse fail(HttpFailure failure, const std::string& message);
  bool has_key(const HttpRequest& request) const;
  std::string request_id(const HttpRequest& request) const;
  std::vector<HttpHeader> common_headers(const HttpRequest& request, const std::string& id) const;
  HttpGauges gauges() const;
  void record(const HttpRequest& request, const std::string& id, const GenerationReport& report);

  Engine& engine_;
  const ServerOptions options_;
  ServerMetrics metrics_;
  const std::unique_ptr<RequestLog> log_;
  const Endpoints endpoints_;
  std::atomic<bool> draining_{false};
  std::unique_ptr<HttpServer> http_;  // last: its threads use all of the above
};

bool Server::Impl::has_key(const HttpRequest& request) const {
  if (options_.api_keys.empty()) return true;
  constexpr std::string_view kScheme = "Bearer ";
  std::string_view given = request.header("Authorization");
  if (!given.starts_with(kScheme)) return false;
  given.remove_prefix(kScheme.size());
  bool known = false;
  for (const std::string& key : options_.api_keys) known |= equal_in_constant_time(key, given);
  return known;
}

// Why a request is refused before its body is read.
std::optional<ApiError> Server::Impl::objection(const HttpRequest& head, const Route* route) const {
  if (route == nullptr || head.method == "OPTIONS") return std::nullopt;
  if (route->needs_key && !has_key(head)) {
    return ApiError{.status = 401,
                    .message = "an API key is needed: Authorization: Bearer KEY",
                    .code = "invalid_api_key"};
  }
  if (!route->generates() || head.method != route->method) return std::nullopt;
  if (draining_.load()) {
    return ApiError{.status = 503,
                    .message = "the server is shutting down",
                    .type = "server_error",
                    .code = "draining",
                    .retry_after_seconds = 5};
  }
  const EngineStats stats = engine_.stats();
  if (stats.waiting_requests >= engine_.options().max_waiting_requests) {
    return ApiError{
        .status = 429,
        .message = fmt::format("the queue is full: {} requests wait", stats.waiting_requests),
        .type = "rate_limit_error",
        .code = "queue_full",
        .retry_after_seconds = 1};
  }
  return std::nullopt;
}

bool Server::Impl::screen(const HttpRequest& head, HttpResponse& refusal) {
  const Route* route = find_route(head.path);
  const auto problem = objection(head, route);
  if (!problem) return false;
  const std::string id = request_id(head);
  refusal = error_response(*problem);
  const auto headers = common_headers(head, id);
  refusal.headers.insert(refusal.headers.end(), headers.begin(), headers.end());
  record(head, id, {.status = problem->status, .message = problem->message});
  return true;
}

void Server::Impl::handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
  const Route* route = find_route(request.path);
  ApiCall call{.request = std::move(request), .exchange = std::move(exchange)};
  call.id = request_id(call.request);
  call.headers = common_headers(call.request, call.id);
  HttpRequest head = call.request;
  head.body.clear();
  call.done = [this, head = std::move(head), id = call.id](const GenerationReport& report) {
    record(head, id, report);
  };

  const std::string& method = call.request.method;
  if (method == "OPTIONS") {
    call.respond(preflight(call.request));
    return;
  }
  const std::string_view wanted = method == "HEAD" ? "GET" : std::string_view(method);
  if (route == nullptr) {
    const WebAsset* asset = find_asset(call.request.path);
    if (asset != nullptr && wanted == "GET") {
      call.respond(asset_response(call.request, *asset));
      return;
    }
    call.fail({.status = 404,
               .message = fmt::format("there is no {} here", call.request.path),
               .code = "not_found"});
    return;
  }
  if (wanted != route->method) {
    call.headers.push_back({"Allow", std::string(route->method)});
    call.fail({.status = 405,
               .message = fmt::format("{} takes {}, not {}", route->path, route->method, method),
               .code = "method_not_allowed"});
    return;
  }
  if (route->method == "POST") {
    // Browsers send other types to any address without asking first.
    const std::string_view type = call.request.header("Content-Type");
    if (!type.starts_with("application/json")) {
      call.fail({.status = 415,
                 .message = "the body must be JSON: Content-Type: application/json",
                 .code = "unsupported_media_type"});
      return;
    }
  }
  if (route->action == Action::kCompletions) {
    endpoints_.completions(std::move(call));
  } else if (route->action == Action::kChatCompletions) {
    endpoints_.chat_completions(std::move(call));
  } else {
    HttpResponse response = answer(call.request, *route);
    metrics_.count_request(std::string(route->path), response.status);
    call.respond(std::move(response));
  }
}

HttpResponse Server::Impl::answer(const HttpRequest& request, const Route& route) const {
  switch (route.action) {
    case Action::kTokenize:
      return endpoints_.tokenize(request);
    case Action::kDetokenize:
      return endpoints_.detokenize(request);
    case Action::kModels:
      return endpoints_.models();
    case Action::kHealth:
      if (draining_.load()) {
        return {.status = 503, .body = R"({"status":"draining"})"};
      }
      return {.body = R"({"status":"ok"})"};
    case Action::kMetrics:
      return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
              .body = metrics_.prometheus(engine_.stats(), gauges(), options_.model_name)};
    case Action::kStats:
      return {
          .headers = {{"Cache-Control", "no-store"}},
          .body = metrics_.stats(engine_.stats(), gauges(), options_.model_name, engine_.context())
                      .dump()};
    case Action::kCompletions:
    case Action::kChatCompletions:
      break;
  }
  return {.status = 404};
}

HttpResponse Server::Impl::asset_response(const HttpRequest& request, const WebAsset& asset) const {
  HttpResponse response{.headers = {{"ETag", std::string(asset.etag)},
                                    {"Cache-Control", "no-cache"},
                                    {"X-Content-Type-Options", "nosniff"}},
                        .content_type = std::string(asset.content_type)};
  if (request.header("If-None-Match") == asset.etag) {
    response.status = 304;
    return response;
  }
  response.headers.push_back({"Content-Security-Policy",
                              "default-src 'self'; img-src 'self' data:; "
                              "connect-src 'self'; frame-ancestors 'none'"});
  response.body = std::string(asset.bytes);
  return response;
}

// What browsers ask before they send a request from another origin.
HttpResponse Server::Impl::preflight(const HttpRequest& request) const {
  HttpResponse response{.status = 204, .content_type = ""};
  response.headers.push_back({"Access-Control-Allow-Methods", "GET, POST, OPTIONS"});
  const std::string_view headers = request.header("Access-Control-Request-Headers");
  const bool harmless = std::all_of(headers.begin(), headers.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == ',' || c == ' ';
  });
  response.headers.push_back({"Access-Control-Allow-Headers", harmless && !headers.empty()
                                                                  ? std::string(headers)
                                                                  : "Authorization, Content-Type"});
  response.headers.push_back({"Access-Control-Max-Age", "600"});
  return response;
}

HttpResponse Server::Impl::fail(HttpFailure failure, const std::string& message) {
  ApiError problem{.message = message};
  switch (failure) {
    case HttpFailure::kBadRequest:
      break;
    case HttpFailure::kHeadersTooLarge:
      problem.status = 431;
      break;
    case HttpFailure::kBodyTooLarge:
      problem.status = 413;
      break;
    case HttpFailure::kTimeout:
      problem.status = 408;
      break;
    case HttpFailure::kTooManyConnections:
      problem.status = 503;
      problem.type = "server_error";
      problem.retry_after_seconds = 1;
      break;
  }
  metrics_.count_request("other", problem.status);
  return error_response(problem);
}

std::string Server::Impl::request_id(const HttpRequest& request) const {
  const std::string_view given = request.header("X-Request-Id");
  if (is_request_id(given)) return std::string(given);
  return fmt::format("{:016x}", endpoints_.unique_number());
}

std::vector<HttpHeader> Server::Impl::common_headers(const HttpRequest& request,
                                                     const std::string& id) const {
  std::vector<HttpHeader> headers{{"X-Request-Id", id}};
  const std::string_view origin = request.header("Origin");
  if (origin.empty()) return headers;
  for (const std::string& allowed : options_.cors_origins) {
    if (allowed != "*" && allowed != origin) continue;
    headers.push_back({"Access-Control-Allow-Origin", allowed});
    headers.push_back({"Access-Control-Expose-Headers", "X-Request-Id, Retry-After"});
    if (allowed != "*") headers.push_back({"Vary", "Origin"});
    break;
  }
  return headers;
}

HttpGauges Server::Impl::gauges() const {
  return {.connections = http_->connections(),
          .dropped_clients = http_->dropped_clients(),
          .lost_log_lines = log_->lost_lines(),
          .draining = draining_.load()};
}

// Counts and logs a generation that has ended, or a request that was refused.
void Server::Impl::record(const HttpRequest& request, const std::string& id,
                          const GenerationReport& report) {
  const Route* route = find_route(request.path);
  metrics_.count_request(route == nullptr ? "other" : std::string(route->path), report.status);
  const RequestEnd& end = report.end;
  if (report.status == 200) metrics_.add_finished(end);
  if (!log_->enabled()) return;
  OrderedJson line{{"time", utc_now()},        {"id", id},
                   {"client", request.client}, {"method", request.method},
                   {"path", request.path},     {"status", report.status}};
  if (!report.finish.empty()) {
    line["finish"] = report.finish;
    line["prompt_tokens"] = end.prompt_tokens;
    line["cached_tokens"] = end.cached_tokens;
    line["generated_tokens"] = end.generated_tokens;
    line["queue_ms"] = milliseconds(end.arrival, end.started);
    line["first_token_ms"] = milliseconds(end.arrival, end.first_token);
  }
  line["total_ms"] = milliseconds(request.arrived, EngineClock::now());
  if (!report.message.empty()) line["error"] = report.message;
  log_->write(line.dump(-1, ' ', true, OrderedJson::error_handler_t::replace));
}

Result<std::unique_ptr<Server>> Server::start(const OpenedModel& model, Engine& engine,
                                              ServerOptions options) {
  auto log = ATOM_TRY(RequestLog::open(options.log_path));
  auto impl = std::make_unique<Impl>(model, engine, std::move(options), std::move(log));
  ATOM_TRY(impl->listen());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;
uint16_t Server::port() const { return impl_->port(); }
void Server::drain() { impl_->drain(); }

}  // namespace atom
