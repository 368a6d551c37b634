"""Turn the cells of scripts/run_ablation.py into a table: each method alone, each pair, all three, and a chain.

`--measure` first times every cell in eager float32 and in integers, in turns with the eager float32 teacher; run it on
a quiet machine. What was not trained with rounding is rounded by the runtime itself. It goes on where it was stopped.

    python scripts/make_ablation_table.py --measure --out docs/ablation.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench_pages import write_page
from run_ablation import CELLS, SPEEDUP
from table_cells import quality_of, times_faster

from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.files import read_json_lines

INTEGERS = "onnx-int8"
LABELS = {
    "teacher": "the teacher",
    "distil": "distillation (2 of 6 blocks)",
    "prune": "pruning",
    "qat": "rounding",
    "distil_prune": "distillation + pruning",
    "distil_qat": "distillation (2 of 6 blocks) + rounding",
    "prune_qat": "pruning + rounding",
    "distil_prune_qat": "**all three in one fit**",
    "chain": "distillation + pruning, then rounding in a second fit",
}


def collect(runs: Path, teacher: Path) -> dict[str, dict[str, Any]]:
    """Quality and folder of every finished cell, the teacher first."""
    found = {"teacher": quality_of(teacher.parent)}
    for name in CELLS:
        folder = runs / f"{name}-seed0"
        if (folder / "test_metrics.json").is_file():
            found[name] = quality_of(folder)
    return found


def measure(cells: dict[str, dict[str, Any]], teacher: Path, out: Path) -> None:
    """Benchmark all cells beside the teacher."""
    folders = [str(cell["folder"]) for name, cell in cells.items() if name != "teacher"]
    words = ["benchmark", *folders, f"--against={teacher}", f"--runtimes={BASELINE_RUNTIME},{INTEGERS}"]
    subprocess.run([sys.executable, "-m", "lit_compress", *words, f"--out={out}"], check=True)


def rows_of(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The newest row of every run in every runtime."""
    rows = read_json_lines(out)
    return {(Path(row["run"]).resolve().name, row["runtime"]): row for row in rows if not row.get("error")}


def table(cells: dict[str, dict[str, Any]], rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    """The Markdown table."""
    head = [
        "method",
        "dev",
        "test",
        "speed-up in float32",
        f"in {INTEGERS}",
        f"dev in {INTEGERS}",
        "its size",
    ]
    lines = [f"| {' | '.join(head)} |", "|---|--:|--:|--:|--:|--:|--:|"]
    for name, cell in cells.items():
        run = cell["folder"].parent.resolve().name
        plain, whole = rows.get((run, BASELINE_RUNTIME)), rows.get((run, INTEGERS))
        figures = [f"{100 * cell['dev']:.1f}", f"{100 * cell['test']:.1f}", _speed(plain), _speed(whole)]
        figures.append(f"{100 * whole['quality']['value']:.1f}" if whole and whole.get("quality") else "–")
        figures.append(f"{whole['bytes'] / 1e6:.1f} MB" if whole else "–")
        lines.append(f"| {LABELS[name]} | {' | '.join(figures)} |")
    return "\n".join(lines)


def _speed(row: dict[str, Any] | None) -> str:
    if row is None or (row["ratio"] or {}).get("cpu_latency") is None:
        return "1×" if row is not None and row["is_baseline"] else "–"
    return times_faster(row["ratio"]["cpu_latency"])


def _missing(cells: dict[str, dict[str, Any]]) -> str:
    """Name the cells that were not run yet."""
    missing = [LABELS[name].strip("*") for name in CELLS if name not in cells]
    return f"Not run yet: {', '.join(missing)}.\n\n" if missing else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), help="cells (%(default)s)")
    parser.add_argument("--teacher", type=Path, default=Path("runs/sst2_sentences/teacher/model"))
    parser.add_argument("--measure", action="store_true", help="measure speed first")
    parser.add_argument("--out", type=Path, help="write the page to this file")
    args = parser.parse_args()
    cells, results = collect(args.runs, args.teacher), args.runs / "speed.jsonl"
    if args.measure:
        measure(cells, args.teacher, results)
    page = (
        "# Each method alone, each pair, all three\n\n"
        "On `sst2_sentences`, from one teacher, one seed per row. What is pruned aims at a structure that is "
        f"{SPEEDUP:g} times as fast in float32; keeping 2 of 6 blocks is as fast. Accuracy in percent; checkpoints are "
        "chosen on dev, test is evaluated once. Speed: median text, one thread, in turns with the teacher in eager "
        f"float32. In {INTEGERS} those that were not trained with rounding are rounded by the runtime; in float32 "
        "those that were compute their rounding on the way.\n\n"
        f"{table(cells, rows_of(results))}\n\n"
        f"{_missing(cells)}Made by `python scripts/run_ablation.py --data DIR`, then "
        "`scripts/make_ablation_table.py --measure`.\n"
    )
    print(page)
    if args.out:
        write_page(args.out, [page])


if __name__ == "__main__":
    main()
