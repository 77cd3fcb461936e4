// The measurement of a load as a table for the terminal, as JSON and as a page with plots.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "load/load_generator.h"

namespace atom {

std::string load_report_text(const LoadOptions& options, const LoadResult& result);

// The members are described in docs/benchmarks.md.
nlohmann::ordered_json load_report_json(const LoadOptions& options, const LoadResult& result);

// One HTML document without scripts that refers to nothing outside itself.
std::string load_report_html(const LoadOptions& options, const LoadResult& result);

// What load it was, in a few words: "16 clients, prompts of 128 tokens, answers of 64".
std::string describe_load(const LoadOptions& options);

// "server" where all token counts are the server's, "events" where it gave none, else "both".
const char* token_source(const Measurement& measurement);

// 0 where no time has passed.
double per_second(int64_t count, const Measurement& measurement);

// "12.3 ms", "4.56 s".
std::string format_latency(double seconds);

}  // namespace atom
