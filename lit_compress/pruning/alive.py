"""Which units do something, by their weights alone: whoever made them zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from lit_compress.models.anatomy import Block, dissect
from lit_compress.models.low_rank import ends
from lit_compress.pruning.groups import Group, Slot, find_groups, tensor_of

#: Names of the activation inside the feed-forward networks in the configurations of transformers.
_ACTIVATIONS = ("hidden_act", "activation", "activation_function")


def alive_units(model: PreTrainedModel) -> list[tuple[Group, Tensor]]:
    """Return which heads and neurons do something.

    A unit does nothing where all weights that it writes with are zero. A head does nothing either where its values
    are zero (rows and bias), a neuron where its inputs are zero (rows and bias) and the activation maps 0 to 0, or
    where one of the two factors of a gated feed-forward network is zero.

    Args:
        model: A transformer of a supported family, with gates and masks folded into its weights.

    Returns:
        Every group of heads and neurons with booleans ``(units,)``.
    """
    keeps_zero = _keeps_zero(model)
    blocks = dissect(model).blocks
    return [
        (group, _writes(model, group) & _hears(model, group, blocks, keeps_zero))
        for group in find_groups(model, ["head", "neuron"], strict=False)
    ]


def _keeps_zero(model: PreTrainedModel) -> bool:
    """Whether the activation of the feed-forward networks maps 0 to 0; not where nobody knows it."""
    names = [getattr(model.config, name, None) for name in _ACTIVATIONS]
    found = [ACT2FN[name] for name in names if isinstance(name, str) and name in ACT2FN]
    return bool(found) and all(float(function(torch.zeros(1))) == 0.0 for function in found)


def _writes(model: nn.Module, group: Group) -> Tensor:
    """Return which units write anything."""
    alive = torch.zeros(group.units, dtype=torch.bool)
    for slot in group.gated:
        alive |= slot_norms(model, slot, group.units) > 0
    return alive


def _hears(model: nn.Module, group: Group, blocks: tuple[Block, ...], keeps_zero: bool) -> Tensor:
    """Return which units have anything that is not zero to write."""
    block = blocks[group.layer or 0]
    if group.structure == "head":
        attention = next(part for part in block.attentions if f"{part.module}.head" == group.name)
        values = attention.inputs[-1]
        return _any_weight(
            model, group, [s for s in _inside(model, group, values.module) if s.start == values.start]
        )
    assert block.feed_forward is not None
    paths = block.feed_forward.inputs
    if not keeps_zero:
        return torch.ones(group.units, dtype=torch.bool)
    # Of a gated network one factor that is zero is enough.
    alive = [_any_weight(model, group, _inside(model, group, path)) for path in paths]
    return torch.stack(alive).all(0)


def _inside(model: nn.Module, group: Group, path: str) -> list[Slot]:
    outputs = {slot.name for slot in group.gated}
    _, module = ends(model.get_submodule(path), path)
    # A layer in two factors has its weights in modules below it.
    places = (slot for slot in group.cut if slot.module == module or slot.module.startswith(f"{module}."))
    return [slot for slot in places if slot.name not in outputs]


def _any_weight(model: nn.Module, group: Group, slots: list[Slot]) -> Tensor:
    return torch.stack([slot_norms(model, slot, group.units) > 0 for slot in slots]).any(0)


def slot_norms(model: nn.Module, slot: Slot, units: int) -> Tensor:
    """Return the Euclidean norm of each unit's piece of a tensor, shape ``(units,)``, on the CPU."""
    pieces: Any = tensor_of(model, slot).detach().movedim(slot.axis, 0)
    pieces = pieces[slot.start : slot.start + units * slot.width].reshape(units, -1)
    return torch.linalg.vector_norm(
        pieces, dim=1, dtype=torch.promote_types(pieces.dtype, torch.float32)
    ).cpu()


def writing_norms(model: nn.Module, group: Group) -> Tensor:
    """Return the Euclidean norm of all that each unit writes with, shape ``(units,)``."""
    squares = [slot_norms(model, slot, group.units).square() for slot in group.gated]
    return torch.stack(squares).sum(0).sqrt()
