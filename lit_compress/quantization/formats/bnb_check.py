"""Whether a model with layers of bitsandbytes can be saved, and was saved rightly."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.extras import require

# What bitsandbytes leaves on a 4-bit weight that it has rearranged for a forward pass on a CPU.
_REARRANGED = "original_qshape"


def require_bitsandbytes(purpose: str) -> None:
    """Refuse where bitsandbytes, or what transformers loads its layers with, is missing.

    Args:
        purpose: What it is needed for, as in "the method nf4".

    Raises:
        ImportError: Names what is missing and the command that installs it.
    """
    require("bnb", purpose, "bitsandbytes", "accelerate")
    # It warns of its inner casts once per layer and batch.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def refuse_used(model: PreTrainedModel) -> None:
    """Refuse a model whose 4-bit weights were rearranged.

    A forward pass of bitsandbytes on a CPU with AVX-512 does it, and what is saved afterwards has the right integers
    and wrong scales.

    Raises:
        ValueError: It has computed something.
    """
    for name, parameter in model.named_parameters():
        if hasattr(getattr(parameter, "quant_state", None), _REARRANGED):
            raise ValueError(
                f"Expected a 4-bit model to save that has computed nothing yet but {name} was rearranged by a "
                "forward pass, after which bitsandbytes saves wrong scales; save first, or load it anew."
            )


@torch.inference_mode()
def check_saved(folder: Path, model: PreTrainedModel) -> None:
    """Load what was saved and compare it with the model, bit by bit and by what it computes.

    Args:
        folder: The model folder.
        model: What was saved in it; not changed.

    Raises:
        ValueError: They differ, or the model computes nothing finite.
    """
    from lit_compress.models.checkpoint import load
    from lit_compress.pruning.verify import random_inputs

    again, live = load(folder), copy.deepcopy(model).eval()
    ours, theirs = live.state_dict(), again.state_dict()
    wrong = [name for name in {**ours, **theirs} if not _same(ours.get(name), theirs.get(name))]
    if not wrong:
        inputs = random_inputs(model)
        inputs = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        before, after = live(**inputs), again(**inputs)
        # Not finite is not equal to itself.
        wrong = [
            name
            for name in before
            if isinstance(before[name], Tensor) and not torch.equal(before[name], after[name])
        ]
    if wrong:
        raise ValueError(
            f"Expected the saved model to be the one in memory but {wrong[0]} differs after loading; nothing was "
            "written: try another version of bitsandbytes, or --method nearest."
        )


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.dtype == other.dtype and torch.equal(one, other)
