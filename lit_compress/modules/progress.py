"""Where a fit stands, for everything that moves with it."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from lit_compress.schedules import Progress


def progress_of(trainer: pl.Trainer, pl_module: Any, batch_idx: int) -> Progress:
    """Return where a fit stands at the start of a step.

    Raises:
        ValueError: The fit has no end.
    """
    ours = getattr(pl_module, "total_steps", None)
    steps = ours() if callable(ours) else trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise ValueError(
            "Expected a fit with an end but trainer.max_epochs and trainer.max_steps are both -1; schedules need a "
            "length: set one of them."
        )
    batches = trainer.num_training_batches
    share = batch_idx / batches if batches and batches != float("inf") else 0.0
    return Progress(step=trainer.global_step, total_steps=int(steps), epoch=trainer.current_epoch + share)
