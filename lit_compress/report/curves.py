"""Training curves from what a run has logged to CSV."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable
from pathlib import Path

Points = list[tuple[int, float]]
#: Metrics of a fit. What ``test`` logs is no curve.
_PREFIXES = ("train/", "val/", "compress/")
#: More points than this per curve cannot be seen, and make the page large.
MAX_POINTS = 120


def read_curves(paths: Iterable[str | Path]) -> dict[str, dict[str, Points]]:
    """Return the curves of all runs at or below some paths.

    Args:
        paths: Run folders, folders above them, or results files in run folders.

    Returns:
        For each run, named by its folder as seen from all runs' common one, the points ``(step, value)`` of
        each metric: training objectives first, then validation. Runs without ``logs`` are left out.
    """
    runs: dict[Path, None] = {}
    for path in map(Path, paths):
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        found = sorted(folder.rglob("logs/version_*/metrics.csv"))
        runs.update(dict.fromkeys(file.parents[2] for file in found))
    curves = {run: read_run(run) for run in runs}
    root = Path(os.path.commonpath([run.parent for run in runs])) if runs else Path()
    return {str(run.relative_to(root)): curve for run, curve in curves.items() if curve}


def read_run(run: Path) -> dict[str, Points]:
    """Return the curves of one run; where a resumed fit repeats steps, those of the later fit count."""
    curves: dict[str, Points] = {}
    for version in sorted((run / "logs").glob("version_*"), key=_number):
        # validate and test begin again at step 0; only a fit logs training metrics.
        fit = _read(version / "metrics.csv")
        if any(name.startswith("train/") for name in fit):
            for name, points in fit.items():
                earlier = [point for point in curves.get(name, []) if point[0] < points[0][0]]
                curves[name] = earlier + points
    order = sorted(curves, key=lambda name: (_PREFIXES.index(_prefix(name)), name != "train/loss", name))
    return {name: thin(curves[name]) for name in order}


def _number(version: Path) -> int:
    end = version.name.removeprefix("version_")
    return int(end) if end.isdigit() else -1


def _prefix(name: str) -> str:
    return next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")


def _read(file: Path) -> dict[str, Points]:
    found: dict[str, dict[int, float]] = {}
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            step = _finite(row.pop("step", None))
            for name, text in row.items():
                value = _finite(text)
                if step is not None and value is not None and name and _prefix(name):
                    found.setdefault(name, {})[int(step)] = value
    return {name: sorted(points.items()) for name, points in found.items()}


def _finite(text: object) -> float | None:
    """Return a number, ``None`` for an empty cell, one that a kill cut short, and NaN."""
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def thin(points: Points) -> Points:
    """Return at most :data:`MAX_POINTS` of the points, evenly chosen, the first and the last among them."""
    if len(points) > MAX_POINTS:
        last = len(points) - 1
        points = [points[round(index * last / (MAX_POINTS - 1))] for index in range(MAX_POINTS)]
    return [(step, float(f"{value:.5g}")) for step, value in points]
