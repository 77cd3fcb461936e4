"""What goes wrong from outside: broken files, Ctrl-C, a full disk."""

import json
import signal
import struct
import subprocess

import program
from program import DATA, ProgramTest

TINY = DATA / "model/stories260k.gguf"
STORY = DATA / "text/story.txt"


class BrokenModels(ProgramTest):
    def refused_by_all(self, model, says=""):
        self.fails("inspect", model, says=says)
        self.fails("generate", model, "Once", says=says)
        self.fails("eval", "ppl", model, "--text", STORY, says=says)
        self.fails("quantize", model, self.folder / "out", "--recipe", "rtn", says=says)
        self.assertFalse((self.folder / "out").exists())

    def test_missing(self):
        self.refused_by_all(self.folder / "none", says="none")
        (self.folder / "empty").mkdir()
        self.refused_by_all(self.folder / "empty", says="config.json")
        self.refused_by_all("/dev/null")

    def test_truncated_gguf(self):
        whole = TINY.read_bytes()
        path = self.folder / "cut.gguf"
        for size in (0, 3, 4, 20, 100, 5000, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            with self.subTest(size):
                self.refused_by_all(path, says="cut.gguf")

    def test_lying_gguf(self):
        whole = TINY.read_bytes()
        path = self.folder / "lies.gguf"
        huge = struct.pack("<Q", 1 << 62)
        # The header: magic, version, tensor count, metadata count; then the first key's length.
        for offset, value in ((0, b"GGUX"), (4, b"\x09\0\0\0"), (8, huge), (16, huge), (24, huge)):
            path.write_bytes(whole[:offset] + value + whole[offset + len(value):])
            with self.subTest(offset):
                self.refused_by_all(path, says="lies.gguf")

    def test_text(self):
        self.fails("eval", "ppl", TINY, "--text", self.folder / "none.txt", says="none.txt")
        short = self.folder / "short.txt"
        short.write_text("Once upon a time")
        self.fails("eval", "ppl", TINY, "--text", short, "--context", 128, says="128")
        self.fails("quantize", TINY, self.folder / "out", "--calib", self.folder / "none.txt",
                   says="none.txt")
        self.assertFalse((self.folder / "out").exists())

    def test_no_tokenizer(self):
        self.fails("generate", DATA / "model/llama", "Once", says="has no tokenizer")


class BrokenCheckpoints(ProgramTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.succeeds("quantize", TINY, self.model, "--recipe", "rtn")
        self.config = json.loads((self.model / "config.json").read_text())

    def refused(self, says):
        line = self.fails("generate", self.model, "Once", says=says)
        self.assertIn(str(self.model), line)

    def write_config(self):
        (self.model / "config.json").write_text(json.dumps(self.config))

    def test_truncated_tensors(self):
        path = self.model / "model.safetensors"
        whole = path.read_bytes()
        for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            with self.subTest(size):
                self.refused("model.safetensors")
        path.unlink()
        self.refused("model")

    def test_wrong_config(self):
        (self.model / "config.json").write_text(json.dumps(self.config)[:-20])
        self.refused("config.json")
        self.config["quantization_config"]["version"] = 99
        self.write_config()
        self.refused("99")
        self.config["quantization_config"]["version"] = 1
        self.config["num_hidden_layers"] = 6
        self.write_config()
        self.refused("layers.5")
        self.config["num_hidden_layers"] = 1 << 60
        self.write_config()
        self.refused("num_hidden_layers")

    def test_values_out_of_range(self):
        path = self.model / "model.safetensors"
        whole = bytearray(path.read_bytes())
        header = json.loads(whole[8:8 + struct.unpack("<Q", whole[:8])[0]])
        begin = 8 + struct.unpack("<Q", whole[:8])[0]

        def refused_with(name, offset, value, says):
            at = begin + header[name]["data_offsets"][0] + offset
            path.write_bytes(whole[:at] + value + whole[at + len(value):])
            self.refused(says)

        scales = next(name for name in header if name.endswith("q_proj.scales"))
        refused_with(scales, 0, b"\x00\x7e", "scales[0]: not finite")  # a NaN
        refused_with("model.layers.1.self_attn.qkv_perm", 4, struct.pack("<i", 64), "qkv_perm")
        refused_with("model.layers.1.self_attn.qkv_perm", 4, struct.pack("<i", 0), "qkv_perm")
        refused_with("model.norm.weight", 0, struct.pack("<f", float("inf")), "model.norm.weight")


class Interrupted(ProgramTest):
    def interrupt(self, arguments, when):
        """Sends Ctrl-C once `when` appears on stderr; the exit code."""
        process = subprocess.Popen([program.ATOM, *map(str, arguments)], stdin=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            seen = ""
            while when not in seen:
                seen = process.stderr.readline()
                self.assertTrue(seen, "ended before it could be interrupted")
            process.send_signal(signal.SIGINT)
            code = process.wait(program.SECONDS)
            self.assertIn("atom: ", process.stderr.read())
            return code
        finally:
            process.kill()
            process.communicate()

    def test_quantize_leaves_nothing(self):
        out = self.folder / "out"
        self.assertEqual(self.interrupt(["quantize", TINY, out, "--windows", 2000, "--recipe",
                                         "w4a8", "--threads", 1], "writing calibration"), 130)
        self.assert_nothing_left()

    def test_quantize_leaves_nothing_while_layers_are_written(self):
        text = self.folder.parent / (self.folder.name + ".txt")
        text.write_text(STORY.read_text() * 200)
        self.addCleanup(text.unlink)
        out = self.folder / "out"
        self.assertEqual(self.interrupt(["quantize", TINY, out, "--calib", text, "--windows", 500,
                                         "--recipe", "w4a8", "--threads", 1], "layer 2"), 130)
        self.assert_nothing_left()

    def test_chat_stops_the_answer_and_goes_on(self):
        model = self.folder / "model"
        self.succeeds("quantize", TINY, model, "--recipe", "w16a16")
        (model / "chat_template.jinja").write_text("Once upon a time")
        # A busy machine may deliver the signal when the answer has ended already.
        for _ in range(20):
            code, out = self.interrupted_chat(model)
            if b" [stopped]\n" in out:
                break
        self.assertIn(b" [stopped]\n", out)
        self.assertIn(b"/reset", out)
        self.assertEqual(code, 0)

    def interrupted_chat(self, model):
        """Ctrl-C as soon as an answer has begun, then /help: exit code and the rest of stdout."""
        process = subprocess.Popen(
            [program.ATOM, "chat", model, "--device", "ref", "--threads", "1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        try:
            process.stdin.write(b"Go on\n")
            self.assertTrue(process.stdout.read(1))  # the answer has begun
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(b"/help\n", program.SECONDS)
            return process.returncode, out
        finally:
            process.kill()
            process.communicate()

    def test_eval(self):
        text = self.folder / "long.txt"
        text.write_text(STORY.read_text() * 200)
        self.assertEqual(self.interrupt(["eval", "ppl", TINY, "--text", text, "--context", 128,
                                         "--threads", 1], "%"), 130)


class FullDisk(ProgramTest):
    def test_quantize_leaves_nothing(self):
        out = self.folder / "out"
        for limit in (1000, 20000, 200000):
            with self.subTest(limit):
                self.fails("quantize", TINY, out, "--recipe", "rtn", code=1,
                           file_limit_bytes=limit)
                self.assert_nothing_left()

    def test_no_room_for_the_checkpoint(self):
        self.fails("quantize", TINY, self.folder / "out", "--recipe", "w4a8", "--calib", STORY,
                   code=1, file_limit_bytes=50000)
        self.assert_nothing_left()


if __name__ == "__main__":
    program.main()
