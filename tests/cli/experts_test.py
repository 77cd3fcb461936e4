"""A mixture of experts through every command: the tiny Mixtral with a tokenizer of characters."""

import json
import math
import shutil

import program
from program import DATA, ProgramTest

STORY = DATA / "text/story.txt"
LAYERS, EXPERTS = 2, 4


def character_tokenizer():
    """A tokenizer.json of the printable ASCII characters: its ids fit a vocabulary of 128."""
    special = ["<unk>", "<s>", "</s>"]
    tokens = special + ["\n"] + [chr(c) for c in range(32, 127)]
    added = [{"id": i, "content": name, "special": True, "single_word": False, "lstrip": False,
              "rstrip": False, "normalized": False} for i, name in enumerate(special)]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>",
             "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
             "byte_fallback": False, "ignore_merges": False,
             "vocab": {token: i for i, token in enumerate(tokens)}, "merges": []}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
            "model": model}


class Experts(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "mixtral"
        self.model.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(DATA / "model/mixtral" / name, self.model / name)
        (self.model / "tokenizer.json").write_text(json.dumps(character_tokenizer()))

    def quantize(self, name, *more, threads=1):
        out = self.folder / name
        arguments = ["quantize", self.model, out, "--threads", threads, *more]
        code, stdout, err = program.atom(*arguments)
        self.assertEqual(code, 0, err)
        return out, err

    def recipe(self, base, **changes):
        """A recipe file: the preset with some fields changed."""
        presets = program.DATA.parents[1] / "recipes"
        path = self.folder / (base + "-changed.json")
        path.write_text(json.dumps(json.loads((presets / f"{base}.json").read_text()) | changes))
        return path

    def losses(self, model):
        """Of the text's windows. Their mean tells random models hardly apart, they themselves do."""
        return self.json_of("eval", "ppl", model, "--text", STORY, "--context", 64,
                            "--threads", 1)["window_losses"]

    def assert_close(self, got, want, most):
        self.assertEqual(len(got), len(want))
        squares = [(a - b) ** 2 for a, b in zip(got, want)]
        self.assertLess(math.sqrt(sum(squares) / len(squares)), most)

    def test_recipes_by_their_losses(self):
        exact = self.losses(self.model)
        prefixed = self.losses(self.quantize("prefixed", "--recipe", self.recipe(
            "w16a16", prefix="bos"), "--calib", STORY)[0])
        # With the gates of two experts exchanged, the difference is 0.08.
        balanced = self.recipe("w8a8", balance=1.0, reorder=True)
        for name, recipe, want, most in (
                ("w16a16", "w16a16", exact, 0.001), ("w8a8", "w8a8", exact, 0.02),
                ("balanced", balanced, exact, 0.02), ("atom", "atom", exact, 0.07),
                ("w4a8", "w4a8", prefixed, 0.06), ("atom-plus", "atom-plus", prefixed, 0.06)):
            with self.subTest(name):
                out, _ = self.quantize(name, "--recipe", recipe, "--calib", STORY)
                self.assert_close(self.losses(out), want, most)

    def test_a_checkpoint_serves_every_command(self):
        out, err = self.quantize("w4a8", "--recipe", "w4a8", "--calib", STORY)
        self.assertNotIn("experts that fewer", err)
        facts = self.json_of("inspect", out)
        self.assertEqual(facts["config"]["family"], "mixtral")
        self.assertEqual(facts["config"]["experts"], EXPERTS)
        self.assertEqual(facts["config"]["active_experts"], 2)
        linears = [linear["name"] for linear in facts["linears"]]
        self.assertEqual(len(linears), LAYERS * (4 + 3 * EXPERTS) + 2)
        self.assertIn("model.layers.1.block_sparse_moe.experts.3.w2", linears)
        self.assertEqual(len(facts["report"]["linears"]), LAYERS * (4 + 3 * EXPERTS))
        self.assertAlmostEqual(facts["effective_bits"], facts["report"]["effective_bits"], 6)
        self.assertRegex(self.succeeds("inspect", out), r"0-1 +experts\.\*\.w1 +96 x 64 ")
        arguments = ["generate", out, "Once upon a time", "--temperature", 0, "--max-tokens", 8]
        self.assertEqual(self.succeeds(*arguments), self.succeeds(*arguments, "--threads", 2))
        bench = self.json_of("bench", "model", out, "--prompt", 32, "--generate", 4,
                             "--repeat", 1, "--batch", 3)
        self.assertGreater(bench["generate_tokens_per_s"], 0)

    def test_devices_agree(self):
        arguments = ["generate", self.model, "A", "--temperature", 0, "--max-tokens", 8]
        self.assertEqual(self.succeeds(*arguments, "--device", "ref"), self.succeeds(*arguments))

    def test_the_same_bytes_every_time(self):
        for recipe in ("w4a8", "atom-plus"):
            with self.subTest(recipe):
                more = ["--recipe", recipe, "--calib", STORY, "--windows", 4, "--context", 128]
                first, _ = self.quantize(recipe + "-first", *more)
                second, _ = self.quantize(recipe + "-second", *more, threads=2)
                for path in first.iterdir():
                    self.assertEqual(path.read_bytes(), (second / path.name).read_bytes())

    def test_experts_that_no_text_reaches(self):
        exact = self.losses(self.model)
        out, err = self.quantize("atom", "--recipe", "atom", "--calib", STORY, "--windows", 1,
                                 "--context", 16)
        for layer in range(LAYERS):
            self.assertIn(f"layer {layer}: experts that fewer than 128 calibration tokens", err)
        self.assert_close(self.losses(out), exact, 0.07)


if __name__ == "__main__":
    program.main()
