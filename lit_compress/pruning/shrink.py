"""The physical shrink: a masked model in, a smaller ordinary model out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.models.anatomy import UniformShape, dissect, family_of
from lit_compress.models.transforms import record
from lit_compress.pruning.bake import bake
from lit_compress.pruning.cutting import cut_units
from lit_compress.pruning.groups import Group, find_groups, tensor_of


def shrink(model: PreTrainedModel, uniform: UniformShape | None = None, round_to: int = 1) -> PreTrainedModel:
    """Return a copy of a model without the units that do nothing.

    A unit does nothing where its gates are closed, and where all weights that it writes with are zero, whoever made
    them zero. The copy computes what the masked model computes. A closed attention or feed-forward network keeps
    the norm behind it, as it does when it is masked.

    Args:
        model: A model, masked or not; not changed.
        uniform: One size for all blocks instead of what is left in each; units with the largest weights stay.
            Only such a model can be loaded by stock transformers, and it differs from the masked one where
            units that did something had to go.
        round_to: Keep a multiple of this many neurons per block; what is added are zeros.

    Returns:
        The smaller model, in eval mode, with nothing of ours in its modules.

    Raises:
        ValueError: The family has no adapter, nothing would be left, or the configuration cannot say the shape.
    """
    small: Any = copy.deepcopy(model).eval()
    gates = bake(small)
    _drop_layers(small, gates)
    units = _alive(small, gates, round_to)
    if units:
        full = {"hidden_size": small.config.hidden_size} if "hidden" in units else {}
        apply_shape(small, units, full)
    return small


def _drop_layers(model: Any, gates: dict[str, Tensor]) -> None:
    """Remove blocks that a switch skips; the switch must be open or closed."""
    closed = {name.removesuffix(".layer") for name, gate in gates.items() if _closed_layer(name, gate)}
    if not closed:
        return
    anatomy = dissect(model)
    for path in anatomy.block_lists:
        blocks = model.get_submodule(path)
        left = [block for index, block in enumerate(blocks) if f"{path}.{index}" not in closed]
        if not left:
            raise ValueError(
                f"Expected at least one layer of {path} to be left but all {len(blocks)} are closed; lower the "
                "sparsity."
            )
        closed -= {f"{path}.{index}" for index in range(len(blocks))}
        drop = nn.ModuleList(left)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, drop)
        family_of(model).set_depth(model, path, len(left))
    if closed:
        raise ValueError(
            f"Expected layers that can be dropped but {sorted(closed)[0]} is used more than once in "
            f"{type(model).__name__}; leave structure 'layer' out."
        )


def _closed_layer(name: str, gate: Tensor) -> bool:
    if not name.endswith(".layer"):
        return False
    value = float(gate)
    if value not in (0.0, 1.0):
        raise ValueError(
            f"Expected the switch of {name} to be open or closed but got {value:.3f}; layers cannot be half open in "
            "a smaller model."
        )
    return value == 0.0


def _alive(model: PreTrainedModel, gates: dict[str, Tensor], round_to: int) -> dict[str, list[int]]:
    """Return the units to keep of every group that loses some."""
    units = {}
    for group in find_groups(model, ["head", "neuron"], strict=False):
        alive = _writes(model, group)
        if group.structure == "neuron" and round_to > 1 and alive.any():
            wanted = min(group.units, -(-int(alive.sum()) // round_to) * round_to)
            alive[(~alive).nonzero().flatten()[: wanted - int(alive.sum())]] = True
        if not alive.all():
            units[group.name] = alive.nonzero().flatten().tolist()
    if "hidden" in gates and not gates["hidden"].all():
        units["hidden"] = gates["hidden"].nonzero().flatten().tolist()
    return units


def _writes(model: nn.Module, group: Group) -> Tensor:
    """Return which units write anything: shape ``(units,)``."""
    alive = torch.zeros(group.units, dtype=torch.bool)
    for slot in group.gated:
        alive |= unit_norms(tensor_of(model, slot), slot.axis, slot.start, slot.width, group.units) > 0
    return alive


def unit_norms(tensor: Tensor, axis: int, start: int, width: int, units: int) -> Tensor:
    """Return the Euclidean norm of each unit's piece of a tensor, shape ``(units,)``."""
    pieces = tensor.detach().movedim(axis, 0)[start : start + units * width]
    return pieces.reshape(units, -1).norm(dim=1).cpu()


def apply_shape(
    model: PreTrainedModel, units: Mapping[str, Sequence[int]], config: Mapping[str, Any]
) -> None:
    """Give a model the shape of a shrunk one; the transform that model folders record.

    Args:
        model: The full model; changed in place.
        units: Units to keep by the name of their group.
        config: Entries of the configuration with which the full model is built, where the shrunk one has others.
    """
    kept = {name: list(indices) for name, indices in units.items()}
    if record(model, "shape", {"units": kept, "config": dict(config)}):
        cut_units(model, kept)
        if "hidden" in kept:
            model.config.hidden_size = len(kept["hidden"])
