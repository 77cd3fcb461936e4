#!/usr/bin/env python3
"""Plots of GPU figures as SVG files, from what the benchmarks print with --json.

    atom bench kernels w4a8 w4a4 w8a8 attention 4096x4096x16 4096x4096x64 ... --json > kernels.json
    atom bench model --shape llama-2-7b --device cuda --batch 1,8,64,128 ... --json > w4a8.json
    tools/plot_benchmarks.py docs/plots kernels.json w4a8.json --note "driver 580.159.04, 2026-11-26"

Drawn is what the files hold: for each N x K with three sizes of batch or more the speed of its GEMMs
over that of the vendor's FP16 one, decode attention by cache, and milliseconds of a decode step.
"""
import argparse
import collections
import json
import math
import pathlib
import re
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 64, 56
# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
FONT = 'font-family="system-ui, sans-serif"'


def ticks(low, high):
    """Round numbers that cover low..high, and the step between them."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= 6:
            step *= factor
            break
    return [step * i for i in range(math.floor(low / step), math.ceil(high / step) + 1)]


def place_labels(wanted, distance):
    """Heights near the wanted ones, at least so far apart."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = list(wanted)
    for before, after in zip(order, order[1:]):
        placed[after] = max(placed[after], placed[before] + distance)
    return placed


def line_chart(title, note, x_name, y_name, lines, reference=None):
    """An SVG text. lines: {name: {x: y}}; x is drawn in powers of two, y from zero.

    reference: (y, name) of a line that the others are compared with.
    """
    xs = sorted({x for points in lines.values() for x in points})
    left, right = math.log2(xs[0]), math.log2(xs[-1])
    y_ticks = ticks(0, max(max(points.values()) for points in lines.values()) * 1.02)
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at_x(x):
        return LEFT + inner_width * (math.log2(x) - left) / (right - left)

    def at_y(y):
        return TOP + inner_height * (1 - y / y_ticks[-1])

    def text(x, y, words, size=12, anchor="middle", colour="#333", extra=""):
        return (f'<text x="{x:.1f}" y="{y:.1f}" {FONT} font-size="{size}" text-anchor="{anchor}" '
                f'fill="{colour}"{extra}>{escape(words)}</text>')

    def rule(x1, y1, x2, y2, colour, extra=""):
        return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"'
                f'{extra}/>')

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(title)}">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
           text(LEFT, 26, title, 16, "start", "#111"), text(LEFT, 46, note, 12, "start", "#666")]
    for y in y_ticks:
        out += [rule(LEFT, at_y(y), WIDTH - RIGHT, at_y(y), "#e3e3e3"),
                text(LEFT - 8, at_y(y) + 4, f"{y:g}", anchor="end")]
    free_from = 0  # where the next label along x has room
    for x in xs:
        out.append(rule(at_x(x), HEIGHT - BOTTOM, at_x(x), HEIGHT - BOTTOM + 5, "#999"))
        if at_x(x) >= free_from:
            out.append(text(at_x(x), HEIGHT - BOTTOM + 20, f"{x:g}"))
            free_from = at_x(x) + 36
    middle = TOP + inner_height / 2
    out += [text(LEFT + inner_width / 2, HEIGHT - 12, x_name),
            text(18, middle, y_name, extra=f' transform="rotate(-90 18 {middle:.1f})"')]
    ends = {name: points[max(points)] for name, points in lines.items()}
    if reference:
        y, name = reference
        out.append(rule(LEFT, at_y(y), WIDTH - RIGHT, at_y(y), "#666", ' stroke-dasharray="5 4"'))
        ends[name] = y
    for (name, points), colour in zip(lines.items(), COLOURS):
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in sorted(points.items()))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{colour}">'
                f'<title>{escape(name)}, {x:g}: {y:.4g}</title></circle>' for x, y in points.items()]
    colours = dict(zip(lines, COLOURS))
    heights = place_labels([at_y(y) + 4 for y in ends.values()], 15)
    out += [text(WIDTH - RIGHT + 10, height, name, anchor="start", colour=colours.get(name, "#666"))
            for name, height in zip(ends, heights)]
    return "\n".join(out) + "\n</svg>\n"


def gemm_charts(rows, note):
    """{file name: SVG} of each N x K, speeds over the vendor's FP16 GEMM of the same run."""
    shapes = collections.defaultdict(lambda: collections.defaultdict(dict))
    for row in rows:
        size = re.fullmatch(r"(\d+)x(\d+) M (\d+)", row["problem"])
        if not size or "x_fp16" not in row:
            continue
        rows_columns, tokens = f"{size[1]}x{size[2]}", int(size[3])
        shapes[rows_columns][row["group"]][tokens] = row["x_fp16"]
        for name in ("int8", "fp8"):
            if f"us_{name}" in row:
                vendor = shapes[rows_columns][f"vendor {name.upper()}"]
                vendor.setdefault(tokens, row["us_fp16"] / row[f"us_{name}"])
    charts = {}
    for shape, lines in shapes.items():
        if max(len(points) for points in lines.values()) >= 3:
            lines = dict(sorted(lines.items(), key=lambda line: line[0].startswith("vendor")))
            title = "GEMM {} x {}: times as fast as FP16".format(*shape.split("x"))
            charts[f"gemm-{shape}.svg"] = line_chart(
                title, note, "tokens", "speed over the vendor's FP16", lines, (1, "vendor FP16"))
    return charts


def attention_charts(rows, note):
    """The paper's case: decode attention at 1024 tokens, by number of sequences and cache."""
    lines = collections.defaultdict(dict)
    for row in rows:
        case = re.fullmatch(r"(\d+) sequences of 1024, 32/32 heads", row["problem"])
        if case and row["group"] == "attention":
            lines["INT4 cache"][int(case[1])] = row["us_median"]
            lines["INT8 cache"][int(case[1])] = row["us_int8_cache"]
            lines["F16 cache"][int(case[1])] = row["us_f16_cache"]
    if len(lines["INT4 cache"]) < 3:
        return {}
    return {"attention.svg": line_chart("Decode attention, 1024 tokens behind, 32 heads of 128", note,
                                        "sequences", "microseconds a layer", dict(lines))}


def decode_charts(runs, note):
    """{file name: SVG} of each shape, milliseconds of a step by number of sequences."""
    shapes = collections.defaultdict(lambda: collections.defaultdict(dict))
    for run in runs:
        if run["generate_tokens_per_s"] > 0:
            shape, _, recipe = run["model"].partition(" ")
            name = f"{recipe}, {run['kv'].split()[0]} cache"
            shapes[(shape, run["depth"])][name][run["batch"]] = (
                1e3 * run["batch"] / run["generate_tokens_per_s"])
    return {f"decode-{shape}.svg": line_chart(
                f"Decode step of {shape}'s shape, {depth} tokens behind", note, "sequences",
                "milliseconds a step", dict(lines))
            for (shape, depth), lines in shapes.items()
            if max(len(points) for points in lines.values()) >= 3}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="where the SVG files go")
    parser.add_argument("files", nargs="+", type=pathlib.Path, help="JSON of bench kernels and model")
    parser.add_argument("--note", default="", help="conditions, behind the card's name in each plot")
    arguments = parser.parse_args()
    rows, runs, device = [], [], ""
    for path in arguments.files:
        document = json.loads(path.read_text())
        if "rows" in document:
            rows += document["rows"]
            device = device or document["device"]
        else:
            runs += document.get("runs", [document])
            device = device or runs[-1]["device"].removeprefix("cuda ")
    note = ", ".join(part for part in (device, arguments.note) if part)
    charts = {**gemm_charts(rows, note), **attention_charts(rows, note), **decode_charts(runs, note)}
    if not charts:
        parser.error("nothing to plot: too few sizes in these files")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, svg in charts.items():
        (arguments.folder / name).write_text(svg)
        print(arguments.folder / name)


if __name__ == "__main__":
    main()
