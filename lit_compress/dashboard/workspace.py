"""The W&B dashboard over the runs of a project, as code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lit_compress.benchmark.metrics import checkpoint_metrics
from lit_compress.benchmark.results import FILE_NAME
from lit_compress.extras import require

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

Row = dict[str, Any]

NAME = "Compression"
#: What a model costs, in the order of the table: figure → title.
_COSTS = {
    "size_mb": "size, MB",
    "cpu/latency_ms": "CPU latency, ms",
    "gpu/latency_ms": "GPU latency, ms",
    "cpu/peak_mb": "RAM, MB",
    "gpu/peak_mb": "VRAM, MB",
}
_STEP = "trainer/global_step"


def build_workspace(target: str, rows: Sequence[Row], objectives: Sequence[str]) -> Workspace:
    """Return the dashboard: the table, quality against each cost, all figures at once, training curves.

    Args:
        target: ``ENTITY/PROJECT`` that the runs were logged to.
        rows: Rows of all runs; they say which figures there are.
        objectives: Names of the objectives, each of which gets its training curve.

    Returns:
        The workspace; building it needs neither a key nor the network.

    Raises:
        ValueError: ``target`` is not ``ENTITY/PROJECT``.
        ImportError: wandb-workspaces is not installed.
    """
    entity, _, project = target.partition("/")
    if not entity or not project or "/" in project:
        raise ValueError(
            f"Expected --wandb-workspace ENTITY/PROJECT but got {target!r}; the entity is your W&B user or team, the "
            "project is trainer.logger.init_args.project (lit-compress in the overlay)."
        )
    require("wandb-dashboard", "the W&B dashboard", "wandb_workspaces")
    from wandb_workspaces import workspaces as ws

    keys = figure_keys(rows)
    metric = next((row["quality"]["metric"] for row in rows if row.get("quality")), "quality")
    costs = [key for key in keys if key.removeprefix("benchmark/") in _COSTS]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            _table(),
            _scatters(keys, metric),
            _parallel(costs, metric),
            _curves(objectives, metric),
        ],
        runset_settings=ws.RunsetSettings(
            pinned_columns=["config:method", *(f"summary:{key}" for key in [*costs, "benchmark/quality"])]
        ),
    )


def figure_keys(rows: Sequence[Row]) -> list[str]:
    """Return the keys under which the runs of these rows log costs and quality, eager float32 first."""
    sessions: dict[str, list[Row]] = {}
    for row in rows:
        sessions.setdefault(row["session"], []).append(row)
    found = {
        key
        for session in sessions.values()
        for row in session
        for key in checkpoint_metrics(session, row.get("checkpoint"))
    }
    variants = sorted({key[: -len("quality")] for key in found if key.endswith("/quality")}, key=len)
    return [prefix + name for prefix in variants for name in (*_COSTS, "quality") if prefix + name in found]


def objective_names(paths: Iterable[str | Path]) -> list[str]:
    """Return the names of the objectives that runs were trained with, as their ``config.yaml`` has them.

    Args:
        paths: Run folders, folders above them, or results files.

    Returns:
        Each name once, in the order of the files; nothing for runs without a configuration.
    """
    names: dict[str, None] = {}
    for path in map(Path, paths):
        files = [path] if path.is_file() else sorted(path.rglob(FILE_NAME))
        for config in (file.with_name("config.yaml") for file in files):
            if config.is_file():
                model = (yaml.safe_load(config.read_text(encoding="utf-8")) or {}).get("model") or {}
                names |= dict.fromkeys((model.get("init_args") or {}).get("objectives") or {})
    return list(names)


def _table() -> Section:
    from wandb_workspaces.reports.v2 import Layout, WeavePanelSummaryTable
    from wandb_workspaces.workspaces import Section

    table = WeavePanelSummaryTable(table_name="benchmark/table", layout=Layout(w=24, h=12))
    return Section(name="Which one to ship", panels=[table], is_open=True)


def _scatters(keys: Sequence[str], metric: str) -> Section:
    """One plot per runtime and cost; the line over its points is the best quality up to that cost."""
    from wandb_workspaces.reports.v2 import ScatterPlot, SummaryMetric
    from wandb_workspaces.workspaces import Section

    panels: list[Any] = []
    for quality in (key for key in keys if key.endswith("/quality")):
        prefix = quality.removesuffix("quality")
        runtime = prefix.removeprefix("benchmark/").rstrip("/")
        panels += [
            ScatterPlot(
                title=f"{metric} by {title}" + (f" ({runtime})" if runtime else ""),
                x=SummaryMetric(prefix + name),
                y=SummaryMetric(quality),
                running_ymax=True,
            )
            for name, title in _COSTS.items()
            if prefix + name in keys
        ]
    return Section(name="Quality against cost", panels=panels, is_open=True)


def _parallel(costs: Sequence[str], metric: str) -> Section:
    from wandb_workspaces.reports.v2 import (
        Config,
        ParallelCoordinatesPlot,
        ParallelCoordinatesPlotColumn,
        SummaryMetric,
    )
    from wandb_workspaces.workspaces import Section

    columns = [ParallelCoordinatesPlotColumn(Config("method"), display_name="method")]
    columns += [
        ParallelCoordinatesPlotColumn(
            SummaryMetric(key), display_name=_COSTS[key.removeprefix("benchmark/")], inverted=True
        )
        for key in costs
    ]
    columns.append(ParallelCoordinatesPlotColumn(SummaryMetric("benchmark/quality"), display_name=metric))
    plot = ParallelCoordinatesPlot(title="All figures at once, the better end up", columns=columns)
    return Section(name="All figures at once", panels=[plot], is_open=True)


def _curves(objectives: Sequence[str], metric: str) -> Section:
    from wandb_workspaces.reports.v2 import LinePlot
    from wandb_workspaces.workspaces import Section

    keys = [f"val/{metric}", "train/loss", *(f"train/{name}" for name in objectives)]
    panels: list[Any] = [LinePlot(title=key, x=_STEP, y=[key]) for key in keys]
    return Section(name="Training curves", panels=panels, is_open=True)
