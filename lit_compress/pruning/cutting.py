"""Cutting units out of tensors, with the attributes that tell their sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lit_compress.models.anatomy import Attention, dissect, family_of
from lit_compress.pruning.groups import Group, find_groups, tensor_of


def cut_units(model: PreTrainedModel, units: Mapping[str, Sequence[int]]) -> None:
    """Keep some units of heads, neurons and hidden dimensions, and remove the others for good.

    Args:
        model: A transformer of a supported family, without parametrizations; changed in place.
        units: 0-based units to keep, by the name of their group; a group that is not named stays whole. No
            unit at all leaves the bias of the output projection.

    Raises:
        ValueError: A group or a unit does not exist.
    """
    groups = {group.name: group for group in find_groups(model, ["head", "neuron", "hidden"], strict=False)}
    for name, kept in units.items():
        _check(name, kept, groups)
    anatomy, family = dissect(model), family_of(model)
    parts: dict[str, tuple[Any, Any]] = {}
    for block in anatomy.blocks:
        for attention in block.attentions:
            parts[f"{attention.module}.head"] = (attention, family.empty_attention)
        if block.feed_forward is not None:
            parts[f"{block.feed_forward.module}.neuron"] = (block.feed_forward, family.empty_feed_forward)
    cut_slots(model, [(groups[name], kept) for name, kept in units.items() if len(kept)])
    for name, kept in units.items():
        if name == "hidden":
            family.resize_hidden(model, len(kept))
            continue
        part, empty = parts[name]
        if not kept:
            empty(model, part)
        elif isinstance(part, Attention):
            family.resize_attention(model.get_submodule(part.module), len(kept))
        else:
            family.resize_feed_forward(model.get_submodule(part.module), len(kept))


def _check(name: str, kept: Sequence[int], groups: Mapping[str, Group]) -> None:
    if name not in groups:
        raise ValueError(
            f"Expected groups of heads, neurons or hidden dimensions of the model but got {name!r}; the first ones "
            f"are {', '.join(list(groups)[:3])}."
        )
    if any(not 0 <= unit < groups[name].units for unit in kept) or len(set(kept)) < len(kept):
        raise ValueError(
            f"Expected units from 0 to {groups[name].units - 1}, each once, of {name} but got {list(kept)[:8]}."
        )
    if name == "hidden" and not kept:
        raise ValueError("Expected at least one hidden dimension to keep but got none; lower the sparsity.")


def cut_slots(model: nn.Module, groups: Iterable[tuple[Group, Sequence[int]]]) -> None:
    """Remove all entries of the units that are not kept from every tensor of their groups.

    Args:
        model: Changed in place; tied tensors stay tied.
        groups: Groups with the units to keep.
    """
    keeps: dict[tuple[str, str, int], Tensor] = {}
    for group, kept in groups:
        gone = sorted(set(range(group.units)) - set(kept))
        for slot in group.cut:
            place = (slot.module, slot.tensor, slot.axis)
            if place not in keeps:
                keeps[place] = torch.ones(tensor_of(model, slot).shape[slot.axis], dtype=torch.bool)
            for unit in gone:
                start = slot.start + unit * slot.width
                keeps[place][start : start + slot.width] = False
    done: dict[int, tuple[Tensor, nn.Parameter]] = {}
    for axis in sorted({axis for _, _, axis in keeps}):
        done.clear()
        for (module, tensor, at), keep in keeps.items():
            if at == axis:
                _cut_tensor(model.get_submodule(module), tensor, axis, keep, done)


def _cut_tensor(
    module: Any, tensor: str, axis: int, keep: Tensor, done: dict[int, tuple[Tensor, nn.Parameter]]
) -> None:
    old = getattr(module, tensor)
    if id(old) not in done:  # a tied tensor is cut once, and stays one tensor
        value = old.detach().index_select(axis, keep.nonzero().flatten().to(old.device)).contiguous()
        # With the old tensor, so that nothing new gets its id.
        done[id(old)] = (old, nn.Parameter(value, requires_grad=old.requires_grad))
    setattr(module, tensor, done[id(old)][1])
    set_sizes(module)


def set_sizes(module: Any) -> None:
    """Set the attributes of a module that repeat the shape of its weight."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, Conv1D):
        module.nx, module.nf = module.weight.shape
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, (nn.Conv1d, nn.Conv2d)):
        module.out_channels, module.in_channels = module.weight.shape[:2]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
