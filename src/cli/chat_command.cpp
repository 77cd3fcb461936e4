// atom chat: a conversation in the terminal.
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "app/chat.h"
#include "base/interrupt.h"
#include "cli/commands.h"
#include "cli/model_arguments.h"
#include "cli/sampling_arguments.h"
#include "engine/generator.h"
#include "text/detokenizer.h"

namespace atom::cli {
namespace {

constexpr const char* kChatHelp =
    "/reset   forget the conversation\n"
    "/help    this text\n"
    "/exit    leave (as Ctrl-D does)\n"
    "Ctrl-C stops an answer; at the prompt it leaves.\n";

struct ChatArguments {
  ModelArguments model;
  SamplingArguments sampling{.max_tokens = 1024};
  std::string system;
  int64_t context = 4096;
};

// The messages so far, and the model that answers them.
class Conversation {
 public:
  Conversation(const ChatArguments& arguments, const Tokenizer& tokenizer,
               const ChatEncoder& encoder, Generator& generator)
      : arguments_(arguments), tokenizer_(tokenizer), encoder_(encoder), generator_(generator) {
    reset();
  }

  void reset() {
    messages_.clear();
    if (!arguments_.system.empty()) messages_.push_back({"system", arguments_.system});
  }

  // Streams the answer to stdout. On an error the message counts as not said; on Ctrl-C what came
  // of the answer stays.
  Status say(const std::string& text) {
    messages_.push_back({"user", text});
    std::string answer;
    Status status = stream_answer(answer);
    if (status.code() == ErrorCode::kCancelled) {
      clear_interrupt();
      std::fputs(" [stopped]", stdout);
      status = {};
    }
    std::fputs("\n", stdout);
    std::fflush(stdout);
    if (status.ok()) {
      messages_.push_back({"assistant", answer});
    } else {
      messages_.pop_back();
    }
    return status;
  }

 private:
  Status stream_answer(std::string& answer) {
    const std::vector<int32_t> prompt = ATOM_TRY(encoder_.encode(messages_));
    IncrementalDetokenizer detokenizer(tokenizer_);
    const auto show = [&](const std::string& piece) {
      answer += piece;
      std::fwrite(piece.data(), 1, piece.size(), stdout);
      std::fflush(stdout);
      return std::ferror(stdout) == 0;
    };
    const Result<Generation> generation = generator_.generate(
        prompt,
        {.max_tokens = arguments_.sampling.max_tokens, .sampling = arguments_.sampling.params},
        [&](int32_t token) { return show(detokenizer.push(token)); });
    show(detokenizer.finish());
    if (generation.ok() && generation->finish == FinishReason::kLength) {
      std::fputs(" [stopped at the limit]", stdout);
    }
    return generation.status();
  }

  const ChatArguments& arguments_;
  const Tokenizer& tokenizer_;
  const ChatEncoder& encoder_;
  Generator& generator_;
  std::vector<ChatMessage> messages_;
};

// The next line without blanks around it; false at the end of the input or on Ctrl-C.
bool read_line(bool terminal, std::string& line) {
  if (terminal) {
    std::fputs("> ", stdout);
    std::fflush(stdout);
  }
  if (!std::getline(std::cin, line)) return false;
  const size_t begin = line.find_first_not_of(" \t\r");
  if (begin == std::string::npos) {
    line.clear();
  } else {
    line = line.substr(begin, line.find_last_not_of(" \t\r") - begin + 1);
  }
  return true;
}

Status chat(const ChatArguments& arguments) {
  ATOM_TRY(validate(arguments.sampling.params));
  const OpenedModel model = ATOM_TRY(open_model(arguments.model));
  const ChatEncoder encoder = ATOM_TRY(ChatEncoder::create(model));
  const int64_t context = std::min(model.weights->config.context, arguments.context);
  const std::unique_ptr<Decoder> decoder = ATOM_TRY(
      Decoder::create(*model.backend, model.weights,
                      {.max_logit_rows = 1, .positions = model.weights->prefix_tokens + context}));
  const std::unique_ptr<Generator> generator = ATOM_TRY(Generator::create(*decoder, context));
  Conversation conversation(arguments, *model.tokenizer, encoder, *generator);

  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  if (terminal) fmt::print("{}, context of {} tokens\n{}", model.origin, context, kChatHelp);
  std::string line;
  while (read_line(terminal, line)) {
    if (line.empty()) continue;
    if (line == "/exit" || line == "/quit") return {};
    if (line == "/reset") {
      conversation.reset();
    } else if (line == "/help") {
      fmt::print("{}", kChatHelp);
    } else if (line[0] == '/') {
      fmt::print("{} is not a command here; /help lists them\n", line);
    } else {
      const Status status = conversation.say(line);
      if (!status.ok() && !terminal) return status;
      if (!status.ok()) fmt::print("{} (/reset begins anew)\n", status.message());
    }
  }
  if (terminal) std::fputs("\n", stdout);
  return check_interrupted();
}

}  // namespace

void add_chat_command(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("chat", "Talk with a model in the terminal");
  command->footer(
      "The conversation goes through the model's chat template. Inside, /help lists what else\n"
      "there is, and Ctrl-C stops an answer. Lines that are piped in are answered one by one.\n"
      "\n"
      "Example:\n"
      "  atom chat model-w4a8 --system \"You answer in one sentence.\"");
  auto arguments = std::make_shared<ChatArguments>();
  add_model_arguments(*command, arguments->model);
  command->add_option("--system", arguments->system, "The system prompt")->type_name("TEXT");
  command
      ->add_option("--context", arguments->context,
                   "Tokens that the conversation may have (at most the model's own context)")
      ->check(CLI::Range(int64_t{16}, int64_t{1} << 22))
      ->type_name("N")
      ->capture_default_str();
  add_sampling_arguments(*command, arguments->sampling);
  command->callback([arguments, &action] { action = [arguments] { return chat(*arguments); }; });
}

}  // namespace atom::cli
