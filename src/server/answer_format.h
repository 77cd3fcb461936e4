// The bodies that answer a completion or a chat: whole, or as the chunks of a stream.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "server/token_text.h"
#include "server/tool_calls.h"
#include "text/tokenizer.h"

namespace atom {

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of them
  int64_t completion_tokens = 0;
};

// A part of an output, or all of it.
struct AnswerPart {
  int64_t index = 0;  // of the output within the answer
  std::string text = {};
  std::vector<PlacedToken> logprobs = {};
  std::vector<ToolCall> calls = {};
  int64_t first_call = 0;          // how many calls of this output came in earlier parts
  std::string finish_reason = {};  // with the last part: "stop", "length", "tool_calls"
};

class AnswerFormat {
 public:
  struct Identity {
    std::string id = {};  // of the answer, "chatcmpl-..."
    int64_t created = 0;  // seconds since 1970
    std::string model = {};
  };

  virtual ~AnswerFormat() = default;
  // The body of an answer that is not streamed. parts: whole outputs.
  std::string whole(const std::vector<AnswerPart>& parts, const Usage& usage) const;
  // The data of one event of a stream.
  std::string chunk(const AnswerPart& part) const;
  // What opens an output's stream, or nothing.
  virtual std::string opening(int64_t index) const = 0;
  // The last event where usage was asked for.
  std::string usage_chunk(const Usage& usage) const;

 protected:
  AnswerFormat(const Tokenizer& tokenizer, Identity identity, bool logprobs, bool include_usage)
      : tokenizer_(tokenizer),
        identity_(std::move(identity)),
        logprobs_(logprobs),
        include_usage_(include_usage) {}
  virtual const char* object(bool streamed) const = 0;
  virtual nlohmann::ordered_json choice(const AnswerPart& part, bool streamed) const = 0;
  nlohmann::ordered_json envelope(bool streamed) const;
  std::string chunk_of(nlohmann::ordered_json choice) const;

  const Tokenizer& tokenizer_;
  const Identity identity_;
  const bool logprobs_;       // whether they were asked for
  const bool include_usage_;  // every chunk of a stream then has the field
};

// Both keep a reference to the tokenizer.
std::unique_ptr<AnswerFormat> make_completion_format(const Tokenizer& tokenizer,
                                                     AnswerFormat::Identity identity, bool logprobs,
                                                     bool include_usage);
std::unique_ptr<AnswerFormat> make_chat_format(const Tokenizer& tokenizer,
                                               AnswerFormat::Identity identity, bool logprobs,
                                               bool include_usage);

}  // namespace atom
