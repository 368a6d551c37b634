"""A row of the results as metrics that loggers and checkpoints understand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lit_compress.report.columns import columns_of, look_up

# metric → (path in the row, factor)
_FIGURES = {
    "params": ("params", 1.0),
    "size_mb": ("bytes", 1e-6),
    "cpu/latency_ms": ("cpu.latency_ms.p50", 1.0),
    "cpu/latency_p90_ms": ("cpu.latency_ms.p90", 1.0),
    "cpu/throughput": ("cpu.throughput.texts_per_second", 1.0),
    "cpu/peak_mb": ("cpu.rss_mb", 1.0),
    "gpu/latency_ms": ("gpu.latency_ms.p50", 1.0),
    "gpu/latency_p90_ms": ("gpu.latency_ms.p90", 1.0),
    "gpu/throughput": ("gpu.throughput.texts_per_second", 1.0),
    "gpu/peak_mb": ("gpu.vram_mb", 1.0),
    "quality": ("quality.value", 1.0),
    "quality_kept": ("ratio.quality", 1.0),
}
# metric → path of a ratio in which lower is better
_SPEEDUPS = {
    "cpu/speedup": "ratio.cpu_latency.median",
    "gpu/speedup": "ratio.gpu_latency.median",
    "times_smaller": "ratio.size",
}


def loggable(row: dict[str, Any]) -> dict[str, float]:
    """Return the figures of a row under the keys ``benchmark/<device>/<figure>``.

    Args:
        row: A row of the results.

    Returns:
        Those figures that were taken; ``speedup`` and ``times_smaller`` are times better than the baseline.
    """
    figures = {name: (look_up(row, path), factor) for name, (path, factor) in _FIGURES.items()}
    metrics = {name: value * factor for name, (value, factor) in figures.items() if value is not None}
    for name, path in _SPEEDUPS.items():
        value = look_up(row, path)
        if value:
            metrics[name] = 1 / value
    return {f"benchmark/{name}": float(value) for name, value in metrics.items()}


def log_rows(loggers: Sequence[Any], rows: Sequence[dict[str, Any]], step: int, seconds: float) -> None:
    """Send the first student's figures to all loggers, and the whole table to those that take tables.

    Args:
        loggers: Lightning loggers.
        rows: Rows of one session.
        step: Step to log at.
        seconds: What the benchmark cost in wall time, logged as ``benchmark/seconds``.
    """
    students = [row for row in rows if row["role"] != "teacher"]
    metrics = {**loggable(students[0]), "benchmark/seconds": seconds}
    columns = columns_of(rows)
    data = [[column.value(row) for column in columns] for row in rows]
    for logger in loggers:
        logger.log_metrics(metrics, step=step)
        if hasattr(logger, "log_table"):
            logger.log_table(key="benchmark/table", columns=[column.key for column in columns], data=data)
