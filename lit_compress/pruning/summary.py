"""What pruning has left of a model: for rows of results, manifests and model cards."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lit_compress.models.anatomy import FAMILIES, dissect
from lit_compress.models.transforms import transforms_of
from lit_compress.pruning.counting import WeightCount, encoder_matrices, named_tensor
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.shape import shape_of


def kept_units(model: PreTrainedModel) -> dict[str, Any]:
    """Return which heads and how many neurons of each block are left, for the ``shape`` of a row.

    Args:
        model: A model; what it lost is told by the shape that it records.

    Returns:
        ``heads``: a list per block with 1 for each head that is there and 0 for each that was cut out, numbered as
        in the full model; a block with two attentions has the heads of both. ``neurons``: ``[kept, of]`` per block.
        Nothing where the model records no shape.
    """
    shape = shape_of(model)
    if not shape["units"]:
        return {}
    heads: dict[int, list[int]] = {}
    neurons: dict[int, list[int]] = {}
    for group in find_groups(_full(model, shape["config"]), ["head", "neuron"]):
        kept = set(shape["units"].get(group.name, range(group.units)))
        assert group.layer is not None
        if group.structure == "head":
            heads.setdefault(group.layer, []).extend(int(unit in kept) for unit in range(group.units))
        else:
            neurons[group.layer] = [len(kept), group.units]
    return {"heads": list(heads.values()), "neurons": list(neurons.values())}


def _full(model: PreTrainedModel, config: dict[str, Any]) -> PreTrainedModel:
    """Return the full model that a shrunk one was cut from, without memory for its weights."""
    full: Any = copy.deepcopy(model.config)
    for name, value in config.items():
        setattr(full, name, value)
    with torch.device("meta"):
        return type(model)(full)


def pruning_facts(full: nn.Module, shipped: PreTrainedModel) -> dict[str, Any]:
    """Return what the manifest and the card of a pruned model tell.

    Args:
        full: The student as it was trained, with everything that was pruned still in it.
        shipped: What was made of it.

    Returns:
        ``encoder_sparsity``: share of the weights of the blocks' matrices that are gone or zero; ``encoder_zeros``:
        share of them that are still there as zeros; ``layers``, ``heads`` and ``neurons``: ``[kept, of]``. Nothing
        where the student was not pruned.
    """
    if not transforms_of(full) or getattr(shipped.config, "model_type", None) not in FAMILIES:
        return {}
    before: Any = full
    matrices = [named_tensor(shipped, name) for name in encoder_matrices(shipped, dissect(shipped))]
    total = WeightCount(before, []).total
    there, left = sum(m.numel() for m in matrices), sum(int(m.count_nonzero()) for m in matrices)
    pairs = list(zip(_counts(shipped).items(), _counts(before).values(), strict=True))
    return {
        "encoder_sparsity": 1.0 - left / total,
        "encoder_zeros": (there - left) / total,
        **{name: [kept, of] for (name, kept), of in pairs},
    }


def _counts(model: PreTrainedModel) -> dict[str, int]:
    blocks = dissect(model).blocks
    return {
        "layers": len(blocks),
        "heads": sum(attention.heads for block in blocks for attention in block.attentions),
        "neurons": sum(block.feed_forward.neurons for block in blocks if block.feed_forward is not None),
    }
