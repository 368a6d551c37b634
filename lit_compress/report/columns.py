"""The columns of the results table: where each figure is found in a row and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lit_compress.benchmark.runtimes import RUNTIMES
from lit_compress.report.groups import Row

#: Stands for a figure that was not taken. Never a zero.
DASH = "–"
# A row of padding and biases that begin with zero are no sparsity.
_FEW_ZEROS = 0.01
#: Columns that a table has besides the model even where they are empty.
FIGURES = ("method", "size_mb", "cpu_ms", "gpu_ms", "ram_mb", "vram_mb", "quality")


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        title: Heading.
        key: Heading in CSV files.
        value: Raw value of a row, ``None`` where there is none.
        parts: Text of a row: the figure, and what is said about it, such as its range and a verdict.
        interval: Low end, high end and verdict of a row's ratio, ``None`` where it is exact or missing;
            only columns of ratios have it.
    """

    title: str
    key: str
    value: Callable[[Row], Any]
    parts: Callable[[Row], tuple[str, ...]]
    interval: Callable[[Row], tuple[float, float, str] | None] | None = None

    @property
    def is_text(self) -> bool:
        """Whether the column holds words rather than numbers."""
        return self.key in ("model", "method", "runtime")

    def cell(self, row: Row) -> str:
        """Return the text of a row in one line."""
        figure, *rest = self.parts(row)
        return f"{figure} ({', '.join(rest)})" if rest else figure


def all_columns(rows: Sequence[Row]) -> list[Column]:
    """Return every column, in the order in which people read them; headings are taken from the rows."""
    quality = next((row["quality"]["metric"] for row in rows if row.get("quality")), "quality")
    return [
        Column("model", "model", lambda row: row["model"], _model),
        _text_column("method", "method"),
        _text_column("runtime", "runtime"),
        _number("threads", "threads", "protocol.threads", digits=0),
        _number("size MB", "size_mb", "bytes", scale=1e-6),
        Column("zeros, not removed", "zeros", zeros, _zeros),
        Column("CPU ms", "cpu_ms", _at("cpu.latency_ms.p50"), _latency("cpu")),
        Column("GPU ms", "gpu_ms", _at("gpu.latency_ms.p50"), _latency("gpu")),
        _number("RAM MB", "ram_mb", "cpu.rss_mb"),
        _number("VRAM MB", "vram_mb", "gpu.vram_mb"),
        _number(quality, "quality", "quality.value", digits=4),
        *_speedups("CPU", largest_batch(rows)),
        *_speedups("GPU", largest_batch(rows)),
        _ratio("× smaller", "times_smaller", "ratio.size"),
        _ratio("× less RAM", "times_less_ram", "ratio.cpu_memory"),
        _ratio("× less VRAM", "times_less_vram", "ratio.gpu_memory"),
        Column("quality kept", "quality_kept", _at("ratio.quality"), _kept),
        _number("cost s", "seconds", "seconds"),
    ]


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of a table: those it always has, and those that say something about these rows."""
    return [
        column for column in all_columns(rows) if column.key in ("model", *FIGURES) or _speaks(column, rows)
    ]


def _speaks(column: Column, rows: Sequence[Row]) -> bool:
    values = {column.value(row) for row in rows}
    if column.key == "runtime":
        return values != {RUNTIMES[0]}
    return len(values) > 1 if column.key == "threads" else values != {None}


def largest_batch(rows: Sequence[Row]) -> str:
    """Return the largest batch size with a throughput, as it is written in the rows."""
    found = {batch for row in rows for device in ("cpu", "gpu") for batch in _throughput(row, device)}
    return max(found, key=int, default="32")


def _throughput(row: Row, device: str) -> dict[str, Any]:
    return look_up(row, f"{device}.throughput") or {}


def look_up(row: Row, path: str) -> Any:
    """Return the value at a dotted path, ``None`` where any part of it is missing."""
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def label(row: Row) -> str:
    """Return the model's name with its depth and width, such as ``student (3×384)``."""
    return f"{row['model']} ({size})" if (size := depth_and_width(row)) else row["model"]


def name_of(row: Row) -> str:
    """Return the model's name with its runtime, such as ``student in onnx-int8``; eager fp32 is not said."""
    return row["model"] if row["runtime"] == RUNTIMES[0] else f"{row['model']} in {row['runtime']}"


def zeros(row: Row) -> float | None:
    """Return the share of the parameters that are still there as zeros, ``None`` where that is next to nothing.

    Zeros make a model no faster and, in its file, no smaller: what a mask closed has to be cut out for that.
    """
    total, nonzero = row.get("params"), row.get("nonzero_params")
    if not total or nonzero is None:
        return None
    share = 1 - nonzero / total
    return share if share >= _FEW_ZEROS else None


def depth_and_width(row: Row) -> str:
    """Return depth and width such as ``3×384``, nothing where they are not known."""
    shape = row.get("shape") or {}
    known = shape.get("layers") is not None and shape.get("hidden") is not None
    return f"{shape['layers']}×{shape['hidden']}" if known else ""


def times_better(value: Any, invert: bool = True) -> tuple[float, ...] | None:
    """Return how many times better than the baseline a ratio is: median, low and high end.

    Args:
        value: What a row has under ``ratio``: a number, or ``median``, ``low`` and ``high``.
        invert: Whether a lower ratio is the better one, as of latency and of size.

    Returns:
        The three numbers, a single one where the ratio is exact, ``None`` where there is none.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        return (1 / value if invert else value,)
    ends = (value["median"], value["low"], value["high"])
    return (1 / ends[0], 1 / ends[2], 1 / ends[1]) if invert else ends


def _at(path: str) -> Callable[[Row], Any]:
    return lambda row: look_up(row, path)


def _text_column(title: str, key: str) -> Column:
    return Column(title, key, lambda row: row.get(key), lambda row: (row.get(key) or DASH,))


def _number(title: str, key: str, path: str, scale: float = 1, digits: int = 1) -> Column:
    def value(row: Row) -> float | None:
        found = look_up(row, path)
        return None if found is None else found * scale

    def parts(row: Row) -> tuple[str, ...]:
        found = value(row)
        return (DASH if found is None else f"{found:.{digits}f}",)

    return Column(title, key, value, parts)


def _speedups(device: str, batch: str) -> list[Column]:
    name = device.lower()
    return [
        _ratio(f"× faster {device}", f"{name}_speedup", f"ratio.{name}_latency"),
        _ratio(
            f"× faster {device}, {batch} at once",
            f"{name}_batch_speedup",
            f"ratio.{name}_throughput_{batch}",
            invert=False,
        ),
    ]


def _ratio(title: str, key: str, path: str, invert: bool = True) -> Column:
    def value(row: Row) -> float | None:
        found = times_better(look_up(row, path), invert)
        return None if found is None else found[0]

    def interval(row: Row) -> tuple[float, float, str] | None:
        found = times_better(look_up(row, path), invert)
        return (found[1], found[2], look_up(row, path)["verdict"]) if found and len(found) == 3 else None

    def parts(row: Row) -> tuple[str, ...]:
        found, ends = value(row), interval(row)
        if found is None:
            return (DASH,)
        return (f"{found:.2f}", f"{ends[0]:.2f}–{ends[1]:.2f}", ends[2]) if ends else (f"{found:.2f}",)

    return Column(title, key, value, parts, interval)


def _model(row: Row) -> tuple[str, ...]:
    about = "failed" if row.get("error") else depth_and_width(row)
    return (row["model"], about) if about else (row["model"],)


def _latency(device: str) -> Callable[[Row], tuple[str, ...]]:
    def parts(row: Row) -> tuple[str, ...]:
        latency = look_up(row, f"{device}.latency_ms")
        return (DASH,) if latency is None else (f"{latency['p50']:.2f}", f"p90 {latency['p90']:.2f}")

    return parts


def _zeros(row: Row) -> tuple[str, ...]:
    share = zeros(row)
    return (DASH if share is None else f"{100 * share:.0f} %",)


def _kept(row: Row) -> tuple[str, ...]:
    value = look_up(row, "ratio.quality")
    return (DASH if value is None else f"{100 * value:.1f} %",)
