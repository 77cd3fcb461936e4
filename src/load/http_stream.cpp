#include "load/http_stream.h"

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http.hpp>

namespace atom {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr uint32_t kMaxHeaderBytes = 64 << 10;

http::request<http::string_body> message_of(const ClientRequest& request, const Url& url,
                                            const std::string& authority,
                                            const std::string& authorization) {
  http::request<http::string_body> message;
  message.version(11);
  message.method(request.post ? http::verb::post : http::verb::get);
  message.target(url.prefix + request.path);
  message.set(http::field::host, authority);
  message.set(http::field::user_agent, "atom-bench");
  message.set(http::field::accept, request.post ? "text/event-stream, application/json" : "*/*");
  if (!authorization.empty()) message.set(http::field::authorization, authorization);
  if (request.post) {
    message.set(http::field::content_type, "application/json");
    message.body() = request.body;
    message.prepare_payload();
  }
  return message;
}

bool is_parse_error(const error_code& problem) {
  return problem.category() == http::make_error_code(http::error::bad_chunk).category() &&
         problem != http::error::end_of_stream && problem != http::error::partial_message;
}

}  // namespace

Result<Addresses> resolve(const Url& url) {
  asio::io_context context;
  asio::ip::tcp::resolver resolver(context);
  error_code problem;
  const auto found = resolver.resolve(url.host, url.port, problem);
  if (problem) {
    return error(ErrorCode::kNotFound, "--url: cannot find host '{}': {}", url.host,
                 problem.message());
  }
  Addresses addresses;
  for (const auto& entry : found) addresses.push_back(entry.endpoint());
  return addresses;
}

HttpStream::HttpStream(asio::io_context& context, const Url& url, const Addresses& addresses,
                       const std::string& api_key)
    : stream_(context),
      url_(url),
      addresses_(addresses),
      authority_(url.authority()),
      authorization_(api_key.empty() ? std::string() : "Bearer " + api_key) {}

void HttpStream::cancel() {
  cancelled_ = true;
  disconnect();
}

void HttpStream::disconnect() {
  connected_ = false;
  buffer_.clear();
  stream_.close();
}

void HttpStream::fail(ClientReply& reply, const char* kind, const error_code& problem) {
  disconnect();
  reply.cancelled = cancelled_;
  reply.failure_kind = problem == beast::error::timeout ? "timeout" : kind;
  reply.failure_message = problem.message();
}

asio::awaitable<bool> HttpStream::connect(LoadClock::time_point deadline, ClientReply& reply) {
  stream_.expires_at(deadline);
  const auto [problem, endpoint] = co_await stream_.async_connect(addresses_, kAwait);
  if (problem) {
    fail(reply, "connect", problem);
    co_return false;
  }
  error_code ignored;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  connected_ = true;
  co_return true;
}

asio::awaitable<ClientReply> HttpStream::exchange(const ClientRequest& request,
                                                  LoadClock::time_point deadline,
                                                  const Sink& sink) {
  cancelled_ = false;
  const bool reused = connected_;
  ClientReply reply = co_await attempt(request, deadline, sink);
  // A server may close an idle connection at any moment; only a new one tells whether it is there.
  const bool stale = reused && reply.status == 0 && reply.failure_kind == "connection lost";
  if (stale && !reply.cancelled) reply = co_await attempt(request, deadline, sink);
  co_return reply;
}

asio::awaitable<ClientReply> HttpStream::attempt(const ClientRequest& request,
                                                 LoadClock::time_point deadline, const Sink& sink) {
  ClientReply reply;
  if (!connected_ && !co_await connect(deadline, reply)) co_return reply;
  stream_.expires_at(deadline);
  const auto message = message_of(request, url_, authority_, authorization_);
  const auto [write_problem, written] = co_await http::async_write(stream_, message, kAwait);
  if (write_problem) {
    fail(reply, "connection lost", write_problem);
    co_return reply;
  }
  http::response_parser<http::buffer_body> parser;
  parser.header_limit(kMaxHeaderBytes);
  parser.body_limit(boost::none);
  const auto [header_problem, header_size] =
      co_await http::async_read_header(stream_, buffer_, parser, kAwait);
  if (header_problem) {
    fail(reply, is_parse_error(header_problem) ? "malformed answer" : "connection lost",
         header_problem);
    co_return reply;
  }
  reply.status = static_cast<int>(parser.get().result_int());
  std::array<char, 4096> bytes;
  while (!parser.is_done()) {
    auto& body = parser.get().body();
    body.data = bytes.data();
    body.size = bytes.size();
    body.more = true;
    const auto [problem, size] = co_await http::async_read_some(stream_, buffer_, parser, kAwait);
    if (problem && problem != http::error::need_buffer) {
      fail(reply, is_parse_error(problem) ? "malformed answer" : "connection lost", problem);
      co_return reply;
    }
    const std::string_view part(bytes.data(), bytes.size() - body.size);
    if (reply.status == 200) {
      const Status status = sink(part);
      if (!status.ok()) {
        disconnect();
        reply.failure_kind = "malformed answer";
        reply.failure_message = status.message();
        co_return reply;
      }
    } else {
      reply.body += part.substr(0, kMaxErrorBytes - reply.body.size());
    }
  }
  if (!parser.keep_alive()) disconnect();
  co_return reply;
}

}  // namespace atom
