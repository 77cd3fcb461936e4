"""A real model, end to end: SmolLM2-135M-Instruct, which tools/setup.sh brings to models/."""

import json
import sys

import program
from program import DATA, ProgramTest

MODEL = DATA.parents[1] / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
TEST_TEXT = DATA / "text/wikitext2_test_excerpt.txt"
TRAIN_TEXT = DATA / "text/wikitext2_train_excerpt.txt"
SKIPPED = 77

# Mean losses of the first two windows of 2048 tokens of the WikiText-2 test set, by PyTorch in FP32.
EXACT_LOSSES = [2.714852, 3.171673]


class SmolLM2(ProgramTest):
    def losses(self, model):
        result = self.json_of("eval", "ppl", model, "--text", TEST_TEXT, "--windows", 2)
        self.assertEqual((result["windows"], result["tokens"]), (2, 4096))
        return result["window_losses"]

    def test_from_float_to_four_bits(self):
        exact = self.losses(MODEL)
        for loss, expected in zip(exact, EXACT_LOSSES, strict=True):
            self.assertAlmostEqual(loss, expected, delta=1e-3)

        out = self.folder / "w4a8"
        self.succeeds("quantize", MODEL, out, "--recipe", "w4a8", "--calib", TRAIN_TEXT,
                      "--windows", 8, "--context", 512)
        facts = self.json_of("inspect", out)
        self.assertLess(facts["effective_bits"], 4.6)
        # Recipe w4a8 loses about 0.1 nats with its own, longer calibration.
        for loss, expected in zip(self.losses(out), exact, strict=True):
            self.assertLess(loss, expected + 0.25)
            self.assertGreater(loss, expected - 0.05)

        self.assertIn("Paris", self.succeeds("generate", out, "The capital of France is", "--raw",
                                             "--temperature", 0, "--max-tokens", 8))
        answer = self.succeeds("chat", out, "--temperature", 0, "--max-tokens", 40,
                               stdin="What is the capital of France?\n")
        self.assertGreater(len(answer.strip()), 10)

    def test_constrained_output(self):
        schema = {"type": "object", "required": ["name", "age", "colours"], "properties": {
            "name": {"type": "string", "pattern": "^[A-Z][a-z]{1,12}$"},
            "age": {"type": "integer", "minimum": 1, "maximum": 30},
            "colours": {"type": "array", "items": {"enum": ["black", "white", "red"]},
                        "minItems": 1, "maxItems": 3},
            "note": {"type": "string", "maxLength": 40}}}
        file = self.folder / "cat.json"
        file.write_text(json.dumps(schema))
        prompt = "Describe a cat as JSON."
        for seed, temperature in enumerate([0, 0.7, 1.0, 1.5]):
            text = self.succeeds("generate", MODEL, prompt, "--schema", file, "--seed", seed,
                                 "--temperature", temperature, "--max-tokens", 200)
            cat = json.loads(text)
            self.assertLessEqual({"name", "age", "colours"}, cat.keys())
            self.assertLessEqual(cat.keys(), {"name", "age", "colours", "note"})
            self.assertRegex(cat["name"], "^[A-Z][a-z]{1,12}$")
            self.assertTrue(1 <= cat["age"] <= 30, text)
            self.assertTrue(1 <= len(cat["colours"]) <= 3, text)
            self.assertLessEqual(set(cat["colours"]), {"black", "white", "red"})
            self.assertLessEqual(len(cat.get("note", "")), 40)
        answer = self.succeeds("generate", MODEL, "Is fire hot?", "--regex", "(yes|no), because [a-z ]{10,60}\\.",
                               "--temperature", 0, "--max-tokens", 60)
        self.assertRegex(answer, r"^(yes|no), because [a-z ]{10,60}\.\n$")

        self.fails("generate", MODEL, prompt, "--regex", "(a", says="--regex: at character 2")
        file.write_text('{"not": {}}')
        self.fails("generate", MODEL, prompt, "--schema", file, says="cat.json: #/not: ")


if __name__ == "__main__":
    if not MODEL.is_file():
        print(f"skipped: {MODEL} is not there")
        sys.exit(SKIPPED)
    program.main()
