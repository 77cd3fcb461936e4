#!/usr/bin/env python3
"""Makes the goldens of rooms model and eval with transformers.

  make_model_goldens.py tiny              tests/data/model/<name>/: tiny random models of every
                                          family as Hugging Face folders, with their logits
  make_model_goldens.py rope              tests/data/model/rope.json: RoPE frequencies of the
                                          configurations of published models
  make_model_goldens.py smollm2 FILE.gguf TEXT
                                          tests/data/model/smollm2-135m-q4_1.json: logits of a few
                                          prompts, shortened to top 20, sum and L2 norm, and the
                                          first window of WikiText-2's test text with its loss

Needs torch, transformers, tokenizers, safetensors, numpy and gguf. Everything is seeded and computed
in float32 on the CPU.

A tiny model's folder holds config.json, model.safetensors, golden.json and golden.f32. golden.json:
prompts [{"tokens": [...], "rows": [...]}], the positions whose logits were kept, and the losses of
the last prompt's windows of 16 tokens. golden.f32: those logits, float32, little endian, [rows of
all prompts, vocab].
"""
import json
import pathlib
import sys

import numpy as np
import torch
import transformers

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/data/model"
COMMON = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, vocab_size=256, max_position_embeddings=128,
              bos_token_id=1, eos_token_id=2, attention_dropout=0.0)


def rope(kind="default", theta=10000.0, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


# name: (config class, overrides, type of the stored weights)
MODELS = {
    "llama": ("Llama", dict(tie_word_embeddings=False, vocab_size=128, intermediate_size=80, **rope()),
              torch.float32),
    "llama_linear": ("Llama", dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
                                   **rope("linear", factor=4.0)), torch.bfloat16),
    "llama_llama3": ("Llama", dict(
        tie_word_embeddings=True, head_dim=32,
        **rope("llama3", theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
               original_max_position_embeddings=32)), torch.bfloat16),
    "llama_yarn": ("Llama", dict(
        tie_word_embeddings=False,
        **rope("yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=4.0)),
        torch.float16),
    "mistral": ("Mistral", dict(tie_word_embeddings=False, sliding_window=8, num_key_value_heads=1,
                                head_dim=24, **rope()), torch.bfloat16),
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True, rms_norm_eps=1e-6,
                            **rope(theta=1000000.0)), torch.bfloat16),
    "qwen3": ("Qwen3", dict(
        tie_word_embeddings=False, head_dim=32, num_key_value_heads=4, rms_norm_eps=1e-6,
        **rope("yarn", theta=1000000.0, factor=2.0, original_max_position_embeddings=64)),
        torch.bfloat16),
    "mixtral": ("Mixtral", dict(tie_word_embeddings=False, vocab_size=128, num_local_experts=4,
                                num_experts_per_tok=2, **rope(theta=1000000.0)), torch.bfloat16),
}


def randomize(model, generator):
    """Weights that make attention sharp and every term count, unlike the usual 0.02 initialization."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("norm.weight"):
            parameter.data = 1 + 0.2 * noise
        elif name.endswith("bias"):
            parameter.data = 0.3 * noise
        elif "embed_tokens" in name:
            parameter.data = 0.5 * noise
        else:
            sharp = 1.6 if "q_proj" in name or "k_proj" in name else 1.0
            parameter.data = sharp * noise / parameter.shape[-1] ** 0.5


def spell_as_before_version_5(path):
    """Most published config.json files have rope_theta and rope_scaling instead of rope_parameters."""
    config = json.loads(path.read_text())
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def window_loss(model, tokens):
    """Mean negative log likelihood of a window's tokens but the first."""
    with torch.no_grad():
        logits = model(tokens[None].long()).logits[0, :-1].double()
    return torch.nn.functional.cross_entropy(logits, tokens[1:].long()).item()


def make_tiny():
    for number, (name, (family, overrides, dtype)) in enumerate(MODELS.items()):
        torch.manual_seed(number)
        generator = torch.Generator().manual_seed(1000 + number)
        config = getattr(transformers, family + "Config")(**{**COMMON, **overrides})
        config._attn_implementation = "eager"
        model = getattr(transformers, family + "ForCausalLM")(config).eval()
        randomize(model, generator)
        model.tie_weights()
        # What is stored is what is computed with: rounded first, then back to float32.
        model = model.to(dtype)
        folder = OUT / name
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        (folder / "model.safetensors").chmod(0o644)
        if number % 2:
            spell_as_before_version_5(folder / "config.json")
        model = getattr(transformers, family + "ForCausalLM").from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager").eval()

        prompts, logits = [], []
        # The longest crosses pages of 16 tokens, the sliding window and the original contexts.
        for length, rows in ((1, [0]), (5, [0, 1, 2, 3, 4]), (75, [7, 8, 15, 16, 31, 32, 63, 74])):
            tokens = torch.randint(3, config.vocab_size, (length,), generator=generator)
            with torch.no_grad():
                logits.append(model(tokens[None]).logits[0, rows].numpy())
            prompts.append({"tokens": tokens.tolist(), "rows": rows})
        np.concatenate(logits).astype("<f4").tofile(folder / "golden.f32")
        losses = [window_loss(model, tokens[i:i + 16]) for i in range(0, len(tokens) - 15, 16)]
        (folder / "golden.json").write_text(
            json.dumps({"prompts": prompts, "window_losses": losses}) + "\n")


# As in the config.json of Llama-2-7B, TinyLlama stretched twice, Llama-3.1-8B, Llama-3.2-1B,
# Qwen2.5-7B's long-context recipe, and a YaRN that sets everything.
ROPES = [
    dict(head_dim=128, **rope()),
    dict(head_dim=64, **rope("linear", factor=2.0)),
    dict(head_dim=128, **rope("llama3", theta=500000.0, factor=8.0, low_freq_factor=1.0,
                              high_freq_factor=4.0, original_max_position_embeddings=8192)),
    dict(head_dim=64, **rope("llama3", theta=500000.0, factor=32.0, low_freq_factor=1.0,
                             high_freq_factor=4.0, original_max_position_embeddings=8192)),
    dict(head_dim=128, **rope("yarn", theta=1000000.0, factor=4.0,
                              original_max_position_embeddings=32768)),
    dict(head_dim=80, **rope("yarn", factor=16.0, original_max_position_embeddings=4096,
                             beta_fast=24.0, beta_slow=2.0, attention_factor=1.25)),
]


def make_rope():
    goldens = []
    for overrides in ROPES:
        # Longer than any original context, so that nothing is inferred from the difference.
        config = transformers.LlamaConfig(**{**COMMON, "max_position_embeddings": 131072, **overrides})
        embedding = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
        goldens.append({"head_dim": overrides["head_dim"], **config.rope_parameters,
                        "frequencies": embedding.inv_freq.tolist(),
                        "scaling": embedding.attention_scaling})
    lines = ",\n".join(json.dumps(golden) for golden in goldens)
    (OUT / "rope.json").write_text("[\n" + lines + "\n]\n")


def load_gguf(path):
    """A Llama-architecture GGUF as a transformers model (its q and k rows un-permuted)."""
    import gguf
    reader = gguf.GGUFReader(path)

    def field(key):
        return reader.fields["llama." + key].contents()
    tensors = {t.name: torch.from_numpy(
        gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(
            [int(n) for n in reversed(t.shape)])) for t in reader.tensors}
    heads, kv_heads = field("attention.head_count"), field("attention.head_count_kv")
    config = transformers.LlamaConfig(
        hidden_size=field("embedding_length"), intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"), num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=tensors["token_embd.weight"].shape[0],
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        tie_word_embeddings="output.weight" not in tensors, **rope(theta=field("rope.freq_base")))

    def unpermute(weight, n):
        return weight.reshape(n, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
    state = {"model.embed_tokens.weight": tensors["token_embd.weight"],
             "model.norm.weight": tensors["output_norm.weight"],
             "lm_head.weight": tensors.get("output.weight", tensors["token_embd.weight"])}
    parts = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
             "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    for i in range(config.num_hidden_layers):
        for theirs, ours in parts.items():
            weight = tensors[f"blk.{i}.{theirs}.weight"]
            if theirs in ("attn_q", "attn_k"):
                weight = unpermute(weight, heads if theirs == "attn_q" else kv_heads)
            state[f"model.layers.{i}.{ours}.weight"] = weight
    model = transformers.LlamaForCausalLM(config).eval()
    model.load_state_dict(state)
    return model


def load_tokenizer(path):
    """SmolLM2's tokenizer. The conversion from GGUF leaves its splitting of digits out."""
    from tokenizers import pre_tokenizers
    path = pathlib.Path(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    return tokenizer


def tokenize(path, text):
    return load_tokenizer(path)(text, add_special_tokens=False)["input_ids"]


def make_smollm2(path, text_path):
    model = load_gguf(path)
    text = pathlib.Path(text_path).read_bytes().decode()
    window = torch.tensor(tokenize(path, text[:20000])[:2048])
    random = np.random.RandomState(0).randint(3, model.config.vocab_size, 700).tolist()
    prompts = [tokenize(path, prompt) for prompt in (
        "The capital of France is",
        "<|im_start|>The capital of France is",
        "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
        "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
        "2024-01-31: \u00fcber 1,250 \u6771\u4eac \U0001f642",
    )] + [random]
    goldens = []
    for tokens in prompts:
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, -1]
        top = logits.topk(20)
        goldens.append({"tokens": tokens, "top_ids": top.indices.tolist(),
                        "top_logits": [round(v, 5) for v in top.values.tolist()],
                        "sum": round(logits.double().sum().item(), 3),
                        "l2": round(logits.double().norm().item(), 4)})
    lines = ",\n".join(json.dumps(golden) for golden in goldens)
    last = json.dumps({"tokens": window.tolist(), "loss": round(window_loss(model, window), 6)})
    (OUT / "smollm2-135m-q4_1.json").write_text(
        '{"prompts": [\n' + lines + '\n],\n"window": ' + last + "}\n")


def main():
    torch.set_num_threads(2)
    command, arguments = sys.argv[1:2], sys.argv[2:]
    if command == ["tiny"] and not arguments:
        make_tiny()
    elif command == ["rope"] and not arguments:
        make_rope()
    elif command == ["smollm2"] and len(arguments) == 2:
        make_smollm2(*arguments)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
