// A file of request lengths: what is accepted has sane numbers, in order of arrival.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "load/trace.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto trace = atom::parse_trace(text, "fuzz");
  if (!trace.ok()) return 0;
  double last = 0;
  for (const atom::TraceRequest& request : trace->requests) {
    ATOM_CHECK(request.prompt_tokens > 0 && request.output_tokens > 0, "lengths are positive");
    if (!trace->has_arrivals) continue;
    ATOM_CHECK(request.arrival_s >= last, "arrivals do not go back");
    last = request.arrival_s;
  }
  return 0;
}
