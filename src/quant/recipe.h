// A recipe: which format every linear gets and how its codes are found. Recipes are JSON files; the
// presets under recipes/ are built into the binary. docs/quantization.md describes every field.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "model/layer_runner.h"
#include "quant/weight_quantizer.h"
#include "tensor/formats.h"

namespace atom {

// A different format for some sites or layers.
struct FormatOverride {
  std::vector<InputSite> sites;  // empty: all
  std::vector<int64_t> layers;   // empty: all
  LinearFormat format;
};

// What the Hessians are made of: inputs of the float model, or of the quantized model so far with
// its activations quantized (the paper's way; costs two more passes over the calibration text).
enum class HessianInputs : uint8_t { kFloat, kQuantized };

struct Recipe {
  std::string name;
  std::string description;

  // Of every decoder linear. `outliers` is the least number wanted: it grows until the body is a
  // multiple of the group.
  LinearFormat linear;
  std::vector<FormatOverride> overrides;  // the last match wins
  LinearFormat embedding;                 // token embedding and lm_head
  KvFormat kv;

  double balance = 0;   // how far activations and weights share the range of a channel, 0..1
  bool reorder = true;  // salient channels last; off: channels keep their order
  bool gptq = true;     // off: round to nearest
  ScaleRule scale_rule = ScaleRule::kAbsmax;
  float clip = 1.0f;      // of weight scales, kAbsmax
  double damping = 0.01;  // of the Hessian, as a share of its mean diagonal
  HessianInputs inputs = HessianInputs::kQuantized;

  bool bos_prefix = false;             // one constant BOS token in front of every sequence
  std::vector<int32_t> prefix_tokens;  // or these

  int64_t windows = 128;          // of calibration text
  int64_t reorder_windows = 128;  // as many of them are run through the float model, where that
                                  // does not give the Hessians too (inputs = float)
  int64_t context = 2048;         // tokens a window
  uint64_t seed = 0;              // of the windows' places
  std::vector<int64_t> window_offsets;  // or these exact places, in tokens

  // Whether anything has to be learned from text.
  bool needs_calibration() const;
  // The format of one site's linears with `channels` inputs, outliers grown to fit. Fails, naming
  // the field, where the recipe cannot fit the model.
  Result<LinearFormat> format_for(InputSite site, int64_t layer, int64_t channels) const;
};

// A preset by its name, or a JSON file by its path.
Result<Recipe> load_recipe(std::string_view name_or_path);
Result<Recipe> parse_recipe(const JsonView& json);
Json recipe_to_json(const Recipe& recipe);

struct RecipePreset {
  std::string_view name;
  std::string_view json;
};
// The presets in the order in which help shows them.
std::vector<RecipePreset> recipe_presets();

}  // namespace atom
