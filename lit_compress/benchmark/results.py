"""Rows of ``results.jsonl``: one measured model per line, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from io import FileIO
from pathlib import Path
from typing import Any

from lit_compress.benchmark.environment import runtime_versions
from lit_compress.benchmark.intervals import Ratio, Spread
from lit_compress.benchmark.measurement import Figures, Measurement
from lit_compress.files import writing

SCHEMA = 2
FILE_NAME = "results.jsonl"
_REQUIRED = (
    *("schema", "model", "method", "role", "is_baseline", "run", "runtime", "session"),
    *("environment", "protocol", "ratio", "cpu", "gpu", "quality"),
)
_FACTS = ("params", "nonzero_params", "macs")


def to_row(
    measurement: Measurement,
    run: str,
    recipe: str | None = None,
    seed: int | None = None,
    checkpoint: str | None = None,
) -> dict[str, Any]:
    """Return a measurement as one row of the results, ready for JSON.

    Args:
        measurement: What was measured.
        run: The run folder.
        recipe: The recipe of the run.
        seed: The seed of the run.
        checkpoint: The checkpoint that the model was rebuilt from.

    Returns:
        The row. ``ratio`` holds this model's figures over those of the baseline in the same session;
        figures that could not be taken are ``None``, never zero.
    """
    artefact = measurement.artefact
    facts = artefact.facts if artefact is not None else {}
    row = {
        "schema": SCHEMA,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "run": run,
        "recipe": recipe,
        "model": measurement.candidate.name,
        "method": measurement.candidate.method,
        "seed": seed,
        "role": "teacher" if measurement.is_teacher or measurement.is_baseline else "student",
        "is_baseline": measurement.is_baseline,
        "checkpoint": checkpoint,
        "weights": measurement.weights,
        "runtime": measurement.candidate.runtime,
        "libraries": runtime_versions(measurement.candidate.runtime),
        "shape": facts.get("shape", {}),
        **{name: facts.get(name) for name in _FACTS},
        "bytes": artefact.bytes if artefact is not None else None,
        "cpu": None if measurement.cpu is None else _cpu(measurement.cpu),
        "gpu": None if measurement.gpu is None else _gpu(measurement.gpu),
        "quality": measurement.quality,
        "ratio": {name: _plain(value) for name, value in measurement.ratios.items()},
        "warnings": measurement.warnings,
        "seconds": round(measurement.seconds, 1),
        "session": measurement.session,
        "environment": measurement.environment,
        "protocol": measurement.protocol.to_dict(),
    }
    if measurement.error is not None:
        row["error"] = measurement.error
    return row


def add_quality_ratios(rows: Sequence[dict[str, Any]]) -> None:
    """Add ``ratio.quality``, the share of the baseline's quality that is kept, to the rows of one session.

    Left out where the metric is better when lower, or where the baseline's is not positive: a share of it
    would mean nothing.

    Args:
        rows: Changed in place.
    """
    base = next((row["quality"] for row in rows if row["is_baseline"] and row["quality"]), None)
    if base is None or not base["higher_is_better"] or base["value"] <= 0:
        return
    for row in rows:
        if not row["is_baseline"] and row["quality"] and row["quality"]["metric"] == base["metric"]:
            row["ratio"]["quality"] = _rounded(row["quality"]["value"] / base["value"])


def _cpu(figures: Figures) -> dict[str, Any]:
    return {
        **_times(figures),
        "rss_mb": _rounded(figures.peak_mb),
        "rss_growth_mb": _rounded(figures.growth_mb),
        **_rounds(figures),
    }


def _gpu(figures: Figures) -> dict[str, Any]:
    reserved = figures.reserved_mb
    return {
        **_times(figures),
        "vram_mb": _rounded(figures.peak_mb),
        "vram_reserved_mb": None if reserved is None else _rounded(reserved),
        **_rounds(figures),
    }


def _times(figures: Figures) -> dict[str, Any]:
    return {
        "latency_ms": {
            "p50": _rounded(figures.p50_ms.median),
            "p90": _rounded(figures.p90_ms.median),
            "p99": _rounded(figures.p99_ms.median),
            "p50_spread": _range(figures.p50_ms),
            "p90_spread": _range(figures.p90_ms),
            "wall_p50": _rounded(figures.wall_p50_ms.median),
        },
        "throughput": _throughput(figures.throughput),
        "fixed": {
            str(length): {
                "latency_ms": {"p50": _rounded(fixed.p50_ms.median), "p50_spread": _range(fixed.p50_ms)},
                "throughput": _throughput(fixed.throughput),
            }
            for length, fixed in figures.fixed.items()
        },
    }


def _throughput(figures: dict[int, Spread]) -> dict[str, Any]:
    return {
        str(size): {"texts_per_second": _rounded(spread.median), "spread": _range(spread)}
        for size, spread in figures.items()
    }


def _rounds(figures: Figures) -> dict[str, Any]:
    energy = figures.energy_j_per_text
    return {
        "energy_j_per_text": None if energy is None else _rounded(energy),
        "rounds": figures.rounds,
        "warmup_rounds": figures.warmup_rounds,
    }


def _range(spread: Spread) -> list[float]:
    return [_rounded(spread.p10), _rounded(spread.p90)]


def _plain(value: Ratio | float) -> dict[str, Any] | float:
    if isinstance(value, Ratio):
        numbers = {name: _rounded(getattr(value, name)) for name in ("median", "low", "high")}
        return {**numbers, "verdict": value.verdict}
    return _rounded(value)


def _rounded(value: float) -> float:
    """Keep five significant digits: more would only look exact."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, 4 - math.floor(math.log10(abs(value))))


def append_rows(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows to a results file; a kill or a full disk leaves all of them in it or none.

    A last line that an earlier kill cut short is taken away, so that it does not swallow the new one.

    Args:
        path: The file; made with its folders where missing.
        rows: Rows as :func:`to_row` returns them.

    Raises:
        OSError: The rows could not be written; the file is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    with path.open("ab+", buffering=0) as stream, writing(path):
        end = _end(stream)
        try:
            _write_all(stream, text.encode("utf-8"))
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(end)
            raise


def _end(stream: FileIO) -> int:
    """Let a file end with a whole line, and return how long it is then."""
    stream.seek(0)
    *_, last = stream.readall().rsplit(b"\n", 1)
    end = stream.seek(0, os.SEEK_END)
    if not last:
        return end
    if _is_cut(last):
        stream.truncate(end - len(last))
        return end - len(last)
    _write_all(stream, b"\n")
    return end + 1


def _write_all(stream: FileIO, content: bytes) -> None:
    """Write everything: one call writes what there is room for, and only the next one says that the disk is full."""
    left = memoryview(content)
    while left:
        left = left[stream.write(left) :]


def _is_cut(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:  # also where the cut goes through a letter
        return True
    return False


def read_results(path: str | Path, allow_cut: bool = False) -> list[dict[str, Any]]:
    """Return the rows of a results file.

    Args:
        path: The file.
        allow_cut: Whether to leave out a last line that a kill cut short, as who measures it again does.

    Returns:
        The rows in the order of the file.

    Raises:
        ValueError: A line that is not a row, or one that another release wrote; the message gives its number.
    """
    # Not splitlines(): it also splits at characters that JSON allows inside strings.
    lines = Path(path).read_bytes().split(b"\n")
    if allow_cut and _is_cut(lines[-1]):
        lines.pop()
    return [
        _parse(line, f"line {number} of {path}") for number, line in enumerate(lines, start=1) if line.strip()
    ]


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"Expected one JSON object in {where} but got {line[:60].decode(errors='replace')!r} "
            f"({getattr(error, 'msg', error)}), "
            "perhaps cut short by a kill; delete that line."
        ) from error
    schema = row.get("schema") if isinstance(row, dict) else None
    if isinstance(schema, int) and schema < SCHEMA:
        raise ValueError(
            f"Expected schema {SCHEMA} in {where} but got schema {schema}, measured by an older release; move the "
            "file away and run lit-compress benchmark again."
        )
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
