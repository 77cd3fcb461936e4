#!/usr/bin/env python3
"""Makes tests/data/eval/golden.json: log-likelihoods of choices, computed with transformers the way
lm-eval's HFLM does it.

Usage: tools/make_task_goldens.py SmolLM2-135M-Instruct.Q4_1.gguf

`smollm2`: for each choice of tests/data/eval/questions.jsonl its tokens, the first one that counts
(`begin`) and the sum of their log-likelihoods. `llama`: the same for random tokens and the tiny model
tests/data/model/llama. Needs what tools/make_model_goldens.py needs. Float32 on the CPU.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))
import make_model_goldens  # noqa: E402

TESTS = Path(__file__).resolve().parent.parent / "tests/data"


def pairs_of(item):
    """(context, continuation) of each choice, as lm-eval's task files spell them."""
    if "context_options" in item:
        return [(context, " " + item["continuation"]) for context in item["context_options"]]
    query = item["query"]
    if query.startswith("Question:") or "\nQuestion:" in query:
        query = query.rstrip("\n") + "\nAnswer:"
    return [(query, " " + choice) for choice in item["choices"]]


def encode_pair(encode, context, continuation):
    """lm_eval.api.model.TemplateLM._encode_pair."""
    spaces = len(context) - len(context.rstrip())
    if spaces > 0:
        continuation = context[-spaces:] + continuation
        context = context[:-spaces]
    whole = encode(context + continuation)
    return whole, len(encode(context))


def score(model, tokens, begin):
    with torch.no_grad():
        logits = model(torch.tensor([tokens[:-1]])).logits[0]
    losses = torch.log_softmax(logits.double(), dim=-1)[range(len(tokens) - 1), tokens[1:]]
    return {"tokens": tokens, "begin": begin,
            "log_likelihood": round(losses[begin - 1:].sum().item(), 6)}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = Path(sys.argv[1])
    tokenizer = make_model_goldens.load_tokenizer(path)
    model = make_model_goldens.load_gguf(path)
    questions = []
    for line in (TESTS / "eval/questions.jsonl").read_text().splitlines():
        pairs = pairs_of(json.loads(line))
        questions.append([
            score(model, *encode_pair(lambda text: tokenizer.encode(text, add_special_tokens=False),
                                      context, continuation)) for context, continuation in pairs])

    tiny = transformers.AutoModelForCausalLM.from_pretrained(TESTS / "model/llama",
                                                             dtype=torch.float32)
    random = np.random.RandomState(0)
    tiny_questions = []
    for common, lengths in ((40, (41, 50, 73)), (3, (4, 9)), (16, (17, 18, 33)), (100, (101, 120))):
        start = random.randint(3, 128, common).tolist()
        tiny_questions.append([
            score(tiny, start + random.randint(3, 128, length - common).tolist(), common)
            for length in lengths])

    rows = ",\n".join("  " + json.dumps(question) for question in questions)
    tiny_rows = ",\n".join("  " + json.dumps(question) for question in tiny_questions)
    (TESTS / "eval/golden.json").write_text(
        f'{{"smollm2": [\n{rows}\n],\n"llama": [\n{tiny_rows}\n]}}\n')


if __name__ == "__main__":
    main()
