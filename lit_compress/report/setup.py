"""Environment and protocol of a group, and what measuring it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lit_compress.report.groups import Group, Row, distinct
from lit_compress.report.markup import Html, counted, join, tag

_MACHINE = {
    "cpu": "processor",
    "governor": "governor",
    "cores": "cores",
    "memory_gb": "memory",
    "gpu": "GPU",
    "os": "system",
    "load_before": "load before",
    "load_after": "load after",
}
_LIBRARIES = ("python", "torch", "transformers", "onnxruntime", "lit_compress")


def setup(group: Group) -> Html:
    """Return machine, libraries and protocol of a group; where rows differ, all values or their range."""
    rows = group.rows
    lists = [
        ("Machine", [(title, _values(rows, "environment", key)) for key, title in _MACHINE.items()]),
        ("Libraries", [(name, _values(rows, "environment", name)) for name in _LIBRARIES]),
        ("Protocol", _protocol(rows)),
        ("Cost", _cost(rows)),
    ]
    blocks = []
    for title, pairs in lists:
        known = [join(tag("dt", term), tag("dd", text)) for term, text in pairs if text]
        flags = _values(rows, "environment", "cpu_flags")
        if title == "Machine" and flags:
            closed = tag("details", tag("summary", counted(len(flags.split()), "instruction set")), flags)
            known.append(join(tag("dt", "it has"), tag("dd", closed)))
        if known:
            blocks.append(tag("div", tag("h3", title), tag("dl", *known, class_="facts")))
    return tag("div", *blocks, class_="card setup")


def _values(rows: Sequence[Row], part: str, key: str) -> str:
    found = [row[part].get(key) for row in rows]
    known = [value for value in found if value is not None]
    if not known:
        return "none" if key == "gpu" else ""
    if key.startswith("load"):
        return _range([float(value) for value in known])
    texts = [" ".join(map(str, value)) if isinstance(value, list) else str(value) for value in known]
    unit = " GB" if key == "memory_gb" else ""
    return ", ".join(text + unit for text in distinct(texts))


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"


def _protocol(rows: Sequence[Row]) -> list[tuple[str, str]]:
    lengths = sorted(rows[0]["protocol"]["lengths"])
    quality = next((row["quality"] for row in rows if row.get("quality")), None)
    return [
        (
            "texts",
            f"{len(lengths)} of {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}",
        ),
        ("from", _values(rows, "protocol", "data")),
        ("fixed lengths", _values(rows, "protocol", "fixed_lengths")),
        ("batches", _values(rows, "protocol", "batches")),
        ("threads", _values(rows, "protocol", "threads")),
        ("clock", _values(rows, "protocol", "clock")),
        ("rounds", _measured_rounds(rows)),
        ("budget", _unit(_values(rows, "protocol", "max_seconds"), "s per device")),
        (
            "quality",
            f"{quality['metric']} on {quality['n']} rows of {quality['split']}"
            if quality
            else "not evaluated",
        ),
        ("sessions", str(len({row["session"] for row in rows}))),
    ]


def _measured_rounds(rows: Sequence[Row]) -> str:
    counts: list[Any] = [row[device]["rounds"] for row in rows for device in ("cpu", "gpu") if row[device]]
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    asked = _values(rows, "protocol", "rounds")
    return f"{low if low == high else f'{low} to {high}'} of {asked} measured"


def _unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if text else ""


def _cost(rows: Sequence[Row]) -> list[tuple[str, str]]:
    seconds = [row["seconds"] for row in rows if row.get("seconds") is not None]
    if not seconds:
        return []
    return [
        ("measuring", f"{_duration(sum(seconds))} for {counted(len(seconds), 'row')}"),
        ("a row", f"{_range(seconds)} s"),
    ]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
