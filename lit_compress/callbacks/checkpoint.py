"""Checkpoints of a run: the best one, and the last one to go on from."""

from __future__ import annotations

from dataclasses import replace

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from lit_compress.callbacks.transform import TransformCallback
from lit_compress.modules.progress import progress_of


class BestAndLast(ModelCheckpoint):
    """``ModelCheckpoint`` whose last checkpoint is the last, and whose best one survives an interrupted fit.

    Lightning's own writes ``last.ckpt`` only when the metric has improved, so that a killed fit would begin
    again at its best epoch. And when an exception comes it saves the weights of the moment under
    ``filename``; with a fixed filename that is the best checkpoint, whose metric would be that of other weights.
    """

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the best checkpoint where the metric has improved, and the last one."""
        if not unsettled(trainer, pl_module):
            super().on_validation_end(trainer, pl_module)
        if not self._should_save_on_train_epoch_end(trainer):
            self._keep_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do the same where checkpoints belong to the end of the training epoch."""
        if not unsettled(trainer, pl_module):
            super().on_train_epoch_end(trainer, pl_module)
        if self._should_save_on_train_epoch_end(trainer):
            self._keep_last(trainer)

    def _keep_last(self, trainer: pl.Trainer) -> None:
        if self.save_last and not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save what is there as the last checkpoint, and say how to go on."""
        if not self.save_last:
            super().on_exception(trainer, pl_module, exception)
            return
        if self._should_save_on_exception(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        if self._last_global_step_saved == trainer.global_step > 0:
            rank_zero_info(
                f"{type(exception).__name__} at step {trainer.global_step}, saved in {self.last_model_path}; "
                "--ckpt_path last goes on from there."
            )


def unsettled(trainer: pl.Trainer, pl_module: pl.LightningModule) -> list[TransformCallback]:
    """Return what changes the structure of the model and has not reached its aim."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    moving = [callback for callback in callbacks if isinstance(callback, TransformCallback)]
    if not moving:
        return []
    progress = progress_of(trainer, pl_module, 0)
    # Structures move at the start of a step: what is there now was decided when the last one began.
    progress = replace(progress, step=max(0, progress.step - 1))
    return [callback for callback in moving if not callback.settled(progress)]
