"""Scatter plots of one run's measured models, as W&B draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lit_compress.report.columns import label, look_up
from lit_compress.report.scatter import AXES

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger


def scatter_data(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Return the points of each scatter plot that the rows have figures for.

    Args:
        rows: Rows of one session.

    Returns:
        Name → (columns ``model``, ``runtime``, cost, quality; one line per row with both figures). A plot of
        fewer than two points is left out.
    """
    metric = next((row["quality"]["metric"] for row in rows if row.get("quality")), "quality")
    plots = {}
    for axis in AXES:
        points = [
            [label(row), row.get("runtime"), look_up(row, axis.path) * axis.scale, row["quality"]["value"]]
            for row in rows
            if look_up(row, axis.path) is not None and row.get("quality")
        ]
        if len(points) > 1:
            plots[axis.name] = (["model", "runtime", axis.title, metric], points)
    return plots


def log_scatters(logger: WandbLogger, rows: Sequence[dict[str, Any]], step: int) -> None:
    """Log the scatter plots as ``benchmark/quality_by_<cost>``.

    Args:
        logger: A W&B logger.
        rows: Rows of one session.
        step: Step to log at.
    """
    import wandb

    charts = {}
    for name, (columns, points) in scatter_data(rows).items():
        table: Any = wandb.Table(columns=[*columns], data=points)
        title = f"{columns[3]} by {columns[2]}"
        charts[f"benchmark/quality_by_{name}"] = wandb.plot.scatter(table, columns[2], columns[3], title)
    if charts:
        logger.log_metrics(charts, step=step)  # type: ignore[arg-type]
