#!/usr/bin/env python3
"""Checks documents against their schemas with the jsonschema package.

Usage: tools/check_grammar_goldens.py table [FILE]    the table that the tests use (default:
                                                      tests/data/grammar/schemas.json)
       tools/check_grammar_goldens.py walks FILE      what grammar_walk wrote: one JSON object a line,
                                                      {"schema": ..., "document": text}

In the table a case has a schema and documents as text: `accepted` and `declined` ones must satisfy
the schema (we generate the first and choose not to generate the second), `wrong` ones must not.
Needs: pip install 'jsonschema[format]'. Prints one line a mistake; exit code 1 if there is any.
"""

import json
import sys
from decimal import Decimal
from pathlib import Path

import jsonschema

# Formats that jsonschema checks only with packages that are hard to get, or too loosely to compare.
UNCHECKED_FORMATS = {"hostname", "uri", "duration", "time"}


def reject_constant(name):
    raise ValueError(f"{name} is no JSON")


def exact(text):
    """Fractions stay decimal: 0.01 divides 19.99, which binary ones do not know."""
    return int(float(text)) if float(text).is_integer() else Decimal(text)


def load(text):
    return json.loads(text, parse_constant=reject_constant, parse_float=exact)


def validator(schema):
    kind = jsonschema.Draft202012Validator
    kind.check_schema(schema)
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


def is_valid(check, text):
    try:
        document = load(text)
    except ValueError:
        return False
    return check.is_valid(document)


def check_table(path):
    mistakes = 0
    documents = 0
    checked_formats = jsonschema.Draft202012Validator.FORMAT_CHECKER.checkers
    for case in load(Path(path).read_text()):
        check = validator(case["schema"])
        form = case["schema"].get("format") if isinstance(case["schema"], dict) else None
        skip_wrong = form in UNCHECKED_FORMATS and form not in checked_formats
        for kind in ("accepted", "declined", "wrong"):
            if kind == "wrong" and skip_wrong:
                continue
            for text in case[kind]:
                documents += 1
                if is_valid(check, text) == (kind == "wrong"):
                    mistakes += 1
                    print(f"{case['name']}: {text!r} stands under '{kind}'")
    print(f"{documents} documents, {mistakes} mistakes")
    return mistakes


def check_walks(path):
    mistakes = 0
    documents = 0
    checks = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = load(line)
            key = str(row["schema"])
            if key not in checks:
                checks[key] = validator(row["schema"])
            documents += 1
            if not is_valid(checks[key], row["document"]):
                mistakes += 1
                print(f"{key}: {row['document']!r}")
    print(f"{documents} documents of {len(checks)} schemas, {mistakes} mistakes")
    return mistakes


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in {"table", "walks"}:
        sys.exit(__doc__)
    if sys.argv[1] == "walks":
        return 1 if check_walks(sys.argv[2]) else 0
    table = Path(__file__).parent.parent / "tests/data/grammar/schemas.json"
    return 1 if check_table(sys.argv[2] if len(sys.argv) > 2 else table) else 0


if __name__ == "__main__":
    sys.exit(main())
