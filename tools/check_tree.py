#!/usr/bin/env python3
"""Checks what the compiler does not: which room includes which, sizes, names, stray copies.

Usage: tools/check_tree.py [ROOT]     prints one line a finding; exit code 1 if any is an error

The rooms and their arrows are read from the atom_room(NAME DEPS...) and atom_room_links(NAME DEPS...)
lines of src/**/CMakeLists.txt.
A file of room X may include headers of X and of the rooms that X declares itself; what those
declare in turn does not count, so that the declared arrows are the whole truth.
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

WARN_LINES = 500
FAIL_LINES = 700

# Arrows that no room may declare, whatever the build would accept.
FORBIDDEN_ARROWS = {
    "model": {"ref", "cpu", "cuda"},
    "engine": {"text", "server", "ref", "cpu", "cuda"},
    "io": {"ops", "model"},
    "quant": {"ref", "cpu", "cuda"},
}
# Libraries whose headers stay inside one room.
FENCED_HEADERS = [
    (re.compile(r"^(cuda|cublas|cusolver|cusparse|curand|nccl|nvtx|cute|cutlass|mma\.h|"
                r"cooperative_groups)"), "src/backend/cuda/", "CUDA headers"),
    (re.compile(r"^CLI/"), "src/cli/", "CLI11"),
]
CODE_SUFFIXES = {".cpp", ".h", ".inl", ".cu", ".cuh"}
TEXT_SUFFIXES = CODE_SUFFIXES | {".py", ".sh", ".cmake", ".md"}
SNAKE_CASE = re.compile(r"^[a-z0-9]+(_[a-z0-9]+)*\.[a-z0-9]+$")
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
ROOM = re.compile(r"^\s*atom_room(?:_links)?\(\s*(\w+)((?:\s+\w+)*)\s*\)", re.MULTILINE)


def list_files(root):
    """Paths relative to root: what git tracks or would track, or everything where git is absent."""
    try:
        out = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others",
             "--exclude-standard"], check=True, capture_output=True)
        names = [n for n in out.stdout.decode().split("\0") if n]
    except (OSError, subprocess.CalledProcessError):
        names = []
        for folder, folders, files in os.walk(root):
            folders[:] = [f for f in folders if f not in {".git", "build", "models", ".cache"}]
            names += [str((Path(folder) / f).relative_to(root)) for f in files]
    return sorted(n for n in names if (root / n).is_file())


class Checker:
    def __init__(self, root):
        self.root = root
        self.files = list_files(root)
        self.errors = []
        self.warnings = []
        self.rooms = {}  # name -> (folder below src, declared rooms)

    def error(self, place, text):
        self.errors.append(f"{place}: {text}")

    def run(self):
        self.read_rooms()
        self.check_arrows()
        for name in self.files:
            if not name.startswith("tests/data/") and not name.startswith("tests/fuzz/corpus/"):
                self.check_file(name)
        self.check_duplicates()
        self.check_data_is_listed()

    def read_rooms(self):
        for name in self.files:
            if not (name.startswith("src/") and name.endswith("/CMakeLists.txt")):
                continue
            found = ROOM.findall((self.root / name).read_text())
            if len(found) > 1:
                self.error(name, "declares more than one room")
            for room, deps in found:
                self.rooms[room] = (str(Path(name).parent.relative_to("src")), deps.split())

    def check_arrows(self):
        for room, (folder, deps) in self.rooms.items():
            place = f"src/{folder}/CMakeLists.txt"
            for dep in deps:
                if dep not in self.rooms:
                    self.error(place, f"room '{room}' declares '{dep}', which no folder defines")
                elif dep == "cli":
                    self.error(place, f"room '{room}' may not depend on cli")
                elif dep in FORBIDDEN_ARROWS.get(room, set()):
                    self.error(place, f"room '{room}' may not depend on {dep}")
        # A cycle: remove rooms whose arrows all lead to removed rooms until nothing changes.
        left = {room: set(deps) & set(self.rooms) for room, (_, deps) in self.rooms.items()}
        while True:
            done = [room for room, deps in left.items() if not deps & set(left)]
            if not done:
                break
            for room in done:
                del left[room]
        if left:
            self.error("src", f"the rooms {', '.join(sorted(left))} depend on each other in a circle")

    def room_of(self, path):
        """The room that a path below src belongs to: the one with the longest matching folder."""
        best = None
        for room, (folder, _) in self.rooms.items():
            if path.startswith(folder + "/"):
                if best is None or len(folder) > len(self.rooms[best][0]):
                    best = room
        return best

    def check_file(self, name):
        path = Path(name)
        is_script = path.suffix == "" and name.split("/")[-1] in {"test", "quickstart", "run"}
        if path.suffix not in TEXT_SUFFIXES and not is_script and path.name != "CMakeLists.txt":
            return
        data = (self.root / name).read_bytes()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as problem:
            self.error(name, f"not UTF-8 at byte {problem.start}")
            return
        self.check_layout(name, text)
        if path.suffix in CODE_SUFFIXES | {".py"} and not SNAKE_CASE.match(path.name):
            self.error(name, "file names are snake_case")
        if path.suffix in CODE_SUFFIXES:
            self.check_code(name, text)

    def check_layout(self, name, text):
        lines = text.split("\n")
        if text and not text.endswith("\n"):
            self.error(name, "no newline at the end")
        for number, line in enumerate(lines, 1):
            if "\t" in line:
                self.error(f"{name}:{number}", "tab")
            if line != line.rstrip():
                self.error(f"{name}:{number}", "trailing whitespace")
        count = len(lines) - 1
        if Path(name).suffix == ".md":
            return
        if count > FAIL_LINES:
            self.error(name, f"{count} lines, more than {FAIL_LINES}: split it by concept")
        elif count > WARN_LINES:
            self.warnings.append(f"{name}: {count} lines, more than {WARN_LINES}")

    def check_code(self, name, text):
        suffix = Path(name).suffix
        if suffix in {".h", ".cuh"} and not re.search(r"^#pragma once$", text, re.MULTILINE):
            self.error(name, "header without #pragma once")
        if suffix in {".cu", ".cuh"} and not name.startswith(("src/backend/cuda/", "tests/")):
            self.error(name, "CUDA sources live under src/backend/cuda")
        room = self.room_of(name[len("src/"):]) if name.startswith("src/") else None
        for match in INCLUDE.finditer(text):
            place = f"{name}:{text.count(chr(10), 0, match.start(1 if match[1] else 2)) + 1}"
            header = match[1] or match[2]
            for pattern, folder, what in FENCED_HEADERS:
                if not match[1] and pattern.match(header) and not name.startswith(folder):
                    self.error(place, f"<{header}>: {what} are included under {folder} only")
            if match[2] and header.startswith("CLI/") and suffix == ".h":
                self.error(place, f"<{header}>: CLI11 stays out of headers")
            if match[1] and room is not None:
                self.check_include(place, room, header)

    def check_include(self, place, room, header):
        if not (self.root / "src" / header).is_file():
            self.error(place, f'"{header}": no such file under src; '
                              "includes are written from src, libraries in <>")
            return
        target = self.room_of(header)
        if target is not None and target != room and target not in self.rooms[room][1]:
            self.error(place, f'"{header}": room {room} does not declare {target}')

    def check_duplicates(self):
        seen = {}
        for name in self.files:
            if name.startswith("tests/data/") or name.startswith("tests/fuzz/corpus/"):
                continue
            data = (self.root / name).read_bytes()
            if len(data) < 64:
                continue
            digest = hashlib.sha256(data).digest()
            if digest in seen:
                self.error(name, f"the same content as {seen[digest]}")
            seen.setdefault(digest, name)

    def check_data_is_listed(self):
        """Every entry of tests/data has a row in its README, which says source and licence."""
        readme = self.root / "tests/data/README.md"
        entries = {"/".join(Path(n).parts[2:3]) for n in self.files
                   if n.startswith("tests/data/") and n != "tests/data/README.md"}
        if not entries:
            return
        text = readme.read_text() if readme.is_file() else ""
        for entry in sorted(entries):
            if not re.search(rf"^\| `?{re.escape(entry)}\b", text, re.MULTILINE):
                self.error("tests/data/README.md", f"has no row that begins with '{entry}'")


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    checker = Checker(root)
    checker.run()
    for line in checker.warnings:
        print(f"warning: {line}")
    for line in checker.errors:
        print(f"error: {line}")
    print(f"{len(checker.files)} files, {len(checker.rooms)} rooms: {len(checker.errors)} errors, "
          f"{len(checker.warnings)} warnings")
    return 1 if checker.errors else 0


if __name__ == "__main__":
    sys.exit(main())
