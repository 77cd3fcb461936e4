"""Every command on a tiny model, in every form that a model has."""

import json
import math
import shutil
import subprocess

import program
from program import DATA, ProgramTest

TINY = DATA / "model/stories260k.gguf"
STORY = DATA / "text/story.txt"
COMMANDS = [["quantize"], ["eval"], ["eval", "ppl"], ["generate"], ["chat"], ["inspect"],
            ["bench"], ["bench", "model"], ["bench", "kernels"]]
# This model only continues stories, so its conversations are stories.
CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}"


def perplexity_arguments(model, *more):
    return ["eval", "ppl", model, "--text", STORY, "--context", 128, "--threads", 1, *more]


class Help(ProgramTest):
    def test_no_arguments_show_help(self):
        out = self.succeeds()
        self.assertIn("Examples:", out)
        for command in ("quantize", "eval", "generate", "chat", "inspect", "bench"):
            self.assertIn(command, out)
        self.assertEqual(self.succeeds("--help"), out)

    def test_every_command_explains_itself(self):
        for command in COMMANDS:
            out = self.succeeds(*command, "--help")
            self.assertIn("Usage: atom " + " ".join(command), out)
            if command not in (["eval"], ["bench"]):
                self.assertIn("Example", out)

    def test_version(self):
        self.assertRegex(self.succeeds("--version"), r"^atom \d+\.\d+\.\d+\n$")

    def test_recipes_are_listed(self):
        out = self.succeeds("quantize", "--help")
        for recipe in ("atom", "atom-plus", "atom-fp4", "nvfp4", "w4a8", "w8a8", "w4a16", "w16a16", "rtn"):
            self.assertRegex(out, rf"\n  {recipe} +\S")


class Usage(ProgramTest):
    def test_wrong_command_lines(self):
        self.fails("frobnicate", says="frobnicate")
        self.fails("generate", says="MODEL")
        self.fails("generate", TINY, says="PROMPT")
        self.fails("generate", TINY, "x", "--frob", says="--frob")
        self.fails("generate", TINY, "x", "--max-tokens", "many", says="--max-tokens")
        self.fails("generate", TINY, "x", "--max-tokens", "0", says="--max-tokens")
        self.fails("generate", TINY, "x", "--temperature", "-1", says="temperature")
        self.fails("generate", TINY, "x", "--top-p", "7", says="top_p")
        self.fails("eval", says="subcommand")
        self.fails("eval", "ppl", TINY, says="--text")
        self.fails("inspect", TINY, "--threads", "1", says="--threads")

    def test_devices(self):
        self.fails("generate", TINY, "x", "--device", "cuda", says="device 'cuda'")
        self.fails("generate", TINY, "x", "--device", "tpu", says="tpu")

    def test_a_full_stdout_is_an_error(self):
        with open("/dev/full", "w") as full:
            result = subprocess.run([program.ATOM, "inspect", TINY], stdout=full,
                                    stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr, "atom: cannot write to standard output\n")


class Inspect(ProgramTest):
    def test_gguf(self):
        facts = self.json_of("inspect", TINY)
        self.assertEqual(facts["form"], "GGUF file")
        self.assertEqual(facts["config"]["layers"], 5)
        self.assertEqual(facts["config"]["kv_heads"], 4)
        self.assertEqual(facts["disk_bytes"], TINY.stat().st_size)
        self.assertEqual(len(facts["linears"]), 5 * 7 + 2)
        self.assertIn("0-4      self_attn.q_proj", self.succeeds("inspect", TINY))

    def test_folder(self):
        facts = self.json_of("inspect", DATA / "model/qwen3")
        self.assertEqual(facts["form"], "Hugging Face folder")
        self.assertEqual(facts["config"]["family"], "qwen3")


class Generate(ProgramTest):
    def generate(self, *more, model=TINY, prompt="Once upon a time", **options):
        return self.succeeds("generate", model, prompt, "--threads", 1, "--max-tokens", 24, *more,
                             **options)

    def test_continues_a_text(self):
        out = self.generate("--temperature", 0)
        self.assertTrue(out.startswith(", there was a little girl named"), out)
        self.assertTrue(out.endswith("\n"))

    def test_the_seed_decides(self):
        seven = self.generate("--temperature", 1, "--seed", 7)
        self.assertEqual(self.generate("--temperature", 1, "--seed", 7), seven)
        self.assertNotEqual(self.generate("--temperature", 1, "--seed", 8), seven)

    def test_filters_leave_the_most_likely(self):
        greedy = self.generate("--temperature", 0)
        self.assertEqual(self.generate("--temperature", 1, "--top-k", 1), greedy)
        self.assertEqual(self.generate("--temperature", 1, "--top-p", 0.0001), greedy)
        self.assertEqual(self.generate("--temperature", 1, "--min-p", 1), greedy)

    def test_threads_do_not_change_the_text(self):
        one = self.generate("--temperature", 0)
        self.assertEqual(self.succeeds("generate", TINY, "Once upon a time", "--max-tokens", 24,
                                       "--temperature", 0, "--threads", 2), one)

    def test_prompt_from_stdin(self):
        self.assertEqual(self.generate("--temperature", 0, prompt="-", stdin="Once upon a time"),
                         self.generate("--temperature", 0))

    def test_ref_and_cpu_agree(self):
        self.assertEqual(self.generate("--temperature", 0, "--device", "ref"),
                         self.generate("--temperature", 0))

    def test_a_prompt_beyond_the_context(self):
        self.fails("generate", TINY, "word " * 200, says="context")


class Quantize(ProgramTest):
    def quantize(self, name, *more):
        out = self.folder / name
        self.succeeds("quantize", TINY, out, "--threads", 1, *more)
        return out

    def perplexity(self, model):
        return self.json_of(*perplexity_arguments(model))["perplexity"]

    def test_recipes_by_their_perplexity(self):
        exact = self.json_of(*perplexity_arguments(TINY))
        self.assertEqual(len(exact["window_losses"]), exact["windows"])
        self.assertEqual(exact["tokens"], exact["windows"] * 128)
        self.assertGreater(exact["seconds"], 0)
        mean = sum(exact["window_losses"]) / exact["windows"]
        self.assertAlmostEqual(exact["perplexity"], math.exp(mean), places=9)
        # Loose bounds on what each recipe may lose on this small model.
        for recipe, most in (("w16a16", 1.01), ("w8a8", 1.05), ("w4a8", 1.3), ("atom-plus", 1.6),
                             ("atom", 2.0), ("atom-fp4", 2.0), ("nvfp4", 1.6)):
            with self.subTest(recipe):
                out = self.quantize(recipe, "--recipe", recipe, "--calib", STORY)
                ratio = self.perplexity(out) / exact["perplexity"]
                self.assertLess(ratio, most)
                self.assertGreater(ratio, 0.9)

    def test_a_recipe_that_does_not_fit(self):
        self.fails("quantize", TINY, self.folder / "out", "--recipe", "w4a16", "--calib", STORY,
                   says="groups of 128 do not fit the 172 input channels of down")
        self.assert_nothing_left()

    def test_a_checkpoint_serves_every_command(self):
        out = self.quantize("w4a8", "--recipe", "w4a8", "--calib", STORY)
        facts = self.json_of("inspect", out)
        self.assertEqual(facts["form"], "Atom checkpoint")
        self.assertEqual(facts["recipe"]["name"], "w4a8")
        self.assertEqual(facts["report"]["recipe"], "w4a8")
        self.assertEqual(len(facts["report"]["linears"]), 5 * 7)
        self.assertAlmostEqual(facts["effective_bits"], facts["report"]["effective_bits"], 6)
        self.assertIn("recipe w4a8", self.succeeds("inspect", out))
        self.assertIn("little girl", self.succeeds("generate", out, "Once upon a time",
                                                   "--temperature", 0, "--max-tokens", 16))
        bench = self.json_of("bench", "model", out, "--prompt", 32, "--generate", 4, "--depth", 16,
                             "--repeat", 2, "--threads", 1)
        for field in ("prompt_tokens_per_s", "generate_tokens_per_s", "load_seconds",
                      "peak_rss_bytes"):
            self.assertGreater(bench[field], 0, field)
        bench = self.json_of("bench", "model", out, "--prompt", 20, "--generate", 4, "--depth", 16,
                             "--batch", 3, "--repeat", 1)
        self.assertEqual(bench["batch"], 3)
        self.assertGreater(bench["generate_tokens_per_s"], 0)
        runs = self.json_of("bench", "model", out, "--prompt", 20, "--generate", 4, "--batch", "1,3",
                            "--repeat", 1)["runs"]
        self.assertEqual([run["batch"] for run in runs], [1, 3])
        self.assertGreater(runs[1]["generate_tokens_per_s"], 0)
        for wrong in (0, "1,0", "1,two"):
            self.fails("bench", "model", out, "--batch", wrong, says="--batch")
        self.check_bench_engine(out)
        text = self.folder / "text.txt"
        text.write_text("Once upon a time, there was a little girl. \u00e9\u4e2d\U0001f600\n" * 50)
        bench = self.json_of("bench", "tokenizer", out, "--text", text, "--repeat", 1)
        self.assertEqual(bench["bytes"], text.stat().st_size)
        self.assertGreater(bench["tokens"], 0)
        self.assertGreater(bench["encode_mb_per_s"], 0)
        self.assertGreater(bench["decode_mb_per_s"], 0)
        self.fails("eval", "ppl", out, "--text", text, "--context", 9999, says=f"{text}: has")
        self.fails("evaluate", says="no command 'evaluate'")
        text.write_text("")
        self.fails("bench", "tokenizer", out, "--text", text, says="is empty")
        self.fails("quantize", out, self.folder / "again", says="is an Atom checkpoint already")

    def test_bench_kernels(self):
        report = self.json_of("bench", "kernels", "--device", "cpu", "w4a8", "w4a4", "fp4", "w4a16",
                              "256x384x3", "--samples", 2)
        self.assertEqual([row["group"] for row in report["rows"]], ["w4a8", "w4a4", "fp4", "w4a16"])
        for row in report["rows"]:
            self.assertEqual(row["problem"], "256x384 M 3")
            self.assertGreater(row["us_median"], 0)
            self.assertAlmostEqual(row["x_f16"], row["us_f16"] / row["us_median"], places=3)
        for wrong in ("w5", "256x384", "256x384x0", "256x384x3x", "x", "1048576x1048576x1",
                      "99999999999999999999x1x1"):
            self.fails("bench", "kernels", "--device", "cpu", wrong, says=f"'{wrong}'")
        self.fails("bench", "kernels", "--device", "cpu", "256x300x3", says="group")
        self.fails("bench", "kernels", "--device", "tpu", says="tpu")
        self.fails("bench", "kernels", "--device", "cpu", "--tune", says="--tune")

    def check_bench_engine(self, model):
        bench = self.json_of("bench", "engine", model, "--requests", 3, "--prompt", 16,
                             "--generate", 4, "--threads", 1)
        self.assertEqual((bench["requests"], bench["sequences"]), (3, 3))
        self.assertGreater(bench["generated_tokens_per_s"], 0)
        # Under a cap: as many sequences as have room for what is reserved for each.
        trace = self.folder / "trace.csv"
        trace.write_text("num_prefill_tokens,num_decode_tokens\n20,3\n7,9\n300,300\n")
        load = ("--trace", trace, "--context", 64, "--seconds", 0.3, "--threads", 1)
        bench = self.json_of("bench", "engine", model, *load, "--memory-cap", "2MB",
                             "--reserve", 80)
        room = 2e6 - bench["weight_bytes"]
        self.assertLessEqual(bench["kv_bytes"], room)
        self.assertGreater(bench["kv_bytes"] * (bench["sequences"] + 1) / bench["sequences"], room)
        paged = self.json_of("bench", "engine", model, *load, "--memory-cap", "2MB")
        self.assertGreater(paged["sequences"], bench["sequences"])
        self.assertLessEqual(paged["kv_bytes"], room)
        self.fails("bench", "engine", model, *load, "--memory-cap", "1KB", says="no room")
        self.fails("bench", "engine", model, *load, "--memory-cap", "1XB", says="--memory-cap")
        self.fails("bench", "engine", model, *load, "--memory-cap", "2MB", "--reserve", 48,
                   says="--reserve 48")
        self.fails("bench", "engine", says="either MODEL or --shape")

    def test_the_same_bytes_every_time(self):
        for recipe in ("w4a8", "atom", "atom-plus"):
            with self.subTest(recipe):
                self.same_bytes(recipe)

    def same_bytes(self, recipe):
        more = ["--recipe", recipe, "--calib", "self", "--windows", 2, "--context", 64]
        first = self.quantize(recipe + "-first", *more)
        second = self.folder / (recipe + "-second")
        self.succeeds("quantize", TINY, second, *more, "--threads", 2)
        third = self.quantize(recipe + "-third", *more, "--seed", 1)
        names = sorted(p.name for p in first.iterdir())
        self.assertEqual(names, sorted(p.name for p in second.iterdir()))
        for name in names:
            self.assertEqual((first / name).read_bytes(), (second / name).read_bytes(), name)
        self.assertNotEqual((first / "model.safetensors").read_bytes(),
                            (third / "model.safetensors").read_bytes())

    def test_a_prefix_in_front_of_keys_without_rope(self):
        atom = self.quantize("atom", "--recipe", "atom", "--calib", STORY)
        recipe = self.json_of("inspect", atom)["recipe"] | {"name": "with prefix", "prefix": "bos"}
        path = self.folder / "prefix.json"
        path.write_text(json.dumps(recipe))
        prefixed = self.quantize("prefixed", "--recipe", path, "--calib", STORY)
        self.assertLess(self.perplexity(prefixed), 1.2 * self.perplexity(atom))

    def test_a_recipe_of_ones_own(self):
        recipe = json.loads(json.dumps(self.json_of("inspect", self.quantize(
            "w8a8", "--recipe", "w8a8"))["recipe"]))
        recipe["name"] = "mine"
        path = self.folder / "mine.json"
        path.write_text(json.dumps(recipe))
        out = self.quantize("mine", "--recipe", path)
        self.assertEqual(self.json_of("inspect", out)["recipe"]["name"], "mine")
        self.assertEqual((out / "model.safetensors").read_bytes(),
                         (self.folder / "w8a8/model.safetensors").read_bytes())
        path.write_text(json.dumps(recipe | {"speed": 9}))
        self.fails("quantize", TINY, self.folder / "x", "--recipe", path, says="speed")
        path.write_text("{")
        self.fails("quantize", TINY, self.folder / "x", "--recipe", path, says="mine.json")
        self.fails("quantize", TINY, self.folder / "x", "--recipe", "nonesuch", says="nonesuch")
        self.assertFalse((self.folder / "x").exists())

    def test_balance_changes_codes_but_hardly_the_model(self):
        plain = self.quantize("w8a8", "--recipe", "w8a8")
        recipe = self.json_of("inspect", plain)["recipe"] | {"name": "balanced", "balance": 1.0}
        path = self.folder / "balanced.json"
        path.write_text(json.dumps(recipe))
        balanced = self.quantize("balanced", "--recipe", path, "--calib", STORY)
        self.assertNotEqual((plain / "model.safetensors").read_bytes(),
                            (balanced / "model.safetensors").read_bytes())
        self.assertLess(abs(self.perplexity(balanced) / self.perplexity(plain) - 1), 0.03)
        path.write_text(json.dumps(recipe | {"balance": 1.5}))
        self.fails("quantize", TINY, self.folder / "x", "--recipe", path, says="'balance' is 1.5")

    def test_the_output_must_be_free(self):
        taken = self.folder / "taken"
        taken.mkdir()
        (taken / "file").write_text("mine")
        self.fails("quantize", TINY, taken, "--recipe", "rtn", says="already exists")
        self.assertEqual((taken / "file").read_text(), "mine")


class Chat(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.succeeds("quantize", TINY, self.model, "--recipe", "w16a16")

    def test_needs_a_template(self):
        self.fails("chat", self.model, says="has no chat template")

    def test_talks(self):
        (self.model / "chat_template.jinja").write_text(CHAT_TEMPLATE)
        arguments = ["chat", self.model, "--temperature", 0, "--max-tokens", 12, "--threads", 1]
        first, second = "Lily saw a big red ball.\n", "The bird was sad.\n"
        once = self.succeeds(*arguments, stdin=first)
        self.assertGreater(len(once), 10)
        self.assertEqual(self.succeeds(*arguments, stdin=first + "/reset\n" + first), once + once)
        # An answer depends on what was said before, and on the system prompt.
        both = self.succeeds(*arguments, stdin=first + second)
        self.assertTrue(both.startswith(once))
        alone = self.succeeds(*arguments, stdin=second)
        self.assertNotEqual(both, once + alone)
        self.assertNotEqual(self.succeeds(*arguments, "--system", "Tom ran home.", stdin=second),
                            alone)
        self.assertIn("/reset", self.succeeds(*arguments, stdin="/help\n/exit\nnot read\n"))

    def test_generate_uses_the_template_unless_raw(self):
        (self.model / "chat_template.jinja").write_text("Lily was sad.")
        arguments = ["generate", self.model, "Once upon a time", "--temperature", 0,
                     "--max-tokens", 12, "--threads", 1]
        self.assertIn("little", self.succeeds(*arguments, "--raw"))
        self.assertNotIn("little", self.succeeds(*arguments))

    def test_a_broken_template(self):
        (self.model / "chat_template.jinja").write_text("{% for %}")
        self.fails("chat", self.model, stdin="Hello\n", says="chat template")
        (self.model / "chat_template.jinja").write_text("{{ raise_exception('no system') }}")
        self.fails("generate", self.model, "Hello", says="no system")


class Moved(ProgramTest):
    def test_a_checkpoint_is_a_folder_like_any_other(self):
        first = self.folder / "first"
        self.succeeds("quantize", TINY, first, "--recipe", "w8a8")
        facts = self.json_of("inspect", first)
        shutil.move(first, self.folder / "second")
        self.assertEqual(self.json_of("inspect", self.folder / "second") | {"model": ""},
                         facts | {"model": ""})


if __name__ == "__main__":
    program.main()
