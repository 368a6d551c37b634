"""Quality against cost, with the Pareto front, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lit_compress.benchmark.runtimes import RUNTIMES
from lit_compress.extras import require
from lit_compress.report.columns import label, name_of
from lit_compress.report.groups import Group, distinct
from lit_compress.report.labels import place_labels
from lit_compress.report.scatter import Scatter, scatters

# Okabe and Ito's colours, which people with any colour vision can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D", "#999999")
# One marker per runtime; the colour is the method's.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# With more points than this, only the front and the baseline are named; the legend tells the rest apart.
_NAMED = 12


def require_matplotlib() -> None:
    """Refuse plots where matplotlib is missing, with the line that installs it."""
    require("report", "the plots of the report", "matplotlib")


def draw_plots(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Draw quality against each kind of cost, for each group.

    Args:
        groups: Groups of comparable rows; each gets plots of its own.
        folder: Where to write ``quality_latency``, ``quality_size`` and ``quality_memory``, and with GPU
            figures ``quality_gpu_latency`` and ``quality_gpu_memory``, each as ``.png`` and ``.svg``; the
            second group's names end in ``_2``, and so on.

    Returns:
        The files. A plot for which fewer than two rows have both figures is left out.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context

    written = []
    # A dollar in a model's name is no formula. With a fixed salt the same rows give the same SVG.
    with rc_context({"text.parse_math": False, "svg.hashsalt": "lit-compress"}):
        for number, group in enumerate(groups, start=1):
            suffix = "" if number == 1 else f"_{number}"
            for scatter in scatters(group):
                figure = _draw(scatter, group.title)
                for kind in ("png", "svg"):
                    path = folder / f"quality_{scatter.axis.name}{suffix}.{kind}"
                    figure.savefig(path, metadata={"Date": None} if kind == "svg" else None)
                    written.append(path)
    return written


def _draw(scatter: Scatter, title: str) -> Any:
    # Figure is used without pyplot, which would keep every figure in memory and pick a screen backend.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_points(axes, scatter)
    _set_limits(axes, scatter)
    stairs = _draw_front(axes, scatter)
    _describe(figure, axes, scatter, title)
    _name_points(axes, scatter, stairs)
    return figure


def _name_points(axes: Any, scatter: Scatter, stairs: list[tuple[float, float]]) -> None:
    rows, front = scatter.rows, scatter.front
    # The front takes its places first.
    order = [*front, *(index for index in range(len(rows)) if index not in front)]
    named = [i in front or rows[i]["is_baseline"] or len(order) <= _NAMED for i in order]
    many = len({row["runtime"] for row in rows}) > 1
    names = [name_of(rows[i]) if many else label(rows[i]) for i in order]
    lines = [*pairwise(stairs)]
    lines += [
        ((low, y), (high, y))
        for low, high, y in zip(scatter.low, scatter.high, scatter.values, strict=True)
        if high > low
    ]
    points = [(scatter.costs[i], scatter.values[i]) for i in order]
    place_labels(axes, points, [name if yes else "" for name, yes in zip(names, named, strict=True)], lines)


def _draw_points(axes: Any, scatter: Scatter) -> None:
    methods = distinct(row["method"] for row in scatter.rows if not row["is_baseline"])
    runtimes = sorted({row["runtime"] for row in scatter.rows}, key=_rank)
    colours = {method: _COLOURS[n % len(_COLOURS)] for n, method in enumerate(methods)}
    markers = {runtime: _MARKERS[n % len(_MARKERS)] for n, runtime in enumerate(runtimes)}
    for row, cost, value in zip(scatter.rows, scatter.costs, scatter.values, strict=True):
        style = {"color": colours.get(row["method"]), "marker": markers[row["runtime"]], "s": 46}
        if row["is_baseline"]:
            style = {"facecolor": "white", "edgecolor": "black", "marker": "*", "s": 170}
        axes.scatter(cost, value, zorder=3, **style)
    _legend(axes, colours, markers if len(runtimes) > 1 else {})
    left = [max(0.0, cost - low) for cost, low in zip(scatter.costs, scatter.low, strict=True)]
    right = [max(0.0, high - cost) for cost, high in zip(scatter.costs, scatter.high, strict=True)]
    if any(left) or any(right):
        bars = {"fmt": "none", "ecolor": "0.55", "elinewidth": 1, "capsize": 2, "zorder": 2}
        axes.errorbar(scatter.costs, scatter.values, xerr=[left, right], **bars)


def _rank(runtime: str) -> tuple[int, str]:
    return (RUNTIMES.index(runtime) if runtime in RUNTIMES else len(RUNTIMES), runtime)


def _legend(axes: Any, colours: dict[str, str], markers: dict[str, str]) -> None:
    """Put entries without points into the legend: colours for methods, markers for runtimes."""
    circle, grey = {"marker": "o", "s": 46}, {"color": "0.45", "s": 46}
    for method, colour in colours.items():
        axes.scatter([], [], label=method, color=colour, **circle)
    axes.scatter([], [], label="baseline", facecolor="white", edgecolor="black", marker="*", s=130)
    for runtime, marker in markers.items():
        axes.scatter([], [], label=runtime, marker=marker, **grey)


def _draw_front(axes: Any, scatter: Scatter) -> list[tuple[float, float]]:
    """Draw the front as stairs and return their corners."""
    costs, values, front = scatter.costs, scatter.values, scatter.front
    corners = [(costs[front[0]], values[front[0]])]
    for index in front[1:]:
        corners += [(costs[index], corners[-1][1]), (costs[index], values[index])]
    corners.append((axes.get_xlim()[1], corners[-1][1]))
    xs, ys = zip(*corners, strict=True)
    axes.plot(xs, ys, color="0.35", linestyle="--", linewidth=1.1, label="Pareto front", zorder=1)
    return corners


def _set_limits(axes: Any, scatter: Scatter) -> None:
    costs, values = scatter.costs, scatter.values
    if max(costs) > 8 * min(costs):
        low, high = min(costs) / 1.6, max(costs) * 1.6
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        # The default labels of a logarithmic axis are formulas.
        ticks = [step * 10.0**power for power in range(-3, 6) for step in (1, 2, 3, 5)]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if high > 50 * low:
            ticks = [tick for tick in ticks if f"{tick:e}"[0] == "1"]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    else:
        axes.set_xlim(0, max(costs) * 1.15)
    margin = 0.12 * (max(values) - min(values)) or 0.01
    axes.set_ylim(min(values) - margin, max(values) + 1.6 * margin)


def _describe(figure: Any, axes: Any, scatter: Scatter, title: str) -> None:
    quality, better = scatter.rows[0]["quality"], "better →" if scatter.upward else "← better"
    axes.set_xlabel(f"{scatter.axis.title}  (← better)")
    axes.set_ylabel(f"{quality['metric']} on {quality['split']}  ({better})")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    words = title.split(" · ")
    half = (len(words) + 1) // 2
    lines = [" · ".join(words[:half]), " · ".join(words[half:])]
    if scatter.low != scatter.high:
        lines.append(
            "Bars: 95 % interval of the ratio to the baseline; where they overlap, costs count as equal."
        )
    figure.supxlabel("\n".join(lines), fontsize=7, color="0.4", x=0.01, ha="left")
