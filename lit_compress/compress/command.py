"""``lit-compress compress``: a fine-tuned model and a wish in; a small, measured, exported model out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_compress.benchmark.folders import beside
from lit_compress.compress.fits import ORDERS, fits_of
from lit_compress.compress.outcome import Outcome, show
from lit_compress.compress.plan import Plan, read_plan
from lit_compress.compress.planner import make_plan, tell
from lit_compress.compress.request import Request, make_request
from lit_compress.compress.search import Knobs, search
from lit_compress.compress.stage import run_stages
from lit_compress.compress.verdict import ship, verdict
from lit_compress.compress.wish import Wish
from lit_compress.extras import require

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
    blocks: int | None = None,
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
        blocks: Blocks that the fit begins with; what the measurements call for where ``None``.
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
    if trials > 1:
        require("search", "--trials", "optuna")
    request = make_request(folder, wish, data, runtimes, vocabulary)
    target = Path(out) if out is not None else beside(folder, "-compressed")
    if target.is_file():
        raise ValueError(f"Expected --out to be a folder but {target} is a file; give another place.")
    asked = {**request.to_dict(), "order": order, "blocks": blocks, "seed": seed, "words": list(words)}
    try:
        plan = read_plan(target, asked) or make_plan(request, target, asked, settings)
        tell(plan, wish)
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
            f"lit-compress compress: missed {missed}. Search in the same folder (--trials), or, with another --out, "
            "ask for less of the others or train longer "
            f"(--fit --trainer.max_epochs={2 * plan.start.length.epochs})."
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
