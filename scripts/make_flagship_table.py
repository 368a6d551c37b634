"""Turn the folders of scripts/run_flagship.py into a Markdown table: asked against achieved, on dev and on test.

python scripts/make_flagship_table.py --runs runs/flagship_sst2 --out docs/flagship_sst2.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from run_flagship import WISHES

from lit_compress.benchmark.folders import weight_bytes
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.files import read_json_lines


def collect(runs: Path) -> dict[str, dict[str, Any]]:
    """Everything about every finished folder, in the order of the wishes."""
    found = {}
    for wish in WISHES:
        for folder in sorted(runs.glob(f"{wish}-seed*")):
            if (folder / "outcome.json").is_file():
                found[folder.name] = {
                    "wish": wish,
                    "outcome": json.loads((folder / "outcome.json").read_text()),
                    "plan": json.loads((folder / "plan.json").read_text()),
                    "dev": read_json_lines(folder / "results.jsonl"),
                    "test": read_json_lines(folder / "test.jsonl"),
                }
    if not found:
        raise SystemExit(
            f"Expected finished folders in {runs} but found none; run scripts/run_flagship.py first."
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


def line(name: str, found: dict[str, Any], teacher_bytes: int) -> str:
    """One row of the table."""
    outcome, wish = found["outcome"], WISHES[found["wish"]]
    row = next(
        row
        for row in reversed(found["dev"])
        if row["role"] == "student" and row["runtime"] == outcome["runtime"]
    )
    kept = outcome["quality_kept"]
    ratio, same = row["ratio"]["cpu_latency"], outcome["same_runtime"]
    test = kept_on_test(found)
    on_test = f"{100 * test[0] / test[1]:.1f} % ({100 * test[0]:.1f} of {100 * test[1]:.1f})" if test else "–"
    size, limit = outcome["bytes"] / 1e6, wish.size_mb_of(teacher_bytes)
    cells = [
        name.replace("_", " "),
        f"{100 * kept:.1f} % {_mark(kept >= wish.quality)} (≥ {100 * wish.quality:g} %)",
        on_test,
        f"{outcome['speedup']:.1f}× ({1 / ratio['high']:.1f}–{1 / ratio['low']:.1f}) "
        f"{_mark(outcome['speedup'] >= wish.speedup)} (≥ {wish.speedup:g}×)",
        f"{same[0]:.1f}× ({same[1]:.1f}–{same[2]:.1f}) {_mark(same[0] >= wish.bought)} (≥ {wish.bought:g}×)"
        if same
        else "–",
        f"{size:.2f} MB {_mark(size <= limit)} (≤ {limit:.2f})",
        f"{row['cpu']['latency_ms']['p50']:.2f} ms",
        outcome["runtime"],
    ]
    return f"| {' | '.join(cells)} |"


def _mark(met: bool) -> str:
    return "✓" if met else "✗"


def page(found: dict[str, dict[str, Any]], teacher_bytes: int, title: str) -> str:
    """The page."""
    first = next(iter(found.values()))
    base = next(row for row in first["dev"] if row["is_baseline"])
    quality = base["quality"]
    head = "wish | kept on dev | kept on test | speed-up | over the teacher in the same runtime | size with tokenizer"
    rows = [line(name, one, teacher_bytes) for name, one in found.items()]
    return "\n".join(
        [
            f"# {title}\n",
            f"One `lit-compress compress` per row, from the fine-tuned teacher ({quality['metric']} "
            f"{100 * quality['value']:.1f} on dev, {teacher_bytes / 1e6:.1f} MB, "
            f"{base['cpu']['latency_ms']['p50']:.1f} ms in {BASELINE_RUNTIME}). Everything is chosen on dev; test is "
            "evaluated once, in the runtime named. ✓ and ✗ hold each figure against what was asked for. Speed: median "
            "text, one at a time, one thread, in turns with the teacher in eager float32, with the 95 % interval.\n",
            f"| {head} | median text | runtime |",
            "|---|--:|--:|--:|--:|--:|--:|---|",
            *rows,
            *_words(found),
            "\nMade by `python scripts/run_flagship.py`, then `scripts/make_flagship_table.py`.\n",
        ]
    )


def _words(found: dict[str, dict[str, Any]]) -> list[str]:
    """What was added to the recipes of the fits."""
    added = {name.replace("_", " "): one["plan"]["request"]["words"] for name, one in found.items()}
    told = [f"{name}: `{' '.join(words)}`" for name, words in added.items() if words]
    return [f"\nAdded to the recipe: {'; '.join(told)}."] if told else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True, help="where run_flagship.py put the folders")
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's model folder")
    parser.add_argument("--title", default="The flagship", help="of the page (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the page to this file")
    args = parser.parse_args()
    text = page(collect(args.runs), weight_bytes(args.teacher), args.title)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
