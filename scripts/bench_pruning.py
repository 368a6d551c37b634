"""Measure what pruning adds to a training step, and write docs/bench_pruning.md.

A student with the layers of the small encoder is fine-tuned on labels, plainly and with a pruning callback. As in
scripts/bench_training.py, whose workers this script uses, every variant trains in a clean process of its own, the
variants take turns on the same batches, and a figure is the median of the ratios of the rounds. Pruning is under way
in every round: masks are decided every 10 steps, gates are drawn in every step.

With one thread (the default) processor time is counted; pin the script to one core all the same:

    taskset -c 0 python scripts/bench_pruning.py
    python scripts/bench_pruning.py --data DIR --teacher FOLDER --rounds 20

What is measured is appended to a file below --runs-dir group by group; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
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

SPARSITY = {"sparsity": 0.75}
#: At most this ratio to plain fine-tuning.
LIMIT = 1.15


def pruned(name: str, callback: str, limit: float | None = LIMIT, **arguments: Any) -> Variant:
    """Return a variant that prunes."""
    return Variant(name, {"pruning": [callback, {"target": SPARSITY, **arguments}]}, limit)


def groups() -> dict[str, Group]:
    """Return everything that can be measured."""
    plain = Variant("`FineTuning`", {})
    units = ["head", "neuron"]
    return {
        "gates": Group(
            "Hard-concrete gates",
            "time",
            "Augmented Lagrangian towards a sparsity of 75 %.",
            (
                plain,
                pruned("`L0Pruning`, heads and neurons", "L0Pruning", structures=units),
                pruned(
                    "`L0Pruning`, CoFi's structures",
                    "L0Pruning",
                    structures=["head", "neuron", "attention", "feed_forward", "hidden"],
                ),
                pruned("`L0Pruning`, factorised (FLOP)", "L0Pruning", None, structures=["rank"]),
            ),
        ),
        "movement": Group(
            "Movement",
            "time",
            "Learned scores, with an optimizer of their own; hard top-v masks.",
            (
                plain,
                pruned("single weights", "Pruning", structure="weight", score="Movement", scope="local"),
                pruned("blocks of 32 × 32", "Pruning", structure="block", score="Movement", block=[32, 32]),
                pruned("heads and neurons", "Pruning", structure=units, score="Movement"),
            ),
        ),
        "scores": Group(
            "Other scores",
            "time",
            "Magnitude looks at the weights when masks are decided, Taylor at the gradient of every step.",
            (
                plain,
                pruned("magnitude, single weights", "Pruning", structure="weight", score="Magnitude"),
                pruned("magnitude, heads and neurons", "Pruning", structure=units, score="Magnitude"),
                pruned("Taylor, heads and neurons", "Pruning", structure=units, score="Taylor"),
            ),
        ),
    }


def page(args: argparse.Namespace, records: Sequence[dict[str, Any]]) -> list[str]:
    """Return the blocks of the document."""
    facts, clock = records[-1]["environment"], "processor time" if args.threads == 1 else "wall time"
    loads = [record["load"] for record in records if record["load"] is not None]
    head = (
        "# What pruning adds to a training step\n\n"
        "Made by `scripts/bench_pruning.py`, see `--help`. Times are medians of the rounds, a ratio is the median of "
        f"the per-round ratios with p10–p90, in {clock}. Target: at most {LIMIT:.2f}× for hard-concrete gates and "
        "movement.\n\n"
        f"- Machine: {facts['cpu']}, {args.threads} thread(s), load {min(loads, default=0):.1f}–"
        f"{max(loads, default=0):.1f} before a group\n"
        f"- Software: Python {facts['python']}, torch {facts['torch']}, transformers {facts['transformers']}, "
        f"lit-compress {facts['lit_compress']}\n"
        f"- Student: {args.depth} layers, width 384; batch size {args.batch_size}, sentences of at most 128 tokens; "
        f"{args.steps} steps per round, {args.rounds} rounds after one that does not count\n"
    )
    parts = []
    for record in records:
        group = groups()[record["group"]]
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


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder with train.tsv (default: random sentences as long as SST-2's)")
    parser.add_argument("--text", default="sentence", help="text column of train.tsv (default: %(default)s)")
    parser.add_argument("--teacher", help="fine-tuned model folder (default: a small encoder, random head)")
    parser.add_argument("--groups", default=",".join(groups()), help="what to measure, comma-separated")
    parser.add_argument("--rounds", type=int, default=10, help="rounds that count (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps per round (default: %(default)s)")
    parser.add_argument("--depth", type=int, default=6, help="layers of the student (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows per batch (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a variant (default: %(default)s)")
    parser.add_argument("--runs-dir", default="runs/bench_pruning", help="default: %(default)s")
    parser.add_argument("--out", default="docs/bench_pruning.md", help="the page (default: %(default)s)")
    args = parser.parse_args(words)
    unknown = set(args.groups.split(",")) - set(groups())
    if unknown:
        parser.error(f"Expected groups among {', '.join(groups())} but got {', '.join(sorted(unknown))}.")
    return args


def main() -> None:
    args = arguments()
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
            progress(groups()[name].title)
            load = load_average()
            series = [vars(found) for found in measure(groups()[name], common, args.steps, args.rounds)]
            record = {"group": name, "settings": settings(args), "load": load, "series": series}
            append_rows(file, [{**record, "environment": describe_environment()}])
            records = read(file, args)
            progress(f"{name} is in {file}")
    write_page(out, page(args, records))
    print(out, file=sys.stderr)


if __name__ == "__main__":
    main()
