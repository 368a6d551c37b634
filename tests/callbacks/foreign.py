"""A module that has never heard of this library, and fits of it."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import nn

from tests.tiny import tiny_batch, tiny_bert


class Foreign(pl.LightningModule):
    """A module that has never heard of this library; its batches depend on nothing but their number."""

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self.net = model or tiny_bert(layers=2, hidden=16)

    def training_step(self, batch, batch_idx):
        rows = tiny_batch(seed=batch_idx)
        rows.pop("example_id")
        return self.net(**rows).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.1)


class Batches:
    """A loader that goes on where it was, as a plain one does not."""

    def __init__(self, batches) -> None:
        self.batches, self.position = batches, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):
        while self.position < len(self.batches):
            self.position += 1
            yield self.batches[self.position - 1]
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


def fit(callbacks, folder, steps=8, accumulate=1, resume=None, module=None, **options) -> pl.LightningModule:
    """Fit a module for some optimizer steps; return it."""
    module = module or Foreign()
    trainer = pl.Trainer(
        default_root_dir=str(folder),
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=True,
        accumulate_grad_batches=accumulate,
        callbacks=callbacks,
        **{
            "enable_checkpointing": any(isinstance(c, pl.callbacks.ModelCheckpoint) for c in callbacks),
            **options,
        },
    )
    # The batches that callbacks see are the ones that the module uses.
    batches = [tiny_batch(seed=index) for index in range(steps * accumulate)]
    trainer.fit(module, Batches(batches), ckpt_path=resume, weights_only=True)
    return module
