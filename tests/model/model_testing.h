// What the tests of rooms model, engine and eval share: backends by name, the tiny models with
// their golden logits, and running prompts.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/ref/ref_backend.h"
#include "base/file.h"
#include "base/json.h"
#include "io/model_source.h"
#include "model/batching.h"
#include "model/decoder.h"
#include "model/float_loader.h"

namespace atom::testing {

inline const char* const kTinyModels[] = {"llama",   "llama_linear", "llama_llama3", "llama_yarn",
                                          "mistral", "qwen2",        "qwen3",        "mixtral"};
inline const char* const kBackends[] = {"ref", "cpu"};

inline std::filesystem::path model_data(const std::string& name) {
  return std::filesystem::path(ATOM_TEST_DATA) / "model" / name;
}

// The value of a Result that must be one; a failure ends the test program with the message.
template <class T>
T must(Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "unexpected error: %s\n", result.status().message().c_str());
    std::abort();
  }
  return std::move(result).value();
}

inline std::unique_ptr<Backend> make_backend(const std::string& name) {
  return name == "ref" ? make_ref_backend() : must(make_cpu_backend({}));
}

struct Prompt {
  std::vector<int32_t> tokens;
  std::vector<int32_t> rows;  // positions whose logits are wanted
};

struct Golden {
  std::vector<Prompt> prompts;
  std::vector<float> logits;  // [rows of all prompts, V]
  std::vector<double> window_losses;
};

template <class T>
std::vector<T> json_array(const JsonView& view) {
  std::vector<T> values;
  for (size_t i = 0; i < view.size(); ++i) {
    values.push_back(static_cast<T>(must(must(view.at(i)).as_number())));
  }
  return values;
}

inline Golden read_golden(const std::string& model) {
  Golden golden;
  const Json json = must(read_json_file(model_data(model) / "golden.json"));
  const JsonView root(json, "golden.json");
  const JsonView prompts = must(root.at("prompts"));
  for (size_t i = 0; i < prompts.size(); ++i) {
    const JsonView prompt = must(prompts.at(i));
    golden.prompts.push_back({json_array<int32_t>(must(prompt.at("tokens"))),
                              json_array<int32_t>(must(prompt.at("rows")))});
  }
  golden.window_losses = json_array<double>(must(root.at("window_losses")));
  const MappedFile file = must(MappedFile::open(model_data(model) / "golden.f32"));
  golden.logits.resize(file.bytes().size() / sizeof(float));
  std::copy_n(file.bytes().data(), golden.logits.size() * sizeof(float),
              reinterpret_cast<std::byte*>(golden.logits.data()));
  return golden;
}

// A model with its backend.
struct Model {
  std::unique_ptr<Backend> backend;
  std::shared_ptr<const DecoderWeights> weights;
  std::unique_ptr<Decoder> decoder;
};

inline Model load_model(const std::filesystem::path& path, const std::string& backend_name,
                        const DecoderLimits& limits, DType storage = DType::kF32,
                        const KvFormat& kv = {}) {
  Model model;
  model.backend = make_backend(backend_name);
  const std::unique_ptr<ModelSource> source = must(open_model_source(path));
  model.weights = std::make_shared<const DecoderWeights>(
      must(load_float_model(*model.backend, *source, storage, kv)));
  model.decoder = must(Decoder::create(*model.backend, model.weights, limits));
  return model;
}

// The logits after the prompt's rows, [rows, V], computed by way of chunks of the given size.
inline std::vector<float> run_prompt(Decoder& decoder, const Prompt& prompt, int64_t chunk) {
  const auto length = static_cast<int64_t>(prompt.tokens.size());
  const int64_t vocab = decoder.config().vocab;
  std::vector<int32_t> pages(static_cast<size_t>((length + kPageTokens - 1) / kPageTokens));
  std::iota(pages.rbegin(), pages.rend(), 0);
  const auto cache = must(decoder.make_cache(static_cast<int64_t>(pages.size())));
  const auto logits = must(decoder.backend().make_tensor(decoder.limits().max_logit_rows, vocab));
  std::vector<float> all;
  for (int64_t begin = 0; begin < length; begin += chunk) {
    const int64_t end = std::min(begin + chunk, length);
    Batch batch;
    add_sequence(batch,
                 std::span(prompt.tokens)
                     .subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                 begin, pages, decoder.weights().prefix_tokens);
    for (const int32_t row : prompt.rows) {
      if (row >= begin && row < end) batch.logit_rows.push_back(static_cast<int32_t>(row - begin));
    }
    const Status status = decoder.forward(batch, *cache, *logits);
    EXPECT_TRUE(status.ok()) << status.message();
    const auto rows = static_cast<int64_t>(batch.logit_rows.size());
    if (rows == 0) continue;
    all.resize(all.size() + static_cast<size_t>(rows * vocab));
    decoder.backend().read(*logits, rows, std::span(all).last(static_cast<size_t>(rows * vocab)));
  }
  return all;
}

// The largest difference, relative to the largest magnitude expected.
inline double worst_difference(std::span<const float> found, std::span<const float> expected) {
  if (found.size() != expected.size()) return INFINITY;
  double worst = 0, largest = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double miss = std::abs(static_cast<double>(found[i]) - expected[i]);
    if (!(miss <= worst)) worst = miss;  // NaN counts as worst
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
  }
  return worst / largest;
}

// SmolLM2-135M-Instruct.Q4_1.gguf: where ATOM_TEST_MODEL says, or where the quickstart puts it.
// Empty when there is none; the caller skips with kNoSmolLm2.
inline std::filesystem::path smollm2_path() {
  if (const char* given = std::getenv("ATOM_TEST_MODEL")) return given;
  const auto folder = std::filesystem::path(ATOM_TEST_DATA) / "../../models";
  std::error_code ignored;
  for (std::filesystem::recursive_directory_iterator it(folder, ignored), end; it != end;
       it.increment(ignored)) {
    if (it->path().filename() == "SmolLM2-135M-Instruct.Q4_1.gguf") return it->path();
  }
  return {};
}
inline constexpr const char* kNoSmolLm2 =
    "SmolLM2 was NOT tested: no models/**/SmolLM2-135M-Instruct.Q4_1.gguf, and ATOM_TEST_MODEL "
    "does "
    "not name it";

}  // namespace atom::testing
