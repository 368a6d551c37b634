"""``lit-compress compress``: a fine-tuned model and a wish in; a small, measured, exported model out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_compress.benchmark.folders import beside
from lit_compress.benchmark.protocol import Protocol
from lit_compress.compress.fits import ORDERS, fits_of
from lit_compress.compress.length import length_for
from lit_compress.compress.outcome import Outcome, show
from lit_compress.compress.plan import Plan, Start, read_plan
from lit_compress.compress.planning import Words, figures_for
from lit_compress.compress.probe import Probes, probe
from lit_compress.compress.request import Request, make_request, write_data
from lit_compress.compress.search import Knobs, search
from lit_compress.compress.stage import Stage, run_stages
from lit_compress.compress.verdict import ship, tokenizer_bytes, verdict
from lit_compress.compress.wish import Wish
from lit_compress.data.tokenizer import load_tokenizer
from lit_compress.models.checkpoint import load
from lit_compress.quantization.progress import progress

OUTCOME = "outcome.json"


def compress_command(
    folder: str,
    quality: float,
    speedup: float | None = None,
    latency_ms: float | None = None,
    size_mb: float | None = None,
    data: str | None = None,
    out: str | None = None,
    order: str = ORDERS[0],
    vocabulary: str = "auto",
    runtimes: list[str] | None = None,
    seed: int = 0,
    trials: int = 1,
    plan_only: bool = False,
    words: Sequence[str] = (),
    **settings: Any,
) -> None:
    """Make a model as fast and as small as asked for, and say how near that came.

    Measures what runtimes make of models of several sizes, plans how much has to be pruned, distils, prunes and
    rounds, measures the result and exports it. Stopped, the same command goes on where it was.

    Args:
        folder: Fine-tuned model folder, hub name or ``package:NAME``.
        quality: Share of its own quality to keep.
        speedup: How many times faster than it is in eager float32, at one text over real lengths.
        latency_ms: Most milliseconds of the median text.
        size_mb: Most megabytes of the shipped model with its tokenizer.
        data: YAML file with a ``data`` section; the ``config.yaml`` of the folder's run where ``None``.
        out: Folder for everything; ``<folder>-compressed`` beside it where ``None``.
        order: ``joint``, or ``chained``.
        vocabulary: ``auto``, ``keep`` or ``trim``.
        runtimes: Runtimes to measure in; all of integers that are installed where ``None``.
        seed: Of the fits, and of the search.
        trials: Fits to choose among; more than one search over settings.
        plan_only: Whether to stop before training.
        words: Further words for every fit, such as ``--trainer.max_epochs=4``.
        **settings: Further settings of the :class:`~lit_compress.benchmark.protocol.Protocol`.

    Raises:
        ValueError: Something that was given cannot be used, the wish is out of reach or a stage failed.
        ImportError: A library is missing.
        SystemExit: Interrupted, or the wish was missed; everything that was finished is kept.
    """
    wish = Wish(quality, speedup, latency_ms, size_mb)
    if order not in ORDERS:
        raise ValueError(f"Expected --order to be one of {', '.join(ORDERS)} but got {order!r}.")
    if trials < 1:
        raise ValueError(f"Expected at least one trial but got --trials {trials}; correct it.")
    request = make_request(folder, wish, data, runtimes, vocabulary)
    target = Path(out) if out is not None else beside(folder, "-compressed")
    asked = {**request.to_dict(), "order": order, "seed": seed, "words": list(words)}
    try:
        plan = read_plan(target, asked) or _planned(request, target, asked, settings)
        _tell(plan, wish)
        if plan_only:
            return
        run_stages(plan.stages, target)
        model, outcome = _fitted(request, plan, target, trials, settings)
    except KeyboardInterrupt:
        print(f"lit-compress compress: interrupted; the same command goes on from what is in {target}.")
        raise SystemExit(130) from None
    (target / OUTCOME).write_text(json.dumps(outcome.to_dict(), indent=1) + "\n", encoding="utf-8")
    ship(model, outcome, target)
    if not outcome.is_met:
        missed = " and ".join(
            f"{one.what} ({one.found:.4g} {one.unit}, asked for {one.asked:.4g})"
            for one in outcome.achieved
            if not one.is_met
        )
        print(
            f"lit-compress compress: missed {missed}. Ask for less of the others, train longer "
            f"(--fit --trainer.max_epochs={2 * plan.start.length.epochs}), or search (--trials)."
        )
        raise SystemExit(1)


def _fitted(
    request: Request, plan: Plan, out: Path, trials: int, settings: dict[str, Any]
) -> tuple[Path, Outcome]:
    """Run the fits, measure what they end with, and return the best one."""
    is_regression = request.texts.datamodule.is_regression
    outcomes: dict[int, tuple[Path, Outcome]] = {}

    def run(number: int, knobs: Knobs | None) -> tuple[Path, Outcome]:
        name = "student" if number == 0 else f"trial-{number}"
        stages, model = fits_of(plan, out, name, is_regression, knobs)
        run_stages(stages, out)
        return model, verdict(request, model, out, settings)

    def told(number: int, knobs: Knobs | None) -> dict[str, Any]:
        outcomes[number] = run(number, knobs)
        return outcomes[number][1].to_dict()

    if trials == 1:
        best = run(0, None)
    else:
        first = search(out, trials, plan.request["seed"], told)[0]
        best = outcomes.get(first.number) or run(first.number, first.knobs)
    show(best[1], request.texts.task.monitor)
    return best


def _planned(request: Request, out: Path, asked: dict[str, Any], settings: dict[str, Any]) -> Plan:
    """Measure, plan, and write the plan down."""
    out.mkdir(parents=True, exist_ok=True)
    data = write_data(out / "data.yaml", request.data, tokenizer=str(request.original))
    stages: list[Stage] = []
    teacher = request.original
    texts = [f"--vocabulary-from={data}"] if request.trims else []
    if request.trims:
        teacher = out / "teacher"
        words = ("shrink", str(request.original), *texts, f"--out={teacher}")
        stages.append(Stage("vocabulary", "keep the word pieces that the training texts use", words))
        run_stages(stages, out)  # what is measured below has this vocabulary
    lengths = request.models.lengths
    protocol = Protocol(lengths, batches=(), fixed_lengths=(), devices=("cpu",), **settings)
    found, table = _probed(request, teacher, protocol)
    figures = figures_for(request.wish, found, table, tokenizer_bytes(teacher))
    student = teacher
    if figures.storage.rank is not None:
        student = out / "start"
        # With the texts, the pieces that they use most are kept best.
        words = (
            "shrink",
            str(teacher),
            *texts,
            f"--embedding-rank={figures.storage.rank}",
            f"--out={student}",
        )
        stages.append(Stage("embeddings", "word embeddings as the product of two smaller tables", words))
    train = request.texts.datamodule
    length = length_for(len(train.rows("train")), train.batch_size)
    start = Start(str(teacher), str(student), str(data), lengths[len(lengths) // 2], length)
    plan = Plan(asked, [vars(one) for one in found.found], figures, tuple(stages), start)
    plan.write(out)
    return plan


def _probed(request: Request, teacher: Path, protocol: Protocol) -> tuple[Probes, Words]:
    assert request.models.baseline is not None
    model = load(teacher)
    tokenizer = load_tokenizer(str(teacher), 1, "the model's own tokenizer")
    with progress() as tell:
        found = probe(request.models.baseline, model, tokenizer, request.routes, protocol, tell)
    for name, error in found.failed.items():
        print(f"Not measured in {name}: {error}")
    table: Any = model.get_input_embeddings()
    return found, Words(table.num_embeddings, table.embedding_dim)


def _tell(plan: Plan, wish: Wish) -> None:
    aim, storage = plan.figures, plan.figures.storage
    parts = [f"blocks {aim.structural:.2f}× faster" if aim.structural > 1 else "nothing pruned"]
    rank = f" of rank {storage.rank}" if storage.rank is not None else ""
    parts.append(
        f"projections of {storage.weight_bits} bits, word embeddings{rank} of {storage.word_bits} bits"
    )
    print(
        f"For {wish}: {', '.join(parts)}; expected in {aim.runtime}: {aim.speedup:.1f}× and "
        f"{aim.bytes / 1e6:.2f} MB.",
        flush=True,
    )
    length = plan.start.length
    if aim.structural > 1:
        copies = f" and {length.copies} copies of each" if length.copies else ""
        print(f"Pruned in {length.steps:,} steps: {length.epochs} passes over the texts{copies}.", flush=True)
