"""A foreign module, fits of it, and the settings of L0Pruning for every paper."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from lit_compress.callbacks import L0Pruning
from lit_compress.pruning.target import Target
from tests.tiny import tiny_batch, tiny_bert

JOINT = ["head", "neuron", "attention", "feed_forward", "hidden"]
SETS = {
    "penalty": {"penalty": 1.0},
    "pair": {"target": Target(sparsity=0.5)},
    "cofi": {"structures": JOINT, "target": Target(sparsity=0.5), "evaluation": "expected"},
    "flop": {"structures": ["rank"], "target": Target(sparsity=0.5), "evaluation": "expected", "beta": 1.0},
}


def l0(name: str, **changes) -> L0Pruning:
    return L0Pruning(**{**SETS[name], **changes})


class Foreign(pl.LightningModule):
    """A module that has never heard of this library; its batches depend on nothing but their number."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_bert(layers=2, hidden=32)

    def training_step(self, batch, batch_idx):
        rows = tiny_batch(seed=batch_idx)
        rows.pop("example_id")
        return self.net(**rows).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.1)


def fit(callbacks, folder, steps=8, accumulate=1, resume=None, module=None, **options) -> pl.LightningModule:
    """Fit a module for some optimizer steps; return it."""
    module = module or Foreign()
    saves = any(isinstance(callback, pl.callbacks.ModelCheckpoint) for callback in callbacks)
    trainer = pl.Trainer(
        default_root_dir=str(folder),
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=saves,
        deterministic=True,
        accumulate_grad_batches=accumulate,
        callbacks=callbacks,
        **options,
    )
    batches = DataLoader(range(steps * accumulate), batch_size=None)
    trainer.fit(module, batches, ckpt_path=resume, weights_only=True)
    return module
