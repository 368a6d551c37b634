"""How sparse a model is, and how many parameters it would have once everything closed is gone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.models.anatomy import dissect
from lit_compress.models.parametrized import plain_name
from lit_compress.pruning.counting import encoder_matrices
from lit_compress.pruning.gates import GATES, Gates, gates_of
from lit_compress.pruning.groups import Group, Slot
from lit_compress.pruning.masks import kept_entries


def compressed_size(model: PreTrainedModel) -> tuple[float, int]:
    """Return the sparsity of the blocks, and the parameters that are left, by the masks and gates of evaluation.

    Args:
        model: A model, masked and gated or not.

    Returns:
        Share of the weights of the blocks' matrices that are closed; and the number of all parameters that are
        neither masked nor cut out with the closed units; closed rows of the vocabulary are cut out by
        ``lit-compress shrink``, with the tokenizer.
    """
    masks = kept_entries(model)
    closed = _closed_entries(model)
    dropped = _dropped_blocks(model)
    named = {plain_name(name): parameter for name, parameter in model.named_parameters()}
    kept = {name: _kept(name, tensor, masks, closed, dropped) for name, tensor in named.items()}
    matrices = [name for name in encoder_matrices(model, dissect(model)) if name in named]
    full = sum(named[name].numel() for name in matrices)
    params = sum(number for name, number in kept.items() if not name.startswith(f"{GATES}."))
    return 1.0 - sum(kept[name] for name in matrices) / full, params


def _dropped_blocks(model: Any) -> tuple[str, ...]:
    gates = gates_of(model)
    if gates is None:
        return ()
    return tuple(
        group.name.removesuffix("layer")
        for group, gate in gates.pairs()
        if group.structure == "layer" and not bool(gate.decided().any())
    )


def _closed_entries(model: Any) -> dict[tuple[str, int], Tensor]:
    """Return which entries of each axis of each tensor go with closed units, by ``(name of the tensor, axis)``."""
    gates = gates_of(model)
    found: dict[tuple[str, int], Tensor] = {}
    if gates is None:
        return found
    for group, gate in gates.pairs():
        is_open = gate.decided().detach() != 0
        if group.structure != "layer" and not bool(is_open.all()):
            for slot in _removed(group, gates):
                _close(model, slot, is_open, found)
    return found


def _removed(group: Group, gates: Gates) -> list[Slot]:
    """Return the slots that go; the bias behind an attention or feed-forward network that is closed stays."""
    if group.structure not in ("attention", "feed_forward"):
        return list(group.cut)
    return [slot for slot in group.cut if slot not in group.gated or slot.tensor == "weight"]


def _close(model: Any, slot: Slot, is_open: Tensor, found: dict[tuple[str, int], Tensor]) -> None:
    key = (slot.name, slot.axis)
    if key not in found:
        tensor = getattr(model.get_submodule(slot.module), slot.tensor)
        found[key] = torch.zeros(tensor.shape[slot.axis], dtype=torch.bool)
    end = slot.start + len(is_open) * slot.width
    found[key][slot.start : end] |= ~is_open.cpu().repeat_interleave(slot.width)


def _kept(
    name: str,
    tensor: Tensor,
    masks: dict[str, Tensor],
    closed: dict[tuple[str, int], Tensor],
    dropped: tuple[str, ...],
) -> int:
    if dropped and name.startswith(dropped):
        return 0
    axes = {axis: ~gone for (at, axis), gone in closed.items() if at == name}
    if name in masks:
        keep = masks[name]
        for axis, open_ in axes.items():
            keep = keep.index_select(axis, open_.nonzero().flatten().to(keep.device))
        return int(keep.count_nonzero())
    number = tensor.numel()
    for axis, open_ in axes.items():
        number = number // tensor.shape[axis] * int(open_.count_nonzero())
    return number
