#include "server/http_outbox.h"

#include <optional>
#include <utility>

namespace atom {
namespace {

// Of an answer in pieces: with more unsent, the writer waits.
constexpr size_t kCongestedBytes = 64 << 10;

class Exchange final : public HttpExchange {
 public:
  explicit Exchange(std::shared_ptr<HttpOutbox> outbox) : outbox_(std::move(outbox)) {}
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
  std::shared_ptr<HttpOutbox> outbox_;
};

}  // namespace

std::shared_ptr<HttpExchange> make_exchange(std::shared_ptr<HttpOutbox> outbox) {
  return std::make_shared<Exchange>(std::move(outbox));
}

HttpOutbox::HttpOutbox(std::shared_ptr<HttpOutboxOwner> owner, HttpFraming framing,
                       int64_t limit_bytes)
    : owner_(std::move(owner)), framing_(framing), limit_bytes_(limit_bytes) {}

void HttpOutbox::respond(const HttpResponse& response) {
  const std::lock_guard lock(mutex_);
  if (begun_ || owner_ == nullptr) return;
  begun_ = ended_ = true;
  bytes_ += framing_.whole(response);
  wake();
}

void HttpOutbox::begin(const HttpResponse& head) {
  const std::lock_guard lock(mutex_);
  if (begun_ || owner_ == nullptr) return;
  begun_ = true;
  // Without chunks the end of the connection is the only end of the answer.
  if (!framing_.http11) framing_.keep_alive = false;
  bytes_ += framing_.head(head, std::nullopt);
  framing_.append_piece(bytes_, head.body);
  wake();
}

void HttpOutbox::write(std::string_view piece) {
  const std::lock_guard lock(mutex_);
  if (!begun_ || ended_ || overflow_ || owner_ == nullptr) return;
  // What was unsent before counts: a single large piece is no sign of a slow client.
  if (static_cast<int64_t>(bytes_.size()) > limit_bytes_) {
    overflow_ = true;
  } else {
    framing_.append_piece(bytes_, piece);
  }
  wake();
}

void HttpOutbox::end() {
  const std::lock_guard lock(mutex_);
  if (!begun_ || ended_ || owner_ == nullptr) return;
  ended_ = true;
  bytes_ += framing_.last_piece();
  wake();
}

void HttpOutbox::abandon() {
  const std::lock_guard lock(mutex_);
  if (ended_ || owner_ == nullptr) return;
  abandoned_ = true;
  wake();
}

void HttpOutbox::post(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  if (owner_ != nullptr) owner_->post(std::move(work));
}

bool HttpOutbox::wait_until_sent(std::function<void()> callback) {
  const std::lock_guard lock(mutex_);
  if (bytes_.size() < kCongestedBytes || owner_ == nullptr) return false;
  on_sent_ = std::move(callback);
  return true;
}

void HttpOutbox::on_timeout(std::chrono::milliseconds after, std::function<void()> callback) {
  time_limit_ = after;
  on_timeout_ = std::move(callback);
}

HttpOutbox::Next HttpOutbox::take(std::string& bytes) {
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

bool HttpOutbox::keep_alive() {
  const std::lock_guard lock(mutex_);
  return framing_.keep_alive;
}

void HttpOutbox::detach() {
  // Destroyed after the lock is gone: this may be the last that holds the handler's side.
  std::shared_ptr<HttpOutboxOwner> released;
  std::function<void()> unsent;
  const std::lock_guard lock(mutex_);
  released.swap(owner_);
  unsent.swap(on_sent_);
}

void HttpOutbox::report_disconnect() {
  if (auto callback = std::exchange(on_disconnect_, nullptr)) callback();
}

void HttpOutbox::report_timeout() {
  if (auto callback = std::exchange(on_timeout_, nullptr)) callback();
}

void HttpOutbox::wake() {
  if (!waiting_) return;
  waiting_ = false;
  owner_->wake();
}

// The callback of wait_until_sent where everything has been taken.
std::function<void()> HttpOutbox::take_on_sent() {
  const std::lock_guard lock(mutex_);
  if (!bytes_.empty()) return nullptr;
  return std::exchange(on_sent_, nullptr);
}

}  // namespace atom
