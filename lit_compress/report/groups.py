"""Which rows may stand in one table: only those measured alike on the same machine."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

_ENVIRONMENT = ("cpu", "cores", "memory_gb", "gpu", "torch", "transformers")
_PROTOCOL = ("threads", "clock", "runtime", "lengths")
_QUALITY = ("metric", "split", "n")


@dataclass(frozen=True)
class Group:
    """Rows that can be compared.

    Args:
        title: What the rows have in common, in one line.
        rows: Baselines first, then the others from best to worst quality.
    """

    title: str
    rows: list[Row]


def group_rows(rows: Sequence[Row]) -> list[Group]:
    """Split rows into groups with the same machine, protocol and measure of quality.

    Within a group a model appears once, with its latest row, and times that were taken in different
    sessions are put on one scale (see :func:`put_on_one_scale`).

    Args:
        rows: Rows of any number of results files.

    Returns:
        The groups, largest first.
    """
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.get("time", "")):
        groups.setdefault(_key(row), []).append(row)
    finished = [Group(_title(members), _ordered(put_on_one_scale(members))) for members in groups.values()]
    return sorted(finished, key=lambda group: -len(group.rows))


def _key(row: Row) -> str:
    environment, protocol, quality = row["environment"], row["protocol"], row.get("quality") or {}
    parts = [environment.get(name) for name in _ENVIRONMENT]
    parts += [protocol.get(name) for name in _PROTOCOL]
    return repr(parts + [quality.get(name) for name in _QUALITY])


def _title(rows: list[Row]) -> str:
    row = rows[-1]
    environment, protocol, quality = row["environment"], row["protocol"], row.get("quality")
    lengths = sorted(protocol["lengths"])
    threads = protocol["threads"]
    words = [
        f"{environment.get('cpu')} ({environment.get('cores')} cores)",
        *([environment["gpu"]] if environment.get("gpu") else []),
        f"torch {environment.get('torch')}",
        f"transformers {environment.get('transformers')}",
        f"{protocol.get('runtime')}, {threads} thread{'s' if threads != 1 else ''}, {protocol.get('clock')}",
        f"{len(lengths)} texts of {lengths[0]}–{lengths[-1]} tokens",
    ]
    if quality:
        words.append(f"{quality['metric']} on {quality['n']} rows of {quality['split']}")
    sessions = {other["session"] for other in rows if other["role"] == "teacher"}
    if len(sessions) > 1:
        words.append(f"times of {len(sessions)} sessions put on the baseline's scale")
    return " · ".join(words)


def put_on_one_scale(rows: Sequence[Row]) -> list[Row]:
    """Drop repetitions and scale the times of different sessions by the baseline they share.

    The machine's speed differs between sessions, so that times of two sessions say nothing about each
    other, while ratios to the baseline do. Where the same baseline was measured in several sessions, all
    times of a session are multiplied by (median time of the baseline over its sessions) / (its time in
    that session). Rows of a single session stay as they are.

    Args:
        rows: Rows of one group, oldest first.

    Returns:
        Copies of the rows, one per model.
    """
    scaled = copy.deepcopy(list(rows))
    for device in ("cpu", "gpu"):
        _scale(scaled, device)
    teachers = {row["weights"] for row in scaled if row["role"] == "teacher"}
    kept: dict[tuple[str, ...], Row] = {}
    for row in scaled:
        if row["role"] == "teacher":
            kept["teacher", str(row["weights"]), row["model"] if row["weights"] is None else ""] = row
        # The run that trained a teacher measures it as its own result; it is the same model.
        elif row["weights"] not in teachers or row["ratio"]:
            kept["student", row["run"], row["model"]] = row
    return list(kept.values())


def _scale(rows: list[Row], device: str) -> None:
    baselines: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["role"] == "teacher" and row[device] and row["weights"]:
            baselines.setdefault(row["weights"], {})[row["session"]] = row[device]["latency_ms"]["p50"]
    factors = {
        session: statistics.median(sessions.values()) / own
        for sessions in baselines.values()
        for session, own in sessions.items()
    }
    for row in rows:
        if row[device] and row["session"] in factors:
            _multiply(row[device], factors[row["session"]])


def _multiply(figures: dict[str, Any], factor: float) -> None:
    latency, throughput = figures["latency_ms"], figures["throughput"]
    for name, value in latency.items():
        latency[name] = [end * factor for end in value] if isinstance(value, list) else value * factor
    throughput["texts_per_second"] /= factor
    throughput["spread"] = [value / factor for value in throughput["spread"]]


def _ordered(rows: list[Row]) -> list[Row]:
    def rank(row: Row) -> tuple[bool, bool, float]:
        quality = row.get("quality")
        if not quality:
            return (row["role"] != "teacher", True, 0.0)
        sign = -1 if quality.get("higher_is_better", True) else 1
        return (row["role"] != "teacher", False, sign * quality["value"])

    return sorted(rows, key=rank)
