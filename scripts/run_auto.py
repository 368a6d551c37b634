"""Let `lit-compress auto` choose for several models under several wishes, and check what it chose.

The first search is killed as soon as some routes are judged, and started again. Whatever is below --runs is not done
again. Models are given by a name and their folder (with the run's config.yaml beside it); everything that is installed
is tried.

    python scripts/run_auto.py "PKD, 3 layers=runs/x/model" "CoFi, 75 %=runs/y/model" --out docs/auto.md
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench_pages import write_page
from table_cells import times_faster

from lit_compress.auto.goal import Goal
from lit_compress.auto.trial import FILE_NAME, read_records
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.quality import ROUNDING
from lit_compress.benchmark.results import FILE_NAME as RESULTS
from lit_compress.benchmark.results import read_results
from lit_compress.report.scale import put_on_one_scale

WISHES = (
    Goal(0.98),
    Goal(0.99, "size"),
    Goal(0.98, "memory", max_size_mb=30),
    Goal(0.99, "latency", max_size_mb=5),
)
#: The first search is killed when so many routes are judged.
KILLED_AFTER = 4
Row = dict[str, Any]


class Model(NamedTuple):
    """A model folder and what the page calls it."""

    name: str
    folder: Path


class Answer(NamedTuple):
    """What one search ended with: its exit status, and its last paragraph that says what was chosen and why."""

    status: int
    text: str


def model_of(word: str) -> Model:
    """Read `NAME=FOLDER`."""
    name, _, folder = word.rpartition("=")
    if not name or not (Path(folder) / "config.json").is_file():
        raise argparse.ArgumentTypeError(f"expected NAME=FOLDER with a config.json in it but got {word!r}")
    return Model(name, Path(folder))


def words_of(goal: Goal) -> list[str]:
    """The words of the command line of a wish."""
    return [*str(goal).split(), "--minimise", goal.minimise]


def search(model: Model, goal: Goal, out: Path, rounds: int, kill: bool) -> Answer:
    """Run one search to its end, unless its answer is there."""
    log = out / f"{'_'.join(words_of(goal)).replace('-', '').replace('.', '')}.txt"
    out.mkdir(parents=True, exist_ok=True)
    if not log.is_file():
        words = [sys.executable, "-m", "lit_compress", "auto", str(model.folder), *words_of(goal)]
        words += [f"--rounds={rounds}", f"--out={out}"]
        if kill and not (out / RESULTS).is_file():
            kill_when_judged(words, out)
        done = subprocess.run(
            words,
            env={**os.environ, "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        part = log.with_suffix(".part")
        part.write_text(f"{done.stdout}\n{done.returncode}\n", encoding="utf-8")
        part.rename(log)
    *lines, status = log.read_text(encoding="utf-8").strip().splitlines()
    told = [line for line in lines if " routes that fulfil " in line or "none of " in line]
    return Answer(int(status), told[-1] if told else lines[-1])


def kill_when_judged(words: list[str], out: Path) -> None:
    """Start a search, and kill it with everything it started when some routes are judged."""
    process = subprocess.Popen(
        words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and len(read_records(out / FILE_NAME)) < KILLED_AFTER:
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def rows_of(out: Path) -> dict[str, Row]:
    """Everything that is known of every route: its judgement, and its row where it was measured."""
    rows = [row for row in read_results(out / RESULTS) if not row.get("error")]
    measured = {row["runtime"]: row for row in put_on_one_scale(rows)}
    found = {}
    for record in read_records(out / FILE_NAME):
        found[record["route"]] = {**record, "row": measured.get(record["route"])}
    return found


def fulfils(goal: Goal, route: Row, original: Row) -> bool:
    """Whether a measured route has what is asked for, by its plain figures."""
    if route["row"] is None or route["quality"] is None:
        return False
    share = route["quality"]["value"] / original["quality"]["value"]
    return share >= goal.quality - ROUNDING and route["bytes"] <= 1e6 * (goal.max_size_mb or float("inf"))


def verdict(goal: Goal, routes: dict[str, Row], chosen: str | None) -> str:
    """Compare a choice with the figures: nothing that fulfils the wish may be better beyond the noise."""
    original = routes[BASELINE_RUNTIME]
    good = {name: route["row"] for name, route in routes.items() if fulfils(goal, route, original)}
    if chosen is None:
        return "yes" if not good else f"**NO: {', '.join(good)} fulfil it**"
    if chosen not in good:
        return "**NO: it does not fulfil the wish**"
    ranges = dict(zip(good, goal.ranges(list(good.values())), strict=True))
    better = [name for name, (_, _, high) in ranges.items() if high < ranges[chosen][1]]
    return "yes" if not better else f"**NO: better is {', '.join(better)}**"


def table(routes: dict[str, Row]) -> str:
    """What was found of every route."""
    original = routes[BASELINE_RUNTIME]
    lines = ["| route | MB | MB of memory | ms, median text | faster than eager | accuracy | kept | out |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|---|")
    for name, route in routes.items():
        size = f"{route['bytes'] / 1e6:.1f}" if route["bytes"] else "–"
        quality = route["quality"]
        accuracy = f"{100 * quality['value']:.1f}" if quality else "–"
        kept = f"{100 * quality['value'] / original['quality']['value']:.1f} %" if quality else "–"
        line = f"| {name} | {size} | {speed(route['row'])} | {accuracy} | {kept} | {why_out(route)} |"
        lines.append(line)
    return "\n".join(lines)


def why_out(route: Row) -> str:
    """What kept a route from being measured; nothing where it was."""
    if route["failure"]:
        return str(route["failure"][0])
    return "" if route["row"] else "dropped before it was measured"


def speed(row: Row | None) -> str:
    """Memory, milliseconds and the speed-up, as three cells."""
    if row is None:
        return "– | – | –"
    latency, ratio = row["cpu"]["latency_ms"], row["ratio"].get("cpu_latency")
    low, high = latency["p50_spread"]
    faster = "1×" if row["is_baseline"] or ratio is None else times_faster(ratio)
    return f"{row['cpu']['rss_mb']:.0f} | {latency['p50']:.2f} ({low:.2f}–{high:.2f}) | {faster}"


def section(model: Model, answers: dict[Goal, Answer], routes: dict[str, Row]) -> str:
    """The part of the page about one model."""
    lines = ["| wish | chosen | by the figures the right one |", "|---|---|---|"]
    reasons = []
    for goal, answer in answers.items():
        chosen = chosen_by(answer, routes)
        wish = f"`{' '.join(words_of(goal))}`"
        lines.append(f"| {wish} | {chosen or 'none, exit status 1'} | {verdict(goal, routes, chosen)} |")
        reasons.append(f"> {answer.text}")
    return "\n\n".join([f"## {model.name}", table(routes), "\n".join(lines), "\n>\n".join(reasons)])


def chosen_by(answer: Answer, routes: dict[str, Row]) -> str | None:
    """The route that a search kept."""
    if answer.status:
        return None
    return next(
        name for name in routes if f"{name} is the " in answer.text or f"{name}, is the " in answer.text
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=model_of, metavar="NAME=FOLDER")
    parser.add_argument("--runs", type=Path, default=Path("runs/auto"), help="where answers go (%(default)s)")
    parser.add_argument("--rounds", type=int, default=12, help="most rounds of a measurement (%(default)s)")
    parser.add_argument("--out", type=Path, help="the page, such as docs/auto.md")
    args = parser.parse_args()
    sections = []
    for number, model in enumerate(args.models):
        out = args.runs / model.folder.parent.name
        answers = {}
        for goal in WISHES:
            answers[goal] = search(model, goal, out, args.rounds, kill=number == 0 and goal is WISHES[0])
            print(f"{model.name}, {goal}: {answers[goal].text}", flush=True)
        sections.append(section(model, answers, rows_of(out)))
    if args.out:
        write_page(args.out, [introduction(rows_of(out)), *sections])


def introduction(routes: dict[str, Row]) -> str:
    """How the page was made, and on what."""
    row = routes[BASELINE_RUNTIME]["row"]
    facts, quality = row["environment"], routes[BASELINE_RUNTIME]["quality"]
    return (
        "# What `lit-compress auto` chooses\n\n"
        "Made by `scripts/run_auto.py`, see `--help`: every way of running a model that is installed, judged on "
        f"{quality['n']} texts of dev, measured beside eager float32 on one core over real lengths of texts, each "
        "in a process of its own; the best one under each wish is exported and kept. Ratios are medians of rounds "
        "with their 95 % intervals. *By the figures the right one*: no route that fulfils the wish is better by more "
        f"than its noise. The first search was killed (SIGKILL) after {KILLED_AFTER} judgements and went on from "
        "them; the wishes of one model share their judgements and measurements.\n\n"
        f"- Machine: {facts['cpu']}, {row['protocol']['threads']} thread, {row['protocol']['clock']}\n"
        f"- Software: torch {facts['torch']}, transformers {facts['transformers']}, lit-compress "
        f"{facts['lit_compress']}"
    )


if __name__ == "__main__":
    main()
