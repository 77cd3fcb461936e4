// One client of the HTTP server: a coroutine that reads requests, has them answered and sends the
// answers. This header and its .cpp know Boost; the rest of the room does not, but for
// http_server.cpp, which accepts connections.
#pragma once

#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdint>

#include "server/http_server.h"

namespace atom {

// Each connection has a strand of its own, so that its code runs on one thread at a time.
using HttpStrand = boost::asio::strand<boost::asio::io_context::executor_type>;
using HttpSocket = boost::asio::basic_stream_socket<boost::asio::ip::tcp, HttpStrand>;

// Operations awaited with it yield (error_code, ...) rather than throw.
inline constexpr auto kHttpTuple = boost::asio::as_tuple(boost::asio::use_awaitable);

// What all connections of a server share.
struct HttpShared {
  HttpOptions options;
  HttpHandler handler;
  std::atomic<bool> draining{false};
  std::atomic<int64_t> connections{0};
  std::atomic<int64_t> busy{0};
  std::atomic<int64_t> dropped{0};
};

// Serves a client until it, or the server, has had enough; the connection counts from here on.
// over_limit: it is only told that there are too many. shared outlives the socket's context.
void serve_connection(HttpShared& shared, HttpSocket socket, bool over_limit);

}  // namespace atom
