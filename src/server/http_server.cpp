#include "server/http_server.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <thread>

#include "server/http_connection.h"
#include "server/http_framing.h"

namespace atom {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

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

  Status listen() {
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

  void serve() override {
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
      HttpSocket socket(asio::make_strand(io_.get_executor()));
      const auto [problem] = co_await acceptor_.async_accept(socket, kHttpTuple);
      if (problem) {
        // Out of files, as a rule: connections that end make room.
        pause.expires_after(std::chrono::milliseconds(50));
        co_await pause.async_wait(kHttpTuple);
        continue;
      }
      const bool over_limit = shared_.connections.load() >= shared_.options.max_connections;
      serve_connection(shared_, std::move(socket), over_limit);
    }
  }

  HttpShared shared_;  // outlives what io_ destroys
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

Result<std::unique_ptr<HttpServer>> HttpServer::bind(HttpOptions options, HttpHandler handler) {
  auto server = std::make_unique<AsioServer>(std::move(options), std::move(handler));
  ATOM_TRY(server->listen());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace atom
