#include "text/token_decoder.h"

#include <cstdlib>

namespace atom {
namespace {

using Kind = DecoderStep::Kind;

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  std::string out;
  size_t at = 0;
  for (size_t hit = text.find(from); hit != std::string::npos; hit = text.find(from, at)) {
    out.append(text, at, hit - at).append(to);
    at = hit + from.size();
  }
  text = out.append(text, at);
}

void strip_start(std::string& text, std::string_view character, int32_t most) {
  size_t at = 0;
  while (most-- > 0 && std::string_view(text).substr(at).starts_with(character)) {
    at += character.size();
  }
  text.erase(0, at);
}

// The byte of a token <0xNN>, else -1.
int parse_byte_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int byte = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    byte = byte * 16 + digit;
  }
  return byte;
}

// Decoders of a kind must come in an order in which each token can be decoded by itself.
Status check_order(const std::vector<DecoderStep>& steps, std::string_view place) {
  bool bytes = false;
  bool fused = false;
  for (const DecoderStep& step : steps) {
    bool fits = true;
    switch (step.kind) {
      case Kind::kByteLevel:
        fits = steps.size() == 1;
        break;
      case Kind::kByteFallback:
        fits = !bytes && !fused;
        break;
      case Kind::kFuse:
        break;
      case Kind::kReplace:
      case Kind::kMetaspace:
        fits = !bytes && !fused;
        break;
      case Kind::kStrip:
        fits = fused || !bytes;
        break;
    }
    if (!fits) {
      return error(ErrorCode::kUnsupported, "{}: decoder: steps in an order that is not supported",
                   place);
    }
    bytes = bytes || step.kind == Kind::kByteFallback;
    if (fused && step.kind == Kind::kStrip) bytes = true;  // one strip of the whole text
    fused = fused || step.kind == Kind::kFuse;
  }
  return {};
}

}  // namespace

Result<TokenDecoder> TokenDecoder::create(const std::vector<DecoderStep>& steps,
                                          const std::vector<std::string>& names,
                                          std::string_view place) {
  if (Status s = check_order(steps, place); !s.ok()) return s;
  TokenDecoder decoder;
  decoder.spaces_between_ = steps.empty();
  bool metaspace = false;
  bool fused = false;
  for (const DecoderStep& step : steps) {
    if (step.kind == Kind::kMetaspace && step.prepend_scheme != PrependScheme::kNever) {
      metaspace = true;
    }
    if (step.kind == Kind::kByteFallback) decoder.policy_ = InvalidUtf8::kPerByte;
    if (fused && step.kind == Kind::kStrip) {
      decoder.strip_character_ = step.pattern;
      decoder.strip_left_ = step.start;
    }
    fused = fused || step.kind == Kind::kFuse;
  }
  std::string decoded;
  const auto decode_one = [&](const std::string& name, bool first) {
    decoded = name;
    for (const DecoderStep& step : steps) {
      switch (step.kind) {
        case Kind::kByteLevel:
          if (!chars_to_bytes(name, decoded)) decoded = name;
          break;
        case Kind::kReplace:
          replace_all(decoded, step.pattern, step.content);
          break;
        case Kind::kMetaspace:
          replace_all(decoded, step.pattern,
                      first && step.prepend_scheme != PrependScheme::kNever ? "" : " ");
          break;
        case Kind::kStrip:
          strip_start(decoded, step.pattern, step.start);
          break;
        case Kind::kByteFallback: {
          const int byte = parse_byte_token(decoded);
          if (byte >= 0) decoded.assign(1, static_cast<char>(byte));
          break;
        }
        case Kind::kFuse:
          return;  // what follows concerns the whole text
      }
    }
  };
  for (const std::string& name : names) {
    decoder.exists_.push_back(!name.empty());
    decode_one(name, false);
    decoder.bytes_.push_back(decoded);
    if (!metaspace) continue;
    decode_one(name, true);
    decoder.first_bytes_.push_back(decoded);
  }
  return decoder;
}

void TokenDecoder::append(int32_t id, Start& start, std::string& out) const {
  if (!contains(id)) return;
  std::string_view piece = bytes(id);
  if (start.first_token) {
    if (first_bytes_.size() > 0) piece = first_bytes_[static_cast<size_t>(id)];
  } else if (spaces_between_) {
    out.push_back(' ');
  }
  start.first_token = false;
  while (start.strip_left > 0 && !piece.empty()) {
    if (!piece.starts_with(strip_character_)) {
      start.strip_left = 0;
      break;
    }
    piece.remove_prefix(strip_character_.size());
    --start.strip_left;
  }
  out.append(piece);
}

}  // namespace atom
