"""Brings rows of several sessions onto one scale and drops repetitions."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def put_on_one_scale(rows: Sequence[Row]) -> list[Row]:
    """Drop repetitions and scale the times of different sessions by the baseline they share.

    The machine's speed differs between sessions, so that times of two sessions say nothing about each
    other, while ratios to the baseline do. Where the same baseline was measured in several sessions, all
    times of a session are multiplied by (median time of the baseline over its sessions) / (its time in
    that session). Rows of a single session stay as they are.

    Args:
        rows: Rows of one group, oldest first.

    Returns:
        Copies of the rows, one per model, runtime and thread count.
    """
    scaled = copy.deepcopy(list(rows))
    for device in ("cpu", "gpu"):
        _scale(scaled, device)
    teachers = {row["weights"] for row in scaled if row["role"] == "teacher" and row["weights"]}
    kept: dict[tuple[Any, ...], Row] = {}
    for row in scaled:
        # The run that trained a teacher measures it as its own result, beside nothing; it is the same model.
        alone = row["weights"] in teachers and not row["ratio"]
        same = ("teacher", row["weights"] or row["model"])
        model = same if row["role"] == "teacher" or alone else ("student", row["run"], row["model"])
        key = (*model, row["runtime"], row["protocol"]["threads"])
        if key not in kept or not alone or row["role"] == "teacher":
            kept[key] = row
    return list(kept.values())


def _scale(rows: list[Row], device: str) -> None:
    baselines: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in rows:
        if row["is_baseline"] and row[device] and row["weights"]:
            same = (row["weights"], row["runtime"], row["protocol"]["threads"])
            baselines.setdefault(same, {})[row["session"]] = row[device]["latency_ms"]["p50"]
    factors = {
        session: statistics.median(sessions.values()) / own
        for sessions in baselines.values()
        for session, own in sessions.items()
    }
    for row in rows:
        if row[device] and row["session"] in factors:
            _multiply(row[device], factors[row["session"]])


def _multiply(figures: dict[str, Any], factor: float) -> None:
    """Multiply all times by the factor, and divide all rates by it, at real and at fixed lengths."""
    for part in (figures, *(figures.get("fixed") or {}).values()):
        latency = part["latency_ms"]
        for name, value in latency.items():
            latency[name] = _times(value, factor)
        for rate in (part.get("throughput") or {}).values():
            for name, value in rate.items():
                rate[name] = _times(value, 1 / factor)


def _times(value: Any, factor: float) -> Any:
    if isinstance(value, list):
        return [_times(end, factor) for end in value]
    return None if value is None else value * factor
