"""Turn the runs of scripts/run_pruning.py into a Markdown table and a plot.

Models from which something was cut out are measured in turns with the teacher; run `--measure` on a quiet machine
first. It goes on where it was stopped. Rows that the page has already and whose runs are not in the folder stay.

    python scripts/make_pruning_table.py --measure
    python scripts/make_pruning_table.py --out docs/results_pruning.md
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from run_pruning import METHODS
from table_cells import HEAD, cells, spread, times, times_faster, with_earlier_rows

from lit_compress.files import read_json_lines

#: Methods that leave zeros behind; their models are as large and as fast as the teacher.
ZEROS = ("magnitude", "movement", "taylor")
LABELS = {
    "flop": "FLOP",
    "l0": "L0",
    "l0_distilled": "L0 with distillation",
    "cofi": "CoFi with distillation",
    "taylor": "Taylor",
}


def label(method: str) -> str:
    """How a method is called in the table."""
    return LABELS.get(method, method)


def collect(runs: Path) -> dict[tuple[int, str], list[dict[str, Any]]]:
    """Finished runs by (percent asked, method)."""
    found: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for metrics in sorted(runs.glob("*/test_metrics.json")):
        folder = metrics.parent / "model"
        manifest = json.loads((folder / "lit_compress.json").read_text())
        method, percent, _ = metrics.parent.name.rsplit("-", 2)
        found[int(percent), method].append(
            {
                "dev": manifest["metrics"]["val/accuracy"],
                "test": json.loads(metrics.read_text())["test/accuracy"],
                "removed": manifest["pruning"]["encoder_sparsity"],
                "folder": folder,
            }
        )
    if not found:
        raise SystemExit(
            f"Expected finished runs in {runs} but found none; run scripts/run_pruning.py first."
        )
    return dict(sorted(found.items(), key=lambda cell: (cell[0][0], list(METHODS).index(cell[0][1]))))


def shrunk(found: dict[tuple[int, str], list[dict[str, Any]]]) -> list[Path]:
    """One model folder for every cell from which something was cut out."""
    return [rows[0]["folder"] for (_, method), rows in found.items() if method not in ZEROS]


def measure(found: dict[tuple[int, str], list[dict[str, Any]]], teacher: Path, out: Path) -> None:
    """Benchmark the shrunk models beside the teacher."""
    folders = [str(folder) for folder in shrunk(found)]
    words = ["benchmark", *folders, f"--against={teacher}", f"--out={out}"]
    subprocess.run([sys.executable, "-m", "lit_compress", *words], check=True)


def speeds(out: Path) -> dict[str, dict[str, Any]]:
    """Measured rows by the name of their run."""
    return {row["model"]: row for row in read_json_lines(out) if row["role"] != "teacher"}


def table(found: dict[tuple[int, str], list[dict[str, Any]]], measured: dict[str, dict[str, Any]]) -> str:
    """The Markdown table."""
    columns = (
        "asked",
        "method",
        "seeds",
        "encoder weights gone",
        "parameters",
        "size",
        "speed-up, batch 1",
        "32 at once",
    )
    header = f"| {' | '.join(columns)} | dev | test |"
    return "\n".join([header, "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|", *_lines(found, measured)])


def _lines(
    found: dict[tuple[int, str], list[dict[str, Any]]], measured: dict[str, dict[str, Any]]
) -> Iterator[str]:
    for (percent, method), rows in found.items():
        dev, test = (spread([row[split] for row in rows]) for split in ("dev", "test"))
        gone = f"{100 * statistics.fmean([row['removed'] for row in rows]):.1f} %"
        figures = " | ".join(_figures(measured.get(rows[0]["folder"].parent.name), method))
        yield f"| {percent} % | {label(method)} | {len(rows)} | {gone} | {figures} | {dev} | {test} |"


def _figures(row: dict[str, Any] | None, method: str) -> tuple[str, str, str, str]:
    if method in ZEROS:
        return "zeros", "zeros", "1×", "1×"
    if row is None:
        return "–", "–", "–", "–"
    ratio = row["ratio"]
    faster, many = times_faster(ratio["cpu_latency"]), times(ratio["cpu_throughput_32"])
    return f"{row['params'] / 1e6:.1f} M", f"{row['bytes'] / 1e6:.1f} MB", faster, many


def plot(table: str, file: Path) -> None:
    """Accuracy on dev over the share removed, one line per method."""
    import matplotlib.pyplot as plt

    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in table.splitlines()[HEAD:]:
        asked, method, *_, dev, _ = cells(line)
        points[method].append((float(asked.split()[0]), float(dev.split()[0])))
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for method in (label(name) for name in METHODS if label(name) in points):
        axes.plot(*zip(*points[method], strict=True), marker="o", label=method)
    axes.set(xlabel="encoder weights removed, %", ylabel="accuracy on dev, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/pruning"), help="run folders (%(default)s)")
    parser.add_argument("--teacher", type=Path, default=Path("runs/sst2_sentences/teacher/model"))
    parser.add_argument("--measure", action="store_true", help="measure speed first")
    parser.add_argument(
        "--out", type=Path, help="put the rows into the table of this file, and the plot beside it"
    )
    args = parser.parse_args()
    found, results = collect(args.runs), args.runs / "speed.jsonl"
    if args.measure:
        measure(found, args.teacher, results)
    text = table(found, speeds(results))
    if args.out and args.out.is_file():
        text = with_earlier_rows(text, args.out.read_text(encoding="utf-8"), key=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
        plot(text, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
