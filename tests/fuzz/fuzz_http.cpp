// Bytes on a connection to a real server on the loopback: it answers with HTTP or closes, and it
// goes on to serve.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "server/api_error.h"
#include "server/http_server.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

// Answers with what came, whole or in pieces.
atom::HttpServer& server() {
  static const std::unique_ptr<atom::HttpServer> instance = [] {
    atom::HttpHandler handler;
    handler.screen = [](const atom::HttpRequest& head, atom::HttpResponse& refusal) {
      refusal = atom::error_response({.status = 401, .message = "no key"});
      return head.header("Authorization") == "none";
    };
    handler.handle = [](atom::HttpRequest request, std::shared_ptr<atom::HttpExchange> exchange) {
      if (request.method == "PUT") return;  // an exchange that is dropped
      if (request.method != "POST") {
        exchange->respond({.body = request.path});
        return;
      }
      exchange->begin({.content_type = "text/plain"});
      exchange->write(request.body);
      exchange->end();
    };
    handler.fail = [](atom::HttpFailure, const std::string& message) {
      return atom::error_response({.message = message});
    };
    auto made = atom::HttpServer::bind({.port = 0,
                                        .threads = 1,
                                        .max_header_bytes = 2048,
                                        .max_body_bytes = 4096,
                                        .header_timeout = std::chrono::milliseconds(2000),
                                        .body_timeout = std::chrono::milliseconds(2000)},
                                       std::move(handler))
                    .value();
    made->serve();
    return made;
  }();
  return *instance;
}

std::string exchange_bytes(std::string_view bytes) {
  const int client = ::socket(AF_INET, SOCK_STREAM, 0);
  require(client >= 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(server().port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  require(::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  while (!bytes.empty()) {
    const ssize_t count = ::send(client, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count <= 0) break;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  ::shutdown(client, SHUT_WR);
  std::string answer;
  char piece[4096];
  for (;;) {
    const ssize_t count = ::recv(client, piece, sizeof piece, 0);
    if (count <= 0) break;
    answer.append(piece, static_cast<size_t>(count));
  }
  ::close(client);
  return answer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string answer =
      exchange_bytes(std::string_view(reinterpret_cast<const char*>(data), size));
  require(answer.empty() || answer.starts_with("HTTP/1."));
  return 0;
}
