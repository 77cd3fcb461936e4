"""Running the atom program in tests."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data"
ATOM = os.environ.get("ATOM", "build/release/atom")
SECONDS = 600  # no command takes long, except on a machine that does much else


def atom(*arguments, stdin="", file_limit_bytes=None, timeout=SECONDS):
    """Runs a command to its end: exit code, stdout and stderr as text."""
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))
    result = subprocess.run([ATOM, *map(str, arguments)], input=stdin.encode(),
                            capture_output=True, timeout=timeout,
                            preexec_fn=limit if file_limit_bytes else None)
    return result.returncode, result.stdout.decode(), result.stderr.decode()


class ProgramTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def succeeds(self, *arguments, **options):
        """stdout of a command that has to succeed."""
        code, out, err = atom(*arguments, **options)
        self.assertEqual(code, 0, f"{arguments}: {err}")
        return out

    def json_of(self, *arguments):
        """What a command prints with --json: one object and nothing else."""
        document = json.loads(self.succeeds(*arguments, "--json"))
        self.assertIsInstance(document, dict)
        return document

    def fails(self, *arguments, code=2, says="", **options):
        """A command that has to fail: one line on stderr after any progress, nothing on stdout."""
        got, out, err = atom(*arguments, **options)
        lines = [line for line in err.splitlines() if line.startswith("atom: ")]
        self.assertEqual(got, code, f"{arguments}: {err}")
        self.assertEqual(len(lines), 1, err)
        self.assertTrue(err.endswith(lines[0] + "\n"), err)
        self.assertIn(says, lines[0])
        self.assertEqual(out, "")
        return lines[0]

    def assert_nothing_left(self):
        """No output folder, finished or half-written, in the test's own folder."""
        self.assertEqual([p.name for p in self.folder.iterdir()], [])


def main():
    """python3 some_test.py ATOM [unittest arguments]"""
    global ATOM
    ATOM = sys.argv.pop(1)
    unittest.main(module="__main__")
