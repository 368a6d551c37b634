"""Measure how far the benchmark can be trusted and what it costs, and write docs/bench_benchmark.md.

  budget   wall time of `lit-compress benchmark` on one model with its baseline: process starts, preparation with an
           empty cache, and quality included
  aa       a model beside itself, again and again: how often the verdict is "no difference"
  repeat   the same comparison again and again: how far its ratios scatter
  report   the page, from what the others have written

Every run is appended to a file below --runs-dir as soon as it is finished; the same command goes on from there. Run
them on a quiet machine, one after the other:

    python scripts/bench_benchmark.py budget --model runs/quickstart/student/model \
        --against runs/quickstart/teacher/model
    python scripts/bench_benchmark.py aa --runs 20 --model runs/quickstart/teacher/model
    python scripts/bench_benchmark.py repeat --runs 10 --model runs/quickstart/student/model \
        --against runs/quickstart/teacher/model
    python scripts/bench_benchmark.py report
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_pages import Record, own_records

from lit_compress.benchmark.candidates import find_models
from lit_compress.benchmark.environment import load_average
from lit_compress.benchmark.intervals import NO_DIFFERENCE, PROCESS_NOISE
from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.protocol import BASELINE_RUNTIME, Protocol
from lit_compress.benchmark.results import append_rows, to_row
from lit_compress.files import read_json_lines

BUDGET_SECONDS = 45.0
LARGEST_SPREAD = 0.08
AA_SHARE = 19 / 20


def budget(args: argparse.Namespace) -> None:
    """Time whole commands, each with empty caches."""
    for number in _missing(args, "budget"):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "results.jsonl"
            command = [
                sys.executable,
                "-m",
                "lit_compress",
                "benchmark",
                args.model,
                "--against",
                args.against,
            ]
            command += ["--out", str(out), *(["--data", args.data] if args.data else [])]
            load, started = load_average(), time.perf_counter()
            # Prepared models and tokens lie below the cache of the datasets library.
            subprocess.run(command, check=True, env={**os.environ, "HF_DATASETS_CACHE": folder})
            seconds = time.perf_counter() - started
            rows = read_json_lines(out)
        _write(args, "budget", number, seconds, load, rows[-1])


def aa(args: argparse.Namespace) -> None:
    """Measure a model beside itself."""
    args.against = args.model
    _compare(args, "aa")


def repeat(args: argparse.Namespace) -> None:
    """Measure a model beside another one."""
    _compare(args, "repeat")


def _compare(args: argparse.Namespace, kind: str) -> None:
    missing = _missing(args, kind)
    if not missing:
        return
    models = find_models([args.model], args.against, [BASELINE_RUNTIME], args.data, "validation")
    for number in missing:
        load, started = load_average(), time.perf_counter()
        protocol = Protocol(models.lengths, seed=number)
        # The quality is no part of the question, and takes half of the time.
        measured = measure(models.candidates[:1], models.baseline, protocol)[-1]
        _write(args, kind, number, time.perf_counter() - started, load, to_row(measured, args.model))


def _write(
    args: argparse.Namespace, kind: str, number: int, seconds: float, load: float | None, row: Record
) -> None:
    record = {
        "number": number,
        "model": args.model,
        "against": args.against,
        "seconds": round(seconds, 1),
        "load": load,
        "row": row,
    }
    append_rows(_file(args, kind), [record])
    if row.get("error"):
        raise SystemExit(f"{kind} {number} failed: {row['error']}")
    verdicts = {name: value["verdict"] for name, value in _ratios(row).items()}
    print(f"{kind} {number}: {seconds:.1f} s, {row['cpu']['rounds']} rounds, {verdicts}", flush=True)


def _file(args: argparse.Namespace, kind: str) -> Path:
    return Path(args.runs_dir) / f"{kind}.jsonl"


def _missing(args: argparse.Namespace, kind: str) -> list[int]:
    """Return the numbers of the runs that are not there yet; runs of another machine do not mix with these."""
    found = own_records(_file(args, kind), lambda record: record["row"]["environment"])
    records = [record for record in found if not record["row"].get("error")]
    for record in records:
        if record["model"] != args.model:
            raise SystemExit(
                f"Expected runs of {args.model} in {_file(args, kind)} but got {record['model']}; "
                "delete it, or choose another --runs-dir."
            )
    done = {record["number"] for record in records}
    return [number for number in range(args.runs) if number not in done]


def _ratios(row: Record) -> dict[str, Record]:
    return {name: value for name, value in row["ratio"].items() if isinstance(value, dict)}


# -- the page --------------------------------------------------------------------------------------


def page(found: dict[str, list[Record]]) -> str:
    """Return the page as Markdown.

    Args:
        found: Records by kind of run; kinds without runs are left out.
    """
    rows = [record["row"] for records in found.values() for record in records]
    environment, protocol = rows[-1]["environment"], rows[-1]["protocol"]
    lines = [
        "# How far the benchmark can be trusted, and what it costs",
        "Made by `scripts/bench_benchmark.py`, see `--help`; every run is a benchmark of its own with new processes.",
        f"- Machine: {environment['cpu']}, {environment['cores']} cores, {environment['memory_gb']} GB, load "
        f"{_load(found)} before a run\n"
        f"- Software: Python {environment['python']}, torch {environment['torch']}, transformers "
        f"{environment['transformers']}, lit-compress {environment['lit_compress']}\n"
        f"- Protocol: {BASELINE_RUNTIME}, {protocol['threads']} thread, {protocol['clock']}, "
        f"{len(protocol['lengths'])} texts of {min(protocol['lengths'])}–{max(protocol['lengths'])} tokens, at most "
        f"{protocol['rounds']} rounds or {protocol['max_seconds']:g} s; intervals are widened by "
        f"{PROCESS_NOISE:.0%} for what two processes of one model differ by",
    ]
    sections = {"budget": _budget, "aa": _aa, "repeat": _repeat}
    for kind, section in sections.items():
        lines += section(found[kind]) if found.get(kind) else []
    return "\n\n".join(lines) + "\n"


def _load(found: dict[str, list[Record]]) -> str:
    loads = [record["load"] for records in found.values() for record in records if record["load"] is not None]
    return f"{min(loads):.1f}–{max(loads):.1f}" if loads else "unknown"


def _budget(records: list[Record]) -> list[str]:
    seconds = [record["seconds"] for record in records]
    row = records[-1]["row"]
    rounds = sorted({record["row"]["cpu"]["rounds"] for record in records})
    judged = f"{row['quality']['n']} rows evaluated twice" if row["quality"] else "without quality"
    return [
        "## Cost of one comparison",
        f"`lit-compress benchmark` on {_named(row)} with its baseline, caches empty, {judged}: "
        f"**{max(seconds):.1f} s** at most in {len(seconds)} runs (median {np.median(seconds):.1f} s, "
        f"{' to '.join(map(str, dict.fromkeys((rounds[0], rounds[-1]))))} rounds). Target: at most "
        f"{BUDGET_SECONDS:g} s, {_met(max(seconds) <= BUDGET_SECONDS)}.",
    ]


def _aa(records: list[Record]) -> list[str]:
    table = ["| figure | no difference | p10–p90 of the ratio | furthest from 1 |", "|---|--:|--:|--:|"]
    for name, values in _by_figure(records).items():
        medians = np.array([value["median"] for value in values])
        equal = sum(value["verdict"] == NO_DIFFERENCE for value in values)
        low, high = np.percentile(medians, [10, 90])
        furthest = float(np.max(np.abs(np.log(medians))))
        table.append(
            f"| {name} | {equal} of {len(values)} | {low:.3f}–{high:.3f} | {np.expm1(furthest):.1%} |"
        )
    verdicts = [value["verdict"] for value in _by_figure(records)["cpu_latency"]]
    share = verdicts.count(NO_DIFFERENCE) / len(verdicts)
    return [
        "## A model beside itself",
        f'{_named(records[-1]["row"])}, {len(records)} runs. Target for `cpu_latency`: "no difference" in at least '
        f"{AA_SHARE:.0%}, {_met(share >= AA_SHARE)} ({share:.0%}).",
        "\n".join(table),
    ]


def _repeat(records: list[Record]) -> list[str]:
    table = ["| figure | ratio, median | p10–p90 | p90 − p10 | verdicts |", "|---|--:|--:|--:|---|"]
    for name, values in _by_figure(records).items():
        low, median, high = np.percentile([value["median"] for value in values], [10, 50, 90])
        verdicts = ", ".join(sorted({value["verdict"] for value in values}))
        cells = f"{median:.3f} | {low:.3f}–{high:.3f} | {(high - low) / median:.1%} | {verdicts}"
        table.append(f"| {name} | {cells} |")
    ratios = [value["median"] for value in _by_figure(records)["cpu_latency"]]
    low, median, high = np.percentile(ratios, [10, 50, 90])
    spread = (high - low) / median
    return [
        "## The same comparison again and again",
        f"{_named(records[-1]['row'])} against its baseline, {len(records)} runs. Target for `cpu_latency`: a spread "
        f"(p90 − p10, of the median) under {LARGEST_SPREAD:.0%}, {_met(spread < LARGEST_SPREAD)} ({spread:.1%}).",
        "\n".join(table),
    ]


def _by_figure(records: list[Record]) -> dict[str, list[Record]]:
    figures: dict[str, list[Record]] = {}
    for record in records:
        for name, value in _ratios(record["row"]).items():
            figures.setdefault(name, []).append(value)
    return figures


def _named(row: Record) -> str:
    shape = row["shape"]
    return f"{row['model']} ({shape['layers']} layers, width {shape['hidden']})"


def _met(met: bool) -> str:
    return "met" if met else "**not met**"


def report(args: argparse.Namespace) -> None:
    """Write the page."""
    found = {
        kind: [record for record in read_json_lines(_file(args, kind)) if not record["row"].get("error")]
        for kind in ("budget", "aa", "repeat")
    }
    if not any(found.values()):
        raise SystemExit(f"Expected runs in {args.runs_dir} but there are none; measure first, see --help.")
    Path(args.out).write_text(page(found), encoding="utf-8")
    print(args.out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs-dir", default="runs/bench_benchmark", help="where runs are kept (%(default)s)"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    defaults = {"budget": (budget, 3), "aa": (aa, 20), "repeat": (repeat, 10)}
    for name, (function, runs) in defaults.items():
        verb = verbs.add_parser(name, help=function.__doc__)
        verb.add_argument("--model", required=True, help="model folder")
        if name != "aa":
            verb.add_argument("--against", required=True, help="model folder of the baseline")
        verb.add_argument("--data", help="YAML file with a data section (default: that of the model's run)")
        verb.add_argument("--runs", type=int, default=runs, help="how often (%(default)s)")
        verb.set_defaults(function=function)
    verb = verbs.add_parser("report", help=report.__doc__)
    verb.add_argument("--out", default="docs/bench_benchmark.md", help="the page (%(default)s)")
    verb.set_defaults(function=report)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
