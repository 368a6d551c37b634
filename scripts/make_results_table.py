"""Turn the runs of scripts/run_sst2.py into a Markdown table; scripts/update_readme.py puts it into the README.

Speed is measured once per student depth (all students of a depth have the same shape), with the teacher
interleaved: run `python scripts/make_results_table.py RUNS --measure` on a quiet machine first.

    python scripts/make_results_table.py runs/sst2_sentences --out docs/results_sst2_sentences.md
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from table_cells import spread

from lit_compress.files import read_json_lines

ORDER = (
    "finetune_baseline",
    "finetune_copies",
    "soft_targets",
    "distilbert_task",
    "pkd_skip",
    "pkd_last",
    "tinybert_task",
    "minilm",
)


def collect(runs: Path) -> dict[tuple[int, str], list[dict[str, Any]]]:
    """Finished runs by (depth, recipe): dev and test accuracy and the model folder."""
    cells: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for metrics in sorted(runs.glob("*/test_metrics.json")):
        name = metrics.parent.name
        manifest = json.loads((metrics.parent / "model" / "lit_compress.json").read_text())
        recipe, depth = (
            ("teacher", 6) if name == "teacher" else (name.split("-")[0], int(name.split("-")[1][:-1]))
        )
        cells[depth, recipe].append(
            {
                "dev": manifest["metrics"]["val/accuracy"],
                "test": json.loads(metrics.read_text())["test/accuracy"],
                "folder": metrics.parent / "model",
                "method": manifest["method"],
            }
        )
    if (6, "teacher") not in cells:
        raise SystemExit(f"Expected a finished teacher in {runs / 'teacher'}; run scripts/run_sst2.py first.")
    return cells


def measure(runs: Path, cells: dict[tuple[int, str], list[dict[str, Any]]]) -> None:
    """Benchmark one student of every depth beside the teacher, into RUNS/speed-<depth>L.jsonl."""
    for depth in sorted({d for d, recipe in cells if recipe != "teacher"}, reverse=True):
        folder = next(
            rows[0]["folder"] for (d, recipe), rows in cells.items() if d == depth and recipe in ORDER
        )
        out = runs / f"speed-{depth}L.jsonl"
        out.unlink(missing_ok=True)
        against = f"--against={runs / 'teacher' / 'model'}"
        command = [sys.executable, "-m", "lit_compress", "benchmark", str(folder), against, f"--out={out}"]
        subprocess.run(command, check=True)


def speeds(runs: Path) -> dict[int, dict[str, Any]]:
    """Benchmark rows by depth; the teacher's come from the first session."""
    found: dict[int, dict[str, Any]] = {}
    for file in sorted(runs.glob("speed-*L.jsonl")):
        for row in read_json_lines(file):
            found.setdefault(6 if row["role"] == "teacher" else int(file.stem.split("-")[1][:-1]), row)
    return found


def table(runs: Path) -> str:
    """The Markdown table."""
    cells, speed = collect(runs), speeds(runs)
    header = "| model | method | seeds | parameters | size | CPU latency, batch 1 | speed-up | dev | test |"
    lines = [header, "|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    order = ["teacher", *ORDER]
    for (depth, _), rows in sorted(cells.items(), key=lambda c: (-c[0][0], order.index(c[0][1]))):
        name = "teacher, 6 layers" if depth == 6 else f"student, {depth} layers"
        dev, test = spread([r["dev"] for r in rows]), spread([r["test"] for r in rows])
        figures = " | ".join(_speed(speed.get(depth)))
        lines.append(f"| {name} | {rows[0]['method']} | {len(rows)} | {figures} | {dev} | {test} |")
    return "\n".join(lines) + "\n\n" + _protocol(speed)


def _speed(row: dict[str, Any] | None) -> tuple[str, str, str, str]:
    if row is None:
        return "–", "–", "–", "–"
    faster = "1×"
    if row["role"] != "teacher":
        ratio = row["ratio"]["cpu_latency"]
        faster = f"{1 / ratio['median']:.2f}× ({1 / ratio['high']:.2f}–{1 / ratio['low']:.2f})"
    latency = f"{row['cpu']['latency_ms']['p50']:.1f} ms"
    return f"{row['params'] / 1e6:.1f} M", f"{row['bytes'] / 1e6:.1f} MB", latency, faster


def _protocol(speed: dict[int, dict[str, Any]]) -> str:
    text = (
        "Accuracy in percent, mean ± standard deviation over seeds; checkpoints are selected on dev, test is "
        "evaluated once, in float32. "
    )
    if speed:
        row = next(iter(speed.values()))
        where = row["environment"]
        text += (
            f"Latency: median over the real length distribution in float32 eager PyTorch {where['torch']}, "
            f"{row['protocol']['threads']} thread ({row['protocol']['clock']} clock), {where['cpu']}; the speed-up is "
            "the median of per-round ratios with its 95 % interval."
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder that scripts/run_sst2.py filled")
    parser.add_argument("--measure", action="store_true", help="measure speed first, one student per depth")
    parser.add_argument("--out", type=Path, help="write the table to this file")
    args = parser.parse_args()
    if args.measure:
        measure(args.runs, collect(args.runs))
    text = table(args.runs)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
