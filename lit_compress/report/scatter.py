"""Quality against cost: which figures, with which intervals, and which of them form the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lit_compress.report.columns import look_up
from lit_compress.report.groups import Group, Row
from lit_compress.report.pareto import pareto_front


@dataclass(frozen=True)
class Axis:
    """One kind of cost; less is better.

    Args:
        name: Part of the file name.
        title: Label of the axis.
        short: The cost in a word or two.
        path: Where the figure is in a row.
        scale: Factor from the row's unit to the label's.
        ratio: Where the ratio to the baseline is, with its interval; ``None`` for exact figures.
    """

    name: str
    title: str
    short: str
    path: str
    scale: float = 1.0
    ratio: str | None = None


AXES = (
    Axis(
        "latency",
        "CPU latency, ms per text at batch 1",
        "CPU latency",
        "cpu.latency_ms.p50",
        ratio="ratio.cpu_latency",
    ),
    Axis("size", "Size on disk, MB", "size", "bytes", 1e-6),
    Axis("memory", "RAM, MB at the peak", "RAM", "cpu.rss_mb"),
    Axis(
        "gpu_latency",
        "GPU latency, ms per text at batch 1",
        "GPU latency",
        "gpu.latency_ms.p50",
        ratio="ratio.gpu_latency",
    ),
    Axis("gpu_memory", "VRAM, MB at the peak", "VRAM", "gpu.vram_mb"),
)


@dataclass(frozen=True)
class Scatter:
    """The points of one plot.

    Args:
        axis: The cost.
        rows: Rows that have both figures.
        costs: Their costs in the unit of the axis.
        low: Lower ends of the costs.
        high: Upper ends.
        values: Their qualities.
        upward: Whether more quality is better.
        front: Indices of the rows on the Pareto front, cheapest first.
    """

    axis: Axis
    rows: list[Row]
    costs: list[float]
    low: list[float]
    high: list[float]
    values: list[float]
    upward: bool
    front: list[int]


def scatters(group: Group) -> list[Scatter]:
    """Return the plots of a group: those kinds of cost for which at least two rows have both figures."""
    found = (_scatter(group.rows, axis) for axis in AXES)
    return [scatter for scatter in found if len(scatter.rows) >= 2]


def _scatter(rows: Sequence[Row], axis: Axis) -> Scatter:
    chosen = [row for row in rows if look_up(row, axis.path) is not None and row.get("quality")]
    costs = [look_up(row, axis.path) * axis.scale for row in chosen]
    ends = [cost_interval(row, axis) for row in chosen]
    low, high = [end[0] for end in ends], [end[1] for end in ends]
    values = [row["quality"]["value"] for row in chosen]
    upward = all(row["quality"].get("higher_is_better", True) for row in chosen)
    front = pareto_front(low, high, [value if upward else -value for value in values])
    return Scatter(axis, chosen, costs, low, high, values, upward, front)


def cost_interval(row: Row, axis: Axis) -> tuple[float, float]:
    """Return the ends of a row's cost.

    Those of a time are its own, times the relative ends of the ratio to the baseline: that interval has
    been cleared of the machine's drift, which hits both alike. The baseline, to which all are compared, is
    exact; a time that was compared with nothing has the spread of its rounds.

    Args:
        row: A row that has the figure.
        axis: The kind of cost.

    Returns:
        Lower and upper end in the unit of the axis.
    """
    cost = look_up(row, axis.path) * axis.scale
    if axis.ratio is None or row["is_baseline"]:
        return cost, cost
    ratio: dict[str, Any] | None = look_up(row, axis.ratio)
    if ratio:
        return cost * ratio["low"] / ratio["median"], cost * ratio["high"] / ratio["median"]
    low, high = look_up(row, f"{axis.path}_spread") or (cost, cost)
    return min(low, cost), max(high, cost)
