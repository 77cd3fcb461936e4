#!/usr/bin/env python3
"""Writes the seed inputs of the fuzzers of room io, tests/fuzz/corpus, from tests/data/io.

The models are taken apart into small inputs: a fuzzer learns little from large ones.
"""
import pathlib
import shutil

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA, CORPUS = ROOT / "tests/data/io", ROOT / "tests/fuzz/corpus"
FAMILIES = ["llama", "mistral", "qwen2", "qwen3"]


def fresh(target):
    folder = CORPUS / target
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def main():
    gguf = fresh("gguf")
    for name in ["metadata", "llama", "qwen2"]:
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


if __name__ == "__main__":
    main()
