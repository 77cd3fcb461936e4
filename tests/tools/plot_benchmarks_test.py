"""tools/plot_benchmarks.py draws what the benchmarks' JSON holds."""

import json
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "tools/plot_benchmarks.py"
SVG = "{http://www.w3.org/2000/svg}"


def gemm(group, tokens, speed):
    return {"group": group, "problem": f"4096x2048 M {tokens}", "us_median": 10 / speed,
            "us_fp16": 10.0, "x_fp16": speed, "us_int8": 5.0, "x_int8": speed / 2}


KERNELS = {"device": "A <GPU>", "rows": [
    *(gemm(group, tokens, speed) for group, speed in (("w4a8", 2.5), ("w4a4", 1.25))
      for tokens in (16, 64, 256)),
    *({"group": "attention", "problem": f"{count} sequences of 1024, 32/32 heads",
       "us_median": count, "us_int8_cache": 2 * count, "us_f16_cache": 3 * count}
      for count in (8, 32, 128))]}
MODEL = {"runs": [{"model": "llama-2-7b w4a8", "kv": "int4 centered", "depth": 1024, "batch": batch,
                   "device": "cuda A <GPU>", "generate_tokens_per_s": 100.0 * batch}
                  for batch in (1, 8, 64)]}


class Plots(unittest.TestCase):
    def plot(self, *documents):
        """Exit code, stderr and {name: root element}."""
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for i, document in enumerate(documents):
                files.append(Path(folder) / f"{i}.json")
                files[-1].write_text(json.dumps(document))
            out = Path(folder) / "plots"
            run = subprocess.run([sys.executable, SCRIPT, out, *files, "--note", "today & here"],
                                 capture_output=True, text=True)
            return run.returncode, run.stderr, {path.name: ElementTree.parse(path).getroot()
                                                for path in out.glob("*.svg")}

    def test_every_chart(self):
        code, errors, charts = self.plot(KERNELS, MODEL)
        self.assertEqual((code, errors), (0, ""))
        self.assertEqual(sorted(charts),
                         ["attention.svg", "decode-llama-2-7b.svg", "gemm-4096x2048.svg"])
        words = [text.text for text in charts["gemm-4096x2048.svg"].iter(SVG + "text")]
        for word in ("A <GPU>, today & here", "w4a8", "w4a4", "vendor INT8", "vendor FP16", "256"):
            self.assertIn(word, words)
        # Three lines; higher speeds stand higher up.
        lines = [[float(point.split(",")[1]) for point in line.get("points").split()]
                 for line in charts["gemm-4096x2048.svg"].iter(SVG + "polyline")]
        self.assertEqual([len(line) for line in lines], [3, 3, 3])
        w4a8, w4a4, int8 = lines
        self.assertLess(w4a8[0], int8[0])
        self.assertLess(int8[0], w4a4[0])
        titles = [title.text for title in charts["decode-llama-2-7b.svg"].iter(SVG + "title")]
        self.assertEqual(titles[0], "w4a8, int4 cache, 1: 10")

    def test_too_little_to_plot(self):
        code, errors, charts = self.plot({**MODEL, "runs": MODEL["runs"][:2]})
        self.assertEqual((code, charts), (2, {}))
        self.assertIn("nothing to plot", errors)


if __name__ == "__main__":
    unittest.main()
