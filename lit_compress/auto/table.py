"""The table over all routes: the measured ones, and the others with what kept them from being measured or chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_compress.auto.trial import Trial
from lit_compress.benchmark.artefacts import Artefact
from lit_compress.benchmark.environment import describe_environment
from lit_compress.benchmark.measurement import Measurement
from lit_compress.benchmark.protocol import Protocol
from lit_compress.benchmark.results import to_row
from lit_compress.benchmark.selection import Row
from lit_compress.report.command import print_groups
from lit_compress.report.groups import group_rows


def print_table(trials: Sequence[Trial], original: Trial, protocol: Protocol, run: str) -> None:
    """Print one row per route, and below them why the others are out.

    Args:
        trials: All routes.
        original: Eager float32, one of them.
        protocol: How they were measured.
        run: The run folder.
    """
    environment = describe_environment()
    rows = [_row(trial, original, protocol, environment, run) for trial in trials]
    print_groups(group_rows(rows), Console())


def _row(trial: Trial, original: Trial, protocol: Protocol, environment: dict[str, Any], run: str) -> Row:
    row = (
        dict(trial.row) if trial.row is not None else _unmeasured(trial, original, protocol, environment, run)
    )
    reasons = [f"out, since it {shortfall.text}" for shortfall in trial.shortfalls]
    if trial.failure is not None:
        row["error"] = ": ".join(trial.failure)
    return {**row, "warnings": [*row["warnings"], *reasons]}


def _unmeasured(
    trial: Trial, original: Trial, protocol: Protocol, environment: dict[str, Any], run: str
) -> Row:
    """Return a row with what is known of a route that was not timed."""
    folder = Path(trial.candidate.folder)
    artefact = None if trial.bytes is None else Artefact(folder, folder, trial.bytes, trial.facts)
    measurement = Measurement(
        candidate=trial.candidate,
        is_baseline=trial is original,
        is_teacher=True,
        artefact=artefact,
        weights=trial.depends_on["weights"],
        cpu=None,
        gpu=None,
        quality=trial.quality,
        session="",
        environment=environment,
        protocol=protocol,
        seconds=trial.seconds,
    )
    row = to_row(measurement, run)
    if trial is not original:
        if trial.bytes is not None and original.bytes:
            row["ratio"]["size"] = trial.bytes / original.bytes
        if trial.quality is not None:
            row["ratio"]["quality"] = trial.kept(original)
    return row
