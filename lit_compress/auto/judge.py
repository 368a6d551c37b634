"""Builds what a route loads, and evaluates it in its own runtime and process before anything is timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from lit_compress.auto.goal import Goal
from lit_compress.auto.trial import CRASHED, PARITY, REFUSED, Trial
from lit_compress.benchmark.artefacts import Artefact, Failure, PrepareError, prepare
from lit_compress.benchmark.protocol import Protocol
from lit_compress.benchmark.quality import Texts
from lit_compress.benchmark.runtimes import runtime
from lit_compress.benchmark.seat import Seat
from lit_compress.benchmark.series import Series
from lit_compress.benchmark.session import memory_limit
from lit_compress.export.real_texts import refuse_longer

# Exporting MiniLM takes under a minute in every format; compiling a larger model takes several.
_BUILD_SECONDS = 600.0
_KINDS = {Failure.PARITY: PARITY, Failure.REFUSED: REFUSED, Failure.CRASHED: CRASHED}


def judge(trial: Trial, goal: Goal, protocol: Protocol, texts: Texts, tell: Callable[[str], None]) -> None:
    """Build a route and evaluate it; what is too large is not evaluated.

    Args:
        trial: The route; size, quality or failure are written down in it.
        goal: Says what is too large.
        protocol: Threads, time limit and memory limit of the process.
        texts: What to evaluate on.
        tell: Told what is being done.
    """
    started = time.monotonic()
    tell("building")
    artefact = _build(trial, texts)
    if artefact is not None:
        trial.bytes, trial.facts = artefact.bytes, artefact.facts
        if goal.size_shortfall(artefact.bytes) is None:
            tell("judging its quality")
            _evaluate(trial, artefact, protocol, texts)
    trial.seconds = time.monotonic() - started


def judge_original(trial: Trial, protocol: Protocol, texts: Texts, tell: Callable[[str], None]) -> None:
    """Evaluate the original, whatever its size: its quality is what that of the routes refers to.

    Args:
        trial: Eager float32.
        protocol: As for :func:`judge`.
        texts: What to evaluate on.
        tell: Told what is being done.

    Raises:
        ValueError: It cannot be evaluated, or a share of its quality means nothing.
    """
    if trial.quality is None:
        judge(trial, Goal(1.0), protocol, texts, tell)
    if trial.quality is None:
        assert trial.failure is not None
        raise ValueError(
            f"Expected the original {trial.candidate.folder} to be judged on {texts.split} rows, but it failed: "
            f"{trial.failure[1]}"
        )
    value = trial.quality["value"]
    if not trial.quality["higher_is_better"] or value <= 0:
        raise ValueError(
            f"Expected an original whose quality can be shared out but its {trial.quality['metric']} on "
            f"{texts.split} is {value:.4g}, of which a share means nothing; check the model and the data."
        )


def _build(trial: Trial, texts: Texts) -> Artefact | None:
    candidate = trial.candidate
    try:
        calibrated = runtime(candidate.runtime).calibrated
        samples = {"samples": texts.samples(candidate.side)} if calibrated else {}
        artefact = prepare(candidate.folder, candidate.runtime, _BUILD_SECONDS, **samples)
        refuse_longer(trial.name, texts, candidate.side, artefact.facts.get("max_positions"))
        return artefact
    except PrepareError as error:
        trial.failure = _KINDS[error.kind], str(error)
    except ValueError as error:
        trial.failure = REFUSED, str(error)
    return None


def _evaluate(trial: Trial, artefact: Artefact, protocol: Protocol, texts: Texts) -> None:
    series = Series(trial.candidate, artefact)
    with ExitStack() as stack:
        seat = Seat(series, protocol, "cpu", stack, memory_limit(protocol, 1))
        seat.begin_load()
        seat.finish_load()
        seat.judge(texts)
    trial.quality = series.quality
    if series.quality is None:
        trial.failure = CRASHED, series.error or "; ".join(series.warnings)
