"""Publishes the dashboard, or writes what would be published."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lit_compress.dashboard.login import has_key, offline_by_choice
from lit_compress.dashboard.workspace import build_workspace, objective_names
from lit_compress.report.command import collect

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

SPEC = "wandb_workspace.json"


def dashboard(runs: Iterable[str | Path], target: str, out: str | Path | None = None) -> str:
    """Publish the dashboard over runs as a saved view of their W&B project, or write its specification.

    Every call makes a new view; delete the old one in the W&B app.

    Args:
        runs: Run folders, folders above them, or results files.
        target: ``ENTITY/PROJECT`` that the runs were logged to.
        out: Folder to write the specification into, as JSON, instead of publishing it.

    Returns:
        The address of the view, or the path of the file.

    Raises:
        ValueError: No results, a wrong target, no key, or W&B refuses.
        ImportError: wandb-workspaces is not installed.
    """
    runs = list(runs)
    workspace = build_workspace(target, collect(runs), objective_names(runs))
    if out is None:
        return publish(workspace)
    path = Path(out) / SPEC
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(specification(workspace), indent=1) + "\n", encoding="utf-8")
    return str(path)


def specification(workspace: Workspace) -> dict[str, object]:
    """Return a workspace as plain JSON data, as W&B is sent it."""
    view = workspace._to_model()
    return {
        "entity": view.entity,
        "project": view.project,
        "displayName": view.display_name,
        "spec": json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True)),
    }


def publish(workspace: Workspace) -> str:
    """Save a workspace as a view of its project.

    Args:
        workspace: The workspace.

    Returns:
        The address of the view.

    Raises:
        ValueError: There is no key, or W&B refuses.
    """
    import wandb

    place = f"{workspace.entity}/{workspace.project}"
    if offline_by_choice() or not has_key():
        why = "WANDB_MODE says offline" if offline_by_choice() else "none is set"
        raise ValueError(
            f"Expected a W&B key to publish the dashboard of {place} but {why}; run wandb login or set WANDB_API_KEY, "
            "or write the specification with --dry-run, which needs neither a key nor the network."
        )
    try:
        workspace.save()
        return str(workspace.url)
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise ValueError(
            f"Expected W&B to take the dashboard of {place} but it said: {' '.join(str(error).split())}; check the "
            "names, that the project has a run, and your rights in it."
        ) from error
