"""tools/check_tree.py finds what it says it finds, in small trees made for it."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "tools/check_tree.py"

GOOD = {
    "src/base/CMakeLists.txt": "atom_room(base)\n",
    "src/base/file.h": "#pragma once\n#include <string>\n",
    "src/io/CMakeLists.txt": "atom_room(io base)\n",
    "src/io/gguf.cpp": '#include "base/file.h"\n',
    "src/text/CMakeLists.txt": "atom_room(text io)\n",
    "src/backend/cuda/CMakeLists.txt": "atom_room(cuda base)\n",
    "src/backend/cuda/gemm.cu": "#include <cuda_runtime.h>\n",
    "src/cli/CMakeLists.txt": "atom_room(cli io base)\n",
    "src/cli/main.cpp": "#include <CLI/CLI.hpp>\n",
}


def check(changes):
    """The exit code and output for the good tree with some files changed or added."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (GOOD | changes).items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        result = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True)
        return result.returncode, result.stdout


class CheckTree(unittest.TestCase):
    def refused(self, changes, message):
        code, output = check(changes)
        self.assertIn(message, output)
        self.assertEqual(code, 1)

    def test_accepts_a_good_tree(self):
        code, output = check({})
        self.assertEqual(code, 0, output)
        self.assertIn("9 files, 5 rooms: 0 errors, 0 warnings", output)

    def test_include_without_an_arrow(self):
        self.refused({"src/base/a.cpp": '#include "io/b.h"\n', "src/io/b.h": "#pragma once\n"},
                     'src/base/a.cpp:1: "io/b.h": room base does not declare io')

    def test_arrows_are_not_transitive(self):
        self.refused({"src/text/a.cpp": '\n#include "base/file.h"\n'},
                     'src/text/a.cpp:2: "base/file.h": room text does not declare base')

    def test_nothing_depends_on_cli(self):
        self.refused({"src/io/CMakeLists.txt": "atom_room(io base cli)\n"},
                     "room 'io' may not depend on cli")

    def test_forbidden_and_unknown_arrows(self):
        self.refused({"src/engine/CMakeLists.txt": "atom_room(engine text)\n"},
                     "room 'engine' may not depend on text")
        self.refused({"src/engine/CMakeLists.txt": "atom_room(engine gone)\n"},
                     "declares 'gone', which no folder defines")

    def test_circles(self):
        self.refused({"src/base/CMakeLists.txt": "atom_room(base io)\n"},
                     "the rooms base, cli, cuda, io, text depend on each other in a circle")

    def test_fenced_headers(self):
        self.refused({"src/io/a.cpp": "#include <cuda_fp16.h>\n"},
                     "CUDA headers are included under src/backend/cuda/ only")
        self.refused({"src/io/a.cu": "int x;\n"}, "CUDA sources live under src/backend/cuda")
        self.refused({"src/cli/a.h": "#pragma once\n#include <CLI/CLI.hpp>\n"},
                     "CLI11 stays out of headers")

    def test_missing_header(self):
        self.refused({"src/io/a.cpp": '#include "gguf.h"\n'}, '"gguf.h": no such file under src')

    def test_length(self):
        code, output = check({"src/io/long.cpp": "int x;\n" * 501})
        self.assertEqual(code, 0)
        self.assertIn("warning: src/io/long.cpp: 501 lines", output)
        self.refused({"src/io/long.cpp": "int x;\n" * 701}, "701 lines, more than 700")

    def test_layout(self):
        self.refused({"src/io/a.h": "int x;\n"}, "header without #pragma once")
        self.refused({"src/io/a.cpp": "\tint x;\n"}, "src/io/a.cpp:1: tab")
        self.refused({"src/io/a.cpp": "int x; \n"}, "src/io/a.cpp:1: trailing whitespace")
        self.refused({"src/io/a.cpp": "int x;"}, "no newline at the end")
        self.refused({"src/io/a.cpp": b"// \xff\n"}, "not UTF-8 at byte 3")
        self.refused({"src/io/CamelCase.cpp": "int x;\n"}, "file names are snake_case")

    def test_copies(self):
        body = "int a_function_of_some_length(int argument) { return argument + 1; }\n"
        self.refused({"src/io/a.cpp": body, "src/io/b.cpp": body},
                     "src/io/b.cpp: the same content as src/io/a.cpp")

    def test_data_has_a_source(self):
        self.refused({"tests/data/x/y.bin": "1"}, "has no row that begins with 'x'")
        self.assertEqual(check({"tests/data/x/y.bin": "1", "tests/data/README.md": "| x/ |\n"})[0],
                         0)


if __name__ == "__main__":
    unittest.main()
