"""The model folder and the results of a run as W&B artifacts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

_STAGING = "WANDB_DATA_DIR"


def log_artifacts(
    loggers: Sequence[Any], name: str, model: Path, results: Path, facts: dict[str, Any]
) -> None:
    """Log ``<name>-model`` and ``<name>-results`` to the W&B loggers; offline they wait for ``wandb sync``.

    W&B keeps a copy until it is sent, so that a later fit into the same folder does not change it. The copy
    is made under the run folder: deleting a run deletes everything of it.

    Args:
        loggers: Lightning loggers; others than W&B's are passed over.
        name: What versions of the artifact have in common, usually the recipe.
        model: The model folder.
        results: ``results.jsonl``; passed over where the run was not measured.
        facts: Metadata of the model, as plain JSON data.
    """
    files = {"model": model, "results": results}
    stem = re.sub(r"[^\w.-]+", "-", name)
    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        import wandb

        with _staging_below(Path(logger.save_dir or ".")):
            for kind, path in files.items():
                if path.exists():
                    metadata = facts if kind == "model" else None
                    artifact = wandb.Artifact(f"{stem}-{kind}", type=kind, metadata=metadata)
                    (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path))
                    logger.experiment.log_artifact(artifact)


@contextmanager
def _staging_below(folder: Path) -> Iterator[None]:
    """Let W&B copy into ``<folder>/wandb`` instead of the home folder, unless the user has named a place."""
    if _STAGING in os.environ:
        yield
        return
    os.environ[_STAGING] = str((folder / "wandb").absolute())
    try:
        yield
    finally:
        del os.environ[_STAGING]
