r"""Turn the folders of scripts/run_flagship.py into a page: asked against achieved, and the front of it all.

Folders of fits with other words (`run_flagship.py --fit`) may lie in further places; all are told in one table. Rows
that the page has already, and whose folders are not there any more, stay in the table and in the picture.

    python scripts/make_flagship_table.py --runs runs/flagship_sst2 runs/flagship_sst2_one_pass \
        --teacher runs/sst2/teacher/model --out docs/flagship_sst2.md

Every fit is measured when it ends, in another hour than the others, and with the exporter of its day. Better than that,
measure all models by one command, on a machine that does nothing else, and give the rows:

    lit-compress benchmark runs/flagship_sst2*/*/student/model --against runs/sst2/teacher/model --runtimes onnx-int8 \
        --data runs/flagship_sst2/main_6x-seed0/measure.yaml --max-seconds 300 --out runs/flagship_sst2/together.jsonl
    python scripts/make_flagship_table.py … --together runs/flagship_sst2/together.jsonl
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench_pages import NOTES, write_page
from run_flagship import WISHES
from table_cells import HEAD, cells, with_earlier_rows

from lit_compress.benchmark.folders import weight_bytes
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.compress.outcome import times_as_fast
from lit_compress.compress.wish import speedup_of
from lit_compress.files import read_json_lines
from lit_compress.report.labels import place_labels


def collect(*places: Path) -> dict[str, dict[str, Any]]:
    """Everything about every finished folder, in the order of the wishes."""
    found = {}
    for wish in WISHES:
        for folder in (folder for runs in places for folder in sorted(runs.glob(f"{wish}-seed*"))):
            if (folder / "outcome.json").is_file():
                name = folder.name if folder.parent == places[0] else f"{folder.name}, {folder.parent.name}"
                found[name.replace("_", " ")] = {
                    "wish": wish,
                    "folder": folder,
                    "outcome": json.loads((folder / "outcome.json").read_text()),
                    "plan": json.loads((folder / "plan.json").read_text()),
                    "dev": read_json_lines(folder / "results.jsonl"),
                    "test": read_json_lines(folder / "test.jsonl"),
                }
    if not found:
        raise SystemExit(
            f"Expected finished folders in {places[0]} but found none; run scripts/run_flagship.py first."
        )
    return found


def kept_on_test(found: dict[str, Any]) -> tuple[float, float] | None:
    """Quality on test of the model in its runtime, and of the teacher in eager float32."""
    runtime = found["outcome"]["runtime"]
    small = [row for row in found["test"] if row["runtime"] == runtime and row["role"] == "student"]
    teacher = [row for row in found["test"] if row["is_baseline"]]
    if not small or not teacher:
        return None
    return small[-1]["quality"]["value"], teacher[-1]["quality"]["value"]


def put_together(found: dict[str, dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Give every model that was measured beside the others that row, and what it is over the teacher there."""
    for one in found.values():
        place, runtime = (one["folder"] / "student").resolve(), one["outcome"]["runtime"]
        twins = [other for other in rows if other["role"] == "teacher" and other["runtime"] == runtime]
        for row in rows:
            if Path(row["run"]).resolve() != place or row["runtime"] != runtime or row.get("error"):
                continue
            # The benchmark measures some models at a time, the teacher in the runtime in one of the groups. Every
            # group has the teacher in float32, which both are held against.
            twin = min(twins, key=lambda other: other["session"] != row["session"], default=None)
            one |= {"together": row, "same_runtime": times_as_fast(row, twin)}


def line(name: str, found: dict[str, Any], teacher_bytes: int) -> str:
    """One row of the table."""
    outcome, wish = found["outcome"], WISHES[found["wish"]]
    after_fit = next(
        row
        for row in reversed(found["dev"])
        if row["role"] == "student" and row["runtime"] == outcome["runtime"]
    )
    row = found.get("together", after_fit)
    kept = row["ratio"]["quality"]
    ratio, same = row["ratio"]["cpu_latency"], found.get("same_runtime", outcome["same_runtime"])
    speedup, shipped = speedup_of(row), outcome["bytes"] - after_fit["bytes"] + row["bytes"]
    test = kept_on_test(found)
    on_test = f"{100 * test[0] / test[1]:.1f} % ({100 * test[0]:.1f} of {100 * test[1]:.1f})" if test else "–"
    size, limit = shipped / 1e6, wish.size_mb_of(teacher_bytes)
    columns = [
        name,
        f"{100 * kept:.1f} % {_mark(kept >= wish.quality)} (≥ {100 * wish.quality:g} %)",
        on_test,
        f"{speedup:.1f}× ({1 / ratio['high']:.1f}–{1 / ratio['low']:.1f}) "
        f"{_mark(speedup >= wish.speedup)} (≥ {wish.speedup:g}×)",
        f"{same[0]:.1f}× ({same[1]:.1f}–{same[2]:.1f}) {_mark(same[0] >= wish.bought)} (≥ {wish.bought:g}×)"
        if same
        else "–",
        f"{size:.2f} MB {_mark(size <= limit)} (≤ {limit:.2f})",
        f"{row['cpu']['latency_ms']['p50']:.2f} ms",
        outcome["runtime"],
        "together" if "together" in found else "after its fit",
    ]
    return f"| {' | '.join(columns)} |"


def _mark(met: bool) -> str:
    return "✓" if met else "✗"


def table(found: dict[str, dict[str, Any]], teacher_bytes: int, earlier: str = "") -> str:
    """The table, with the rows of an earlier page that are not among those found."""
    head = "wish | kept on dev | kept on test | speed-up | over the teacher in the same runtime | size with tokenizer"
    rows = [line(name, one, teacher_bytes) for name, one in found.items()]
    new = "\n".join(
        [f"| {head} | median text | runtime | timed |", "|---|--:|--:|--:|--:|--:|--:|---|---|", *rows]
    )
    return with_earlier_rows(new, earlier, key=1)


def page(found: dict[str, dict[str, Any]], rows: str, teacher_bytes: int, title: str) -> str:
    """The page around a table."""
    first = next(iter(found.values()))
    base = next(row for row in first["dev"] if row["is_baseline"])
    quality = base["quality"]
    return "\n".join(
        [
            f"# {title}\n",
            f"One `lit-compress compress` per row, from the fine-tuned teacher ({quality['metric']} "
            f"{100 * quality['value']:.1f} on dev, {teacher_bytes / 1e6:.1f} MB, "
            f"{base['cpu']['latency_ms']['p50']:.1f} ms in {BASELINE_RUNTIME}). Everything is chosen on dev; test is "
            "evaluated once, in the runtime named. ✓ and ✗ hold each figure against what was asked for. Speed: median "
            "text, one at a time, one thread, in turns with the teacher in eager float32, with the 95 % interval; "
            f"{_told_of_times(found)}\n",
            rows,
            *_words(found),
            "\nMade by `python scripts/run_flagship.py`, then `scripts/make_flagship_table.py`.\n",
        ]
    )


def _told_of_times(found: dict[str, dict[str, Any]]) -> str:
    loads = [one["together"]["environment"]["load_before"] for one in found.values() if "together" in one]
    if not loads:
        return "each model when its fit had ended."
    busy = f"{min(loads):.1f}" if min(loads) == max(loads) else f"{min(loads):.1f} to {max(loads):.1f}"
    return (
        f"*together*: all models by one `lit-compress benchmark`, the machine's load {busy}; *after its fit*: by the "
        "command, when the fit had ended."
    )


def _words(found: dict[str, dict[str, Any]]) -> list[str]:
    """What was added to the recipes of the fits."""
    added = {name: one["plan"]["request"]["words"] for name, one in found.items()}
    told = [f"{name}: `{' '.join(words)}`" for name, words in added.items() if words]
    return [f"\nAdded to the recipe: {'; '.join(told)}."] if told else []


def points(
    found: dict[str, dict[str, Any]], rows: str, together: list[dict[str, Any]]
) -> list[tuple[str, float, float]]:
    """Name, speed-up and percent kept on dev of every row of the table and of the teacher in every runtime.

    The teacher's speed is of ``together`` where it was measured there.
    """
    named = []
    for row in map(cells, rows.splitlines()[HEAD:]):
        kept, speedup = (float(row[place].split()[0].strip("×")) for place in (1, 3))
        named.append((f"{row[0]}, {row[5].split(' ✓')[0].split(' ✗')[0]}", speedup, kept))
    teachers: dict[str, tuple[float, float]] = {}
    dev = (row for one in found.values() for row in one["dev"])
    for row in (row for row in [*dev, *together] if row["role"] == "teacher"):
        ratio = row["ratio"]
        if row["is_baseline"]:
            teachers[row["runtime"]] = 1.0, 100.0
        elif ratio.get("quality") is not None:
            teachers[row["runtime"]] = 1 / ratio["cpu_latency"]["median"], 100 * ratio["quality"]
    return named + [(f"teacher, {runtime}", *figures) for runtime, figures in teachers.items()]


def draw_front(all_points: list[tuple[str, float, float]], path: Path) -> None:
    """Quality over speed-up, with a line through what nothing else beats in both, and the wishes as stars."""
    import matplotlib.pyplot as plt

    all_points = sorted(all_points, key=lambda point: -point[1])
    front, best = [], 0.0
    for _, speedup, kept in all_points:
        if kept > best:
            best = kept
            front.append((speedup, kept))
    figure, axis = plt.subplots(figsize=(9, 5.5), layout="constrained")
    axis.plot(*zip(*front, strict=True), color="#999999", zorder=1)
    for name, speedup, kept in all_points:
        colour = "#0072B2" if name.startswith("teacher") else "#D55E00" if _is_named(name) else "#F5B895"
        axis.plot(speedup, kept, "o", color=colour)
    stars: dict[tuple[float, float], str] = {}
    for name, wish in WISHES.items():
        stars.setdefault((wish.speedup, 100 * wish.quality), f"asked: {name.replace('_', ' ')}")
    axis.plot(*zip(*stars, strict=True), "*", color="black", markersize=12)
    ticks = (1, 2, 5, 10, 20, 50, 100)
    axis.set(
        xscale="log", xlim=(0.8, 250), xlabel="times faster than the teacher in float32 PyTorch, one text"
    )
    axis.set_xticks(ticks, [f"{tick}×" for tick in ticks])
    axis.minorticks_off()
    axis.set_ylabel("of the teacher's quality on dev, %")
    axis.spines[["top", "right"]].set_visible(False)
    asked = [(name, *place) for place, name in stars.items()]
    named = [*asked, *sorted(all_points, key=lambda point: not _is_named(point[0]))]
    names = [name if _is_named(name) else "" for name, *_ in named]
    place_labels(axis, [(speedup, kept) for _, speedup, kept in named], names)
    figure.savefig(path, dpi=130)


def _is_named(name: str) -> bool:
    """Return whether a point has its name in the picture; rows of other places are pale dots, or names cover all."""
    return name.startswith(("asked", "teacher")) or name.count(",") == 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=Path, nargs="+", required=True, help="where run_flagship.py put the folders"
    )
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's model folder")
    parser.add_argument("--together", type=Path, help="rows of all models from one command; see above")
    parser.add_argument("--title", default="The flagship", help="of the page (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the page to this file")
    args = parser.parse_args()
    found = collect(*args.runs)
    together = read_json_lines(args.together) if args.together else []
    put_together(found, together)
    size = weight_bytes(args.teacher)
    earlier = (
        args.out.read_text(encoding="utf-8").partition(NOTES)[0] if args.out and args.out.is_file() else ""
    )
    rows = table(found, size, earlier)
    text = page(found, rows, size, args.title)
    if args.out:
        picture = args.out.with_suffix(".png")
        drawn = points(found, rows, together)
        draw_front(drawn, picture)
        text += f"\n![Quality over speed-up of every model]({picture.name})\n"
        if not all(_is_named(name) for name, *_ in drawn):
            text += "\nPale dots are the rows with a comma in their name.\n"
        write_page(args.out, [text])
    print(text)


if __name__ == "__main__":
    main()
