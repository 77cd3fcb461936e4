// Choosing a token from a row of logits as ops/draw.h says it, step by step, by sorting the row.
#pragma once

#include <cstdint>
#include <span>

#include "ops/token_draw.h"

namespace atom::ref {

int32_t choose_token(std::span<const float> logits, const TokenDraw& draw);

}  // namespace atom::ref
