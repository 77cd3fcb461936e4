#!/usr/bin/env python3
"""Renders chat templates and Jinja snippets with transformers' own renderer (jinja2).

Reads tests/data/chat/{templates/*.jinja, conversations.json, snippets.txt}, writes
tests/data/chat/{chat_goldens.json, snippet_goldens.json}. Needs transformers and jinja2. Another
folder of templates, and another output file, can be given to check templates that are not ours to
commit:  make_chat_goldens.py FOLDER OUT.json
"""

import datetime
import json
import pathlib
import re
import sys

from transformers.utils import chat_template_utils

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "chat"
SEPARATOR = "\n=====\n"


class FixedDatetime(datetime.datetime):
    """The clock of strftime_now(): chat_template_test.cpp sets the same."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 9, 5, 7)


def render(source, variables):
    try:
        template = chat_template_utils._compile_jinja_template(source)
        text = template.render(**variables)
        text.encode("utf-8")  # lone surrogates are no text
        return {"expected": text}
    except Exception as error:  # whatever the template brings about is its result
        return {"error": f"{type(error).__name__}: {error}"[:120]}


def chat_goldens(folder, out):
    conversations = json.loads((DATA / "conversations.json").read_text())
    defaults = conversations.pop("defaults")
    results = {}
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_bytes().decode("utf-8")
        results[path.stem] = {
            name: render(source, {**defaults, **variables})
            for name, variables in conversations.items()
        }
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(result, ensure_ascii=False)}"
        for name, result in results.items()
    )
    out.write_text("{\n" + lines + "\n}\n")
    count = sum(len(result) for result in results.values())
    failed = sum("error" in r for result in results.values() for r in result.values())
    print(f"{out}: {len(results)} templates, {count} renders, {failed} of them errors")


def snippet_goldens():
    variables = json.loads((DATA / "snippet_variables.json").read_text())
    text = (DATA / "snippets.txt").read_bytes().decode()
    sources = [s for s in text.split(SEPARATOR)]
    results = [{"source": source, **render(source, variables)} for source in sources]
    for result in results:
        if re.search(r"0x[0-9a-f]{6,}", result.get("expected", "")):
            sys.exit(f"prints an address: {result}")
    out = DATA / "snippet_goldens.json"
    lines = ",\n".join(json.dumps(result, ensure_ascii=False) for result in results)
    out.write_text("[\n" + lines + "\n]\n")
    failed = sum("error" in r for r in results)
    print(f"{out}: {len(results)} snippets, {failed} of them errors")


def main():
    chat_template_utils.datetime = FixedDatetime
    if len(sys.argv) == 3:
        chat_goldens(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
        return
    chat_goldens(DATA / "templates", DATA / "chat_goldens.json")
    snippet_goldens()


if __name__ == "__main__":
    main()
