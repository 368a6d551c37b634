"""A callback that looks from outside at what a lottery-ticket fit does to the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lit_compress.modules.base import CompressionModule


class Witness(pl.Callback):
    """Write `witness.jsonl`: at the first step of each round, what is left and whether it is what the fit began with.

    It knows nothing of masks: it reads the weights that a forward uses, remembers those of the first step, and takes
    zeros for removed weights. Put it behind the callback that prunes.
    """

    def __init__(self) -> None:
        self._first: dict[str, Tensor] = {}
        self._kept = -1

    @torch.no_grad()
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, CompressionModule) and pl_module.student is not None
        kept, total = counted(pl_module.student)
        if kept == self._kept:
            return
        self._kept = kept
        now = weights_of(pl_module.student)
        self._first = self._first or {name: value.clone() for name, value in now.items()}
        survivors = {name: value != 0 for name, value in now.items()}
        changed = sum(int((value != self._first[name])[survivors[name]].sum()) for name, value in now.items())
        row = {
            "step": trainer.global_step,
            "kept": kept,
            "weights": total,
            "checked": sum(int(left.sum()) for left in survivors.values()),
            "changed": changed,
        }
        with (Path(trainer.default_root_dir) / "witness.jsonl").open("a") as stream:
            stream.write(json.dumps(row) + "\n")

    def state_dict(self) -> dict[str, Any]:
        return {"first": self._first, "kept": self._kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._first, self._kept = state_dict["first"], state_dict["kept"]


def counted(model: nn.Module) -> tuple[int, int]:
    """Weights that are not zero, and all weights, of the matrices that are pruned."""
    matrices: list[Tensor] = [
        cast(Tensor, module.weight)
        for module in model.modules()
        if parametrize.is_parametrized(module, "weight")
    ]
    return sum(int((matrix != 0).sum()) for matrix in matrices), sum(matrix.numel() for matrix in matrices)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Every weight and bias of a model as a forward sees it."""
    return {
        f"{name}.{part}": value.detach()
        for name, module in model.named_modules()
        for part in ("weight", "bias")
        if isinstance(value := getattr(module, part, None), Tensor)
    }
