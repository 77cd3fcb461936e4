// HTTP/1.1 for a program that mostly streams: requests come in whole, answers go out whole or piece
// by piece. The rest of the room sees these types only; Boost stays in http_server.cpp and
// http_connection.cpp.
//
// Nobody can make the server wait or grow without bound: every request has a deadline and a size
// limit, every answer a bounded buffer, and a client that takes nothing for a while is dropped.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace atom {

struct HttpHeader {
  std::string name = {};
  std::string value = {};
};

struct HttpRequest {
  std::string method = {};               // "GET"
  std::string path = {};                 // without the query, as it stands in the request line
  std::vector<HttpHeader> headers = {};  // in the order they came
  std::string body = {};
  std::string client = {};                        // "127.0.0.1:54321"
  std::chrono::steady_clock::time_point arrived;  // when the headers were complete

  // The first header of that name, in any case; empty where there is none.
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::vector<HttpHeader> headers = {};  // beyond Content-Type, Content-Length and Connection
  std::string content_type = "application/json";
  std::string body = {};
};

// One request's way back to its client. Any thread may call any function at any time; after the
// client is gone they do nothing. An exchange that is destroyed unfinished ends with its
// connection closed.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;

  // The whole answer.
  virtual void respond(HttpResponse response) = 0;

  // An answer in pieces: its head (the response's body is the first piece, if any), further pieces,
  // its end. write() drops the client when more than max_unsent_bytes wait for it.
  virtual void begin(HttpResponse head) = 0;
  virtual void write(std::string_view piece) = 0;
  virtual void end() = 0;
  // True where much of what was written has not been sent: then the callback comes once it has, on
  // the thread of this connection. Called on that thread.
  virtual bool wait_until_sent(std::function<void()> callback) = 0;

  // Runs work on the thread of this connection, one piece of work at a time.
  virtual void post(std::function<void()> work) = 0;
  // Calls back once, on the thread of this connection, when the client goes away before the answer
  // has ended. Set before the handler returns.
  virtual void on_disconnect(std::function<void()> callback) = 0;
  // Calls back once, on the thread of this connection, if the answer has not ended by then. Set
  // before the handler returns.
  virtual void on_timeout(std::chrono::milliseconds after, std::function<void()> callback) = 0;
};

enum class HttpFailure : uint8_t {
  kBadRequest,  // not HTTP, or HTTP that this server does not speak
  kHeadersTooLarge,
  kBodyTooLarge,
  kTimeout,  // the request was not complete in time
  kTooManyConnections,
};

struct HttpHandler {
  // A request whose headers are complete, before its body is read: an answer to refuse it with, or
  // nothing. Runs on a connection's thread and must not block.
  std::function<bool(const HttpRequest& head, HttpResponse& refusal)> screen;
  // A complete request. Runs on a connection's thread; takes long work elsewhere.
  std::function<void(HttpRequest request, std::shared_ptr<HttpExchange> exchange)> handle;
  // The answer to what never became a request. message: one line in English.
  std::function<HttpResponse(HttpFailure failure, const std::string& message)> fail;
};

struct HttpOptions {
  std::string host = "127.0.0.1";  // a numeric address
  uint16_t port = 8000;            // 0: the system picks one
  int threads = 2;
  int64_t max_connections = 4096;
  int64_t max_header_bytes = 16 << 10;
  int64_t max_body_bytes = 8 << 20;
  int64_t max_unsent_bytes = 1 << 20;  // of a streamed answer
  std::chrono::milliseconds header_timeout{
      10'000};  // from a request's first byte to its last header
  std::chrono::milliseconds body_timeout{30'000};
  std::chrono::milliseconds idle_timeout{60'000};   // between the requests of a connection
  std::chrono::milliseconds write_timeout{30'000};  // a client that takes nothing for so long
};

class HttpServer {
 public:
  // Binds the address: clients can connect, and wait. Fails where it cannot be bound; the message
  // names it.
  static Result<std::unique_ptr<HttpServer>> bind(HttpOptions options, HttpHandler handler);
  virtual ~HttpServer() = default;  // ends all connections and joins the threads

  // Starts to serve. Called once, when all that the handler uses is there, this object too.
  virtual void serve() = 0;

  virtual uint16_t port() const = 0;
  virtual int64_t connections() const = 0;
  virtual int64_t busy() const = 0;  // connections that wait for an answer or receive one
  virtual int64_t dropped_clients() const = 0;  // for being too slow, since the start
  // From here on each connection is closed after the answer that it waits for.
  virtual void drain() = 0;
};

}  // namespace atom
