"""The map of kept heads and neurons as a picture, for files and for W&B."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_compress.report.groups import Group, Row
from lit_compress.report.maps import kept_caption

_KEPT, _GONE = "#0072B2", "0.9"


def draw_maps(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Draw the kept heads and neurons of all pruned models of each group.

    Args:
        groups: Groups of comparable rows.
        folder: Where to write ``maps_heads.png`` and ``.svg``; the second group's names end in ``_2``, and so on.

    Returns:
        The files; none for a group without a pruned model.
    """
    from matplotlib import rc_context

    written = []
    with rc_context({"text.parse_math": False, "svg.hashsalt": "lit-compress"}):
        for number, group in enumerate(groups, start=1):
            found = pruned(group.rows)
            if not found:
                continue
            figure = map_figure(found)
            for kind in ("png", "svg"):
                path = folder / f"maps_heads{'' if number == 1 else f'_{number}'}.{kind}"
                figure.savefig(path, metadata={"Date": None} if kind == "svg" else None)
                written.append(path)
    return written


def pruned(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return ``heads`` and ``neurons`` of the models that lost some, by their names."""
    shapes = {row["model"]: row.get("shape") or {} for row in rows}
    return {name: shape for name, shape in shapes.items() if shape.get("heads") or shape.get("neurons")}


def map_figure(models: dict[str, dict[str, Any]]) -> Any:
    """Return a matplotlib figure: a line per model, heads on the left, neurons on the right.

    Args:
        models: ``heads`` (flags per layer) and ``neurons`` (``[kept, of]`` per layer) by the name of the model.
    """
    # Figure is used without pyplot, which would keep every figure in memory and pick a screen backend.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers = [len(shape.get("heads") or shape["neurons"]) for shape in models.values()]
    heights = [0.9 + 0.26 * count for count in layers]
    figure = Figure(figsize=(8, sum(heights) + 0.3), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(models), 2, squeeze=False, height_ratios=heights, width_ratios=(3, 2))
    for (left, right), (name, shape) in zip(grid, models.items(), strict=True):
        heads, neurons = shape.get("heads") or [], shape.get("neurons") or []
        left.set_title(kept_caption(name, heads, neurons), fontsize=9, loc="left")
        _draw_heads(left, heads)
        _draw_neurons(right, neurons)
    return figure


def _draw_heads(axes: Any, heads: Sequence[Sequence[int]]) -> None:
    from matplotlib.colors import ListedColormap

    if not any(heads):
        axes.set_axis_off()
        return
    width = max(map(len, heads))
    table = [[float(flag) for flag in flags] + [float("nan")] * (width - len(flags)) for flags in heads]
    axes.pcolormesh(
        table, cmap=ListedColormap([_GONE, _KEPT]), vmin=0, vmax=1, edgecolors="white", linewidth=1.5
    )
    axes.set_xlabel("head", fontsize=8)
    axes.set_ylabel("layer", fontsize=8)
    _layers(axes, len(heads))
    axes.set_xticks([n + 0.5 for n in range(width)], [str(n + 1) for n in range(width)], fontsize=7)


def _draw_neurons(axes: Any, neurons: Sequence[Sequence[int]]) -> None:
    if not neurons:
        axes.set_axis_off()
        return
    at = [n + 0.5 for n in range(len(neurons))]
    axes.barh(at, [of for _, of in neurons], color=_GONE, height=0.8)
    axes.barh(at, [kept for kept, _ in neurons], color=_KEPT, height=0.8)
    most = max(of for _, of in neurons)
    for place, (kept, _) in zip(at, neurons, strict=True):
        axes.text(1.02 * most, place, f"{kept}", va="center", fontsize=7)
    axes.set_xlim(0, 1.15 * most)
    axes.set_xlabel("neurons", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    _layers(axes, len(neurons))


def _layers(axes: Any, count: int) -> None:
    axes.set_yticks([n + 0.5 for n in range(count)], [str(n + 1) for n in range(count)], fontsize=7)
    # The first layer on top, as in the table.
    axes.set_ylim(count, 0)
    axes.tick_params(length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
