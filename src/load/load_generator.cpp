#include "load/load_generator.h"

#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/interrupt.h"
#include "base/progress.h"
#include "load/http_stream.h"
#include "load/sse_parser.h"

namespace atom {
namespace {

namespace asio = boost::asio;

constexpr auto kPollInterval = std::chrono::milliseconds(50);
constexpr auto kQuestionTimeout = std::chrono::seconds(120);
constexpr size_t kMaxAnswerBytes = 4 << 20;
constexpr int64_t kOpenLoopWarmupStreams = 16;
// Prompts before the measurement differ from all of its own.
constexpr int64_t kWarmupIndex = int64_t{1} << 40;
constexpr int64_t kProbeIndex = int64_t{1} << 41;

LoadClock::duration to_duration(double seconds) {
  return std::chrono::duration_cast<LoadClock::duration>(std::chrono::duration<double>(seconds));
}

double to_seconds(LoadClock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// Room for `streams` sockets, as far as the system allows without privileges.
Status raise_file_limit(int64_t streams) {
  struct rlimit limit {};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const auto wanted = static_cast<rlim_t>(streams + 64);
  if (limit.rlim_cur >= wanted) return {};
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  if (limit.rlim_cur < wanted || ::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return error(ErrorCode::kInvalidArgument,
                 "{} streams at once need more open files than the {} allowed (ulimit -n)", streams,
                 limit.rlim_max);
  }
  return {};
}

// One run of a plan: its streams, its clock and what it measured.
class Run {
 public:
  Run(const LoadOptions& options, const LoadResult& setup, const Addresses& addresses,
      const PromptSource& prompts, RequestPlan plan, const Slo& slo)
      : options_(options),
        setup_(setup),
        addresses_(addresses),
        prompts_(prompts),
        plan_(std::move(plan)),
        measurement_(slo),
        clock_poll_(context_),
        arrival_timer_(context_) {}

  // Runs to the end of the plan or to Ctrl-C. concurrency: 0 for an open loop.
  void run(int64_t concurrency, const char* label) {
    const double units =
        plan_.total() > 0 ? static_cast<double>(plan_.total()) : options_.duration_s * 10;
    Progress progress(label, static_cast<int64_t>(units), options_.progress);
    progress_ = &progress;
    start_ = LoadClock::now();
    asio::co_spawn(context_, watch(), asio::detached);
    if (concurrency == 0) {
      ++drivers_;
      asio::co_spawn(context_, send_at_arrivals(), asio::detached);
    }
    for (int64_t i = 0; i < concurrency; ++i) {
      ++drivers_;
      asio::co_spawn(context_, send_in_turn(), asio::detached);
    }
    context_.run();
    progress_ = nullptr;
  }

  Measurement& measurement() { return measurement_; }
  int64_t peak_streams() const { return peak_streams_; }
  bool stopped() const { return stopping_; }

 private:
  double now() const { return to_seconds(LoadClock::now() - start_); }
  bool time_is_up(double at) const { return options_.duration_s > 0 && at >= options_.duration_s; }

  // One client of a closed loop.
  asio::awaitable<void> send_in_turn() {
    HttpStream stream(context_, options_.url, addresses_, options_.api_key);
    while (!stopping_ && !time_is_up(now())) {
      const std::optional<PlannedRequest> request = plan_.next();
      if (!request) break;
      co_await send(stream, *request, now());
    }
    driver_left();
  }

  // The clock of an open loop.
  asio::awaitable<void> send_at_arrivals() {
    while (!stopping_) {
      const std::optional<PlannedRequest> request = plan_.next();
      if (!request || time_is_up(request->arrival_s)) break;
      arrival_timer_.expires_at(start_ + to_duration(request->arrival_s));
      co_await arrival_timer_.async_wait(asio::as_tuple(asio::use_awaitable));
      if (stopping_) break;
      if (open_streams_ + starting_ >= options_.max_streams) {
        StreamRecord record;
        record.due = record.sent = request->arrival_s;
        record.ended = now();
        record.failure_kind = "not sent";
        record.failure_message = fmt::format("{} streams were open", options_.max_streams);
        end(record);
        continue;
      }
      ++drivers_;
      ++starting_;
      asio::co_spawn(context_, send_alone(*request), asio::detached);
    }
    driver_left();
  }

  asio::awaitable<void> send_alone(PlannedRequest request) {
    std::unique_ptr<HttpStream> stream;
    if (idle_.empty()) {
      stream = std::make_unique<HttpStream>(context_, options_.url, addresses_, options_.api_key);
    } else {
      stream = std::move(idle_.back());
      idle_.pop_back();
    }
    --starting_;
    co_await send(*stream, request, request.arrival_s);
    idle_.push_back(std::move(stream));
    driver_left();
  }

  asio::awaitable<void> send(HttpStream& stream, PlannedRequest planned, double due) {
    StreamRecord record;
    record.due = due;
    ClientRequest request;
    request.path = api_path(options_.api);
    request.body = body_of(planned);
    SseParser parser;
    bool done = false;
    std::string stream_failure;
    const SseParser::Sink on_event = [&](std::string_view data) -> Status {
      const StreamEvent event = ATOM_TRY(read_stream_event(data));
      done |= event.done;
      if (event.failure) stream_failure = *event.failure;
      if (event.usage.prompt_tokens) record.usage.prompt_tokens = event.usage.prompt_tokens;
      if (event.usage.generated_tokens) {
        record.usage.generated_tokens = event.usage.generated_tokens;
      }
      if (event.has_text) {
        const double moment = now();
        measurement_.on_text(moment, record.text_events > 0 ? record.last_text : -1);
        if (record.text_events++ == 0) record.first_text = moment;
        record.last_text = moment;
      }
      return {};
    };
    const HttpStream::Sink on_bytes = [&](std::string_view bytes) {
      return parser.feed(bytes, on_event);
    };

    open_.insert(&stream);
    peak_streams_ = std::max(peak_streams_, ++open_streams_);
    record.sent = now();
    const ClientReply reply = co_await stream.exchange(
        request, LoadClock::now() + to_duration(options_.timeout_s), on_bytes);
    record.ended = now();
    --open_streams_;
    open_.erase(&stream);
    judge(reply, done, stream_failure, record);
    end(record);
  }

  std::string body_of(const PlannedRequest& planned) const {
    const int64_t words = setup_.fit.words_for(planned.prompt_tokens);
    const int64_t shared =
        options_.shared_prefix_tokens > 0 ? setup_.fit.words_for(options_.shared_prefix_tokens) : 0;
    GenerationRequest request;
    request.prompt = prompts_.prompt(planned.index, words, shared);
    request.max_tokens = planned.max_tokens;
    return request_body(options_.api, setup_.model, request,
                        options_.extra ? *options_.extra : Json());
  }

  static void judge(const ClientReply& reply, bool done, const std::string& stream_failure,
                    StreamRecord& record) {
    const auto failed = [&](std::string kind, std::string message) {
      record.failure_kind = std::move(kind);
      record.failure_message = std::move(message);
    };
    if (reply.cancelled) {
      record.outcome = Outcome::kUnfinished;
    } else if (!reply.failure_kind.empty()) {
      failed(reply.failure_kind, reply.failure_message);
    } else if (reply.status != 200) {
      failed(fmt::format("http {}", reply.status), failure_message(reply.body));
    } else if (!stream_failure.empty()) {
      failed("error in the stream", stream_failure);
    } else if (!done) {
      failed("stream cut off", "the answer ended without [DONE]");
    } else if (record.text_events == 0) {
      failed("no text", "the answer has no event with text");
    } else {
      record.outcome = Outcome::kSucceeded;
    }
  }

  void end(const StreamRecord& record) {
    measurement_.on_end(record);
    if (plan_.total() > 0) progress_->advance();
  }

  // Watches for Ctrl-C and keeps the progress bar alive while streams run.
  asio::awaitable<void> watch() {
    int64_t tenths = 0;
    while (drivers_ > 0) {
      clock_poll_.expires_after(kPollInterval);
      co_await clock_poll_.async_wait(asio::as_tuple(asio::use_awaitable));
      const double seconds = now();
      progress_->note(fmt::format("{} open, {} answered, {} failed", open_streams_,
                                  measurement_.succeeded(), measurement_.failed()));
      const auto tenths_now = static_cast<int64_t>(seconds * 10);
      progress_->advance(plan_.total() > 0 ? 0 : tenths_now - tenths);
      tenths = tenths_now;
      if (interrupted() && !stopping_) stop();
    }
  }

  void stop() {
    stopping_ = true;
    arrival_timer_.cancel();
    for (HttpStream* stream : open_) stream->cancel();
  }

  void driver_left() {
    if (--drivers_ == 0) clock_poll_.cancel();
  }

  const LoadOptions& options_;
  const LoadResult& setup_;
  const Addresses& addresses_;
  const PromptSource& prompts_;
  RequestPlan plan_;
  Measurement measurement_;
  asio::io_context context_;
  asio::steady_timer clock_poll_;
  asio::steady_timer arrival_timer_;
  std::vector<std::unique_ptr<HttpStream>> idle_;  // open loop: connections to use again
  std::set<HttpStream*> open_;
  Progress* progress_ = nullptr;
  LoadClock::time_point start_;
  int64_t drivers_ = 0;   // coroutines that may still send
  int64_t starting_ = 0;  // spawned, but not yet among the open streams
  int64_t open_streams_ = 0;
  int64_t peak_streams_ = 0;
  bool stopping_ = false;
};

// A question before the measurement: the body of the answer, or why there is none.
Result<std::string> ask(const LoadOptions& options, const Addresses& addresses,
                        ClientRequest request) {
  asio::io_context context;
  HttpStream stream(context, options.url, addresses, options.api_key);
  ClientReply reply;
  std::string body;
  const auto exchange = [&]() -> asio::awaitable<void> {
    const HttpStream::Sink sink = [&](std::string_view bytes) -> Status {
      body += bytes;
      if (body.size() <= kMaxAnswerBytes) return {};
      return error(ErrorCode::kCorrupt, "more than {} bytes", kMaxAnswerBytes);
    };
    reply = co_await stream.exchange(request, LoadClock::now() + kQuestionTimeout, sink);
  };
  asio::co_spawn(context, exchange, asio::detached);
  while (!context.stopped()) {
    ATOM_TRY(check_interrupted());
    context.run_for(kPollInterval);
  }
  const std::string place =
      fmt::format("http://{}{}{}", options.url.authority(), options.url.prefix, request.path);
  if (!reply.failure_kind.empty()) {
    return error(ErrorCode::kIo, "{}: {}: {}", place, reply.failure_kind, reply.failure_message);
  }
  if (reply.status != 200) {
    return error(ErrorCode::kInvalidArgument, "{}: http {}: {}", place, reply.status,
                 failure_message(reply.body));
  }
  return body;
}

// How many tokens the server counts in prompts of random words; none where it does not count.
Result<std::optional<TokenFit>> measure_fit(const LoadOptions& options, const Addresses& addresses,
                                            const PromptSource& prompts, const std::string& model) {
  constexpr int kRepeat = 3;
  // Short enough for any server that has room for the prompts themselves.
  const int64_t more = std::clamp<int64_t>(options.plan.prompt_tokens / 4, 8, 64);
  const int64_t less = more / 4;
  double tokens[2] = {};
  for (int i = 0; i < 2 * kRepeat; ++i) {
    GenerationRequest request;
    request.prompt = prompts.prompt(kProbeIndex + i, i % 2 == 0 ? less : more);
    request.stream = false;
    ClientRequest question;
    question.path = api_path(options.api);
    question.body =
        request_body(options.api, model, request, options.extra ? *options.extra : Json());
    const TokenUsage usage = ATOM_TRY(read_usage(ATOM_TRY(ask(options, addresses, question))));
    if (!usage.prompt_tokens) return std::optional<TokenFit>();
    tokens[i % 2] += static_cast<double>(*usage.prompt_tokens) / kRepeat;
  }
  return TokenFit::through(less, tokens[0], more, tokens[1]);
}

Status warm_up(const LoadOptions& options, const LoadResult& setup, const Addresses& addresses,
               const PromptSource& prompts) {
  PlanOptions plan_options;
  plan_options.requests = options.warmup;
  plan_options.first_index = kWarmupIndex;
  plan_options.prompt_tokens = options.plan.prompt_tokens;
  plan_options.max_tokens = options.plan.max_tokens;
  LoadOptions warm = options;
  warm.duration_s = 0;
  Run run(warm, setup, addresses, prompts, ATOM_TRY(RequestPlan::create(plan_options, nullptr)),
          Slo{});
  const int64_t most = options.concurrency > 0 ? options.concurrency : kOpenLoopWarmupStreams;
  run.run(std::min(most, options.warmup), "warming up");
  ATOM_TRY(check_interrupted());
  if (run.measurement().succeeded() == 0) {
    const auto& [kind, failures] = *run.measurement().failures().begin();
    return error(ErrorCode::kIo, "every request of the warm-up failed; {}: {}", kind,
                 failures.example);
  }
  return {};
}

}  // namespace

Result<LoadResult> run_load(const LoadOptions& options, const PromptSource& prompts,
                            RequestPlan plan, const Slo& slo) {
  ATOM_TRY(raise_file_limit(options.concurrency > 0 ? options.concurrency : options.max_streams));
  const Addresses addresses = ATOM_TRY(resolve(options.url));
  LoadResult result;
  result.model = options.model;
  if (result.model.empty()) {
    ClientRequest question;
    question.post = false;
    question.path = "/v1/models";
    result.model = ATOM_TRY(first_model(ATOM_TRY(ask(options, addresses, question))));
  }
  if (options.tokens_per_word) {
    result.fit.tokens_per_word = *options.tokens_per_word;
  } else if (const auto fit = ATOM_TRY(measure_fit(options, addresses, prompts, result.model))) {
    result.fit = *fit;
    result.fit_measured = true;
  }
  if (options.warmup > 0) ATOM_TRY(warm_up(options, result, addresses, prompts));

  Run run(options, result, addresses, prompts, std::move(plan), slo);
  run.run(options.concurrency, "measuring");
  result.measurement = std::move(run.measurement());
  result.peak_streams = run.peak_streams();
  result.interrupted = run.stopped();
  return result;
}

}  // namespace atom
