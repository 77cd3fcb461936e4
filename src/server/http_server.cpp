#include "server/http_server.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <ctime>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

namespace atom {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Strand = asio::strand<asio::io_context::executor_type>;
using Socket = asio::basic_stream_socket<tcp, Strand>;
using Timer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                         asio::wait_traits<std::chrono::steady_clock>, Strand>;
using Parser = http::request_parser<http::string_body>;

// Completions yield (error_code, ...) rather than throw.
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
// How long a refused client may go on sending before it finds the connection closed, so that it
// reads the refusal first.
constexpr std::chrono::milliseconds kLingerTimeout{2000};
constexpr size_t kReadBytes = 16 << 10;
// Of a streamed answer: with more unsent, the writer waits.
constexpr size_t kCongestedBytes = 64 << 10;

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[utc.tm_wday], utc.tm_mday,
                     kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

// What an answer's bytes look like on one connection.
struct Framing {
  bool http11 = true;
  bool keep_alive = true;
  bool head_only = false;  // the request was HEAD: headers as for GET, no body

  std::string head(const HttpResponse& response, std::optional<size_t> content_length) const {
    const auto reason = http::obsolete_reason(static_cast<http::status>(response.status));
    std::string text = fmt::format("HTTP/1.{} {} {}\r\nDate: {}\r\n", http11 ? 1 : 0,
                                   response.status, std::string_view(reason), http_date());
    if (!response.content_type.empty()) {
      text += fmt::format("Content-Type: {}\r\n", response.content_type);
    }
    for (const HttpHeader& header : response.headers) {
      text += fmt::format("{}: {}\r\n", header.name, header.value);
    }
    if (content_length) {
      text += fmt::format("Content-Length: {}\r\n", *content_length);
    } else if (http11) {
      text += "Transfer-Encoding: chunked\r\n";
    }
    text += keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
    return text;
  }
  std::string whole(const HttpResponse& response) const {
    std::string text = head(response, response.body.size());
    if (!head_only) text += response.body;
    return text;
  }
  void append_piece(std::string& to, std::string_view piece) const {
    if (piece.empty() || head_only) return;
    if (http11) {
      to += fmt::format("{:x}\r\n", piece.size());
      to += piece;
      to += "\r\n";
    } else {
      to += piece;
    }
  }
  std::string_view last_piece() const { return http11 && !head_only ? "0\r\n\r\n" : ""; }
};

class Connection;

// What a handler's thread and a connection's thread share of one answer.
class Outbox {
 public:
  Outbox(std::shared_ptr<Connection> connection, Framing framing, int64_t limit_bytes)
      : connection_(std::move(connection)), framing_(framing), limit_bytes_(limit_bytes) {}

  // Handlers' side.
  void respond(const HttpResponse& response) {
    const std::lock_guard lock(mutex_);
    if (begun_ || connection_ == nullptr) return;
    begun_ = ended_ = true;
    bytes_ += framing_.whole(response);
    wake();
  }
  void begin(const HttpResponse& head) {
    const std::lock_guard lock(mutex_);
    if (begun_ || connection_ == nullptr) return;
    begun_ = true;
    // Without chunks the end of the connection is the only end of the answer.
    if (!framing_.http11) framing_.keep_alive = false;
    bytes_ += framing_.head(head, std::nullopt);
    framing_.append_piece(bytes_, head.body);
    wake();
  }
  void write(std::string_view piece) {
    const std::lock_guard lock(mutex_);
    if (!begun_ || ended_ || overflow_ || connection_ == nullptr) return;
    // What was unsent before counts: a single large piece is no sign of a slow client.
    if (static_cast<int64_t>(bytes_.size()) > limit_bytes_) {
      overflow_ = true;
    } else {
      framing_.append_piece(bytes_, piece);
    }
    wake();
  }
  void end() {
    const std::lock_guard lock(mutex_);
    if (!begun_ || ended_ || connection_ == nullptr) return;
    ended_ = true;
    bytes_ += framing_.last_piece();
    wake();
  }
  void abandon() {
    const std::lock_guard lock(mutex_);
    if (ended_ || connection_ == nullptr) return;
    abandoned_ = true;
    wake();
  }
  void post(std::function<void()> work);
  bool wait_until_sent(std::function<void()> callback) {
    const std::lock_guard lock(mutex_);
    if (bytes_.size() < kCongestedBytes || connection_ == nullptr) return false;
    on_sent_ = std::move(callback);
    return true;
  }
  void on_disconnect(std::function<void()> callback) { on_disconnect_ = std::move(callback); }
  void on_timeout(std::chrono::milliseconds after, std::function<void()> callback) {
    time_limit_ = after;
    on_timeout_ = std::move(callback);
  }

  // The connection's side, on its thread.
  enum class Next : uint8_t { kWait, kSend, kSendLast, kOverflow, kAbandoned };
  // kWait: the next change wakes the connection.
  Next take(std::string& bytes) {
    // All that was written before is on its way: writers may go on.
    if (auto callback = take_on_sent()) callback();
    const std::lock_guard lock(mutex_);
    if (overflow_) return Next::kOverflow;
    if (abandoned_) return Next::kAbandoned;
    if (bytes_.empty() && !ended_) {
      waiting_ = true;
      return Next::kWait;
    }
    bytes.clear();
    bytes.swap(bytes_);
    return ended_ ? Next::kSendLast : Next::kSend;
  }
  bool keep_alive() {
    const std::lock_guard lock(mutex_);
    return framing_.keep_alive;
  }
  // From here on handlers' calls do nothing.
  void detach() {
    // Destroyed after the lock is gone: this may be the last that holds the handler's side.
    std::shared_ptr<Connection> released;
    std::function<void()> unsent;
    const std::lock_guard lock(mutex_);
    released.swap(connection_);
    unsent.swap(on_sent_);
  }
  void report_disconnect() {
    if (auto callback = std::exchange(on_disconnect_, nullptr)) callback();
  }
  std::chrono::milliseconds time_limit() const { return time_limit_; }
  void report_timeout() {
    if (auto callback = std::exchange(on_timeout_, nullptr)) callback();
  }

 private:
  void wake();  // under the lock
  // The callback of wait_until_sent where everything has been taken.
  std::function<void()> take_on_sent() {
    const std::lock_guard lock(mutex_);
    if (!bytes_.empty()) return nullptr;
    return std::exchange(on_sent_, nullptr);
  }

  std::mutex mutex_;
  std::shared_ptr<Connection> connection_;
  Framing framing_;
  const int64_t limit_bytes_;
  std::string bytes_;
  bool begun_ = false;
  bool ended_ = false;
  bool overflow_ = false;
  bool abandoned_ = false;
  bool waiting_ = false;
  std::function<void()> on_sent_;
  // Used on the connection's thread only.
  std::function<void()> on_disconnect_;
  std::function<void()> on_timeout_;
  std::chrono::milliseconds time_limit_{0};  // 0: none
};

class Exchange final : public HttpExchange {
 public:
  explicit Exchange(std::shared_ptr<Outbox> outbox) : outbox_(std::move(outbox)) {}
  ~Exchange() override { outbox_->abandon(); }
  void respond(HttpResponse response) override { outbox_->respond(response); }
  void begin(HttpResponse head) override { outbox_->begin(head); }
  void write(std::string_view piece) override { outbox_->write(piece); }
  void end() override { outbox_->end(); }
  bool wait_until_sent(std::function<void()> callback) override {
    return outbox_->wait_until_sent(std::move(callback));
  }
  void post(std::function<void()> work) override { outbox_->post(std::move(work)); }
  void on_disconnect(std::function<void()> callback) override {
    outbox_->on_disconnect(std::move(callback));
  }
  void on_timeout(std::chrono::milliseconds after, std::function<void()> callback) override {
    outbox_->on_timeout(after, std::move(callback));
  }

 private:
  std::shared_ptr<Outbox> outbox_;
};

// What all connections of a server share.
struct Shared {
  HttpOptions options;
  HttpHandler handler;
  std::atomic<bool> draining{false};
  std::atomic<int64_t> connections{0};
  std::atomic<int64_t> busy{0};
  std::atomic<int64_t> dropped{0};
};

// One client, as a coroutine on a strand of its own.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Shared& shared, Socket socket)
      : shared_(shared),
        socket_(std::move(socket)),
        deadline_(socket_.get_executor()),
        wake_(socket_.get_executor(), Timer::time_point::max()),
        time_limit_(socket_.get_executor()) {
    shared_.connections.fetch_add(1, std::memory_order_relaxed);
  }
  ~Connection() { shared_.connections.fetch_sub(1, std::memory_order_relaxed); }

  Strand executor() { return socket_.get_executor(); }
  void wake() {
    asio::post(executor(), [self = shared_from_this()] { self->wake_.cancel(); });
  }

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
          co_await socket_.async_read_some(buffer_.prepare(kReadBytes), kTuple);
      if (problem) co_return false;  // also on a timeout: nothing was asked
      buffer_.commit(count);
    }
    Parser parser;
    parser.header_limit(static_cast<uint32_t>(shared_.options.max_header_bytes));
    parser.body_limit(static_cast<uint64_t>(shared_.options.max_body_bytes));
    set_deadline(shared_.options.header_timeout);
    const auto [header_problem, header_bytes] =
        co_await http::async_read_header(socket_, buffer_, parser, kTuple);
    if (header_problem) {
      co_await refuse_unread(header_problem);
      co_return false;
    }
    HttpRequest request = request_of(parser);
    Framing framing{.http11 = parser.get().version() >= 11,
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
        co_await http::async_read(socket_, buffer_, parser, kTuple);
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

  asio::awaitable<bool> answer(HttpRequest request, Framing framing) {
    const auto outbox =
        std::make_shared<Outbox>(shared_from_this(), framing, shared_.options.max_unsent_bytes);
    // Also when the coroutine is destroyed with the server: handlers may live on for a while.
    struct Attached {
      Connection& connection;
      Outbox& outbox;
      Attached(Connection& c, Outbox& o) : connection(c), outbox(o) {
        connection.shared_.busy.fetch_add(1);
      }
      ~Attached() {
        outbox.detach();
        connection.time_limit_.cancel();
        connection.shared_.busy.fetch_sub(1);
      }
    } attached(*this, *outbox);
    gone_ = false;
    shared_.handler.handle(std::move(request), std::make_shared<Exchange>(outbox));
    if (buffer_.size() == 0) watch_for_disconnect();
    if (outbox->time_limit().count() > 0) {
      time_limit_.expires_after(outbox->time_limit());
      time_limit_.async_wait([self = shared_from_this(), outbox](error_code problem) {
        if (!problem) outbox->report_timeout();
      });
    }
    std::string bytes;
    for (;;) {
      const Outbox::Next next = gone_ ? Outbox::Next::kAbandoned : outbox->take(bytes);
      switch (next) {
        case Outbox::Next::kWait:
          co_await wake_.async_wait(kTuple);
          continue;
        case Outbox::Next::kSend:
        case Outbox::Next::kSendLast:
          if (co_await send(bytes)) {
            if (next == Outbox::Next::kSend) continue;
            stop_watching();
            co_return outbox->keep_alive();
          }
          break;
        case Outbox::Next::kOverflow:
          shared_.dropped.fetch_add(1, std::memory_order_relaxed);
          break;
        case Outbox::Next::kAbandoned:
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
    socket_.async_wait(Socket::wait_read, [self = shared_from_this()](error_code problem) {
      if (problem == asio::error::operation_aborted) return;
      char byte = 0;
      error_code result;
      const size_t count =
          self->socket_.receive(asio::buffer(&byte, 1), Socket::message_peek, result);
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
        co_await socket_.async_wait(Socket::wait_write, kTuple);
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
  asio::awaitable<void> refuse(HttpResponse response, Framing framing = {.keep_alive = false}) {
    clear_deadline();
    if (!co_await send(framing.whole(response))) co_return;
    error_code problem;
    socket_.shutdown(Socket::shutdown_send, problem);
    set_deadline(kLingerTimeout);
    while (!problem) {
      buffer_.clear();
      std::tie(problem, std::ignore) =
          co_await socket_.async_read_some(buffer_.prepare(kReadBytes), kTuple);
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

  Shared& shared_;
  Socket socket_;
  Timer deadline_;
  Timer wake_;  // never expires; cancelling it wakes the coroutine
  Timer time_limit_;
  boost::beast::flat_buffer buffer_;
  std::string client_;
  int64_t round_ = 0;
  bool expired_ = false;
  bool gone_ = false;
};

void Outbox::wake() {
  if (!waiting_) return;
  waiting_ = false;
  connection_->wake();
}

void Outbox::post(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  if (connection_ == nullptr) return;
  asio::post(connection_->executor(), std::move(work));
}

// A connection needs a file; the soft limit is often 1024.
void raise_file_limit(int64_t connections) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = static_cast<rlim_t>(connections) + 256;
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

class AsioServer final : public HttpServer {
 public:
  AsioServer(HttpOptions options, HttpHandler handler) : acceptor_(io_) {
    shared_.options = std::move(options);
    shared_.handler = std::move(handler);
  }
  ~AsioServer() override {
    io_.stop();
    for (std::thread& thread : threads_) thread.join();
  }

  Status bind() {
    const HttpOptions& options = shared_.options;
    const std::string place = fmt::format("{}:{}", options.host, options.port);
    error_code problem;
    tcp::resolver resolver(io_);
    const auto found =
        resolver.resolve(options.host, std::to_string(options.port),
                         tcp::resolver::passive | tcp::resolver::numeric_service, problem);
    if (problem || found.empty()) {
      return error(ErrorCode::kInvalidArgument, "{}: not an address to listen on ({})", place,
                   problem.message());
    }
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), problem);
    if (!problem) acceptor_.set_option(tcp::acceptor::reuse_address(true), problem);
    if (!problem) acceptor_.bind(endpoint, problem);
    if (!problem) acceptor_.listen(asio::socket_base::max_listen_connections, problem);
    if (problem) {
      return error(ErrorCode::kIo, "{}: cannot listen ({})", place, problem.message());
    }
    port_ = acceptor_.local_endpoint(problem).port();
    raise_file_limit(options.max_connections);
    return {};
  }

  void run() {
    asio::co_spawn(io_, accept(), asio::detached);
    for (int i = 0; i < std::max(shared_.options.threads, 1); ++i) {
      threads_.emplace_back([this] { io_.run(); });
    }
  }

  uint16_t port() const override { return port_; }
  int64_t connections() const override { return shared_.connections.load(); }
  int64_t busy() const override { return shared_.busy.load(); }
  int64_t dropped_clients() const override { return shared_.dropped.load(); }
  void drain() override { shared_.draining.store(true); }

 private:
  asio::awaitable<void> accept() {
    asio::steady_timer pause(io_);
    for (;;) {
      const Strand strand = asio::make_strand(io_.get_executor());
      Socket socket(strand);
      const auto [problem] = co_await acceptor_.async_accept(socket, kTuple);
      if (problem) {
        // Out of files, as a rule: connections that end make room.
        pause.expires_after(std::chrono::milliseconds(50));
        co_await pause.async_wait(kTuple);
        continue;
      }
      const bool over_limit = shared_.connections.load() >= shared_.options.max_connections;
      auto connection = std::make_shared<Connection>(shared_, std::move(socket));
      asio::co_spawn(
          strand,
          [connection, over_limit]() -> asio::awaitable<void> {
            co_await connection->run(over_limit);
          },
          asio::detached);
    }
  }

  Shared shared_;  // outlives what io_ destroys
  asio::io_context io_;
  tcp::acceptor acceptor_;
  std::vector<std::thread> threads_;
  uint16_t port_ = 0;
};

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  for (const HttpHeader& header : headers) {
    if (equal_ignoring_case(header.name, name)) return header.value;
  }
  return {};
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(HttpOptions options, HttpHandler handler) {
  auto server = std::make_unique<AsioServer>(std::move(options), std::move(handler));
  ATOM_TRY(server->bind());
  server->run();
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace atom
