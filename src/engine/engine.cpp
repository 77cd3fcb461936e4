#include "engine/engine.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "engine/decoder_runner.h"
#include "engine/engine_core.h"

namespace atom {
namespace {

struct NewRequest {
  RequestId id;
  Request request;
  EngineClock::time_point arrival;
};
struct CancelRequest {
  RequestId id;
};
struct StopChoice {
  RequestId id;
  int choice;
};
using Message = std::variant<NewRequest, CancelRequest, StopChoice>;

// Requests and the tokens of their prompts.
struct Load {
  int64_t requests = 0;
  int64_t tokens = 0;
};

}  // namespace

class Engine::Impl {
 public:
  explicit Impl(std::unique_ptr<EngineCore> core)
      : core_(std::move(core)), options_(core_->options()), snapshot_(core_->stats()) {
    thread_ = std::thread([this] { serve(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      draining_ = stopping_ = true;
    }
    news_.notify_one();
    thread_.join();
  }

  Submission submit(Request request) {
    ATOM_CHECK(request.sink != nullptr, "a request needs a sink");
    using Verdict = Submission::Verdict;
    Status invalid = core_->validate(request);
    const auto tokens = static_cast<int64_t>(request.prompt.size());
    RequestId id = 0;
    {
      const std::lock_guard lock(mutex_);
      const auto reject = [&](Verdict verdict, Status why, double retry_after_seconds) {
        ++rejected_;
        return Submission{.verdict = verdict,
                          .id = 0,
                          .status = std::move(why),
                          .retry_after_seconds = retry_after_seconds};
      };
      if (!invalid.ok()) return reject(Verdict::kInvalid, std::move(invalid), 0);
      if (draining_) {
        return reject(Verdict::kDraining,
                      error(ErrorCode::kCancelled, "the engine takes no more requests"), 1);
      }
      const Load waiting = {inbox_load_.requests + core_load_.requests,
                            inbox_load_.tokens + core_load_.tokens};
      if (waiting.requests >= options_.max_waiting_requests ||
          (waiting.requests > 0 && waiting.tokens + tokens > options_.max_waiting_tokens)) {
        return reject(Verdict::kQueueFull,
                      error(ErrorCode::kOutOfMemory,
                            "the queue is full: {} requests with {} prompt tokens wait",
                            waiting.requests, waiting.tokens),
                      seconds_to_start(waiting.requests));
      }
      id = ++accepted_;
      ++inbox_load_.requests;
      inbox_load_.tokens += tokens;
      inbox_.push_back(NewRequest{id, std::move(request), EngineClock::now()});
    }
    news_.notify_one();
    return {.verdict = Verdict::kAccepted, .id = id, .status = {}};
  }

  void post(Message message) {
    {
      const std::lock_guard lock(mutex_);
      inbox_.push_back(std::move(message));
    }
    news_.notify_one();
  }

  void drain() {
    const std::lock_guard lock(mutex_);
    draining_ = true;
  }

  bool wait_idle(std::chrono::milliseconds longest) {
    std::unique_lock lock(mutex_);
    return idle_.wait_for(lock, longest, [&] { return ended() == accepted_; });
  }

  EngineStats stats() const {
    const auto now = EngineClock::now();
    const std::lock_guard lock(mutex_);
    EngineStats stats = snapshot_;
    stats.waiting += received_ + inbox_load_.requests;
    stats.waiting_requests = inbox_load_.requests + core_load_.requests;
    stats.requests_accepted = static_cast<int64_t>(accepted_);
    stats.requests_rejected = rejected_;
    const double fade = Rate::fade(seconds_between(snapshot_time_, now));
    stats.prompt_tokens_per_second *= fade;
    stats.generated_tokens_per_second *= fade;
    return stats;
  }

  const EngineOptions& options() const { return options_; }

 private:
  void serve() {
    bool busy = false, stop = false;
    while (!stop || busy) {
      std::vector<Message> messages;
      {
        std::unique_lock lock(mutex_);
        news_.wait(lock, [&] { return busy || stopping_ || !inbox_.empty(); });
        messages.swap(inbox_);
        core_load_.requests += inbox_load_.requests;
        core_load_.tokens += inbox_load_.tokens;
        received_ = inbox_load_.requests;
        inbox_load_ = {};
        stop = stopping_;
      }
      for (Message& message : messages) {
        std::visit([&](auto& m) { receive(m); }, message);
      }
      if (stop) core_->cancel_all();
      busy = core_->step();
      publish();
    }
  }

  void receive(NewRequest& m) { core_->add(m.id, std::move(m.request), m.arrival); }
  void receive(const CancelRequest& m) { core_->cancel(m.id); }
  void receive(const StopChoice& m) { core_->stop_choice(m.id, m.choice); }

  void publish() {
    const EngineStats stats = core_->stats();
    const auto now = EngineClock::now();
    const std::lock_guard lock(mutex_);
    start_rate_.add(static_cast<double>(stats.queue_time.total() - snapshot_.queue_time.total()),
                    now);
    snapshot_ = stats;
    snapshot_time_ = now;
    received_ = 0;
    core_load_ = {core_->waiting_requests(), core_->waiting_prompt_tokens()};
    if (ended() == accepted_) idle_.notify_all();
  }

  // The time in which as many requests started lately as wait now.
  double seconds_to_start(int64_t requests) const {
    const double rate = start_rate_.per_second(EngineClock::now());
    return std::clamp(static_cast<double>(requests) / std::max(rate, 1e-3), 1.0, 60.0);
  }

  RequestId ended() const {
    return static_cast<RequestId>(snapshot_.requests_finished + snapshot_.requests_cancelled +
                                  snapshot_.requests_failed);
  }

  const std::unique_ptr<EngineCore> core_;  // the thread's, but for validate()
  const EngineOptions options_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable news_, idle_;
  std::vector<Message> inbox_;
  Load inbox_load_;       // new requests in the inbox
  Load core_load_;        // requests beyond it that have not started, after the last step
  int64_t received_ = 0;  // of these, since the snapshot
  RequestId accepted_ = 0;
  int64_t rejected_ = 0;
  bool draining_ = false, stopping_ = false;
  EngineStats snapshot_;
  EngineClock::time_point snapshot_time_ = {};
  Rate start_rate_;

  std::thread thread_;  // last: it uses the rest
};

Result<std::unique_ptr<Engine>> Engine::create(Decoder& decoder, int64_t kv_pages,
                                               const EngineOptions& options) {
  return create(ATOM_TRY(make_decoder_runner(decoder, kv_pages)), options);
}

Result<std::unique_ptr<Engine>> Engine::create(std::unique_ptr<Runner> runner,
                                               const EngineOptions& options) {
  auto core = ATOM_TRY(EngineCore::create(std::move(runner), options));
  return std::unique_ptr<Engine>(new Engine(std::make_unique<Impl>(std::move(core))));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Submission Engine::submit(Request request) { return impl_->submit(std::move(request)); }
void Engine::cancel(RequestId id) { impl_->post(CancelRequest{id}); }
void Engine::stop_choice(RequestId id, int choice) { impl_->post(StopChoice{id, choice}); }
void Engine::drain() { impl_->drain(); }
bool Engine::wait_idle(std::chrono::milliseconds longest) { return impl_->wait_idle(longest); }
EngineStats Engine::stats() const { return impl_->stats(); }
int64_t Engine::context() const { return impl_->options().context; }
const EngineOptions& Engine::options() const { return impl_->options(); }

}  // namespace atom
