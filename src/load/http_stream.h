// One HTTP/1.1 connection that sends requests and hands out the answers as they arrive. Only the
// sources that run on its event loop include this: Boost is slow to compile.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "load/url.h"

namespace atom {

using LoadClock = std::chrono::steady_clock;
using Addresses = std::vector<boost::asio::ip::tcp::endpoint>;

// The addresses of a host; waits for the name server.
Result<Addresses> resolve(const Url& url);

struct ClientRequest {
  bool post = true;  // else GET
  std::string path;  // behind the URL's prefix
  std::string body;  // JSON
};

struct ClientReply {
  int status = 0;    // 0: no answer came
  std::string body;  // of an answer that is not 200, its first kMaxErrorBytes
  bool cancelled = false;
  std::string failure_kind;     // empty if an answer was read whole: "connect", "timeout",
  std::string failure_message;  // "connection lost" or "malformed answer"
};

class HttpStream {
 public:
  static constexpr size_t kMaxErrorBytes = 16 << 10;
  // Takes the next bytes of the body of a 200 answer; an error ends the request.
  using Sink = std::function<Status(std::string_view bytes)>;

  // url and addresses must outlive the stream. api_key: empty for none.
  HttpStream(boost::asio::io_context& context, const Url& url, const Addresses& addresses,
             const std::string& api_key);

  // Sends a request, on the connection of the one before it if that still stands. One at a time.
  boost::asio::awaitable<ClientReply> exchange(const ClientRequest& request,
                                               LoadClock::time_point deadline, const Sink& sink);
  // Ends the request that runs, if any; its reply says cancelled.
  void cancel();

 private:
  boost::asio::awaitable<ClientReply> attempt(const ClientRequest& request,
                                              LoadClock::time_point deadline, const Sink& sink);
  boost::asio::awaitable<bool> connect(LoadClock::time_point deadline, ClientReply& reply);
  void fail(ClientReply& reply, const char* kind, const boost::system::error_code& problem);
  void disconnect();

  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  const Url& url_;
  const Addresses& addresses_;
  std::string authority_;
  std::string authorization_;
  bool connected_ = false;
  bool cancelled_ = false;
};

}  // namespace atom
