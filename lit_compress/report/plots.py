"""Quality against cost, with the Pareto front, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lit_compress.report.columns import label, look_up
from lit_compress.report.groups import Group, Row
from lit_compress.report.labels import place_labels
from lit_compress.report.pareto import pareto_front

# Okabe and Ito's colours, which people with any colour vision can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# With more points than this, only the front and the teacher are named; the legend tells the rest apart.
_NAMED = 12


@dataclass(frozen=True)
class Axis:
    """One kind of cost.

    Args:
        name: Part of the file name.
        title: Label of the axis.
        path: Where the figure is in a row.
        scale: Factor from the row's unit to the label's.
        spread: Where the 10th and 90th percentile are, ``None`` for exact figures.
    """

    name: str
    title: str
    path: str
    scale: float = 1.0
    spread: str | None = None


AXES = (
    Axis(
        "latency",
        "CPU latency, ms per text at batch 1",
        "cpu.latency_ms.p50",
        1.0,
        "cpu.latency_ms.p50_spread",
    ),
    Axis("size", "Weights on disk, MB", "bytes", 1e-6),
    Axis(
        "gpu_latency",
        "GPU latency, ms per text at batch 1",
        "gpu.latency_ms.p50",
        1.0,
        "gpu.latency_ms.p50_spread",
    ),
)


def require_matplotlib() -> None:
    """Refuse plots where matplotlib is missing.

    Raises:
        ImportError: Names the command that installs it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Expected matplotlib for the plots of the report but it is not installed; run "
            'pip install "lit-compress[report]".'
        ) from error


def draw_plots(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Draw quality against latency and against size for each group.

    Args:
        groups: Groups of comparable rows; each gets plots of its own.
        folder: Where to write ``quality_latency.png``, ``quality_size.png`` and, with GPU figures,
            ``quality_gpu_latency.png``; the second group's names end in ``_2``, and so on.

    Returns:
        The files. A plot for which fewer than two models have both figures is left out.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    require_matplotlib()
    written = []
    for number, group in enumerate(groups, start=1):
        for axis in AXES:
            rows = [r for r in group.rows if look_up(r, axis.path) is not None and r.get("quality")]
            if len(rows) >= 2:
                suffix = "" if number == 1 else f"_{number}"
                path = folder / f"quality_{axis.name}{suffix}.png"
                _draw(rows, axis, group.title, path)
                written.append(path)
    return written


@dataclass(frozen=True)
class _Cloud:
    """The points of one plot: rows, their costs with lower and upper ends, their qualities."""

    rows: list[Row]
    costs: list[float]
    low: list[float]
    high: list[float]
    values: list[float]

    @classmethod
    def of(cls, rows: list[Row], axis: Axis) -> _Cloud:
        costs = [look_up(row, axis.path) * axis.scale for row in rows]
        low, high = costs, costs
        if axis.spread is not None:
            low, high = ([look_up(row, axis.spread)[end] for row in rows] for end in (0, 1))
        return cls(rows, costs, low, high, [row["quality"]["value"] for row in rows])


def _draw(rows: list[Row], axis: Axis, title: str, path: Path) -> None:
    # Figure is used without pyplot, which would keep every figure in memory and pick a screen backend.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    cloud = _Cloud.of(rows, axis)
    upward = rows[0]["quality"].get("higher_is_better", True)
    front = pareto_front(cloud.low, cloud.high, [v if upward else -v for v in cloud.values])
    _draw_points(axes, cloud)
    _set_limits(axes, cloud)
    stairs = _draw_front(axes, front, cloud)
    _describe(figure, axes, axis, rows[0]["quality"], title, upward)
    _name_points(axes, cloud, front, stairs)
    figure.savefig(path)


def _name_points(axes: Any, cloud: _Cloud, front: list[int], stairs: list[tuple[float, float]]) -> None:
    # The front takes its places first.
    order = [*front, *(index for index in range(len(cloud.rows)) if index not in front)]
    named = [i in front or cloud.rows[i]["role"] == "teacher" or len(order) <= _NAMED for i in order]
    names = [label(cloud.rows[i]) if shown else "" for i, shown in zip(order, named, strict=True)]
    lines = [*pairwise(stairs)]
    lines += [((low, y), (high, y)) for low, high, y in zip(cloud.low, cloud.high, cloud.values, strict=True)]
    place_labels(axes, [(cloud.costs[i], cloud.values[i]) for i in order], names, lines)


def _draw_points(axes: Any, cloud: _Cloud) -> None:
    methods = list(dict.fromkeys(row["method"] for row in cloud.rows if row["role"] != "teacher"))
    styles: list[tuple[str, dict[str, Any]]] = [
        (method, {"color": _COLOURS[n % len(_COLOURS)], "marker": _MARKERS[n % len(_MARKERS)], "s": 46})
        for n, method in enumerate(methods)
    ]
    styles.append(("teacher", {"facecolor": "white", "edgecolor": "black", "marker": "*", "s": 170}))
    kinds = ["teacher" if row["role"] == "teacher" else row["method"] for row in cloud.rows]
    for kind, style in styles:
        chosen = [index for index, other in enumerate(kinds) if other == kind]
        if chosen:
            xs, ys = [cloud.costs[i] for i in chosen], [cloud.values[i] for i in chosen]
            axes.scatter(xs, ys, label=kind, zorder=3, **style)
    left = [max(0.0, cost - low) for cost, low in zip(cloud.costs, cloud.low, strict=True)]
    right = [max(0.0, high - cost) for cost, high in zip(cloud.costs, cloud.high, strict=True)]
    if any(left) or any(right):
        bars = {"fmt": "none", "ecolor": "0.55", "elinewidth": 1, "capsize": 2, "zorder": 2}
        axes.errorbar(cloud.costs, cloud.values, xerr=[left, right], **bars)


def _draw_front(axes: Any, front: list[int], cloud: _Cloud) -> list[tuple[float, float]]:
    """Draw the front as stairs and return their corners."""
    corners = [(cloud.costs[front[0]], cloud.values[front[0]])]
    for index in front[1:]:
        corners += [(cloud.costs[index], corners[-1][1]), (cloud.costs[index], cloud.values[index])]
    corners.append((axes.get_xlim()[1], corners[-1][1]))
    xs, ys = zip(*corners, strict=True)
    axes.plot(xs, ys, color="0.35", linestyle="--", linewidth=1.1, label="Pareto front", zorder=1)
    return corners


def _set_limits(axes: Any, cloud: _Cloud) -> None:
    costs, values = cloud.costs, cloud.values
    if max(costs) > 8 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(min(costs) / 1.6, max(costs) * 1.6)
    else:
        axes.set_xlim(0, max(costs) * 1.15)
    margin = 0.12 * (max(values) - min(values)) or 0.01
    axes.set_ylim(min(values) - margin, max(values) + 1.6 * margin)


def _describe(figure: Any, axes: Any, axis: Axis, quality: dict[str, Any], title: str, upward: bool) -> None:
    axes.set_xlabel(f"{axis.title}  (← better)")
    axes.set_ylabel(f"{quality['metric']} on {quality['split']}  ({'better →' if upward else '← better'})")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    words = title.split(" · ")
    half = (len(words) + 1) // 2
    lines = [" · ".join(words[:half]), " · ".join(words[half:])]
    if axis.spread is not None:
        lines.append("Bars hold the middle 80 % of the rounds; where they overlap, speeds count as equal.")
    note = "\n".join(lines)
    figure.supxlabel(note, fontsize=7, color="0.4", x=0.01, ha="left")
