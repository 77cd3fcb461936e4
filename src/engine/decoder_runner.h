// A decoder, its KV cache and its logits as the engine's runner.
#pragma once

#include <memory>

#include "base/status.h"
#include "engine/runner.h"
#include "model/decoder.h"

namespace atom {

// kv_pages: of the cache that is made here. The decoder must outlive the runner.
Result<std::unique_ptr<Runner>> make_decoder_runner(Decoder& decoder, int64_t kv_pages);

}  // namespace atom
