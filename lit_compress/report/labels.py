"""Places names beside the points of a plot so that none covers another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Point = tuple[float, float]
Box = tuple[float, float, float, float]

_DIRECTIONS = 12
_DISTANCES = (9, 18, 30, 44, 60)


def place_labels(
    axes: Any,
    points: Sequence[Point],
    names: Sequence[str],
    lines: Sequence[tuple[Point, Point]] = (),
) -> None:
    """Write a name beside each point.

    Every name takes the nearest free place around its point; a thin line leads to it from afar. A name
    for which there is none is left out: the table has it.

    Args:
        axes: Matplotlib axes whose limits are final.
        points: In data coordinates; the first ones choose their places first.
        names: One per point; an empty one only keeps others off its point.
        lines: Horizontal and vertical lines that names must not cross.
    """
    figure = axes.figure
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    radius = 6 * figure.dpi / 72
    pixels = [tuple(axes.transData.transform(point)) for point in points]
    taken = [_around(pixel, pixel, radius) for pixel in pixels]
    for start, end in lines:
        taken.append(_around(axes.transData.transform(start), axes.transData.transform(end), 1.0))
    inside = tuple(axes.get_window_extent(renderer).extents)
    for point, name, pixel in zip(points, names, pixels, strict=True):
        if name:
            _place(axes, point, name, pixel, taken, inside, renderer)


def _around(start: Sequence[float], end: Sequence[float], margin: float) -> Box:
    (x1, y1), (x2, y2) = start, end
    return min(x1, x2) - margin, min(y1, y2) - margin, max(x1, x2) + margin, max(y1, y2) + margin


def _place(
    axes: Any, point: Point, name: str, pixel: Point, taken: list[Box], inside: Box, renderer: Any
) -> None:
    scale = axes.figure.dpi / 72
    text = axes.annotate(name, point, xytext=(0, 0), textcoords="offset points", fontsize=8, zorder=5)
    extent = text.get_window_extent(renderer)
    for distance in _DISTANCES:
        for step in range(_DIRECTIONS):
            angle = 2 * math.pi * step / _DIRECTIONS
            x = (
                pixel[0]
                + scale * distance * math.cos(angle)
                - (extent.width if math.cos(angle) < -0.1 else 0)
            )
            y = pixel[1] + scale * distance * math.sin(angle) - extent.height / 2
            box = (x - 2, y - 2, x + extent.width + 2, y + extent.height + 2)
            if _within(box, inside) and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                # Drawn text reaches below its anchor, which is the baseline.
                lift = pixel[1] - extent.y0
                text.set_position(((x - pixel[0]) / scale, (y - pixel[1] + lift) / scale))
                if distance > _DISTANCES[1]:
                    _lead(axes, point, text.get_position())
                return
    text.remove()


def _lead(axes: Any, point: Point, offset: Point) -> None:
    style = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
    axes.annotate("", point, xytext=offset, textcoords="offset points", arrowprops=style, zorder=2)


def _within(box: Box, outer: Box) -> bool:
    return box[0] >= outer[0] and box[1] >= outer[1] and box[2] <= outer[2] and box[3] <= outer[3]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
