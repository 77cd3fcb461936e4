// One answer between a handler, which writes it on any thread, and a connection, which sends it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "server/http_framing.h"
#include "server/http_server.h"

namespace atom {

// The connection as its outbox sees it. Both functions may be called on any thread.
class HttpOutboxOwner {
 public:
  virtual ~HttpOutboxOwner() = default;
  // There is something to take.
  virtual void wake() = 0;
  // Runs work on the connection's thread.
  virtual void post(std::function<void()> work) = 0;
};

class HttpOutbox {
 public:
  // limit_bytes: of an answer in pieces; more than that unsent is an overflow.
  HttpOutbox(std::shared_ptr<HttpOutboxOwner> owner, HttpFraming framing, int64_t limit_bytes);

  // The handler's side: as in HttpExchange.
  void respond(const HttpResponse& response);
  void begin(const HttpResponse& head);
  void write(std::string_view piece);
  void end();
  void abandon();  // the handler's side is gone
  void post(std::function<void()> work);
  bool wait_until_sent(std::function<void()> callback);
  void on_disconnect(std::function<void()> callback) { on_disconnect_ = std::move(callback); }
  void on_timeout(std::chrono::milliseconds after, std::function<void()> callback);

  // The connection's side, on its thread.
  enum class Next : uint8_t { kWait, kSend, kSendLast, kOverflow, kAbandoned };
  // What to do, and the bytes to send. kWait: the next change wakes the connection.
  Next take(std::string& bytes);
  bool keep_alive();
  // From here on the handler's calls do nothing.
  void detach();
  void report_disconnect();
  std::chrono::milliseconds time_limit() const { return time_limit_; }  // 0: none
  void report_timeout();

 private:
  void wake();  // under the lock
  std::function<void()> take_on_sent();

  std::mutex mutex_;
  std::shared_ptr<HttpOutboxOwner> owner_;  // null once detached
  HttpFraming framing_;
  const int64_t limit_bytes_;
  std::string bytes_;
  bool begun_ = false;
  bool ended_ = false;
  bool overflow_ = false;
  bool abandoned_ = false;
  bool waiting_ = false;  // the connection is
  std::function<void()> on_sent_;
  // Used on the connection's thread only.
  std::function<void()> on_disconnect_;
  std::function<void()> on_timeout_;
  std::chrono::milliseconds time_limit_{0};
};

// The handler's side as a handler is given it; abandons the answer when it is destroyed.
std::shared_ptr<HttpExchange> make_exchange(std::shared_ptr<HttpOutbox> outbox);

}  // namespace atom
