#!/usr/bin/env python3
"""Writes tests/data/io: what the readers and writers of src/io are compared with.

Needs the Python packages numpy, gguf and safetensors.
Usage: tools/make_io_goldens.py [OUTPUT_FOLDER]
"""
import json
import pathlib
import sys

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T
from safetensors.numpy import save_file

QUANTS = [T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0,
          T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]
# Offsets of the f16 numbers inside a block; everything else may be any bits.
HALVES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
          T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
ROWS, COLUMNS = 3, 512


def finite_halves(rng, count):
    """Random f16 bit patterns: all signs and exponents, subnormals too, no infinity or NaN."""
    bits = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    return np.where((bits & 0x7C00) == 0x7C00, bits & 0x83FF, bits).astype(np.uint16)


def random_rows(rng, kind):
    """Rows of random blocks as the uint8 (or float) array that gguf takes."""
    if kind == T.F32:
        return rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    if kind == T.F16:
        return finite_halves(rng, ROWS * COLUMNS).view(np.float16).reshape(ROWS, COLUMNS)
    if kind == T.BF16:
        bits = rng.standard_normal(ROWS * COLUMNS).astype(np.float32).view(np.uint32) >> 16
        return bits.astype(np.uint16).view(np.uint8).reshape(ROWS, 2 * COLUMNS)
    values, size = GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (ROWS * COLUMNS // values, size), dtype=np.uint8)
    for offset in HALVES[kind]:
        blocks[:, offset:offset + 2] = finite_halves(rng, len(blocks)).view(np.uint8).reshape(-1, 2)
    return blocks.reshape(ROWS, -1)


def write_quants(folder):
    """quants.gguf: a tensor of each type; quants.f32: their values by gguf.quants, one after another."""
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(folder / "quants.gguf", "none")
    expected = []
    for kind in QUANTS:
        rows = random_rows(rng, kind)
        writer.add_tensor(kind.name, rows, raw_dtype=kind)
        expected.append(gguf.quants.dequantize(rows, kind).astype(np.float32).ravel())
    finish(writer)
    np.concatenate(expected).tofile(folder / "quants.f32")


def write_metadata(folder):
    """metadata.gguf: every metadata type."""
    writer = gguf.GGUFWriter(folder / "metadata.gguf", "none")
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -100)
    writer.add_uint16("u16", 60000)
    writer.add_int16("i16", -30000)
    writer.add_uint32("u32", 4000000000)
    writer.add_int32("i32", -2000000000)
    writer.add_uint64("u64", 1 << 40)
    writer.add_int64("i64", -(1 << 40))
    writer.add_float32("f32", 1e-5)
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_string("text", "caf\u00e9\n")
    writer.add_array("strings", ["a", "", "ccc"])
    writer.add_array("ints", [1, -2, 3])
    writer.add_array("floats", [0.5, -0.25])
    writer.add_array("nested", [[1, 2], [3]])
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


D, F, L, H, KH, V = 16, 24, 2, 4, 2, 32
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
FAMILIES = {
    "llama": {"rope_theta": 5e5, "rope_scaling": LLAMA3, "tie_word_embeddings": False},
    "mistral": {"sliding_window": 16, "tie_word_embeddings": False},
    "qwen2": {"tie_word_embeddings": True, "use_sliding_window": False,
              "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
                                  "original_max_position_embeddings": 16}},
    "qwen3": {"head_dim": 8, "tie_word_embeddings": False, "rope_theta": 1e6},
    "mixtral": {"num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": None,
                "tie_word_embeddings": False, "rope_theta": 1e6},
}
MLP = [("mlp.gate_proj", F, D), ("mlp.up_proj", F, D), ("mlp.down_proj", D, F)]


def mlp_linears(family):
    """Names, rows and columns of the linears behind a layer's attention."""
    experts = FAMILIES[family].get("num_local_experts")
    if experts is None:
        return MLP
    return [("block_sparse_moe.gate", experts, D)] + [
        (f"block_sparse_moe.experts.{e}.{name}", rows, cols)
        for e in range(experts) for name, (_, rows, cols) in zip(("w1", "w3", "w2"), MLP)]


def bf16_bits(array):
    return (array.view(np.uint32) >> 16).astype(np.uint16)


def model_weights(family, head_dim):
    """Random weights that BF16 holds exactly, under their Hugging Face names."""
    rng = np.random.default_rng(2)

    def draw(*shape):
        bits = rng.standard_normal(shape).astype(np.float32).view(np.uint32) & 0xFFFF0000
        return bits.astype(np.uint32).view(np.float32)

    weights = {"model.embed_tokens.weight": draw(V, D), "model.norm.weight": draw(D)}
    if not FAMILIES[family]["tie_word_embeddings"]:
        weights["lm_head.weight"] = draw(V, D)
    for i in range(L):
        p = f"model.layers.{i}."
        for name, rows, cols in [("self_attn.q_proj", H * head_dim, D), ("self_attn.k_proj", KH * head_dim, D),
                                 ("self_attn.v_proj", KH * head_dim, D), ("self_attn.o_proj", D, H * head_dim),
                                 *mlp_linears(family)]:
            weights[f"{p}{name}.weight"] = draw(rows, cols)
            if family == "qwen2" and name[-6] in "qkv" and name.startswith("self_attn"):
                weights[f"{p}{name}.bias"] = draw(rows)
        weights[p + "input_layernorm.weight"] = draw(D)
        weights[p + "post_attention_layernorm.weight"] = draw(D)
        if family == "qwen3":
            weights[p + "self_attn.q_norm.weight"] = draw(head_dim)
            weights[p + "self_attn.k_norm.weight"] = draw(head_dim)
    return weights


def save_bf16(weights, path):
    """A safetensors file by hand, since NumPy has no BF16."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(weights):
        size = 2 * weights[name].size
        header[name] = {"dtype": "BF16", "shape": list(weights[name].shape),
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(bf16_bits(weights[name]).tobytes() for name in sorted(weights))
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_hf(folder, family, weights, head_dim):
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": family, "architectures": [family.capitalize() + "ForCausalLM"],
              "hidden_size": D, "intermediate_size": F, "num_hidden_layers": L,
              "num_attention_heads": H, "num_key_value_heads": KH, "vocab_size": V,
              "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu",
              "bos_token_id": 1, "eos_token_id": 2, **FAMILIES[family]}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 3]}\n')
    template = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "{{ x }}"}]
    if family == "llama":
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}) + "\n")
        (folder / "tokenizer.json").write_text("{}\n")
    if family != "qwen3":
        save_bf16(weights, folder / "model.safetensors")
        return
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[:9],
              "model-00002-of-00002.safetensors": names[9:]}
    for file, part in shards.items():
        save_bf16({name: weights[name] for name in part}, folder / file)
    index = {"metadata": {}, "weight_map": {n: f for f, part in shards.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


GGUF_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
              "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
              "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
              "post_attention_layernorm": "ffn_norm", "self_attn.q_norm": "attn_q_norm",
              "block_sparse_moe.gate": "ffn_gate_inp",
              "self_attn.k_norm": "attn_k_norm"}


def gguf_name(name):
    if name.startswith("blk."):
        return name
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        stem, suffix = rest.rsplit(".", 1)
        return f"blk.{layer}.{GGUF_NAMES[stem]}.{suffix}"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
            "lm_head.weight": "output.weight"}[name]


EXPERT_NAMES = {"w1": "ffn_gate", "w3": "ffn_up", "w2": "ffn_down"}


def stack_experts(weights):
    """Layer 0's experts as files have them today, one tensor for all; layer 1's as they were before."""
    stacked, stacks = {}, {}
    for name, array in weights.items():
        if ".experts." not in name:
            stacked[name] = array
            continue
        _, _, layer, _, _, expert, linear, _ = name.split(".")
        if layer == "0":
            stacks.setdefault(f"blk.0.{EXPERT_NAMES[linear]}_exps.weight", []).append(array)
        else:
            stacked[f"blk.{layer}.{EXPERT_NAMES[linear]}.{expert}.weight"] = array
    return {**stacked, **{name: np.stack(arrays) for name, arrays in stacks.items()}}


def interleave(array, heads):
    """Llama files put channels i and i + DH/2 of a head side by side."""
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def write_gguf(path, family, weights, head_dim):
    arch = "llama" if family in ("mistral", "mixtral") else family
    if family == "mixtral":
        weights = stack_experts(weights)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(L)
    writer.add_context_length(64)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(F)
    writer.add_head_count(H)
    writer.add_head_count_kv(KH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(V)
    if family == "qwen3":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if family == "mistral":
        writer.add_sliding_window(16)
    if family == "mixtral":
        writer.add_expert_count(FAMILIES[family]["num_local_experts"])
        writer.add_expert_used_count(FAMILIES[family]["num_experts_per_tok"])
    theta = FAMILIES[family].get("rope_theta", 1e4)
    if family == "qwen2":
        theta = 1e6
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(16)
    writer.add_rope_freq_base(theta)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([f"t{i}" for i in range(V)])
    writer.add_token_types([1] * V)
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(3)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{{ x }}")
    if family == "llama":
        writer.add_tensor("rope_freqs.weight", np.linspace(1, 8, head_dim // 2).astype(np.float32))
    for name, array in weights.items():
        if arch == "llama" and ".q_proj." in name:
            array = interleave(array, H)
        if arch == "llama" and ".k_proj." in name:
            array = interleave(array, KH)
        if array.ndim == 2 and ".v_proj." in name:
            # A second type in the file.
            writer.add_tensor(gguf_name(name), bf16_bits(array).view(np.uint8),
                              raw_dtype=T.BF16)
        else:
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(array))
    finish(writer)


def write_safetensors(folder):
    """written.safetensors: what our writer must reproduce byte for byte."""
    tensors = {
        "b.scales": (np.arange(6) * 0.5).astype(np.float16).reshape(2, 3),
        "a.qweight": np.arange(10, dtype=np.uint8).reshape(2, 5),
        "a.zeros": np.array([-1, 2, -3], dtype=np.int8),
        "perm": np.array([2, 0, 1], dtype=np.int32),
        "norm": np.array([0.5, -1.5, 1e-8], dtype=np.float32),
        "empty": np.zeros((0, 4), dtype=np.float32),
    }
    save_file(tensors, folder / "written.safetensors", metadata={"format": "pt"})


def pack_nibbles(codes):
    """[N, K] codes to [N, K/2] bytes, the even channel in the low half."""
    low, high = codes[:, 0::2] & 0xF, codes[:, 1::2] & 0xF
    return (low | (high << 4)).astype(np.uint8)


def write_checkpoint(folder):
    """checkpoint/: an Atom checkpoint made from docs/checkpoint.md alone, and in values.f32 what its
    linears decode to, in the order of their names."""
    rng = np.random.default_rng(3)
    hidden, ffn, heads, head_dim, vocab = 16, 24, 2, 8, 12
    config = {"model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn,
              "num_hidden_layers": 1, "num_attention_heads": heads, "num_key_value_heads": 1,
              "vocab_size": vocab, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
              "tie_word_embeddings": True, "eos_token_id": 2}
    tensors, formats, values = {}, {}, {}

    def halves(*shape):
        return (rng.random(shape) + 0.1).astype(np.float16)

    def grouped(name, rows, cols, outliers):
        body = cols - outliers
        codes = rng.integers(-8, 8, (rows, body))
        scales = halves(rows, body // 4)
        tensors[f"{name}.qweight"] = pack_nibbles(codes)
        tensors[f"{name}.scales"] = scales
        value = codes * scales.astype(np.float64).repeat(4, axis=1)
        weight = {"kind": "grouped", "bits": 4, "group": 4, "outliers": outliers,
                  "outlier_kind": "int8" if outliers else "none"}
        if outliers:
            tail = rng.integers(-127, 128, (rows, outliers)).astype(np.int8)
            tail_scales = halves(rows)
            tensors[f"{name}.outlier_qweight"] = tail
            tensors[f"{name}.outlier_scales"] = tail_scales
            value = np.hstack([value, tail * tail_scales.astype(np.float64)[:, None]])
        act = {"bits": 4, "group": 4, "rule": "symmetric", "clip": 0.9, "search": False}
        formats[name], values[name] = {"weight": weight, "act": act}, value

    def two_level(name, rows, cols, outliers):
        body = cols - outliers
        codes = rng.integers(0, 16, (rows, body))
        scales = rng.integers(1, 17, (rows, body // 4)).astype(np.uint8)
        zeros = rng.integers(-128, -113, (rows, body // 4)).astype(np.int8)
        row_scales = halves(rows)
        tail = rng.integers(-127, 128, (rows, outliers)).astype(np.int8)
        tensors[f"{name}.qweight"] = pack_nibbles(codes)
        tensors[f"{name}.group_scales"] = scales
        tensors[f"{name}.group_zeros"] = zeros
        tensors[f"{name}.row_scales"] = row_scales
        tensors[f"{name}.outlier_qweight"] = tail
        grid = codes * scales.astype(int).repeat(4, axis=1) + zeros.astype(int).repeat(4, axis=1)
        values[name] = np.hstack([grid, tail]) * row_scales.astype(np.float64)[:, None]
        formats[name] = {"weight": {"kind": "two_level", "bits": 4, "group": 4,
                                    "outliers": outliers, "outlier_kind": "int8"},
                         "act": {"bits": 8, "group": 0, "rule": "symmetric", "clip": 1.0,
                                 "search": False}}

    def plain(name, rows, cols):
        values[name] = rng.standard_normal((rows, cols)).astype(np.float16)
        tensors[f"{name}.weight"] = values[name]
        formats[name] = {"weight": {"kind": "float", "dtype": "f16"}}

    q, kv, layer = heads * head_dim, head_dim, "model.layers.0."
    plain("model.embed_tokens", vocab, hidden)
    grouped(layer + "self_attn.q_proj", q, hidden, 4)
    grouped(layer + "self_attn.k_proj", kv, hidden, 4)
    grouped(layer + "self_attn.v_proj", kv, hidden, 4)
    grouped(layer + "self_attn.o_proj", hidden, q, 0)
    two_level(layer + "mlp.gate_proj", ffn, hidden, 4)
    two_level(layer + "mlp.up_proj", ffn, hidden, 4)
    two_level(layer + "mlp.down_proj", hidden, ffn, 8)
    tensors[layer + "self_attn.qkv_perm"] = rng.permutation(hidden).astype(np.int32)
    tensors[layer + "self_attn.o_perm"] = rng.permutation(q).astype(np.int32)
    tensors[layer + "mlp.gate_up_perm"] = rng.permutation(hidden).astype(np.int32)
    tensors[layer + "input_layernorm.weight"] = np.ones(hidden, np.float32)
    tensors[layer + "post_attention_layernorm.weight"] = np.ones(hidden, np.float32)
    tensors["model.norm.weight"] = np.ones(hidden, np.float32)
    tensors[layer + "self_attn.k_mean"] = np.zeros(kv, np.float32)
    tensors[layer + "self_attn.prefix_k"] = np.zeros((1, 1, head_dim), np.float32)
    tensors[layer + "self_attn.prefix_v"] = np.zeros((1, 1, head_dim), np.float32)
    config["quantization_config"] = {
        "quant_method": "atom", "version": 1, "recipe": {"name": "golden"}, "formats": formats,
        "kv": {"kind": "int", "bits": 4, "pre_rope": False, "centered": True, "hadamard": True},
        "prefix_tokens": [1]}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config) + "\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    ordered = [values[name].astype(np.float32).ravel() for name in sorted(values)]
    np.concatenate(ordered).tofile(folder / "values.f32")


def main():
    here = pathlib.Path(__file__).resolve().parent.parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "tests/data/io"
    folder.mkdir(parents=True, exist_ok=True)
    write_quants(folder)
    write_metadata(folder)
    write_safetensors(folder)
    write_checkpoint(folder / "checkpoint")
    for family in FAMILIES:
        head_dim = FAMILIES[family].get("head_dim", D // H)
        weights = model_weights(family, head_dim)
        write_hf(folder / family, family, weights, head_dim)
        write_gguf(folder / f"{family}.gguf", family, weights, head_dim)


if __name__ == "__main__":
    main()
