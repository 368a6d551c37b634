"""Which rows may stand in one table: only those measured alike on the same machine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lit_compress.benchmark.runtimes import RUNTIMES
from lit_compress.report.scale import Row, put_on_one_scale

_ENVIRONMENT = ("cpu", "cpu_flags", "cores", "memory_gb", "gpu", "torch", "transformers", "onnxruntime")
_PROTOCOL = ("clock", "lengths", "batches", "data")
_QUALITY = ("metric", "split", "n")


@dataclass(frozen=True)
class Group:
    """Rows that can be compared.

    Args:
        title: What the rows have in common, in one line.
        rows: Baseline first, then the teacher in other runtimes, then models from best to worst quality.
        conditions: What must be the same, by name, such as ``"torch"``: ``"2.13.0"``.
    """

    title: str
    rows: list[Row]
    conditions: dict[str, Any]


def group_rows(rows: Sequence[Row]) -> list[Group]:
    """Split rows into groups with the same machine, libraries, protocol and measure of quality.

    Runtime and thread count are columns, not conditions. Within a group a model appears once per runtime
    and thread count, with its latest row, and times that were taken in different sessions are put on one
    scale (see :func:`~lit_compress.report.scale.put_on_one_scale`).

    Args:
        rows: Rows of any number of results files.

    Returns:
        The groups, largest first.
    """
    groups: dict[str, list[Row]] = {}
    ordered = sorted(rows, key=lambda row: row.get("time", ""))
    for row, conditions in zip(ordered, _conditions(ordered), strict=True):
        groups.setdefault(json.dumps(conditions, sort_keys=True), []).append(row)
    finished = [
        Group(_title(members), _ordered(put_on_one_scale(members)), json.loads(key))
        for key, members in groups.items()
    ]
    return sorted(finished, key=lambda group: -len(group.rows))


def differences(groups: Sequence[Group]) -> list[str]:
    """Return the names of the conditions in which groups differ, such as ``["cpu", "torch"]``."""
    names = {name: None for group in groups for name in group.conditions}
    return [name for name in names if len({json.dumps(group.conditions.get(name)) for group in groups}) > 1]


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return values without repetitions, in the order in which they first come."""
    return list(dict.fromkeys(values))


def _conditions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return what each row was measured under.

    A row without quality, as one that failed, belongs to what its session, or else most rows, evaluated.
    """
    found: list[dict[str, Any]] = []
    sessions: dict[str, Counter[str]] = {}
    for row in rows:
        environment = {name: row["environment"].get(name) for name in _ENVIRONMENT}
        environment["cpu_flags"] = sorted(environment["cpu_flags"] or [])
        found.append(environment | {name: row["protocol"].get(name) for name in _PROTOCOL})
        if row.get("quality"):
            kind = json.dumps({f"quality {name}": row["quality"].get(name) for name in _QUALITY})
            for place in (row["session"], json.dumps(found[-1])):
                sessions.setdefault(place, Counter())[kind] += 1
            found[-1] |= json.loads(kind)
    for row, conditions in zip(rows, found, strict=True):
        kinds = sessions.get(row["session"]) or sessions.get(json.dumps(conditions))
        if not row.get("quality") and kinds:
            conditions |= json.loads(kinds.most_common(1)[0][0])
    return found


def _title(rows: list[Row]) -> str:
    row = rows[-1]
    environment, protocol = row["environment"], row["protocol"]
    lengths = sorted(protocol["lengths"])
    onnx = any(other["runtime"].startswith("onnx") for other in rows)
    words = [
        f"{environment.get('cpu')} ({environment.get('cores')} cores)",
        *([environment["gpu"]] if environment.get("gpu") else []),
        *(
            f"{name} {environment[name]}"
            for name in ("torch", "transformers", "onnxruntime")
            if environment.get(name) and (onnx or name != "onnxruntime")
        ),
        f"{_used(rows)}, {protocol.get('clock')}",
        f"{len(lengths)} texts of {lengths[0]}–{lengths[-1]} tokens",
    ]
    quality = next((other["quality"] for other in rows if other.get("quality")), None)
    if quality:
        words.append(f"{quality['metric']} on {quality['n']} rows of {quality['split']}")
    sessions = {other["session"] for other in rows if other["is_baseline"]}
    if len(sessions) > 1:
        words.append(f"times of {len(sessions)} sessions put on the baseline's scale")
    return " · ".join(words)


def _used(rows: list[Row]) -> str:
    """Return runtime and threads where all rows have the same; they are columns otherwise."""
    runtimes = distinct(row["runtime"] for row in rows)
    threads = sorted({row["protocol"]["threads"] for row in rows})
    text = " and ".join(map(str, threads)) + (" thread" if threads == [1] else " threads")
    return f"{runtimes[0]}, {text}" if len(runtimes) == 1 else text


def _ordered(rows: list[Row]) -> list[Row]:
    """Sort by role, then by the model's best quality; runtimes of one model stay together."""
    best: dict[tuple[str, str], float] = {}
    for row in rows:
        if row.get("quality"):
            value = row["quality"]["value"] * (1 if row["quality"].get("higher_is_better", True) else -1)
            model = (row["run"], row["model"])
            best[model] = max(value, best.get(model, value))

    def rank(row: Row) -> tuple[Any, ...]:
        model = (row["run"], row["model"])
        runtime = RUNTIMES.index(row["runtime"]) if row["runtime"] in RUNTIMES else len(RUNTIMES)
        role = 0 if row["is_baseline"] else 1 if row["role"] == "teacher" else 2
        quality = (model not in best, -best.get(model, 0.0)) if role == 2 else ()
        return (role, *quality, *(model if role == 2 else ()), runtime, row["protocol"]["threads"])

    return sorted(rows, key=rank)
