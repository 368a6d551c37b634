"""The columns of the results table: where each figure is found in a row and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lit_compress.report.groups import Row

#: The columns that a table always has, in this order: model to quality.
FIXED = 8
#: Stands for a figure that was not taken. Never a zero.
DASH = "–"


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        title: Heading.
        key: Heading in CSV files.
        value: Raw value of a row, ``None`` where there is none.
        cell: Text of a row.
    """

    title: str
    key: str
    value: Callable[[Row], Any]
    cell: Callable[[Row], str]


def all_columns(rows: Sequence[Row]) -> list[Column]:
    """Return every column, in the order in which people read them; headings are taken from the rows."""
    batch = next((row["cpu"]["throughput"]["batch"] for row in rows if row["cpu"]), 32)
    quality = next((row["quality"]["metric"] for row in rows if row.get("quality")), "quality")
    return [
        Column("model", "model", lambda row: row["model"], _model),
        Column("method", "method", lambda row: row["method"], lambda row: row["method"] or DASH),
        _number("size MB", "size_mb", "bytes", scale=1e-6),
        Column("CPU ms", "cpu_ms", _at("cpu.latency_ms.p50"), _latency("cpu")),
        Column("GPU ms", "gpu_ms", _at("gpu.latency_ms.p50"), _latency("gpu")),
        _number("RAM MB", "ram_mb", "cpu.rss_mb"),
        _number("VRAM MB", "vram_mb", "gpu.vram_mb"),
        Column(quality, "quality", _at("quality.value"), _quality),
        _ratio("× faster CPU", "cpu_speedup", "ratio.cpu_latency", invert=True),
        _ratio(f"× faster CPU, {batch} at once", "cpu_batch_speedup", "ratio.cpu_throughput"),
        _ratio("× faster GPU", "gpu_speedup", "ratio.gpu_latency", invert=True),
        _ratio("× smaller", "times_smaller", "ratio.size", invert=True),
        _ratio("× less RAM", "times_less_ram", "ratio.cpu_memory", invert=True),
        Column("quality kept", "quality_kept", _at("ratio.quality"), _kept),
    ]


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of a table: the fixed ones, and those ratios that at least one row has."""
    return [
        column
        for index, column in enumerate(all_columns(rows))
        if index < FIXED or any(column.value(row) is not None for row in rows)
    ]


def look_up(row: Row, path: str) -> Any:
    """Return the value at a dotted path, ``None`` where any part of it is missing."""
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def label(row: Row) -> str:
    """Return the model's name with its depth and width, such as ``student (3×384)``."""
    shape = row.get("shape") or {}
    if shape.get("layers") is None or shape.get("hidden") is None:
        return row["model"]
    return f"{row['model']} ({shape['layers']}×{shape['hidden']})"


def speedup(value: Any) -> tuple[float, float, float] | None:
    """Return median, 10th and 90th percentile of how many times faster a latency ratio is."""
    if value is None:
        return None
    return 1 / value["median"], 1 / value["p90"], 1 / value["p10"]


def _at(path: str) -> Callable[[Row], Any]:
    return lambda row: look_up(row, path)


def _number(title: str, key: str, path: str, scale: float = 1.0) -> Column:
    def value(row: Row) -> float | None:
        found = look_up(row, path)
        return None if found is None else found * scale

    return Column(title, key, value, lambda row: _text(value(row), 1))


def _ratio(title: str, key: str, path: str, invert: bool = False) -> Column:
    def triple(row: Row) -> tuple[float, ...] | None:
        found = look_up(row, path)
        if isinstance(found, dict):
            return speedup(found) if invert else (found["median"], found["p10"], found["p90"])
        return None if found is None else (1 / found if invert else found,)

    def value(row: Row) -> float | None:
        found = triple(row)
        return None if found is None else found[0]

    def cell(row: Row) -> str:
        found = triple(row)
        if found is None:
            return DASH
        spread = f" ({found[1]:.2f}–{found[2]:.2f})" if len(found) == 3 else ""
        return f"{found[0]:.2f}{spread}"

    return Column(title, key, value, cell)


def _text(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def _model(row: Row) -> str:
    return f"{row['model']} (failed)" if row.get("error") else label(row)


def _latency(device: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        latency = look_up(row, f"{device}.latency_ms")
        return DASH if latency is None else f"{latency['p50']:.2f} (p90 {latency['p90']:.2f})"

    return cell


def _quality(row: Row) -> str:
    return _text(look_up(row, "quality.value"), 4)


def _kept(row: Row) -> str:
    value = look_up(row, "ratio.quality")
    return DASH if value is None else f"{100 * value:.1f} %"
