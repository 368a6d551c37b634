"""Rows of the results as metrics that loggers and checkpoints understand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.dashboard.charts import log_scatters
from lit_compress.report.columns import columns_of, look_up

Row = dict[str, Any]

DEVICES = ("cpu", "gpu")
# metric → (path in the row, factor)
_FIGURES = {
    "params": ("params", 1.0),
    "nonzero_params": ("nonzero_params", 1.0),
    "macs": ("macs.count", 1.0),
    "size_mb": ("bytes", 1e-6),
    "quality": ("quality.value", 1.0),
    "quality_kept": ("ratio.quality", 1.0),
}
_DEVICE_FIGURES = {
    "latency_ms": "latency_ms.p50",
    "latency_p90_ms": "latency_ms.p90",
    "latency_p99_ms": "latency_ms.p99",
    "energy_j": "energy_j_per_text",
}
_MEMORY = {"cpu": "rss_mb", "gpu": "vram_mb"}
# metric → path of a ratio in which lower is better
_SPEEDUPS = {
    "cpu/speedup": "ratio.cpu_latency.median",
    "gpu/speedup": "ratio.gpu_latency.median",
    "times_smaller": "ratio.size",
}

#: Figures of which less is better, as they stand behind ``benchmark/`` or ``benchmark/<runtime>/``.
COSTS = (
    *(name for name in _FIGURES if not name.startswith("quality")),
    *(f"{device}/{name}" for device in DEVICES for name in (*_DEVICE_FIGURES, "peak_mb")),
)


def figures(row: Row) -> dict[str, float]:
    """Return the figures of a row by name, without those that were not taken.

    Args:
        row: A row of the results.

    Returns:
        The figures; ``speedup`` and ``times_smaller`` are times better than the baseline.
    """
    found = {name: _scaled(look_up(row, path), factor) for name, (path, factor) in _FIGURES.items()}
    for device in DEVICES:
        found |= {f"{device}/{name}": value for name, value in _of_device(row, device)}
    for name, path in _SPEEDUPS.items():
        ratio = look_up(row, path)
        found[name] = 1 / ratio if ratio else None
    return {name: float(value) for name, value in found.items() if value is not None}


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _of_device(row: Row, device: str) -> Iterator[tuple[str, float | None]]:
    measured = row.get(device) or {}
    for name, path in _DEVICE_FIGURES.items():
        yield name, look_up(measured, path)
    yield "peak_mb", measured.get(_MEMORY[device])
    for batch in measured.get("throughput") or {}:
        yield f"throughput_{batch}", look_up(measured, f"throughput.{batch}.texts_per_second")
    for length in measured.get("fixed") or {}:
        yield f"latency_{length}_ms", look_up(measured, f"fixed.{length}.latency_ms.p50")


def variant(row: Row, rows: Sequence[Row]) -> str:
    """Return what stands between ``benchmark/`` and the figure in the keys of a row.

    Args:
        row: The row.
        rows: All rows of its session.

    Returns:
        Nothing for eager float32 at the fewest threads; ``onnx-int8/``, ``2-threads/`` and the like otherwise.
    """
    runtime, threads = row["runtime"], row["protocol"]["threads"]
    fewest = min(other["protocol"]["threads"] for other in rows)
    return ("" if runtime == BASELINE_RUNTIME else f"{runtime}/") + (
        "" if threads == fewest else f"{threads}-threads/"
    )


def checkpoint_metrics(rows: Sequence[Row], checkpoint: str | None) -> dict[str, float]:
    """Return the metrics of one checkpoint in all runtimes and thread counts.

    Args:
        rows: Rows of one session.
        checkpoint: What stands in the rows as ``checkpoint``.

    Returns:
        ``benchmark/<device>/<figure>`` for eager float32, ``benchmark/<runtime>/<device>/<figure>`` beside it.
    """
    return {
        f"benchmark/{variant(row, rows)}{name}": value
        for row in rows
        if row["role"] != "teacher" and row.get("checkpoint") == checkpoint
        for name, value in figures(row).items()
    }


def log_rows(loggers: Sequence[Any], rows: Sequence[Row], step: int, seconds: float) -> None:
    """Send the first student's figures to all loggers, and the whole table to those that take tables.

    Args:
        loggers: Lightning loggers.
        rows: Rows of one session.
        step: Step to log at.
        seconds: What the benchmark cost in wall time, logged as ``benchmark/seconds``.
    """
    first = next(row for row in rows if row["role"] != "teacher")
    metrics = {**checkpoint_metrics(rows, first.get("checkpoint")), "benchmark/seconds": seconds}
    columns = columns_of(rows)
    data = [[column.value(row) for column in columns] for row in rows]
    for logger in loggers:
        logger.log_metrics(metrics, step=step)
        if hasattr(logger, "log_table"):
            logger.log_table(key="benchmark/table", columns=[column.key for column in columns], data=data)
        if isinstance(logger, WandbLogger):
            log_scatters(logger, rows, step)
