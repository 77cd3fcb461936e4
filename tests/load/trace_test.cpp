#include "load/trace.h"

#include <gtest/gtest.h>

#include <string>

namespace atom {
namespace {

void refuses(std::string_view text, const std::string& says) {
  const Result<Trace> trace = parse_trace(text, "trace");
  ASSERT_FALSE(trace.ok()) << text;
  EXPECT_NE(trace.status().message().find(says), std::string::npos) << trace.status().message();
}

TEST(Trace, Azure) {
  const Trace trace = *parse_trace(
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
      "2023-11-16 23:59:59.5000000,374,44\r\n"
      "2023-11-17 00:00:01.2500000,396,109",
      "trace");
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_TRUE(trace.has_arrivals);
  EXPECT_EQ(trace.requests[0].arrival_s, 0);
  EXPECT_NEAR(trace.requests[1].arrival_s, 1.75, 1e-6);
  EXPECT_EQ(trace.requests[1].prompt_tokens, 396);
  EXPECT_EQ(trace.requests[1].output_tokens, 109);
}

TEST(Trace, ShareGptLengths) {
  const Trace trace = *parse_trace(
      "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n"
      "74,918,992,0.08\n\n290,905,1195,0.32\n",
      "trace");
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_FALSE(trace.has_arrivals);
  EXPECT_EQ(trace.requests[0].prompt_tokens, 74);
  EXPECT_EQ(trace.requests[1].output_tokens, 905);
}

TEST(Trace, JsonLines) {
  const Trace trace = *parse_trace(
      "{\"input_toks\": 5, \"output_toks\": 6, \"arrival_time_ns\": 3000000000, "
      "\"input_tok_ids\": [1, 2]}\n"
      "{\"input_toks\": 7, \"output_toks\": 8, \"arrival_time_ns\": 1000000000}\n",
      "trace");
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.requests[0].prompt_tokens, 7);  // in order of arrival
  EXPECT_NEAR(trace.requests[1].arrival_s, 2, 1e-9);
}

TEST(Trace, Dates) {
  const auto second_arrival = [&](const std::string& date) {
    const Result<Trace> trace = parse_trace(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-02-28 00:00:00,1,1\n" + date + ",1,1\n",
        "trace");
    return trace.ok() ? trace->requests[1].arrival_s : -1;
  };
  EXPECT_NEAR(second_arrival("2024-02-29T00:00:00Z"), 86400, 1e-6);
  EXPECT_NEAR(second_arrival("2024-03-01 00:00:00+01:30"), 2 * 86400 - 5400, 1e-6);
  EXPECT_NEAR(second_arrival("2024-02-28 00:00:00.250-00:10"), 600.25, 1e-6);
  for (const char* wrong : {"2023-02-29 00:00:00", "2024-13-01 00:00:00", "2024-03-01 24:00:00",
                            "2024-03-01", "2024-03-01 00:00:00 later", "nan", "soon"}) {
    EXPECT_EQ(second_arrival(wrong), -1) << wrong;
  }
}

TEST(Trace, NamesWhatIsWrong) {
  const std::string header = "ContextTokens,GeneratedTokens\n";
  refuses(header + "1,0\n", "trace:2: column 'GeneratedTokens': expected an integer within 1..");
  refuses(header + "1,2\n-5,2\n", ":3: column 'ContextTokens'");
  refuses(header + "1,1e9\n", "found '1e9'");
  refuses(header + "1,\x1b[31m\n", R"(found '\x1b[31m')");
  refuses(header + "99999999999999999999,1\n", "column 'ContextTokens'");
  refuses(header + "1\n", ":2: 1 columns, but 2 in the header");
  refuses("ContextTokens,input_toks\n", "column 'input_toks': a column before it says the same");
  refuses("time,size\n1,2\n", ":1: no trace");
  refuses("{\"input_toks\": 5, \"output_toks\": 6}\n[]\n", ":2: not a JSON object");
  refuses("{\"input_toks\": {}, \"output_toks\": 6}\n", "column 'input_toks'");
  refuses(
      "{\"input_toks\":5,\"output_toks\":6}\n{\"input_toks\":5,\"output_toks\":6,\"arrival_s\":1}",
      ":2: some lines have an arrival time");
  refuses("\n\n", "no requests");
}

}  // namespace
}  // namespace atom
