#!/usr/bin/env python3
"""Writes the seed inputs of the fuzzers of rooms io and grammar, tests/fuzz/corpus, from tests/data.

The models are taken apart into small inputs: a fuzzer learns little from large ones.
"""
import json
import pathlib
import re
import shutil

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA, CORPUS = ROOT / "tests/data/io", ROOT / "tests/fuzz/corpus"
FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "mixtral"]
REGEXES = [r"(a|b)*c{2,4}", r"\d{3}-\d{4}", r"[^\s\"\\]+@[\w.-]+", r"(?:yes|no|maybe)?", r"\u00e9\x41\u{1F600}.+?",
           r"^(?<year>[0-9]{4})-(?P<month>0[1-9]|1[0-2])$", r"([a-z]+,? ?){1,5}\.", r"[\D\W\S]\t\n\r\f\v\0", "[à-ÿ]+|日本"]


def fresh(target):
    folder = CORPUS / target
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def main():
    gguf = fresh("gguf")
    for name in ["metadata", "llama", "qwen2", "mixtral"]:
        shutil.copy(DATA / f"{name}.gguf", gguf / f"{name}.gguf")

    safetensors = fresh("safetensors")
    shutil.copy(DATA / "written.safetensors", safetensors)
    shutil.copy(DATA / "checkpoint/model.safetensors", safetensors / "checkpoint.safetensors")

    configs = fresh("hf_config")
    for family in FAMILIES:
        shutil.copy(DATA / family / "config.json", configs / f"{family}.json")
    shutil.copy(DATA / "checkpoint/config.json", configs / "checkpoint.json")

    config = (DATA / "checkpoint/config.json").read_bytes()
    tensors = (DATA / "checkpoint/model.safetensors").read_bytes()
    (fresh("checkpoint") / "checkpoint").write_bytes(len(config).to_bytes(4, "little") + config + tensors)

    schemas = fresh("json_schema")
    cases = json.loads((ROOT / "tests/data/grammar/schemas.json").read_text())
    for case in cases:
        name = re.sub("[^a-z0-9]+", "_", case["name"].lower())
        (schemas / name).write_text(json.dumps(case["schema"]))

    regexes = fresh("output_regex")
    for number, pattern in enumerate(REGEXES):
        (regexes / f"{number:02}").write_text(pattern)


if __name__ == "__main__":
    main()
