"""The physical shrink: a masked model in, a smaller ordinary model out."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.models.anatomy import UniformShape
from lit_compress.pruning.alive import alive_units
from lit_compress.pruning.bake import bake
from lit_compress.pruning.depth import closed_blocks, drop_blocks
from lit_compress.pruning.low_rank import cut_ranks
from lit_compress.pruning.shape import cut_further
from lit_compress.pruning.uniform import cut_uniform
from lit_compress.quantization.stored import stored_of


def shrink(model: PreTrainedModel, uniform: UniformShape | None = None, round_to: int = 1) -> PreTrainedModel:
    """Return a copy of a model without the units that do nothing.

    A unit does nothing where its gates are closed, and where its weights are zero, whoever made them zero. The copy
    computes what the masked model computes. A closed attention or feed-forward network keeps the norm behind it, as
    it does when it is masked. Closed rows of the vocabulary stay as zeros, because the tokenizer has their pieces too:
    :func:`~lit_compress.pruning.vocabulary.trim_closed` cuts both.

    Args:
        model: A model, masked or not, cut before or not; not changed.
        uniform: One size for all blocks instead of what is left in each; units with the largest weights stay.
            Only such a model can be loaded by stock transformers, and it differs from the masked one where
            units that did something had to go.
        round_to: Keep a multiple of this many neurons per block; what is added are zeros.

    Returns:
        The smaller model, in eval mode, with nothing of ours in its modules.

    Raises:
        ValueError: The family has no adapter, nothing would be left, or the configuration cannot say the shape.
    """
    if round_to < 1:
        raise ValueError(
            f"Expected round_to to be at least 1 but got {round_to}; leave it out for no rounding."
        )
    for name, _ in stored_of(model):
        raise ValueError(
            f"Expected a model with ordinary weights to shrink but {name} is stored in few bits; shrink the folder "
            "that it was made from, and quantize the result."
        )
    small: Any = copy.deepcopy(model).eval()
    cut_dead(small, bake(small), uniform, round_to)
    return small


def cut_dead(
    model: PreTrainedModel,
    gates: dict[str, Tensor],
    uniform: UniformShape | None = None,
    round_to: int = 1,
) -> None:
    """Cut units that do nothing out of a model whose gates and masks are in its weights already.

    Args:
        model: Changed in place.
        gates: What :func:`~lit_compress.pruning.bake.bake` returned.
        uniform: See :func:`shrink`.
        round_to: See :func:`shrink`.
    """
    drop_blocks(model, closed_blocks(gates))
    cut_ranks(model)
    if uniform is not None:
        cut_uniform(model, uniform, gates.get("hidden"))
        return
    units = _units(model, gates, round_to)
    if units:
        cut_further(model, units)


def _units(model: PreTrainedModel, gates: dict[str, Tensor], round_to: int) -> dict[str, list[int]]:
    """Return the units to keep of every group that loses some."""
    units = {}
    for group, alive in alive_units(model):
        if group.structure == "neuron" and alive.any():
            missing = min(group.units, -(-int(alive.sum()) // round_to) * round_to) - int(alive.sum())
            alive[(~alive).nonzero().flatten()[:missing]] = True
        if not alive.all():
            units[group.name] = alive.nonzero().flatten().tolist()
    if "hidden" in gates and not gates["hidden"].all():
        units["hidden"] = gates["hidden"].nonzero().flatten().tolist()
    return units
