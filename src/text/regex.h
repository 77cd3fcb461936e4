// Regular expressions from tokenizer files (PCRE2 with JIT): Unicode classes, look-ahead, bounded
// work. The hand-written scanners (scanners.h) serve the patterns that common models use.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;

namespace atom {

struct TextSpan {
  size_t begin = 0;
  size_t end = 0;
};

class Regex {
 public:
  // place names the field that the pattern comes from, for messages.
  static Result<Regex> compile(std::string_view pattern, std::string place);

  // One thread's state while it matches.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    // Finds the first match at or after `from`; found is false where there is none. Fails where the
    // pattern needs more work or memory than the limits allow.
    // REQUIRES: text is valid UTF-8 and `from` stands at a character.
    Status find(std::string_view text, size_t from, bool& found, TextSpan& match);

   private:
    struct FreeMatchData {
      void operator()(pcre2_real_match_data_8* data) const;
    };
    const Regex* regex_;
    std::unique_ptr<pcre2_real_match_data_8, FreeMatchData> data_;
  };

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  struct FreeContext {
    void operator()(pcre2_real_match_context_8* context) const;
  };
  std::unique_ptr<pcre2_real_code_8, FreeCode> code_;
  std::unique_ptr<pcre2_real_match_context_8, FreeContext> limits_;
  std::string place_;
};

}  // namespace atom
