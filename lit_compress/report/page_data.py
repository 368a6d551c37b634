"""What the scripts of the page draw: points of scatters and curves of runs, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_compress.benchmark.runtimes import RUNTIMES
from lit_compress.report.columns import columns_of, name_of
from lit_compress.report.groups import Group, Row, distinct
from lit_compress.report.headline import headline
from lit_compress.report.page_table import row_id
from lit_compress.report.scatter import Scatter, scatters

# What a tooltip says, in this order.
_TOLD = (
    "quality",
    "quality_kept",
    "cpu_ms",
    "gpu_ms",
    "cpu_speedup",
    "gpu_speedup",
    "size_mb",
    "ram_mb",
    "vram_mb",
    "zeros",
)


def group_data(group: Group, number: int) -> dict[str, Any]:
    """Return the scatters of a group and what their tooltips say.

    Args:
        group: The rows.
        number: Number of the group on the page.
    """
    names = {id(row): row_id(number, index) for index, row in enumerate(group.rows)}
    rows = {names[id(row)]: _told(row, group.rows) for row in group.rows}
    # What failed has no point and needs no place in the legend.
    measured = [row for row in group.rows if not row.get("error")]
    runtimes = distinct(row["runtime"] for row in measured)
    return {
        "rows": rows,
        "methods": distinct(row["method"] for row in measured if not row["is_baseline"]),
        "runtimes": sorted(
            runtimes, key=lambda name: (name not in RUNTIMES, name in RUNTIMES and RUNTIMES.index(name))
        ),
        "scatters": [_scatter_data(scatter, names) for scatter in scatters(group)],
    }


def _told(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    columns = {column.key: column for column in columns_of(rows)}
    said = [
        [columns[key].title, columns[key].cell(row)]
        for key in _TOLD
        if key in columns and columns[key].value(row) is not None
    ]
    threads = row["protocol"]["threads"]
    many = len({other["protocol"]["threads"] for other in rows}) > 1
    return {
        "name": row["model"],
        "label": name_of(row) + (f", {threads} threads" if many else ""),
        "method": row["method"],
        "runtime": row["runtime"],
        "baseline": row["is_baseline"],
        "said": said,
    }


def _scatter_data(scatter: Scatter, names: dict[int, str]) -> dict[str, Any]:
    quality = scatter.rows[0]["quality"]
    columns = zip(scatter.rows, scatter.costs, scatter.low, scatter.high, scatter.values, strict=True)
    return {
        "title": scatter.axis.title,
        "quality": f"{quality['metric']} on {quality['split']}",
        "upward": scatter.upward,
        "points": [
            [names[id(row)], *(float(f"{figure:.5g}") for figure in figures)] for row, *figures in columns
        ],
        "front": scatter.front,
    }


def chosen_run(groups: Sequence[Group], runs: Sequence[str]) -> str | None:
    """Return the run whose curves are shown first: that of the fastest model that is good enough, else the first."""
    picked = [pick.row for group in groups[:1] for pick in headline(group).picks if pick.row and pick.share]
    for row in picked:
        folder = Path(row["run"]).name
        found = [run for run in runs if Path(run).name == folder]
        if found:
            return found[0]
    return runs[0] if runs else None
