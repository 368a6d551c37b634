"""The shape of a shrunk model as data: which units of the full model are still there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lit_compress.models.transforms import record, rewrite, transforms_of
from lit_compress.pruning.cutting import cut_units

_NAME = "shape"


def apply_shape(
    model: PreTrainedModel, units: Mapping[str, Sequence[int]], config: Mapping[str, Any]
) -> None:
    """Give a full model the shape of a shrunk one; the transform that model folders record.

    Args:
        model: The full model; changed in place.
        units: Units to keep by the name of their group, numbered as in the full model.
        config: Entries of the configuration with which the full model is built, where the shrunk one has others.

    Raises:
        ValueError: A group or a unit does not exist, or the model has another shape already.
    """
    kept = {name: list(indices) for name, indices in units.items()}
    if record(model, _NAME, {"units": kept, "config": dict(config)}):
        _cut(model, kept)


def shape_of(model: nn.Module) -> dict[str, Any]:
    """Return the recorded ``units`` and ``config`` of a model; both are empty where nothing was cut."""
    recorded = [arguments for name, arguments in transforms_of(model) if name == _NAME]
    return dict(recorded[0]) if recorded else {"units": {}, "config": {}}


def cut_further(model: PreTrainedModel, units: Mapping[str, Sequence[int]]) -> None:
    """Cut a model that may have been cut before, and record the whole of it.

    Args:
        model: Changed in place.
        units: Units to keep by the name of their group, numbered as they are now.
    """
    before = shape_of(model)
    config = dict(before["config"])
    if "hidden" in units and "hidden" not in before["units"]:
        config["hidden_size"] = model.config.hidden_size
    composed = dict(before["units"])
    for name, kept in units.items():
        originals = composed.get(name)
        composed[name] = list(kept) if originals is None else [originals[unit] for unit in kept]
    _cut(model, units)
    if composed:
        rewrite(model, _NAME, {"units": composed, "config": config})


def _cut(model: PreTrainedModel, units: Mapping[str, Sequence[int]]) -> None:
    cut_units(model, units)
    if "hidden" in units:
        model.config.hidden_size = len(units["hidden"])


def renumber(model: nn.Module, blocks: str, kept: Sequence[int]) -> None:
    """Give the blocks that are left their new numbers in what is recorded.

    Args:
        model: A model from which blocks were dropped.
        blocks: Path of their list.
        kept: Old numbers of the blocks that are left, in order.
    """
    new = {old: index for index, old in enumerate(kept)}
    pattern = re.compile(rf"^{re.escape(blocks)}\.(\d+)\.")

    def gone(name: str) -> bool:
        found = pattern.match(name)
        return found is not None and int(found[1]) not in new

    def renamed(name: str) -> str:
        return pattern.sub(lambda found: f"{blocks}.{new[int(found[1])]}.", name)

    recorded = shape_of(model)
    units = {renamed(name): list(kept) for name, kept in recorded["units"].items() if not gone(name)}
    if units != recorded["units"]:
        rewrite(model, _NAME, {"units": units, "config": recorded["config"]} if units else None)
