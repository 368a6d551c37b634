"""Rows of ``results.jsonl``: one measured model per line, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lit_compress.benchmark.measurement import Figures, Measurement, Spread
from lit_compress.benchmark.runtime import RUNTIME

SCHEMA = 1
FILE_NAME = "results.jsonl"
_REQUIRED = ("schema", "model", "method", "role", "run", "session", "environment", "protocol")


def to_row(
    measurement: Measurement,
    run: str,
    recipe: str | None = None,
    seed: int | None = None,
    quality: dict[str, Any] | None = None,
    checkpoint: str | None = None,
) -> dict[str, Any]:
    """Return a measurement as one row of the results, ready for JSON.

    Args:
        measurement: What was measured.
        run: The run folder.
        recipe: The recipe of the run.
        seed: The seed of the run.
        quality: What :func:`~lit_compress.benchmark.quality.evaluate` returned.
        checkpoint: The checkpoint that the model was rebuilt from.

    Returns:
        The row. ``ratio`` holds this model's figures over those of the baseline in the same session;
        figures that could not be taken are ``None``, never zero.
    """
    row = {
        "schema": SCHEMA,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "run": run,
        "recipe": recipe,
        "model": measurement.candidate.name,
        "method": measurement.candidate.method,
        "seed": seed,
        "role": "teacher" if measurement.is_baseline else "student",
        "checkpoint": checkpoint,
        "weights": measurement.weights,
        "shape": measurement.shape,
        "params": measurement.params,
        "bytes": measurement.bytes,
        "cpu": _figures(measurement.cpu, "rss_mb"),
        "gpu": _figures(measurement.gpu, "vram_mb"),
        "quality": quality,
        "ratio": {name: _plain(value) for name, value in measurement.ratios.items()},
        "session": measurement.session,
        "environment": measurement.environment,
        "protocol": {**measurement.protocol.to_dict(), "runtime": RUNTIME},
    }
    if measurement.error is not None:
        row["error"] = measurement.error
    return row


def add_quality_ratios(rows: Sequence[dict[str, Any]]) -> None:
    """Add ``ratio.quality``, the share of the teacher's quality that is kept, to the rows of one session.

    Left out where the metric is better when lower, or where the teacher's is not positive: a share of it
    would mean nothing.

    Args:
        rows: Changed in place.
    """
    teacher = next((row["quality"] for row in rows if row["role"] == "teacher" and row["quality"]), None)
    if teacher is None or not teacher["higher_is_better"] or teacher["value"] <= 0:
        return
    for row in rows:
        if row["role"] != "teacher" and row["quality"] and row["quality"]["metric"] == teacher["metric"]:
            row["ratio"]["quality"] = _rounded(row["quality"]["value"] / teacher["value"])


def _figures(figures: Figures | None, memory: str) -> dict[str, Any] | None:
    if figures is None:
        return None
    return {
        "latency_ms": {
            "p50": _rounded(figures.p50_ms.median),
            "p90": _rounded(figures.p90_ms.median),
            "p50_spread": [_rounded(figures.p50_ms.p10), _rounded(figures.p50_ms.p90)],
            "p90_spread": [_rounded(figures.p90_ms.p10), _rounded(figures.p90_ms.p90)],
            "wall_p50": _rounded(figures.wall_p50_ms.median),
        },
        "throughput": {
            "texts_per_second": _rounded(figures.texts_per_second.median),
            "spread": [_rounded(figures.texts_per_second.p10), _rounded(figures.texts_per_second.p90)],
            "batch": figures.batch,
        },
        memory: _rounded(figures.peak_mb),
        "rounds": figures.rounds,
    }


def _plain(value: Spread | float) -> dict[str, float] | float:
    if isinstance(value, Spread):
        return {name: _rounded(figure) for name, figure in asdict(value).items()}
    return _rounded(value)


def _rounded(value: float) -> float:
    """Keep five significant digits: more would only look exact."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, 4 - math.floor(math.log10(abs(value))))


def append_rows(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows to a results file; a kill leaves all of them in it or none.

    Args:
        path: The file; made with its folders where missing.
        rows: Rows as :func:`to_row` returns them.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    with path.open("ab+") as stream:
        # A line that an earlier kill cut short must not swallow the new one.
        if stream.tell() and _last_byte(path) != b"\n":
            text = "\n" + text
        os.write(stream.fileno(), text.encode("utf-8"))
        os.fsync(stream.fileno())


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1)


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a results file.

    Args:
        path: The file.

    Returns:
        The rows in the order of the file.

    Raises:
        ValueError: A line that is not a row, or one that a newer release wrote; the message gives its number.
    """
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            rows.append(_parse(line, f"line {number} of {path}"))
    return rows


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"Expected one JSON object in {where} but got {line[:60]!r} ({error.msg}), "
            "perhaps cut short by a kill; delete that line."
        ) from error
    schema = row.get("schema") if isinstance(row, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise ValueError(
            f"Expected schema {SCHEMA} in {where} but got schema {schema}, written by a newer lit-compress; "
            'upgrade with pip install -U "lit-compress".'
        )
    missing = [key for key in _REQUIRED if not isinstance(row, dict) or key not in row]
    if missing:
        raise ValueError(
            f"Expected a row of benchmark results in {where} but got none of the keys {', '.join(missing)}; "
            "delete that line, or name run folders only."
        )
    return row
