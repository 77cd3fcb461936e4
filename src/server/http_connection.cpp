#include "server/http_connection.h"

#include <fmt/format.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <utility>

#include "server/http_framing.h"
#include "server/http_outbox.h"

namespace atom {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Timer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                         asio::wait_traits<std::chrono::steady_clock>, HttpStrand>;
using Parser = http::request_parser<http::string_body>;

// A refused client may go on sending for so long in all, and pause for so long, before it finds the
// connection closed: it should read the refusal first.
constexpr std::chrono::milliseconds kLingerTimeout{30'000};
constexpr std::chrono::milliseconds kLingerPause{5000};
constexpr size_t kReadBytes = 16 << 10;

// One client, as a coroutine on a strand of its own.
class Connection final : public HttpOutboxOwner, public std::enable_shared_from_this<Connection> {
 public:
  Connection(HttpShared& shared, HttpSocket socket)
      : shared_(shared),
        socket_(std::move(socket)),
        deadline_(socket_.get_executor()),
        wake_(socket_.get_executor(), Timer::time_point::max()),
        time_limit_(socket_.get_executor()) {
    shared_.connections.fetch_add(1, std::memory_order_relaxed);
  }
  ~Connection() override { shared_.connections.fetch_sub(1, std::memory_order_relaxed); }

  HttpStrand executor() { return socket_.get_executor(); }
  void wake() override {
    asio::post(executor(), [self = shared_from_this()] { self->wake_.cancel(); });
  }
  void post(std::function<void()> work) override { asio::post(executor(), std::move(work)); }

  // Serves requests until the client or the server has had enough. over_limit: only to be told so.
  asio::awaitable<void> run(bool over_limit) {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    socket_.non_blocking(true, ignored);
    const tcp::endpoint peer = socket_.remote_endpoint(ignored);
    client_ = fmt::format("{}:{}", peer.address().to_string(ignored), peer.port());
    if (over_limit) {
      co_await refuse(shared_.handler.fail(HttpFailure::kTooManyConnections,
                                           "too many connections; try again later"));
      co_return;
    }
    auto patience = shared_.options.header_timeout;
    while (co_await serve_one(patience)) patience = shared_.options.idle_timeout;
    clear_deadline();  // its handler keeps this alive
    socket_.close(ignored);
  }

 private:
  // From one request's first byte to its answer's last. first_byte: how long to wait for the
  // former. False when the connection is done.
  asio::awaitable<bool> serve_one(std::chrono::milliseconds first_byte) {
    if (buffer_.size() == 0) {
      set_deadline(first_byte);
      const auto [problem, count] =
          co_await socket_.async_read_some(buffer_.prepare(kReadBytes), kHttpTuple);
      if (problem) co_return false;  // also on a timeout: nothing was asked
      buffer_.commit(count);
    }
    Parser parser;
    parser.header_limit(static_cast<uint32_t>(shared_.options.max_header_bytes));
    parser.body_limit(static_cast<uint64_t>(shared_.options.max_body_bytes));
    set_deadline(shared_.options.header_timeout);
    const auto [header_problem, header_bytes] =
        co_await http::async_read_header(socket_, buffer_, parser, kHttpTuple);
    if (header_problem) {
      co_await refuse_unread(header_problem);
      co_return false;
    }
    HttpRequest request = request_of(parser);
    HttpFraming framing{.http11 = parser.get().version() >= 11,
                        .keep_alive = parser.get().keep_alive() && !shared_.draining.load(),
                        .head_only = request.method == "HEAD"};
    HttpResponse refusal;
    if (shared_.handler.screen(request, refusal)) {
      framing.keep_alive = false;  // the body was not read
      co_await refuse(refusal, framing);
      co_return false;
    }
    if (equal_ignoring_case(request.header("Expect"), "100-continue")) {
      if (!co_await send("HTTP/1.1 100 Continue\r\n\r\n")) co_return false;
    }
    set_deadline(shared_.options.body_timeout);
    const auto [body_problem, body_bytes] =
        co_await http::async_read(socket_, buffer_, parser, kHttpTuple);
    if (body_problem) {
      co_await refuse_unread(body_problem);
      co_return false;
    }
    clear_deadline();
    request.body = std::move(parser.get().body());
    co_return co_await answer(std::move(request), framing);
  }

  HttpRequest request_of(const Parser& parser) {
    const auto& message = parser.get();
    HttpRequest request;
    request.method = std::string(message.method_string());
    const std::string_view target = message.target();
    request.path = std::string(target.substr(0, target.find('?')));
    for (const auto& field : message) {
      request.headers.push_back({std::string(field.name_string()), std::string(field.value())});
    }
    request.client = client_;
    request.arrived = std::chrono::steady_clock::now();
    return request;
  }

  asio::awaitable<bool> answer(HttpRequest request, HttpFraming framing) {
    const auto outbox =
        std::make_shared<HttpOutbox>(shared_from_this(), framing, shared_.options.max_unsent_bytes);
    // Also when the coroutine is destroyed with the server: handlers may live on for a while.
    struct Attached {
      Connection& connection;
      HttpOutbox& outbox;
      Attached(Connection& c, HttpOutbox& o) : connection(c), outbox(o) {
        connection.shared_.busy.fetch_add(1);
      }
      ~Attached() {
        outbox.detach();
        connection.time_limit_.cancel();
        connection.shared_.busy.fetch_sub(1);
      }
    } attached(*this, *outbox);
    gone_ = false;
    shared_.handler.handle(std::move(request), make_exchange(outbox));
    if (buffer_.size() == 0) watch_for_disconnect();
    if (outbox->time_limit().count() > 0) {
      time_limit_.expires_after(outbox->time_limit());
      time_limit_.async_wait([self = shared_from_this(), outbox](error_code problem) {
        if (!problem) outbox->report_timeout();
      });
    }
    std::string bytes;
    for (;;) {
      const HttpOutbox::Next next = gone_ ? HttpOutbox::Next::kAbandoned : outbox->take(bytes);
      switch (next) {
        case HttpOutbox::Next::kWait:
          co_await wake_.async_wait(kHttpTuple);
          continue;
        case HttpOutbox::Next::kSend:
        case HttpOutbox::Next::kSendLast:
          if (co_await send(bytes)) {
            if (next == HttpOutbox::Next::kSend) continue;
            stop_watching();
            co_return outbox->keep_alive();
          }
          break;
        case HttpOutbox::Next::kOverflow:
          shared_.dropped.fetch_add(1, std::memory_order_relaxed);
          break;
        case HttpOutbox::Next::kAbandoned:
          break;
      }
      break;
    }
    outbox->detach();
    outbox->report_disconnect();
    reset();
    co_return false;
  }

  // Notes when the client closes its side while it waits for an answer.
  void watch_for_disconnect() {
    socket_.async_wait(HttpSocket::wait_read, [self = shared_from_this()](error_code problem) {
      if (problem == asio::error::operation_aborted) return;
      char byte = 0;
      error_code result;
      const size_t count =
          self->socket_.receive(asio::buffer(&byte, 1), HttpSocket::message_peek, result);
      if (count > 0 || result == asio::error::would_block) return;  // the next request comes early
      self->gone_ = true;
      self->wake_.cancel();
    });
  }
  void stop_watching() {
    error_code ignored;
    socket_.cancel(ignored);
  }

  // Writes all of it, or returns false where the client is gone or takes nothing for too long.
  asio::awaitable<bool> send(std::string_view bytes) {
    while (!bytes.empty()) {
      error_code problem;
      size_t count = socket_.write_some(asio::buffer(bytes), problem);
      if (problem == asio::error::would_block) {
        set_deadline(shared_.options.write_timeout);
        co_await socket_.async_wait(HttpSocket::wait_write, kHttpTuple);
        const bool late = expired_;
        clear_deadline();
        if (late) {
          shared_.dropped.fetch_add(1, std::memory_order_relaxed);
          co_return false;
        }
        if (gone_) co_return false;
        continue;
      }
      if (problem) co_return false;
      bytes.remove_prefix(count);
    }
    co_return true;
  }

  asio::awaitable<void> refuse_unread(error_code problem) {
    const auto fail = [&](HttpFailure failure, const std::string& message) {
      return refuse(shared_.handler.fail(failure, message));
    };
    const HttpOptions& options = shared_.options;
    if (expired_) {
      co_await fail(HttpFailure::kTimeout, "the request was not complete in time");
    } else if (problem == http::error::body_limit) {
      co_await fail(HttpFailure::kBodyTooLarge,
                    fmt::format("the request body has more than {} bytes", options.max_body_bytes));
    } else if (problem == http::error::header_limit) {
      co_await fail(
          HttpFailure::kHeadersTooLarge,
          fmt::format("the request's headers have more than {} bytes", options.max_header_bytes));
    } else if (problem.category() == http::make_error_code(http::error::bad_method).category() &&
               problem != http::error::end_of_stream && problem != http::error::partial_message) {
      co_await fail(HttpFailure::kBadRequest, "not a valid HTTP request: " + problem.message());
    }
    // Otherwise the client has left.
  }

  // A last answer, then a close that lets the client read it although it may still be sending.
  asio::awaitable<void> refuse(HttpResponse response, HttpFraming framing = {.keep_alive = false}) {
    clear_deadline();
    if (!co_await send(framing.whole(response))) co_return;
    error_code problem;
    socket_.shutdown(HttpSocket::shutdown_send, problem);
    const auto end = std::chrono::steady_clock::now() + kLingerTimeout;
    while (!problem && std::chrono::steady_clock::now() < end) {
      set_deadline(kLingerPause);
      buffer_.clear();
      std::tie(problem, std::ignore) =
          co_await socket_.async_read_some(buffer_.prepare(kReadBytes), kHttpTuple);
    }
    clear_deadline();
    socket_.close(problem);
  }

  // Closes at once; what the system still holds for the client is thrown away.
  void reset() {
    error_code ignored;
    socket_.set_option(asio::socket_base::linger(true, 0), ignored);
    socket_.close(ignored);
  }

  // Cancels what the socket waits for once the time is up; expired_ tells it from other failures.
  void set_deadline(std::chrono::milliseconds after) {
    expired_ = false;
    deadline_.expires_after(after);
    deadline_.async_wait([self = shared_from_this(), round = ++round_](error_code problem) {
      if (problem || round != self->round_) return;
      self->expired_ = true;
      error_code ignored;
      self->socket_.cancel(ignored);
    });
  }
  void clear_deadline() {
    ++round_;
    expired_ = false;
    deadline_.cancel();
  }

  HttpShared& shared_;
  HttpSocket socket_;
  Timer deadline_;
  Timer wake_;  // never expires; cancelling it wakes the coroutine
  Timer time_limit_;
  boost::beast::flat_buffer buffer_;
  std::string client_;
  int64_t round_ = 0;
  bool expired_ = false;
  bool gone_ = false;
};

}  // namespace

void serve_connection(HttpShared& shared, HttpSocket socket, bool over_limit) {
  const auto connection = std::make_shared<Connection>(shared, std::move(socket));
  asio::co_spawn(
      connection->executor(),
      [connection, over_limit]() -> asio::awaitable<void> { co_await connection->run(over_limit); },
      asio::detached);
}

}  // namespace atom
