"""Settings of L0Pruning for every paper, and fits of a model that is wide enough for their targets."""

from __future__ import annotations

import lightning.pytorch as pl

from lit_compress.callbacks import L0Pruning
from lit_compress.pruning.target import Target
from tests.callbacks import foreign
from tests.tiny import tiny_bert

JOINT = ["head", "neuron", "attention", "feed_forward", "hidden"]
SETS = {
    "penalty": {"penalty": 1.0},
    "pair": {"target": Target(sparsity=0.5)},
    "cofi": {"structures": JOINT, "target": Target(sparsity=0.5), "evaluation": "expected"},
    "flop": {"structures": ["rank"], "target": Target(sparsity=0.5), "evaluation": "expected", "beta": 1.0},
}


def l0(name: str, **changes) -> L0Pruning:
    return L0Pruning(**{**SETS[name], **changes})


def wide() -> foreign.Foreign:
    return foreign.Foreign(tiny_bert(layers=2, hidden=32))


def fit(callbacks, folder, module=None, **options) -> pl.LightningModule:
    """Fit a module, a wide one where it is left out; see ``foreign.fit``."""
    return foreign.fit(callbacks, folder, module=module or wide(), **options)
