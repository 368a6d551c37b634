"""What the benchmarks of callbacks share: the same student, trained plainly and with a callback, in turns.

As in scripts/bench_training.py, whose workers are used, every variant trains in a clean process of its own, the
variants take turns on the same batches, and a figure is the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_pages import own_records, write_page
from bench_training import (
    Group,
    Series,
    Variant,
    measure,
    progress,
    table,
    write_sentences,
    write_teacher,
)

from lit_compress.benchmark.environment import describe_environment, load_average
from lit_compress.benchmark.results import append_rows


@dataclass(frozen=True)
class Bench:
    """One page.

    Args:
        name: Name of the script, of the folder below runs/ and of the page below docs/.
        title: Headline of the page.
        target: What is asked for, in words.
        groups: Everything that can be measured.
        help: What the command says about itself.
    """

    name: str
    title: str
    target: str
    groups: dict[str, Group]
    help: str


def with_callback(name: str, callback: str, limit: float | None, **arguments: Any) -> Variant:
    """Return a variant that trains with a callback of the library."""
    return Variant(name, {"callback": [callback, arguments]}, limit)


def page(bench: Bench, args: argparse.Namespace, records: Sequence[dict[str, Any]]) -> list[str]:
    """Return the blocks of the document."""
    facts, clock = records[-1]["environment"], "processor time" if args.threads == 1 else "wall time"
    loads = [record["load"] for record in records if record["load"] is not None]
    head = (
        f"# {bench.title}\n\n"
        f"Made by `scripts/{bench.name}.py`, see `--help`. Times are medians of the rounds, a ratio is the median of "
        f"the per-round ratios with p10–p90, in {clock}. Target: {bench.target}.\n\n"
        f"- Machine: {facts['cpu']}, {args.threads} thread(s), load {min(loads, default=0):.1f}–"
        f"{max(loads, default=0):.1f} before a group\n"
        f"- Software: Python {facts['python']}, torch {facts['torch']}, transformers {facts['transformers']}, "
        f"lit-compress {facts['lit_compress']}\n"
        f"- Student: {args.depth} layers, width 384; batch size {args.batch_size}, sentences of at most 128 tokens; "
        f"{args.steps} steps per round, {args.rounds} rounds after one that does not count\n"
    )
    parts = []
    for record in records:
        group = bench.groups[record["group"]]
        series = [Series(**found) for found in record["series"]]
        parts.append(f"## {group.title}\n\n{group.about}\n\n{table(group, series)}")
    return [head, *parts]


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return what must be equal for groups to stand on one page."""
    return {key: getattr(args, key) for key in ("depth", "batch_size", "threads", "steps", "rounds")}


def read(path: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the groups that are there, measured on this machine with these settings."""
    records = own_records(path, lambda record: record["environment"])
    if any(record["settings"] != settings(args) for record in records):
        raise SystemExit(
            f"Expected groups with the settings of this command in {path} but got others; delete it, or choose another "
            "--runs-dir."
        )
    return records


def arguments(bench: Bench, words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=bench.help, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder with train.tsv (default: random sentences as long as SST-2's)")
    parser.add_argument("--text", default="sentence", help="text column of train.tsv (default: %(default)s)")
    parser.add_argument("--teacher", help="fine-tuned model folder (default: a small encoder, random head)")
    parser.add_argument("--groups", default=",".join(bench.groups), help="what to measure, comma-separated")
    parser.add_argument("--rounds", type=int, default=10, help="rounds that count (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps per round (default: %(default)s)")
    parser.add_argument("--depth", type=int, default=6, help="layers of the student (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows per batch (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a variant (default: %(default)s)")
    parser.add_argument("--runs-dir", default=f"runs/{bench.name}", help="default: %(default)s")
    parser.add_argument("--out", default=f"docs/{bench.name}.md", help="the page (default: %(default)s)")
    args = parser.parse_args(words)
    unknown = set(args.groups.split(",")) - set(bench.groups)
    if unknown:
        parser.error(f"Expected groups among {', '.join(bench.groups)} but got {', '.join(sorted(unknown))}.")
    return args


def main(bench: Bench) -> None:
    """Measure what is missing, and write the page."""
    args = arguments(bench)
    out, file = Path(args.out), Path(args.runs_dir) / "groups.jsonl"
    records = read(file, args)
    missing = [name for name in args.groups.split(",") if name not in {r["group"] for r in records}]
    with tempfile.TemporaryDirectory() as temporary:
        common: dict[str, Any] = {}
        if missing:
            teacher = args.teacher or write_teacher(Path(temporary))
            data = args.data or write_sentences(Path(temporary), teacher)
            with (Path(data) / "train.tsv").open(encoding="utf-8") as lines:
                available = sum(1 for _ in lines) - 1
            common = {"data": str(Path(data).absolute()), "teacher": str(Path(teacher).absolute())}
            common |= {"text": args.text, "cache_dir": temporary, "available": available, "layers": "first_k"}
            common |= {key: getattr(args, key) for key in ("depth", "batch_size", "threads")}
        for name in missing:
            progress(bench.groups[name].title)
            load = load_average()
            series = [vars(found) for found in measure(bench.groups[name], common, args.steps, args.rounds)]
            record = {"group": name, "settings": settings(args), "load": load, "series": series}
            append_rows(file, [{**record, "environment": describe_environment()}])
            records = read(file, args)
            progress(f"{name} is in {file}")
    write_page(out, page(bench, args, records))
    print(out, file=sys.stderr)
