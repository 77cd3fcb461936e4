"""A real model, end to end: SmolLM2-135M-Instruct, which tools/setup.sh brings to models/."""

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


if __name__ == "__main__":
    if not MODEL.is_file():
        print(f"skipped: {MODEL} is not there")
        sys.exit(SKIPPED)
    program.main()
