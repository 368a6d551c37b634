"""Draw what each stage of a `lit-compress compress` run did to quality, size and latency, for docs/how-it-works.md.

`--measure` first measures the models between the stages beside the original; it goes on where it was stopped.

    python scripts/make_how_it_works.py --run runs/flagship_sst2/main-seed0 --teacher runs/sst2/teacher/model --measure
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from lit_compress.benchmark.folders import weight_fingerprint
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.files import read_json_lines

BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
Row = dict[str, Any]


def steps(run: Path, teacher: Path, runtime: str) -> list[tuple[str, Row]]:
    """The models on the way, each with its row."""
    rows = [row for name in ("steps", "results") for row in read_json_lines(run / f"{name}.jsonl")]

    def find(model: str, where: str) -> Row | None:
        if not Path(model).is_dir():
            return None
        weights = weight_fingerprint(Path(model))
        found = [row for row in rows if (row["weights"], row["runtime"]) == (weights, where)]
        return next((row for row in reversed(found) if row.get("quality")), None)

    wanted = [
        ("the original", str(teacher), BASELINE_RUNTIME),
        ("words of the data", str(run / "teacher"), BASELINE_RUNTIME),
        ("smaller words", str(run / "start"), BASELINE_RUNTIME),
        (f"in {runtime}\n(the original)", str(teacher), runtime),
        (f"distilled, pruned, rounded,\nin {runtime}", str(run / "student" / "model"), runtime),
    ]
    return [(what, row) for what, model, where in wanted if (row := find(model, where)) is not None]


def measure(run: Path, teacher: Path) -> None:
    """Benchmark the models between the stages."""
    folders = [str(place) for name in ("teacher", "start") if (place := run / name).is_dir()]
    words = ["benchmark", *folders, f"--against={teacher}", f"--runtimes={BASELINE_RUNTIME}"]
    words += [f"--data={run / 'measure.yaml'}", f"--out={run / 'steps.jsonl'}"]
    if folders:
        subprocess.run([sys.executable, "-m", "lit_compress", *words], check=True)


def draw_steps(found: list[tuple[str, Row]], path: Path) -> None:
    """Three panels of bars: quality, size, latency.

    The latencies are that of the original times ratios to it: the machine was not as fast in all sessions.
    """
    original = found[0][1]["cpu"]["latency_ms"]["p50"]

    def latency(row: Row) -> float:
        return original * (1.0 if row["is_baseline"] else row["ratio"]["cpu_latency"]["median"])

    panels = (
        ("quality on dev, %", lambda row: 100 * row["quality"]["value"], BLUE, "{:.1f}"),
        ("size of the file, MB", lambda row: row["bytes"] / 1e6, RED, "{:.1f}"),
        ("median text, ms", latency, GREEN, "{:.2f}"),
    )
    figure, axes = plt.subplots(1, 3, figsize=(12, 0.75 * len(found) + 1.2), sharey=True)
    for axis, (title, value, colour, form) in zip(axes, panels, strict=True):
        values = [value(row) for _, row in found]
        bars = axis.barh([what for what, _ in found], values, color=colour)
        axis.bar_label(bars, labels=[form.format(one) for one in values], padding=3)
        axis.set_title(title)
        axis.set_xlim(0, 1.2 * max(values))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def draw_probes(run: Path, path: Path) -> None:
    """Speed-up of the shapes that were tried, with what was asked for and what was achieved."""
    plan, outcome = (json.loads((run / name).read_text()) for name in ("plan.json", "outcome.json"))
    figure, axis = plt.subplots(figsize=(7, 4.5))
    # The last ones were measured with as many blocks as the fit began with.
    probes = [one for one in plan["probes"] if one.get("blocks") == plan["probes"][-1].get("blocks")]
    for name, colour in zip(
        dict.fromkeys(one["runtime"] for one in probes), (BLUE, RED, GREEN), strict=False
    ):
        mine = [one for one in probes if one["runtime"] == name]
        axis.plot(
            [one["structural"] for one in mine],
            [one["speedup"] for one in mine],
            "o-",
            color=colour,
            label=name,
        )
        axis.fill_between(
            [one["structural"] for one in mine],
            [one["low"] for one in mine],
            [one["high"] for one in mine],
            color=colour,
            alpha=0.15,
        )
    asked = plan["request"]["wish"].get("speedup")
    if asked:
        axis.axhline(asked, color=GREY, linestyle="--", label=f"asked: {asked:g}×")
    axis.plot(
        plan["figures"]["structural"],
        outcome["speedup"],
        "*",
        markersize=16,
        color="black",
        label="the trained model",
    )
    axis.set(xscale="log", yscale="log", xlabel="times faster blocks, by the table of latencies")
    axis.set_ylabel("times faster than the original in float32 PyTorch")
    ticks = sorted({round(one["structural"], 1) for one in probes})
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_yticks([5, 10, 20, 50], ["5", "10", "20", "50"])
    axis.minorticks_off()
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def draw_fit(run: Path, path: Path) -> None:
    """The fit: speed-up of the structure and bits over the steps, and quality below."""
    logs = sorted((run / "student" / "logs").glob("version_*/metrics.csv"))
    rows = [row for log in logs for row in csv.DictReader(log.open())]

    def series(name: str) -> tuple[list[int], list[float]]:
        found = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
        return [step for step, _ in found], [value for _, value in found]

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5.5), sharex=True)
    above.plot(*series("compress/target_speedup"), color=GREY, linestyle="--", label="target")
    above.plot(*series("compress/speedup_table"), color=RED, label="structure, by the table")
    above.set_ylabel("times faster blocks")
    steps_at, rounding = series("compress/rounds")
    begun = next((step for step, on in zip(steps_at, rounding, strict=True) if on), None)
    for axis in (above, below):
        if begun is not None:
            axis.axvspan(begun, steps_at[-1], color=BLUE, alpha=0.08)
    if begun is not None:
        place = above.get_xaxis_transform()
        above.text(begun, 1.02, "values are rounded", transform=place, va="bottom", color=BLUE)
    metric = next(name for name in rows[0] if name.startswith("val/"))
    steps_val, values = series(metric)
    below.plot(steps_val, [100 * value for value in values], "o-", color=GREEN)
    below.set(xlabel="step", ylabel=f"{metric.removeprefix('val/')} on dev, %")
    above.legend(frameon=False, loc="lower right")
    for axis in (above, below):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished lit-compress compress")
    parser.add_argument("--teacher", type=Path, required=True, help="the model it began with")
    parser.add_argument("--measure", action="store_true", help="measure the models between the stages first")
    parser.add_argument("--out", type=Path, default=Path("docs/how-it-works"), help="pictures (%(default)s)")
    args = parser.parse_args()
    if args.measure:
        measure(args.run, args.teacher)
    args.out.mkdir(parents=True, exist_ok=True)
    runtime = json.loads((args.run / "outcome.json").read_text())["runtime"]
    draw_steps(steps(args.run, args.teacher, runtime), args.out / "steps.png")
    draw_probes(args.run, args.out / "probes.png")
    draw_fit(args.run, args.out / "fit.png")
    print(f"Pictures: {args.out}")


if __name__ == "__main__":
    main()
