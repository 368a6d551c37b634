"""Checkpoints of a run: the best one, and the last one to go on from."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info


class BestAndLast(ModelCheckpoint):
    """``ModelCheckpoint`` whose best checkpoint survives an interrupted fit.

    Lightning's own saves the weights of the moment under ``filename`` when an exception comes; with a fixed
    filename that is the best checkpoint, and its metric would be that of other weights.
    """

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save what is there as the last checkpoint, and say how to go on."""
        if not self._should_save_on_exception(trainer):
            return
        if not self.save_last:
            super().on_exception(trainer, pl_module, exception)
            return
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        rank_zero_info(
            f"{type(exception).__name__} at step {trainer.global_step}: saved {self.last_model_path}; "
            "--ckpt_path last goes on from there."
        )
